//! Objects that an operator of our name wrote without applying: the existing suite's does. The server keeps two records of
//! who manages what, one of what was applied and one of what was written otherwise; as long as a field stands in the latter
//! too, no later version can take it away. An object is adopted by making one record of the other, which is a change of the
//! record alone.

use serde_json::{Map, Value, json};

use super::{Drift, DriftKind, FIELD_MANAGER, element, record};

const ENTRIES: &str = "/metadata/managedFields";

fn entries(live: &Value) -> impl Iterator<Item = (usize, &Value)> {
    live.pointer(ENTRIES).and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// Whether an entry is one of ours about the object itself.
fn is_ours(entry: &Value, operation: &str) -> bool {
    entry.get("manager").and_then(Value::as_str) == Some(FIELD_MANAGER)
        && entry.get("operation").and_then(Value::as_str) == Some(operation)
        && entry.get("subresource").is_none_or(|subresource| subresource.as_str() == Some(""))
}

/// Whether an object has a record of what was written under our name, and none of what was applied.
pub(crate) fn is_due(live: &Value) -> bool {
    let has = |operation| entries(live).any(|(_, entry)| is_ours(entry, operation));
    has("Update") && !has("Apply")
}

pub(super) fn drift() -> Drift {
    Drift { path: "metadata.managedFields".to_owned(), pointer: ENTRIES.to_owned(), kind: DriftKind::NotAdopted }
}

/// The change that adopts an object, as JSON patch. What we want and have written is recorded as applied. What else was
/// recorded becomes nobody's: most of it the server filled in, and it cannot be told from the rest.
pub(crate) fn patch(wanted: &Value, live: &Value) -> Value {
    let ours: Vec<(usize, &Value)> = entries(live).filter(|(_, entry)| is_ours(entry, "Update")).collect();
    let Some(((first, entry), further)) = ours.split_first() else { return json!([]) };
    let mut applied = record::unpacked(entry);
    applied["operation"] = "Apply".into();
    if let Some(fields) = applied.get_mut("fieldsV1").and_then(Value::as_object_mut) {
        keep_wanted(fields, wanted);
    }
    // The record may have changed since it was seen if the version has. From the back, so that places stay what they are.
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let mut changes = vec![
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}),
        json!({"op": "replace", "path": format!("{ENTRIES}/{first}"), "value": applied}),
    ];
    changes.extend(further.iter().rev().map(|(at, _)| json!({"op": "remove", "path": format!("{ENTRIES}/{at}")})));
    Value::Array(changes)
}

/// Takes out of a set of fields what is not wanted.
fn keep_wanted(fields: &mut Map<String, Value>, wanted: &Value) {
    fields.retain(|selector, below| {
        let found = if let Some(name) = selector.strip_prefix("f:") {
            wanted.get(name)
        } else if let Some(keys) = selector.strip_prefix("k:") {
            let keys: Option<Map<String, Value>> = serde_json::from_str(keys).ok();
            keys.and_then(|keys| Some(element(wanted.as_array()?, &keys)?.1))
        } else if let Some(value) = selector.strip_prefix("v:") {
            let value: Option<Value> = serde_json::from_str(value).ok();
            wanted.as_array().and_then(|list| list.iter().find(|element| Some(*element) == value.as_ref()))
        } else {
            // The element or object itself.
            return true;
        };
        let Some(found) = found else { return false };
        if let Some(below) = below.as_object_mut() {
            keep_wanted(below, found);
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::super::drift;
    use super::*;

    fn live(operation: &str) -> Value {
        json!({
            "metadata": {
                "name": "a", "resourceVersion": "7", "labels": {"x": "y"},
                "managedFields": [
                    {},
                    {"manager": FIELD_MANAGER, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                     "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}, "f:spec": {
                        "f:replicas": {}, "f:progressDeadlineSeconds": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":1,\"protocol\":\"TCP\"}":
                            {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                        "f:finalizers": {"v:\"a\"": {}, "v:\"b\"": {}},
                     }}},
                    {"manager": FIELD_MANAGER, "operation": operation, "subresource": "status", "fieldsV1": {}},
                ],
            },
            "spec": {"replicas": 1, "progressDeadlineSeconds": 600, "ports": [{"containerPort": 1, "protocol": "TCP"}],
                     "finalizers": ["a", "b"]},
        })
    }

    fn wanted() -> Value {
        json!({"metadata": {"name": "a", "labels": {"x": "y"}},
               "spec": {"replicas": 1, "ports": [{"containerPort": 1}], "finalizers": ["a", "b"]}})
    }

    #[test]
    fn what_was_only_written_is_adopted_and_what_was_applied_is_ours_already() {
        assert_eq!(drift(&wanted(), &live("Update"), &[]).map(|drift| drift.kind), Some(DriftKind::NotAdopted));
        assert!(!is_due(&live("Apply")));
        let mut others = live("Update");
        others["metadata"]["managedFields"][1]["manager"] = "kubectl".into();
        assert!(!is_due(&others));
        assert_eq!(drift(&wanted(), &others, &[]), None);
    }

    #[test]
    fn the_record_of_what_is_wanted_becomes_that_of_what_was_applied() {
        let changes = patch(&wanted(), &live("Update"));
        assert_eq!(changes[0], json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}));
        assert_eq!(changes[1]["path"], "/metadata/managedFields/1");
        assert_eq!(changes[1]["value"]["operation"], "Apply");
        assert_eq!(changes[1]["value"]["apiVersion"], "apps/v1");
        let spec = &changes[1]["value"]["fieldsV1"]["f:spec"];
        let names: Vec<&String> = spec.as_object().expect("fields").keys().collect();
        assert_eq!(names, ["f:finalizers", "f:ports", "f:replicas"], "what the server filled in is nobody's");
        let port = &spec["f:ports"]["k:{\"containerPort\":1,\"protocol\":\"TCP\"}"];
        assert_eq!(port, &json!({".": {}, "f:containerPort": {}}));
        assert_eq!(changes.as_array().map(Vec::len), Some(2), "the record of the status is another one");
        let mut adopted = live("Update");
        adopted["metadata"]["managedFields"][1] = changes[1]["value"].clone();
        assert_eq!(drift(&wanted(), &adopted, &[]), None);
        let mut less = wanted();
        less["spec"]["finalizers"] = json!(["a"]);
        adopted["spec"]["finalizers"] = json!(["a"]);
        let later = drift(&less, &adopted, &[]).map(|drift| drift.kind);
        assert_eq!(later, Some(DriftKind::NoLongerWanted), "a later version takes away what it no longer has");
    }
}
