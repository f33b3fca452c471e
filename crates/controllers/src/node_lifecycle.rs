//! Nodes that stop renewing their lease: marked unready, tainted, and their pods removed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::action::{Action, Controller, Decision, Note, View, delete_of, patch_of, status_change};
use crate::cache::{Change, Name};
use crate::kinds::{Kind, Objects};
use crate::placement::tolerates;
use crate::pods;

const COMPONENT: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
/// For this long after its last sign a node counts as alive, as with the built-in controller since 1.32: longer than a
/// kubelet's lease (40 s) and than a connection that broke unnoticed (45 s).
const GRACE: Duration = Duration::from_secs(50);
/// A pod may be bound to a node a moment before the node registers: for this long after the binding nobody takes its
/// node for gone, as with the built-in controller.
const QUARANTINE: Duration = Duration::from_secs(40);
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The controller; its keys are nodes.
pub struct NodeLifecycle;

impl Controller for NodeLifecycle {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::Node, Kind::Lease, Kind::Pod]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::Node => vec![change.name.clone()],
            // A renewal only moves the deadline, which is looked at when the old one passes; a late one must be seen.
            Kind::Lease if change.name.namespace == LEASES => {
                let node = Name::new("", change.name.name.clone());
                let healthy = objects.nodes.get(&node).is_some_and(|node| ready(node) == "True");
                if change.old.is_some() && healthy { Vec::new() } else { vec![node] }
            }
            Kind::Pod => {
                let pod = change.new.as_ref().and_then(|object| object.as_pod());
                let node = pod.and_then(|pod| pods::node_name(pod)).map(|node| Name::new("", node));
                let unwell = |node: &Name| {
                    objects.nodes.get(node).is_none_or(|node| {
                        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
                        taints.is_some_and(|taints| taints.iter().any(|taint| taint.effect == "NoExecute"))
                    })
                };
                node.filter(unwell).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        match view.objects.nodes.get(key) {
            Some(node) => decide(view, node),
            None => orphaned(view, key),
        }
    }
}

fn ready(node: &Node) -> &str {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|condition| condition.type_ == "Ready").map_or("", |ready| ready.status.as_str())
}

/// Pods of a node that is no more: no kubelet will ever end them.
fn orphaned(view: &View<'_>, key: &Name) -> Decision {
    let mut decision = Decision::none();
    for pod in view.objects.pods_on(&key.name) {
        let bound = pods::condition(pod, "PodScheduled").and_then(|condition| condition.last_transition_time.as_ref());
        let bound = bound.or(pod.metadata.creation_timestamp.as_ref()).map_or(view.now, |time| time.0);
        let age = Duration::try_from(view.now.duration_since(bound)).unwrap_or_default();
        if let Some(left) = QUARANTINE.checked_sub(age).filter(|left| !left.is_zero()) {
            decision.look_again(left);
            continue;
        }
        let mut action = delete_of(pod.as_ref(), None);
        if let Action::Delete { grace, .. } = &mut action {
            *grace = Some(0);
        }
        decision.actions.push(action);
    }
    decision
}

/// How long the node may still stay silent; `None` when it has been silent for too long.
fn patience(view: &View<'_>, node: &Node) -> Option<Duration> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let lease = view.objects.leases.get(&Name::new(LEASES, name));
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let renewed = spec.and_then(|spec| Some(spec.renew_time.as_ref()?.0));
    let hold = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    let heard = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let heard = heard.filter_map(|condition| Some(condition.last_heartbeat_time.as_ref()?.0)).max();
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let last = renewed.max(heard).or(created)?;
    let grace = hold.map_or(GRACE, Duration::from_secs).max(GRACE);
    let silent = Duration::try_from(view.now.duration_since(last)).unwrap_or_default();
    grace.checked_sub(silent).filter(|left| !left.is_zero())
}

