//! The course of a run, and the points at which runs that began alike part.
//!
//! Hundreds of runs are the run without trouble up to some moment. They are played once up to there: at each [`Point`]
//! whoever leads the sweep may let the run go on as another one ([`Branches`]). A run that parts is, request by request,
//! the run that would have come out of its script from the beginning (`tests/parting.rs`).

use std::sync::{Arc, Mutex, PoisonError};

use crate::run::Script;
use crate::story::Act;

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The administrator has asked for what the act is about.
    Begun(Act),
    /// The act is done, and all was quiet afterwards.
    Ended(Act),
    /// The operator's write of this number has arrived and is about to be looked at.
    Arrival(u32),
    /// The operator's write of this number is carried out, and its answer under way.
    Write(u32),
}

/// Decides at each point how a run goes on.
pub trait Branches: Send + Sync + 'static {
    /// Another script that is to be followed from here on, if any. It must agree with the present one in all that came
    /// before the point.
    fn at(&self, point: Point) -> Option<Script>;
}

/// What a run follows. Clones are the same course.
#[derive(Clone)]
pub(crate) struct Course {
    script: Arc<Mutex<Script>>,
    branches: Option<Arc<dyn Branches>>,
}

impl Course {
    pub(crate) fn new(script: Script, branches: Option<Arc<dyn Branches>>) -> Self {
        Self { script: Arc::new(Mutex::new(script)), branches }
    }

    pub(crate) fn script(&self) -> Script {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The script that is followed from this point on, if it is another one.
    pub(crate) fn reach(&self, point: Point) -> Option<Script> {
        let script = self.branches.as_ref()?.at(point)?;
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&script);
        Some(script)
    }
}
