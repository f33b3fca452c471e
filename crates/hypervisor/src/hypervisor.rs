//! The trait, and the values that cross it. An implementation reports what is, never what it last heard: when the daemon
//! behind it cannot be reached, every question is answered with [`Error::Unreachable`] and the event stream says
//! [`Event::Lost`]. Nobody may read either as a guest that stopped.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::domain::Domain;

/// Why an operation did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The hypervisor answered that it has no such domain.
    #[error("the hypervisor has no domain {0:?}")]
    NotFound(String),
    /// The daemon does not answer. What its guests do is unknown; they go on without it.
    #[error("the hypervisor's daemon cannot be reached, its guests' state is unknown: {0}")]
    Unreachable(String),
    /// The domain's state does not allow it.
    #[error("the state of domain {name:?} does not allow to {operation}: {why}")]
    WrongState { name: String, operation: &'static str, why: String },
    /// A migration was given up because somebody asked for it.
    #[error("the migration of domain {0:?} was aborted")]
    Aborted(String),
    /// The hypervisor tried and failed, or would not try.
    #[error("the hypervisor could not {operation} domain {name:?}: {why}")]
    Failed { name: String, operation: &'static str, why: String },
    /// What the hypervisor describes cannot be understood.
    #[error("the hypervisor describes domain {name:?} in a way this release cannot read: {why}")]
    Unreadable { name: String, why: String },
}

pub type Result<T> = std::result::Result<T, Error>;

/// What a guest is doing, with the hypervisor's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    Running,
    Paused(Pause),
    /// Asked to end, not yet ended.
    ShuttingDown,
    Stopped(Stop),
}

/// Why a guest's processors do not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pause {
    /// Somebody asked.
    User,
    /// One side of a migration that has not settled.
    Migration,
    /// QEMU is there, the guest never ran.
    StartingUp,
    /// A disk failed or is full.
    IoError,
    Watchdog,
    Crashed,
    /// Part of its memory is on another host.
    Postcopy,
    PostcopyFailed,
    Other,
}

/// Why a guest is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stop {
    /// Defined, never started here.
    NeverStarted,
    /// It ended itself.
    Shutdown,
    /// Somebody ended it.
    Destroyed,
    Crashed,
    /// It runs elsewhere; the hypervisor confirmed it.
    Migrated,
    Failed,
    Other,
}

impl State {
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::ShuttingDown)
    }

    /// There is a QEMU process.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Stopped(_))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Paused(why) => write!(f, "paused ({why:?})"),
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::Stopped(why) => write!(f, "stopped ({why:?})"),
        }
    }
}

/// A domain in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub name: String,
    pub state: State,
}

/// What a client that connects has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a guest.
    Domain { name: String, change: Change },
    /// The agent in the guest connected or went away.
    Agent { name: String, connected: bool },
    /// A pre-copy pass over the guest's memory began.
    Iteration { name: String, number: u32 },
    /// A migration's statistics are final.
    JobCompleted { name: String, statistics: Progress },
    /// The daemon is gone or not reachable. No guest stopped because of it.
    Lost { why: String },
    /// The daemon is back. Every domain it has, in its true state now; events in between are lost for good.
    Resumed { domains: Vec<Found> },
}

/// What happened to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Change {
    Defined,
    Undefined,
    Started,
    /// It came from elsewhere: paused until the other side let go.
    Arriving,
    Suspended(Pause),
    Resumed,
    ShuttingDown,
    Stopped(Stop),
    Crashed,
}

/// How to start a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Leave its processors stopped.
    pub paused: bool,
}

/// One live migration, peer to peer: the source's daemon talks to the target's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Where the source's daemon finds the target's: a socket path as the source sees it.
    pub peer: String,
    /// The socket for memory: the source connects to it, the target's QEMU listens on it (each in its own file system).
    pub memory: String,
    /// The same for disks.
    pub disks_socket: String,
    /// Targets (`vda`) of the disks to copy; the others are shared or identical.
    pub copy_disks: Vec<String>,
    /// MiB per second; `None` is unlimited.
    pub bandwidth: Option<u64>,
    /// The longest pause at the switch-over; the hypervisor's own default when `None`. What the hypervisor gets told counts
    /// the copying alone; [`crate::migration::run`] leaves room for the rest.
    pub max_downtime: Option<Duration>,
    /// Slow the guest down when it dirties memory faster than the link carries it.
    pub auto_converge: bool,
}

