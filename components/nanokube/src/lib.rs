//! Puts the API server, the built-in controllers, simulated nodes and the images' code together into one cluster.
//!
//! The parts meet only here: controllers and nodes are clients of the API and know nothing of the server.

pub mod images;
mod reach;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::net::memory::MemoryNet;
use nanokube::{Nanokube, UserInfo};
use nanokube_nodes::{Heartbeats, Images, Latencies, Power, Processes};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::reach::SERVER;

/// How long an endpoint follows its pod: what a real cluster under light load shows.
pub const ENDPOINT_LAG: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(200);

/// What a cluster is made of.
pub struct Options {
    /// Simulated nodes; 0 is valid. Node 1 is a control-plane node without a taint.
    pub nodes: u32,
    pub clock: Clock,
    /// The clock of the programs in pods, if it is not the server's.
    pub pods_clock: Option<Clock>,
    /// Seed of everything that is drawn: uids, names, latencies.
    pub seed: u64,
    pub images: Arc<dyn Images>,
    pub audit: Option<Box<dyn nanokube::AuditSink>>,
    /// What goes wrong in the server.
    pub faults: Arc<dyn nanokube::Faults>,
    /// How long an endpoint follows its pod; usually [`ENDPOINT_LAG`].
    pub endpoint_lag: RangeInclusive<Duration>,
    /// How long the steps of a simulated pod's life take.
    pub latencies: Latencies,
}

impl Options {
    /// A cluster of which nothing is recorded and in which nothing goes wrong.
    pub fn new(nodes: u32, clock: Clock, seed: u64, images: Arc<dyn Images>) -> Self {
        Self {
            nodes,
            clock,
            pods_clock: None,
            seed,
            images,
            audit: None,
            faults: Arc::new(nanokube::NoFaults),
            endpoint_lag: ENDPOINT_LAG,
            latencies: Latencies::default(),
        }
    }
}

/// A running cluster; it ends when it is dropped.
pub struct Cluster {
    pub api: Nanokube,
    /// The network of the simulated pods.
    pub network: Arc<MemoryNet>,
    /// The power of the simulated nodes.
    pub power: Power,
    tasks: JoinSet<Result<(), Error>>,
    stop: CancellationToken,
}

/// A part of the cluster ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the built-in controllers stopped: {0}")]
    Controllers(#[source] nanokube_controllers::Error),
    #[error("the nodes stopped: {0}")]
    Nodes(#[source] nanokube_nodes::Error),
    #[error("the HTTPS server stopped: {0}")]
    Server(#[source] nanokube::ServeError),
    #[error("a task panicked: {0}")]
    Panic(#[source] tokio::task::JoinError),
}

impl Cluster {
    /// Starts the server, the controllers and the nodes on the current runtime.
    pub fn start(options: Options) -> Self {
        match Self::start_from(options, "") {
            Ok(cluster) => cluster,
            Err(error) => unreachable!("nothing was taken in: {error}"),
        }
    }

    /// The same with objects to begin with, as YAML. They are there before anybody acts on them: a collector that saw a
    /// pod before its owner would delete it.
    ///
    /// # Errors
    /// The objects cannot be taken in.
    pub fn start_from(options: Options, objects: &str) -> Result<Self, nanokube::ImportError> {
        let Options { nodes, clock, pods_clock, seed, images, audit, faults, endpoint_lag, latencies } = options;
        let (network, power, stop) = (MemoryNet::new(), Power::default(), CancellationToken::new());
        let server = nanokube::Options { audit, faults, ..nanokube::Options::new(clock.clone(), seed) };
        let api = Nanokube::new(server.with_net(Arc::new(reach::Reach::new(&network))));
        api.import_yaml(objects)?;
        let mut tasks = JoinSet::new();

        let server = api.clone();
        // What they write is recorded under the name of their program.
        let client_for =
            move |user: &str| server.client_of(UserInfo::new(user, &[]), user.trim_start_matches("system:"));
        let controllers = nanokube_controllers::Options { clock: clock.clone(), seed, endpoint_lag };
        let until = stop.clone();
        tasks.spawn(async move {
            nanokube_controllers::run(client_for, controllers, until).await.map_err(Error::Controllers)
        });

        if nodes > 0 {
            let pods = api.clone();
            let options = nanokube_nodes::Options {
                client: api.client(UserInfo::admin()),
                connect: Arc::new(move |token: &str| Ok(pods.client_with_token(token))),
                count: nodes,
                first_number: 1,
                join_every: Duration::ZERO,
                images,
                network: Arc::clone(&network).into(),
                latencies,
                heartbeats: Heartbeats::default(),
                power: power.clone(),
                clock: pods_clock.unwrap_or(clock),
                seed,
                capacity: BTreeMap::new(),
                labels: BTreeMap::new(),
            };
            let until = stop.clone();
            tasks.spawn(async move { nanokube_nodes::run(options, until).await.map_err(Error::Nodes) });
        }
        Ok(Self { api, network, power, tasks, stop })
    }

    /// A client of the cluster's administrator.
    pub fn admin(&self) -> Client {
        self.api.client(UserInfo::admin())
    }

    /// Serves the API over HTTPS as well.
    pub fn serve(&mut self, listener: tokio::net::TcpListener, pki: nanokube::Pki) {
        let (api, until) = (self.api.clone(), self.stop.clone());
        self.tasks.spawn(async move { api.serve_https(listener, &pki, until).await.map_err(Error::Server) });
    }

    /// Starts nodes whose pods are processes, which reach the API over HTTPS.
    pub fn run_processes(&mut self, nodes: u32, seed: u64, images: Arc<dyn Images>, processes: Processes) {
        let api = self.api.clone();
        let options = nanokube_nodes::Options {
            client: self.admin(),
            connect: Arc::new(move |token: &str| Ok(api.client_with_token(token))),
            count: nodes,
            first_number: 1,
            join_every: Duration::ZERO,
            images,
            network: Arc::clone(&self.network).into(),
            latencies: Latencies::none(),
            heartbeats: Heartbeats::default(),
            power: self.power.clone(),
            clock: Clock::System,
            seed,
            capacity: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        let until = self.stop.clone();
        let run = nanokube_nodes::run_processes(options, processes, until);
        self.tasks.spawn(async move { run.await.map_err(Error::Nodes) });
    }

    /// Returns when a part of the cluster ends on its own.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match self.tasks.join_next().await {
            Some(joined) => joined.map_err(Error::Panic)?,
            None => Ok(()),
        }
    }

    /// Asks every part to end and waits until all have.
    ///
    /// # Errors
    /// A part failed on its way.
    pub async fn shut_down(mut self) -> Result<(), Error> {
        self.stop.cancel();
        while let Some(joined) = self.tasks.join_next().await {
            joined.map_err(Error::Panic)??;
        }
        Ok(())
    }
}
