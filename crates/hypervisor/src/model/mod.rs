//! Hypervisors in memory. A [`Universe`] holds hosts, each with a daemon and the guests' processes; a guest outlives its
//! daemon, as with libvirt. [`Model`] is one client's connection to one host. Time is tokio's, so a simulation can pause
//! it; nothing here draws at random.

mod engine;
mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::domain::{Accelerator, Domain};
use crate::hypervisor::{
    Capabilities, Change, Endpoints, Error, Event, Found, Hypervisor, Migration, Pause, Progress, Result, Start, State,
    Statistics, Stop,
};
use host::{Host, Job, Process};

/// How long a killed daemon is gone before its supervisor has it back.
pub const RESTART_DELAY: Duration = Duration::from_millis(300);

/// How long a guest takes from its start to the end of its first script.
const BOOT_TAKES: Duration = Duration::from_secs(2);

/// How long a guest takes to obey the power button.
const SHUTDOWN_TAKES: Duration = Duration::from_secs(2);

/// QEMU's own default.
const DEFAULT_DOWNTIME: Duration = Duration::from_millis(300);

/// Between two of the guest's heartbeats.
pub const BEAT: Duration = Duration::from_millis(200);

/// What the guest and the link between the hosts are like. Rates are bytes per second.
#[derive(Clone, Copy, Debug)]
pub struct Physics {
    /// What the guest writes to memory while it runs.
    pub dirty_rate: u64,
    /// Memory the guest really uses; the rest is zero and costs nothing to move.
    pub working_set: u64,
    /// What the guest writes again and again.
    pub hot_set: u64,
    pub link: u64,
    /// Downtime a migration may have when the caller says nothing.
    pub default_downtime: Duration,
}

impl Default for Physics {
    fn default() -> Self {
        Self {
            dirty_rate: 1 << 20,
            working_set: 64 << 20,
            hot_set: 4 << 20,
            link: 1 << 30,
            default_downtime: DEFAULT_DOWNTIME,
        }
    }
}

/// Everything there is.
#[derive(Clone)]
pub struct Universe {
    inner: Arc<Mutex<World>>,
}

pub(crate) struct World {
    pub(crate) physics: Physics,
    pub(crate) hosts: BTreeMap<String, Host>,
    /// `false`: what goes through the link is lost, connections break.
    pub(crate) link_up: bool,
    /// Migrations that are given up do not end.
    stuck: bool,
    /// Set for ever once a guest ran in two places.
    ran_twice: bool,
    /// Guests that switch themselves off once they have booted.
    brief: BTreeSet<String>,
    beats: BTreeMap<String, Beats>,
    /// Whoever waits for the world to change.
    changed: tokio::sync::watch::Sender<u64>,
}

/// A guest's heart: it beats while some process of the guest runs.
#[derive(Clone, Copy)]
struct Beats {
    ran: Duration,
    since: Option<Instant>,
}

