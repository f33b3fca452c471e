//! The history of a change of version as a value: what an `UpgradePlan` says after a pass. It is written for people; the
//! planner does not read it, but for the times of steps.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubevirt_api::upgrade::{
    FindingStatus, PlanState, PointOfNoReturn, Rollback, SkippedNode, StepProgress, StepStatus, UpgradePlanStatus,
};

use crate::course::Course;
use crate::health::{Failure, Refused};
use crate::input::Snapshot;
use crate::order::{Slot, slot_of};
use crate::plan::{Plan, Step, StepState};
use crate::preflight::Finding;
use crate::reason::Reason;
use crate::rollout;

/// How many objects of a step are named: enough to know what it is about; the plan of `virtctl upgrade plan` has them all.
const NAMED_OBJECTS: usize = 8;

/// How many nodes that are not waited for are named: an administrator who has more of them looks at nodes, not at plans.
const NAMED_NODES: usize = 10;

/// How many findings are told: the ones that block come first, and of the others ten are enough to look into.
const FINDINGS: usize = 10;

/// The code of [`Reason::PreflightFailed`], which holds what has not begun.
const UNBEGUN: &str = "PreflightFailed";

/// The code of [`Failure::WriteRefused`].
const REFUSED: &str = "WriteRefused";

/// How many changes of version are kept: years of them where releases come every month or two, a few kilobytes each.
pub const HISTORY: usize = 20;

/// What is the same for the whole of a change.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub generation: i64,
    pub operator_version: String,
    pub point_of_no_return: Option<PointOfNoReturn>,
    pub findings: Vec<Finding>,
}

/// What is to be said after a pass on the way to the new version.
pub fn advance(
    old: Option<&UpgradePlanStatus>,
    plan: &Plan,
    snapshot: &Snapshot,
    course: &Course,
    facts: &Facts,
    now: Timestamp,
) -> UpgradePlanStatus {
    let Facts { generation, operator_version, point_of_no_return, findings } = facts.clone();
    let mut new = UpgradePlanStatus {
        generation,
        operator_version,
        point_of_no_return,
        mode: plan.mode().code().to_owned(),
        started: old.and_then(|old| old.started.clone()).or(Some(Time(now))),
        steps: plan.steps().iter().map(|step| step_status(old, step, now)).collect(),
        skipped_nodes: skipped(plan, snapshot),
        // What is found before the first write; afterwards the steps speak.
        findings: old
            .filter(|old| old.reason.as_deref() != Some(UNBEGUN))
            .map(|old| old.findings.clone())
            .unwrap_or_else(|| findings.iter().take(FINDINGS).map(told).collect()),
        ..UpgradePlanStatus::default()
    };
    match course {
        _ if plan.is_done() => {
            new.state = PlanState::Succeeded;
            new.finished = Some(Time(now));
        }
        Course::Forward => {
            new.state = PlanState::InProgress;
            new.step = current(plan);
        }
        Course::Held(reason) => {
            new.state = match reason {
                Reason::Paused { .. } => PlanState::Paused,
                Reason::Aborted => PlanState::Aborted,
                _ => PlanState::Blocked,
            };
            new.step = current(plan);
            new.reason = Some(reason.code().to_owned());
            new.message = Some(reason.to_string());
            // An end is told once, whenever it is looked at again.
            let told = old.and_then(|old| old.finished.clone()).or(Some(Time(now)));
            new.finished = told.filter(|_| new.state.is_over());
        }
        Course::Back(failure) => {
            new.step = current(plan);
            turn_back(&mut new, failure, now);
        }
    }
    new
}

/// From here on the way leads back.
fn turn_back(status: &mut UpgradePlanStatus, failure: &Failure, now: Timestamp) {
    status.state = PlanState::RollingBack;
    status.reason = Some(failure.code().to_owned());
    status.message = Some(failure.to_string());
    status.rollback = Some(Rollback {
        reason: failure.code().to_owned(),
        message: failure.to_string(),
        started: Time(now),
        finished: None,
    });
}

/// What is to be said after a pass on the way back. The steps stay as the change left them: they say how far it came.
pub fn returned(old: &UpgradePlanStatus, back: &Plan, held: Option<&Reason>, now: Timestamp) -> UpgradePlanStatus {
    let mut new = old.clone();
    if back.is_done() {
        new.state = PlanState::RolledBack;
        new.step = None;
        new.finished = new.finished.or(Some(Time(now)));
        if let Some(rollback) = &mut new.rollback {
            rollback.finished = rollback.finished.clone().or(Some(Time(now)));
        }
    } else {
        new.state = PlanState::RollingBack;
        new.step = current(back).map(|step| format!("back {step}"));
        new.reason = held.map(|reason| reason.code().to_owned()).or_else(|| {
            let rollback = old.rollback.as_ref();
            rollback.map(|rollback| rollback.reason.clone())
        });
    }
    new
}

