//! Events are stored as the core group spells them; `events.k8s.io` spells the same fields differently.

use serde_json::{Value, json};

/// Core field, `events.k8s.io` field.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The event as `events.k8s.io/v1` shows it.
pub(super) fn from_core(event: &Value) -> Value {
    let mut event = event.clone();
    rename(&mut event, RENAMED.iter().copied());
    event["apiVersion"] = json!("events.k8s.io/v1");
    event
}

/// The event as it is stored.
pub(super) fn to_core(mut event: Value) -> Value {
    rename(&mut event, RENAMED.iter().map(|(core, other)| (*other, *core)));
    event["apiVersion"] = json!("v1");
    event
}

fn rename<'a>(event: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = event.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}
