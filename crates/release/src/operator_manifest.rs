//! What an admin applies by hand: the operator's own objects (`kubevirt-operator.yaml`) and the CR
//! (`kubevirt-cr.yaml`).

pub mod role;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Container, EnvVar, Namespace, PodSpec, PodTemplateSpec, Probe};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_api::names::{annotation, label};
use kubevirt_api::upgrade;
use serde_json::json;

use crate::config::Component;
use crate::desired::placement;
use crate::image::reference;
use crate::object::Object;
use crate::rbac::rule;
use crate::render::{self, HTTPS_PORT, PRIORITY_CLASS, pods};

const NAME: &str = "virt-operator";
const ACCOUNT: &str = "kubevirt-operator";
/// Where the API server calls the operator's webhooks.
pub const WEBHOOK_PORT: u16 = 8444;
/// Answers over HTTPS from the start, on the leader and on the standby.
const HEALTH: &str = "/metrics";

/// What differs between two prints of the operator's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestOptions {
    pub namespace: String,
    /// Where the images are, such as `localhost/kubevirt`.
    pub registry: String,
    /// What every image's name begins with; usually nothing.
    pub prefix: String,
    pub version: String,
    pub image_pull_policy: String,
    /// The operator's image by digest, `sha256:...`; by version without it.
    pub digest: Option<String>,
}

impl ManifestOptions {
    /// The usual manifest of a version: namespace `kubevirt`, images by tag.
    pub fn new(registry: &str, version: &str) -> Self {
        Self {
            namespace: "kubevirt".into(),
            registry: registry.into(),
            prefix: String::new(),
            version: version.into(),
            image_pull_policy: "IfNotPresent".into(),
            digest: None,
        }
    }

    fn image(&self) -> String {
        let Self { registry, prefix, version, digest, .. } = self;
        let name = format!("{prefix}{}", Component::VirtOperator.image_name());
        reference(registry, &name, digest.as_ref().unwrap_or(version))
    }
}

/// The objects of `kubevirt-operator.yaml`, in the order in which they are to be applied.
///
/// One thing differs from the manifest of the existing suite: the operator wishes for a control-plane node instead of
/// insisting on one, so that it runs on a cluster whose control plane is not among its nodes.
pub fn operator_manifest(options: &ManifestOptions) -> Vec<Object> {
    let namespace = options.namespace.as_str();
    let account = || vec![render::account_subject(ACCOUNT, namespace)];
    let mut objects = vec![Object::of(&install_namespace(namespace)), Object::of(&KubeVirt::crd())];
    // They belong to the operator: of use for a suite that does not know them, and there before the first change.
    objects.extend(upgrade::crds().iter().map(Object::of));
    objects.extend([
        Object::of(&priority_class()),
        Object::of(&kubevirt_admin()),
        Object::of(&render::service_account(ACCOUNT, namespace)),
        Object::of(&render::role(ACCOUNT, namespace, role::namespace_rules(namespace))),
        Object::of(&render::role_binding("kubevirt-operator-rolebinding", namespace, ACCOUNT, account())),
        Object::of(&render::cluster_role(ACCOUNT, role::cluster_rules(namespace))),
        Object::of(&render::cluster_role_binding(ACCOUNT, ACCOUNT, account())),
        deployment(options),
    ]);
    objects
}

/// The object of `kubevirt-cr.yaml`. It never names a version: the installation follows the operator's.
pub fn cr_manifest(namespace: &str) -> Object {
    Object::from_value(json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": namespace},
        "spec": {
            "certificateRotateStrategy": {},
            "configuration": {"developerConfiguration": {"featureGates": []}},
            "customizeComponents": {},
            "imagePullPolicy": "IfNotPresent",
            "workloadUpdateStrategy": {},
        },
    }))
    .expect("the CR has a kind and a name")
}

fn install_namespace(name: &str) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(pods::labels(&[
                (label::KUBEVIRT, ""),
                // virt-handler and launchers work on the node itself.
                ("pod-security.kubernetes.io/enforce", "privileged"),
            ])),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn priority_class() -> PriorityClass {
    PriorityClass {
        metadata: ObjectMeta { name: Some(PRIORITY_CLASS.into()), ..Default::default() },
        value: Some(1_000_000_000),
        global_default: Some(false),
        description: Some("Pods without which virtual machines can't be managed.".into()),
        ..Default::default()
    }
}

/// For people: everything on the KubeVirt CR, and on changes of version.
fn kubevirt_admin() -> k8s_openapi::api::rbac::v1::ClusterRole {
    let all = &["get", "delete", "create", "update", "patch", "list", "watch", "deletecollection"];
    let mut role = render::cluster_role(
        "kubevirt.io:operator",
        vec![rule("kubevirt.io", &["kubevirts"], all), rule(upgrade::GROUP, &["upgradeplans", "upgradepolicies"], all)],
    );
    let label = "rbac.authorization.k8s.io/aggregate-to-admin".to_string();
    role.metadata.labels.get_or_insert_default().insert(label, "true".into());
    role
}

fn deployment(options: &ManifestOptions) -> Object {
    let labels = |pairs: &[(&str, &str)]| Some(pods::labels(pairs));
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            name: Some(NAME.into()),
            labels: labels(&[
                (label::KUBEVIRT, NAME),
                ("name", NAME),
                (label::PROMETHEUS, "true"),
                (label::CLUSTER_SERVICES, "true"),
            ]),
            annotations: labels(&[(annotation::REQUIRED_SCC, "restricted-v2")]),
            ..Default::default()
        }),
        spec: Some(pod(options)),
    };
    let mut object = Object::of(&Deployment {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(options.namespace.clone()),
            labels: labels(&[(label::KUBEVIRT, NAME), (label::NAME, NAME), (label::VERSION, &options.version)]),
            ..Default::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(2),
            selector: pods::selector(NAME),
            strategy: Some(DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update: None }),
            template,
            ..Default::default()
        }),
        status: None,
    });
    placement::fit(&mut object, &placement::control_plane_preferred());
    object
}

fn pod(options: &ManifestOptions) -> PodSpec {
    let variable = |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), value_from: None };
    let mut env = vec![variable("VIRT_OPERATOR_IMAGE", options.image())];
    if options.digest.is_some() {
        env.push(variable("KUBEVIRT_VERSION", options.version.clone()));
    }
    let (volumes, volume_mounts) = pods::volumes(NAME, &options.namespace);
    PodSpec {
        service_account_name: Some(ACCOUNT.into()),
        priority_class_name: Some(PRIORITY_CLASS.into()),
        affinity: Some(pods::anti_affinity(NAME)),
        tolerations: Some(vec![pods::critical_addon()]),
        security_context: Some(pods::restricted_pod()),
        containers: vec![Container {
            name: NAME.into(),
            image: Some(options.image()),
            image_pull_policy: Some(options.image_pull_policy.clone()),
            command: Some(pods::texts(&[NAME])),
            args: Some(pods::texts(&["--port", &HTTPS_PORT.to_string(), "-v", "2"])),
            env: Some(env),
            ports: Some(vec![pods::port("metrics", HTTPS_PORT), pods::port("webhooks", WEBHOOK_PORT.into())]),
            startup_probe: Some(pods::startup_probe(HEALTH)),
            readiness_probe: Some(pods::probe_https(HEALTH)),
            liveness_probe: Some(Probe { failure_threshold: Some(3), ..pods::probe_https(HEALTH) }),
            resources: Some(pods::requests("10m", "32Mi")),
            security_context: Some(pods::restricted_container()),
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            volume_mounts: Some(volume_mounts),
            ..Default::default()
        }],
        volumes: Some(volumes),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
