//! Common instance types and preferences: there, owned, and exactly as the suite has them.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::ListParams;
use kubevirt_release::Kind;
use kubevirt_release::extras::{TYPES, types};
use kubevirt_tests::condition_of;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE, Suite};

static CLUSTER: Fixture = Fixture::new(1);

/// The contract's limit for what is wrong with them to be put right.
const REPAIRED: Duration = Duration::from_secs(60);

const SOME: [(Kind, &str); 2] =
    [(Kind::VirtualMachineClusterInstancetype, "u1.medium"), (Kind::VirtualMachineClusterPreference, "fedora")];

/// Waits until the custom resource says of them what is asked, and of the generation it has now.
async fn until_said(suite: &Suite, reason: &str) {
    suite
        .until(Kind::KubeVirt, "kubevirt", reason, PATIENCE, |cr| {
            condition_of(cr, "InstancetypesReady")["reason"] == reason
                && cr["status"]["observedGeneration"] == cr["metadata"]["generation"]
        })
        .await;
}

fn enabled(enabled: bool) -> Value {
    json!({"configuration": {"commonInstancetypesDeployment": {"enabled": enabled}}})
}

/// What the operator's own carry.
fn labels() -> BTreeMap<&'static str, String> {
    [("app.kubernetes.io/managed-by", "virt-operator"), ("app.kubernetes.io/component", "kubevirt")]
        .map(|(key, value)| (key, value.to_owned()))
        .into()
}

async fn names(suite: &Suite, kind: Kind) -> Vec<String> {
    let listed = suite.api(kind).list(&ListParams::default()).await.expect("listing works");
    let mut names: Vec<String> = listed.items.iter().map(|object| object.name_any()).collect();
    names.sort();
    names
}

fn wanted(kind: Kind) -> Vec<String> {
    let mut names: Vec<String> = types(kind, &labels()).iter().map(|object| object.name().to_owned()).collect();
    names.sort();
    names
}

fn is_ours(object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    labels["app.kubernetes.io/managed-by"] == "virt-operator" && labels["app.kubernetes.io/component"] == "kubevirt"
}

#[test]
fn common_instancetypes_are_deployed_and_can_be_left_out() {
    CLUSTER.test(async |suite| {
        // A test that failed may have left them out.
        suite.configure(enabled(true)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDeployed").await;
        for kind in TYPES {
            assert_eq!(names(suite, kind).await, wanted(kind));
        }
        suite.configure(enabled(false)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDisabled").await;
        for kind in TYPES {
            assert_eq!(names(suite, kind).await, [""; 0]);
        }
        suite.configure(enabled(true)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDeployed").await;
        for kind in TYPES {
            assert_eq!(names(suite, kind).await, wanted(kind));
        }
    });
}

#[test]
fn common_instancetypes_take_ownership_of_what_has_their_names() {
    CLUSTER.test(async |suite| {
        // A test that failed may have left them out.
        suite.configure(enabled(true)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDeployed").await;
        suite.configure(enabled(false)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDisabled").await;
        for (kind, name) in SOME {
            let mut object =
                types(kind, &labels()).into_iter().find(|one| one.name() == name).expect("it is one of them");
            object.value_mut()["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "somebody-else"});
            suite.create(object.into_value()).await.expect("it is created");
        }
        suite.configure(enabled(true)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDeployed").await;
        for (kind, name) in SOME {
            suite.until(kind, name, "ours", REPAIRED, is_ours).await;
        }
    });
}

#[test]
fn common_instancetypes_that_are_unknown_are_deleted() {
    CLUSTER.test(async |suite| {
        // A test that failed may have left them out.
        suite.configure(enabled(true)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDeployed").await;
        let specs = [json!({"cpu": {"guest": 1}, "memory": {"guest": "128Mi"}}), json!({})];
        for (kind, spec) in TYPES.into_iter().zip(specs) {
            let object = |name: &str, value: &str| {
                json!({"apiVersion": kind.api_version(), "kind": kind.name(), "spec": spec, "metadata": {"name": name,
                    "labels": {"app.kubernetes.io/managed-by": value, "app.kubernetes.io/component": "kubevirt"}}})
            };
            suite.create(object("unknown", "virt-operator")).await.expect("it is created");
            suite.create(object("mine", "me")).await.expect("it is created");
            suite.until_gone(kind, "unknown", REPAIRED).await;
            assert!(suite.get(kind, "mine").await.is_some(), "what somebody else made stays");
            suite.delete(kind, "mine").await.expect("it is deleted");
        }
    });
}

#[test]
fn common_instancetypes_that_were_changed_are_put_right() {
    CLUSTER.test(async |suite| {
        // A test that failed may have left them out.
        suite.configure(enabled(true)).await.expect("it is allowed");
        until_said(suite, "InstancetypesDeployed").await;
        for (kind, name) in SOME {
            let before = suite.get(kind, name).await.expect("it is there");
            let edit = json!([
                {"op": "add", "path": "/metadata/labels/foreign", "value": "label"},
                {"op": "remove", "path": "/metadata/labels/instancetype.kubevirt.io~1vendor"},
                {"op": "add", "path": "/metadata/annotations/foreign", "value": "annotation"},
                {"op": "add", "path": "/spec", "value": {"cpu": {"guest": 99}, "memory": {"guest": "1Gi"}}},
            ]);
            // A preference has no CPUs of its own to count.
            let edit = if kind == Kind::VirtualMachineClusterPreference {
                let mut edit = edit;
                edit[3]["value"] = json!({"devices": {"preferredDiskBus": "sata"}});
                edit
            } else {
                edit
            };
            suite.edit(kind, name, edit).await;
            let is_whole = |live: &Value| {
                let same = |pointer: &str| live.pointer(pointer) == before.pointer(pointer);
                same("/metadata/labels") && same("/metadata/annotations") && same("/spec")
            };
            suite.until(kind, name, "exactly as it was", REPAIRED, is_whole).await;
            suite.delete(kind, name).await.expect("it is deleted");
            suite.until(kind, name, "there again", REPAIRED, is_whole).await;
        }
    });
}
