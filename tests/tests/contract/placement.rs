//! Where pods run.

use std::time::Duration;

use kubevirt_release::Kind;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Suite, is_ready};

static CLUSTER: Fixture = Fixture::new(2);

/// The contract's limit for a placement to reach the workloads.
const REACHED: Duration = Duration::from_secs(60);

/// Asks for nodes that do not exist, for one half of the suite, and takes it back.
async fn nowhere(suite: &Suite, part: &str, workloads: &[(Kind, &str)]) {
    let placed = |selector: Value| json!({ part: {"nodePlacement": {"nodeSelector": selector}} });
    let asks = |live: &Value| live["spec"]["template"]["spec"]["nodeSelector"]["nowhere"] == "to-be-found";
    suite.configure(placed(json!({"nowhere": "to-be-found"}))).await.expect("a placement like any other");
    for (kind, name) in workloads {
        suite.until(*kind, name, "placed", REACHED, asks).await;
    }
    if part == "infra" {
        for name in ["virt-api", "virt-controller"] {
            let selector = format!("kubevirt.io={name}");
            suite
                .until_pods(&selector, "waiting beside what runs", REACHED, |pods| {
                    let waits = |pod: &Value| pod["status"]["phase"] == "Pending";
                    pods.values().any(waits) && pods.values().any(is_ready)
                })
                .await;
        }
    }
    suite.configure(json!({ part: null })).await.expect("it is taken back");
    for (kind, name) in workloads {
        suite.until(*kind, name, "placed as before", REACHED, |live| !asks(live)).await;
    }
    suite.stable().await;
}

#[test]
fn t4927_a_node_selector_of_infra_reaches_its_workloads_and_what_runs_stays() {
    CLUSTER.test(async |suite| {
        nowhere(suite, "infra", &[(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller")]).await;
    });
}

#[test]
fn t4928_a_node_selector_of_workloads_reaches_virt_handler() {
    CLUSTER.test(async |suite| {
        nowhere(suite, "workloads", &[(Kind::DaemonSet, "virt-handler")]).await;
    });
}

/// A toleration with an operator that does not exist is refused in the words clients match.
async fn bad_toleration(suite: &Suite, part: &str) {
    let toleration = json!({"key": "someKey", "operator": "foo", "value": "someValue", "effect": "NoSchedule"});
    let refused = suite.refused(json!({ part: {"nodePlacement": {"tolerations": [toleration]}} })).await;
    let text = format!("spec.{part}.nodePlacement.tolerations.operator in body should be one of");
    assert!(refused.contains(&text), "{refused}");
    assert!(suite.kubevirt().await["spec"].get(part).is_none());
}

#[test]
fn infra_bad_toleration_is_refused() {
    CLUSTER.test(async |suite| bad_toleration(suite, "infra").await);
}

#[test]
fn workloads_bad_toleration_is_refused() {
    CLUSTER.test(async |suite| bad_toleration(suite, "workloads").await);
}
