//! What several scenarios begin with.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::{Kind, Object, Strategy};
use kubevirt_tests::{NAMESPACE, World, condition_of};
use serde_json::{Value, json};

/// The objects of a release's `kubevirt-operator.yaml`.
pub(crate) fn operator(version: &str) -> Vec<Object> {
    operator_manifest(&ManifestOptions::new("localhost/kubevirt", version))
}

/// Installs a release and waits until it is available; returns the custom resource.
pub(crate) async fn install(world: &World, version: &str) -> Value {
    world.apply(&operator(version)).await;
    world.apply(&[cr_manifest(NAMESPACE)]).await;
    settled(world, version).await
}

/// Waits until a version is observed, available and nothing progresses, and what stands beside it is in place.
pub(crate) async fn settled(world: &World, version: &str) -> Value {
    world
        .kubevirt_until(&format!("settled at {version}"), |kubevirt| {
            is_available(kubevirt, version) && condition_of(kubevirt, "InstancetypesReady")["status"] == "True"
        })
        .await
}

/// Whether a version is observed and available and nothing progresses.
pub(crate) fn is_available(kubevirt: &Value, version: &str) -> bool {
    kubevirt["status"]["observedKubeVirtVersion"] == version
        && condition_of(kubevirt, "Available")["status"] == "True"
        && condition_of(kubevirt, "Progressing")["status"] == "False"
}

/// Writes the policy for changes of version.
pub(crate) async fn policy(world: &World, spec: Value) {
    let policy = json!({"apiVersion": "upgrade.kubevirt.io/v1alpha1", "kind": "UpgradePolicy",
        "metadata": {"name": "default"}, "spec": spec});
    let policies = world.api(Kind::UpgradePolicy, None);
    policies.patch("default", &PatchParams::apply("test").force(), &Patch::Apply(policy)).await.expect("a policy");
}

/// Asks for a release while nothing may begin, so that its strategy can be changed.
pub(crate) async fn ask_for(world: &World, release: &str) {
    policy(world, json!({"paused": true})).await;
    world.patch_kubevirt(json!({"imageTag": release})).await;
    world
        .kubevirt_until("paused", |kubevirt| {
            kubevirt["status"]["targetKubeVirtVersion"] == release
                && condition_of(kubevirt, "Synchronized")["reason"] == "UpgradePaused"
        })
        .await;
}

/// Changes the strategy of a release that is in the cluster.
pub(crate) async fn change_strategy(world: &World, release: &str, change: impl FnOnce(&mut Strategy)) {
    let maps = world.api(Kind::ConfigMap, Some(NAMESPACE));
    let labelled = ListParams::default().labels("kubevirt.io/install-strategy");
    let found = maps.list(&labelled).await.expect("a list").items;
    let is_it = |map: &&DynamicObject| {
        map.annotations().get("kubevirt.io/install-strategy-version").is_some_and(|version| version == release)
    };
    let map = found.iter().find(is_it).expect("the strategy of the release");
    let value = serde_json::to_value(map).expect("plain data");
    let mut strategy =
        Strategy::decode(&serde_json::from_value::<ConfigMap>(value).expect("a ConfigMap")).expect("read");
    change(&mut strategy);
    let change = Patch::Merge(json!({"data": strategy.encode(NAMESPACE).data}));
    maps.patch(&map.name_any(), &PatchParams::default(), &change).await.expect("an edit");
}

/// Whether it is told that v0.30, which nobody has, is not brought about.
pub(crate) fn says_why(kubevirt: &Value) -> bool {
    let synchronized = condition_of(kubevirt, "Synchronized");
    synchronized["status"] == "False" && synchronized["message"].as_str().is_some_and(|text| text.contains("v0.30"))
}

/// A Secret with a certificate and its key.
pub(crate) fn secret(name: &str, certificate: &str, key: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    }))
}

pub(crate) fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object of a registered kind")
}
