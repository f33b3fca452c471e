//! One task that owns the stores, asks the controllers what to do and runs their actions.
//!
//! Level-triggered: a key is looked at again when anything it depends on changed, when its last actions failed (with
//! growing pauses), or when its decision asked for it. A key never has two sets of actions under way. Nothing polls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kube::Client;
use kubevirt_runtime::clock::Clock;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::WORKLOADS_BEGIN;
use crate::action::{Action, Controller, View};
use crate::cache::{Change, Fed, Name, Watch, follow};
use crate::events::Recorder;
use crate::execute::{Learned, Outcome, execute};
use crate::kinds::{Cached, Kind, Objects, Visitor};

/// Events waiting to be applied; a full channel makes the watches wait, which a server bears.
const EVENTS: usize = 1024;
/// Decisions whose actions are under way at once.
const RUNNING: usize = 64;
/// A controller that asks to be called again at once still lets the others run in between.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Pause after the first failure of a key.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// A cluster with more pods than this has large controllers: a decision looks at thousands of objects.
const MANY_PODS: usize = 500;
/// How long events gather there before a key is decided, for each pod: about what a decision takes. Under simulated time a
/// decision takes none, and every event would be answered with one of its own: nodes times nodes for a roll-out.
const GATHER_PER_POD: Duration = Duration::from_micros(4);
/// Longest pause after failures: a cause that someone removes by hand is noticed within this time.
const RETRY_MAX: Duration = Duration::from_secs(30);

type Key = (usize, Name);

enum Done {
    Acted(Key, Outcome),
    Checked(Learned),
}

/// The task's state.
pub(crate) struct Manager {
    controllers: Vec<(Box<dyn Controller>, Client)>,
    reader: Client,
    recorder: Arc<Recorder>,
    clock: Clock,
    objects: Objects,
    synced: BTreeSet<Kind>,
    /// Until when the controllers of workloads rest, unless a node comes first; `None` once they work.
    resting: Option<Instant>,
    queue: BTreeSet<Key>,
    /// Keys whose actions are under way.
    busy: BTreeSet<Key>,
    /// When to look at a key again.
    timers: BTreeSet<(Instant, Key)>,
    due: BTreeMap<Key, Instant>,
    failed: BTreeMap<Key, (u32, String)>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Manager {
    pub(crate) fn new(controllers: Vec<(Box<dyn Controller>, Client)>, reader: Client, clock: Clock) -> Self {
        Self {
            resting: Some(Instant::now() + WORKLOADS_BEGIN),
            controllers,
            reader,
            recorder: Arc::new(Recorder::new(clock.clone())),
            clock,
            objects: Objects::lean(),
            synced: BTreeSet::new(),
            queue: BTreeSet::new(),
            busy: BTreeSet::new(),
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
            failed: BTreeMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    pub(crate) async fn run(mut self, watches: Vec<Watch>, stop: CancellationToken) {
        let (to, mut events) = channel(EVENTS);
        let mut followers = tokio::task::JoinSet::new();
        for watch in watches {
            followers.spawn(follow(self.reader.clone(), watch, to.clone()));
        }
        drop(to);
        loop {
            self.start_ready();
            let next = self.timers.first().map(|(at, _)| *at).into_iter().chain(self.resting).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(fed) = events.recv() => self.feed(fed, &mut events),
                Some(done) = self.running.next() => self.finish(done),
                () = sleep_until(next) => self.fire(),
            }
        }
    }

    /// Applies everything that has arrived, so that one decision answers a burst of events.
    fn feed(&mut self, first: Fed, events: &mut Receiver<Fed>) {
        let mut next = Some(first);
        while let Some(Fed { kind, update }) = next {
            let mut unsure = Vec::new();
            for change in update(&mut self.objects, &mut unsure) {
                self.dispatch(&change);
            }
            for name in unsure {
                self.check(kind, name);
            }
            if !self.synced.contains(&kind) && kind.visit(IsSynced(&self.objects)) {
                self.synced.insert(kind);
            }
            next = events.try_recv().ok();
        }
    }

    fn dispatch(&mut self, change: &Change) {
        let gather = gather(self.objects.pods.len());
        for index in 0..self.controllers.len() {
            let controller = &self.controllers[index].0;
            for name in controller.affected(&self.objects, change) {
                let lag = self.controllers[index].0.lag(&name);
                self.enqueue((index, name), lag.max(gather));
            }
        }
    }

    fn enqueue(&mut self, key: Key, after: Duration) {
        if after.is_zero() {
            self.queue.insert(key);
            return;
        }
        let at = Instant::now() + after;
        match self.due.get(&key) {
            Some(known) if *known <= at => {}
            known => {
                if let Some(known) = known {
                    self.timers.remove(&(*known, key.clone()));
                }
                self.due.insert(key.clone(), at);
                self.timers.insert((at, key));
            }
        }
    }

    fn fire(&mut self) {
        let now = Instant::now();
        self.resting = self.resting.filter(|until| *until > now);
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, key)) = self.timers.pop_first()
        {
            self.due.remove(&key);
            self.queue.insert(key);
        }
    }

