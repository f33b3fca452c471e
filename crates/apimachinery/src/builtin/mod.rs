//! The built-in kinds: their schemas, defaults and rules. Shapes come from the generated types; what those leave out is
//! in the module `tables`. A schema is made when a kind is first asked for, and types are shared between kinds.

mod defaults;
mod kinds;
mod normal;
mod tables;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::schema::{Limits, ListType, MapType, PatchStrategy, Schema, Type};
use tables::Items;

pub use defaults::default;
pub use validate::{validate, validate_part};

/// The types converted so far, by their full name.
static TYPES: Mutex<BTreeMap<String, Arc<Schema>>> = Mutex::new(BTreeMap::new());

/// The schema of a built-in kind; nothing for a kind that is not built in.
pub fn schema(api_version: &str, kind: &str) -> Option<&'static Schema> {
    let entry = kinds::KINDS.iter().find(|k| k.kind == kind && k.api_version == api_version)?;
    Some(entry.schema.get_or_init(|| make(entry.source, true)))
}

/// Every built-in kind, as (apiVersion, kind).
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    kinds::KINDS.iter().map(|k| (k.api_version, k.kind))
}

/// The schema of the metadata every object has.
pub(crate) fn object_meta() -> Arc<Schema> {
    make(|generator| generator.subschema_for::<ObjectMeta>(), false)
}

fn make(source: fn(&mut SchemaGenerator) -> schemars::Schema, is_kind: bool) -> Arc<Schema> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let root = source(&mut generator);
    let mut read =
        Reader { types: generator.definitions(), done: TYPES.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut found = read.node(root.as_value());
    if is_kind {
        let root = Arc::make_mut(&mut found);
        for name in ["metadata", "spec", "status"] {
            if let Some(s) = root.properties.get_mut(name).filter(|s| s.kind == Type::Object) {
                Arc::make_mut(s).always_present = true;
            }
        }
    }
    found
}

/// Turns generated schemas into ours.
struct Reader<'a> {
    types: &'a Map<String, Value>,
    done: MutexGuard<'static, BTreeMap<String, Arc<Schema>>>,
}

impl Reader<'_> {
    fn node(&mut self, source: &Value) -> Arc<Schema> {
        let reference = source.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
        match reference {
            Some(name) => self.named(name),
            None => Arc::new(self.inline(source)),
        }
    }

    fn named(&mut self, name: &str) -> Arc<Schema> {
        if let Some(found) = self.done.get(name) {
            return found.clone();
        }
        let short = name.rsplit('.').next().unwrap_or(name);
        let mut made = if tables::OPAQUE_TYPES.contains(&short) {
            Schema { preserve_unknown: true, map: MapType::Atomic, ..Schema::any() }
        } else {
            let types = self.types;
            types.get(name).map_or_else(Schema::any, |source| self.inline(source))
        };
        if short == "Quantity" {
            made.limits = Some(Box::new(Limits { format: Some("quantity".into()), ..Limits::default() }));
        }
        if short == "MicroTime" {
            made.limits = Some(Box::new(Limits { format: Some("micro-time".into()), ..Limits::default() }));
        }
        if tables::ATOMIC_TYPES.contains(&short) {
            made.map = MapType::Atomic;
        }
        complete(short, &mut made);
        let made = Arc::new(made);
        self.done.insert(name.to_owned(), made.clone());
        made
    }

    fn inline(&mut self, source: &Value) -> Schema {
        let kind = match source.get("type").and_then(Value::as_str) {
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            _ if source.get("x-kubernetes-int-or-string").is_some() => Type::IntOrString,
            _ => Type::Any,
        };
        let format = source.get("format").and_then(Value::as_str);
        let limits = format.map(|f| Box::new(Limits { format: Some(f.to_owned()), ..Limits::default() }));
        let fields = source.get("properties").and_then(Value::as_object);
        let required = source.get("required").and_then(Value::as_array);
        Schema {
            kind,
            limits,
            properties: fields.into_iter().flatten().map(|(n, s)| (n.clone(), self.node(s))).collect(),
            additional: source.get("additionalProperties").map(|s| self.node(s)),
            items: source.get("items").map(|s| self.node(s)),
            required: required.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
            ..Schema::any()
        }
    }
}

/// Adds to a type what the tables say about its fields.
fn complete(short: &str, made: &mut Schema) {
    for (_, fields) in tables::ALWAYS_ZERO.iter().filter(|(t, _)| *t == short) {
        made.required.extend(fields.iter().map(|f| (*f).to_owned()));
    }
    for (name, s) in &mut made.properties {
        let here = |(t, f): &(&str, &str)| *t == short && *f == name.as_str();
        let required = made.required.contains(name);
        let mut changed = (**s).clone();
        if let Some((_, _, items)) = tables::LISTS.iter().find(|(t, f, _)| *t == short && f == name) {
            merge_list(&mut changed, items);
        }
        if tables::ATOMIC_MAPS.iter().any(here) {
            changed.map = MapType::Atomic;
        }
        if tables::RETAIN.iter().any(here) {
            changed.patch.retain_keys = true;
        }
        if tables::ALWAYS_PRESENT.iter().any(here) {
            changed.always_present = true;
        }
        if tables::NULL_LISTS.iter().any(here) {
            changed.always_null = true;
            changed.nullable = true;
        }
        if tables::NULL_TIMES.iter().any(here) {
            changed.nullable = true;
            changed.default = Some(Value::Null);
        }
        if let Some((_, _, json)) = tables::DEFAULTS.iter().find(|(t, f, _)| *t == short && f == name) {
            changed.default = Some(serde_json::from_str(json).expect("the table of defaults holds JSON"));
        }
        changed.zero_is_absent = !required
            && match changed.kind {
                Type::String => !changed.nullable && !tables::MEANINGFUL_EMPTY.iter().any(here),
                Type::Array => true,
                Type::Object => changed.additional.is_some(),
                Type::Integer | Type::Boolean => tables::ZERO_IS_ABSENT.iter().any(here),
                Type::Number | Type::Any | Type::IntOrString => false,
            };
        if changed != **s {
            *s = Arc::new(changed);
        }
    }
}

fn merge_list(list: &mut Schema, items: &Items) {
    let key = match items {
        Items::Set(merge) => {
            list.list = ListType::Set;
            list.patch = PatchStrategy { merge: *merge, merge_key: None, retain_keys: false };
            return;
        }
        Items::Map(keys, patch) => {
            list.map_keys = keys.iter().map(|k| (*k).to_owned()).collect();
            *patch
        }
        Items::MapRetain(keys, patch) => {
            list.map_keys = keys.iter().map(|k| (*k).to_owned()).collect();
            list.patch.retain_keys = true;
            Some(*patch)
        }
    };
    list.list = ListType::Map;
    list.patch.merge = key.is_some();
    list.patch.merge_key = key;
}

#[cfg(test)]
mod tests;
