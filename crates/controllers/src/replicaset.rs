//! ReplicaSets: keep as many pods as asked for.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Selector;

use crate::action::{Action, Controller, Decision, Note, View, delete_of, status_change};
use crate::cache::{Change, Name, controller_uid};
use crate::kinds::{Kind, Object, Objects};
use crate::ownership::{claim, matches, selector};
use crate::pods::{self, Availability};

const COMPONENT: &str = "replicaset-controller";

/// Pods created or deleted at once: a large set must not keep the queue from others.
const BURST: usize = 500;

/// Users set this to say which pod is cheapest to delete.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The controller.
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn is_workload(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::ReplicaSet, Kind::Pod]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::ReplicaSet => vec![change.name.clone()],
            Kind::Pod => owners_of(change, &objects.replica_sets, |set| set.spec.as_ref().map(|spec| &spec.selector)),
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let Some(set) = view.objects.replica_sets.get(key) else { return Decision::none() };
        decide(view, set)
    }
}

/// The sets of a store that a changed pod belongs to, or that would adopt it.
pub(crate) fn owners_of<K, S>(change: &Change, sets: &crate::cache::Store<K>, selector_of: S) -> Vec<Name>
where
    K: kube::Resource + 'static,
    S: Fn(&K) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
{
    let mut names = Vec::new();
    for object in change.both() {
        match controller_uid(object.meta()) {
            Some(uid) => {
                let owner = object.meta().owner_references.iter().flatten().find(|owner| owner.uid == uid);
                let name = owner.map(|owner| Name::new(change.name.namespace.clone(), owner.name.clone()));
                if let Some(name) = name
                    && sets.get(&name).is_some_and(|set| set.meta().uid.as_deref() == Some(uid))
                {
                    names.push(name);
                }
            }
            None => {
                let labels = object.meta().labels.clone().unwrap_or_default();
                for set in sets.in_namespace(&change.name.namespace) {
                    let chosen = selector_of(set).and_then(selector);
                    if chosen.is_some_and(|chosen| kube::core::SelectorExt::matches(&chosen, &labels)) {
                        names.push(Name::of(set.as_ref()));
                    }
                }
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

fn decide(view: &View<'_>, set: &ReplicaSet) -> Decision {
    let mut decision = Decision::none();
    let Some(spec) = &set.spec else { return decision };
    let Some(wanted) = selector(&spec.selector) else { return decision };
    let claim = claim::<ReplicaSet, Pod>(view.objects, set, &wanted);
    decision.actions = claim.actions;
    let active: Vec<Arc<Pod>> = claim.owned.into_iter().filter(|pod| pods::is_active(pod)).collect();
    let replicas = spec.replicas.unwrap_or(1).max(0).unsigned_abs() as usize;

    if set.metadata.deletion_timestamp.is_none() {
        if active.len() < replicas {
            decision.actions.extend(creations(set, replicas - active.len()));
        } else if active.len() > replicas {
            decision.actions.extend(deletions(view, set, &wanted, &active, active.len() - replicas));
        }
    }
    if let Some(words) = view.failure
        && active.len() < replicas
    {
        decision.actions.push(Action::Note(Note::warning(
            set,
            COMPONENT,
            "FailedCreate",
            format!("Error creating: {words}"),
        )));
    }
    let mut next = set.clone();
    next.status = Some(status(view, set, &active, replicas, &mut decision));
    decision.actions.extend(status_change(set, &next));
    decision
}

fn creations(set: &ReplicaSet, count: usize) -> Vec<Action> {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let note = Note::normal(set, COMPONENT, "SuccessfulCreate", "Created pod: {name}");
    let pod = Arc::new(pods::from_template(set, &template));
    (0..count.min(BURST))
        .map(|_| Action::Create { object: Object::Pod(pod.clone()), note: Some(note.clone()) })
        .collect()
}

fn deletions(view: &View<'_>, set: &ReplicaSet, wanted: &Selector, active: &[Arc<Pod>], count: usize) -> Vec<Action> {
    let crowding = crowding(view, set, wanted);
    let mut order = active.to_vec();
    order.sort_by(|left, right| deletion_order(left, right, &crowding));
    order
        .iter()
        .take(count.min(BURST))
        .map(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let note = Note::normal(set, COMPONENT, "SuccessfulDelete", format!("Deleted pod: {name}"));
            delete_of(pod.as_ref(), Some(note))
        })
        .collect()
}

/// How many related pods (of sets with the same owner) run on each node; the fullest node gives up a pod first.
fn crowding(view: &View<'_>, set: &ReplicaSet, wanted: &Selector) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    let mut add = |pod: &Pod| {
        if pods::is_active(pod)
            && let Some(node) = pods::node_name(pod)
        {
            *count.entry(node.to_owned()).or_default() += 1;
        }
    };
    match controller_uid(&set.metadata) {
        Some(owner) => {
            for sibling in view.objects.replica_sets.owned_by(owner) {
                let uid = sibling.metadata.uid.as_deref().unwrap_or_default();
                view.objects.pods.owned_by(uid).for_each(|pod| add(pod));
            }
        }
        None => {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            view.objects.pods.owned_by(uid).filter(|pod| matches(wanted, pod.as_ref())).for_each(|pod| add(pod));
        }
    }
    count
}

/// Which of two pods goes first: unassigned, then pending, then unready, then cheap, then on a crowded node, then ready
/// for a short time, then restarted often, then young; by name at last, so that the order is total.
fn deletion_order(left: &Pod, right: &Pod, crowding: &BTreeMap<String, usize>) -> Ordering {
    let phase_rank = |pod: &Pod| match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| -> i32 {
        let text = pod.metadata.annotations.as_ref().and_then(|notes| notes.get(DELETION_COST));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let crowd = |pod: &Pod| pods::node_name(pod).and_then(|node| crowding.get(node)).copied().unwrap_or(0);
    let ready_since =
        |pod: &Pod| pods::condition(pod, "Ready").and_then(|ready| Some(ready.last_transition_time.as_ref()?.0));
    let restarts = |pod: &Pod| -> i32 {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    pods::node_name(left)
        .is_some()
        .cmp(&pods::node_name(right).is_some())
        .then_with(|| phase_rank(left).cmp(&phase_rank(right)))
        .then_with(|| pods::is_ready(left).cmp(&pods::is_ready(right)))
        .then_with(|| cost(left).cmp(&cost(right)))
        .then_with(|| crowd(right).cmp(&crowd(left)))
        .then_with(|| ready_since(right).cmp(&ready_since(left)))
        .then_with(|| restarts(right).cmp(&restarts(left)))
        .then_with(|| created(right).cmp(&created(left)))
        .then_with(|| left.metadata.name.cmp(&right.metadata.name))
}

fn status(
    view: &View<'_>,
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    replicas: usize,
    decision: &mut Decision,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|template| template.metadata?.labels).unwrap_or_default();
    let old = set.status.clone().unwrap_or_default();
    let (mut labelled, mut ready, mut available) = (0, 0, 0);
    for pod in active {
        let own = pod.metadata.labels.as_ref();
        if labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value)) {
            labelled += 1;
        }
        match pods::availability(pod, spec.min_ready_seconds.unwrap_or(0), view.now) {
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
    let mut conditions: Vec<_> =
        old.conditions.iter().flatten().filter(|known| known.type_ != "ReplicaFailure").cloned().collect();
    if let Some(words) = view.failure
        && active.len() != replicas
    {
        let before = old.conditions.iter().flatten().find(|known| known.type_ == "ReplicaFailure");
        let reason = if active.len() < replicas { "FailedCreate" } else { "FailedDelete" };
        conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(words.to_owned()),
            last_transition_time: before.map_or(Some(Time(view.now)), |before| before.last_transition_time.clone()),
        });
    }
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some_if_any(labelled, old.fully_labeled_replicas),
        ready_replicas: some_if_any(ready, old.ready_replicas),
        available_replicas: some_if_any(available, old.available_replicas),
        observed_generation: set.metadata.generation,
        conditions: if conditions.is_empty() { None } else { Some(conditions) },
        ..old
    }
}

/// A count as the API's integer.
pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Zero is left out, unless the field is there already.
pub(crate) fn some_if_any(number: i32, before: Option<i32>) -> Option<i32> {
    if number == 0 && before.is_none_or(|before| before == 0) { before } else { Some(number) }
}
