//! Reading the schema of a custom resource, and refusing one that is not structural: every field has one type and
//! stands in one place, so that defaults, pruning and merging have one meaning.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::share::share;
use super::{Limits, ListType, MapType, Schema, Type};
use crate::field::{self, FieldError};

/// Keywords of JSON Schema that a structural schema may not use at all.
const NEVER: [&str; 6] = ["$ref", "id", "patternProperties", "definitions", "dependencies", "additionalItems"];

/// Keywords that describe shape, and therefore may not stand inside `allOf`, `anyOf`, `oneOf` and `not`.
const SHAPE: [&str; 11] = [
    "type",
    "description",
    "title",
    "default",
    "additionalProperties",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

impl Schema {
    /// Reads `openAPIV3Schema` of a version of a custom resource. `apiVersion`, `kind` and `metadata` need not be
    /// declared: they get the schema every object has.
    ///
    /// # Errors
    /// Everything that keeps the schema from being structural; the paths start at the schema itself, as in
    /// `properties[spec].type`.
    pub fn from_crd(schema: &Value) -> Result<Self, Vec<FieldError>> {
        let mut read = Reader { errors: Vec::new() };
        let mut root = read.node("", Place::Root, schema);
        if root.kind != Type::Object && schema.get("type").is_some_and(|t| t != "") {
            read.errors.push(FieldError::invalid("type", &schema["type"], "must be object at the root"));
        }
        read.metadata(schema);
        if read.errors.is_empty() {
            root.embed();
            root.check_defaults("", &mut read.errors);
        }
        if read.errors.is_empty() { Ok(root) } else { Err(read.errors) }
    }

    /// Makes the node a Kubernetes object: its identity and metadata have the schema every object has.
    fn embed(&mut self) {
        let text = share(Self { kind: Type::String, ..Self::any() });
        for name in ["apiVersion", "kind"] {
            self.properties.entry(name.into()).or_insert_with(|| text.clone());
        }
        let mut meta = crate::builtin::object_meta();
        if let Some(own) = self.properties.get("metadata") {
            let limited: Vec<(&String, &Arc<Self>)> =
                own.properties.iter().filter(|(_, s)| s.limits.is_some()).collect();
            if !limited.is_empty() {
                let mut changed = (*meta).clone();
                for (name, s) in limited {
                    changed.properties.insert(name.clone(), s.clone());
                }
                meta = Arc::new(changed);
            }
        }
        self.properties.insert("metadata".into(), meta);
    }

    fn check_defaults(&self, path: &str, errors: &mut Vec<FieldError>) {
        if let Some(default) = &self.default {
            let at = field::child(path, "default");
            let mut filled = default.clone();
            for gone in self.prune(&mut filled) {
                errors.push(FieldError::invalid(field::child(&at, &gone), default, "must not have unknown fields"));
            }
            self.default(&mut filled);
            for e in self.validate(&filled) {
                let at = if e.field.is_empty() { at.clone() } else { field::child(&at, &e.field) };
                errors.push(FieldError { field: at, ..e });
            }
        }
        for (name, s) in &self.properties {
            if !(path.is_empty() && name == "metadata") {
                s.check_defaults(&field::key(&field::child(path, "properties"), name), errors);
            }
        }
        if let Some(s) = &self.additional {
            s.check_defaults(&field::child(path, "additionalProperties"), errors);
        }
        if let Some(s) = &self.items {
            s.check_defaults(&field::child(path, "items"), errors);
        }
    }
}

/// Where a node stands; the server says it in its message.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Field,
    Item,
    /// Inside `allOf` and its like: limits only.
    Logic,
}

impl Place {
    fn missing_type(self) -> &'static str {
        match self {
            Self::Root => "must not be empty at the root",
            Self::Item => "must not be empty for specified array items",
            Self::Field | Self::Logic => "must not be empty for specified object fields",
        }
    }
}

struct Reader {
    errors: Vec<FieldError>,
}

