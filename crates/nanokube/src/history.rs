//! What was committed, seen from outside of the API: for whoever checks a run, never for clients.

use std::sync::Arc;

use serde_json::Value;

use crate::Nanokube;
use crate::registry::resource_key;
use crate::store::{Change, Event, Name, Stored};

/// One commit: an object came to be, changed, or went.
#[derive(Clone, Debug)]
pub struct Transition {
    /// `plural.group`, or the bare plural in the core group.
    pub resource: Arc<str>,
    event: Arc<Event>,
}

impl Transition {
    pub(crate) fn new(resource: Arc<str>, event: Arc<Event>) -> Self {
        Self { resource, event }
    }

    pub fn revision(&self) -> u64 {
        self.event.revision
    }

    /// Empty for objects of the cluster.
    pub fn namespace(&self) -> &str {
        &self.event.name.namespace
    }

    pub fn name(&self) -> &str {
        &self.event.name.name
    }

    /// The state before; none when the object came to be.
    pub fn before(&self) -> Option<&Value> {
        self.event.previous.as_deref().map(|stored| &*stored.value)
    }

    /// The state after; none when the object went.
    pub fn after(&self) -> Option<&Value> {
        (self.event.change != Change::Deleted).then(|| &*self.event.object.value)
    }
}

/// An object as it is stored.
#[derive(Clone, Debug)]
pub struct StoredObject(Arc<Stored>);

impl std::ops::Deref for StoredObject {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0.value
    }
}

impl Nanokube {
    /// Every commit after `revision` that the history still has, oldest first.
    pub fn transitions_after(&self, revision: u64) -> Vec<Transition> {
        let mut transitions: Vec<Transition> = self
            .core
            .store
            .all_events_after(revision)
            .into_iter()
            .map(|(resource, event)| Transition::new(resource, event))
            .collect();
        transitions.sort_by_key(Transition::revision);
        transitions
    }

    /// One object as it is now.
    pub fn stored(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<StoredObject> {
        self.core.store.get(&resource_key(group, plural), &Name::new(namespace, name)).map(StoredObject)
    }

    /// All objects of a resource as they are now, in order of namespace and name.
    pub fn stored_all(&self, group: &str, plural: &str) -> Vec<StoredObject> {
        self.core.store.objects(&resource_key(group, plural), "").into_iter().map(StoredObject).collect()
    }
}
