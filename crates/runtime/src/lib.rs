//! Shared process plumbing of every component: what a process gets from its machine ([`host`]), its network
//! ([`net`]), its clock ([`clock`]), and what it offers in return (lease, HTTPS with reloaded certificates, probes).
//!
//! Everything a component touches outside itself enters through [`host::Host`]. A real `main` builds one from the
//! operating system; a simulated node builds one whose network is in memory and whose clock can be paused. The
//! component cannot tell the difference.

pub mod admission;
pub mod causes;
pub mod cli;
pub mod clock;
mod connect;
pub mod health;
pub mod host;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod net;
pub mod process;
pub mod rest;
pub mod serve;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
