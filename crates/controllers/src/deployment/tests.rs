use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::decide;
use crate::action::{Action, View};
use crate::kinds::{Kind, Objects};
use crate::pods::{Round, scaled};

const NOW: &str = "2026-01-01T00:01:00Z";

fn deployment(replicas: i32, strategy: Value, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1,
            "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
            "template": template(image)},
    }))
    .expect("a deployment")
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A set with this many replicas, of which `available` are.
fn set(name: &str, image: &str, revision: i32, replicas: i32, available: i32, of: (i32, i32)) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": of.0.to_string(),
                "deployment.kubernetes.io/max-replicas": of.1.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image)},
        "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
    }))
    .expect("a set")
}

/// The sizes that one decision gives to sets, by name.
fn sizes(deployment: &Deployment, sets: Vec<ReplicaSet>) -> BTreeMap<String, i64> {
    let mut objects = Objects::default();
    for set in sets {
        objects.upsert(set);
    }
    let view = View { objects: &objects, now: NOW.parse().expect("a time"), failure: None };
    let size = |action: Action| match action {
        Action::Patch { kind: Kind::ReplicaSet, name, patch, .. } => {
            Some((name.name, patch["spec"]["replicas"].as_i64()?))
        }
        Action::Create { object, .. } => {
            let value = match object {
                crate::kinds::Object::ReplicaSet(set) => serde_json::to_value(set.as_ref()).expect("JSON"),
                _ => return None,
            };
            Some(("created".to_owned(), value["spec"]["replicas"].as_i64()?))
        }
        _ => None,
    };
    decide(&view, deployment).actions.into_iter().filter_map(size).collect()
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    let quarter = serde_json::from_value(json!("25%")).expect("a percentage");
    let pairs: Vec<_> = (0..=5).map(|n| (scaled(&quarter, n, Round::Up), scaled(&quarter, n, Round::Down))).collect();
    assert_eq!(pairs, [(0, 0), (1, 0), (1, 0), (1, 0), (1, 1), (2, 1)]);
}

#[test]
fn a_new_set_starts_with_the_surge() {
    let web = deployment(10, rolling(json!("25%"), json!("25%")), "v2");
    let made = sizes(&web, vec![set("old", "v1", 2, 10, 10, (10, 13))]);
    assert_eq!(made, [("created".to_owned(), 3)].into());
}

#[test]
fn old_sets_shrink_as_far_as_availability_allows() {
    let web = deployment(10, rolling(json!(3), json!(2)), "v2");
    let old = set("old", "v1", 1, 10, 10, (10, 13));
    let new = set("new", "v2", 2, 3, 0, (10, 13));
    assert_eq!(sizes(&web, vec![old, new]), [("old".to_owned(), 8)].into());
}

#[test]
fn pods_that_serve_nobody_go_first_and_cost_nothing() {
    let web = deployment(4, rolling(json!(1), json!(0)), "v3");
    // The broken revision 1 blocks nothing: its pods go although none may become unavailable.
    let broken = set("broken", "v1", 1, 1, 0, (4, 5));
    let good = set("good", "v2", 2, 4, 4, (4, 5));
    let mut new = set("new", "v3", 3, 0, 0, (4, 5));
    new.status = None;
    let mut web3 = web;
    web3.metadata.annotations = Some([("deployment.kubernetes.io/revision".to_owned(), "3".to_owned())].into());
    assert_eq!(sizes(&web3, vec![broken, good, new]), [("broken".to_owned(), 0)].into());
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let web = deployment(2, json!({"type": "Recreate"}), "v2");
    assert_eq!(sizes(&web, vec![set("old", "v1", 2, 2, 2, (2, 2))]), [("old".to_owned(), 0)].into());
    assert_eq!(sizes(&web, vec![set("old", "v1", 2, 0, 0, (2, 2))]), [("created".to_owned(), 2)].into());
}

#[test]
fn a_resize_in_the_middle_of_a_rollout_keeps_the_proportion() {
    let web = deployment(20, rolling(json!(2), json!(2)), "v2");
    let old = set("old", "v1", 1, 8, 8, (10, 12));
    let new = set("new", "v2", 2, 4, 4, (10, 12));
    let made = sizes(&web, vec![old, new]);
    assert_eq!(made, [("new".to_owned(), 7), ("old".to_owned(), 15)].into());
}
