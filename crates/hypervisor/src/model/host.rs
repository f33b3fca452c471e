//! One host: a daemon with what it stores, and processes that outlive it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Phase, Universe, World};
use crate::domain::Domain;
use crate::hypervisor::{Capabilities, Change, Error, Event, Found, Pause, Progress, Result, State, Stop};

pub(crate) struct Host {
    pub(crate) capabilities: Capabilities,
    /// Whether what the capabilities say of hardware virtualization is true.
    pub(crate) kvm_works: bool,
    pub(crate) daemon_up: bool,
    /// On disk: survives the daemon.
    pub(crate) stored: BTreeMap<String, Domain>,
    /// In the daemon: why a stopped guest stopped.
    pub(crate) stops: BTreeMap<String, Stop>,
    pub(crate) processes: BTreeMap<String, Process>,
    /// On disk too: how a daemon that comes back knows what it was doing.
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) completed: BTreeMap<String, Progress>,
    pub(crate) subscribers: Vec<mpsc::UnboundedSender<Event>>,
    /// Grows with every death of the daemon.
    deaths: watch::Sender<u64>,
}

/// A guest's process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) domain: Domain,
    pub(crate) running: bool,
    /// Why not, when it does not run.
    pub(crate) pause: Pause,
    /// It waits for a guest that is still elsewhere.
    pub(crate) arriving: bool,
    /// It let go of its disks at the end of a migration that came to nothing, and runs on without them until it is resumed.
    pub(crate) lacks_disks: bool,
}

/// A migration, as the daemon of one side keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) phase: Phase,
    pub(crate) outgoing: bool,
    pub(crate) aborted: bool,
    pub(crate) started: Instant,
    pub(crate) total: u64,
    pub(crate) processed: u64,
    pub(crate) remaining: u64,
    pub(crate) iteration: u64,
    pub(crate) dirty_rate: u64,
    pub(crate) throttle: u32,
    pub(crate) max_downtime: Duration,
}

/// The size of a page, in which libvirt counts what a guest dirties.
const PAGE: u64 = 4096;

impl Job {
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            elapsed: self.started.elapsed(),
            total: self.total,
            processed: self.processed,
            remaining: self.remaining,
            memory_remaining: self.remaining,
            disk_remaining: 0,
            iteration: self.iteration,
            dirty_rate: self.dirty_rate / PAGE,
            downtime: None,
            throttle: self.throttle,
        }
    }
}

impl Host {
    pub(crate) fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            kvm_works: true,
            daemon_up: true,
            stored: BTreeMap::new(),
            stops: BTreeMap::new(),
            processes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            completed: BTreeMap::new(),
            subscribers: Vec::new(),
            deaths: watch::channel(0).0,
        }
    }

    /// The domain as it runs or is stored.
    pub(crate) fn known(&self, name: &str) -> Result<&Domain> {
        let running = self.processes.get(name).map(|process| &process.domain);
        running.or_else(|| self.stored.get(name)).ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    pub(crate) fn state(&self, name: &str) -> Result<State> {
        self.known(name)?;
        Ok(match self.processes.get(name) {
            Some(process) if process.running => State::Running,
            Some(process) => State::Paused(process.pause),
            None => State::Stopped(self.stops.get(name).copied().unwrap_or(Stop::NeverStarted)),
        })
    }

    pub(crate) fn list(&self) -> Vec<Found> {
        let mut names: Vec<&String> = self.stored.keys().chain(self.processes.keys()).collect();
        names.sort();
        names.dedup();
        let found = |name: &String| Some(Found { name: name.clone(), state: self.state(name).ok()? });
        names.into_iter().filter_map(found).collect()
    }

    pub(crate) fn tell(&mut self, name: &str, change: Change) {
        self.publish(&Event::Domain { name: name.to_owned(), change });
    }

    pub(crate) fn publish(&mut self, event: &Event) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

impl World {
    pub(crate) fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).expect("hosts are only ever added")
    }

    /// Ends a process. `state` is what the daemon will say of the guest, `event` what it publishes; they differ for a
    /// process that was killed.
    pub(crate) fn end_process(&mut self, host: &str, name: &str, state: Stop, event: Stop) {
        let host = self.host(host);
        if host.processes.remove(name).is_none() {
            return;
        }
        if !host.daemon_up {
            // Nobody watched. The daemon will find it gone.
            self.touch();
            return;
        }
        host.jobs.remove(name);
        if host.stored.contains_key(name) {
            host.stops.insert(name.to_owned(), state);
        }
        host.tell(name, Change::Stopped(event));
        self.touch();
    }

    pub(crate) fn stop_daemon(&mut self, host: &str) {
        let host = self.host(host);
        if !host.daemon_up {
            return;
        }
        host.daemon_up = false;
        host.stops.clear();
        host.completed.clear();
        host.deaths.send_modify(|deaths| *deaths += 1);
        host.publish(&Event::Lost { why: "the connection closed".to_owned() });
        self.touch();
    }

    /// The daemon is back. It finds its guests, and decides what to do about each migration it was in the middle of.
    pub(crate) fn start_daemon(&mut self, host: &str) {
        let host = self.host(host);
        host.daemon_up = true;
        for (name, job) in std::mem::take(&mut host.jobs) {
            let Some(process) = host.processes.get_mut(&name) else { continue };
            match (job.outgoing, job.phase) {
                // The target may have it already: whoever coordinates both sides knows.
                (true, Phase::Finish) => {}
                (true, _) => {
                    if !process.running && process.pause == Pause::Migration {
                        process.running = true;
                    }
                }
                // Half a guest is of no use.
                (false, _) if process.arriving => {
                    host.processes.remove(&name);
                    host.stops.insert(name.clone(), Stop::Failed);
                }
                (false, _) => {}
            }
        }
        for name in host.stored.keys() {
            if !host.processes.contains_key(name) && !host.stops.contains_key(name) {
                host.stops.insert(name.clone(), Stop::Other);
            }
        }
        let domains = host.list();
        host.publish(&Event::Resumed { domains });
        self.touch();
    }
}

impl Universe {
    /// Completes when the daemon dies, however soon it comes back.
    pub(crate) fn daemon_gone(&self, host: &str) -> impl Future<Output = ()> + Send + use<> {
        let mut deaths = self.lock().host(host).deaths.subscribe();
        async move {
            let _ = deaths.changed().await;
        }
    }
}
