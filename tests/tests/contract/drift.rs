//! What somebody changes of a managed object is put right, and the generations tell.

use std::time::Duration;

use kubevirt_release::Kind;
use kubevirt_tests::NAMESPACE;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Suite, is_ready, recorded};

static CLUSTER: Fixture = Fixture::new(2);

/// The contract's limit for a repair.
const REPAIRED: Duration = Duration::from_secs(120);
/// The contract's limit until a repair's generation is recorded.
const RECORDED: Duration = Duration::from_secs(60);

/// Edits an object, waits for the repair, and for its generation to be recorded.
async fn repaired(suite: &Suite, kind: Kind, name: &str, edit: Value, is_edited: impl Fn(&Value) -> bool) -> i64 {
    let before = suite.generation_recorded(kind, name, RECORDED).await;
    let edited = suite.edit(kind, name, edit).await;
    assert!(is_edited(&edited), "{edited:#}");
    suite.until(kind, name, "as it was", REPAIRED, |live| !is_edited(live)).await;
    let after = suite.generation_recorded(kind, name, RECORDED).await;
    assert!(after >= before + 2, "an edit and its repair are two changes: {before} and {after}");
    after
}

fn has_variable(workload: &Value) -> bool {
    let variables = workload["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
    variables.into_iter().flatten().any(|variable| variable["name"] == "foo")
}

/// A variable more in a workload's first container.
async fn variable(suite: &Suite, kind: Kind, name: &str) -> Value {
    let live = suite.get(kind, name).await.expect("it is installed");
    let added = json!({"name": "foo", "value": "bar"});
    if live["spec"]["template"]["spec"]["containers"][0]["env"].is_array() {
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": added}])
    } else {
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/env", "value": [added]}])
    }
}

#[test]
fn t6254_an_env_var_added_to_virt_controller_is_reverted() {
    const UNCHANGED: Duration = Duration::from_secs(30);
    CLUSTER.test(async |suite| {
        let (kind, name) = (Kind::Deployment, "virt-controller");
        let edit = variable(suite, kind, name).await;
        let generation = repaired(suite, kind, name, edit, has_variable).await;
        let is_same = |cr: &Value| recorded(cr, kind, name) == Some(generation);
        suite.keeps(Kind::KubeVirt, "kubevirt", UNCHANGED, is_same).await;
        let live = suite.get(kind, name).await.expect("it is there");
        assert_eq!(live["metadata"]["generation"], generation);
    });
}

#[test]
fn t6255_a_short_name_added_to_a_definition_is_reverted() {
    CLUSTER.test(async |suite| {
        let has_it = |definition: &Value| {
            let names = definition["spec"]["names"]["shortNames"].as_array();
            names.into_iter().flatten().any(|name| name == "fakeshort")
        };
        let edit = json!([{"op": "add", "path": "/spec/names/shortNames/-", "value": "fakeshort"}]);
        repaired(suite, Kind::CustomResourceDefinition, "virtualmachines.kubevirt.io", edit, has_it).await;
    });
}

#[test]
fn t6256_the_selector_of_a_budget_is_reverted() {
    CLUSTER.test(async |suite| {
        let has_it = |budget: &Value| budget["spec"]["selector"]["matchLabels"]["kubevirt.io"] == "dne";
        let edit = json!([{"op": "replace", "path": "/spec/selector/matchLabels/kubevirt.io", "value": "dne"}]);
        repaired(suite, Kind::PodDisruptionBudget, "virt-controller-pdb", edit, has_it).await;
        let foreign = |budget: &Value| !budget["spec"]["selector"]["matchLabels"]["foreign"].is_null();
        let edit = json!([{"op": "add", "path": "/spec/selector/matchLabels/foreign", "value": "label"}]);
        repaired(suite, Kind::PodDisruptionBudget, "virt-controller-pdb", edit, foreign).await;
    });
}

#[test]
fn t6308_an_env_var_added_to_virt_handler_is_reverted() {
    CLUSTER.test(async |suite| {
        let (kind, name) = (Kind::DaemonSet, "virt-handler");
        let edit = variable(suite, kind, name).await;
        repaired(suite, kind, name, edit, has_variable).await;
        suite
            .until(kind, name, "ready, one node at a time", REPAIRED, |daemon_set| {
                let status = &daemon_set["status"];
                status["numberReady"] == status["desiredNumberScheduled"]
                    && status["updatedNumberScheduled"] == status["desiredNumberScheduled"]
                    && daemon_set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1
            })
            .await;
        suite
            .until_pods("kubevirt.io=virt-handler", "ready", REPAIRED, |pods| {
                pods.len() == 2 && pods.values().all(is_ready)
            })
            .await;
    });
}

#[test]
fn t6309_the_port_of_virt_api_s_service_is_restored() {
    const UNCHANGED: Duration = Duration::from_secs(20);
    CLUSTER.test(async |suite| {
        let is_whole = |service: &Value| service["spec"]["ports"][0]["port"] == 443;
        let edit = json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 123}]);
        let edited = suite.edit(Kind::Service, "virt-api", edit).await;
        assert_eq!(edited["spec"]["ports"][0]["port"], 123);
        suite.until(Kind::Service, "virt-api", "whole", REPAIRED, is_whole).await;
        suite.keeps(Kind::Service, "virt-api", UNCHANGED, is_whole).await;
    });
}

#[test]
fn t4613_owners_are_taken_off_a_definition() {
    const LIMIT: Duration = Duration::from_secs(20);
    CLUSTER.test(async |suite| {
        let name = "virtualmachineinstances.kubevirt.io";
        let owner = suite.get(Kind::Namespace, NAMESPACE).await.expect("the suite is in it");
        let owner =
            json!({"apiVersion": "v1", "kind": "Namespace", "name": NAMESPACE, "uid": owner["metadata"]["uid"]});
        let edit = json!({"metadata": {
            "annotations": {"kubevirt.io/install-strategy-version": "outdated"},
            "ownerReferences": [owner],
        }});
        let edited = suite.merge(Kind::CustomResourceDefinition, name, edit).await.expect("the edit is accepted");
        assert_eq!(edited["metadata"]["ownerReferences"][0]["kind"], "Namespace");
        let definition = suite
            .until(Kind::CustomResourceDefinition, name, "without owners", LIMIT, |definition| {
                definition["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
            })
            .await;
        assert_ne!(definition["metadata"]["annotations"]["kubevirt.io/install-strategy-version"], "outdated");
    });
}

#[test]
fn t4617_labels_that_were_wiped_come_back() {
    const LIMIT: Duration = Duration::from_secs(20);
    CLUSTER.test(async |suite| {
        for (kind, name) in [
            (Kind::Secret, "kubevirt-virt-api-certs"),
            (Kind::APIService, "v1.subresources.kubevirt.io"),
            (Kind::ValidatingWebhookConfiguration, "virt-api-validator"),
            (Kind::ValidatingWebhookConfiguration, "virt-operator-validator"),
            (Kind::MutatingWebhookConfiguration, "virt-api-mutator"),
        ] {
            let before = suite.get(kind, name).await.expect("it is installed");
            suite.edit(kind, name, json!([{"op": "replace", "path": "/metadata/labels", "value": {}}])).await;
            let is_ours = |live: &Value| live["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "virt-operator";
            let after = suite.until(kind, name, "labelled again", LIMIT, is_ours).await;
            assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{name} is still the same object");
            assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"], "{name}");
        }
    });
}
