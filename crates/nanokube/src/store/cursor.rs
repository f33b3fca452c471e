//! A watcher's position in the history.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Event, ResourceKey, Revision, Store, StoreError};

/// How many events a cursor takes at once: enough to amortise the lock, few enough that one watcher does not hold it long.
const BATCH: usize = 256;

/// Sees every event of a resource after a revision, in order, once.
pub(crate) struct Cursor {
    store: Store,
    resource: ResourceKey,
    seen: Revision,
    wake: Arc<Notify>,
}

impl Cursor {
    pub(super) fn new(store: Store, resource: ResourceKey, seen: Revision, wake: Arc<Notify>) -> Self {
        Self { store, resource, seen, wake }
    }

    /// Everything up to this revision has been handed out; a new cursor from here continues without gap or repetition.
    pub(crate) fn seen(&self) -> Revision {
        self.seen
    }

    /// The events that are there already, possibly none.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history was cut before this cursor read it.
    pub(crate) fn ready(&mut self) -> Result<Vec<Arc<Event>>, StoreError> {
        let (events, seen) = self.store.events_after(&self.resource, self.seen, BATCH)?;
        self.seen = seen;
        Ok(events)
    }

    /// Waits until there are events. Safe to drop at any time: what was not returned is returned by the next call.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history was cut before this cursor read it.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Event>>, StoreError> {
        let wake = self.wake.clone();
        loop {
            let mut woken = std::pin::pin!(wake.notified());
            // Enrolled before reading: a write between the two wakes the wait below.
            woken.as_mut().enable();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            woken.await;
        }
    }
}
