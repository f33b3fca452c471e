//! The upgrade planner: which objects of a version are written now, which wait, and why.
//!
//! Values in, an immutable [`Plan`] and a [`Report`] out. Nothing here knows time, chance, tasks or a client, so a plan
//! can be made from a live cluster, from a fixture or on an administrator's machine, and is the same each time. The
//! planner is asked again after every change; it keeps no memory, so a crash or a new leader loses nothing.
//!
//! [`check`] verifies plans against a statement of the order that does not come from the planner.

pub mod canary;
pub mod check;
mod input;
mod order;
mod plan;
mod planner;
pub mod rbac;
mod reason;
mod report;
mod rollout;
#[cfg(test)]
mod tests;

pub use input::{Existing, Identity, Input, Pod, Snapshot, Workload, WorkloadKind};
pub use order::{Mode, Slot};
pub use plan::{Form, Plan, Step, StepState};
pub use planner::plan;
pub use reason::Reason;
pub use report::Report;
