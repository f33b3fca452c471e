//! Settings that every pod gets, so that all are replaced.

use std::time::Duration;

use kubevirt_release::Kind;
use serde_json::{Value, json};

use crate::fixture::Fixture;

static CLUSTER: Fixture = Fixture::new(1);

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
