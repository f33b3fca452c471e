//! The server's record of who manages what, as it is kept in memory. As a tree it is half of all that is known of the objects;
//! it is looked at once a pass, so it is kept as text.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::FIELD_MANAGER;

const FIELDS: &str = "fieldsV1";

/// Keeps of the record what is ours, as text. What is others' keeps its place, by which ours is found by the server.
pub fn pack(live: &mut Value) {
    let entries = live.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if entry.get("manager").and_then(Value::as_str) != Some(FIELD_MANAGER) {
            *entry = Value::Object(Map::new());
        } else if let Some(fields) = entry.get_mut(FIELDS).filter(|fields| fields.is_object()) {
            *fields = Value::String(fields.to_string());
        }
    }
}

/// The fields of an entry, packed or not.
pub(super) fn fields(entry: &Value) -> Option<Cow<'_, Map<String, Value>>> {
    match entry.get(FIELDS)? {
        Value::Object(fields) => Some(Cow::Borrowed(fields)),
        Value::String(text) => serde_json::from_str(text).ok().map(Cow::Owned),
        _ => None,
    }
}

/// An entry as the server has it.
pub(super) fn unpacked(entry: &Value) -> Value {
    let mut whole = entry.clone();
    if let Some(fields) = fields(entry) {
        whole[FIELDS] = Value::Object(fields.into_owned());
    }
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ours_is_kept_as_text_and_others_keep_their_place() {
        let fields = json!({"f:spec": {"f:replicas": {}, "k:{\"name\":\"a\"}": {".": {}}}});
        let ours = json!({"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields});
        let mut live = json!({"metadata": {"managedFields": [{"manager": "kubectl", "fieldsV1": fields}, ours]}});
        pack(&mut live);
        let again = live.clone();
        pack(&mut live);
        assert_eq!(live, again, "packed is packed");
        assert_eq!(live["metadata"]["managedFields"][0], json!({}));
        let entry = &live["metadata"]["managedFields"][1];
        assert!(entry["fieldsV1"].is_string());
        assert_eq!(unpacked(entry), ours);
        assert_eq!(unpacked(&json!({"manager": "a"})), json!({"manager": "a"}));
    }
}
