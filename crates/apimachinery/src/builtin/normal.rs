//! The form in which a built-in object is stored: what means nothing is not there, what is always there is, quantities
//! are canonical.

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::schema::{Schema, Type};

/// Brings an object into stored form. Required plain fields are there even when they are zero: their absence means the
/// same, and the rules of the kind judge both alike.
pub(super) fn stored_form(schema: &Schema, object: &mut Value) {
    normalize(schema, object);
}

/// What a required plain field is when nobody sets it. A time or a certificate is none of them.
fn zero(schema: &Schema) -> Option<Value> {
    match schema.kind {
        Type::Integer => Some(Value::from(0)),
        Type::Boolean => Some(Value::from(false)),
        Type::String if schema.limits.is_none() => Some(Value::from("")),
        _ => None,
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
            for (name, _) in schema.properties.iter().filter(|(_, s)| s.always_null) {
                if map.get(name).is_none_or(is_zero) {
                    map.insert(name.clone(), Value::Null);
                }
            }
            for name in &schema.required {
                if map.get(name).is_none_or(Value::is_null)
                    && let Some(zero) = schema.properties.get(name).and_then(|s| zero(s))
                {
                    map.insert(name.clone(), zero);
                }
            }
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
