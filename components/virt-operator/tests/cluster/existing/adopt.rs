//! An installation of another operator is taken over, kept, and could be handed back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use kubevirt_release::extras::TYPES;
use kubevirt_release::{Kind, ObjectKey};
use serde_json::{Value, json};

use super::predecessor::{all_keys, install};
use super::suite::{Suite, images, provide, real, small};
use crate::support::{Cluster, OPERATOR, condition};

const ID: &str = "kubevirt.io/install-strategy-identifier";

#[tokio::test(start_paused = true)]
async fn a_suite_of_another_operator_is_taken_over_and_could_be_handed_back() {
    tell(&small()).await;
}

#[tokio::test(start_paused = true)]
async fn the_real_suite_is_taken_over_and_could_be_handed_back() {
    if let Some(suite) = real() {
        tell(&suite).await;
    }
}

async fn tell(suite: &Suite) {
    let cluster = Cluster::start_with(3, Arc::new(images));
    install(&cluster, suite).await;
    provide(&cluster, suite).await;
    let before = state(&cluster, suite).await;
    let pods = pods(&cluster).await;
    assert!(pods.len() >= 9, "{pods:?}");

    cluster.operator("v0.1.0").await;
    let cr = cluster.cr_until("the new operator reports", |cr| cr["status"]["operatorVersion"] == "v0.1.0").await;
    assert_eq!(condition(&cr, "Available"), "True AllComponentsReady", "what runs goes on");
    for key in all_keys(suite).iter().filter(|key| !TYPES.contains(&key.kind)) {
        cluster
            .until(&format!("{key} is adopted"), async || {
                is_adopted(&cluster.get(key.kind, &key.name).await?).then_some(())
            })
            .await;
    }
    let cr = cluster.settled(suite.versions[0]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(self::pods(&cluster).await, pods, "no pod was made anew, and no container restarted");
    let after = state(&cluster, suite).await;
    for (key, old) in &before {
        assert_eq!(after[key], *old, "{key}: its content, stamps and generation are what they were");
    }
    adopted_once(&cluster, suite);
    for (field, value) in [("observedDeploymentID", suite.id(0)), ("targetDeploymentID", suite.id(0))] {
        assert_eq!(cr["status"][field], value.as_str());
    }
    assert_eq!(condition(&cr, "Synchronized"), "-");

    let writes = cluster.writes().len();
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(cluster.writes()[writes..], [], "once adopted it is quiet");
    repaired(&cluster, suite).await;
    handed_back(&cluster, suite, &pods).await;
}

fn is_adopted(live: &Value) -> bool {
    let entries = live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().any(|entry| entry["manager"] == "virt-operator" && entry["operation"] == "Apply")
        && !entries.iter().any(|entry| {
            entry["manager"] == "virt-operator" && entry["operation"] == "Update" && entry["subresource"].is_null()
        })
}

/// Of every object, what must not change: everything but who manages it, and what its controllers say.
async fn state(cluster: &Cluster, suite: &Suite) -> BTreeMap<ObjectKey, Value> {
    let mut state = BTreeMap::new();
    for key in all_keys(suite) {
        let mut live = cluster.get(key.kind, &key.name).await.unwrap_or_else(|| panic!("{key} is missing"));
        let object = live.as_object_mut().expect("an object");
        object.remove("status");
        for field in ["managedFields", "resourceVersion"] {
            object["metadata"].as_object_mut().expect("metadata").remove(field);
        }
        state.insert(key, live);
    }
    state
}

/// Name, uid and restarts of the suite's pods.
async fn pods(cluster: &Cluster) -> Vec<(String, String, i64)> {
    let pods = cluster.of("", "v1", "Pod", "pods", true).list(&Default::default()).await.expect("pods").items;
    let suite = pods.iter().filter(|pod| pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(ID)));
    suite
        .map(|pod| {
            let containers = pod.data["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            let restarts = containers.iter().filter_map(|container| container["restartCount"].as_i64()).sum();
            (pod.metadata.name.clone().unwrap_or_default(), pod.metadata.uid.clone().unwrap_or_default(), restarts)
        })
        .collect()
}

/// One change of the record for each object, and nothing else. Ready-made types are written as a whole, so nobody's record
/// of them matters.
fn adopted_once(cluster: &Cluster, suite: &Suite) {
    let mut writes: BTreeMap<String, usize> = BTreeMap::new();
    for event in cluster.events().iter().filter(|event| event["user"]["username"] == OPERATOR) {
        let is_write = !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"));
        let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
        if is_write && !matches!(resource, "leases" | "events" | "kubevirts") {
            assert_eq!(event["responseStatus"]["code"], 200, "nothing is made: {event}");
            *writes.entry(resource.to_owned()).or_default() += 1;
        }
    }
    let mut expected: BTreeMap<String, usize> = [("namespaces".to_owned(), 1)].into();
    for key in all_keys(suite).iter().filter(|key| !TYPES.contains(&key.kind)) {
        *expected.entry(key.kind.plural().to_owned()).or_default() += 1;
    }
    assert_eq!(writes, expected);
}

/// What is kept is really kept.
async fn repaired(cluster: &Cluster, suite: &Suite) {
    let role = cluster.api(Kind::ClusterRole);
    let parameters = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    let rules = json!({"rules": []});
    role.patch("kubevirt-controller", &parameters, &Patch::Merge(rules)).await.expect("an edit");
    cluster
        .until("the role is repaired", async || {
            let live = cluster.get(Kind::ClusterRole, "kubevirt-controller").await?;
            live["rules"].as_array().is_some_and(|rules| !rules.is_empty()).then_some(())
        })
        .await;
    cluster.settled(suite.versions[0]).await;
}

/// What the other operator looks at when it comes back: by these it finds everything in order and rolls no pod.
async fn handed_back(cluster: &Cluster, suite: &Suite, pods: &[(String, String, i64)]) {
    let operator = cluster.api(Kind::Deployment);
    operator.delete("virt-operator", &DeleteParams::default()).await.expect("the operator goes");
    let lease = cluster.of("coordination.k8s.io", "v1", "Lease", "leases", true);
    cluster
        .until("the lease is free", async || {
            let held = lease.get("virt-operator").await.ok()?;
            held.data["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty).then_some(())
        })
        .await;
    let cr = cluster.get(Kind::KubeVirt, "kubevirt").await.expect("the custom resource");
    let status = &cr["status"];
    assert_eq!(cr["metadata"]["finalizers"], json!(["kubevirt.io/foregroundDeleteKubeVirt"]));
    assert_eq!((&status["phase"], &status["outdatedVirtualMachineInstanceWorkloads"]), (&json!("Deployed"), &json!(0)));
    assert_eq!(status["observedDeploymentID"], suite.id(0).as_str());
    assert_eq!(status["observedKubeVirtVersion"], suite.versions[0]);
    let config: Value =
        serde_json::from_str(status["observedDeploymentConfig"].as_str().expect("a text")).expect("a config");
    assert_eq!(config["id"], suite.id(0).as_str());
    let map = cluster.get(Kind::ConfigMap, suite.maps[0]["metadata"]["name"].as_str().expect("a name")).await;
    let map = map.expect("its strategy is still there");
    assert_eq!(map["data"], suite.maps[0]["data"]);
    assert_eq!(map["metadata"]["annotations"][ID], suite.id(0).as_str());
    let generations = status["generations"].as_array().expect("generations");
    for key in all_keys(suite) {
        let live = cluster.get(key.kind, &key.name).await.expect("it is there");
        assert_eq!(live["metadata"]["annotations"][ID], suite.id(0).as_str(), "{key}");
        assert_eq!(live["metadata"]["labels"]["app.kubernetes.io/managed-by"], "virt-operator", "{key}");
        let group = match key.kind {
            Kind::CustomResourceDefinition => "apiextensions.k8s.io/v1",
            Kind::Deployment | Kind::DaemonSet | Kind::PodDisruptionBudget => "apps",
            Kind::ValidatingWebhookConfiguration | Kind::MutatingWebhookConfiguration => "admissionregistration.k8s.io",
            _ => continue,
        };
        let recorded = generations.iter().find(|entry| {
            entry["group"] == group && entry["resource"] == key.kind.plural() && entry["name"] == key.name.as_str()
        });
        let recorded = recorded.unwrap_or_else(|| panic!("no generation of {key} is recorded"));
        assert_eq!(recorded["lastGeneration"], live["metadata"]["generation"], "{key}");
    }
    assert_eq!(self::pods(cluster).await, pods, "still the same pods");
    // It writes JSON patches under the same name; nobody's record stands in its way.
    let api = cluster.get(Kind::Deployment, "virt-api").await.expect("virt-api");
    let patch = serde_json::from_value(json!([
        {"op": "test", "path": "/metadata/generation", "value": api["metadata"]["generation"]},
        {"op": "replace", "path": "/spec", "value": api["spec"]},
    ]))
    .expect("a patch");
    let parameters = PatchParams { field_manager: Some("virt-operator".into()), ..PatchParams::default() };
    let patched = operator.patch("virt-api", &parameters, &Patch::Json::<Value>(patch)).await.expect("it may write");
    assert_eq!(json!(patched.metadata.generation), api["metadata"]["generation"], "the same spec is no change");
}
