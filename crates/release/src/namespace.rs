//! The suite's namespace is the administrator's, but for one label on it that is the operator's.

use kubevirt_api::names::label;
use serde_json::json;

use crate::Object;

/// What the operator says about the namespace it installs into.
pub fn monitored(name: &str) -> Object {
    object(json!({"name": name, "labels": {label::CLUSTER_MONITORING: "true"}}))
}

/// The same when the suite is gone: nothing.
pub fn left_alone(name: &str) -> Object {
    object(json!({ "name": name }))
}

fn object(metadata: serde_json::Value) -> Object {
    Object::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        .expect("namespaces are a registered kind and this one has a name")
}
