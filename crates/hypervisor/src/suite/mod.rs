//! The cases every implementation passes, one by one: the model in every test run, libvirt with a real guest in the guest
//! stage. A case sees the world through [`Stage`] and the hypervisors' trait only, so it cannot know which one it is.
//!
//! The cases of a [`Part`] run in order on one stage. Most need a guest that runs somewhere and leave it running.

mod faults;
mod lifecycle;
mod moves;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::domain::Domain;
use crate::hypervisor::{Event, Hypervisor, Migration, State};
pub use crate::model::Phase;
use crate::settle::{Side, View, look};

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The old release's pair.
    Old,
    /// The new release's pair.
    New,
}

impl Place {
    pub fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// The host on one side of a migration that starts here.
    pub fn side(self, side: Side) -> Self {
        match side {
            Side::Source => self,
            Side::Target => self.other(),
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing; somebody asks to abort.
    Abort,
    /// SIGKILL.
    SourceDaemon,
    TargetDaemon,
    TargetProcess,
    /// Every connection of the migration breaks.
    Cut,
}

/// Whatever a case needs besides the trait.
pub trait Stage: Send + Sync {
    /// A new client of a host's daemon, as a controlling process that has just started has one.
    fn connect(&self, place: Place) -> Arc<dyn Hypervisor>;
    /// The guest with a beating heart.
    fn guest(&self) -> Domain;
    /// A guest of a few MiB without any disk; it never gets past its firmware.
    fn empty_guest(&self) -> Domain;
    /// A guest of a host that boots and switches itself off, with its disks in place.
    fn probe_guest(&self, place: Place) -> BoxFuture<'_, Result<Domain, String>>;
    /// Whether hardware virtualization works on a host, where that is known from elsewhere.
    fn has_kvm(&self, place: Place) -> Option<bool>;
    /// Makes disks for a first start of [`Stage::guest`] on a host.
    fn prepare(&self, place: Place) -> BoxFuture<'_, Result<(), String>>;
    /// Makes everything ready for the guest to move from a host to the other one.
    fn route(&self, from: Place) -> BoxFuture<'_, Result<Migration, String>>;
    /// Completes when the migration that leaves `from` is in a phase, and keeps it there where that is possible until
    /// [`Stage::release`]. Watches from the moment it is called.
    fn reach(&self, from: Place, phase: Phase) -> BoxFuture<'static, ()>;
    /// Starts a migration from another controlling process. Dropping the handle is that process's SIGKILL.
    fn depart(&self, from: Place, how: Migration) -> Result<Box<dyn Send + Sync>, String>;
    /// Fails when there was nothing to strike.
    fn strike(&self, from: Place, fault: Fault) -> BoxFuture<'_, Result<(), String>>;
    /// Lets go of what was kept, mends what was cut.
    fn release(&self) -> BoxFuture<'_, ()>;
    /// Waits for `more` heartbeats.
    fn beats(&self, more: u64, bound: Duration) -> BoxFuture<'_, bool>;
    /// The heartbeats heard so far.
    fn heard(&self) -> u64;
    /// Processes of a guest on a host, by evidence that does not come from its daemon.
    fn processes(&self, place: Place, guest: &str) -> usize;
    /// Whether the guest suffered: heartbeats lost or told twice, or two copies that ran at once.
    fn harm(&self) -> Option<String>;
    /// Makes the guest write to its disk, and waits until that is there.
    fn writes(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Makes the guest dirty memory faster than [`Stage::slow_link`] carries it, or stop doing so.
    fn busy(&self, on: bool) -> BoxFuture<'_, Result<(), String>>;
    /// MiB per second that the busy guest outruns.
    fn slow_link(&self) -> u64;
    /// Something worth knowing that a case found out.
    fn note(&self, text: &str);
}

/// One case.
pub struct Case {
    pub name: String,
    run: Box<Run>,
}

type Run = dyn for<'a> Fn(&'a dyn Stage) -> BoxFuture<'a, Verdict> + Send + Sync;

/// `Err` says what was wrong.
pub type Verdict = Result<(), String>;

impl Case {
    fn new(
        name: impl Into<String>,
        run: impl for<'a> Fn(&'a dyn Stage) -> BoxFuture<'a, Verdict> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    /// # Errors
    /// What was wrong.
    pub async fn run(&self, stage: &dyn Stage) -> Verdict {
        let result = (self.run)(stage).await;
        stage.release().await;
        result
    }
}

/// A part of the cases that needs nothing of the other one: two stages may play them at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing breaks, or only where the guest stays.
    Undisturbed,
    /// Something breaks while the guest moves.
    Disturbed,
}

impl Part {
    pub const ALL: [Self; 2] = [Self::Undisturbed, Self::Disturbed];

