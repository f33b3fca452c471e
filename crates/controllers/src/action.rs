//! What a decision is: a list of actions, and when to look again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde_json::{Map, Value, json};

use crate::cache::{Change, Name};
use crate::kinds::{Cached, Kind, Object, Objects};

/// One request to the API, or an event for users.
#[derive(Clone, Debug)]
pub enum Action {
    /// Creates an object; on success `note` is recorded, with `{name}` in its message as the created object's name.
    Create { object: Object, note: Option<Note> },
    /// A JSON merge patch. It carries the resource version it was decided on, so a stale decision is refused. On success
    /// `note` is recorded.
    Patch { kind: Kind, name: Name, subresource: Option<&'static str>, patch: Value, note: Option<Note> },
    /// Deletes exactly this incarnation.
    Delete { kind: Kind, name: Name, uid: String, grace: Option<u32>, note: Option<Note> },
    /// Binds a pod to a node.
    Bind { pod: Name, uid: String, node: String, note: Note },
    /// An event for users.
    Note(Note),
}

/// An event for users, as `kubectl describe` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub regarding: ObjectReference,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// Which component speaks.
    pub component: &'static str,
    /// The node it speaks from, if it does.
    pub host: Option<String>,
}

impl Note {
    /// A normal event about an object.
    pub fn normal<K: Resource<DynamicType = ()>>(
        about: &K,
        component: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            regarding: about.object_ref(&()),
            warning: false,
            reason,
            message: message.into(),
            component,
            host: None,
        }
    }

    /// A warning about an object.
    pub fn warning<K: Resource<DynamicType = ()>>(
        about: &K,
        component: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { warning: true, ..Self::normal(about, component, reason, message) }
    }
}

/// What is to be done now, and when to look again although nothing changes.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    pub again: Option<Duration>,
}

impl Decision {
    /// Nothing to do.
    pub fn none() -> Self {
        Self::default()
    }

    /// Looks again after `pause` at the latest.
    pub fn look_again(&mut self, pause: Duration) {
        self.again = Some(self.again.map_or(pause, |known| known.min(pause)));
    }
}

/// What a decision sees.
pub struct View<'a> {
    pub objects: &'a Objects,
    pub now: Timestamp,
    /// Why the last actions for this key failed, if they did.
    pub failure: Option<&'a str>,
}

/// A controller: which keys a change touches, and what to do about a key.
pub trait Controller: Send + Sync + 'static {
    /// The user it acts as.
    fn user(&self) -> &'static str;
    /// Kinds whose first list must have arrived before it decides.
    fn needs(&self) -> &'static [Kind];
    /// The keys to look at after a change.
    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name>;
    /// How long it takes to notice a change of this key.
    fn lag(&self, _key: &Name) -> Duration {
        Duration::ZERO
    }
    /// Whether it makes objects of others from a template; such controllers may begin later than the rest.
    fn is_workload(&self) -> bool {
        false
    }
    /// What to do about a key. Pure: same view, same decision.
    fn decide(&self, view: &View<'_>, key: &Name) -> Decision;
}

/// The merge patch (RFC 7386) that turns `from` into `to`; `None` when they are equal.
pub fn merge_diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return Some(to.clone());
    };
    let mut patch = Map::new();
    for (key, value) in to {
        match from.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(before) => {
                if let Some(change) = merge_diff(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// The action that turns an object's status into that of `new`; `None` when it is that already.
pub fn status_change<K: Cached>(old: &K, new: &K) -> Option<Action> {
    change(old, new, Some("status"), "status")
}

/// The action that turns an object's spec into that of `new`.
pub fn spec_change<K: Cached>(old: &K, new: &K) -> Option<Action> {
    change(old, new, None, "spec")
}

fn change<K: Cached>(old: &K, new: &K, subresource: Option<&'static str>, field: &str) -> Option<Action> {
    let part = |object: &K| {
        serde_json::to_value(object)
            .ok()
            .and_then(|mut value| value.get_mut(field).map(Value::take))
            .unwrap_or_else(|| json!({}))
    };
    let patch = merge_diff(&part(old), &part(new))?;
    let mut body = Map::new();
    body.insert(field.to_owned(), patch);
    Some(patch_of(old, subresource, Value::Object(body)))
}

/// A merge patch of an object, refused when the object has changed meanwhile.
pub fn patch_of<K: Cached>(object: &K, subresource: Option<&'static str>, mut patch: Value) -> Action {
    if let Some(version) = &object.meta().resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    Action::Patch { kind: K::KIND, name: Name::of(object), subresource, patch, note: None }
}

/// The deletion of exactly this object.
pub fn delete_of<K: Cached>(object: &K, note: Option<Note>) -> Action {
    Action::Delete {
        kind: K::KIND,
        name: Name::of(object),
        uid: object.meta().uid.clone().unwrap_or_default(),
        grace: None,
        note,
    }
}