impl Reader {
    fn node(&mut self, path: &str, place: Place, schema: &Value) -> Schema {
        let Some(map) = schema.as_object() else {
            self.errors.push(FieldError::type_invalid(path, schema, "must be a schema object"));
            return Schema::any();
        };
        let mut out = Schema {
            kind: self.kind(path, place, map),
            nullable: flag(map, "nullable"),
            preserve_unknown: flag(map, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(map, "x-kubernetes-embedded-resource"),
            default: map.get("default").cloned(),
            required: strings(map, "required"),
            map_keys: strings(map, "x-kubernetes-list-map-keys"),
            rules: map.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default(),
            ..Schema::any()
        };
        for name in NEVER {
            if map.contains_key(name) {
                self.errors.push(FieldError::forbidden(field::child(path, name), "is not supported"));
            }
        }
        if flag(map, "uniqueItems") {
            let why = "use x-kubernetes-list-type: set instead";
            self.errors.push(FieldError::forbidden(field::child(path, "uniqueItems"), why));
        }
        let inner = if place == Place::Logic { Place::Logic } else { Place::Field };
        if let Some(fields) = map.get("properties").and_then(Value::as_object) {
            for (name, s) in fields {
                let at = field::key(&field::child(path, "properties"), name);
                // The metadata of an object may be declared by its type alone.
                let node = self.node(&at, inner, s);
                out.properties.insert(name.clone(), share(node));
            }
        }
        match map.get("additionalProperties") {
            Some(Value::Bool(true)) => {
                out.additional = Some(share(Schema { preserve_unknown: true, ..Schema::any() }));
            }
            Some(Value::Bool(false)) => {
                let at = field::child(path, "additionalProperties");
                self.errors.push(FieldError::forbidden(at, "must not be false"));
            }
            Some(s) => {
                let at = field::child(path, "additionalProperties");
                out.additional = Some(share(self.node(&at, inner, s)));
                if !out.properties.is_empty() {
                    self.errors.push(FieldError::forbidden(at, "must not be used together with properties"));
                }
            }
            None => {}
        }
        if let Some(s) = map.get("items") {
            let at = field::child(path, "items");
            if s.is_array() {
                self.errors.push(FieldError::forbidden(at, "must be one schema, not a list of them"));
            } else {
                let inner = if place == Place::Logic { Place::Logic } else { Place::Item };
                out.items = Some(share(self.node(&at, inner, s)));
            }
        } else if out.kind == Type::Array && place != Place::Logic {
            self.errors.push(FieldError::required(field::child(path, "items"), "must be specified"));
        }
        if place == Place::Logic {
            for name in SHAPE {
                let int_or_string = name == "type" && path.contains("anyOf");
                if map.contains_key(name) && !int_or_string {
                    let why = "must be empty to be structural";
                    self.errors.push(FieldError::forbidden(field::child(path, name), why));
                }
            }
        }
        self.merging(path, map, &mut out);
        out.limits = self.limits(path, map);
        if place != Place::Logic {
            if let Some(limits) = &out.limits {
                let lists = [("allOf", &limits.all_of), ("anyOf", &limits.any_of), ("oneOf", &limits.one_of)];
                for (name, list) in lists {
                    for (i, s) in list.iter().enumerate() {
                        self.covered(&field::index(&field::child(path, name), i), s, &out);
                    }
                }
                if let Some(not) = &limits.not {
                    self.covered(&field::child(path, "not"), not, &out);
                }
            }
            if out.embedded_resource {
                if out.kind != Type::Object {
                    let why = "an embedded resource is an object";
                    self.errors.push(FieldError::invalid(field::child(path, "type"), &json!(map.get("type")), why));
                } else if out.properties.is_empty() && !out.preserve_unknown {
                    let why = "an embedded resource declares its fields, or keeps unknown ones";
                    self.errors.push(FieldError::required(field::child(path, "properties"), why));
                }
                out.embed();
            }
        }
        out
    }

    fn kind(&mut self, path: &str, place: Place, map: &Map<String, Value>) -> Type {
        let int_or_string = flag(map, "x-kubernetes-int-or-string");
        let at = field::child(path, "type");
        match map.get("type").and_then(Value::as_str).unwrap_or_default() {
            "" if int_or_string => Type::IntOrString,
            "" => {
                if place != Place::Logic && (place == Place::Root || !flag(map, "x-kubernetes-preserve-unknown-fields"))
                {
                    self.errors.push(FieldError::required(at, place.missing_type()));
                }
                Type::Any
            }
            name => {
                if int_or_string {
                    let why = "an int-or-string has no type";
                    self.errors.push(FieldError::invalid(at.clone(), &json!(name), why));
                }
                match name {
                    "object" => Type::Object,
                    "array" => Type::Array,
                    "string" => Type::String,
                    "integer" => Type::Integer,
                    "number" => Type::Number,
                    "boolean" => Type::Boolean,
                    _ => {
                        let known = ["array", "boolean", "integer", "number", "object", "string"].map(Value::from);
                        self.errors.push(FieldError::not_supported(at, &json!(name), &known));
                        Type::Any
                    }
                }
            }
        }
    }

    /// Reads how lists and maps merge; a list map must be able to name its items.
    fn merging(&mut self, path: &str, map: &Map<String, Value>, out: &mut Schema) {
        let at = field::child(path, "x-kubernetes-list-type");
        match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
            None => {}
            Some(name) => {
                if out.kind != Type::Array {
                    let why = "must be array, as there is a list type";
                    self.errors.push(FieldError::invalid(field::child(path, "type"), &json!(map.get("type")), why));
                }
                out.list = match name {
                    "atomic" => ListType::Atomic,
                    "set" => ListType::Set,
                    "map" => ListType::Map,
                    _ => {
                        let known = ["atomic", "map", "set"].map(Value::from);
                        self.errors.push(FieldError::not_supported(at.clone(), &json!(name), &known));
                        ListType::Atomic
                    }
                };
            }
        }
        match map.get("x-kubernetes-map-type").and_then(Value::as_str) {
            None | Some("granular") => {}
            Some("atomic") => out.map = MapType::Atomic,
            Some(name) => {
                let known = ["atomic", "granular"].map(Value::from);
                let at = field::child(path, "x-kubernetes-map-type");
                self.errors.push(FieldError::not_supported(at, &json!(name), &known));
            }
        }
        let keys_at = field::child(path, "x-kubernetes-list-map-keys");
        if out.list != ListType::Map {
            if !out.map_keys.is_empty() {
                let why = "must be map, as there are map keys";
                self.errors.push(FieldError::invalid(at, &json!(map.get("x-kubernetes-list-type")), why));
            }
            return;
        }
        if out.map_keys.is_empty() {
            let why = "a list map needs keys";
            self.errors.push(FieldError::required(keys_at, why));
            return;
        }
        let items = out.item();
        for (i, key) in out.map_keys.iter().enumerate() {
            let at = field::index(&keys_at, i);
            match items.properties.get(key) {
                None => {
                    let why = "must be the name of a property of the items";
                    self.errors.push(FieldError::invalid(at, &json!(key), why));
                }
                Some(s) if matches!(s.kind, Type::Object | Type::Array) => {
                    let why = "must be a scalar property of the items";
                    self.errors.push(FieldError::invalid(at, &json!(key), why));
                }
                Some(s) if s.default.is_none() && !items.required.contains(key) => {
                    let at = field::key(&field::child(&field::child(path, "items"), "properties"), key);
                    let why = "a key of a list map needs a default or must be required";
                    self.errors.push(FieldError::required(field::child(&at, "default"), why));
                }
                Some(_) => {}
            }
        }
    }

