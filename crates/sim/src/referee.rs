//! The one who watches a run from inside the server: delivers faults at their moments, looks at every commit, and writes
//! down what happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kubevirt_runtime::clock::Clock;
use nanokube::{After, Before, Call, Faults, Injector, Nanokube, OnEvent, Read};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::aim::{Aim, When, what};
use crate::chronicle::{Chronicle, Reached};
use crate::course::{Course, Point};
use crate::invariants::{self, Invariant, OPERATOR, Sight, Verdict, Writer};
use crate::process::Lives;
use crate::strike::{Blow, CUT_OFF};

/// Where the API server says which pod a token was made for.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// A reply that nobody waits for any more.
const NEVER: Duration = Duration::from_secs(86_400);

/// How late an answer comes that lingers: what somebody does meanwhile has reached everybody, and a lease lasts seven times
/// as long.
const LINGERS: Duration = Duration::from_secs(2);

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Its name in the catalogue of checks.
    pub id: String,
    pub what: String,
    /// Since the beginning of the run.
    pub at: Duration,
}

struct State {
    /// The operator's writes that were carried out, its lease and its events aside.
    writes: u32,
    /// Those that arrived.
    arrivals: u32,
    aim: Aim,
    /// Pods that are cut off, from what, and until when.
    cuts: BTreeMap<String, (Blow, Instant)>,
    /// Verb and path of each of the writes that were carried out.
    written: Vec<String>,
    moments: Moments,
    /// How often the process of each pod was made to end.
    deaths: BTreeMap<String, u32>,
    seen: u64,
    rules: Vec<Box<dyn Invariant>>,
    checked: BTreeMap<String, u64>,
    violations: Vec<Violation>,
    tally: Tally,
    chronicle: Chronicle,
    /// The write whose answer comes late, so that somebody can act in the middle of a pass.
    lingers: Option<u32>,
    hash: Sha256,
    lines: Option<Vec<String>>,
    struck: Vec<String>,
    /// When the exact fault struck.
    struck_at: Option<Instant>,
    /// No more faults from the injector.
    is_calm: bool,
}

/// See the module.
pub(crate) struct Referee {
    api: OnceLock<Nanokube>,
    clock: Clock,
    began: Instant,
    lives: Lives,
    injector: Option<Arc<Injector>>,
    /// Every write is a point at which runs part.
    course: Course,
    state: Mutex<State>,
    /// Raised at each write of the operator and at each telling of a change of version.
    reached: watch::Sender<Reached>,
}

impl Referee {
    pub(crate) fn new(clock: Clock, lives: Lives, injector: Option<Arc<Injector>>, course: Course) -> Self {
        let script = course.script();
        let state = State {
            writes: 0,
            arrivals: 0,
            aim: Aim::of(&script),
            cuts: BTreeMap::new(),
            written: Vec::new(),
            moments: Moments::default(),
            deaths: BTreeMap::new(),
            seen: 0,
            rules: invariants::all(),
            checked: BTreeMap::new(),
            violations: Vec::new(),
            tally: Tally::default(),
            chronicle: Chronicle::default(),
            lingers: None,
            hash: Sha256::new(),
            lines: script.keeps_lines.then(Vec::new),
            struck: Vec::new(),
            struck_at: None,
            is_calm: false,
        };
        let reached = watch::channel(Reached::default()).0;
        let state = Mutex::new(state);
        Self { api: OnceLock::new(), clock, began: Instant::now(), lives, injector, course, state, reached }
    }

    /// Gives it the server to look into, once that exists.
    pub(crate) fn attach(&self, api: Nanokube) {
        // Err: attached already, to the same server.
        let _ = self.api.set(api);
    }

    /// What the operator has done so far.
    pub(crate) fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    /// The operator's writes so far.
    pub(crate) fn writes(&self) -> u32 {
        self.lock().writes
    }

    /// How far the run is.
    pub(crate) fn reached(&self) -> Reached {
        *self.reached.borrow()
    }

    /// The answer to the write of this number will come late.
    pub(crate) fn linger_at(&self, write: u32) {
        self.lock().lingers = Some(write);
    }

