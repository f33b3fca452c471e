//! The list `metadata.managedFields`: reading, writing, order.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::{Set, SetError};
use super::{Conflict, Manager};

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// An entry of `managedFields` that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EntryError {
    #[error("metadata.managedFields must be a list of objects")]
    NotAList,
    #[error("metadata.managedFields[{0}].operation must be Apply or Update")]
    Operation(usize),
    #[error("metadata.managedFields[{0}].fieldsType must be FieldsV1")]
    FieldsType(usize),
    #[error("metadata.managedFields[{0}].fieldsV1: {1}")]
    Fields(usize, SetError),
}

/// What makes an entry. Apply entries of one manager differ by subresource only: applying with a newer version replaces
/// what was applied with the older one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    operation: Operation,
    manager: String,
    subresource: String,
    /// Of updates; nothing for Apply, see above.
    version: Option<String>,
}

impl Id {
    fn new(operation: Operation, manager: &str, subresource: &str, version: &str) -> Self {
        let version = (operation == Operation::Update).then(|| version.to_owned());
        Self { operation, manager: manager.to_owned(), subresource: subresource.to_owned(), version }
    }

    pub(super) fn apply(m: &Manager) -> Self {
        Self::new(Operation::Apply, &m.name, &m.subresource, &m.api_version)
    }

    pub(super) fn update(m: &Manager) -> Self {
        Self::new(Operation::Update, &m.name, &m.subresource, &m.api_version)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    api_version: String,
    time: Option<String>,
    fields: Set,
}

/// All owners of one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries(BTreeMap<Id, Entry>);

impl Entries {
    /// The owners an object carries.
    pub(super) fn read(object: &Value) -> Result<Self, EntryError> {
        match object.pointer("/metadata/managedFields") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(list) => Self::parse(list),
        }
    }

    fn parse(list: &Value) -> Result<Self, EntryError> {
        let mut all = BTreeMap::new();
        for (i, entry) in list.as_array().ok_or(EntryError::NotAList)?.iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(EntryError::Operation(i)),
            };
            if text("fieldsType") != "FieldsV1" {
                return Err(EntryError::FieldsType(i));
            }
            let none = json!({});
            let fields = entry.get("fieldsV1").filter(|v| !v.is_null()).unwrap_or(&none);
            let fields = Set::from_fields_v1(fields).map_err(|e| EntryError::Fields(i, e))?;
            let api_version = text("apiVersion");
            let id = Id::new(operation, &text("manager"), &text("subresource"), &api_version);
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            all.insert(id, Entry { api_version, time, fields });
        }
        Ok(Self(all))
    }

    /// The owners a write starts from, see [`super::record_update`].
    pub(super) fn of_request(old: Option<&Value>, new: &Value, manager: &Manager) -> Self {
        let stored = || old.and_then(|o| Self::read(o).ok()).unwrap_or_default();
        if !manager.subresource.is_empty() {
            return stored();
        }
        let Some(list) = new.pointer("/metadata/managedFields") else { return stored() };
        if is_reset(list) {
            return Self::default();
        }
        match Self::parse(list) {
            Ok(asked) if !asked.0.is_empty() => asked,
            _ => stored(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn fields(&self, id: &Id) -> Option<&Set> {
        self.0.get(id).map(|e| &e.fields)
    }

    pub(super) fn others<'a>(&'a self, id: &'a Id) -> impl Iterator<Item = (&'a Id, &'a Set)> {
        self.0.iter().filter(move |(i, _)| *i != id).map(|(i, e)| (i, &e.fields))
    }

    /// Takes the fields away from everybody, or from everybody but one.
    pub(super) fn release(&mut self, but: Option<&Id>, fields: &Set) {
        if fields.is_empty() {
            return;
        }
        for (_, e) in self.0.iter_mut().filter(|(i, _)| but != Some(i)) {
            e.fields = e.fields.minus(fields);
        }
    }

    /// Fields among `taken` that others own.
    pub(super) fn conflicts(&self, id: &Id, taken: &Set) -> Vec<Conflict> {
        let mut out = Vec::new();
        for (other, e) in self.0.iter().filter(|(i, _)| *i != id) {
            for field in e.fields.and(taken).paths() {
                out.push(Conflict {
                    manager: other.manager.clone(),
                    operation: other.operation,
                    api_version: e.api_version.clone(),
                    subresource: other.subresource.clone(),
                    time: e.time.clone(),
                    field,
                });
            }
        }
        out
    }

    /// Writes an entry; without a new time the one it had stays.
    pub(super) fn set(&mut self, id: Id, m: &Manager, fields: Set, touched: bool) {
        let time = if touched { m.time.clone() } else { self.0.get(&id).and_then(|e| e.time.clone()) };
        self.0.insert(id, Entry { api_version: m.api_version.clone(), time, fields });
    }

    /// Puts the entries into an object, in the order the API keeps: applied before updated, then by time and name.
    pub(super) fn write(self, object: &mut Value) {
        let mut list: Vec<(Id, Entry)> = self.0.into_iter().filter(|(_, e)| !e.fields.is_empty()).collect();
        list.sort_by(|(a, x), (b, y)| {
            (a.operation, &x.time, &a.manager, &x.api_version, &a.subresource).cmp(&(
                b.operation,
                &y.time,
                &b.manager,
                &y.api_version,
                &b.subresource,
            ))
        });
        let Some(root) = object.as_object_mut() else { return };
        let meta = root.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Some(meta) = meta.as_object_mut() else { return };
        if list.is_empty() {
            meta.remove("managedFields");
            return;
        }
        let list = list.into_iter().map(|(id, e)| {
            let mut out = json!({
                "manager": id.manager,
                "operation": id.operation.as_str(),
                "apiVersion": e.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": e.fields.to_fields_v1(),
            });
            if let Some(time) = e.time {
                out["time"] = time.into();
            }
            if !id.subresource.is_empty() {
                out["subresource"] = id.subresource.into();
            }
            out
        });
        meta.insert("managedFields".into(), list.collect());
    }
}

/// One entry with nothing in it: the client asks for all ownership to be dropped.
fn is_reset(list: &Value) -> bool {
    let empty = |e: &Value| e.as_object().is_some_and(|m| m.values().all(|v| v.is_null() || v == ""));
    list.as_array().is_some_and(|l| l.len() == 1 && empty(&l[0]))
}

/// Whether the owners in a request can be read; what is wrong otherwise.
pub fn metadata_problem(object: &Value) -> Option<EntryError> {
    let list = object.pointer("/metadata/managedFields")?;
    if list.is_null() || is_reset(list) { None } else { Entries::parse(list).err() }
}

/// Whether two objects differ in nothing but the times in `managedFields`: such a write is no change.
pub fn equal_but_for_times(a: &Value, b: &Value) -> bool {
    if a == b {
        return true;
    }
    let without = |v: &Value| {
        let mut v = v.clone();
        if let Some(Value::Array(list)) = v.pointer_mut("/metadata/managedFields") {
            for e in list.iter_mut().filter_map(Value::as_object_mut) {
                e.remove("time");
            }
            list.sort_by_key(Value::to_string);
        }
        v
    };
    without(a) == without(b)
}
