//! What the API server is told to call: the operator's and virt-api's webhooks, and virt-api's aggregated API.
//!
//! A webhook is registered when its component judges by rules: one that can only refuse would keep users from their own
//! objects. docs/admission.md lists those of the contract that are still missing. Bundles are filled in by the operator.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference as BackendReference,
};
use kubevirt_api::names::{GROUP, annotation, label};

use super::pods::{labels, texts};
use crate::certificates;
use crate::object::Object;

/// The configuration of the operator's own webhooks.
pub const VALIDATOR: &str = "virt-operator-validator";

/// The configuration of the webhook that changes launchers' pods; it exists while its gate is on.
pub const POD_MUTATOR: &str = "virt-launcher-pod-mutator";

/// How long the API server waits for a verdict: look-ups included, and short of what a person waits for.
const TIMEOUT_SECONDS: i32 = 10;

/// The aggregated API's place among all groups, and its versions' place within the group: as clients know them.
const GROUP_PRIORITY: i32 = 1000;
const VERSION_PRIORITY: i32 = 15;

/// Group and versions of what a webhook is asked about.
type Apis = (&'static str, &'static [&'static str]);

const SUITE: Apis = (GROUP, &["v1alpha3", "v1"]);
const CLONES: Apis = ("clone.kubevirt.io", &["v1beta1"]);
const PODS: Apis = ("", &["v1"]);

struct Webhook {
    name: &'static str,
    apis: Apis,
    resource: &'static str,
    operations: &'static [&'static str],
    path: &'static str,
}

const fn webhook(
    name: &'static str,
    resource: &'static str,
    operations: &'static [&'static str],
    path: &'static str,
) -> Webhook {
    Webhook { name, apis: SUITE, resource, operations, path }
}

const OF_OPERATOR: &[Webhook] = &[
    webhook("kubevirt-validator.kubevirt.io", "kubevirts", &["DELETE"], "/kubevirt-validate-delete"),
    webhook("kubevirt-update-validator.kubevirt.io", "kubevirts", &["UPDATE"], "/kubevirt-validate-update"),
    webhook("kubevirt-create-validator.kubevirt.io", "kubevirts", &["CREATE"], "/kubevirt-validate-create"),
];

const OF_VIRT_API: &[Webhook] = &[
    webhook(
        "virtualmachineinstances-update-validator.kubevirt.io",
        "virtualmachineinstances",
        &["UPDATE"],
        "/virtualmachineinstances-validate-update",
    ),
    webhook(
        "migration-update-validator.kubevirt.io",
        "virtualmachineinstancemigrations",
        &["UPDATE"],
        "/migration-validate-update",
    ),
];

const CREATE: &[&str] = &["CREATE"];
const CREATE_OR_UPDATE: &[&str] = &["CREATE", "UPDATE"];

const MUTATORS: &[Webhook] = &[
    webhook("virtualmachines-mutator.kubevirt.io", "virtualmachines", CREATE_OR_UPDATE, "/virtualmachines-mutate"),
    webhook(
        "virtualmachineinstances-mutator.kubevirt.io",
        "virtualmachineinstances",
        CREATE_OR_UPDATE,
        "/virtualmachineinstances-mutate",
    ),
    webhook("migrations-mutator.kubevirt.io", "virtualmachineinstancemigrations", CREATE, "/migration-mutate-create"),
    Webhook {
        apis: CLONES,
        ..webhook("virtualmachineclones-mutator.kubevirt.io", "virtualmachineclones", CREATE, "/vm-clone-mutate-create")
    },
];

const OF_PODS: Webhook = Webhook {
    apis: PODS,
    ..webhook("virt-launcher-pod-mutator.kubevirt.io", "pods", CREATE, "/virt-launcher-pod-mutate")
};

