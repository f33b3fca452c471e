//! The plan: what is written in which order, and how far each step is. Immutable, serialisable, comparable.

use kubevirt_release::ObjectKey;
use serde::Serialize;

use crate::input::Identity;
use crate::order::{Mode, Slot};
use crate::reason::Reason;
use crate::report::Report;

/// Which content of an object a step writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// What the target version says.
    Final,
    /// For roles and bindings: what the old and the new version say, together. For a registration of the old version: as it is,
    /// but for whom the API server trusts.
    Transitional,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reasons", rename_all = "kebab-case")]
pub enum StepState {
    /// Nothing left to do.
    Done,
    /// There is something to write, and nothing forbids it.
    Now,
    /// Not finished and nothing to write at this moment.
    Waiting(Vec<Reason>),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Counted from 1.
    pub number: usize,
    pub slot: Slot,
    pub form: Form,
    /// All objects of the step, those that need no write included.
    pub objects: Vec<ObjectKey>,
    /// The objects to write, in order. Not empty in a waiting step: it is what the step will write when its turn comes.
    pub apply: Vec<ObjectKey>,
    /// The objects to delete, in order.
    pub delete: Vec<ObjectKey>,
    /// How many running pods it replaces.
    pub pods: usize,
    #[serde(flatten)]
    pub state: StepState,
}

impl Step {
    pub fn is_done(&self) -> bool {
        self.state == StepState::Done
    }
}

/// A whole plan, made by [`crate::plan()`] only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[must_use = "a plan that nobody carries out changes nothing"]
pub struct Plan {
    mode: Mode,
    observed: Option<Identity>,
    target: Identity,
    steps: Vec<Step>,
    /// Definitions that the target version lacks and that stay, because users' objects are stored under them.
    kept: Vec<ObjectKey>,
}

impl Plan {
    pub(crate) fn new(
        mode: Mode,
        observed: Option<Identity>,
        target: Identity,
        steps: Vec<Step>,
        kept: Vec<ObjectKey>,
    ) -> Self {
        Self { mode, observed, target, steps, kept }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The version that was last complete.
    pub fn observed(&self) -> Option<&Identity> {
        self.observed.as_ref()
    }

    pub fn target(&self) -> &Identity {
        &self.target
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub fn kept(&self) -> &[ObjectKey] {
        &self.kept
    }

    /// Everything is written, rolled out and tidied: the target may be called observed.
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(Step::is_done)
    }

    /// Every object of the target version is written (they may still roll out).
    pub fn is_applied(&self) -> bool {
        self.steps.iter().all(|step| step.apply.is_empty())
    }

    /// What happens now, what waits, and why.
    pub fn report(&self) -> Report {
        Report::of(self)
    }

    /// The steps to carry out in this pass, in order.
    pub fn now(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.state == StepState::Now)
    }

    pub(crate) fn steps_mut(&mut self) -> &mut Vec<Step> {
        &mut self.steps
    }
}
