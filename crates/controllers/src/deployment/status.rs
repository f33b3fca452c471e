//! What a Deployment reports: counts and conditions.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Noted, Rollout, available, size};
use crate::action::Decision;
use crate::replicaset::some_if_any;

struct Counts {
    total: i32,
    updated: i32,
    ready: i32,
    available: i32,
}

fn counts(rollout: &Rollout<'_>) -> Counts {
    let mut counts = Counts { total: 0, updated: 0, ready: 0, available: 0 };
    for set in rollout.all() {
        let status = set.status.clone().unwrap_or_default();
        counts.total += status.replicas;
        counts.ready += status.ready_replicas.unwrap_or(0);
        counts.available += available(set);
    }
    counts.updated = rollout.new.as_ref().and_then(|new| new.status.as_ref()).map_or(0, |status| status.replicas);
    counts
}

/// Whether every pod is of the current template and available, and nothing else is left.
pub(super) fn is_complete(rollout: &Rollout<'_>) -> bool {
    let counts = counts(rollout);
    rollout.new.is_some()
        && counts.updated == rollout.replicas
        && counts.total == rollout.replicas
        && counts.available == rollout.replicas
}

pub(super) fn status(
    rollout: &Rollout<'_>,
    before: Option<DeploymentStatus>,
    noted: Option<Noted>,
    decision: &mut Decision,
) -> DeploymentStatus {
    let old = before.unwrap_or_default();
    let counts = counts(rollout);
    let asked: i32 = rollout.all().map(|set| size(set)).sum();
    let unavailable = (asked - counts.available).max(0);
    let mut conditions = old.conditions.clone().unwrap_or_default();

    let enough = counts.available >= rollout.replicas - rollout.max_unavailable();
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, rollout, "Available", status, reason, message.to_owned(), false);
    progress(rollout, &old, &counts, noted, &mut conditions, decision);

    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some_if_any(counts.total, old.replicas),
        updated_replicas: some_if_any(counts.updated, old.updated_replicas),
        ready_replicas: some_if_any(counts.ready, old.ready_replicas),
        available_replicas: some_if_any(counts.available, old.available_replicas),
        unavailable_replicas: some_if_any(unavailable, old.unavailable_replicas),
        conditions: Some(conditions),
        ..old
    }
}

fn progress(
    rollout: &Rollout<'_>,
    old: &DeploymentStatus,
    counts: &Counts,
    noted: Option<Noted>,
    conditions: &mut Vec<DeploymentCondition>,
    decision: &mut Decision,
) {
    let failure = rollout.new.as_ref().and_then(|new| {
        let conditions = new.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            let message = failure.message.clone().unwrap_or_default();
            set(conditions, rollout, "ReplicaFailure", "True", &reason, message, false);
        }
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    let Some(deadline) = rollout.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX) else {
        conditions.retain(|condition| condition.type_ != "Progressing");
        return;
    };
    let deadline = Duration::from_secs(deadline.max(0).unsigned_abs().into());
    match noted {
        Some(Noted::Failed(words)) => {
            return set(conditions, rollout, "Progressing", "False", "ReplicaSetCreateError", words, false);
        }
        Some(Noted::Created(name)) => {
            let message = format!("Created new replica set \"{name}\"");
            return set(conditions, rollout, "Progressing", "True", "NewReplicaSetCreated", message, true);
        }
        None => {}
    }
    let current = conditions.iter().find(|condition| condition.type_ == "Progressing").cloned();
    let paused = rollout.spec.paused == Some(true);
    let reason = current.as_ref().and_then(|current| current.reason.as_deref());
    if paused {
        if reason != Some("DeploymentPaused") {
            set(
                conditions,
                rollout,
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".to_owned(),
                false,
            );
        }
        return;
    }
    let set_name = rollout.new.as_ref().and_then(|new| new.metadata.name.as_deref());
    let what = match set_name {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!("Deployment \"{}\"", rollout.deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if reason == Some("DeploymentPaused") {
        return set(
            conditions,
            rollout,
            "Progressing",
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".to_owned(),
            true,
        );
    }
    let observed = old.observed_generation >= rollout.deployment.metadata.generation;
    if is_complete(rollout) && (observed || reason.is_some()) {
        let message = format!("{what} has successfully progressed.");
        set(conditions, rollout, "Progressing", "True", "NewReplicaSetAvailable", message, false);
        return;
    }
    let old_total = counts.total - counts.updated;
    let was_old = old.replicas.unwrap_or(0) - old.updated_replicas.unwrap_or(0);
    let moved = counts.updated > old.updated_replicas.unwrap_or(0)
        || old_total < was_old
        || counts.ready > old.ready_replicas.unwrap_or(0)
        || counts.available > old.available_replicas.unwrap_or(0);
    if moved {
        let message = format!("{what} is progressing.");
        return set(conditions, rollout, "Progressing", "True", "ReplicaSetUpdated", message, true);
    }
    let Some(current) = current else {
        // A Deployment whose set exists already was found, not created, by this controller.
        if set_name.is_some() {
            let message = format!("Found new replica set {what}").replace("ReplicaSet ", "");
            set(conditions, rollout, "Progressing", "True", "FoundNewReplicaSet", message, true);
        }
        return;
    };
    if current.reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return;
    }
    if current.reason.as_deref() == Some("NewReplicaSetAvailable") {
        // A finished rollout that loses pods is not late; a new template starts with a set of its own.
        return;
    }
    let since = current.last_update_time.as_ref().map_or(rollout.view.now, |time| time.0);
    let passed = Duration::try_from(rollout.view.now.duration_since(since)).unwrap_or_default();
    match deadline.checked_sub(passed) {
        Some(left) if !left.is_zero() => decision.look_again(left),
        _ => {
            let message = format!("{what} has timed out progressing.");
            set(conditions, rollout, "Progressing", "False", "ProgressDeadlineExceeded", message, true);
        }
    }
}

/// Sets a condition. The transition time moves only with the status; the update time also when `touch` is set.
fn set(
    conditions: &mut Vec<DeploymentCondition>,
    rollout: &Rollout<'_>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    touch: bool,
) {
    let now = Some(Time(rollout.view.now));
    let index = conditions.iter().position(|condition| condition.type_ == kind);
    let mut condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: now.clone(),
        last_update_time: now,
    };
    let Some(index) = index else { return conditions.push(condition) };
    let before = &conditions[index];
    if before.status == condition.status {
        condition.last_transition_time.clone_from(&before.last_transition_time);
        if before.reason == condition.reason && before.message == condition.message && !touch {
            return;
        }
    }
    conditions[index] = condition;
}
