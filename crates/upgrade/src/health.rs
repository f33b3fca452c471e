//! The health gate: whether the pods of the target version show that it does not work.
//!
//! A failure is seen on the pods alone, so that any operator sees it, the one that began the change or its successor.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::upgrade::{StepProgress, UpgradePlanStatus};
use kubevirt_release::ObjectKey;
use serde::Serialize;

use crate::images;
use crate::input::{Pod, Snapshot, Trouble, Workload, WorkloadKind};
use crate::order::Slot;
use crate::plan::{Plan, StepState};
use crate::policy::Policy;
use crate::reason::Reason;

/// One crash may be an accident of the start (a Secret that comes a moment later); a program that ended three times ends
/// every time.
const CRASHES: i64 = 2;

/// Once the new virt-handler works on one node, this many nodes on which it does not are no longer the nodes' own fault. On
/// a cluster where fewer may be without it at once, those.
const SICK_NODES: i64 = 3;

/// A write that is refused is tried again every half minute, or as soon as something happens. After four times that
/// something else stood in the way, and what was refused before says nothing any more.
const TRIED_AGAIN: SignedDuration = SignedDuration::from_secs(120);

/// Why a change of version is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "PascalCase")]
pub enum Failure {
    /// A new pod ends again and again.
    CrashLoop { pod: String, why: String },
    /// A new pod's image cannot be had.
    ImageUnavailable { pod: String, why: String },
    /// A new pod is not ready although it had time.
    NotReadyInTime { pod: String, seconds: i64, why: String },
    /// No new pod was made at all.
    NoNewPod { slot: Slot, seconds: i64 },
    /// The server went on refusing an object of the new version.
    WriteRefused { object: ObjectKey, seconds: i64, why: String },
    /// Somebody asked for it.
    RollbackRequested,
}

impl Failure {
    /// The machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CrashLoop { .. } => "CrashLoop",
            Self::ImageUnavailable { .. } => "ImageUnavailable",
            Self::NotReadyInTime { .. } => "NotReadyInTime",
            Self::NoNewPod { .. } => "NoNewPod",
            Self::WriteRefused { .. } => "WriteRefused",
            Self::RollbackRequested => "RollbackRequested",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashLoop { pod, why } => write!(f, "pod {pod} ends again and again: {why}"),
            Self::ImageUnavailable { pod, why } => write!(f, "the image of pod {pod} cannot be had: {why}"),
            Self::NotReadyInTime { pod, seconds, why } => {
                write!(f, "pod {pod} was not ready within {seconds} s: {why}")
            }
            Self::NoNewPod { slot, seconds } => write!(f, "no new pod of {slot} was made within {seconds} s"),
            Self::WriteRefused { object: _, seconds, why } => write!(f, "tried again for {seconds} s: {why}"),
            Self::RollbackRequested => f.write_str("it was asked for"),
        }
    }
}

/// A write of a change of version that the server refuses: since when, and when it was tried last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub object: ObjectKey,
    pub why: String,
    pub since: Timestamp,
    pub last: Timestamp,
}

impl Refused {
    /// A further refusal. One of another object, or after a time in which nobody was refused, is a new one.
    pub fn again(self, known: Option<&Self>) -> Self {
        let goes_on =
            |known: &&Self| known.object == self.object && self.last.duration_since(known.last) <= TRIED_AGAIN;
        let since = known.filter(goes_on).map_or(self.since, |known| known.since);
        Self { since, ..self }
    }

    /// What the gate says of it: whoever has to mend something is given as long as a pod is given to become ready. What was
    /// not refused after that time may be mended.
    pub(crate) fn failure(&self, policy: &Policy) -> Option<Failure> {
        let lasted = self.last.duration_since(self.since);
        (lasted >= policy.deadline).then(|| self.after(lasted))
    }

    /// The machine-readable name, the same while it is waited for and when the change is undone for it.
    pub fn code(&self) -> &'static str {
        self.after(SignedDuration::ZERO).code()
    }

    fn after(&self, lasted: SignedDuration) -> Failure {
        Failure::WriteRefused { object: self.object.clone(), seconds: lasted.as_secs(), why: self.why.clone() }
    }
}

/// What the gate says at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) failure: Option<Failure>,
    /// When it has to be looked at again although nothing happens.
    pub(crate) due: Option<Timestamp>,
}