    fn limits(&mut self, path: &str, map: &Map<String, Value>) -> Option<Box<Limits>> {
        let mut list = |name: &str| -> Vec<Schema> {
            let at = field::child(path, name);
            let list = map.get(name).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .enumerate()
                .map(|(i, s)| self.node(&field::index(&at, i), Place::Logic, s))
                .collect()
        };
        let limits = Limits {
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: map.get("not").map(|s| Box::new(self.node(&field::child(path, "not"), Place::Logic, s))),
            allowed: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            pattern: text(map, "pattern"),
            format: text(map, "format"),
            minimum: map.get("minimum").and_then(Value::as_f64),
            exclusive_minimum: flag(map, "exclusiveMinimum"),
            maximum: map.get("maximum").and_then(Value::as_f64),
            exclusive_maximum: flag(map, "exclusiveMaximum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            min_length: count(map, "minLength"),
            max_length: count(map, "maxLength"),
            min_items: count(map, "minItems"),
            max_items: count(map, "maxItems"),
            unique_items: flag(map, "uniqueItems"),
            min_properties: count(map, "minProperties"),
            max_properties: count(map, "maxProperties"),
        };
        if let Some(pattern) = &limits.pattern
            && let Err(e) = super::validate::regex(pattern)
        {
            let at = field::child(path, "pattern");
            self.errors.push(FieldError::invalid(
                at,
                &json!(pattern),
                &format!("must be a valid regular expression: {e}"),
            ));
        }
        (limits != Limits::default()).then(|| Box::new(limits))
    }

    /// Fields that are limited inside `allOf` and its like must be declared outside as well.
    fn covered(&mut self, path: &str, logic: &Schema, outside: &Schema) {
        for (name, s) in &logic.properties {
            let at = field::key(&field::child(path, "properties"), name);
            match outside.properties.get(name) {
                Some(o) => self.covered(&at, s, o),
                None => {
                    let at = field::key(&field::child(&base(path), "properties"), name);
                    self.errors
                        .push(FieldError::required(at, &format!("because it is defined in {path}.properties[{name}]")));
                }
            }
        }
        if let (Some(s), Some(o)) = (&logic.items, &outside.items) {
            self.covered(&field::child(path, "items"), s, o);
        }
    }

    /// The metadata of an object is the server's; a schema may only limit names.
    fn metadata(&mut self, schema: &Value) {
        let Some(meta) = schema.pointer("/properties/metadata/properties").and_then(Value::as_object) else { return };
        for name in meta.keys().filter(|n| !matches!(n.as_str(), "name" | "generateName")) {
            let at = format!("properties[metadata].properties[{name}]");
            self.errors.push(FieldError::forbidden(at, "only name and generateName may be limited in metadata"));
        }
    }
}

/// The path of the node that holds the `allOf`, `anyOf`, `oneOf` or `not` at the end of `path`.
fn base(path: &str) -> String {
    path.rsplit_once('.').map_or_else(String::new, |(base, _)| base.to_owned())
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn text(map: &Map<String, Value>, name: &str) -> Option<String> {
    map.get(name).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned)
}

fn count(map: &Map<String, Value>, name: &str) -> Option<u64> {
    map.get(name).and_then(Value::as_u64)
}

fn strings(map: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = map.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
