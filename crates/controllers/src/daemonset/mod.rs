//! DaemonSets: one pod on every node that may run it.

mod revisions;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::action::{Action, Controller, Decision, Note, View, delete_of, status_change};
use crate::cache::{Change, Name};
use crate::kinds::{Kind, Object, Objects};
use crate::ownership::{claim, selector};
use crate::placement;
use crate::pods::{self, Availability};
use crate::replicaset::{count, owners_of};

const COMPONENT: &str = "daemonset-controller";
/// Pods created or deleted at once.
const BURST: usize = 250;
/// The label that tells the pods of one template from those of another.
pub const REVISION_HASH: &str = "controller-revision-hash";
/// The older label of the same purpose, a counter.
pub const TEMPLATE_GENERATION: &str = "pod-template-generation";
const DEPRECATED_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The controller.
pub struct DaemonSets;

impl Controller for DaemonSets {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn is_workload(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::DaemonSet, Kind::Pod, Kind::Node, Kind::ControllerRevision]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::DaemonSet => vec![change.name.clone()],
            Kind::Pod | Kind::ControllerRevision => {
                owners_of(change, &objects.daemon_sets, |set| set.spec.as_ref().map(|spec| &spec.selector))
            }
            Kind::Node if placement_changed(change) => {
                objects.daemon_sets.iter().map(|(name, _)| name.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let Some(set) = view.objects.daemon_sets.get(key) else { return Decision::none() };
        decide(view, set)
    }
}

/// Whether a node's change can move pods: a heartbeat cannot.
pub(crate) fn placement_changed(change: &Change) -> bool {
    let (Some(Object::Node(old)), Some(Object::Node(new))) = (&change.old, &change.new) else { return true };
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || old.spec != new.spec || allocatable(old) != allocatable(new)
}

/// What a DaemonSet's pods tolerate on top of what their template says: a daemon stays where others leave.
fn automatic_tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut taints = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        taints.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    taints
        .into_iter()
        .map(|(key, effect)| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        })
        .collect()
}

/// A daemon's place on one node.
pub(crate) struct Place {
    pub(crate) node: String,
    /// Whether a pod should be here.
    pub(crate) wanted: bool,
    /// Whether a pod that is here may stay.
    pub(crate) tolerated: bool,
    /// Pods bound or destined to this node that are not being deleted.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Pods here that are being deleted and still run: their successor waits for them, and until they are gone they count.
    pub(crate) leaving: Vec<Arc<Pod>>,
}

/// A DaemonSet as one decision sees it.
pub(crate) struct Daemon<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) set: &'a DaemonSet,
    pub(crate) hash: String,
    pub(crate) places: Vec<Place>,
}

impl Daemon<'_> {
    pub(crate) fn is_new(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_HASH)) == Some(&self.hash)
    }

    pub(crate) fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    pub(crate) fn available(&self, pod: &Pod) -> bool {
        pods::availability(pod, self.min_ready(), self.view.now) == Availability::Available
    }
}

/// The node a daemon pod belongs to: the one it is bound to, or the one its affinity names.
fn home(pod: &Pod) -> Option<&str> {
    pods::node_name(pod).or_else(|| placement::only_node(pod.spec.as_ref()?))
}

fn places(view: &View<'_>, set: &DaemonSet, owned: &[Arc<Pod>]) -> Vec<Place> {
    let mut spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    let automatic = automatic_tolerations(&spec);
    spec.tolerations.get_or_insert_default().extend(automatic);
    let tolerations = spec.tolerations.clone().unwrap_or_default();
    let mut at: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in owned {
        if let Some(node) = home(pod) {
            at.entry(node).or_default().push(pod);
        }
    }
    let mut places: Vec<Place> = Vec::new();
    for (name, node) in view.objects.nodes.iter() {
        let selected = placement::selects(&spec, node);
        let (leaving, pods) = split(at.remove(name.name.as_str()).unwrap_or_default());
        places.push(Place {
            node: name.name.clone(),
            wanted: selected && placement::untolerated(&tolerations, node, &["NoSchedule", "NoExecute"]).is_none(),
            tolerated: selected && placement::untolerated(&tolerations, node, &["NoExecute"]).is_none(),
            leaving,
            pods,
        });
    }
    // What is left belongs to nodes that are gone.
    for (node, here) in at {
        let (leaving, pods) = split(here);
        places.push(Place { node: node.to_owned(), wanted: false, tolerated: false, leaving, pods });
    }
    places
}

/// Pods that are being deleted but have not ended, and the others. One that has ended and is being deleted needs nothing
/// more and is in nobody's way.
fn split(here: Vec<&Arc<Pod>>) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let (leaving, pods): (Vec<_>, Vec<_>) = here.into_iter().cloned().partition(|pod| pods::is_terminating(pod));
    (leaving.into_iter().filter(|pod| !pods::has_ended(pod)).collect(), pods)
}

