//! The upgrade planner: which objects of a version are written now, which wait, and why.
//!
//! Values in, an immutable [`Plan`] and a [`Report`] out. Nothing here knows time, chance, tasks or a client, so a plan
//! can be made from a live cluster, from a fixture or on an administrator's machine, and is the same each time. The
//! planner is asked again after every change; it keeps no memory, so a crash or a new leader loses nothing.
//!
//! [`check`] verifies plans against a statement of the order that does not come from the planner.

pub mod canary;
pub mod check;
mod course;
pub mod estimate;
pub mod gate;
mod health;
pub mod hops;
pub mod images;
mod input;
mod order;
pub mod permissions;
mod plan;
mod planner;
mod policy;
pub mod preflight;
pub mod rbac;
mod reason;
pub mod record;
mod report;
mod rollout;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod waves;

pub use course::{Asked, Course, Decision, NoWayBack, decide, stands_still};
pub use health::{Failure, Refused};
pub use input::{Absence, Existing, Identity, Input, Pod, Snapshot, Trouble, Workload, WorkloadKind};
pub use order::{Mode, Slot};
pub use plan::{Form, Plan, Step, StepState};
pub use planner::plan;
pub use policy::{Policy, Share};
pub use reason::{PausedBy, Reason};
pub use report::Report;
