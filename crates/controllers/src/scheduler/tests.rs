use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::{decide, milli};
use crate::action::{Action, View};
use crate::kinds::Objects;

fn node(name: &str, labels: Value, cpu: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": labels},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
    }))
    .expect("a node")
}

fn pod(name: &str, node: Option<&str>, spec: Value) -> Pod {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}]},
    });
    for (key, part) in spec.as_object().expect("a map") {
        value["spec"][key] = part.clone();
    }
    value["spec"]["nodeName"] = json!(node);
    serde_json::from_value(value).expect("a pod")
}

/// Where each waiting pod goes, or why it does not.
fn placed(nodes: Vec<Node>, pods: Vec<Pod>) -> Vec<(String, String)> {
    let mut objects = Objects::default();
    nodes.into_iter().for_each(|node| drop(objects.upsert(node)));
    pods.into_iter().for_each(|pod| drop(objects.upsert(pod)));
    let view = View { objects: &objects, now: "2026-01-01T00:00:00Z".parse().expect("a time"), failure: None };
    let shown = |action: Action| match action {
        Action::Bind { pod, node, .. } => Some((pod.name, node)),
        Action::Note(note) => Some((note.regarding.name?, note.message)),
        _ => None,
    };
    decide(&view, 1).actions.into_iter().filter_map(shown).collect()
}

fn pair(pod: &str, place: &str) -> (String, String) {
    (pod.to_owned(), place.to_owned())
}

#[test]
fn quantities() {
    let read = |text: &str| milli(&Quantity(text.to_owned()));
    let texts = ["1", "100m", "0.5", "1Ki", "2M", "1e3", "1.5Gi", "10u"];
    let expected = [1_000, 100, 500, 1_024_000, 2_000_000_000, 1_000_000, 1_610_612_736_000, 1];
    assert_eq!(texts.map(read), expected);
}

#[test]
fn one_decision_counts_its_own_placements() {
    let wants = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]});
    let nodes = vec![node("a", json!({}), "1"), node("b", json!({}), "1")];
    let pods = ["p1", "p2", "p3"].map(|name| pod(name, None, wants.clone())).to_vec();
    let placed = placed(nodes, pods);
    let mut used: Vec<_> = placed[..2].iter().map(|(_, node)| node.as_str()).collect();
    used.sort_unstable();
    assert_eq!(used, ["a", "b"]);
    assert_eq!(placed[2], pair("p3", "0/2 nodes are available: 2 Insufficient cpu."));
}

#[test]
fn anti_affinity_preferred_and_required() {
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "host"});
    let preferred = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "podAffinityTerm": term}]}}});
    let required = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let nodes = || vec![node("a", json!({"host": "a"}), "8"), node("b", json!({"host": "b"}), "1")];
    let on_b = || pod("old", Some("b"), json!({}));
    let on_a = || pod("old", Some("a"), json!({}));
    assert_eq!(placed(nodes(), vec![on_a(), pod("p", None, preferred)]), [pair("p", "b")]);
    assert_eq!(placed(nodes(), vec![on_b(), pod("p", None, required.clone())]), [pair("p", "a")]);
    let both = vec![on_b(), pod("other", Some("a"), json!({})), pod("p", None, required)];
    let why = "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.";
    assert_eq!(placed(nodes(), both), [pair("p", why)]);
}

#[test]
fn each_reason_is_counted() {
    let mut tainted = node("c", json!({"os": "linux"}), "8");
    tainted.spec = serde_json::from_value(json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}))
        .expect("a spec");
    let mut cordoned = node("d", json!({"os": "linux"}), "8");
    cordoned.spec = serde_json::from_value(json!({"unschedulable": true})).expect("a spec");
    let nodes = vec![node("a", json!({}), "8"), node("b", json!({"os": "linux"}), "0"), tainted, cordoned];
    let wants = json!({"nodeSelector": {"os": "linux"},
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "x.y/z": "1"}}}]});
    let why = "0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient x.y/z, 1 node(s) didn't match Pod's node \
               affinity/selector, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.";
    assert_eq!(placed(nodes, vec![pod("p", None, wants)]), [pair("p", why)]);
}

/// Two pods that would rather be on the control plane, and rather apart.
#[test]
fn a_wish_for_a_node_does_not_outweigh_the_wish_to_be_apart() {
    let role = "node-role.kubernetes.io/control-plane";
    let host = |name: &str| json!({"kubernetes.io/hostname": name});
    let mut first = host("a");
    first[role] = json!("");
    let nodes = vec![node("a", first, "8"), node("b", host("b"), "8"), node("c", host("c"), "8")];
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
    let wishes = json!({"affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [{"key": role, "operator": "Exists"}]}},
            {"weight": 100, "preference": {"matchExpressions": [{"key": "x/worker", "operator": "DoesNotExist"}]}}]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]},
    }});
    let placed = placed(nodes, vec![pod("p1", None, wishes.clone()), pod("p2", None, wishes)]);
    assert_eq!(placed[0], pair("p1", "a"), "the first goes where it likes it best");
    assert_ne!(placed[1].1, "a", "the second keeps its distance");
}
