//! Carries out a plan: counts moments, strikes, and writes down what it did.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use kubevirt_runtime::clock::{Clock, Shift};
use kubevirt_runtime::net::memory::{MemoryNet, Verdict};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, Sleep};

use super::plan::{Fault, FaultPlan, Misfortune, Moment};
use super::{After, Before, Call, Faults, OnEvent, Read};

/// A fault that struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The fault's number in the plan.
    pub fault: u32,
    pub what: Misfortune,
    pub user: String,
    /// Verb and path of the request it hit.
    pub request: String,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, what, user, request } = self;
        write!(f, "#{fault} {} {what}: {request} by {user}", what.class())
    }
}

#[derive(Default)]
struct State {
    /// Moments seen, per fault.
    counts: Vec<u32>,
    log: Vec<Injected>,
    backend_down: bool,
    /// Until when what [`Injector::slow`] has wrapped stands still.
    stalled: Option<Instant>,
}

/// A plan at work.
pub struct Injector {
    plan: FaultPlan,
    shift: Shift,
    state: Mutex<State>,
}

impl Injector {
    pub fn new(plan: FaultPlan) -> Self {
        let state = State { counts: vec![0; plan.faults.len()], ..State::default() };
        Self { plan, shift: Shift::default(), state: Mutex::new(state) }
    }

    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// A clock to hand out to whom the plan's clock faults shall hit.
    pub fn clock(&self, true_clock: &Clock) -> Clock {
        true_clock.shifted(&self.shift)
    }

    /// What struck so far, in order.
    pub fn injected(&self) -> Vec<Injected> {
        self.lock().log.clone()
    }

    /// Whether every fault has had all its strikes.
    pub fn is_exhausted(&self) -> bool {
        let state = self.lock();
        self.plan.faults.iter().zip(&state.counts).all(|(fault, count)| *count >= fault.first + fault.times)
    }

    /// Whether webhooks and aggregated servers are out of reach now.
    pub fn backend_is_down(&self) -> bool {
        self.lock().backend_down
    }

    /// A process that the plan's slow timers shall hit: `program` is not polled while one strikes, so that all it waits
    /// for is late, while the world goes on. Tasks that it spawns are not slowed: a stall of the part that holds a lease
    /// or drives a loop is what is tested.
    pub fn slow<F: Future>(self: &Arc<Self>, program: F) -> impl Future<Output = F::Output> + use<F> {
        let injector = Arc::clone(self);
        let mut program = Box::pin(program);
        let mut wake: Option<Pin<Box<Sleep>>> = None;
        std::future::poll_fn(move |context| {
            loop {
                let stalled = injector.lock().stalled.filter(|until| *until > Instant::now());
                let Some(until) = stalled else { return program.as_mut().poll(context) };
                let sleep = wake.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                if sleep.deadline() != until {
                    sleep.as_mut().reset(until);
                }
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
    }

    /// Lets this injector decide about connections of the network to `backends`.
    pub fn rule(self: &Arc<Self>, net: &MemoryNet, backends: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) {
        let injector = Arc::clone(self);
        net.set_rule(
            move |_, to| {
                if injector.backend_is_down() && backends(to) { Verdict::Refuse } else { Verdict::Pass }
            },
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters and a log are whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a moment; gives the faults that strike in it. A fault's window ends one moment after its last strike, which
    /// is when lasting conditions (clock, network) heal.
    fn strike(&self, call: &Call<'_>, moment: Moment) -> Vec<&Fault> {
        if !self.plan.scope.includes(call) {
            return Vec::new();
        }
        let mut state = self.lock();
        let mut struck = Vec::new();
        for (index, fault) in self.plan.faults.iter().enumerate().filter(|(_, fault)| fault.what.strikes() == moment) {
            state.counts[index] = state.counts[index].saturating_add(1);
            let count = state.counts[index];
            let (active, healed) =
                ((fault.first..fault.first + fault.times).contains(&count), count == fault.first + fault.times);
            match fault.what {
                Misfortune::ClockSkew { seconds } if active => self.shift.set(jiff::SignedDuration::from_secs(seconds)),
                Misfortune::ClockSkew { .. } if healed => self.shift.set(jiff::SignedDuration::ZERO),
                Misfortune::SlowTimers { time } if active => state.stalled = Some(Instant::now() + time),
                Misfortune::BackendDown if active || healed => state.backend_down = active,
                _ => {}
            }
            if active && applies(&fault.what, call) {
                state.log.push(Injected {
                    fault: fault.number,
                    what: fault.what,
                    user: call.user.name.clone(),
                    request: format!("{} {}", call.request.verb, call.request.path),
                });
                struck.push(fault);
            }
        }
        struck
    }
}

/// Whether a read can show the fault at all; a strike that changes nothing is not written down.
fn applies(what: &Misfortune, call: &Call<'_>) -> bool {
    let any = call.request.query.get("resourceVersion") == Some("0");
    match what {
        Misfortune::StaleReplica { .. } => any,
        Misfortune::OtherOrder { .. } => any && call.request.verb != "get",
        Misfortune::PartialPages { .. } => call.request.verb == "list" && call.request.query.get("limit").is_some(),
        _ => true,
    }
}

impl Faults for Injector {
    fn before(&self, call: Call<'_>) -> Before {
        let mut struck = self.strike(&call, Moment::Request);
        if call.request.is_write() {
            struck.extend(self.strike(&call, Moment::Write));
        }
        let outcome = struck.iter().map(|fault| match fault.what {
            Misfortune::Refusals { code, retry_after } => Before::Refuse { code, retry_after },
            Misfortune::Conflicts => Before::Refuse { code: 409, retry_after: None },
            Misfortune::Latency { time } => Before::Delay(time),
            Misfortune::DuplicatedRetry => Before::Twice,
            _ => Before::Pass,
        });
        outcome.into_iter().find(|before| *before != Before::Pass).unwrap_or_default()
    }

    fn after(&self, call: Call<'_>, code: u16) -> After {
        if !call.request.is_write() || !(200..300).contains(&code) {
            return After::Reply;
        }
        let struck = self.strike(&call, Moment::Reply);
        struck.first().map_or(After::Reply, |fault| match fault.what {
            Misfortune::LateReply { time } => After::Delay(time),
            _ => After::Lose,
        })
    }

    fn read(&self, call: Call<'_>) -> Read {
        let mut read = Read::default();
        for fault in self.strike(&call, Moment::Read) {
            match fault.what {
                Misfortune::StaleReplica { behind } => read.behind = behind,
                Misfortune::OtherOrder { seed } => read.order = Some(seed),
                Misfortune::PartialPages { size } => read.page = Some(size),
                _ => {}
            }
        }
        read
    }

    fn event(&self, call: Call<'_>, _revision: u64) -> OnEvent {
        let struck = self.strike(&call, Moment::Event);
        struck.first().map_or(OnEvent::Deliver, |fault| match fault.what {
            Misfortune::WithheldEvents { time } => OnEvent::Withhold(time),
            Misfortune::BookmarksOnly { time } => OnEvent::Bookmarks(time),
            Misfortune::GoneWatch => OnEvent::Expire,
            _ => OnEvent::Cut,
        })
    }
}

/// One number for a run: equal traces, equal hash. Lines are what a run wrote down, in order: audit events, faults.
pub fn trace_hash<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
