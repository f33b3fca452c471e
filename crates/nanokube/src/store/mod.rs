//! The multi-version store: one revision counter, objects with compare-and-swap, a bounded history per resource.
//!
//! Watchers are cursors over the history, woken in the order in which they began to wait (a channel would wake them in an
//! order drawn by chance, and no run would repeat itself): nothing is queued per watcher, so no event can be lost on the
//! way; a watcher that falls behind the history is told so ([`StoreError::Compacted`]) and lists again.
//! The store never looks into an object except to write `metadata.resourceVersion`; it has no clock and does no IO.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Notify;

mod cursor;
mod history;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use cursor::Cursor;
use history::History;
use tree::Text;
pub(crate) use tree::Tree;

/// A position in the history of the whole store.
pub(crate) type Revision = u64;

/// Where objects of one resource live: `plural.group`, or the bare plural in the core group. Versions share it.
pub(crate) type ResourceKey = Arc<str>;

/// An object's place below its resource. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub namespace: String,
    pub name: String,
}

impl Name {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One state of one object, immutable and shared by readers, history and watchers.
#[derive(Debug)]
pub(crate) struct Stored {
    pub value: Tree,
    pub revision: Revision,
    tail: OnceLock<Bytes>,
}

impl Stored {
    fn new(mut value: Value, revision: Revision) -> Arc<Self> {
        set_revision(&mut value, revision);
        Arc::new(Self { value: value.into(), revision, tail: OnceLock::new() })
    }

    /// A state whose tree is made when somebody looks.
    fn cold(text: Text, revision: Revision) -> Arc<Self> {
        let tail = OnceLock::from(text.tail.clone());
        Arc::new(Self { value: text.into(), revision, tail })
    }

    /// What a reader gets: a tree that he causes to be made goes with him, not with the store, unless that keeps trees.
    fn shown(self: &Arc<Self>, keeps_trees: bool) -> Arc<Self> {
        match &self.value.text {
            Some(text) if !keeps_trees => Self::cold(text.clone(), self.revision),
            _ => self.clone(),
        }
    }

    /// A state that is shown but not kept: the result of a dry run, or the last sight of a deleted object.
    pub(crate) fn unstored(value: Value) -> Self {
        Self { value: value.into(), revision: 0, tail: OnceLock::new() }
    }

    /// The object as JSON without its opening brace, `apiVersion` and `kind`; serialised once for all who ask.
    ///
    /// What an answer puts in front differs (list items have neither, other versions other values), the rest is shared.
    pub(crate) fn tail(&self) -> &Bytes {
        self.tail.get_or_init(|| tail_of(&self.value))
    }
}

/// Serialises `value` without opening brace, `apiVersion` and `kind`.
pub(crate) fn tail_of(value: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    let mut first = true;
    if let Some(map) = value.as_object() {
        for (key, field) in map.iter().filter(|(key, _)| *key != "apiVersion" && *key != "kind") {
            if !first {
                out.push(b',');
            }
            first = false;
            serde_json::to_writer(&mut out, key).expect("a string serialises");
            out.push(b':');
            serde_json::to_writer(&mut out, field).expect("a JSON value serialises");
        }
    }
    out.push(b'}');
    Bytes::from(out)
}

fn set_revision(value: &mut Value, revision: Revision) {
    if let Some(map) = value.as_object_mut() {
        let metadata = map.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One entry of the history.
#[derive(Debug)]
pub(crate) struct Event {
    pub revision: Revision,
    pub change: Change,
    pub name: Name,
    /// The state after the change; for a deletion the last state, carrying the deletion's revision.
    pub object: Arc<Stored>,
    /// The state before the change.
    pub previous: Option<Arc<Stored>>,
    frame: OnceLock<Bytes>,
}

impl Event {
    /// The event as the watch frame that most watchers see, rendered once by the first of them.
    pub(crate) fn frame_or_init(&self, render: impl FnOnce() -> Bytes) -> Bytes {
        self.frame.get_or_init(render).clone()
    }

    /// Two changes of one object as one; `None` when it came and went between them.
    pub(crate) fn over(first: &Self, last: &Self) -> Option<Arc<Self>> {
        let change = match (&first.previous, last.change) {
            (None, Change::Deleted) => return None,
            (None, _) => Change::Added,
            (Some(_), Change::Deleted) => Change::Deleted,
            (Some(_), _) => Change::Modified,
        };
        Some(Arc::new(Self {
            revision: last.revision,
            change,
            name: last.name.clone(),
            object: last.object.clone(),
            previous: first.previous.clone(),
            frame: OnceLock::new(),
        }))
    }
}

/// Why the store refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the object exists already")]
    Exists,
    #[error("there is no such object")]
    NotFound,
    #[error("the object changed: expected revision {expected}, found {found}")]
    Conflict { expected: Revision, found: Revision },
    #[error("revision {asked} is compacted, the oldest that is left is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is in the future, the store is at {current}")]
    Future { asked: Revision, current: Revision },
}

/// A consistent list. Names come along, so that nobody reads an object that is kept as text only to learn its name.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub revision: Revision,
    /// In order of namespace and name.
    pub objects: Vec<(Name, Arc<Stored>)>,
}

struct Shelf {
    objects: BTreeMap<Name, Arc<Stored>>,
    /// The objects as text, in bytes.
    bytes: usize,
    history: History,
    changed: Revision,
    wake: Arc<Notify>,
}

impl Shelf {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), bytes: 0, history: History::default(), changed: 0, wake: Arc::default() }
    }

    fn record(&mut self, event: Event, limit: usize, keeps_trees: bool) {
        let revision = event.revision;
        self.changed = revision;
        if event.change != Change::Deleted {
            self.bytes += event.object.tail().len();
        }
        self.bytes = self.bytes.saturating_sub(event.previous.as_ref().map_or(0, |previous| previous.tail().len()));
        let cooled = self.history.push(event, limit, self.bytes * ROUNDS);
        if !keeps_trees {
            self.keep_as_text(cooled);
        }
        self.wake.notify_waiters();
    }

    /// What the history keeps as text from now on, the store does, too.
    fn keep_as_text(&mut self, cooled: Vec<(Name, Revision)>) {
        for (name, revision) in cooled {
            if let Some(object) = self.objects.get_mut(&name)
                && object.revision == revision
                && object.value.text.is_none()
            {
                *object = Stored::cold(Text::of(object), revision);
            }
        }
    }
}