    /// Waits until the run is so far.
    pub(crate) async fn reaches(&self, far: Reached) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.reached.subscribe().wait_for(|reached| reached.is_at_least(far)).await;
    }

    /// Whether drawn faults keep the API server from reaching webhooks and aggregated APIs now.
    pub(crate) fn backends_are_down(&self) -> bool {
        self.injector().is_some_and(|injector| injector.backend_is_down())
    }

    /// Whether the exact fault, if there is one, has struck and its consequences are over.
    pub(crate) fn is_at_peace(&self) -> bool {
        let state = self.lock();
        state.aim.is_at_peace()
            && state.cuts.values().all(|(_, until)| Instant::now() >= *until)
            && (state.is_calm || self.injector.as_ref().is_none_or(|injector| injector.is_exhausted()))
    }

    /// How much longer the exact fault may keep the operator busy, however little that shows: a lease that nobody renews
    /// runs out, another pod starts, and a container that died comes back.
    pub(crate) fn aftermath(&self) -> Duration {
        /// Cut off for 25 s at most, during which its lease has run out, and then 15 s for a container that starts anew.
        const BUSY: Duration = Duration::from_secs(40);
        /// A node starts a container that died at once the first time; then it waits, each time twice as long.
        const BACK_OFF: Duration = Duration::from_secs(10);
        let state = self.lock();
        let deaths = state.deaths.values().max().copied().unwrap_or(0);
        let back_off = deaths.checked_sub(2).map_or(Duration::ZERO, |doublings| BACK_OFF * 2_u32.pow(doublings));
        state.struck_at.map_or(Duration::ZERO, |struck| (BUSY + back_off).saturating_sub(struck.elapsed()))
    }

    /// Ends every drawn fault that has not struck: from here on the run is asked whether it converges.
    pub(crate) fn calm(&self) {
        let mut state = self.lock();
        if !state.is_calm && self.injector.is_some() {
            state.is_calm = true;
            self.write_down(&mut state, "the faults stop".to_owned());
        }
    }

    fn injector(&self) -> Option<&Arc<Injector>> {
        self.injector.as_ref().filter(|_| !self.lock().is_calm)
    }

    /// Takes note of something that happened outside of the API.
    pub(crate) fn note(&self, what: &str) {
        self.write_down(&mut self.lock(), what.to_owned());
    }

    /// The same for a fault that others deliver, so that it is counted.
    pub(crate) fn note_fault(&self, class: &str, what: &str) {
        let mut state = self.lock();
        let line = format!("{class} {what}");
        self.write_down(&mut state, format!("FAULT {line}"));
        state.struck.push(line);
    }

    /// What was found, at the end of a run.
    pub(crate) fn findings(&self) -> Findings {
        self.observe(None);
        let state = self.lock();
        let mut struck = state.struck.clone();
        struck.extend(self.injector.iter().flat_map(|injector| injector.injected()).map(|fault| fault.to_string()));
        Findings {
            violations: state.violations.clone(),
            checked: state.checked.clone(),
            writes: state.writes,
            written: state.written.clone(),
            moments: state.moments.of_writes.clone(),
            hash: state.hash.clone().finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
            lines: state.lines.clone().unwrap_or_default(),
            struck,
            chronicle: state.chronicle.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters and lists are whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_down(&self, state: &mut State, line: String) {
        let line = format!("{:>9.3} {line}", self.began.elapsed().as_secs_f64());
        state.hash.update(line.as_bytes());
        state.hash.update(b"\n");
        if let Some(lines) = &mut state.lines {
            lines.push(line);
        }
    }

    /// Looks at every commit since the last look. Those of the object that `call` is about are its caller's.
    fn observe(&self, call: Option<(&Call<'_>, &Writer)>) {
        let Some(api) = self.api.get() else { return };
        let mut state = self.lock();
        let transitions = api.transitions_after(state.seen);
        let now = self.clock.now();
        for transition in &transitions {
            state.seen = transition.revision();
            if let Some(told) = state.chronicle.see(transition, self.began.elapsed()) {
                self.write_down(&mut state, format!("TOLD {told}"));
                self.reached.send_modify(|reached| reached.told += 1);
            }
            let is_calls = call.is_some_and(|(call, _)| {
                call.request.resource.as_ref().is_some_and(|path| {
                    let resource = if path.group.is_empty() {
                        path.plural.clone()
                    } else {
                        format!("{}.{}", path.plural, path.group)
                    };
                    *transition.resource == *resource
                        && transition.namespace() == path.namespace
                        && (path.name.is_empty() || transition.name() == path.name)
                })
            });
            let writer = call.filter(|_| is_calls).map(|(_, writer)| writer);
            let sent = call.filter(|_| is_calls).map_or(&[][..], |(call, _)| call.body);
            let sight = Sight { transition, writer, sent, api, now };
            if sight.by_operator() {
                let key = format!("{} {}", transition.resource, transition.name());
                let tally = match (transition.before(), transition.after()) {
                    (None, _) => &mut state.tally.made,
                    (_, None) => &mut state.tally.removed,
                    _ => &mut state.tally.updated,
                };
                *tally.entry(key).or_default() += 1;
            }
            let mut rules = std::mem::take(&mut state.rules);
            for rule in &mut rules {
                match rule.check(&sight) {
                    Verdict::NotConcerned => continue,
                    Verdict::Holds => {}
                    Verdict::Broken(what) => {
                        let violation = Violation { id: rule.id().to_owned(), what, at: self.began.elapsed() };
                        self.write_down(&mut state, format!("VIOLATION {} {}", violation.id, violation.what));
                        state.violations.push(violation);
                    }
                }
                *state.checked.entry(rule.id().to_owned()).or_default() += 1;
            }
            state.rules = rules;
        }
    }

    /// Delivers the exact fault if this was its write.
    fn strike(&self, call: &Call<'_>, writer: &Writer) -> After {
        let mut state = self.lock();
        state.writes += 1;
        self.reached.send_modify(|reached| reached.writes += 1);
        state.written.push(what(call));
        state.moments.write(Instant::now());
        if let Some(script) = self.course.reach(Point::Write(state.writes)) {
            state.aim.follow(&script);
        }
        let number = state.writes;
        let Some(strike) = state.aim.at(When::Write, number, call) else {
            return if state.lingers == Some(number) { After::Delay(LINGERS) } else { After::Reply };
        };
        state.struck_at = Some(Instant::now());
        let pod = writer.pod.clone().unwrap_or_default();
        let line = format!("{strike}: {} {} by {pod}", call.request.verb, call.request.path);
        self.write_down(&mut state, format!("FAULT {line}"));
        state.struck.push(line);
        match strike.blow {
            Blow::Crash => {
                *state.deaths.entry(pod.clone()).or_default() += 1;
                drop(state);
                self.lives.kill(&pod);
                After::Delay(NEVER)
            }
            Blow::LostReply => After::Lose,
            Blow::Deposed | Blow::Frozen => {
                // Who finds that the lease is another's ends by itself.
                *state.deaths.entry(pod.clone()).or_default() += 1;
                state.cuts.insert(pod, (strike.blow, Instant::now() + CUT_OFF));
                After::Reply
            }
            Blow::Twice => After::Reply,
        }
    }
}

/// Writes between which nothing passes for a leader that only can't renew its lease: those of one instant, with no request
/// about a lease between them.
#[derive(Default)]
struct Moments {
    /// The moment of each write, counted from 0.
    of_writes: Vec<u32>,
    /// When the last write was made, if nobody has asked about a lease since.
    last: Option<Instant>,
}

impl Moments {
    fn write(&mut self, now: Instant) {
        let next = match self.of_writes.last() {
            None => 0,
            Some(moment) => moment + u32::from(self.last != Some(now)),
        };
        self.of_writes.push(next);
        self.last = Some(now);
    }

    fn lease(&mut self) {
        self.last = None;
    }
}

/// What the operator has done since the beginning of a run, by resource and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub made: BTreeMap<String, u32>,
    pub removed: BTreeMap<String, u32>,
    pub updated: BTreeMap<String, u32>,
    /// Writes of the lease that were carried out, by pod.
    pub leases: BTreeMap<String, u32>,
    /// Events told.
    pub events: u32,
    /// Requests of all kinds but those for the lease.
    pub requests: u32,
}

/// What a referee has found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    pub violations: Vec<Violation>,
    /// Commits that each invariant was concerned with.
    pub checked: BTreeMap<String, u64>,
    pub writes: u32,
    /// Verb and path of each of them, in order.
    pub written: Vec<String>,
    /// The moment of each of them: at writes of one moment it is the same whether a lease can't be renewed any more.
    pub moments: Vec<u32>,
    /// Over every line written down: equal runs, equal hash.
    pub hash: String,
    pub lines: Vec<String>,
    /// The faults that struck.
    pub struck: Vec<String>,
    /// What was told of changes of version.
    pub chronicle: Chronicle,
}

