//! The only writer of the objects the operator manages.
//!
//! It writes one object at a time: server-side apply as `virt-operator`, or deletion of exactly the object that was
//! seen. It never decides what should exist. Every write asks first whether this process may still write, so that a
//! leader that has lost its lease without noticing does no harm.

mod drift;
mod quantity;
mod rehearse;
mod rights;
mod writer;

pub use drift::{Difference, Drift, DriftKind, FIELD_MANAGER, drift, pack};
pub use rehearse::{RehearsalError, rehearse};
pub use rights::own_rights;
pub use writer::{Error, Outcome, Seen, Writer, Written, differences, differs};
