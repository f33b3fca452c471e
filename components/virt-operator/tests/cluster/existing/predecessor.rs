//! What another operator leaves behind: a suite as it has installed it, with its stamps, its placement, its certificates
//! and its status, written under the field manager of its name and never applied.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kubevirt_release::certificates::{self, CertificateSpec, Usage};
use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use kubevirt_release::{Kind, Object, ObjectKey};
use serde::Deserialize;
use serde_json::{Value, json};
use virt_operator::certificates::{KeyCert, Leaf, Lifetime, issue, new_authority};

use super::suite::Suite;
use crate::support::{Cluster, NAMESPACE, REGISTRY};

/// When the authorities were made: a moment before the cluster's own time begins.
const BORN: i64 = 1_790_000_000 - 3_600;
const DAY: u64 = 86_400;
/// What is mounted or published of the certificates, by name.
type Pairs = BTreeMap<&'static str, KeyCert>;

/// Installs the older version of a suite as its own operator does, up to the last pod that becomes ready.
pub(crate) async fn install(cluster: &Cluster, suite: &Suite) {
    // The namespace, the definition of the custom resource, the priority class.
    let manifest = operator_manifest(&ManifestOptions::new(REGISTRY, "v0.1.0"));
    let before: Vec<Object> = manifest.into_iter().filter(|object| object.kind() != Kind::Deployment).collect();
    cluster.apply(&before).await;
    let pairs = pairs(suite);
    let bundle = pairs[certificates::CA].certificate.clone();
    let mut objects: Vec<Object> = Vec::new();
    for object in suite.strategy(0).objects {
        let key = object.key();
        if !suite.keys(0).contains(&key) || objects.iter().any(|other| other.key() == key) {
            continue;
        }
        objects.push(made(object, suite, &pairs, &bundle));
    }
    objects.extend(budgets(&objects));
    // Definitions before what they define, and webhooks when what they call may answer.
    objects.sort_by_key(|object| (is_registration(object), object.kind().phase(), object.key()));
    let (registrations, rest): (Vec<Object>, Vec<Object>) = objects.into_iter().partition(is_registration);
    for object in &rest {
        create(cluster, object).await;
    }
    cluster
        .until("the suite is ready", async || {
            let mut ready = 0;
            for component in ["virt-api", "virt-controller", "virt-exportproxy", "virt-handler"] {
                let pods = cluster.pods(component).await;
                let are_ready = pods.iter().all(|(_, _, ready)| *ready);
                ready += if are_ready { pods.len() } else { 0 };
            }
            (ready == 9).then_some(())
        })
        .await;
    let label = json!({"metadata": {"labels": {"openshift.io/cluster-monitoring": "true"}}});
    let parameters = PatchParams { field_manager: Some("virt-operator".into()), ..PatchParams::default() };
    cluster.api(Kind::Namespace).patch(NAMESPACE, &parameters, &Patch::Merge(label)).await.expect("a label");
    custom_resource(cluster, suite).await;
    // Last: nobody answers for the custom resource at the moment.
    for object in &registrations {
        create(cluster, object).await;
    }
}

fn is_registration(object: &Object) -> bool {
    matches!(
        object.kind(),
        Kind::ValidatingWebhookConfiguration | Kind::MutatingWebhookConfiguration | Kind::APIService
    )
}

async fn create(cluster: &Cluster, object: &Object) {
    let typed = DynamicObject::deserialize(object.value()).expect("an object");
    let parameters = PostParams { field_manager: Some("virt-operator".into()), ..PostParams::default() };
    cluster
        .until(&format!("{} is made", object.key()), async || {
            cluster.api(object.kind()).create(&parameters, &typed).await.ok()
        })
        .await;
}

