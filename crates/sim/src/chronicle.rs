//! What is told of a change of version while it is under way, commit by commit: the moments at which a person could think
//! again, and the steps at which one did.

use std::time::Duration;

use nanokube::Transition;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::invariants::text;

/// The resource of the records.
const RECORDS: &str = "upgradeplans.upgrade.kubevirt.io";

/// One commit after which a record says something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// Since the beginning of the run.
    pub at: Duration,
    pub state: String,
    /// The first step that is not done, `4/10 virt-handler`.
    pub step: String,
    /// The steps that are under way.
    pub under_way: Vec<String>,
    /// The version before can still be had.
    pub can_go_back: bool,
}

/// All of them of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Chronicle {
    pub tellings: Vec<Telling>,
    /// Every step of the records, in the order in which they were first told.
    pub steps: Vec<String>,
    /// The steps that were under way when a change turned back.
    pub turned_at: Vec<String>,
}

fn steps(status: &Value) -> impl Iterator<Item = &Value> {
    status.pointer("/steps").and_then(Value::as_array).into_iter().flatten()
}

fn can_go_back(status: &Value) -> bool {
    let point = text(status, "/pointOfNoReturn/step");
    !steps(status).any(|step| text(step, "/name") == point && text(step, "/state") == "Done")
}

impl Chronicle {
    /// Takes note of a commit; what it tells in a few words, if it tells anything new.
    pub(crate) fn see(&mut self, transition: &Transition, at: Duration) -> Option<String> {
        if *transition.resource != *RECORDS {
            return None;
        }
        let status = transition.after()?.get("status")?;
        let before = transition.before().and_then(|before| before.get("status"));
        if before == Some(status) {
            return None;
        }
        let state = text(status, "/state").to_owned();
        let under_way: Vec<String> = steps(status)
            .filter(|step| text(step, "/state") == "InProgress")
            .map(|step| text(step, "/name").to_owned())
            .collect();
        for step in steps(status).map(|step| text(step, "/name")) {
            if !self.steps.iter().any(|known| known == step) {
                self.steps.push(step.to_owned());
            }
        }
        let was = before.map(|before| text(before, "/state")).unwrap_or_default();
        if state == "RollingBack" && was != state {
            self.turned_at.extend(under_way.clone());
        }
        let step = text(status, "/step").to_owned();
        let told = format!("{} {state} {step}", transition.name());
        self.tellings.push(Telling { at, state, step, under_way, can_go_back: can_go_back(status) });
        Some(told.trim_end().to_owned())
    }
}

/// A moment of a change of version, counted from when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cue {
    /// Right after its record was told for the so manyth time, from 1 on.
    Told(u32),
    /// So long after that.
    After(u32, Duration),
    /// Right after the operator's so manyth write, from 1 on.
    Wrote(u32),
}

/// How far a run is, for those who wait for a [`Cue`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) told: u32,
    pub(crate) writes: u32,
}

impl Cue {
    /// How far a run has to be that was so far when the change was asked for, and how long to wait then.
    pub(crate) fn from(self, asked: Reached) -> (Reached, Duration) {
        match self {
            Self::Told(nth) => (Reached { told: asked.told + nth, ..asked }, Duration::ZERO),
            Self::After(nth, wait) => (Reached { told: asked.told + nth, ..asked }, wait),
            Self::Wrote(nth) => (Reached { writes: asked.writes + nth, ..asked }, Duration::ZERO),
        }
    }
}

impl Reached {
    pub(crate) fn is_at_least(self, other: Self) -> bool {
        self.told >= other.told && self.writes >= other.writes
    }
}