/// What happened this many writes ago, of whatever resource, is kept as text: whoever watches has seen it, or is far behind.
/// Few in this crate's own tests, as in the history.
const SEEN: Revision = if cfg!(test) { 8 } else { 64 };

/// How often all objects of a resource may change before the first of these changes is forgotten, see [`history`]. Whoever reads
/// thousands of objects page by page does so while they change, and has to find his place afterwards.
const ROUNDS: usize = 2;

/// A server has some seventy resources: each is looked after within twenty writes.
const COOLED_AT_ONCE: usize = 4;

struct State {
    revision: Revision,
    shelves: BTreeMap<ResourceKey, Shelf>,
    /// The resource that was looked after last, see [`State::cool`].
    cooled: Option<ResourceKey>,
    /// See [`Store::keep_trees`].
    keeps_trees: bool,
}

impl State {
    /// Resources that nobody writes any more would keep their last events whole for ever: with each write of any resource
    /// the next few in order are looked after.
    fn cool(&mut self) {
        if self.keeps_trees {
            return;
        }
        let before = self.revision.saturating_sub(SEEN);
        let after = self.cooled.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (resource, shelf) in self.shelves.range_mut((after, Bound::Unbounded)).take(COOLED_AT_ONCE) {
            let cooled = shelf.history.cool(before);
            shelf.keep_as_text(cooled);
            self.cooled = Some(resource.clone());
        }
    }

    fn record(&mut self, resource: &ResourceKey, event: Event, limit: usize) {
        let keeps_trees = self.keeps_trees;
        self.shelf(resource).record(event, limit, keeps_trees);
        self.cool();
    }

    fn shelf(&mut self, resource: &ResourceKey) -> &mut Shelf {
        if !self.shelves.contains_key(resource) {
            self.shelves.insert(resource.clone(), Shelf::new());
        }
        self.shelves.get_mut(resource).expect("inserted above")
    }
}

/// The store. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub(crate) struct Store {
    state: Arc<Mutex<State>>,
    history: usize,
}

