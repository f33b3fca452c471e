//! The form in which a built-in object is stored: what means nothing is not there, what is always there is, quantities
//! are canonical.

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::schema::{Schema, Type};

/// Brings an object into stored form. The required plain fields of a status are there even when they are zero.
pub(super) fn stored_form(schema: &Schema, object: &mut Value) {
    normalize(schema, object);
    if let Some(s) = schema.properties.get("status").filter(|s| s.always_present)
        && let Some(status) = object.get_mut("status")
    {
        zeros(s, status);
    }
}

fn zeros(schema: &Schema, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    for name in &schema.required {
        let zero = match schema.properties.get(name).map(|s| s.kind) {
            Some(Type::Integer) => Value::from(0),
            Some(Type::Boolean) => Value::from(false),
            Some(Type::String) => Value::from(""),
            _ => continue,
        };
        map.entry(name.as_str()).or_insert(zero);
    }
    for (name, s) in schema.properties.iter().filter(|(_, s)| s.always_present) {
        if let Some(v) = map.get_mut(name) {
            zeros(s, v);
        }
    }
}

fn normalize(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, v| {
                let Some(s) = schema.properties.get(name) else { return !v.is_null() || schema.preserve_unknown };
                !v.is_null() || s.nullable || (schema.required.contains(name) && s.kind != Type::Object)
            });
            for (name, v) in map.iter_mut() {
                if let Some(s) = schema.properties.get(name).or(schema.additional.as_ref()) {
                    normalize(s, v);
                }
            }
            map.retain(|name, v| {
                let drops = schema.properties.get(name).is_some_and(|s| s.zero_is_absent);
                !(drops && is_zero(v))
            });
            for (name, s) in schema.properties.iter().filter(|(_, s)| s.always_present) {
                if !map.contains_key(name) {
                    let mut empty = Value::Object(Map::new());
                    normalize(s, &mut empty);
                    map.insert(name.clone(), empty);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for v in list {
                    normalize(items, v);
                }
            }
        }
        Value::String(text) if is_quantity(schema) => {
            if let Ok(q) = text.parse::<Quantity>() {
                *text = q.to_string();
            }
        }
        Value::Number(n) if is_quantity(schema) => {
            if let Ok(q) = n.to_string().parse::<Quantity>() {
                *value = q.to_string().into();
            }
        }
        _ => {}
    }
}

pub(super) fn is_quantity(schema: &Schema) -> bool {
    schema.limits.as_ref().is_some_and(|l| l.format.as_deref() == Some("quantity"))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(l) => l.is_empty(),
        Value::Object(m) => m.is_empty(),
    }
}