/// What is to be said when a write was refused: what was under way stands still until it is not any more.
pub fn refused(new: UpgradePlanStatus, refused: &Refused) -> UpgradePlanStatus {
    UpgradePlanStatus {
        state: PlanState::Blocked,
        reason: Some(refused.code().to_owned()),
        message: Some(refused.why.clone()),
        ..new
    }
}

/// The end of a change that something else took the place of.
pub fn superseded(old: &UpgradePlanStatus, now: Timestamp) -> UpgradePlanStatus {
    UpgradePlanStatus {
        state: PlanState::Superseded,
        step: None,
        reason: None,
        message: Some("something else was asked for before it was over".to_owned()),
        finished: Some(Time(now)),
        ..old.clone()
    }
}

/// Whether a new state is worth a write: not for one more pod, only for a step, a reason, an end.
pub fn is_news(old: &UpgradePlanStatus, new: &UpgradePlanStatus) -> bool {
    let without_figures = |status: &UpgradePlanStatus| {
        let mut status = status.clone();
        // A refusal begins with the object that is refused; the server may word the rest in another way each time.
        let is_refusal = status.reason.as_deref() == Some(REFUSED);
        let message = status.message.take().filter(|_| is_refusal);
        status.message = message.and_then(|message| message.split(": ").next().map(str::to_owned));
        // A pod that is replaced is one less to be replaced; what a step began with is what it replaces.
        status.steps.iter_mut().for_each(|step| step.pods = 0);
        status
    };
    without_figures(old) != without_figures(new)
}

fn told(finding: &Finding) -> FindingStatus {
    FindingStatus { code: finding.code().to_owned(), blocks: finding.blocks(), message: finding.to_string() }
}

fn current(plan: &Plan) -> Option<String> {
    let step = plan.steps().iter().find(|step| !step.is_done())?;
    Some(format!("{}/{} {}", step.number, plan.steps().len(), step.slot.code()))
}

fn step_status(old: Option<&UpgradePlanStatus>, step: &Step, now: Timestamp) -> StepStatus {
    let Step { number, slot, form: _, objects, apply: _, delete, pods, state } = step;
    let known = old.and_then(|old| old.steps.iter().find(|known| known.name == slot.code()));
    let reasons = match state {
        StepState::Waiting(reasons) => reasons.as_slice(),
        StepState::Done | StepState::Now => &[],
    };
    let is_later = reasons.iter().any(|reason| matches!(reason, Reason::After { .. }));
    let is_held = reasons.iter().any(|reason| !reason.is_mere_progress());
    let progress = match state {
        StepState::Done => StepProgress::Done,
        _ if is_later => StepProgress::Pending,
        _ if is_held => StepProgress::Held,
        _ => StepProgress::InProgress,
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let has_begun = matches!(progress, StepProgress::InProgress | StepProgress::Done);
    let started = known.and_then(|known| known.started.clone());
    let mut blocked_by: Vec<String> =
        reasons.iter().filter(|reason| !reason.is_mere_progress()).map(|reason| reason.code().to_owned()).collect();
    blocked_by.dedup();
    let was_over = known.filter(|known| known.state == StepProgress::Done).and_then(|known| known.finished.clone());
    StepStatus {
        number: count(*number),
        name: slot.code().to_owned(),
        state: progress,
        started: started.or_else(|| has_begun.then_some(Time(now))),
        finished: was_over
            .filter(|_| progress == StepProgress::Done)
            .or_else(|| (progress == StepProgress::Done).then_some(Time(now))),
        blocked_by,
        objects: count(objects.len().max(delete.len()).max(known.map_or(0, |known| known.objects as usize))),
        pods: count(*pods).max(known.map_or(0, |known| known.pods)),
        touches: known
            .map(|known| known.touches.clone())
            .filter(|known| !known.is_empty())
            .unwrap_or_else(|| objects.iter().chain(delete).take(NAMED_OBJECTS).map(ToString::to_string).collect()),
    }
}

fn skipped(plan: &Plan, snapshot: &Snapshot) -> Vec<SkippedNode> {
    let id = &plan.target().id;
    // What only prepares the nodes is on the same ones.
    let workloads = snapshot.workloads.iter().filter(|(key, _)| slot_of(key) != Slot::Images);
    let all = workloads.flat_map(|(_, workload)| rollout::skipped(workload, id, &snapshot.absent_nodes));
    all.take(NAMED_NODES)
        .map(|(node, absence)| SkippedNode { name: node.clone(), why: absence.code().to_owned() })
        .collect()
}