/// How far a migration is, or how it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub elapsed: Duration,
    pub total: u64,
    pub processed: u64,
    pub remaining: u64,
    pub memory_remaining: u64,
    pub disk_remaining: u64,
    /// Passes over the guest's memory.
    pub iteration: u64,
    /// Pages the guest dirties per second.
    pub dirty_rate: u64,
    /// Expected while it runs, measured when it is done.
    pub downtime: Option<Duration>,
    /// Percent of its processor time the guest is denied so that the migration converges.
    pub throttle: u32,
}

/// What a hypervisor can do; a migration is planned with the target's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `9.0.0`
    pub libvirt: String,
    pub qemu: String,
    /// Versioned machine types, sorted.
    pub machines: Vec<String>,
    /// Whether the daemon offers hardware virtualization. A probe guest has to run before anyone relies on it.
    pub kvm: bool,
}

/// What a guest uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    pub cpu_time: Duration,
    pub memory_kib: u64,
    pub vcpus: u32,
}

/// Where a guest can be talked to, as paths in the hypervisor's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    pub console: Option<String>,
    pub vnc: Option<String>,
    pub agent: Option<String>,
}

/// A hypervisor's daemon on one host or in one pod.
///
/// Operations on a domain that is already in the wanted state fail with [`Error::WrongState`]; the caller knows whether
/// that is a success for it. Every operation but [`Hypervisor::migrate`] ends within a bound of the implementation.
pub trait Hypervisor: Send + Sync + 'static {
    fn capabilities(&self) -> BoxFuture<'_, Result<Capabilities>>;
    /// Adds a domain, or replaces the stored configuration of one with the same name and UUID.
    fn define<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<()>>;
    /// Forgets a domain's configuration; a running guest runs on and vanishes when it stops.
    fn undefine<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    fn start<'a>(&'a self, name: &'a str, how: Start) -> BoxFuture<'a, Result<()>>;
    fn pause<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    fn resume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Asks the guest to end (the power button). It may take its time or ignore it.
    fn shutdown<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Ends the guest now.
    fn destroy<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    fn state<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<State>>;
    /// Every domain, by name.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>>>;
    /// The domain as it runs, or as it is stored when it does not.
    fn describe<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Domain>>;
    fn statistics<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Statistics>>;
    fn endpoints<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Endpoints>>;
    /// Moves a guest; returns when it is on the target and gone here, or when it did not work. It arrives paused by
    /// [`Pause::User`], and the caller resumes it: were it to run by itself, a source that does not hear of it would run
    /// it too. Dropping the future does not stop the migration.
    fn migrate<'a>(&'a self, name: &'a str, how: &'a Migration) -> BoxFuture<'a, Result<()>>;
    /// The migration that leaves or enters this host now; `None` when there is none.
    fn progress<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Progress>>>;
    /// The last finished migration of a guest, asked where it runs now.
    fn completed<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Progress>>>;
    /// Changes the longest pause of a running migration.
    fn set_max_downtime<'a>(&'a self, name: &'a str, downtime: Duration) -> BoxFuture<'a, Result<()>>;
    /// Gives a running migration up; the guest stays here. It may take a moment longer than the call. Refused from the moment the
    /// guest stands still for the switch-over: it is on one side then, a fraction of a second later.
    fn abort<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Makes a running guest's process take back disks that it let go of for a migration that came to nothing. Changes nothing
    /// where it has them; the guest does not stand still for it, and no event tells of it.
    fn reclaim_disks<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Everything that happens from now on. A receiver that is dropped unsubscribes.
    fn events(&self) -> mpsc::UnboundedReceiver<Event>;
}
