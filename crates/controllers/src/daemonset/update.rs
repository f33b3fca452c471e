//! Which daemon pods to create and delete: keeping one per node, and moving the nodes to a new template.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Daemon, Place};
use crate::pods::{self, Round, scaled};

/// Nodes that get a pod, and pods that go.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
}

fn surge_and_unavailable(daemon: &Daemon<'_>) -> (i32, i32) {
    let desired = crate::replicaset::count(daemon.places.iter().filter(|place| place.wanted).count());
    let strategy = daemon.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, |it| scaled(it, desired, Round::Up));
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    // Unlike a Deployment's, a DaemonSet's percentage rounds up.
    let unavailable = unavailable.map_or_else(|| i32::from(surge == 0), |it| scaled(it, desired, Round::Up));
    if surge <= 0 && unavailable <= 0 { (0, 1) } else { (surge.max(0), unavailable.max(0)) }
}

fn on_delete(daemon: &Daemon<'_>) -> bool {
    let strategy = daemon.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

/// A daemon's new and old pod on a node; of several, the oldest.
fn new_and_old<'a>(daemon: &Daemon<'_>, place: &'a Place) -> (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>) {
    let oldest = |new: bool| {
        let candidates = place.pods.iter().filter(move |pod| !pods::has_ended(pod));
        candidates.filter(|pod| daemon.is_new(pod) == new).min_by_key(|pod| age_key(pod))
    };
    (oldest(true), oldest(false))
}

pub(super) fn age_key(pod: &Pod) -> (bool, Option<jiff::Timestamp>, Option<String>) {
    // A bound pod is ahead of one that is not.
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (pods::node_name(pod).is_none(), created, pod.metadata.name.clone())
}

/// One pod per node that wants one, none where none is wanted, ended ones replaced.
pub(super) fn keep(daemon: &Daemon<'_>) -> Steps {
    let mut steps = Steps::default();
    let (surge, _) = surge_and_unavailable(daemon);
    let surging = surge > 0 && !on_delete(daemon);
    for place in &daemon.places {
        let (ended, running): (Vec<_>, Vec<_>) = place.pods.iter().partition(|pod| pods::has_ended(pod));
        if !place.wanted && !place.tolerated {
            steps.delete.extend(place.pods.iter().cloned());
            continue;
        }
        steps.delete.extend(ended.iter().map(|pod| (*pod).clone()));
        if running.is_empty() {
            if place.wanted && ended.is_empty() && place.leaving.is_empty() {
                steps.create.push(place.node.clone());
            }
            continue;
        }
        let (new, old) = new_and_old(daemon, place);
        let keep: Vec<&Arc<Pod>> = if surging {
            // An old pod that serves nobody is not worth keeping beside the new one.
            let old = old.filter(|old| new.is_none() || pods::is_ready(old));
            new.into_iter().chain(old).collect()
        } else {
            // Without surge one pod stays: the oldest, whatever its template. The update deals with it.
            running.iter().copied().min_by_key(|pod| age_key(pod)).into_iter().collect()
        };
        let surplus = running.iter().filter(|pod| !keep.iter().any(|kept| kept.metadata.uid == pod.metadata.uid));
        steps.delete.extend(surplus.map(|pod| (*pod).clone()));
    }
    steps
}

/// The next steps from an old template to the new one.
pub(super) fn roll(daemon: &Daemon<'_>) -> Steps {
    let (surge, unavailable) = surge_and_unavailable(daemon);
    if surge > 0 { roll_with_surge(daemon, surge) } else { roll_in_place(daemon, unavailable) }
}

fn roll_in_place(daemon: &Daemon<'_>, max_unavailable: i32) -> Steps {
    let mut steps = Steps::default();
    let mut candidates = Vec::new();
    let mut unavailable = 0;
    for place in daemon.places.iter().filter(|place| place.wanted) {
        match new_and_old(daemon, place) {
            (Some(new), None) => unavailable += i32::from(!daemon.available(new)),
            (None, Some(old)) if daemon.available(old) => candidates.push(old.clone()),
            (None, Some(old)) => {
                // It serves nobody: replacing it costs nothing.
                steps.delete.push(old.clone());
                unavailable += 1;
            }
            _ => unavailable += 1,
        }
    }
    let room = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
    steps.delete.extend(candidates.into_iter().take(room));
    steps
}

fn roll_with_surge(daemon: &Daemon<'_>, max_surge: i32) -> Steps {
    let mut steps = Steps::default();
    let mut candidates = Vec::new();
    let mut surging = 0;
    for place in daemon.places.iter().filter(|place| place.wanted) {
        match new_and_old(daemon, place) {
            (Some(new), Some(old)) if daemon.available(new) => steps.delete.push(old.clone()),
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) if daemon.available(old) => candidates.push(place.node.clone()),
            (None, Some(_)) => steps.create.push(place.node.clone()),
            _ => {}
        }
    }
    let room = usize::try_from(max_surge - surging).unwrap_or(0);
    steps.create.extend(candidates.into_iter().take(room));
    steps
}
