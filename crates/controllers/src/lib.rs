//! Kubernetes' built-in controllers and the scheduler, as clients of the API.
//!
//! Every controller is a pure function from what is known of the cluster ([`kinds::Objects`]) and a key to a list of
//! actions; one task ([`manager`]) feeds the stores from watches, asks the controllers and runs their actions. Nothing
//! here knows which API server it talks to.

pub mod action;
pub mod cache;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod events;
mod execute;
mod garbage;
pub mod job;
pub mod kinds;
mod manager;
pub mod node_lifecycle;
pub mod ownership;
pub mod placement;
pub mod pods;
pub mod protection;
pub mod replicaset;
pub mod scheduler;
pub mod serviceaccounts;

use std::ops::RangeInclusive;
use std::time::Duration;

use kube::Client;
use kubevirt_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::action::Controller;
use crate::cache::Watch;
use crate::kinds::Kind;
use crate::manager::Manager;

pub use scheduler::milli;

/// The user that the controllers share, the scheduler excepted; it also reads for all of them.
pub const MANAGER: &str = "system:kube-controller-manager";

/// How the controllers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// For stamps in status and events.
    pub clock: Clock,
    /// For every choice among equals.
    pub seed: u64,
    /// How long an endpoint takes to appear or go after its pod changed, drawn per Service.
    pub endpoint_lag: RangeInclusive<Duration>,
}

/// How long a cluster without nodes leaves workloads alone: on a control plane that starts from nothing the controllers
/// begin about nine seconds after the server, when they have won their lease and filled their caches. The first node ends
/// the wait.
pub const WORKLOADS_BEGIN: Duration = Duration::from_secs(9);

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The range is empty.
    #[error("endpoint_lag is the empty range {0:?}: give a start that is not after its end")]
    EmptyLag(RangeInclusive<Duration>),
}

/// Runs all controllers until `stop` is cancelled. `client_for` gives a client for a user name; the
/// scheduler is a user of its own, and [`MANAGER`] is all others.
///
/// # Errors
/// Options that cannot be honoured. A server that fails is no error: requests are tried again.
pub async fn run(client_for: impl Fn(&str) -> Client, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let Options { clock, seed, endpoint_lag } = options;
    if endpoint_lag.is_empty() {
        return Err(Error::EmptyLag(endpoint_lag));
    }
    let controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(replicaset::ReplicaSets),
        Box::new(scheduler::Scheduler { seed }),
        Box::new(deployment::Deployments),
        Box::new(daemonset::DaemonSets),
        Box::new(endpoints::EndpointsOfServices { seed, lag: endpoint_lag }),
        Box::new(serviceaccounts::NamespaceContents),
        Box::new(disruption::DisruptionBudgets),
        Box::new(job::Jobs),
        Box::new(node_lifecycle::NodeLifecycle),
        Box::new(protection::ClaimProtection),
        Box::new(protection::VolumeProtection),
    ];
    let controllers = controllers
        .into_iter()
        .map(|controller| {
            let client = client_for(controller.user());
            (controller, client)
        })
        .collect();
    let watches = [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::ReplicaSet,
        Kind::Deployment,
        Kind::DaemonSet,
        Kind::ControllerRevision,
        Kind::Service,
        Kind::Endpoints,
        Kind::EndpointSlice,
        Kind::ServiceAccount,
        Kind::PodDisruptionBudget,
        Kind::Job,
        Kind::Lease,
        Kind::PersistentVolumeClaim,
        Kind::PersistentVolume,
    ];
    let root_ca = Watch::fields(Kind::ConfigMap, format!("metadata.name={}", serviceaccounts::ROOT_CA));
    let watches = watches.into_iter().map(Watch::all).chain([root_ca]).collect();
    let manager = Manager::new(controllers, client_for(MANAGER), clock.clone()).run(watches, stop.clone());
    tokio::join!(manager, garbage::run(client_for(MANAGER), clock, stop));
    Ok(())
}
