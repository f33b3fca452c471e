//! virt-operator: installs the suite, keeps it in sync with the KubeVirt custom resource, and changes its version.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | arguments and environment |
//! | [`process`] | the process: endpoints, election, the loop of passes |
//! | [`upgrades`], `absent` | changes of version as people see them, nodes that are not there |
//! | [`watches`], [`cache`] | what the leader knows of the cluster, kept by watches |
//! | `apis`, `optional` | which optional APIs are served, and the watches of their kinds |
//! | [`catalogue`] | what is kept of the ready-made types |
//! | [`accounts`] | where the account of Prometheus is |
//! | [`reconcile`] | one pass: dereference, validate, build, apply, update status |
//! | [`admission`] | what the KubeVirt custom resource may say: rules, look-ups, the webhooks' server |
//! | [`backends`], [`endpoints`] | whether what the API server would call answers as it expects |
//! | [`contest`] | writes that did not last |
//! | [`instances`] | users' objects, where they hold up a removal |
//! | [`strategies`], [`shelf`] | install strategies in the cluster, and in a directory |
//! | [`certificates`] | issuing certificates and judging stored ones |
//! | [`metrics`] | what is counted |
//! | `nodes` | what the suite writes on nodes |
//! | [`pods`] | what is kept of the suite's pods |
//! | [`preview`] | the plan for another version, without carrying it out |
//!
//! What a version consists of is `kubevirt-release`'s business, the order of a change `kubevirt-upgrade`'s, and writing
//! `kubevirt-apply`'s.

use futures::FutureExt;
use futures::future::BoxFuture;
use kubevirt_runtime::host::{Host, Program};

mod absent;
pub mod accounts;
pub mod admission;
mod apis;
pub mod backends;
pub mod before;
pub mod cache;
pub mod catalogue;
pub mod certificates;
pub mod contest;
mod dump;
pub mod endpoints;
mod follow;
pub mod instances;
pub mod kept;
pub mod layout;
pub mod metrics;
mod nodes;
mod optional;
pub mod outlook;
pub mod pods;
pub mod preview;
pub mod process;
pub mod reconcile;
pub mod settings;
pub mod shelf;
pub mod strategies;
pub mod upgrades;
pub mod watches;

/// The operator as a program that runs on any host.
pub fn program() -> impl Program {
    |host: Host| -> BoxFuture<'static, anyhow::Result<()>> { process::run(host).boxed() }
}