/// The certificates that the suite's Secrets hold.
fn pairs(suite: &Suite) -> Pairs {
    let born = Timestamp::from_second(BORN).expect("a time");
    let (long, short) = (Lifetime { duration: 7 * DAY, renew_before: 0 }, Lifetime { duration: DAY, renew_before: 0 });
    let mut pairs = Pairs::new();
    for CertificateSpec { secret, common_name, dns_names, usage, mounts: _ } in
        certificates::of(&suite.strategy(0).objects, NAMESPACE)
    {
        let pair = match usage {
            Usage::Authority { .. } => new_authority(&common_name, born, long),
            Usage::Server { issuer } | Usage::Client { issuer } => {
                issue(&pairs[issuer], &Leaf { common_name, dns_names }, born, short)
            }
        };
        pairs.insert(secret, pair.expect("a certificate"));
    }
    pairs
}

/// An object of the strategy as it is put into the cluster.
fn made(mut object: Object, suite: &Suite, pairs: &Pairs, bundle: &str) -> Object {
    let (kind, name) = (object.kind(), object.name().to_owned());
    let stamps = [
        ("kubevirt.io/install-strategy-version", suite.versions[0].to_owned()),
        ("kubevirt.io/install-strategy-registry", suite.registry.to_owned()),
        ("kubevirt.io/install-strategy-identifier", suite.id(0)),
    ];
    let labels = [("app.kubernetes.io/managed-by", "virt-operator"), ("app.kubernetes.io/component", "kubevirt")];
    let value = object.value_mut();
    for (label, text) in labels {
        value["metadata"]["labels"][label] = text.into();
    }
    for (annotation, text) in &stamps {
        value["metadata"]["annotations"][*annotation] = text.clone().into();
    }
    value["metadata"]["annotations"]["kubevirt.io/generation"] = "1".into();
    if matches!(
        kind,
        Kind::Deployment
            | Kind::DaemonSet
            | Kind::Service
            | Kind::Secret
            | Kind::APIService
            | Kind::ValidatingWebhookConfiguration
            | Kind::MutatingWebhookConfiguration
    ) {
        value["metadata"]["annotations"]["kubevirt.io/customizer-identifier"] = "of another operator".into();
    }
    if matches!(kind, Kind::Deployment | Kind::DaemonSet) {
        let template = &mut value["spec"]["template"];
        for (label, text) in labels {
            template["metadata"]["labels"][label] = text.into();
        }
        for (annotation, text) in &stamps {
            template["metadata"]["annotations"][*annotation] = text.clone().into();
        }
        template["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "linux"});
        if kind == Kind::Deployment {
            on_the_control_plane(&mut template["spec"]);
        }
    }
    match kind {
        Kind::Secret => {
            let pair = &pairs[name.as_str()];
            let is_authority = name.ends_with("-ca");
            value["metadata"]["annotations"]["kubevirt.io/duration"] =
                if is_authority { "168h0m0s" } else { "24h0m0s" }.into();
            value["data"] = json!({"tls.crt": BASE64.encode(&pair.certificate), "tls.key": BASE64.encode(&pair.key)});
        }
        Kind::ConfigMap => {
            let content = pairs.get(name.as_str()).map(|pair| pair.certificate.clone()).unwrap_or_default();
            value["data"] = json!({ "ca-bundle": content });
        }
        Kind::APIService => value["spec"]["caBundle"] = BASE64.encode(bundle).into(),
        _ => {}
    }
    for webhook in value["webhooks"].as_array_mut().into_iter().flatten() {
        webhook["clientConfig"]["caBundle"] = BASE64.encode(bundle).into();
    }
    object
}

/// The other operator insists on control-plane nodes, however many there are.
fn on_the_control_plane(pod: &mut Value) {
    let roles = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
    let exists = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    pod["affinity"]["nodeAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": roles.map(exists)},
        "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": {
                "matchExpressions": [{"key": "node-role.kubernetes.io/worker", "operator": "DoesNotExist"}],
            },
        }],
    });
    if !pod["tolerations"].is_array() {
        pod["tolerations"] = json!([]);
    }
    let tolerations = pod["tolerations"].as_array_mut().expect("a list");
    tolerations.extend(roles.map(|key| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"})));
}

/// One for each Deployment of two pods.
fn budgets(objects: &[Object]) -> Vec<Object> {
    let deployments = objects.iter().filter(|object| object.kind() == Kind::Deployment);
    let budget = |deployment: &Object| {
        let name = format!("{}-pdb", deployment.name());
        let metadata = &deployment.value()["metadata"];
        let mut labels = json!({"kubevirt.io": name});
        for label in ["app.kubernetes.io/managed-by", "app.kubernetes.io/component"] {
            labels[label] = metadata["labels"][label].clone();
        }
        let mut annotations = metadata["annotations"].clone();
        annotations.as_object_mut().expect("a map").remove("kubevirt.io/customizer-identifier");
        let value = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations},
            "spec": {"minAvailable": 1, "selector": deployment.value()["spec"]["selector"]},
        });
        Object::from_value(value).expect("a budget")
    };
    deployments.map(budget).collect()
}

