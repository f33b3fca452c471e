use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{REVISION_HASH, decide};
use crate::action::{Action, View};
use crate::kinds::{Kind, Object, Objects};
use crate::placement::only_node;
use crate::pods::template_hash;

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "agent", "namespace": "n", "uid": "s", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": strategy, "template": {
            "metadata": {"labels": {"app": "agent"}},
            "spec": {"nodeSelector": {"os": "linux"}, "containers": [{"name": "c", "image": "v2"}]}}},
    }))
    .expect("a set")
}

fn node(name: &str, taints: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": {"os": "linux"}}, "spec": {"taints": taints},
    }))
    .expect("a node")
}

fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "agent", REVISION_HASH: hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "s", "controller": true}]},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
    .expect("a pod")
}

/// The nodes that get a pod and the pods that go.
fn steps(set: &DaemonSet, nodes: Vec<Node>, pods: Vec<Pod>) -> (Vec<String>, Vec<String>) {
    let mut objects = Objects::default();
    nodes.into_iter().for_each(|node| drop(objects.upsert(node)));
    pods.into_iter().for_each(|pod| drop(objects.upsert(pod)));
    let view = View { objects: &objects, now: "2026-01-01T00:00:00Z".parse().expect("a time"), failure: None };
    let (mut created, mut deleted) = (Vec::new(), Vec::new());
    for action in decide(&view, set).actions {
        match action {
            Action::Create { object: Object::Pod(pod), .. } => {
                created.push(only_node(pod.spec.as_ref().expect("a spec")).expect("a node").to_owned());
            }
            Action::Delete { kind: Kind::Pod, name, .. } => deleted.push(name.name),
            _ => {}
        }
    }
    (created, deleted)
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn rolling(unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}})
}

#[test]
fn taints_and_selectors_decide_where() {
    let nodes = vec![
        node("a", json!([])),
        node("b", json!([{"key": "x", "effect": "NoSchedule"}])),
        node("c", json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}])),
        node("d", json!([{"key": "x", "effect": "NoExecute"}])),
    ];
    let set = set(rolling(json!(1)));
    let hash = template_hash(&set.spec.as_ref().expect("a spec").template, None);
    // A pod that is on b may stay; d throws it out.
    let pods = vec![pod("on-b", "b", &hash, true), pod("on-d", "d", &hash, true)];
    assert_eq!(steps(&set, nodes, pods), (texts(&["a", "c"]), texts(&["on-d"])));
}

#[test]
fn old_pods_go_within_the_bound_and_broken_ones_at_once() {
    let nodes = || ["a", "b", "c", "d"].map(|name| node(name, json!([]))).to_vec();
    let pods = || {
        vec![
            pod("a1", "a", "old", true),
            pod("b1", "b", "old", true),
            pod("c1", "c", "old", true),
            pod("d1", "d", "old", false),
        ]
    };
    assert_eq!(steps(&set(rolling(json!(1))), nodes(), pods()).1, texts(&["d1"]));
    assert_eq!(steps(&set(rolling(json!(2))), nodes(), pods()).1, texts(&["a1", "d1"]));
    assert_eq!(steps(&set(rolling(json!("100%"))), nodes(), pods()).1, texts(&["a1", "b1", "c1", "d1"]));
    assert_eq!(steps(&set(json!({"type": "OnDelete"})), nodes(), pods()), (vec![], vec![]));
}

#[test]
fn a_surge_starts_the_new_pod_before_the_old_one_goes() {
    let set = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
    let hash = template_hash(&set.spec.as_ref().expect("a spec").template, None);
    let nodes = || ["a", "b"].map(|name| node(name, json!([]))).to_vec();
    let old = || vec![pod("a1", "a", "old", true), pod("b1", "b", "old", true)];
    assert_eq!(steps(&set, nodes(), old()), (texts(&["a"]), vec![]));
    let with = |ready| [old(), vec![pod("a2", "a", &hash, ready)]].concat();
    assert_eq!(steps(&set, nodes(), with(false)), (vec![], vec![]));
    assert_eq!(steps(&set, nodes(), with(true)), (texts(&["b"]), texts(&["a1"])));
}

#[test]
fn a_surge_does_not_keep_an_old_pod_that_is_not_ready() {
    let set = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
    let hash = template_hash(&set.spec.as_ref().expect("a spec").template, None);
    let pods = vec![pod("a1", "a", "old", false), pod("a2", "a", &hash, false)];
    assert_eq!(steps(&set, vec![node("a", json!([]))], pods), (vec![], texts(&["a1"])));
}

fn going(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().expect("a time")));
    pod
}

fn status_of(set: &DaemonSet, pods: Vec<Pod>) -> [i32; 4] {
    let mut objects = Objects::default();
    drop(objects.upsert(node("a", json!([]))));
    pods.into_iter().for_each(|pod| drop(objects.upsert(pod)));
    let view = View { objects: &objects, now: "2026-01-01T00:00:00Z".parse().expect("a time"), failure: None };
    let patch = decide(&view, set).actions.into_iter().find_map(|action| match action {
        Action::Patch { kind: Kind::DaemonSet, patch, .. } => Some(patch),
        _ => None,
    });
    let status = &patch.expect("a status")["status"];
    ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"]
        .map(|field| status[field].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0))
}

#[test]
fn a_pod_counts_until_it_has_ended_and_the_oldest_speaks_for_its_node() {
    let set = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
    let hash = template_hash(&set.spec.as_ref().expect("a spec").template, None);
    let (old, new) = (pod("a1", "a", "old", true), pod("a2", "a", &hash, true));
    assert_eq!(status_of(&set, vec![old.clone(), new.clone()]), [1, 1, 1, 0], "the old one still speaks");
    assert_eq!(status_of(&set, vec![going(old.clone())]), [1, 1, 1, 0], "being deleted, it still serves");
    let mut over = going(old);
    over.status.as_mut().expect("a status").phase = Some("Succeeded".to_owned());
    assert_eq!(status_of(&set, vec![over.clone(), new]), [1, 1, 1, 1]);
    // What has ended is not waited for.
    assert_eq!(steps(&set, vec![node("a", json!([]))], vec![over]).0, texts(&["a"]));
}
