//! How many pods each ReplicaSet of a Deployment should have next.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::json;

use super::{COMPONENT, DESIRED, MAXIMUM, Rollout, annotation, available, size};
use crate::action::{Action, Note, patch_of};
use crate::pods;

/// Annotations of a Deployment that mean nothing on its sets.
const NOT_CARRIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    super::REVISION,
    super::REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// The annotations that a set copies from its Deployment.
pub(super) fn carried_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_CARRIED.contains(&key.as_str()));
    annotations
}

/// The action that gives a set this many replicas; `None` when it has them.
pub(super) fn resize(rollout: &Rollout<'_>, set: &ReplicaSet, to: i32) -> Option<Action> {
    let from = size(set);
    let desired = rollout.replicas.to_string();
    let maximum = (rollout.replicas + rollout.surge()).to_string();
    let annotated =
        annotation(&set.metadata, DESIRED) == Some(&desired) && annotation(&set.metadata, MAXIMUM) == Some(&maximum);
    if from == to && (annotated || to == 0) {
        return None;
    }
    let mut patch = json!({"metadata": {"annotations": {DESIRED: desired, MAXIMUM: maximum}}});
    let mut scaled = None;
    if from != to {
        patch["spec"] = json!({"replicas": to});
        let direction = if to > from { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
        scaled = Some(Note::normal(rollout.deployment, COMPONENT, "ScalingReplicaSet", text));
    }
    let mut action = patch_of(set, None, patch);
    if let Action::Patch { note, .. } = &mut action {
        *note = scaled;
    }
    Some(action)
}

/// The size the new set may have, given that all sets together stay within replicas plus surge.
pub(super) fn new_size(rollout: &Rollout<'_>, current: i32) -> i32 {
    if current >= rollout.replicas {
        return rollout.replicas;
    }
    let total: i32 = rollout.all().map(|set| size(set)).sum();
    let room = (rollout.replicas + rollout.surge() - total).max(0);
    current + room.min(rollout.replicas - current)
}

/// Takes pods from the old sets as far as the availability that must remain allows: unhealthy ones first, since they
/// cost nothing, then healthy ones of the oldest sets.
pub(super) fn shrink_old(rollout: &Rollout<'_>) -> Vec<Action> {
    let Some(new) = &rollout.new else { return Vec::new() };
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
        rollout.old.iter().filter(|set| size(set) > 0).map(|set| (set.clone(), size(set))).collect();
    if sizes.is_empty() {
        return Vec::new();
    }
    let minimum = rollout.replicas - rollout.max_unavailable();
    let new_unavailable = size(new) - available(new);
    let total: i32 = rollout.all().map(|set| size(set)).sum();
    let mut room = total - minimum - new_unavailable;
    if room <= 0 {
        return Vec::new();
    }
    for (set, left) in &mut sizes {
        // A set whose status lags its spec is left alone: its counts speak of another size.
        let unhealthy = (*left - available(set)).max(0).min(room);
        *left -= unhealthy;
        room -= unhealthy;
    }
    let available_now: i32 = rollout.all().map(|set| available(set)).sum();
    let mut spare = (available_now - minimum).max(0);
    for (_, left) in &mut sizes {
        let taken = (*left).min(spare);
        *left -= taken;
        spare -= taken;
    }
    sizes
        .into_iter()
        .filter(|(set, left)| *left != size(set))
        .filter_map(|(set, left)| resize(rollout, &set, left))
        .collect()
}

/// Whether any pod of an old set has not ended.
pub(super) fn old_pods_left(rollout: &Rollout<'_>) -> bool {
    rollout.old.iter().any(|set| {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        rollout.view.objects.pods.owned_by(uid).any(|pod| !pods::has_ended(pod))
    })
}

/// When the Deployment's own size changed in the middle of a rollout, every set is scaled in proportion first. `None`
/// when the size did not change.
pub(super) fn proportional(rollout: &Rollout<'_>) -> Option<Vec<Action>> {
    let resized = rollout.all().filter(|set| size(set) > 0).any(|set| {
        annotation(&set.metadata, DESIRED)
            .and_then(|text| text.parse::<i32>().ok())
            .is_some_and(|n| n != rollout.replicas)
    });
    let paused = rollout.spec.paused == Some(true);
    if !resized && !paused {
        return None;
    }
    let active: Vec<&Arc<ReplicaSet>> = rollout.all().filter(|set| size(set) > 0).collect();
    if let [only] = active[..] {
        return Some(resize(rollout, only, rollout.replicas).into_iter().collect());
    }
    if active.is_empty() {
        // Scaled up from zero: the newest set takes it all.
        let latest = rollout.new.as_ref().or(rollout.old.last())?;
        return resize(rollout, latest, rollout.replicas).map(|action| vec![action]);
    }
    if !resized {
        return Some(Vec::new());
    }
    let allowed = if rollout.replicas > 0 { rollout.replicas + rollout.surge() } else { 0 };
    let total: i32 = active.iter().map(|set| size(set)).sum();
    let mut left = allowed - total;
    let mut order = active;
    // The largest set takes its part first; of equals, the newest when growing and the oldest when shrinking.
    order.reverse();
    if left < 0 {
        order.reverse();
    }
    order.sort_by_key(|set| std::cmp::Reverse(size(set)));
    let mut sizes = Vec::new();
    for set in order {
        let before = annotation(&set.metadata, MAXIMUM)
            .and_then(|text| text.parse::<i32>().ok())
            .filter(|maximum| *maximum > 0)
            .unwrap_or(total);
        let share = (f64::from(size(set)) * f64::from(allowed) / f64::from(before)).round() as i32 - size(set);
        let part = if left > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        left -= part;
        sizes.push((set.clone(), size(set) + part));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    Some(sizes.into_iter().filter_map(|(set, to)| resize(rollout, &set, to)).collect())
}