fn decide(view: &View<'_>, node: &Node) -> Decision {
    let mut decision = Decision::none();
    let patience = patience(view, node);
    let mut state = ready(node).to_owned();
    if let Some(left) = patience {
        decision.look_again(left);
    } else if state != "Unknown" {
        state = "Unknown".to_owned();
        decision.actions.extend(silence(view, node));
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let text = format!("Node {name} status is now: NodeNotReady");
        decision.actions.push(Action::Note(Note::normal(node, COMPONENT, "NodeNotReady", text)));
    }
    decision.actions.extend(taint(view, node, &state));
    if state == "Unknown" {
        decision.actions.extend(view.objects.pods_on(&Name::of(node).name).filter_map(|pod| unready(view, pod)));
    }
    evict(view, node, &mut decision);
    decision
}

/// Marks what the node says of itself as unknown.
fn silence(view: &View<'_>, node: &Node) -> Option<Action> {
    let mut next = node.clone();
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        conditions.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
    }
    for condition in conditions {
        if ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].contains(&condition.type_.as_str()) {
            condition.status = "Unknown".to_owned();
            condition.reason = Some("NodeStatusUnknown".to_owned());
            condition.message = Some("Kubelet stopped posting node status.".to_owned());
            condition.last_transition_time = Some(Time(view.now));
        }
    }
    status_change(node, &next)
}

/// The taints that say why a node is unwell, and none when it is well.
fn taint(view: &View<'_>, node: &Node, state: &str) -> Option<Action> {
    let key = match state {
        "Unknown" => Some(UNREACHABLE),
        "False" => Some(NOT_READY),
        // A node that has never spoken is on its way; if it stays silent its state becomes unknown.
        _ => None,
    };
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let ours = |taint: &Taint| {
        (taint.key == NOT_READY || taint.key == UNREACHABLE)
            && ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str())
    };
    let mut taints: Vec<Taint> = old.iter().filter(|taint| !ours(taint)).cloned().collect();
    for effect in key.into_iter().flat_map(|_| ["NoSchedule", "NoExecute"]) {
        let key = key.unwrap_or_default();
        let known = old.iter().find(|taint| taint.key == key && taint.effect == effect);
        taints.push(known.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: Some(Time(view.now)),
            value: None,
        }));
    }
    let sorted = |taints: &[Taint]| {
        let named = taints.iter().map(|taint| ((taint.key.clone(), taint.effect.clone()), taint.clone()));
        named.collect::<BTreeMap<_, _>>()
    };
    (sorted(&old) != sorted(&taints)).then(|| patch_of(node, None, json!({"spec": {"taints": taints}})))
}

/// A pod on a silent node serves nobody that can be relied on.
fn unready(view: &View<'_>, pod: &Pod) -> Option<Action> {
    if !pods::is_ready(pod) {
        return None;
    }
    let mut next = pod.clone();
    for condition in next.status.get_or_insert_default().conditions.get_or_insert_default() {
        if condition.type_ == "Ready" {
            condition.status = "False".to_owned();
            condition.reason = None;
            condition.last_transition_time = Some(Time(view.now));
        }
    }
    status_change(pod, &next)
}

/// Deletes pods that do not tolerate a NoExecute taint, or not any longer.
fn evict(view: &View<'_>, node: &Node, decision: &mut Decision) {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let taints: Vec<&Taint> = taints.into_iter().flatten().filter(|taint| taint.effect == "NoExecute").collect();
    if taints.is_empty() {
        return;
    }
    for pod in view.objects.pods_on(&Name::of(node).name).filter(|pod| !pods::is_terminating(pod)) {
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
        let mut stays = Some(Duration::MAX);
        for taint in &taints {
            let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
            if matching.is_empty() {
                stays = None;
                break;
            }
            let Some(seconds) = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
                continue;
            };
            let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let since = taint.time_added.as_ref().map_or(view.now, |time| time.0);
            let passed = Duration::try_from(view.now.duration_since(since)).unwrap_or_default();
            let left = limit.checked_sub(passed).filter(|left| !left.is_zero());
            stays = stays.and_then(|stays| left.map(|left| left.min(stays)));
        }
        match stays {
            None => {
                let text = format!("Marking for deletion Pod {}", Name::of(pod.as_ref()));
                let note = Note::normal(pod.as_ref(), "taint-eviction-controller", "TaintManagerEviction", text);
                decision.actions.push(delete_of(pod.as_ref(), Some(note)));
            }
            Some(Duration::MAX) => {}
            Some(left) => decision.look_again(left),
        }
    }
}
