//! What goes wrong, when and how often: drawn from a seed, printed, and replayed one fault at a time.

use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::Call;

/// One kind of fault, with its measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfortune {
    /// A write is committed and its reply lost.
    LostReply,
    /// A write is carried out twice; the client sees the second answer.
    DuplicatedRetry,
    /// Reads that accept any state come from a replica so many revisions behind: time travels backwards.
    StaleReplica { behind: u64 },
    /// Events are held back; then only the last state of each object is told.
    WithheldEvents { time: Duration },
    /// A watch ends without a word.
    ClosedWatch,
    /// A watch ends with 410 Gone.
    GoneWatch,
    /// A watch sends nothing but bookmarks for a time.
    BookmarksOnly { time: Duration },
    /// Lists that promise no order come in another one.
    OtherOrder { seed: u64 },
    /// Writes are refused with 409, as if somebody else had been quicker.
    Conflicts,
    /// Requests are refused with 429, 500 or 503.
    Refusals { code: u16, retry_after: Option<u32> },
    /// Requests wait before they are looked at.
    Latency { time: Duration },
    /// Replies come late: the write is done long before its client knows.
    LateReply { time: Duration },
    /// Pages hold fewer items than asked for.
    PartialPages { size: usize },
    /// The clock handed out is off by so many seconds; negative: behind.
    ClockSkew { seconds: i64 },
    /// A process that gets no processor for a time: whatever it waits for, timers first of all, comes so much later.
    SlowTimers { time: Duration },
    /// Webhooks and aggregated servers cannot be reached.
    BackendDown,
}

impl Misfortune {
    /// Its class in the catalogue of faults.
    pub fn class(&self) -> &'static str {
        match self {
            Self::LostReply | Self::DuplicatedRetry => "F2",
            Self::StaleReplica { .. } => "F3",
            Self::WithheldEvents { .. } => "F4",
            Self::ClosedWatch | Self::GoneWatch | Self::BookmarksOnly { .. } | Self::OtherOrder { .. } => "F5",
            Self::Conflicts
            | Self::Refusals { .. }
            | Self::Latency { .. }
            | Self::LateReply { .. }
            | Self::PartialPages { .. } => "F6",
            Self::ClockSkew { .. } | Self::SlowTimers { .. } => "F8",
            Self::BackendDown => "F15",
        }
    }

    /// What is counted until it strikes.
    pub(super) fn strikes(&self) -> Moment {
        match self {
            Self::LostReply | Self::LateReply { .. } => Moment::Reply,
            Self::DuplicatedRetry | Self::Conflicts => Moment::Write,
            Self::StaleReplica { .. } | Self::OtherOrder { .. } | Self::PartialPages { .. } => Moment::Read,
            Self::WithheldEvents { .. } | Self::ClosedWatch | Self::GoneWatch | Self::BookmarksOnly { .. } => {
                Moment::Event
            }
            Self::Refusals { .. }
            | Self::Latency { .. }
            | Self::ClockSkew { .. }
            | Self::SlowTimers { .. }
            | Self::BackendDown => Moment::Request,
        }
    }
}

/// The moments of a request's life that faults count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Request,
    Write,
    /// The reply to a write that succeeded.
    Reply,
    Read,
    Event,
}

impl Moment {
    fn noun(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Write => "write",
            Self::Reply => "committed write",
            Self::Read => "read",
            Self::Event => "watch event",
        }
    }
}

impl fmt::Display for Misfortune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LostReply => f.write_str("lost-reply"),
            Self::DuplicatedRetry => f.write_str("duplicated-retry"),
            Self::StaleReplica { behind } => write!(f, "stale-replica({behind} revisions)"),
            Self::WithheldEvents { time } => write!(f, "withheld-events({}s)", time.as_secs()),
            Self::ClosedWatch => f.write_str("closed-watch"),
            Self::GoneWatch => f.write_str("gone-watch(410)"),
            Self::BookmarksOnly { time } => write!(f, "bookmarks-only({}s)", time.as_secs()),
            Self::OtherOrder { .. } => f.write_str("other-order"),
            Self::Conflicts => f.write_str("conflicts(409)"),
            Self::Refusals { code, .. } => write!(f, "refusals({code})"),
            Self::Latency { time } => write!(f, "latency({}s)", time.as_secs()),
            Self::LateReply { time } => write!(f, "late-reply({}s)", time.as_secs()),
            Self::PartialPages { size } => write!(f, "partial-pages({size})"),
            Self::ClockSkew { seconds } => write!(f, "clock-skew({seconds:+}s)"),
            Self::SlowTimers { time } => write!(f, "slow-timers({}s)", time.as_secs()),
            Self::BackendDown => f.write_str("backend-down"),
        }
    }
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the plan, from 1; with the seed it names the fault for ever.
    pub number: u32,
    pub what: Misfortune,
    /// It strikes at the `first`-th moment of its kind (from 1)
    pub first: u32,
    /// and so many times in a row. Always bounded: faults end, so that a run can be asked what comes after.
    pub times: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, what, first, times } = self;
        let (class, noun, what) = (what.class(), what.strikes().noun(), what.to_string());
        let often = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        write!(f, "#{number:<3} {class:<4} {what:<28} from {noun} {first:<4} {often}")
    }
}

