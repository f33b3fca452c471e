//! The scheduler: finds a node for every pod that has none.
//!
//! One decision places all waiting pods, so that each sees the places the others have just taken.

mod affinity;
mod resources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::action::{Action, Controller, Decision, Note, View, status_change};
use crate::cache::{Change, Name};
use crate::daemonset::placement_changed;
use crate::kinds::{Kind, Object, Objects};
use crate::placement;
use crate::pods;
use affinity::{Neighbours, Refusal};
use resources::{Amounts, allocatable, lacking, pod_requests, take};

pub use resources::milli;

const COMPONENT: &str = "default-scheduler";
/// Pods placed by one decision: enough for throughput, few enough that a decision stays short.
const BATCH: usize = 500;

/// The scheduler.
pub struct Scheduler {
    /// For choosing among equal nodes.
    pub seed: u64,
}

/// All waiting pods are one key.
fn queue() -> Name {
    Name::new("", "queue")
}

impl Controller for Scheduler {
    fn user(&self) -> &'static str {
        "system:kube-scheduler"
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::Pod, Kind::Node, Kind::Namespace]
    }

    fn affected(&self, _: &Objects, change: &Change) -> Vec<Name> {
        let waits = |object: &Object| object.as_pod().is_some_and(|pod| waits(pod));
        let relevant = match change.kind {
            Kind::Node => placement_changed(change),
            // A waiting pod, or one that frees its place or moves the neighbourhood.
            Kind::Pod => {
                let ended = |object: &Option<Object>| {
                    object.as_ref().and_then(Object::as_pod).is_none_or(|pod| pods::has_ended(pod))
                };
                let bound = |object: &Option<Object>| {
                    object.as_ref().and_then(Object::as_pod).is_some_and(|pod| pods::node_name(pod).is_some())
                };
                change.new.as_ref().is_some_and(waits)
                    || ended(&change.old) != ended(&change.new)
                    || bound(&change.old) != bound(&change.new)
            }
            _ => false,
        };
        if relevant { vec![queue()] } else { Vec::new() }
    }

    fn decide(&self, view: &View<'_>, _: &Name) -> Decision {
        decide(view, self.seed)
    }
}

fn waits(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let ours = spec.and_then(|spec| spec.scheduler_name.as_deref()).is_none_or(|name| name == COMPONENT);
    let gated = spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
    ours && !gated && pods::node_name(pod).is_none() && pods::is_active(pod)
}

/// A node with what runs on it.
pub(crate) struct Room<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pods: Vec<Arc<Pod>>,
    used: Amounts,
    available: Amounts,
}

fn rooms<'a>(objects: &'a Objects) -> BTreeMap<String, Room<'a>> {
    let mut rooms = BTreeMap::new();
    for (name, node) in objects.nodes.iter() {
        let mut room = Room { node, pods: Vec::new(), used: Amounts::new(), available: allocatable(node) };
        for pod in objects.pods_on(&name.name).filter(|pod| !pods::has_ended(pod)) {
            occupy(&mut room, pod.clone());
        }
        rooms.insert(name.name.clone(), room);
    }
    rooms
}

fn occupy(room: &mut Room<'_>, pod: Arc<Pod>) {
    take(&mut room.used, &pod_requests(&pod));
    *room.used.entry("pods".to_owned()).or_default() += 1_000;
    room.pods.push(pod);
}

fn decide(view: &View<'_>, seed: u64) -> Decision {
    let mut decision = Decision::none();
    let mut waiting: Vec<&Arc<Pod>> = view.objects.pods_on("").filter(|pod| waits(pod)).collect();
    if waiting.is_empty() {
        return decision;
    }
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    waiting.sort_by_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(priority(pod)), created, Name::of(pod.as_ref()))
    });
    let mut rooms = rooms(view.objects);
    for pod in waiting.into_iter().take(BATCH) {
        match place(view, pod, &rooms, seed) {
            Ok(node) => {
                decision.actions.push(bind(pod, &node));
                if let Some(room) = rooms.get_mut(&node) {
                    occupy(room, pod.clone());
                }
            }
            Err(message) => decision.actions.extend(refuse(view, pod, &message)),
        }
    }
    decision
}

