//! Simulated nodes, as clients of the API and nothing more.
//!
//! A node registers itself, renews its lease and runs the pods that are bound to it: with drawn latencies instead of
//! real pulls and sandboxes, but with the real code of a component whose image is known, over an in-memory network and
//! with the identity of the pod's service account. One set of tasks serves all nodes; pods are watched once.
//!
//! Nothing here knows which API server it talks to, or what the programs do that it runs.

mod environment;
mod fleet;
mod guard;
mod heartbeat;
mod loopback;
mod node;
mod pod;
mod power;
mod probe;
mod process;
mod volumes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::host::Program;
use kubevirt_runtime::net::Net;
use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::net::os::AddressNet;
use tokio_util::sync::CancellationToken;

use loopback::Blocks;
pub use loopback::NoAddresses;
pub use power::Power;
pub use process::{Processes, SetupError};

/// Turns a service account's bearer token into a client.
pub trait Connect: Send + Sync + 'static {
    /// A client that presents this token.
    ///
    /// # Errors
    /// The address or the certificates of the server cannot be used.
    fn client(&self, token: &str) -> Result<Client, kube::Error>;
}

impl<F> Connect for F
where
    F: Fn(&str) -> Result<Client, kube::Error> + Send + Sync + 'static,
{
    fn client(&self, token: &str) -> Result<Client, kube::Error> {
        self(token)
    }
}

/// What is inside an image.
#[derive(Clone)]
pub enum Image {
    /// Nothing that could listen or end: it runs until it is stopped. As an init container it succeeds after a moment.
    Idle,
    /// Code that runs as a task.
    Program(Arc<dyn Program>),
    /// A program of this machine, for process nodes.
    Executable(PathBuf),
}

/// The registry as the nodes see it.
pub trait Images: Send + Sync + 'static {
    /// What an image reference stands for; `None` when it cannot be pulled.
    fn find(&self, image: &str) -> Option<Image>;
}

impl<F> Images for F
where
    F: Fn(&str) -> Option<Image> + Send + Sync + 'static,
{
    fn find(&self, image: &str) -> Option<Image> {
        self(image)
    }
}

/// How long the steps of a pod's life take. Each is drawn per pod from the seed and the pod's name, so one more pod does
/// not shift the others.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the binding to the first status.
    pub notice: RangeInclusive<Duration>,
    /// Volumes and network.
    pub sandbox: RangeInclusive<Duration>,
    /// Each container's image.
    pub pull: RangeInclusive<Duration>,
    /// Each container's start.
    pub start: RangeInclusive<Duration>,
    /// How long an idle init container takes.
    pub init: RangeInclusive<Duration>,
    /// From a pod's deletion until its node heeds it.
    pub heed: RangeInclusive<Duration>,
    /// How long an idle container takes to end when asked to.
    pub stop: RangeInclusive<Duration>,
}

impl Default for Latencies {
    /// A pod with one container and no init container takes 1.6 to 2.4 s from its creation to Ready.
    fn default() -> Self {
        let range = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
        Self {
            notice: range(100, 200),
            sandbox: range(350, 450),
            pull: range(650, 1_000),
            start: range(450, 700),
            init: range(200, 400),
            heed: range(5, 50),
            stop: range(50, 150),
        }
    }
}

impl Latencies {
    /// All steps take no time; for tests of something else.
    pub fn none() -> Self {
        let zero = Duration::ZERO..=Duration::ZERO;
        Self {
            notice: zero.clone(),
            sandbox: zero.clone(),
            pull: zero.clone(),
            start: zero.clone(),
            init: zero.clone(),
            heed: zero.clone(),
            stop: zero,
        }
    }
}

/// How often the nodes show that they live.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    /// Between two renewals of one node's lease. With many nodes it is stretched, see [`Heartbeats::WRITES_PER_SECOND`].
    pub lease: Duration,
    /// Between two writes of one node's status when nothing in it changed.
    pub status: Duration,
}

impl Heartbeats {
    /// Lease renewals of all nodes together stay below this, so that 5,000 nodes leave the server to its work.
    pub const WRITES_PER_SECOND: u32 = 100;
    /// A kubelet renews its lease this often; a node is missed after five times as long.
    pub const KUBELET_LEASE: Duration = Duration::from_secs(10);
    /// A kubelet writes an unchanged status this often.
    pub const KUBELET_STATUS: Duration = Duration::from_secs(300);
}

impl Default for Heartbeats {
    /// What a kubelet does.
    fn default() -> Self {
        Self { lease: Self::KUBELET_LEASE, status: Self::KUBELET_STATUS }
    }
}