pub(super) fn objects(namespace: &str) -> Vec<Object> {
    let own = ("kubevirt-operator-webhook", certificates::OPERATOR);
    let api = ("virt-api", certificates::VIRT_API);
    let mut objects = vec![
        Object::of(&validators(VALIDATOR, namespace, own, OF_OPERATOR)),
        Object::of(&validators("virt-api-validator", namespace, api, OF_VIRT_API)),
        Object::of(&mutators("virt-api-mutator", api.1, MUTATORS.iter().map(|it| mutator(it, namespace, api.0)))),
        Object::of(&mutators(POD_MUTATOR, api.1, [of_pods(namespace, api.0)])),
    ];
    objects.extend(["v1", "v1alpha3"].map(|version| Object::of(&aggregated(version, namespace))));
    objects
}

fn metadata(name: &str, component: &str, secret: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        labels: Some(labels(&[(label::KUBEVIRT, component)])),
        annotations: Some(labels(&[(annotation::CERTIFICATE_SECRET, secret)])),
        ..Default::default()
    }
}

fn validators(
    name: &str,
    namespace: &str,
    (service, secret): (&str, &str),
    webhooks: &[Webhook],
) -> ValidatingWebhookConfiguration {
    let webhook = |webhook: &Webhook| ValidatingWebhook {
        name: webhook.name.into(),
        admission_review_versions: texts(&["v1"]),
        client_config: called(webhook, namespace, service),
        failure_policy: Some("Fail".into()),
        rules: Some(vec![asked_about(webhook)]),
        side_effects: "None".into(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        ..Default::default()
    };
    ValidatingWebhookConfiguration {
        metadata: metadata(name, name, secret),
        webhooks: Some(webhooks.iter().map(webhook).collect()),
    }
}

fn mutators(
    name: &str,
    secret: &str,
    webhooks: impl IntoIterator<Item = MutatingWebhook>,
) -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration {
        metadata: metadata(name, name, secret),
        webhooks: Some(webhooks.into_iter().collect()),
    }
}

fn mutator(webhook: &Webhook, namespace: &str, service: &str) -> MutatingWebhook {
    MutatingWebhook {
        name: webhook.name.into(),
        admission_review_versions: texts(&["v1"]),
        client_config: called(webhook, namespace, service),
        failure_policy: Some("Fail".into()),
        rules: Some(vec![asked_about(webhook)]),
        side_effects: "None".into(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        ..Default::default()
    }
}

/// A pod that nobody changed is of more use than none; and it is looked at again when others change it.
fn of_pods(namespace: &str, service: &str) -> MutatingWebhook {
    MutatingWebhook {
        failure_policy: Some("Ignore".into()),
        object_selector: Some(LabelSelector {
            match_labels: Some(labels(&[(label::KUBEVIRT, "virt-launcher")])),
            ..Default::default()
        }),
        reinvocation_policy: Some("IfNeeded".into()),
        ..mutator(&OF_PODS, namespace, service)
    }
}

fn called(webhook: &Webhook, namespace: &str, service: &str) -> WebhookClientConfig {
    WebhookClientConfig {
        service: Some(ServiceReference {
            name: service.into(),
            namespace: namespace.into(),
            path: Some(webhook.path.into()),
            port: None,
        }),
        ..Default::default()
    }
}

fn asked_about(webhook: &Webhook) -> RuleWithOperations {
    let (group, versions) = webhook.apis;
    RuleWithOperations {
        api_groups: Some(texts(&[group])),
        api_versions: Some(texts(versions)),
        operations: Some(texts(webhook.operations)),
        resources: Some(texts(&[webhook.resource])),
        scope: None,
    }
}

fn aggregated(version: &str, namespace: &str) -> APIService {
    let group = "subresources.kubevirt.io";
    APIService {
        metadata: metadata(&format!("{version}.{group}"), "virt-api-aggregator", certificates::VIRT_API),
        spec: Some(APIServiceSpec {
            group: Some(group.into()),
            version: Some(version.into()),
            group_priority_minimum: GROUP_PRIORITY,
            version_priority: VERSION_PRIORITY,
            service: Some(BackendReference {
                name: Some("virt-api".into()),
                namespace: Some(namespace.into()),
                port: None,
            }),
            ..Default::default()
        }),
        status: None,
    }
}
