//! What the suite needs of a hypervisor, and two implementations that cannot be told apart from outside: libvirt (cargo
//! feature `libvirt`) and a model for simulation.
//!
//! - [`domain`]: a virtual machine as a typed value, to and from libvirt's XML. Pure.
//! - [`hypervisor`]: the trait, its states, events and errors.
//! - [`accelerator`]: decides by a probe guest whether hardware virtualization can be relied on, over the trait.
//! - [`monitor`]: decides when a migration has to be slowed, paused or given up. Pure.
//! - [`settle`]: decides which side of an interrupted migration runs the guest. Pure, with one driver.
//! - [`migration`]: one migration from start to a settled end, over the trait.
//! - [`model`]: hypervisors in memory, with the faults real ones have.
//! - [`suite`]: the cases every implementation passes, one by one.
//! - [`supervisor`]: starts libvirt's daemons for one pod, restarts them, reaps what is left over.
//!
//! Nothing in here knows Kubernetes.

pub mod accelerator;
pub mod domain;
pub mod hypervisor;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod migration;
pub mod model;
pub mod monitor;
pub mod settle;
pub mod suite;
pub mod supervisor;