/// The network of the pods whose code runs in this program.
#[derive(Clone)]
pub enum Network {
    /// In memory: who shares it reaches them, and nobody else.
    Memory(Arc<MemoryNet>),
    /// Sockets on loopback addresses of their own: every program of this machine reaches them. Needs tokio's IO and a clock
    /// that runs. A real cluster takes no such address for an endpoint.
    Loopback,
}

impl From<Arc<MemoryNet>> for Network {
    fn from(net: Arc<MemoryNet>) -> Self {
        Self::Memory(net)
    }
}

impl Network {
    /// The network as the host with this address sees it.
    pub(crate) fn host(&self, ip: IpAddr) -> Arc<dyn Net> {
        match self {
            Self::Memory(net) => net.host(ip),
            Self::Loopback => Arc::new(AddressNet::new(ip)),
        }
    }

    /// A host is gone with all its connections. Those of sockets break with the programs that hold them.
    pub(crate) fn leave(&self, host: IpAddr) {
        match self {
            Self::Memory(net) => net.reset(|from, to| from == host || to == host),
            Self::Loopback => {}
        }
    }
}

/// What runs, where and how.
#[derive(Clone)]
pub struct Options {
    /// The nodes' own identity.
    pub client: Client,
    /// How the pods' identities connect.
    pub connect: Arc<dyn Connect>,
    /// How many nodes there are.
    pub count: u32,
    /// The number of the first one, from 1; node 1 is a control-plane node without a taint.
    pub first_number: u32,
    /// Between two nodes that join; with zero they join as fast as the server takes them.
    pub join_every: Duration,
    pub images: Arc<dyn Images>,
    pub network: Network,
    pub latencies: Latencies,
    pub heartbeats: Heartbeats,
    /// Which nodes have power.
    pub power: Power,
    pub clock: Clock,
    pub seed: u64,
    /// Resources of each node, added to or replacing the default ones.
    pub capacity: BTreeMap<String, String>,
    /// Labels of each node beside its own.
    pub labels: BTreeMap<String, String>,
}

/// Why the nodes ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Numbers start at 1 and their addresses end.
    #[error("nodes {first} to {last} cannot be numbered: give a first number from 1 and a last one up to {max}")]
    Numbers { first: u32, last: u64, max: u32 },
    /// There is no place on the loopback network.
    #[error(transparent)]
    Addresses(#[from] NoAddresses),
    /// What process nodes need is not there.
    #[error(transparent)]
    Processes(#[from] SetupError),
}

/// The name of the node with this number.
pub fn name(number: u32) -> String {
    node::Machine::new(number).name
}

/// Runs the nodes until `stop` is cancelled; then every pod's code is dropped at once, as when machines lose power.
///
/// # Errors
/// Options that cannot be honoured. A server that fails is no error: requests are tried again.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let numbers = numbers(&options, node::MAX_NUMBER)?;
    let blocks = match options.network {
        Network::Memory(_) => None,
        Network::Loopback => Some(Blocks::claim(numbers)?),
    };
    fleet::run(options, blocks, None, stop).await;
    Ok(())
}

/// Runs nodes whose pods are child processes, where their image is an [`Image::Executable`], until `stop` is cancelled;
/// then every process is killed. Their addresses are those of [`Network::Loopback`], whatever the options say.
///
/// # Errors
/// Options that cannot be honoured, or a machine that lacks what process nodes need.
pub async fn run_processes(options: Options, processes: Processes, stop: CancellationToken) -> Result<(), Error> {
    let blocks = Blocks::claim(numbers(&options, loopback::NODES)?)?;
    let shared = Arc::new(process::Shared::new(processes)?);
    let options = Options { network: Network::Loopback, ..options };
    fleet::run(options, Some(blocks), Some(shared), stop).await;
    Ok(())
}

/// The numbers of the nodes.
fn numbers(options: &Options, max: u32) -> Result<Range<u32>, Error> {
    let first = options.first_number;
    let last = u64::from(first) + u64::from(options.count) - u64::from(options.count > 0);
    if first == 0 || last > u64::from(max) {
        return Err(Error::Numbers { first, last, max });
    }
    Ok(first..first + options.count)
}

/// A duration drawn for a name.
pub(crate) fn drawn(range: &RangeInclusive<Duration>, seed: u64, name: &str, salt: &str) -> Duration {
    let spread = range.end().saturating_sub(*range.start());
    let steps = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
    let draw = nanokube_controllers::pods::draw(seed, name, salt);
    *range.start() + Duration::from_micros(if steps == 0 { 0 } else { draw % (steps + 1) })
}
