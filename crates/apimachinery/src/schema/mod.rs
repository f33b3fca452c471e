//! Structural schemas: what fields an object has, what is filled in, what is dropped, what is refused, and how its
//! lists and maps merge. The same tree serves custom resources ([`Schema::from_crd`]) and built-in kinds
//! ([`crate::builtin`]). It never evaluates rules written in CEL; it carries them ([`Schema::rules`]) and says where
//! they apply ([`Schema::rule_sites`]).

mod crd;
mod fill;
mod openapi;
mod share;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};

use crate::field;

/// The JSON type of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// No type given: any JSON value.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// An integer or a string, as the port of a service.
    IntOrString,
}

impl Type {
    /// The name in a JSON schema; nothing where a schema has no `type`.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Any | Self::IntOrString => None,
            Self::Object => Some("object"),
            Self::Array => Some("array"),
            Self::String => Some("string"),
            Self::Integer => Some("integer"),
            Self::Number => Some("number"),
            Self::Boolean => Some("boolean"),
        }
    }
}

/// How a list merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As one value with one owner.
    #[default]
    Atomic,
    /// Item by item; each item is its own name.
    Set,
    /// Item by item, named by the fields in [`Schema::map_keys`].
    Map,
}

/// How an object merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Field by field.
    #[default]
    Granular,
    /// As one value with one owner.
    Atomic,
}

/// What a strategic merge patch does with a field of a built-in kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// The field that names an item; nothing for lists of plain values.
    pub merge_key: Option<&'static str>,
    /// The patch lists the fields that survive (`$retainKeys`).
    pub retain_keys: bool,
}

/// Limits on a value, beyond its shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub allowed: Vec<Value>,
    pub pattern: Option<String>,
    pub format: Option<String>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

/// A node of a schema. Children are shared: the schemas of all built-in kinds together hold each type once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    pub kind: Type,
    /// The fields of an object.
    pub properties: BTreeMap<String, Arc<Schema>>,
    /// The values of a map whose keys are data.
    pub additional: Option<Arc<Schema>>,
    /// The items of a list.
    pub items: Option<Arc<Schema>>,
    pub required: Vec<String>,
    pub nullable: bool,
    pub default: Option<Value>,
    /// `x-kubernetes-preserve-unknown-fields`: fields without a schema are kept.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`: the object is a Kubernetes object itself.
    pub embedded_resource: bool,
    pub list: ListType,
    /// `x-kubernetes-list-map-keys`.
    pub map_keys: Vec<String>,
    pub map: MapType,
    pub patch: PatchStrategy,
    /// Only where there are any.
    pub limits: Option<Box<Limits>>,
    /// `x-kubernetes-validations`, as written; [`Schema::rule_sites`] is the seam for their evaluation.
    pub rules: Vec<Value>,
    /// Built-in kinds only: the object is there, empty, even when nobody sets it (a struct held by value). Such an
    /// object is served as `{}`, and nobody owns its presence.
    pub always_present: bool,
    /// Built-in kinds only: the field is there, null, when nobody sets it.
    pub always_null: bool,
    /// Built-in kinds only: an empty or zero value is the same as none, and is not stored.
    pub zero_is_absent: bool,
}

/// The schema of a value about which nothing is known but that its fields merge one by one.
static FREE: LazyLock<Schema> = LazyLock::new(|| Schema { preserve_unknown: true, ..Schema::any() });

impl Schema {
    /// A schema that says nothing: the base to build others on.
    pub fn any() -> Self {
        <Self as Default>::default()
    }

    /// The schema of one field of an object, and whether the field is declared (`true`) or its name is data (`false`).
    /// Nothing when the field is unknown.
    pub fn field(&self, name: &str) -> Option<(&Schema, bool)> {
        if let Some(s) = self.properties.get(name) {
            return Some((s, true));
        }
        if let Some(s) = &self.additional {
            return Some((s, false));
        }
        (self.preserve_unknown || self.kind == Type::Any).then(|| (&*FREE, false))
    }

    /// The schema of the items of a list.
    pub fn item(&self) -> &Schema {
        self.items.as_deref().unwrap_or(&FREE)
    }

    /// Whether the object lets through fields without a schema.
    pub(crate) fn open(&self) -> bool {
        self.preserve_unknown
            || (matches!(self.kind, Type::Any | Type::IntOrString) && self.properties.is_empty())
            || (self.properties.is_empty() && self.additional.is_none() && self.kind != Type::Object)
    }

    /// What an object of this schema is before anything is written into it: its always-present objects, with the zero
    /// values of required fields. `null` for a schema without any.
    pub(crate) fn zero(&self) -> Value {
        let mut map = Map::new();
        for (name, s) in &self.properties {
            if s.always_present {
                map.insert(name.clone(), s.zero_or_empty());
            } else if s.always_null {
                map.insert(name.clone(), Value::Null);
            } else if self.required.contains(name) {
                match s.kind {
                    Type::String => map.insert(name.clone(), "".into()),
                    Type::Integer | Type::Number => map.insert(name.clone(), 0.into()),
                    Type::Boolean => map.insert(name.clone(), false.into()),
                    Type::Array | Type::Object | Type::Any | Type::IntOrString => None,
                };
            }
        }
        if map.is_empty() { Value::Null } else { Value::Object(map) }
    }

    fn zero_or_empty(&self) -> Value {
        match self.zero() {
            Value::Null => Value::Object(Map::new()),
            v => v,
        }
    }

    /// Every place of `value` where the schema carries CEL rules, with the value before the change where it can be
    /// matched (list items by their map keys, items of other lists not at all).
    pub fn rule_sites<'v>(&'v self, value: &'v Value, old: Option<&'v Value>) -> Vec<RuleSite<'v>> {
        let mut sites = Vec::new();
        self.rule_sites_at("", value, old, &mut sites);
        sites
    }

    fn rule_sites_at<'v>(
        &'v self,
        path: &str,
        value: &'v Value,
        old: Option<&'v Value>,
        sites: &mut Vec<RuleSite<'v>>,
    ) {
        if !self.rules.is_empty() {
            sites.push(RuleSite { path: path.to_owned(), schema: self, value, old });
        }
        match value {
            Value::Object(map) => {
                for (name, v) in map {
                    let (sub, path) = match (self.properties.get(name), &self.additional) {
                        (Some(s), _) => (s, field::child(path, name)),
                        (None, Some(s)) => (s, field::key(path, name)),
                        (None, None) => continue,
                    };
                    sub.rule_sites_at(&path, v, old.and_then(|o| o.get(name)), sites);
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (i, v) in list.iter().enumerate() {
                    let before = (self.list == ListType::Map)
                        .then(|| old.and_then(Value::as_array))
                        .flatten()
                        .and_then(|o| o.iter().find(|o| self.map_keys.iter().all(|k| o.get(k) == v.get(k))));
                    items.rule_sites_at(&field::index(path, i), v, before, sites);
                }
            }
            _ => {}
        }
    }
}

/// A place where CEL rules apply.
#[derive(Clone, Debug)]
pub struct RuleSite<'v> {
    pub path: String,
    /// The node whose [`Schema::rules`] apply.
    pub schema: &'v Schema,
    pub value: &'v Value,
    pub old: Option<&'v Value>,
}

#[cfg(test)]
mod tests;