async fn custom_resource(cluster: &Cluster, suite: &Suite) {
    let spec = suite.spec(0)["spec"].clone();
    let cr = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": spec,
        "metadata": {
            "name": "kubevirt", "namespace": NAMESPACE, "finalizers": ["kubevirt.io/foregroundDeleteKubeVirt"],
            "annotations": {
                "kubevirt.io/latest-observed-api-version": "v1", "kubevirt.io/storage-observed-api-version": "v1",
            },
        },
    });
    create(cluster, &Object::from_value(cr).expect("a custom resource")).await;
    let id = suite.id(0);
    let config = json!({
        "id": id, "namespace": NAMESPACE, "registry": suite.registry, "kubeVirtVersion": suite.versions[0],
        "virtOperatorImage": format!("{}/virt-operator:{}", suite.registry, suite.versions[0]),
        "additionalProperties": {"ImagePullPolicy": "", "ImagePullSecrets": "null", "Infra": "<*v1.ComponentConfig Value>"},
    })
    .to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "lastProbeTime": "2026-09-21T13:00:00Z",
               "lastTransitionTime": null, "message": "by the other operator"})
    };
    let status = json!({"status": {
        "phase": "Deployed", "operatorVersion": suite.versions[0], "observedGeneration": 1,
        "observedKubeVirtVersion": suite.versions[0], "targetKubeVirtVersion": suite.versions[0],
        "observedKubeVirtRegistry": suite.registry, "targetKubeVirtRegistry": suite.registry,
        "observedDeploymentID": id, "targetDeploymentID": id,
        "observedDeploymentConfig": config, "targetDeploymentConfig": config,
        "defaultArchitecture": "amd64", "outdatedVirtualMachineInstanceWorkloads": 0,
        "conditions": [
            condition("Available", "True", "AllComponentsReady"),
            condition("Progressing", "False", "AllComponentsReady"),
            condition("Degraded", "False", "AllComponentsReady"),
            condition("Created", "True", "AllResourcesCreated"),
        ],
    }});
    let parameters = PatchParams { field_manager: Some("virt-operator".into()), ..PatchParams::default() };
    let cr = cluster.api(Kind::KubeVirt);
    cr.patch_status("kubevirt", &parameters, &Patch::Merge(status)).await.expect("the status is taken");
}

/// Everything of the suite that is in the cluster, with its budgets.
pub(crate) fn all_keys(suite: &Suite) -> Vec<ObjectKey> {
    let keys = suite.keys(0);
    let budgets = keys
        .iter()
        .filter(|key| key.kind == Kind::Deployment)
        .map(|key| ObjectKey::new(Kind::PodDisruptionBudget, Some(NAMESPACE), &format!("{}-pdb", key.name)));
    budgets.chain(keys.iter().cloned()).collect()
}
