//! Wall-clock time as a value that is handed in.

use jiff::Timestamp;
use tokio::time::Instant;

/// A wall clock. Durations and deadlines are measured with [`tokio::time::Instant`] (monotonic, pausable); this clock is
/// only for stamps that other programs read, such as a condition's `lastTransitionTime`.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system's clock.
    System,
    /// `start` plus the time the runtime's (possibly paused) monotonic clock has moved since `since`.
    Anchored { start: Timestamp, since: Instant },
}

impl Clock {
    /// A clock that shows `start` now and advances with tokio's clock. Needs a running tokio runtime when time is paused.
    pub fn anchored(start: Timestamp) -> Self {
        Self::Anchored { start, since: Instant::now() }
    }

    /// The current wall-clock time.
    pub fn now(&self) -> Timestamp {
        match self {
            #[allow(clippy::disallowed_methods, reason = "this is the front door through which system time enters")]
            Self::System => Timestamp::now(),
            Self::Anchored { start, since } => {
                start.checked_add(since.elapsed()).expect("a run does not outlast the calendar")
            }
        }
    }
}