impl Universe {
    pub fn new(physics: Physics) -> Self {
        let world = World {
            physics,
            hosts: BTreeMap::new(),
            link_up: true,
            stuck: false,
            ran_twice: false,
            brief: BTreeSet::new(),
            beats: BTreeMap::new(),
            changed: tokio::sync::watch::channel(0).0,
        };
        Self { inner: Arc::new(Mutex::new(world)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.inner.lock().expect("no code under this lock panics")
    }

    /// Adds a host; its daemon runs.
    pub fn add_host(&self, name: &str, capabilities: Capabilities) {
        self.lock().hosts.insert(name.to_owned(), Host::new(capabilities));
    }

    /// Whether a kernel gets past its first instructions with the host's hardware virtualization; at first it does.
    pub fn set_kvm_works(&self, host: &str, works: bool) {
        self.lock().host(host).kvm_works = works;
    }

    /// From now on a guest of this name switches itself off once it has booted.
    pub fn switches_itself_off(&self, guest: &str) {
        self.lock().brief.insert(guest.to_owned());
    }

    /// A new connection to a host.
    pub fn connect(&self, host: &str) -> Model {
        Model { universe: self.clone(), host: host.to_owned() }
    }

    /// SIGKILL for a host's daemon. Its supervisor has it back after [`RESTART_DELAY`]; the guests run on.
    pub fn kill_daemon(&self, host: &str) {
        self.lock().stop_daemon(host);
        let (universe, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(RESTART_DELAY).await;
            universe.lock().start_daemon(&host);
        });
    }

    /// SIGKILL for a guest's process.
    pub fn kill_process(&self, host: &str, guest: &str) {
        self.lock().end_process(host, guest, Stop::Crashed, Stop::Failed);
    }

    /// The guest writes to its disk, which a process without its disks does not survive. Says whether it did.
    pub fn write(&self, guest: &str) -> bool {
        let mut world = self.lock();
        let lacks =
            |host: &Host| host.processes.get(guest).is_some_and(|process| process.running && process.lacks_disks);
        let fatal: Vec<String> =
            world.hosts.iter().filter(|(_, host)| lacks(host)).map(|(name, _)| name.clone()).collect();
        for host in &fatal {
            world.end_process(host, guest, Stop::Crashed, Stop::Failed);
        }
        fatal.is_empty()
    }

    /// Cuts or mends the link between the hosts.
    pub fn set_link(&self, up: bool) {
        let mut world = self.lock();
        world.link_up = up;
        world.touch();
    }

    /// While it is so, a migration that is given up does not end, as if its hypervisor had missed it.
    pub fn set_stuck(&self, stuck: bool) {
        let mut world = self.lock();
        world.stuck = stuck;
        world.touch();
    }

    /// Changes what the guest does.
    pub fn set_physics(&self, physics: Physics) {
        self.lock().physics = physics;
    }

    /// The guest's heartbeats so far.
    pub fn beats(&self, guest: &str) -> u64 {
        let world = self.lock();
        world.beats.get(guest).map_or(0, |beats| {
            let ran = beats.ran + beats.since.map_or(Duration::ZERO, |since| since.elapsed());
            (ran.as_millis() / BEAT.as_millis()) as u64
        })
    }

    /// Processes of a guest on a host, whether or not its daemon knows.
    pub fn has_process(&self, host: &str, guest: &str) -> bool {
        self.lock().hosts.get(host).is_some_and(|host| host.processes.contains_key(guest))
    }

    /// Whether any guest ever ran in two places at once.
    pub fn ran_twice(&self) -> bool {
        self.lock().ran_twice
    }

    /// Waits until the world satisfies `condition`.
    pub async fn until(&self, mut condition: impl FnMut(&Universe) -> bool) {
        let mut changes = self.lock().changed.subscribe();
        while !condition(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The phase of a guest's migration as the source's daemon would name it.
    pub fn phase(&self, host: &str, guest: &str) -> Option<Phase> {
        self.lock().hosts.get(host)?.jobs.get(guest).map(|job| job.phase)
    }
}

/// Where a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The target starts a process that waits for the guest.
    Prepare,
    /// Memory and disks are copied while the guest runs.
    Perform,
    /// The guest is paused here, the last of it travels.
    SwitchOver,
    /// The target was told to run it; the source waits to hear that it does.
    Finish,
}

impl World {
    /// Tells whoever waits, and keeps count of the guests' hearts.
    pub(crate) fn touch(&mut self) {
        let mut running: BTreeMap<String, u32> = BTreeMap::new();
        for host in self.hosts.values() {
            for (name, process) in &host.processes {
                *running.entry(name.clone()).or_default() += u32::from(process.running);
            }
        }
        self.ran_twice |= running.values().any(|count| *count > 1);
        for name in running.keys() {
            self.beats.entry(name.clone()).or_insert(Beats { ran: Duration::ZERO, since: None });
        }
        for (name, beats) in &mut self.beats {
            match (running.get(name).is_some_and(|count| *count > 0), beats.since) {
                (true, None) => beats.since = Some(Instant::now()),
                (false, Some(since)) => {
                    beats.ran += since.elapsed();
                    beats.since = None;
                }
                _ => {}
            }
        }
        self.changed.send_modify(|version| *version += 1);
    }
}

/// A client's connection to one host's daemon.
#[derive(Clone)]
pub struct Model {
    universe: Universe,
    host: String,
}

impl Model {
    /// Runs `f` on the host if its daemon answers.
    fn with<T>(&self, f: impl FnOnce(&mut World, &str) -> Result<T>) -> BoxFuture<'static, Result<T>>
    where
        T: Send + 'static,
    {
        let mut world = self.universe.lock();
        let result = match world.hosts.get(&self.host) {
            Some(host) if host.daemon_up => f(&mut world, &self.host),
            _ => Err(Error::Unreachable(format!("the daemon of {} does not listen", self.host))),
        };
        world.touch();
        drop(world);
        futures::future::ready(result).boxed()
    }

    fn with_process<T>(
        &self,
        name: &str,
        operation: &'static str,
        f: impl FnOnce(&mut Process) -> Result<(T, Option<Change>)>,
    ) -> BoxFuture<'static, Result<T>>
    where
        T: Send + 'static,
    {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            let process =
                host.processes.get_mut(name).ok_or_else(|| wrong_state(name, operation, "it does not run"))?;
            let (value, change) = f(process)?;
            if let Some(change) = change {
                host.tell(name, change);
            }
            Ok(value)
        })
    }
}