    /// Its cases, in order.
    pub fn cases(self) -> Vec<Case> {
        match self {
            Self::Undisturbed => {
                let mut cases = lifecycle::first();
                cases.extend(moves::cases());
                cases.extend(lifecycle::last());
                cases
            }
            Self::Disturbed => faults::cases(),
        }
    }
}

/// A guest boots in 5 to 10 s under emulation; machines that also build something take several times as long.
pub const BOOTS_WITHIN: Duration = Duration::from_secs(150);
/// Five beats a second when all is well.
pub const BEATS_WITHIN: Duration = Duration::from_secs(30);
/// A daemon is back within two seconds; capabilities are read again when a cache is cold.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

pub(crate) fn told<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// A client that has reached its daemon.
pub(crate) async fn client(stage: &dyn Stage, place: Place) -> Result<Arc<dyn Hypervisor>, String> {
    let client = stage.connect(place);
    let answers = async {
        while let Err(_unreachable) = client.list().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    told("the daemon does not answer", tokio::time::timeout(ANSWERS_WITHIN, answers).await)?;
    Ok(client)
}

/// Between two looks at a condition that nothing announces.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Waits until a guest is in a state.
pub(crate) async fn until(
    hypervisor: &dyn Hypervisor,
    name: &str,
    bound: Duration,
    wanted: impl Fn(&View) -> bool,
) -> Verdict {
    let mut last = View::Unknown;
    let waited = async {
        loop {
            last = look(hypervisor, name).await;
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(bound, waited).await {
        Ok(()) => Ok(()),
        Err(_) => wrong(format!("{name} did not reach the wanted state within {bound:?}; it is {last:?}")),
    }
}

/// Where the guest runs: exactly one host, by the daemons and by the evidence.
pub(crate) async fn home(stage: &dyn Stage) -> Result<Place, String> {
    let name = stage.guest().name;
    let mut found = Vec::new();
    for place in [Place::Old, Place::New] {
        let client = client(stage, place).await?;
        let active = matches!(look(&*client, &name).await, View::Known(state) if state.is_active());
        let processes = stage.processes(place, &name);
        if processes != usize::from(active) {
            return wrong(format!("{place:?} reports {} guests and has {processes} processes", usize::from(active)));
        }
        if active {
            found.push(place);
        }
    }
    match found[..] {
        [place] => Ok(place),
        _ => wrong(format!("the guest runs on {found:?}")),
    }
}

/// A guest that runs, wherever that is; started if it does not.
pub(crate) async fn running(stage: &dyn Stage) -> Result<Place, String> {
    if let Ok(place) = home(stage).await
        && stage.beats(1, BEATS_WITHIN).await
    {
        return Ok(place);
    }
    boot(stage, Place::Old).await?;
    Ok(Place::Old)
}

/// Starts the guest from nothing.
pub(crate) async fn boot(stage: &dyn Stage, place: Place) -> Verdict {
    let guest = stage.guest();
    for place in [Place::Old, Place::New] {
        let client = client(stage, place).await?;
        // Whatever an earlier case left behind.
        let _ = client.destroy(&guest.name).await;
        let _ = client.undefine(&guest.name).await;
    }
    stage.prepare(place).await?;
    let client = client(stage, place).await?;
    told("define", client.define(&guest).await)?;
    told("start", client.start(&guest.name, crate::hypervisor::Start::default()).await)?;
    match stage.beats(3, BOOTS_WITHIN).await {
        true => Ok(()),
        false => wrong(format!("no heartbeat within {BOOTS_WITHIN:?} of the start")),
    }
}

/// The heart beats on and the guest is whole.
pub(crate) async fn well(stage: &dyn Stage) -> Verdict {
    if !stage.beats(3, BEATS_WITHIN).await {
        return wrong(format!("the heart stopped: {} beats", stage.heard()));
    }
    match stage.harm() {
        None => Ok(()),
        Some(harm) => wrong(harm),
    }
}

/// The same of a guest whose migration was disturbed: it has its disks too.
pub(crate) async fn whole(stage: &dyn Stage) -> Verdict {
    well(stage).await?;
    told("the guest writes to its disk", stage.writes().await)?;
    well(stage).await
}

/// Everything that arrived so far.
pub(crate) fn drain(events: &mut tokio::sync::mpsc::UnboundedReceiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

/// Waits for an event.
pub(crate) async fn event(
    events: &mut tokio::sync::mpsc::UnboundedReceiver<Event>,
    seen: &mut Vec<Event>,
    bound: Duration,
    wanted: impl Fn(&Event) -> bool,
) -> Verdict {
    let waited = async {
        while let Some(event) = events.recv().await {
            let done = wanted(&event);
            seen.push(event);
            if done {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(bound, waited).await {
        Ok(true) => Ok(()),
        _ => wrong(format!("the event did not come within {bound:?}; these did: {seen:?}")),
    }
}

/// Whether a listing has a guest in a state.
pub(crate) fn lists(domains: &[crate::hypervisor::Found], name: &str, wanted: impl Fn(State) -> bool) -> bool {
    domains.iter().any(|found| found.name == name && wanted(found.state))
}