fn bind(pod: &Pod, node: &str) -> Action {
    let name = Name::of(pod);
    let message = format!("Successfully assigned {name} to {node}");
    Action::Bind {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        node: node.to_owned(),
        note: Note::normal(pod, COMPONENT, "Scheduled", message),
        pod: name,
    }
}

/// Says in the pod's status and in an event why no node fits, once per reason.
fn refuse(view: &View<'_>, pod: &Pod, message: &str) -> Vec<Action> {
    let known = pods::condition(pod, "PodScheduled");
    if known.is_some_and(|known| known.status == "False" && known.message.as_deref() == Some(message)) {
        return Vec::new();
    }
    let since = known.filter(|known| known.status == "False").and_then(|known| known.last_transition_time.clone());
    let mut next = pod.clone();
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.or(Some(Time(view.now))),
        ..PodCondition::default()
    });
    let note = Note::warning(pod, COMPONENT, "FailedScheduling", message);
    status_change(pod, &next).into_iter().chain([Action::Note(note)]).collect()
}

/// The best node for a pod, or in words why there is none.
fn place(view: &View<'_>, pod: &Pod, rooms: &BTreeMap<String, Room<'_>>, seed: u64) -> Result<String, String> {
    if rooms.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let wanted = pod_requests(pod);
    let neighbours = Neighbours::of(pod, rooms, &view.objects.namespaces);
    let only = placement::only_node(&spec);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut open: Vec<(&String, &Room<'_>)> = Vec::new();
    // A daemon's pod names its node: to ask all others would take nodes times nodes for one DaemonSet.
    let named = only.map(|only| rooms.get_key_value(only));
    let elsewhere = named.map_or(0, |named| rooms.len() - usize::from(named.is_some()));
    if elsewhere > 0 {
        reasons.insert("node(s) didn't match Pod's node affinity/selector".to_owned(), elsewhere);
    }
    let asked: Box<dyn Iterator<Item = _>> = match named {
        Some(named) => Box::new(named.into_iter()),
        None => Box::new(rooms.iter()),
    };
    for (name, room) in asked {
        let refusals = refusals(&spec, &wanted, room, &neighbours);
        if refusals.is_empty() {
            open.push((name, room));
        }
        for reason in refusals {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let wishes: Vec<Wishes> = open.iter().map(|(_, room)| Wishes::of(&spec, room, &neighbours)).collect();
    let range = Range::of(&wishes);
    let best = open.iter().zip(&wishes).max_by_key(|((name, room), wishes)| {
        let luck = pods::draw(seed, &format!("{}/{name}", Name::of(pod)), "scheduler");
        (range.score(wishes), score(pod, &wanted, room), luck)
    });
    if let Some(((name, _), _)) = best {
        return Ok((*name).clone());
    }
    let mut texts: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    Err(format!("0/{} nodes are available: {}.", rooms.len(), texts.join(", ")))
}

/// Why a node is not for this pod; resources may be named together, all else speaks alone.
fn refusals(spec: &PodSpec, wanted: &Amounts, room: &Room<'_>, neighbours: &Neighbours<'_>) -> Vec<String> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let unschedulable = room.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let cordon = k8s_openapi::api::core::v1::Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    };
    if unschedulable && !tolerations.iter().any(|toleration| placement::tolerates(toleration, &cordon)) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    if let Some(taint) = placement::untolerated(tolerations, room.node, &["NoSchedule", "NoExecute"]) {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
    }
    if !placement::selects(spec, room.node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    if host_ports(spec)
        .iter()
        .any(|port| room.pods.iter().any(|pod| pod.spec.as_ref().is_some_and(|spec| host_ports(spec).contains(port))))
    {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let mut lacks: Vec<String> =
        lacking(wanted, &room.used, &room.available).iter().map(|name| format!("Insufficient {name}")).collect();
    let one_pod = Amounts::from([("pods".to_owned(), 1_000)]);
    if room.available.contains_key("pods") && !lacking(&one_pod, &room.used, &room.available).is_empty() {
        lacks.push("Too many pods".to_owned());
    }
    if !lacks.is_empty() {
        return lacks;
    }
    let text = match neighbours.refusal(room.node) {
        None => return Vec::new(),
        Some(Refusal::Affinity) => "node(s) didn't match pod affinity rules",
        Some(Refusal::AntiAffinity) => "node(s) didn't match pod anti-affinity rules",
        Some(Refusal::ExistingAntiAffinity) => "node(s) didn't satisfy existing pods anti-affinity rules",
    };
    vec![text.to_owned()]
}

/// Ports taken on the node itself, with their protocol.
fn host_ports(spec: &PodSpec) -> Vec<(i32, String)> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number =
                port.host_port.or(if spec.host_network == Some(true) { Some(port.container_port) } else { None });
            Some((number.filter(|number| *number > 0)?, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())))
        })
        .collect()
}