pub(crate) fn wrong_state(name: &str, operation: &'static str, why: &str) -> Error {
    Error::WrongState { name: name.to_owned(), operation, why: why.to_owned() }
}

pub(crate) fn failed(name: &str, operation: &'static str, why: &str) -> Error {
    Error::Failed { name: name.to_owned(), operation, why: why.to_owned() }
}

impl Hypervisor for Model {
    fn capabilities(&self) -> BoxFuture<'_, Result<Capabilities>> {
        self.with(|world, host| Ok(world.host(host).capabilities.clone()))
    }

    fn define<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<()>> {
        self.with(|world, host| {
            let host = world.host(host);
            if let Some(other) = host.stored.get(&domain.name)
                && other.uuid != domain.uuid
            {
                return Err(failed(&domain.name, "define", "another domain of this name exists"));
            }
            if !host.capabilities.machines.contains(&domain.machine) {
                let why = format!("the emulator does not know machine type {}", domain.machine);
                return Err(failed(&domain.name, "define", &why));
            }
            host.stored.insert(domain.name.clone(), domain.clone());
            host.tell(&domain.name, Change::Defined);
            Ok(())
        })
    }

    fn undefine<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            if host.stored.remove(name).is_none() {
                return Err(wrong_state(name, "undefine", "nothing of it is stored"));
            }
            host.stops.remove(name);
            host.tell(name, Change::Undefined);
            Ok(())
        })
    }

    fn start<'a>(&'a self, name: &'a str, how: Start) -> BoxFuture<'a, Result<()>> {
        let universe = self.universe.clone();
        self.with(|world, at| {
            let is_brief = world.brief.contains(name);
            let host = world.host(at);
            host.known(name)?;
            if host.processes.contains_key(name) {
                return Err(wrong_state(name, "start", "it runs already"));
            }
            let domain = host.stored.get(name).cloned().ok_or_else(|| Error::NotFound(name.to_owned()))?;
            let boots = domain.accelerator == Accelerator::Emulation || host.kvm_works;
            let pause = if how.paused { Pause::User } else { Pause::StartingUp };
            let process = Process { domain, running: !how.paused, pause, arriving: false, lacks_disks: false };
            host.processes.insert(name.to_owned(), process);
            host.tell(name, Change::Started);
            if how.paused {
                host.tell(name, Change::Suspended(Pause::User));
            } else {
                host.tell(name, Change::Resumed);
            }
            if is_brief && boots && !how.paused {
                let (at, name) = (at.to_owned(), name.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(BOOT_TAKES).await;
                    universe.lock().end_process(&at, &name, Stop::Shutdown, Stop::Shutdown);
                });
            }
            Ok(())
        })
    }

    fn pause<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            let moves = host.jobs.get(name).is_some_and(|job| job.outgoing);
            let process = host.processes.get_mut(name).ok_or_else(|| wrong_state(name, "pause", "it does not run"))?;
            if !process.running {
                return Err(wrong_state(name, "pause", "it is paused already"));
            }
            process.running = false;
            process.pause = if moves { Pause::Migration } else { Pause::User };
            let change = Change::Suspended(process.pause);
            host.tell(name, change);
            Ok(())
        })
    }

    fn resume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with_process(name, "resume", |process| {
            if process.running || process.arriving {
                return Err(wrong_state(name, "resume", "it is not paused"));
            }
            process.running = true;
            process.lacks_disks = false;
            Ok(((), Some(Change::Resumed)))
        })
    }

    fn shutdown<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        let asked = self.with_process(name, "shut down", |process| {
            if process.running { Ok(((), None)) } else { Err(wrong_state(name, "shut down", "it is paused")) }
        });
        async move {
            asked.await?;
            let (universe, host, name) = (self.universe.clone(), self.host.clone(), name.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(SHUTDOWN_TAKES).await;
                universe.lock().end_process(&host, &name, Stop::Shutdown, Stop::Shutdown);
            });
            Ok(())
        }
        .boxed()
    }

    fn destroy<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with(|world, host| {
            world.host(host).known(name)?;
            if !world.host(host).processes.contains_key(name) {
                return Err(wrong_state(name, "destroy", "it does not run"));
            }
            world.end_process(host, name, Stop::Destroyed, Stop::Destroyed);
            Ok(())
        })
    }

    fn state<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<State>> {
        self.with(|world, host| world.host(host).state(name))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>>> {
        self.with(|world, host| Ok(world.host(host).list()))
    }

    fn describe<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Domain>> {
        self.with(|world, host| world.host(host).known(name).cloned())
    }

    fn statistics<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Statistics>> {
        let ran = self.universe.beats(name) as u32 * BEAT;
        self.with(|world, host| {
            let domain = world.host(host).known(name)?;
            Ok(Statistics { cpu_time: ran, memory_kib: domain.memory_kib, vcpus: domain.vcpus })
        })
    }

    fn endpoints<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Endpoints>> {
        self.with(|world, host| Ok(world.host(host).known(name)?.endpoints()))
    }

    fn migrate<'a>(&'a self, name: &'a str, how: &'a Migration) -> BoxFuture<'a, Result<()>> {
        let begun = self.with(|world, host| world.begin(host, name, how)).now_or_never();
        match begun {
            Some(Ok(())) => {}
            Some(Err(error)) => return futures::future::ready(Err(error)).boxed(),
            None => unreachable!("a model answers at once"),
        }
        let (done, result) = oneshot::channel();
        let lost = self.universe.daemon_gone(&self.host);
        // From here on it goes its way, whether or not anybody listens.
        tokio::spawn(engine::run(self.universe.clone(), self.host.clone(), name.to_owned(), how.clone(), done));
        async move {
            let gone = || Error::Unreachable(format!("the daemon of {} went away during the migration", self.host));
            tokio::select! {
                biased;
                result = result => result.unwrap_or_else(|_| Err(gone())),
                () = lost => Err(gone()),
            }
        }
        .boxed()
    }

    fn progress<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Progress>>> {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            Ok(host.jobs.get(name).map(Job::progress))
        })
    }

    fn completed<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Progress>>> {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            Ok(host.completed.get(name).copied())
        })
    }

    fn set_max_downtime<'a>(&'a self, name: &'a str, downtime: Duration) -> BoxFuture<'a, Result<()>> {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            match host.jobs.get_mut(name) {
                Some(job) => job.max_downtime = downtime,
                None => return Err(wrong_state(name, "set the downtime of", "no migration runs")),
            }
            Ok(())
        })
    }

    fn reclaim_disks<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with_process(name, "take back the disks of", |process| {
            if !process.running {
                return Err(wrong_state(name, "take back the disks of", "it does not run"));
            }
            process.lacks_disks = false;
            Ok(((), None))
        })
    }

    fn abort<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with(|world, host| {
            let host = world.host(host);
            host.known(name)?;
            match host.jobs.get_mut(name) {
                Some(job) if job.phase < Phase::SwitchOver => job.aborted = true,
                Some(_) => {
                    return Err(wrong_state(
                        name,
                        "abort the migration of",
                        "the guest stands still for the switch-over",
                    ));
                }
                _ => return Err(wrong_state(name, "abort the migration of", "no migration runs")),
            }
            Ok(())
        })
    }

    fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut world = self.universe.lock();
        if let Some(host) = world.hosts.get_mut(&self.host) {
            host.subscribers.push(sender);
        }
        receiver
    }
}
