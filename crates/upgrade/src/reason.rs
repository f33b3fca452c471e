//! Why a step waits. Each reason is a value with a stable code, so that status, event, metric and command line agree.

use std::fmt;

use kubevirt_release::ObjectKey;
use serde::Serialize;

use crate::health::Failure;
use crate::input::WorkloadKind;
use crate::order::Slot;
use crate::preflight::Finding;

/// One thing a step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "PascalCase")]
pub enum Reason {
    /// An earlier step is not finished.
    After { number: usize, slot: Slot },
    /// An object is written but does not serve yet.
    NotServing { object: ObjectKey, why: String },
    /// An object makes the API server call something that does not answer yet; it is written when that does.
    NoBackend { object: ObjectKey, why: String },
    /// An object that must exist is on its way out; it is written again when it is gone.
    BeingDeleted { object: ObjectKey },
    /// An object that must go is on its way out.
    StillThere { object: ObjectKey },
    /// The workload's controller has not acted on the newest spec.
    NotObserved { object: ObjectKey },
    /// Not all pods are made from the newest template.
    NotUpdated { object: ObjectKey, kind: WorkloadKind, updated: i64, wanted: i64 },
    /// Not all pods are ready.
    NotReady { object: ObjectKey, kind: WorkloadKind, ready: i64, wanted: i64 },
    /// A pod of the target version is not ready.
    PodNotReady { pod: String, why: String },
    /// A pod of another version still runs.
    OldPodRuns { pod: String, deleting: bool },
    /// Somebody wants the change to stand still.
    Paused { by: PausedBy },
    /// Somebody ended the change where it is.
    Aborted,
    /// The new version does not work, and the policy leaves it to people what to do.
    Failed { failure: Failure },
    /// The first new pod has to be ready for a while before others follow.
    Soaking { pod: String, seconds: i64 },
    /// The pods of a wave have to be ready for a while before the next ones follow.
    BetweenWaves { seconds: i64 },
    /// Something makes the change impossible; nothing of it was written.
    PreflightFailed { finding: Finding },
    /// It does not work, or is not wanted, and objects are stored that the version before cannot read.
    PastPointOfNoReturn { failure: Failure, why: String },
    /// It does not work, or is not wanted, and nobody knows what the version before consisted of.
    NoWayBack { failure: Failure },
}

/// Where a pause was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PausedBy {
    /// In the UpgradePlan.
    Request,
    /// In the UpgradePolicy.
    Policy,
    /// By nobody: what the UpgradePolicy asks for cannot be read.
    UnreadPolicy,
}

impl Reason {
    /// The machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::After { .. } => "After",
            Self::NotServing { .. } => "NotServing",
            Self::NoBackend { .. } => "NoBackend",
            Self::BeingDeleted { .. } => "BeingDeleted",
            Self::StillThere { .. } => "StillThere",
            Self::NotObserved { .. } => "NotObserved",
            Self::NotUpdated { .. } => "NotUpdated",
            Self::NotReady { .. } => "NotReady",
            Self::PodNotReady { .. } => "PodNotReady",
            Self::OldPodRuns { .. } => "OldPodRuns",
            Self::Paused { .. } => "Paused",
            Self::Aborted => "Aborted",
            Self::Soaking { .. } => "Soaking",
            Self::BetweenWaves { .. } => "BetweenWaves",
            Self::Failed { .. } => "Failed",
            Self::PreflightFailed { .. } => "PreflightFailed",
            Self::PastPointOfNoReturn { .. } => "PastPointOfNoReturn",
            Self::NoWayBack { .. } => "NoWayBack",
        }
    }

    /// Whether it only says how far something is that goes on by itself.
    pub fn is_mere_progress(&self) -> bool {
        matches!(
            self,
            Self::After { .. }
                | Self::NotServing { .. }
                | Self::NoBackend { .. }
                | Self::NotObserved { .. }
                | Self::NotUpdated { .. }
                | Self::NotReady { .. }
                | Self::PodNotReady { .. }
                | Self::OldPodRuns { .. }
                | Self::StillThere { .. }
                | Self::BeingDeleted { .. }
        )
    }
}

fn units(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "pods",
        WorkloadKind::DaemonSet => "nodes",
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After { number, slot } => write!(f, "after step {number} ({slot})"),
            Self::NotServing { object, why } => write!(f, "{object} does not serve yet: {why}"),
            Self::NoBackend { object, why } => write!(f, "{object} is not registered yet: {why}"),
            Self::BeingDeleted { object } => write!(f, "{object} is being deleted, it is written again afterwards"),
            Self::StillThere { object } => write!(f, "{object} is being deleted"),
            Self::NotObserved { object } => write!(f, "{object}: its controller has not seen the new spec"),
            Self::NotUpdated { object, kind, updated, wanted } => {
                write!(f, "{object}: {updated} of {wanted} {} updated", units(*kind))
            }
            Self::NotReady { object, kind, ready, wanted } => {
                write!(f, "{object}: {ready} of {wanted} {} ready", units(*kind))
            }
            Self::PodNotReady { pod, why } => write!(f, "pod {pod} is not ready: {why}"),
            Self::OldPodRuns { pod, deleting: false } => write!(f, "pod {pod} of another version still runs"),
            Self::OldPodRuns { pod, deleting: true } => write!(f, "pod {pod} of another version is ending"),
            Self::Paused { by: PausedBy::Request } => f.write_str("paused on request: nothing further is changed"),
            Self::Paused { by: PausedBy::Policy } => {
                f.write_str("paused by the UpgradePolicy: nothing further is changed")
            }
            Self::Paused { by: PausedBy::UnreadPolicy } => f.write_str(
                "paused because the UpgradePolicy cannot be read by this release: nothing further is changed until it is \
                 mended or deleted",
            ),
            Self::Aborted => f.write_str("aborted on request: everything stays as it is until spec or operator change"),
            Self::Failed { failure } => {
                write!(f, "the new version does not work and the policy forbids going back by itself: {failure}")
            }
            Self::Soaking { pod, seconds } => {
                write!(f, "pod {pod}, the first of its version, has to be ready for {seconds} s before others follow")
            }
            Self::BetweenWaves { seconds } => {
                write!(f, "the new pods have to be ready for {seconds} s before the next ones follow")
            }
            Self::PreflightFailed { finding } => write!(f, "nothing was changed, because it would fail: {finding}"),
            Self::PastPointOfNoReturn { failure, why } => {
                write!(f, "there is no way back any more ({why}), although one is needed: {failure}")
            }
            Self::NoWayBack { failure } => {
                write!(f, "the objects of the version before are not known, although they are needed: {failure}")
            }
        }
    }
}
