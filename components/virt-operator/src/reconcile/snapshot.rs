//! Live objects in the planner's terms (pure): what is the same, what serves, how far a rollout is and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use kubevirt_api::names::annotation;
use kubevirt_apply::differs;
use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_upgrade::{Existing, Pod, Snapshot, Workload, WorkloadKind};
use serde_json::Value;

use super::World;
use crate::backends;
use crate::cache::{Live, text};
use crate::pods::{Labels, Pods};

/// How far each workload is.
pub(crate) type Workloads = BTreeMap<ObjectKey, Workload>;

/// All of them. There are as many pods as nodes, so whoever plans asks once.
pub(crate) fn workloads(world: &World) -> Workloads {
    let found = |(key, live): (&ObjectKey, &Live)| Some((key.clone(), workload(key, live, &world.pods)?));
    world.objects.iter().filter_map(found).collect()
}

/// Compares what exists with what is wanted.
pub(crate) fn snapshot(
    world: &World,
    finals: &BTreeMap<ObjectKey, Object>,
    transitional: &BTreeMap<ObjectKey, Object>,
    mut workloads: Workloads,
) -> Snapshot {
    let mut snapshot =
        Snapshot { no_backend: no_backend(world, finals), absent_nodes: world.absent.clone(), ..Snapshot::default() };
    for (key, live) in &world.objects {
        // What is neither wanted nor stamped by an operator only looks like ours; a copied label is no reason to delete.
        if !finals.contains_key(key) && !is_stamped(live) {
            continue;
        }
        let existing = existing(key, live, world, finals.get(key), transitional.get(key));
        snapshot.objects.insert(key.clone(), existing);
        if let Some(workload) = workloads.remove(key) {
            snapshot.workloads.insert(key.clone(), workload);
        }
    }
    snapshot
}

/// One of them.
pub(crate) fn existing(
    key: &ObjectKey,
    live: &Live,
    world: &World,
    wanted: Option<&Object>,
    transitional: Option<&Object>,
) -> Existing {
    let contest = world.contests.get(key);
    let is_same = |wanted: Option<&Object>| {
        wanted.is_some_and(|wanted| {
            differs(wanted, live).is_none() || contest.is_some_and(|contest| contest.goes_on(wanted, live))
        })
    };
    let same = is_same(wanted);
    Existing {
        same,
        same_transitional: transitional.map_or(same, |wanted| is_same(Some(wanted))),
        id: identifier(live).map(str::to_owned),
        not_serving: not_serving(key, live),
        deleting: text(live, "/metadata/deletionTimestamp").is_some(),
    }
}

/// Whether an operator wrote the object as part of a version.
pub(crate) fn is_stamped(live: &Value) -> bool {
    identifier(live).is_some()
}

/// The deployment ID an object or pod is stamped with.
pub(crate) fn identifier(live: &Value) -> Option<&str> {
    live.pointer("/metadata/annotations")?.get(annotation::STRATEGY_IDENTIFIER)?.as_str()
}

/// Registrations that are still to be made and have nobody to answer them, and why.
fn no_backend(world: &World, finals: &BTreeMap<ObjectKey, Object>) -> BTreeMap<ObjectKey, String> {
    let Some(slices) = &world.endpoints else { return BTreeMap::new() };
    let is_new = |key: &&ObjectKey| !world.objects.contains_key(*key);
    let registrations = finals.keys().filter(is_new).filter(|key| backends::registers(key.kind));
    registrations
        .filter_map(|key| {
            let services = backends::services(finals.get(key)?.value());
            let why = services.iter().find_map(|service| backends::unfit(service, slices, &world.mute))?;
            Some((key.clone(), why))
        })
        .collect()
}

fn not_serving(key: &ObjectKey, live: &Value) -> Option<String> {
    if key.kind != Kind::CustomResourceDefinition {
        return None;
    }
    let condition = |name: &str| {
        let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().find(|condition| text(condition, "/type") == Some(name))
    };
    if condition("Established").is_some_and(|condition| text(condition, "/status") == Some("True")) {
        return None;
    }
    let refused = condition("NamesAccepted").filter(|condition| text(condition, "/status") == Some("False"));
    Some(refused.and_then(|condition| text(condition, "/message")).unwrap_or("it is not established yet").to_owned())
}

fn number(live: &Value, pointer: &str) -> i64 {
    live.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(crate) fn workload(key: &ObjectKey, live: &Live, pods: &Pods) -> Option<Workload> {
    let kind = match key.kind {
        Kind::Deployment => WorkloadKind::Deployment,
        Kind::DaemonSet => WorkloadKind::DaemonSet,
        _ => return None,
    };
    let (wanted, updated, ready, total) = match kind {
        WorkloadKind::Deployment => (
            live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
            number(live, "/status/updatedReplicas"),
            number(live, "/status/readyReplicas"),
            number(live, "/status/replicas"),
        ),
        WorkloadKind::DaemonSet => (
            number(live, "/status/desiredNumberScheduled"),
            number(live, "/status/updatedNumberScheduled"),
            number(live, "/status/numberReady"),
            number(live, "/status/currentNumberScheduled"),
        ),
    };
    Some(Workload {
        kind,
        generation: number(live, "/metadata/generation"),
        observed_generation: number(live, "/status/observedGeneration"),
        wanted,
        updated,
        ready,
        total,
        pods: pods_of(live, pods),
    })
}

/// The pods that a workload's selector finds. A pod that has ended runs nothing and doesn't count.
fn pods_of(workload: &Value, pods: &Pods) -> Vec<Pod> {
    let Some(selector) = workload.pointer("/spec/selector/matchLabels").and_then(Value::as_object) else {
        return Vec::new();
    };
    let namespace = text(workload, "/metadata/namespace").unwrap_or_default();
    let is_one = |shared: &Labels| {
        let Labels { namespace: own, labels, id: _, revision: _ } = shared;
        let matches = |(name, value): (&String, &Value)| labels.get(name).map(String::as_str) == value.as_str();
        own == namespace && selector.iter().all(matches)
    };
    // Pods share their labels, which are asked about once then.
    let mut asked: BTreeMap<*const Labels, bool> = BTreeMap::new();
    pods.iter()
        .filter(|(_, pod)| {
            let is_one = *asked.entry(Arc::as_ptr(&pod.labels)).or_insert_with(|| is_one(&pod.labels));
            is_one && !pod.ended
        })
        .map(|(name, pod)| Pod {
            name: name.clone(),
            id: pod.labels.id.clone(),
            revision: pod.labels.revision.clone(),
            created: pod.created.clone(),
            ready: pod.not_ready.is_none(),
            not_ready: pod.not_ready.clone(),
            deleting: pod.deleting,
            node: pod.node.clone(),
            since: pod.since,
            trouble: pod.trouble,
            prepared: pod.prepared,
        })
        .collect()
}