impl Store {
    /// An empty store that keeps `history` events of each resource.
    pub(crate) fn new(history: usize) -> Self {
        let state = State { revision: 1, shelves: BTreeMap::new(), cooled: None, keeps_trees: false };
        Self { state: Arc::new(Mutex::new(state)), history: history.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves the maps consistent: every method changes them in its last steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on objects stay trees, however long nobody has looked at them.
    pub(crate) fn keep_trees(&self) {
        self.lock().keeps_trees = true;
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> Revision {
        self.lock().revision
    }

    pub(crate) fn get(&self, resource: &ResourceKey, name: &Name) -> Option<Arc<Stored>> {
        let state = self.lock();
        Some(state.shelves.get(resource)?.objects.get(name)?.shown(state.keeps_trees))
    }

    /// As [`Store::get`], for what this server itself looks at with every other request: it is read once, not each time.
    pub(crate) fn get_kept(&self, resource: &ResourceKey, name: &Name) -> Option<Arc<Stored>> {
        self.lock().shelves.get(resource)?.objects.get(name).cloned()
    }

    /// As [`Store::list`] of all namespaces, for what this server itself looks at with every other request.
    pub(crate) fn list_kept(&self, resource: &ResourceKey) -> Vec<Arc<Stored>> {
        self.lock().shelves.get(resource).map(|shelf| shelf.objects.values().cloned().collect()).unwrap_or_default()
    }

    /// The revision of the last change of a resource, 0 when there was none.
    pub(crate) fn last_change(&self, resource: &ResourceKey) -> Revision {
        self.lock().shelves.get(resource).map_or(0, |shelf| shelf.changed)
    }

    /// Every object there is, in order of resource and name, and the revision of the last write.
    pub(crate) fn everything(&self) -> (Revision, Vec<Arc<Stored>>) {
        let state = self.lock();
        let objects = state.shelves.values().flat_map(|shelf| shelf.objects.values());
        (state.revision, objects.map(|object| object.shown(state.keeps_trees)).collect())
    }

    /// How many objects of a resource there are, in one namespace or (empty) in all.
    pub(crate) fn count(&self, resource: &ResourceKey, namespace: &str) -> usize {
        let state = self.lock();
        let Some(shelf) = state.shelves.get(resource) else { return 0 };
        if namespace.is_empty() { shelf.objects.len() } else { range(&shelf.objects, namespace).count() }
    }

    /// The current objects of a resource, in one namespace or (empty) in all.
    pub(crate) fn list(&self, resource: &ResourceKey, namespace: &str) -> Snapshot {
        let state = self.lock();
        let shown = |(name, object): (&Name, &Arc<Stored>)| (name.clone(), object.shown(state.keeps_trees));
        let objects = match state.shelves.get(resource) {
            None => Vec::new(),
            Some(shelf) if namespace.is_empty() => shelf.objects.iter().map(shown).collect(),
            Some(shelf) => range(&shelf.objects, namespace).map(shown).collect(),
        };
        Snapshot { revision: state.revision, objects }
    }

    /// As [`Store::list`], for what this server itself looks at.
    pub(crate) fn objects(&self, resource: &ResourceKey, namespace: &str) -> Vec<Arc<Stored>> {
        let state = self.lock();
        let shown = |object: &Arc<Stored>| object.shown(state.keeps_trees);
        match state.shelves.get(resource) {
            None => Vec::new(),
            Some(shelf) if namespace.is_empty() => shelf.objects.values().map(shown).collect(),
            Some(shelf) => range(&shelf.objects, namespace).map(|(_, object)| shown(object)).collect(),
        }
    }

    /// The objects of a resource as they were at `revision`, those after `start` if one is given: today's, with the younger history
    /// undone.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history no longer reaches back, [`StoreError::Future`] when it is not there yet.
    pub(crate) fn list_at(
        &self,
        resource: &ResourceKey,
        namespace: &str,
        revision: Revision,
        start: Option<&Name>,
    ) -> Result<Snapshot, StoreError> {
        let state = self.lock();
        if revision > state.revision {
            return Err(StoreError::Future { asked: revision, current: state.revision });
        }
        let Some(shelf) = state.shelves.get(resource) else { return Ok(Snapshot { revision, objects: Vec::new() }) };
        let mut events = shelf.history.after(revision, usize::MAX)?;
        let start = start.map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = |name: &Name| {
            (namespace.is_empty() || name.namespace == namespace) && (start, Bound::Unbounded).contains(&name)
        };
        let now = shelf.objects.range((start, Bound::Unbounded)).filter(|(name, _)| wanted(name));
        let mut objects: BTreeMap<Name, Arc<Stored>> =
            now.map(|(name, object)| (name.clone(), object.clone())).collect();
        while let Some(event) = events.pop() {
            match &event.previous {
                _ if !wanted(&event.name) => None,
                Some(previous) => objects.insert(event.name.clone(), previous.clone()),
                None => objects.remove(&event.name),
            };
        }
        let objects = objects.into_iter().map(|(name, object)| (name, object.shown(state.keeps_trees))).collect();
        Ok(Snapshot { revision, objects })
    }

    /// Adds an object.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub(crate) fn create(&self, resource: &ResourceKey, name: &Name, value: Value) -> Result<Arc<Stored>, StoreError> {
        let mut state = self.lock();
        if state.shelf(resource).objects.contains_key(name) {
            return Err(StoreError::Exists);
        }
        state.revision += 1;
        let revision = state.revision;
        let stored = Stored::new(value, revision);
        state.shelf(resource).objects.insert(name.clone(), stored.clone());
        let event = Event {
            revision,
            change: Change::Added,
            name: name.clone(),
            object: stored.clone(),
            previous: None,
            frame: OnceLock::new(),
        };
        state.record(resource, event, self.history);
        Ok(stored)
    }

    /// Replaces an object if it is still at `expected`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`].
    pub(crate) fn update(
        &self,
        resource: &ResourceKey,
        name: &Name,
        expected: Revision,
        value: Value,
    ) -> Result<Arc<Stored>, StoreError> {
        let mut state = self.lock();
        let keeps_trees = state.keeps_trees;
        let previous = expect(state.shelf(resource), name, expected)?.shown(keeps_trees);
        state.revision += 1;
        let revision = state.revision;
        let stored = Stored::new(value, revision);
        state.shelf(resource).objects.insert(name.clone(), stored.clone());
        let event = Event {
            revision,
            change: Change::Modified,
            name: name.clone(),
            object: stored.clone(),
            previous: Some(previous),
            frame: OnceLock::new(),
        };
        state.record(resource, event, self.history);
        Ok(stored)
    }

    /// Removes an object if it is still at `expected`; `last` is its final state as watchers see it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`].
    pub(crate) fn delete(
        &self,
        resource: &ResourceKey,
        name: &Name,
        expected: Revision,
        last: Value,
    ) -> Result<Arc<Stored>, StoreError> {
        let mut state = self.lock();
        let keeps_trees = state.keeps_trees;
        let previous = expect(state.shelf(resource), name, expected)?.shown(keeps_trees);
        state.revision += 1;
        let revision = state.revision;
        let stored = Stored::new(last, revision);
        state.shelf(resource).objects.remove(name);
        let event = Event {
            revision,
            change: Change::Deleted,
            name: name.clone(),
            object: stored.clone(),
            previous: Some(previous),
            frame: OnceLock::new(),
        };
        state.record(resource, event, self.history);
        Ok(stored)
    }

    /// Every event after `revision` that is still in the history, by resource.
    pub(crate) fn all_events_after(&self, revision: Revision) -> Vec<(ResourceKey, Arc<Event>)> {
        let state = self.lock();
        let changed = state.shelves.iter().filter(|(_, shelf)| shelf.changed > revision);
        changed
            .flat_map(|(resource, shelf)| {
                let events = shelf.history.known_after(revision);
                events.into_iter().map(|event| (resource.clone(), event))
            })
            .collect()
    }

    /// A cursor that sees every change of the resource after `from`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Future`].
    pub(crate) fn watch(&self, resource: &ResourceKey, from: Revision) -> Result<Cursor, StoreError> {
        let mut state = self.lock();
        if from > state.revision {
            return Err(StoreError::Future { asked: from, current: state.revision });
        }
        let shelf = state.shelf(resource);
        shelf.history.check(from)?;
        let wake = shelf.wake.clone();
        Ok(Cursor::new(self.clone(), resource.clone(), from, wake))
    }

    /// The current objects and a cursor that continues exactly there.
    pub(crate) fn list_and_watch(&self, resource: &ResourceKey, namespace: &str) -> (Snapshot, Cursor) {
        let snapshot = self.list(resource, namespace);
        let mut state = self.lock();
        let wake = state.shelf(resource).wake.clone();
        drop(state);
        let cursor = Cursor::new(self.clone(), resource.clone(), snapshot.revision, wake);
        (snapshot, cursor)
    }

    /// Forgets the history of every resource up to `revision`, as etcd's compaction does.
    pub(crate) fn compact(&self, revision: Revision) {
        let mut state = self.lock();
        let revision = revision.min(state.revision);
        for shelf in state.shelves.values_mut() {
            shelf.history.compact(revision);
            // Watchers wake up and notice that they are behind.
            shelf.wake.notify_waiters();
        }
    }

    /// The events after `after`, at most `limit`, and the revision up to which the caller has then seen everything.
    fn events_after(
        &self,
        resource: &ResourceKey,
        after: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Revision), StoreError> {
        let state = self.lock();
        let Some(shelf) = state.shelves.get(resource) else { return Ok((Vec::new(), state.revision)) };
        let events = shelf.history.after(after, limit)?;
        let last = events.last().map_or(after, |event| event.revision);
        // Nothing of this resource has happened since its last change.
        let seen = if last >= shelf.changed { state.revision } else { last };
        Ok((events, seen))
    }
}

fn expect<'a>(shelf: &'a Shelf, name: &Name, expected: Revision) -> Result<&'a Arc<Stored>, StoreError> {
    let found = shelf.objects.get(name).ok_or(StoreError::NotFound)?;
    if found.revision != expected {
        return Err(StoreError::Conflict { expected, found: found.revision });
    }
    Ok(found)
}

fn range<'a>(
    objects: &'a BTreeMap<Name, Arc<Stored>>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a Name, &'a Arc<Stored>)> {
    objects.range(Name::new(namespace, "")..).take_while(move |(name, _)| name.namespace == namespace)
}
