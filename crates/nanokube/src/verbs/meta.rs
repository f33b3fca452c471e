//! Rules for `metadata` that hold for every kind. Pure.

use serde_json::{Map, Value, json};

/// A text field of `metadata`, empty when absent.
pub(crate) fn metadata_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata` as a map, made when missing.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().expect("made above")
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub(crate) fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// What the server owns: clients send it back unchanged or not at all.
const SERVER_OWNED: &[&str] =
    &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

/// Clears what a client may not choose for a new object.
pub(crate) fn clear_for_create(object: &mut Value) {
    let metadata = metadata_mut(object);
    for field in SERVER_OWNED {
        metadata.remove(*field);
    }
    metadata.remove("resourceVersion");
    drop_empty(metadata);
}

/// Takes from the live object what the server owns.
pub(crate) fn keep_server_owned(object: &mut Value, live: &Value) {
    let metadata = metadata_mut(object);
    for field in SERVER_OWNED.iter().chain(&["resourceVersion", "name", "namespace", "generateName"]) {
        match live["metadata"].get(*field) {
            Some(value) => metadata.insert((*field).to_owned(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    drop_empty(metadata);
}

/// Empty maps and lists are the same as absent ones and are not stored.
fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|key, value| match key.as_str() {
        "labels" | "annotations" => value.as_object().is_some_and(|map| !map.is_empty()),
        "finalizers" | "ownerReferences" => value.as_array().is_some_and(|list| !list.is_empty()),
        "generateName" | "namespace" => value.as_str().is_some_and(|text| !text.is_empty()),
        _ => !value.is_null(),
    });
}

/// Whether two states differ in anything a client can see, apart from the times in `managedFields`.
pub(crate) fn same_object(left: &Value, right: &Value) -> bool {
    fn differs(left: &Value, right: &Value) -> bool {
        strip(left) != strip(right)
    }
    fn strip(value: &Value) -> Vec<(&String, &Value)> {
        value.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata").collect()
    }
    fn managers(value: &Value) -> Vec<Map<String, Value>> {
        let entries = value["metadata"]["managedFields"].as_array().into_iter().flatten();
        entries
            .filter_map(Value::as_object)
            .map(|entry| entry.iter().filter(|(key, _)| *key != "time").map(|(k, v)| (k.clone(), v.clone())).collect())
            .collect()
    }
    fn rest(value: &Value) -> Vec<(&String, &Value)> {
        let metadata = value["metadata"].as_object().into_iter().flatten();
        metadata.filter(|(key, _)| !matches!(key.as_str(), "managedFields" | "resourceVersion")).collect()
    }
    !differs(left, right) && rest(left) == rest(right) && managers(left) == managers(right)
}

/// Whether what a user wants has changed: anything but `metadata` and, when it is separate, `status`.
pub(crate) fn wish_changed(left: &Value, right: &Value, status_is_separate: bool) -> bool {
    let wish = |value: &Value| -> Map<String, Value> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "apiVersion" | "kind"))
            .filter(|(key, _)| !(status_is_separate && *key == "status"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    wish(left) != wish(right)
}