fn writer(call: &Call<'_>) -> Writer {
    let pod = call.user.extra.get(POD).and_then(|pods| pods.first()).cloned();
    Writer { user: call.user.name.clone(), pod }
}

fn is_lease(call: &Call<'_>) -> bool {
    call.request.resource.as_ref().is_some_and(|path| path.plural == "leases")
}

fn is_event(call: &Call<'_>) -> bool {
    call.request.resource.as_ref().is_some_and(|path| path.plural == "events")
}

/// What is written for others than those the operator is for; a review is sent for its answer, and nothing is stored.
const ASIDE: [&str; 3] = ["leases", "events", "selfsubjectrulesreviews"];

/// The writes that are counted: those that change what the operator is for.
fn counts(call: &Call<'_>) -> bool {
    call.user.name == OPERATOR
        && call.request.is_write()
        && call.request.resource.as_ref().is_some_and(|path| !ASIDE.contains(&path.plural.as_str()))
}

impl Faults for Referee {
    fn before(&self, call: Call<'_>) -> Before {
        if call.user.name == OPERATOR {
            let mut state = self.lock();
            if counts(&call) {
                state.arrivals += 1;
                if let Some(script) = self.course.reach(Point::Arrival(state.arrivals)) {
                    state.aim.follow(&script);
                }
                let number = state.arrivals;
                if let Some(strike) = state.aim.at(When::Arrival, number, &call) {
                    state.struck_at = Some(Instant::now());
                    let line = format!("{strike}: {} {}", call.request.verb, call.request.path);
                    self.write_down(&mut state, format!("FAULT {line}"));
                    state.struck.push(line);
                    return Before::Twice;
                }
            }
            if is_lease(&call) {
                state.moments.lease();
            }
            let pod = writer(&call).pod.unwrap_or_default();
            if let Some((blow, until)) = state.cuts.get(&pod)
                && Instant::now() < *until
            {
                match blow {
                    Blow::Deposed if is_lease(&call) => return Before::Drop,
                    Blow::Frozen => return Before::Delay(until.saturating_duration_since(Instant::now())),
                    _ => {}
                }
            }
        }
        self.injector().map_or(Before::Pass, |injector| injector.before(call))
    }

