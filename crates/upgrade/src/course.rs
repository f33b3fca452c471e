//! Which way a change of version goes at a moment: on, nowhere, or back. The clock is handed in; what was asked
//! for is read from the objects of people, how the new version fares from its pods.

use jiff::Timestamp;
use kubevirt_api::upgrade::{PointOfNoReturn, Request, UpgradePlanStatus};
use kubevirt_release::{Kind, ObjectKey};

use crate::health::{Failure, Refused, health};
use crate::input::Snapshot;
use crate::order::{Mode, Slot, is_registration, slot_of};
use crate::plan::{Plan, Step, StepState};
use crate::policy::Policy;
use crate::preflight::Finding;
use crate::reason::{PausedBy, Reason};

/// What a decision rests on beside the plan and what exists.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub policy: &'a Policy,
    /// What is asked of this very change.
    pub request: Option<Request>,
    /// What is recorded of this change; only the times of its steps are used.
    pub record: Option<&'a UpgradePlanStatus>,
    /// Why the version before cannot be had again, if it cannot.
    pub no_way_back: Option<NoWayBack>,
    /// What makes the change impossible before it begins.
    pub blocked: Option<&'a Finding>,
    /// What the server refuses.
    pub refused: Option<&'a Refused>,
    /// The plan already leads back to the version before.
    pub returning: bool,
    pub now: Timestamp,
}

/// Why there is no way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoWayBack {
    /// Objects are stored in a version that the version before does not know.
    PointOfNoReturn(PointOfNoReturn),
    /// Nobody knows the objects of the version before.
    Unknown,
}

/// Which way it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    Forward,
    /// Nothing further is changed; certificates are renewed all the same.
    Held(Reason),
    /// To the version before.
    Back(Failure),
}

/// A course, and when to decide again although nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub course: Course,
    pub due: Option<Timestamp>,
}

/// Whether people want the change to stand still. It is known before a plan is made: it also decides whether nodes go on
/// by themselves.
pub fn stands_still(policy: &Policy, request: Option<Request>) -> Option<Reason> {
    match request {
        Some(Request::Pause) => Some(Reason::Paused { by: PausedBy::Request }),
        Some(Request::Abort) => Some(Reason::Aborted),
        _ if policy.unread => Some(Reason::Paused { by: PausedBy::UnreadPolicy }),
        _ if policy.paused => Some(Reason::Paused { by: PausedBy::Policy }),
        Some(Request::Rollback) | None => None,
    }
}

/// Decides for a plan. Anything but a change of version goes on.
pub fn decide(plan: &Plan, snapshot: &Snapshot, asked: &Asked<'_>) -> Decision {
    let Asked { policy, request, record, no_way_back, blocked, refused, returning, now } = asked;
    let forward = Decision { course: Course::Forward, due: None };
    // What is finished at this moment can be neither paused nor undone.
    if !matches!(plan.mode(), Mode::Update | Mode::Rollback) || plan.is_done() {
        return forward;
    }
    if *returning {
        // Who pauses stops this too; nothing leads back from the way back.
        let still = stands_still(policy, request.filter(|request| *request == Request::Pause));
        return still.map_or(forward, |reason| Decision { course: Course::Held(reason), due: None });
    }
    if plan.observed().is_some_and(|observed| observed.id == plan.target().id) {
        return forward;
    }
    let back = |failure: Failure| match no_way_back {
        None => Course::Back(failure),
        Some(NoWayBack::PointOfNoReturn(point)) => {
            Course::Held(Reason::PastPointOfNoReturn { failure, why: point.why.clone() })
        }
        Some(NoWayBack::Unknown) => Course::Held(Reason::NoWayBack { failure }),
    };
    if *request == Some(Request::Rollback) {
        return Decision { course: back(Failure::RollbackRequested), due: None };
    }
    if let Some(reason) = stands_still(policy, *request) {
        return Decision { course: Course::Held(reason), due: None };
    }
    if let Some(finding) = blocked {
        let reason = Reason::PreflightFailed { finding: (*finding).clone() };
        return Decision { course: Course::Held(reason), due: None };
    }
    let health = health(plan, snapshot, policy, *record, *now);
    // Where it cannot go back it is tried on: a write that is not tried is never found mended.
    let may_go_back = policy.goes_back && no_way_back.is_none();
    let of_writes = refused.filter(|_| may_go_back).and_then(|refused| refused.failure(policy));
    match health.failure.or(of_writes) {
        None => Decision { course: Course::Forward, due: health.due },
        Some(failure) if policy.goes_back => Decision { course: back(failure), due: None },
        Some(failure) => Decision { course: Course::Held(Reason::Failed { failure }), due: None },
    }
}

/// What is written even while a change is held: certificates run out whether or not somebody thinks, the API server has to
/// trust those that take their place, and a roll-out over nodes has to be told to stop.
fn goes_on(key: &ObjectKey, slot: Slot, snapshot: &Snapshot, target: &str) -> bool {
    match key.kind {
        _ if slot == Slot::RbacOpen => is_registration(key),
        // What is defined already must not be open only because somebody thinks.
        _ if slot == Slot::Gate => defines(snapshot, target),
        Kind::Secret | Kind::ConfigMap => true,
        Kind::DaemonSet => slot_of(key) == Slot::Handler && snapshot.is_of(key, target),
        _ => false,
    }
}

/// Whether definitions of the target version have begun to be written.
fn defines(snapshot: &Snapshot, target: &str) -> bool {
    snapshot.objects.keys().any(|key| slot_of(key) == Slot::Crds && snapshot.is_of(key, target))
}

impl Plan {
    /// The same plan, in which what changes the nodes also says what it waits for there.
    pub fn waiting_on_nodes(mut self, reason: Option<&Reason>) -> Self {
        let step = self.steps_mut().iter_mut().find(|step| step.slot == Slot::Handler);
        if let (Some(reason), Some(StepState::Waiting(reasons))) = (reason, step.map(|step| &mut step.state)) {
            reasons.insert(0, reason.clone());
        }
        self
    }

    /// The plan as far as its course lets it go.
    pub fn on(mut self, course: &Course, snapshot: &Snapshot) -> Self {
        let Course::Held(reason) = course else { return self };
        let target = self.target().id.clone();
        // What only prepared the nodes is taken away also where nothing comes of the change.
        let takes_away = |step: &Step| step.slot == Slot::Images && !step.delete.is_empty();
        let due = |step: &&mut Step| step.state == StepState::Now && !takes_away(step);
        for step in self.steps_mut().iter_mut().filter(due) {
            let slot = step.slot;
            let goes_on = |key: &ObjectKey| goes_on(key, slot, snapshot, &target);
            if step.apply.iter().any(goes_on) {
                step.apply.retain(goes_on);
                step.delete.clear();
            } else {
                step.state = StepState::Waiting(vec![reason.clone()]);
            }
        }
        if let Some(step) = self.steps_mut().iter_mut().find(|step| !step.is_done())
            && let StepState::Waiting(reasons) = &mut step.state
            && !reasons.contains(reason)
        {
            reasons.insert(0, reason.clone());
        }
        self
    }
}
