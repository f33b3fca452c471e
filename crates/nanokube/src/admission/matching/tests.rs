use serde_json::json;

use super::*;
use crate::registry::Registry;

fn hook(rule: Value) -> Value {
    let mut rule = rule;
    for (field, default) in [("operations", "*"), ("apiGroups", "*"), ("apiVersions", "*"), ("resources", "*")] {
        if rule[field].is_null() {
            rule[field] = json!([default]);
        }
    }
    json!({"rules": [rule]})
}

/// The version in which a hook is asked about an object of the resource, with a subresource and in a namespace.
fn meant(
    hook: &Value,
    (group, version, plural): (&str, &str, &str),
    subresource: &str,
    object: &Value,
) -> Option<String> {
    let registry = Registry::new();
    let table = registry.table();
    let resource = table.get(group, version, plural).unwrap();
    let namespace_object = json!({"metadata": {"name": "ns", "labels": {"team": "a"}}});
    let subject = Subject {
        operation: Operation::Update,
        resource: &resource,
        subresource,
        namespace: if resource.namespaced { "ns" } else { "" },
        name: "x",
        object,
        old: &Value::Null,
        namespace_object: &namespace_object,
    };
    Criteria::of_webhook(hook).meant(&subject, &table).map(Resource::api_version)
}

const PODS: (&str, &str, &str) = ("", "v1", "pods");
const NODES: (&str, &str, &str) = ("", "v1", "nodes");

#[test]
fn resources_and_subresources_are_told_apart() {
    let object = json!({});
    let asks = |entry: &str, sub: &str| meant(&hook(json!({"resources": [entry]})), PODS, sub, &object).is_some();
    for (entry, main, status) in [
        ("pods", true, false),
        ("pods/status", false, true),
        ("pods/*", true, true),
        ("*", true, false),
        ("*/status", false, true),
        ("*/*", true, true),
        ("nodes", false, false),
    ] {
        assert_eq!((asks(entry, ""), asks(entry, "status")), (main, status), "{entry}");
    }
}

#[test]
fn scope_operation_and_group_must_fit() {
    let object = json!({});
    let asks = |rule: Value, what| meant(&hook(rule), what, "", &object).is_some();
    assert!(asks(json!({"scope": "Namespaced"}), PODS) && !asks(json!({"scope": "Namespaced"}), NODES));
    assert!(!asks(json!({"scope": "Cluster"}), PODS) && asks(json!({"scope": "Cluster"}), NODES));
    assert!(asks(json!({"operations": ["UPDATE"]}), PODS) && !asks(json!({"operations": ["CREATE", "DELETE"]}), PODS));
    assert!(asks(json!({"apiGroups": [""]}), PODS) && !asks(json!({"apiGroups": ["apps"]}), PODS));
}

#[test]
fn selectors_look_at_object_and_namespace() {
    let object = json!({"metadata": {"labels": {"app": "x"}}});
    let with = |field: &str, labels: Value| {
        let mut hook = hook(json!({}));
        hook[field] = json!({"matchLabels": labels});
        hook
    };
    assert!(meant(&with("objectSelector", json!({"app": "x"})), PODS, "", &object).is_some());
    assert!(meant(&with("objectSelector", json!({"app": "y"})), PODS, "", &object).is_none());
    assert!(meant(&with("namespaceSelector", json!({"team": "a"})), PODS, "", &object).is_some());
    assert!(meant(&with("namespaceSelector", json!({"team": "b"})), PODS, "", &object).is_none());
    // What is in no namespace is asked about, whatever the selector; a namespace is judged by its own labels.
    assert!(meant(&with("namespaceSelector", json!({"team": "b"})), NODES, "", &object).is_some());
    assert!(meant(&with("namespaceSelector", json!({"app": "x"})), ("", "v1", "namespaces"), "", &object).is_some());
    assert!(meant(&with("namespaceSelector", json!({"team": "a"})), ("", "v1", "namespaces"), "", &object).is_none());
}