fn decide(view: &View<'_>, set: &DaemonSet) -> Decision {
    let mut decision = Decision::none();
    let Some(spec) = &set.spec else { return decision };
    let Some(wanted) = selector(&spec.selector) else { return decision };
    if set.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let claim = claim::<DaemonSet, Pod>(view.objects, set, &wanted);
    decision.actions = claim.actions;
    let revisions = revisions::revisions(view, set);
    decision.actions.extend(revisions.actions);
    let daemon = Daemon { view, set, hash: revisions.hash, places: places(view, set, &claim.owned) };

    let mut steps = update::keep(&daemon);
    if spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete") {
        let rolling = update::roll(&daemon);
        steps.create.extend(rolling.create);
        steps.delete.extend(rolling.delete);
    }
    let note = Note::normal(set, COMPONENT, "SuccessfulCreate", "Created pod: {name}");
    for node in steps.create.iter().take(BURST) {
        let pod = Arc::new(pod_for(&daemon, node));
        decision.actions.push(Action::Create { object: Object::Pod(pod), note: Some(note.clone()) });
    }
    let mut doomed: BTreeMap<Name, Arc<Pod>> = BTreeMap::new();
    for pod in steps.delete {
        doomed.insert(Name::of(pod.as_ref()), pod);
    }
    for pod in doomed.values().take(BURST) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let note = if pods::phase(pod) == "Failed" {
            let node = pods::node_name(pod).unwrap_or_default();
            let text = format!(
                "Found failed daemon pod {}/{name} on node {node}, will try to kill it",
                Name::of(set).namespace
            );
            Note::warning(set, COMPONENT, "FailedDaemonPod", text)
        } else {
            Note::normal(set, COMPONENT, "SuccessfulDelete", format!("Deleted pod: {name}"))
        };
        decision.actions.push(delete_of(pod.as_ref(), Some(note)));
    }
    if let Some(words) = view.failure
        && !steps.create.is_empty()
    {
        let text = format!("Error creating: {words}");
        decision.actions.push(Action::Note(Note::warning(set, COMPONENT, "FailedCreate", text)));
    }
    let mut next = set.clone();
    next.status = Some(status(&daemon, &mut decision));
    decision.actions.extend(status_change(set, &next));
    decision
}

fn pod_for(daemon: &Daemon<'_>, node: &str) -> Pod {
    let template = daemon.set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pods::from_template(daemon.set, &template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_HASH.to_owned(), daemon.hash.clone());
    labels.insert(TEMPLATE_GENERATION.to_owned(), template_generation(daemon.set));
    let spec = pod.spec.get_or_insert_default();
    let automatic = automatic_tolerations(spec);
    let tolerations = spec.tolerations.get_or_insert_default();
    for toleration in automatic {
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    // The template's own required terms have been checked; the scheduler needs only the node's name.
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    });
    pod
}

fn template_generation(set: &DaemonSet) -> String {
    let noted = set.metadata.annotations.as_ref().and_then(|notes| notes.get(DEPRECATED_GENERATION).cloned());
    noted.unwrap_or_else(|| set.metadata.generation.unwrap_or(1).to_string())
}

fn status(daemon: &Daemon<'_>, decision: &mut Decision) -> DaemonSetStatus {
    let old = daemon.set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misscheduled) = (0, 0, 0);
    let (mut ready, mut available, mut updated) = (0, 0, 0);
    for place in &daemon.places {
        // Of several pods the oldest counts: during a surge, and while a pod ends, that is the one that is replaced.
        let oldest = place.pods.iter().chain(&place.leaving).min_by_key(|pod| update::age_key(pod));
        if !place.wanted {
            misscheduled += usize::from(oldest.is_some());
            continue;
        }
        desired += 1;
        current += usize::from(oldest.is_some());
        if let Some(pod) = oldest {
            match pods::availability(pod, daemon.min_ready(), daemon.view.now) {
                Availability::Available => {
                    ready += 1;
                    available += 1;
                }
                Availability::In(left) => {
                    ready += 1;
                    decision.look_again(left);
                }
                Availability::NotReady => {}
            }
        }
        updated += usize::from(oldest.is_some_and(|pod| daemon.is_new(pod)));
    }
    let some = |number: usize, before: Option<i32>| crate::replicaset::some_if_any(count(number), before);
    DaemonSetStatus {
        desired_number_scheduled: count(desired),
        current_number_scheduled: count(current),
        number_misscheduled: count(misscheduled),
        number_ready: count(ready),
        number_available: some(available, old.number_available),
        number_unavailable: some(desired - available, old.number_unavailable),
        updated_number_scheduled: some(updated, old.updated_number_scheduled),
        observed_generation: daemon.set.metadata.generation,
        ..old
    }
}
