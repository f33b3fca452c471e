//! Who owns which field: `managedFields`, server-side apply and the bookkeeping of every other write.
//!
//! The server calls [`apply`] or [`record_update`] with objects of one version, after decoding and defaulting and
//! before admission, and before it fills in what it generates itself (addresses, controller labels): those have no
//! owner. What a request may not touch (the status on the main resource, everything else on the status subresource) the
//! server takes out of the request before it comes here.

mod entries;
mod set;
mod walk;

use std::fmt::Write as _;

use serde_json::{Map, Value};

use entries::{Entries, Id};
pub use entries::{EntryError, Operation, equal_but_for_times, metadata_problem};
pub use set::{Set, SetError};

use crate::schema::Schema;

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The field manager's name.
    pub name: String,
    /// The version of the object in the request.
    pub api_version: String,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: String,
    /// Now, RFC 3339 with seconds. Writes through `scale` carry none.
    pub time: Option<String>,
}

/// One field that another manager owns with a different value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager.
    pub manager: String,
    pub operation: Operation,
    /// The version the other manager wrote.
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    /// `.spec.containers[name="x"].image`
    pub field: String,
}

impl Conflict {
    /// The message of the status cause of this conflict.
    pub fn message(&self) -> String {
        let mut out = format!("conflict with {:?}", self.manager);
        if !self.subresource.is_empty() {
            let _ = write!(out, " with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            let _ = write!(out, " using {}", self.api_version);
        }
        out
    }
}

/// Why an apply is refused.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied configuration lists owners itself.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSet,
    #[error("the stored managedFields cannot be read: {0}")]
    Stored(#[from] EntryError),
    /// Two items of a list have the same name; ownership of either would be a guess.
    #[error("{0}")]
    Duplicate(crate::field::FieldError),
}

fn conflict_message(all: &[Conflict]) -> String {
    let mut by_manager: Vec<(String, Vec<&str>)> = Vec::new();
    for c in all {
        let head = c.message();
        match by_manager.iter_mut().find(|(h, _)| *h == head) {
            Some((_, fields)) => fields.push(&c.field),
            None => by_manager.push((head, vec![&c.field])),
        }
    }
    let count = if all.len() == 1 { "1 conflict".to_owned() } else { format!("{} conflicts", all.len()) };
    if let [(head, fields)] = by_manager.as_slice()
        && let [field] = fields.as_slice()
    {
        return format!("Apply failed with {count}: {head}: {field}");
    }
    let mut lines = Vec::new();
    for (head, fields) in by_manager {
        lines.push(format!("{}:", head.replacen("conflict", "conflicts", 1)));
        lines.extend(fields.iter().map(|field| format!("- {field}")));
    }
    format!("Apply failed with {count}: {}", lines.join("\n"))
}

/// Server-side apply: `config` is everything this manager wants to say about the object. The result is the object to
/// store, with `managedFields`; it equals `live` when nothing changes, so that the server can skip the write.
///
/// # Errors
/// Conflicts, unless `force`; a config that names owners itself; stored owners that cannot be read.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    manager: &Manager,
    force: bool,
) -> Result<Value, ApplyError> {
    if config.pointer("/metadata/managedFields").is_some_and(|v| !v.is_null()) {
        return Err(ApplyError::ManagedFieldsSet);
    }
    if let Some(e) = schema.duplicate_names(config) {
        return Err(ApplyError::Duplicate(e));
    }
    let config = &without_zero_time(config);
    let mut entries = live.map_or(Ok(Entries::default()), Entries::read)?;
    let mut base = match live {
        Some(live) => live.clone(),
        None => schema.empty_object(config),
    };
    remove_entries(&mut base);
    if live.is_some() && entries.is_empty() {
        // Nobody knows who wrote the object: whoever it was must not be overwritten silently.
        let mut theirs = walk::compare(schema, &schema.empty_object(&base), &base).added;
        strip(&mut theirs);
        let unknown = Manager { name: BEFORE_FIRST_APPLY.into(), subresource: String::new(), ..manager.clone() };
        entries.set(Id::update(&unknown), &unknown, theirs, true);
    }
    let id = Id::apply(manager);
    let last = entries.fields(&id).cloned().unwrap_or_default();
    let mut own = walk::paths(schema, config);
    strip(&mut own);

    let mut merged = walk::merge(schema, &base, config);
    let mut keep = own.clone();
    for (_, fields) in entries.others(&id) {
        keep.union(fields);
    }
    walk::take_out(schema, &mut merged, &last, &keep);

    let change = walk::compare(schema, &base, &merged);
    let mut taken = change.added.clone();
    taken.union(&change.modified);
    let conflicts = entries.conflicts(&id, &taken);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    entries.release(Some(&id), &taken);
    entries.release(Some(&id), &change.removed);
    let touched = !change.is_none() || own != last;
    entries.set(id, manager, own, touched);
    entries.write(&mut merged);
    Ok(merged)
}

/// The owner of everything in an object whose owners are unknown when it is first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Generated manifests carry `creationTimestamp: null`; it says nothing.
fn without_zero_time(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(meta) = config.get_mut("metadata").and_then(Value::as_object_mut)
        && meta.get("creationTimestamp").is_some_and(Value::is_null)
    {
        meta.remove("creationTimestamp");
    }
    config
}

/// Records a write that is no apply: the manager takes over every field it added or changed. `new` is the object as the
/// request leaves it; its own `managedFields` are honoured as the API promises (absent or unreadable: those of `old`
/// stay; one empty entry: all ownership is dropped). An unchanged write leaves every owner and time alone.
pub fn record_update(schema: &Schema, old: Option<&Value>, new: &mut Value, manager: &Manager) {
    let mut entries = Entries::of_request(old, new, manager);
    remove_entries(new);
    let mut base = match old {
        Some(old) => old.clone(),
        None => schema.empty_object(new),
    };
    remove_entries(&mut base);
    let change = walk::compare(schema, &base, new);
    let mut taken = change.added.clone();
    taken.union(&change.modified);
    strip(&mut taken);
    if old.is_none() && schema.properties.get("status").is_some_and(|s| s.always_present) {
        // A new object's status is the server's, whatever the request says.
        taken.cut(&["f:status"]);
    }
    let id = Id::update(manager);
    entries.release(None, &change.removed);
    entries.release(Some(&id), &taken);
    if !taken.is_empty() {
        let mut own = entries.fields(&id).cloned().unwrap_or_default();
        own.union(&taken);
        entries.set(id, manager, own, true);
    }
    entries.write(new);
}

/// Takes out the fields nobody owns: the object's identity and what only the server writes.
pub fn strip(set: &mut Set) {
    for path in [&["f:apiVersion"][..], &["f:kind"][..]] {
        set.cut(path);
    }
    if let Some(meta) = set.children.get_mut("f:metadata") {
        meta.member = false;
    }
    for name in [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:clusterName",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ] {
        set.cut(&["f:metadata", name]);
    }
    if set.children.get("f:metadata").is_some_and(Set::is_empty) {
        set.children.remove("f:metadata");
    }
}

fn remove_entries(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

impl Schema {
    /// What an object of this schema is before anything is written: nothing, or for built-in kinds the objects that are
    /// always there.
    fn empty_object(&self, like: &Value) -> Value {
        let mut empty = self.zero();
        let map = match &mut empty {
            Value::Object(map) => map,
            other => {
                *other = Value::Object(Map::new());
                other.as_object_mut().expect("just made")
            }
        };
        for name in ["apiVersion", "kind"] {
            if let Some(v) = like.get(name) {
                map.insert(name.into(), v.clone());
            }
        }
        empty
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
