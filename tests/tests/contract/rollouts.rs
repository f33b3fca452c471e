//! Settings that pods get, so that they are replaced.

use std::time::Duration;

use futures::TryStreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kubevirt_release::Kind;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Suite};

static CLUSTER: Fixture = Fixture::new(2);

/// The contract's limit for each step.
const LIMIT: Duration = Duration::from_secs(300);

const WORKLOADS: [(Kind, &str); 3] =
    [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")];

#[test]
fn image_pull_secrets_set_reach_every_workload_and_go_again() {
    CLUSTER.test(async |suite| {
        let pod = |workload: &Value| workload["spec"]["template"]["spec"].clone();
        let containers = |workload: &Value| -> Vec<Value> {
            let containers = pod(workload)["containers"].as_array().cloned().unwrap_or_default();
            containers.into_iter().map(|container| container["name"].clone()).collect()
        };
        suite.configure(json!({"imagePullSecrets": [{"name": "registry"}]})).await.expect("a list of names");
        for (kind, name) in WORKLOADS {
            let has_it = |workload: &Value| pod(workload)["imagePullSecrets"] == json!([{"name": "registry"}]);
            let workload = suite.until(kind, name, "with the secret", LIMIT, has_it).await;
            if name == "virt-handler" {
                assert_eq!(containers(&workload), ["virt-handler", "virt-launcher-image-holder"]);
            }
        }
        suite.configure(json!({"imagePullSecrets": null})).await.expect("it is taken back");
        for (kind, name) in WORKLOADS {
            let is_without = |workload: &Value| {
                pod(workload)["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
                    && containers(workload).len() == 1
            };
            suite.until(kind, name, "without the secret", LIMIT, is_without).await;
        }
    });
}

/// What a DaemonSet's `maxUnavailable` is one after the other, until it has been `last`.
async fn paces(suite: &Suite, name: &str, last: &[Value]) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let watching = async {
        let mut events =
            std::pin::pin!(watcher(suite.api(Kind::DaemonSet), config).default_backoff().applied_objects());
        while let Ok(Some(set)) = events.try_next().await {
            let pace = set.data["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"].clone();
            if seen.last() != Some(&pace) {
                seen.push(pace);
            }
            if seen.ends_with(last) {
                return;
            }
        }
    };
    let watched = tokio::time::timeout(LIMIT, watching).await;
    assert!(watched.is_ok(), "not {last:?} within {LIMIT:?}: {seen:?}");
    seen
}

#[test]
fn canary_upgrade_of_virt_handler_goes_by_1_then_a_tenth_then_1() {
    CLUSTER.test(async |suite| {
        let expected = [json!(1), json!("10%"), json!(1)];
        for version in [json!("2.5"), Value::Null] {
            let (seen, changed) = tokio::join!(
                paces(suite, "virt-handler", &expected),
                suite.configure(json!({ "productVersion": version }))
            );
            changed.expect("a label");
            assert_eq!(seen, expected);
            suite.stable().await;
        }
    });
}

#[test]
fn t4744_a_strategic_patch_reaches_the_pod_template_and_is_taken_back() {
    const GENERATION: Duration = Duration::from_secs(90);
    CLUSTER.test(async |suite| {
        let (kind, name) = (Kind::Deployment, "virt-controller");
        let annotated = json!({"spec": {"template": {"metadata": {"annotations": {"test.kubevirt.io/key": "value"}}}}});
        let patch = json!({"resourceName": name, "resourceType": "Deployment", "type": "strategic", "patch": annotated.to_string()});
        let changed = suite.configure(json!({"customizeComponents": {"patches": [patch]}})).await.expect("a patch");
        let generation = &changed["metadata"]["generation"];
        let key = |live: &Value| live["spec"]["template"]["metadata"]["annotations"]["test.kubevirt.io/key"].clone();
        suite
            .until(kind, name, "patched, and of the custom resource's generation", GENERATION, |live| {
                key(live) == "value" && live["metadata"]["annotations"]["kubevirt.io/generation"] == json!(generation.to_string())
            })
            .await;
        suite.stable().await;
        assert_eq!(&suite.kubevirt().await["metadata"]["generation"], generation, "nobody else changed its spec");
        suite.configure(json!({"customizeComponents": null})).await.expect("it is taken back");
        suite.until(kind, name, "as it was", LIMIT, |live| key(live).is_null()).await;
    });
}