/// What the pod's stated preferences say of a node, each in its own measure.
struct Wishes {
    /// The weights of the node preferences that it meets.
    node: i64,
    /// The weights of the preferences about other pods.
    pods: i64,
    /// It has a taint that would rather keep the pod away.
    avoided: bool,
}

impl Wishes {
    fn of(spec: &PodSpec, room: &Room<'_>, neighbours: &Neighbours<'_>) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
        let preferred = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_deref());
        let liked = preferred.unwrap_or_default().iter();
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        Self {
            node: liked
                .filter(|term| placement::term_matches(&term.preference, room.node))
                .map(|term| i64::from(term.weight))
                .sum(),
            pods: neighbours.score(room.node),
            avoided: placement::untolerated(tolerations, room.node, &["PreferNoSchedule"]).is_some(),
        }
    }
}

/// Weights are compared within one kind of preference only: the node that a kind likes best gets a hundred, and kinds are
/// added up. Otherwise a wish for nodes with a weight of 100 would outweigh any wish to keep pods apart.
struct Range {
    node: i64,
    pods: (i64, i64),
}

impl Range {
    fn of(wishes: &[Wishes]) -> Self {
        let pods = || wishes.iter().map(|wish| wish.pods);
        Self {
            node: wishes.iter().map(|wish| wish.node).max().unwrap_or(0),
            pods: (pods().min().unwrap_or(0), pods().max().unwrap_or(0)),
        }
    }

    fn score(&self, wishes: &Wishes) -> i64 {
        /// The best of a kind.
        const BEST: i64 = 100;
        /// How much kinds count against each other in the scheduler that clusters run by default.
        const NODE: i64 = 2;
        const PODS: i64 = 2;
        const TAINTS: i64 = 3;
        let (least, most) = self.pods;
        let node = if self.node > 0 { BEST * wishes.node / self.node } else { 0 };
        let pods = if most > least { BEST * (wishes.pods - least) / (most - least) } else { 0 };
        NODE * node + PODS * pods + if wishes.avoided { 0 } else { TAINTS * BEST }
    }
}

/// Among nodes that the stated preferences like equally: few siblings on the node, then free resources.
fn score(pod: &Pod, wanted: &Amounts, room: &Room<'_>) -> i64 {
    /// One sibling outweighs a full node.
    const SIBLING: i64 = 1_000;
    let family = affinity::family(pod);
    let siblings = room.pods.iter().filter(|other| family.is_some() && affinity::family(other) == family).count();
    let free = ["cpu", "memory"].iter().map(|name| {
        let available = room.available.get(*name).copied().unwrap_or(0);
        let used = room.used.get(*name).copied().unwrap_or(0) + wanted.get(*name).copied().unwrap_or(0);
        if available > 0 { i64::try_from((available - used).max(0) * 400 / available).unwrap_or(0) } else { 0 }
    });
    let crowd = i64::try_from(room.pods.len()).unwrap_or(i64::MAX).min(100);
    free.sum::<i64>() - i64::try_from(siblings).unwrap_or(0) * SIBLING - crowd
}
