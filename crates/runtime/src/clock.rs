//! Wall-clock time as a value that is handed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A wall clock. Durations and deadlines are measured with [`tokio::time::Instant`] (monotonic, pausable); this clock is
/// only for stamps that other programs read, such as a condition's `lastTransitionTime`.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system's clock.
    System,
    /// `start` plus the time the runtime's (possibly paused) monotonic clock has moved since `since`.
    Anchored { start: Timestamp, since: Instant },
    /// Another clock, put forward or back by somebody.
    Shifted { base: Box<Self>, by: Shift },
}

/// By how much clocks are off; clones are the same shift, and it may change at any time, backwards too.
#[derive(Clone, Debug, Default)]
pub struct Shift(Arc<AtomicI64>);

impl Shift {
    /// Sets it, in whole milliseconds.
    pub fn set(&self, by: SignedDuration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(0);
        self.0.store(millis, Ordering::SeqCst);
    }

    /// By how much clocks are off now.
    pub fn get(&self) -> SignedDuration {
        SignedDuration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Clock {
    /// A clock that shows `start` now and advances with tokio's clock. Needs a running tokio runtime when time is paused.
    pub fn anchored(start: Timestamp) -> Self {
        Self::Anchored { start, since: Instant::now() }
    }

    /// This clock, off by `by`.
    #[must_use]
    pub fn shifted(&self, by: &Shift) -> Self {
        Self::Shifted { base: Box::new(self.clone()), by: by.clone() }
    }

    /// The current wall-clock time.
    pub fn now(&self) -> Timestamp {
        match self {
            #[allow(clippy::disallowed_methods, reason = "this is the front door through which system time enters")]
            Self::System => Timestamp::now(),
            Self::Anchored { start, since } => {
                start.checked_add(since.elapsed()).expect("a run does not outlast the calendar")
            }
            Self::Shifted { base, by } => {
                base.now().checked_add(by.get()).expect("a shift does not outlast the calendar")
            }
        }
    }
}