/// Looks at the steps that are under way.
pub(crate) fn health(
    plan: &Plan,
    snapshot: &Snapshot,
    policy: &Policy,
    record: Option<&UpgradePlanStatus>,
    now: Timestamp,
) -> Health {
    let mut health = Health::default();
    for step in plan.steps().iter().filter(|step| step.slot.rolls() && is_under_way(&step.state)) {
        let started = record.and_then(|record| {
            let step = record.steps.iter().find(|known| known.name == step.slot.code())?;
            step.started.as_ref().filter(|_| step.state != StepProgress::Held).map(|time| time.0)
        });
        for key in step.objects.iter().filter(|key| snapshot.workloads.contains_key(*key)) {
            let workload = images::counted(step.slot, &snapshot.workloads[key]);
            let watched = Watched { key, workload: &workload, slot: step.slot, target: &plan.target().id, started };
            let found = watched.health(snapshot, policy, now);
            health.due = health.due.into_iter().chain(found.due).min();
            health.failure = health.failure.or(found.failure);
        }
    }
    health
}

fn is_under_way(state: &StepState) -> bool {
    matches!(state, StepState::Waiting(reasons) if !reasons.iter().any(|reason| matches!(reason, Reason::After { .. })))
}

/// A workload whose step is under way.
struct Watched<'a> {
    key: &'a ObjectKey,
    workload: &'a Workload,
    slot: Slot,
    /// The deployment ID of its new pods.
    target: &'a str,
    /// Since when the step is under way, as far as that is on record.
    started: Option<Timestamp>,
}

impl Watched<'_> {
    fn health(&self, snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Health {
        let Self { key, workload, slot, target, started } = *self;
        // A workload that somebody changed back has new pods of the wrong kind.
        if !snapshot.is_of(key, target) {
            return Health::default();
        }
        let is_new = |pod: &&Pod| pod.id.as_deref() == Some(target) && !pod.deleting;
        let is_waited_for =
            |pod: &&Pod| pod.node.as_ref().is_none_or(|node| !snapshot.absent_nodes.contains_key(&**node));
        let new: Vec<&Pod> = workload.pods.iter().filter(is_new).filter(is_waited_for).collect();
        let mut health = Health::default();
        let mut failures = Vec::new();
        for pod in new.iter().filter(|pod| !pod.ready) {
            let (failure, due) = of_pod(pod, policy, now);
            failures.extend(failure);
            health.due = health.due.into_iter().chain(due).min();
        }
        if new.is_empty() && workload.wanted > 0 && !workload.pods.iter().any(|pod| pod.deleting) {
            let due = started.map(|started| started.saturating_add(policy.deadline).unwrap_or(Timestamp::MAX));
            match due {
                Some(due) if due <= now => {
                    failures.push(Failure::NoNewPod { slot, seconds: policy.deadline.as_secs() });
                }
                due => health.due = health.due.into_iter().chain(due).min(),
            }
        }
        // All nodes get their images at once, so the first one that fails says nothing of the others.
        let at_once = slot == Slot::Images && new.len() > failures.len();
        let proven = workload.kind == WorkloadKind::DaemonSet && (at_once || new.iter().any(|pod| pod.ready));
        let enough = if proven { policy.wave.of(workload.wanted).min(SICK_NODES) } else { 1 };
        if i64::try_from(failures.len()).unwrap_or(i64::MAX) >= enough {
            health.failure = failures.into_iter().next();
        }
        health
    }
}

/// Whether a pod that is not ready has failed, or else when it will have.
fn of_pod(pod: &Pod, policy: &Policy, now: Timestamp) -> (Option<Failure>, Option<Timestamp>) {
    let name = pod.name.to_string();
    let why = pod.not_ready.as_deref().unwrap_or("no reason reported").to_owned();
    let after = |time: Option<Timestamp>, span| time.map(|time| time.saturating_add(span).unwrap_or(Timestamp::MAX));
    if let Some(Trouble::CrashLoops { restarts }) = pod.trouble
        && restarts >= CRASHES
    {
        return (Some(Failure::CrashLoop { pod: name, why }), None);
    }
    let deadline = after(pod.since, policy.deadline);
    let grace = after(pod.since, policy.image_grace).filter(|_| pod.trouble == Some(Trouble::NoImage));
    if grace.is_some_and(|grace| grace <= now) {
        return (Some(Failure::ImageUnavailable { pod: name, why }), None);
    }
    if deadline.is_some_and(|deadline| deadline <= now) {
        let seconds = policy.deadline.as_secs();
        return (Some(Failure::NotReadyInTime { pod: name, seconds, why }), None);
    }
    (None, grace.into_iter().chain(deadline).min())
}
