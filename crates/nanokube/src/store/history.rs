//! What happened to the objects of one resource, as far back as memory allows.
//!
//! The newest events are kept as they were written, ready for the watchers that are about to read them. Older ones wait for
//! a watcher that resumes or a list of an old version, and are kept as text.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::tree::Text;
use super::{Change, Event, Name, Revision, StoreError, Stored};

/// Events that are kept whole: watchers in this process are a few writes behind, those far away some dozens. Few in this
/// crate's own tests, whose histories are short and shall meet both forms.
const FRESH: usize = if cfg!(test) { 4 } else { 64 };
/// The same in bytes of text, for resources with large objects (definitions, endpoints of a thousand pods): their trees stay
/// within about a megabyte for each resource.
const FRESH_BYTES: usize = 96 * 1024;
/// Text of older events that any resource may keep: a thousand states of a pod, so that a roll-out of hundreds can be resumed. A
/// resource with more objects keeps more, see [`History::push`].
const TEXT_BYTES: usize = if cfg!(test) { 16 * 1024 } else { 16 * 1024 * 1024 };

/// The history of one resource.
#[derive(Default)]
pub(super) struct History {
    text: VecDeque<Told>,
    fresh: VecDeque<Arc<Event>>,
    text_bytes: usize,
    fresh_bytes: usize,
    /// Events up to and including this revision are gone.
    compacted: Revision,
}

/// An event as text.
struct Told {
    revision: Revision,
    change: Change,
    name: Name,
    object: Text,
    previous: Option<(Text, Revision)>,
}

impl Told {
    fn of(event: &Event) -> Self {
        Self {
            revision: event.revision,
            change: event.change,
            name: event.name.clone(),
            object: Text::of(&event.object),
            previous: event.previous.as_deref().map(|stored| (Text::of(stored), stored.revision)),
        }
    }

    fn read(&self) -> Arc<Event> {
        Arc::new(Event {
            revision: self.revision,
            change: self.change,
            name: self.name.clone(),
            object: Stored::cold(self.object.clone(), self.revision),
            previous: self.previous.clone().map(|(text, revision)| Stored::cold(text, revision)),
            frame: OnceLock::new(),
        })
    }
}

impl History {
    /// Adds an event and forgets the oldest beyond `limit` events, and beyond [`TEXT_BYTES`] or `bytes` of text, whichever is more. Gives
    /// the states that are text from now on.
    pub(super) fn push(&mut self, event: Event, limit: usize, bytes: usize) -> Vec<(Name, Revision)> {
        let mut cooled = Vec::new();
        self.fresh_bytes += event.object.tail().len();
        self.fresh.push_back(Arc::new(event));
        while self.fresh.len() > FRESH || (self.fresh_bytes > FRESH_BYTES && self.fresh.len() > 1) {
            cooled.extend(self.cool_oldest());
        }
        while self.text_bytes > TEXT_BYTES.max(bytes) || self.text.len() + self.fresh.len() > limit {
            self.forget();
        }
        cooled
    }

    /// Keeps as text what happened before a revision. Gives the states that are text from now on.
    pub(super) fn cool(&mut self, before: Revision) -> Vec<(Name, Revision)> {
        let mut cooled = Vec::new();
        while self.fresh.front().is_some_and(|oldest| oldest.revision < before) {
            cooled.extend(self.cool_oldest());
        }
        cooled
    }

    fn cool_oldest(&mut self) -> Option<(Name, Revision)> {
        let told = Told::of(&*self.fresh.pop_front()?);
        self.fresh_bytes -= told.object.tail.len();
        self.text_bytes += told.object.tail.len();
        let cooled = (told.name.clone(), told.revision);
        self.text.push_back(told);
        Some(cooled)
    }

    fn forget(&mut self) {
        if let Some(gone) = self.text.pop_front() {
            self.text_bytes -= gone.object.tail.len();
            self.compacted = gone.revision;
        } else if let Some(gone) = self.fresh.pop_front() {
            self.fresh_bytes -= gone.object.tail().len();
            self.compacted = gone.revision;
        }
    }

    /// Forgets events up to a revision.
    pub(super) fn compact(&mut self, revision: Revision) {
        while let Some(oldest) =
            self.text.front().map(|told| told.revision).or_else(|| self.fresh.front().map(|event| event.revision))
            && oldest <= revision
        {
            self.forget();
        }
        self.compacted = self.compacted.max(revision);
    }

    /// Whether everything after a revision is still known.
    ///
    /// # Errors
    /// [`StoreError::Compacted`].
    pub(super) fn check(&self, after: Revision) -> Result<(), StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted { asked: after, oldest: self.compacted });
        }
        Ok(())
    }

    /// The events after a revision that are still known, oldest first.
    pub(super) fn known_after(&self, after: Revision) -> Vec<Arc<Event>> {
        self.after(after.max(self.compacted), usize::MAX).unwrap_or_default()
    }

    /// The events after a revision, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`].
    pub(super) fn after(&self, after: Revision, limit: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        self.check(after)?;
        // Nearly everybody who asks is up to date.
        let newest =
            self.fresh.back().map(|event| event.revision).or_else(|| self.text.back().map(|told| told.revision));
        if newest.is_none_or(|newest| newest <= after) {
            return Ok(Vec::new());
        }
        let old = self.text.partition_point(|told| told.revision <= after);
        let new = self.fresh.partition_point(|event| event.revision <= after);
        let old = self.text.range(old..).map(Told::read);
        Ok(old.chain(self.fresh.range(new..).cloned()).take(limit).collect())
    }
}
