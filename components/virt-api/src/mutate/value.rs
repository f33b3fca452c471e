//! Filling in trees of JSON: what is missing is made, what is there stays.

use serde_json::{Map, Value};

/// The value as a map. What is no map becomes an empty one: only what is missing is passed here, or what a schema has
/// made sure of.
pub(super) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it has just been made one"),
    }
}

/// A field that holds fields or items; made if it is missing.
pub(super) fn entry<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    object(value).entry(name).or_insert(Value::Null)
}

/// Sets a field unless it says something. An empty text says nothing.
pub(super) fn fill(value: &mut Value, name: &str, content: impl Into<Value>) {
    let field = entry(value, name);
    if is_empty(field) {
        *field = content.into();
    }
}

/// Whether a value says nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// A list; made if it is missing.
pub(super) fn list<'a>(value: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let field = entry(value, name);
    if !field.is_array() {
        *field = Value::Array(Vec::new());
    }
    match field {
        Value::Array(items) => items,
        _ => unreachable!("it has just been made one"),
    }
}

/// A text that is not empty.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}
