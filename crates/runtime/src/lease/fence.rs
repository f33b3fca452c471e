//! The question a writer asks before each write: may I still?

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::SAFETY_MARGIN;

/// Why a write must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeader {
    #[error("this process does not hold the lease")]
    Standby,
    #[error("the lease was not renewed in time: the right to write ended {late:?} ago")]
    Overdue {
        /// How long ago.
        late: Duration,
    },
    #[error("the lease was lost and won again: generation {wanted} was asked for, {held} is held")]
    Superseded { wanted: u64, held: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    generation: u64,
    /// `None`: without end.
    until: Option<Instant>,
}

/// Tells whether this process may write. It needs no running task to refuse: a process that was stopped and wakes up late
/// finds the fence closed by the clock alone.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Mutex<Option<Grant>>>);

impl Fence {
    /// A fence that lets nothing through until it is granted.
    pub(super) fn closed() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// A fence that always lets through, for a writer that has no rival: a test, a rehearsal, a one-shot job.
    pub fn open(generation: u64) -> Self {
        Self(Arc::new(Mutex::new(Some(Grant { generation, until: None }))))
    }

    /// The generation under which a write may be made now.
    ///
    /// # Errors
    /// The reason why none may.
    pub fn check(&self) -> Result<u64, NotLeader> {
        let grant = *self.lock();
        let Some(Grant { generation, until }) = grant else { return Err(NotLeader::Standby) };
        match until {
            Some(until) if Instant::now() >= until => Err(NotLeader::Overdue { late: until.elapsed() }),
            _ => Ok(generation),
        }
    }

    /// Like [`Self::check`], for work that was begun under `generation`.
    ///
    /// # Errors
    /// Also when the lease was lost and won again in between: what was decided then may be out of date.
    pub fn check_generation(&self, generation: u64) -> Result<(), NotLeader> {
        match self.check()? {
            held if held == generation => Ok(()),
            held => Err(NotLeader::Superseded { wanted: generation, held }),
        }
    }

    /// How long a request that is sent now may take; see [`SAFETY_MARGIN`].
    pub fn request_timeout(&self) -> Duration {
        SAFETY_MARGIN
    }

    pub(super) fn grant(&self, generation: u64, until: Instant) {
        *self.lock() = Some(Grant { generation, until: Some(until) });
    }

    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