    fn start_ready(&mut self) {
        if self.objects.nodes.iter().next().is_some() {
            self.resting = None;
        }
        let mut waiting = BTreeSet::new();
        while self.running.len() < RUNNING
            && let Some(key) = self.queue.pop_first()
        {
            let (controller, client) = &self.controllers[key.0];
            let ready = controller.needs().iter().all(|kind| self.synced.contains(kind));
            let rests = self.resting.is_some() && controller.is_workload();
            if !ready || rests || self.busy.contains(&key) {
                waiting.insert(key);
                continue;
            }
            let failure = self.failed.get(&key).map(|(_, words)| words.as_str());
            let view = View { objects: &self.objects, now: self.clock.now(), failure };
            let decision = controller.decide(&view, &key.1);
            let client = client.clone();
            if let Some(pause) = decision.again {
                self.enqueue(key.clone(), pause.max(PAUSE_MIN));
            }
            if decision.actions.is_empty() {
                self.failed.remove(&key);
                continue;
            }
            let (actions, held_back) = one_write_per_object(decision.actions);
            if held_back {
                waiting.insert(key.clone());
            }
            let recorder = self.recorder.clone();
            self.busy.insert(key.clone());
            self.running.push(Box::pin(async move { Done::Acted(key, execute(client, recorder, actions).await) }));
        }
        self.queue.append(&mut waiting);
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Acted(key, outcome) => {
                self.busy.remove(&key);
                for learned in outcome.learned {
                    self.learn(learned);
                }
                match outcome.failure {
                    None => {
                        self.failed.remove(&key);
                    }
                    Some(words) => {
                        let (controller, name) = (self.controllers[key.0].0.user(), &key.1);
                        debug!(controller, %name, words, "actions failed, trying again");
                        let times = self.failed.get(&key).map_or(0, |(times, _)| *times);
                        let pause = RETRY_FIRST.saturating_mul(1 << times.min(16)).min(RETRY_MAX);
                        self.failed.insert(key.clone(), (times + 1, words));
                        // Whatever woke this key meanwhile waits for the pause too: its cause may be the failure itself.
                        self.queue.remove(&key);
                        if let Some(at) = self.due.remove(&key) {
                            self.timers.remove(&(at, key.clone()));
                        }
                        self.enqueue(key, pause);
                    }
                }
            }
            Done::Checked(learned) => self.learn(learned),
        }
    }

    fn learn(&mut self, learned: Learned) {
        if let Some(change) = learned(&mut self.objects) {
            self.dispatch(&change);
        }
    }

    /// Asks the server about an object that we wrote while a list that lacks it was on the way.
    fn check(&mut self, kind: Kind, name: Name) {
        let asked = kind.visit(Check { client: self.reader.clone(), name });
        self.running.push(Box::pin(async move { Done::Checked(asked.await) }));
    }
}

/// How long a key waits for more events than the first.
fn gather(pods: usize) -> Duration {
    if pods <= MANY_PODS {
        return Duration::ZERO;
    }
    GATHER_PER_POD * u32::try_from(pods).unwrap_or(u32::MAX)
}

/// Keeps the first patch of each object. A second one would carry a version that the first has made old; what it is for
/// is decided again once the answer to the first is known. Also tells whether any was held back.
fn one_write_per_object(mut actions: Vec<Action>) -> (Vec<Action>, bool) {
    let before = actions.len();
    let mut patched = BTreeSet::new();
    actions.retain(|action| match action {
        Action::Patch { kind, name, .. } => patched.insert((*kind, name.clone())),
        _ => true,
    });
    let held_back = actions.len() < before;
    (actions, held_back)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct IsSynced<'a>(&'a Objects);

impl Visitor for IsSynced<'_> {
    type Out = bool;
    fn visit<K: Cached>(self) -> bool {
        K::store(self.0).synced()
    }
}

struct Check {
    client: Client,
    name: Name,
}

impl Visitor for Check {
    type Out = BoxFuture<'static, Learned>;
    fn visit<K: Cached>(self) -> Self::Out {
        Box::pin(async move {
            let Self { client, name } = self;
            match K::api(client, &name.namespace).get_opt(&name.name).await {
                Ok(Some(object)) => Box::new(move |objects: &mut Objects| objects.answered(object)) as Learned,
                Ok(None) => Box::new(move |objects: &mut Objects| objects.remove::<K>(&name, None)),
                // The next list settles it.
                Err(_) => Box::new(|_: &mut Objects| None),
            }
        })
    }
}
