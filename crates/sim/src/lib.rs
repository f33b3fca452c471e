//! Seeded worlds: the real operator and the real suite in a simulated cluster, under faults, in simulated time.
//!
//! A [`Script`] is a seed, a story and its trouble; [`run()`] plays it on one thread and returns an [`Outcome`]. Safety is
//! checked at every commit of the store (the S of docs/testing.md), liveness once the faults have stopped (the O). Nothing
//! here is known to the operator, and nothing of how it decides is known here: whatever breaks it is found by what
//! users would see. The same script gives the same trace.

mod aim;
mod chronicle;
mod compare;
mod course;
mod expect;
mod invariants;
mod lead;
mod log;
mod monkey;
mod outage;
mod pool;
mod process;
mod referee;
mod registry;
mod releases;
mod run;
pub mod series;
mod state;
mod story;
mod strike;
pub mod sweep;
pub mod upgrade;
mod world;

pub use chronicle::{Chronicle, Cue, Telling};
pub use course::{Branches, Point};
pub use invariants::{Writer, statements};
pub use monkey::{Prank, Victim};
pub use outage::{Backends, Outage};
pub use referee::{Findings, Tally, Violation};
pub use registry::Sickness;
pub use run::{Done, Outcome, Script, run, run_parting};
pub use story::{Act, Error};
pub use strike::{Blow, CUT_OFF, Strike, Target};
pub use upgrade::renewal::Renewal;
pub use upgrade::unread::Unread;
pub use world::{Mischief, Moment, TooLate, Trouble};