    fn after(&self, call: Call<'_>, code: u16) -> After {
        let writer = writer(&call);
        if call.request.is_write() {
            self.observe(Some((&call, &writer)));
        }
        if call.user.name == OPERATOR {
            let who = writer.pod.as_deref().unwrap_or("operator");
            let line = format!("{who} {} {} {code}", call.request.verb, call.request.path);
            let mut state = self.lock();
            let is_done = call.request.is_write() && (200..300).contains(&code);
            if !is_lease(&call) {
                state.tally.requests += 1;
                state.tally.events += u32::from(is_done && is_event(&call));
            } else if is_done {
                *state.tally.leases.entry(who.to_owned()).or_default() += 1;
            }
            self.write_down(&mut state, line);
            drop(state);
        }
        if counts(&call) && (200..300).contains(&code) {
            match self.strike(&call, &writer) {
                After::Reply => {}
                struck => return struck,
            }
        }
        self.injector().map_or(After::Reply, |injector| injector.after(call, code))
    }

    fn read(&self, call: Call<'_>) -> Read {
        self.injector().map_or_else(Read::default, |injector| injector.read(call))
    }

    fn event(&self, call: Call<'_>, revision: u64) -> OnEvent {
        self.injector().map_or(OnEvent::Deliver, |injector| injector.event(call, revision))
    }
}
