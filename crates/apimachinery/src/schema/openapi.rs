//! The schema as an OpenAPI document, for clients that validate or explain.

use serde_json::{Map, Value, json};

use super::{Limits, ListType, MapType, Schema, Type};

impl Schema {
    /// The schema in OpenAPI v3 form, with the extensions clients read (`x-kubernetes-*`).
    pub fn to_openapi(&self) -> Value {
        let mut out = Map::new();
        if let Some(name) = self.kind.as_str() {
            out.insert("type".into(), name.into());
        }
        if self.kind == Type::IntOrString {
            out.insert("x-kubernetes-int-or-string".into(), true.into());
        }
        if !self.properties.is_empty() {
            let fields: Map<String, Value> = self.properties.iter().map(|(n, s)| (n.clone(), s.to_openapi())).collect();
            out.insert("properties".into(), fields.into());
        }
        if let Some(s) = &self.additional {
            out.insert("additionalProperties".into(), s.to_openapi());
        }
        if let Some(s) = &self.items {
            out.insert("items".into(), s.to_openapi());
        }
        if !self.required.is_empty() {
            out.insert("required".into(), json!(self.required));
        }
        if self.nullable {
            out.insert("nullable".into(), true.into());
        }
        if let Some(default) = &self.default {
            out.insert("default".into(), default.clone());
        }
        if self.preserve_unknown {
            out.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
        if self.embedded_resource {
            out.insert("x-kubernetes-embedded-resource".into(), true.into());
        }
        if self.kind == Type::Array {
            let name = match self.list {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            out.insert("x-kubernetes-list-type".into(), name.into());
            if !self.map_keys.is_empty() {
                out.insert("x-kubernetes-list-map-keys".into(), json!(self.map_keys));
            }
        }
        if self.map == MapType::Atomic {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if self.patch.merge || self.patch.retain_keys {
            let names = [("merge", self.patch.merge), ("retainKeys", self.patch.retain_keys)];
            let names: Vec<&str> = names.iter().filter(|(_, on)| *on).map(|(n, _)| *n).collect();
            out.insert("x-kubernetes-patch-strategy".into(), names.join(",").into());
        }
        if let Some(key) = self.patch.merge_key {
            out.insert("x-kubernetes-patch-merge-key".into(), key.into());
        }
        if let Some(limits) = &self.limits {
            limits.to_openapi(&mut out);
        }
        if !self.rules.is_empty() {
            out.insert("x-kubernetes-validations".into(), json!(self.rules));
        }
        Value::Object(out)
    }
}

impl Limits {
    fn to_openapi(&self, out: &mut Map<String, Value>) {
        let Self {
            allowed,
            pattern,
            format,
            minimum,
            exclusive_minimum,
            maximum,
            exclusive_maximum,
            multiple_of,
            min_length,
            max_length,
            min_items,
            max_items,
            unique_items,
            min_properties,
            max_properties,
            all_of,
            any_of,
            one_of,
            not,
        } = self;
        if !allowed.is_empty() {
            out.insert("enum".into(), json!(allowed));
        }
        for (name, text) in [("pattern", pattern), ("format", format)] {
            if let Some(text) = text {
                // Our own name for times with a fraction; documents know but one of times.
                let text = if text == "micro-time" { "date-time" } else { text };
                out.insert(name.into(), text.into());
            }
        }
        for (name, number) in [("minimum", minimum), ("maximum", maximum), ("multipleOf", multiple_of)] {
            if let Some(number) = number {
                out.insert(name.into(), super::validate::number(*number));
            }
        }
        for (name, on) in [
            ("exclusiveMinimum", exclusive_minimum),
            ("exclusiveMaximum", exclusive_maximum),
            ("uniqueItems", unique_items),
        ] {
            if *on {
                out.insert(name.into(), true.into());
            }
        }
        for (name, count) in [
            ("minLength", min_length),
            ("maxLength", max_length),
            ("minItems", min_items),
            ("maxItems", max_items),
            ("minProperties", min_properties),
            ("maxProperties", max_properties),
        ] {
            if let Some(count) = count {
                out.insert(name.into(), (*count).into());
            }
        }
        for (name, list) in [("allOf", all_of), ("anyOf", any_of), ("oneOf", one_of)] {
            if !list.is_empty() {
                out.insert(name.into(), list.iter().map(Schema::to_openapi).collect());
            }
        }
        if let Some(not) = not {
            out.insert("not".into(), not.to_openapi());
        }
    }
}