/// Whom faults hit, and how many there are.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Only users whose name starts with one of these; empty: all.
    pub users: Vec<String>,
    pub faults: u32,
    /// The latest moment at which a fault strikes first: about as many as the run has.
    pub horizon: u32,
}

impl Scope {
    pub(super) fn includes(&self, call: &Call<'_>) -> bool {
        self.users.is_empty() || self.users.iter().any(|prefix| call.user.name.starts_with(prefix))
    }
}

/// The faults of one run.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    pub seed: u64,
    pub scope: Scope,
    pub faults: Vec<Fault>,
}

/// The most strikes of one fault in a row: more than the retries of a patient client.
const MOST_TIMES: u32 = 8;

impl FaultPlan {
    /// Draws a plan. Every fault has a stream of its own, so that fault `k` of a seed is the same in plans of any length.
    pub fn draw(seed: u64, scope: Scope) -> Self {
        let faults = (1..=scope.faults).map(|number| draw(seed, number, scope.horizon.max(1))).collect();
        Self { seed, scope, faults }
    }

    /// A plan with given faults.
    pub fn of(faults: impl IntoIterator<Item = Fault>) -> Self {
        let scope = Scope { users: Vec::new(), faults: 0, horizon: 0 };
        Self { seed: 0, scope, faults: faults.into_iter().collect() }
    }

    /// The same plan with only one of its faults: what `--fault F#k` replays.
    #[must_use]
    pub fn only(mut self, number: u32) -> Self {
        self.faults.retain(|fault| fault.number == number);
        self
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "plan of seed {}: {count} fault{}", self.seed, if count == 1 { "" } else { "s" })?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

fn draw(seed: u64, number: u32, horizon: u32) -> Fault {
    let mut draws = ChaCha8Rng::seed_from_u64(seed);
    draws.set_stream(number.into());
    let mut below = |end: u32| draws.next_u32() % end.max(1);
    let seconds = |number: u32| Duration::from_secs(number.into());
    let (what, most) = match below(17) {
        0 => (Misfortune::LostReply, 2),
        1 => (Misfortune::DuplicatedRetry, 2),
        2 | 3 => (Misfortune::StaleReplica { behind: u64::from(1 + below(30)) }, 3),
        4 => (Misfortune::WithheldEvents { time: seconds(1 + below(60)) }, 2),
        5 => (Misfortune::ClosedWatch, 3),
        6 => (Misfortune::GoneWatch, 2),
        7 => (Misfortune::BookmarksOnly { time: seconds(10 + below(110)) }, 1),
        8 => (Misfortune::OtherOrder { seed: below(u32::MAX).into() }, 3),
        9 => (Misfortune::Conflicts, MOST_TIMES),
        10 => (Misfortune::Refusals { code: 429, retry_after: Some(1 + below(5)) }, MOST_TIMES),
        11 => (Misfortune::Refusals { code: [500, 503][below(2) as usize], retry_after: None }, MOST_TIMES),
        12 => (Misfortune::Latency { time: seconds(1 + below(10)) }, 4),
        13 => (Misfortune::LateReply { time: seconds(1 + below(10)) }, 2),
        14 => (Misfortune::PartialPages { size: 1 + below(3) as usize }, MOST_TIMES),
        // Up to five minutes off, to either side.
        15 if below(2) == 0 => (Misfortune::ClockSkew { seconds: i64::from(below(601)) - 300 }, 20),
        // Up to two lease durations: whoever leads has then lost the lead and does not know it.
        16 => (Misfortune::SlowTimers { time: seconds(1 + below(30)) }, 2),
        _ => (Misfortune::BackendDown, 20),
    };
    Fault { number, what, first: 1 + below(horizon), times: 1 + below(most) }
}
