use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::builtin;

fn deployment(containers: Value) -> Value {
    json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {"spec": {"containers": containers}}}})
}

fn merged(object: &Value, patch: Value) -> Value {
    strategic(builtin::schema("apps/v1", "Deployment").unwrap(), object, &patch).unwrap()
}

fn containers(object: &Value) -> &Value {
    object.pointer("/spec/template/spec/containers").unwrap()
}

#[test]
fn json_patch_is_all_or_nothing_and_says_why() {
    let object = json!({"data": {"a": "1"}});
    let good =
        json(&object, &json!([{"op": "add", "path": "/data/b", "value": "2"}, {"op": "remove", "path": "/data/a"}]));
    assert_eq!(good.unwrap(), json!({"data": {"b": "2"}}));
    let error = |patch: Value| json(&object, &patch).unwrap_err();
    assert_eq!(
        error(json!([{"op": "test", "path": "/data/a", "value": "2"}])),
        JsonPatchError::TestFailed { operation: 0, path: "/data/a".into() }
    );
    assert_eq!(
        error(json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "remove", "path": "/data/x"}])),
        JsonPatchError::NoSuchPath { operation: 1, path: "/data/x".into() }
    );
    assert!(matches!(error(json!([{"op": "frob", "path": "/data"}])), JsonPatchError::Malformed(_)));
    assert!(matches!(error(json!({"op": "add"})), JsonPatchError::Malformed(_)));
}

#[test]
fn containers_and_environment_merge_by_name() {
    let object = deployment(json!([{"name": "a", "image": "i:1", "env": [{"name": "X", "value": "1"}]}]));
    let next = merged(
        &object,
        deployment(json!([
            {"name": "b", "image": "i:2"},
            {"name": "a", "env": [{"name": "Y", "value": "2"}]},
        ])),
    );
    assert_eq!(
        containers(&next),
        &json!([
            {"name": "b", "image": "i:2"},
            {"name": "a", "image": "i:1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
        ])
    );
    let next = merged(&next, deployment(json!([{"$patch": "delete", "name": "b"}])));
    assert_eq!(containers(&next).as_array().unwrap().len(), 1);
    let next = merged(
        &next,
        json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c",
            "image": "i:3"}]}}}}),
    );
    let names: Vec<&Value> = containers(&next).as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["c", "a"]);
    let next = merged(&next, deployment(json!([{"$patch": "replace"}, {"name": "z", "image": "only"}])));
    assert_eq!(containers(&next), &json!([{"name": "z", "image": "only"}]));
}

#[test]
fn retain_keys_and_replaced_objects() {
    let object = deployment(json!([]));
    let next = merged(&object, json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}));
    assert_eq!(next["spec"]["strategy"], json!({"type": "Recreate"}));
    let next = merged(&object, json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}));
    assert_eq!(next["spec"]["strategy"], json!({"type": "Recreate"}));
    let next = merged(&object, json!({"spec": {"strategy": {"$patch": "delete"}}}));
    assert_eq!(next["spec"].get("strategy"), None);
    let next = merged(&object, json!({"spec": {"strategy": null}}));
    assert_eq!(next["spec"].get("strategy"), None);
}

#[test]
fn plain_lists_merge_or_are_replaced_as_their_field_says() {
    let object = json!({"metadata": {"finalizers": ["a/a", "b/b"]},
        "spec": {"template": {"spec": {"tolerations": [{"key": "x"}]}}}});
    let next =
        merged(&object, json!({"metadata": {"finalizers": ["c/c"], "$deleteFromPrimitiveList/finalizers": ["a/a"]}}));
    let mut list: Vec<&str> =
        next["metadata"]["finalizers"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    list.sort_unstable();
    assert_eq!(list, ["b/b", "c/c"]);
    let next = merged(&object, json!({"spec": {"template": {"spec": {"tolerations": [{"key": "y"}]}}}}));
    assert_eq!(next.pointer("/spec/template/spec/tolerations"), Some(&json!([{"key": "y"}])));
}

#[test]
fn directives_that_make_no_sense() {
    let schema = builtin::schema("apps/v1", "Deployment").unwrap();
    let object = deployment(json!([{"name": "a"}]));
    let error = |patch: Value| strategic(schema, &object, &patch).unwrap_err();
    assert_eq!(
        error(deployment(json!([{"image": "x"}]))),
        StrategicError::MissingKey { field: "spec.template.spec.containers".into(), key: "name".into() }
    );
    assert!(matches!(error(json!({"spec": {"$patch": "explode"}})), StrategicError::UnknownDirective { .. }));
    assert!(matches!(
        error(json!({"spec": {"strategy": {"$retainKeys": "type"}}})),
        StrategicError::DirectiveNotAList { .. }
    ));
    assert!(matches!(
        error(json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "nobody"}]}}}})),
        StrategicError::OrderMismatch { .. }
    ));
    assert!(matches!(error(json!([])), StrategicError::NotAnObject { .. }));
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
        (0..3).prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_merge_patch_of_the_difference_leads_there(from in tree(), to in tree()) {
        match merge_diff(&from, &to) {
            None => prop_assert_eq!(from, to),
            Some(patch) => prop_assert_eq!(merge(&from, &patch), to),
        }
    }

    #[test]
    fn an_empty_strategic_patch_changes_nothing(image in "[a-z]{1,5}") {
        let object = deployment(json!([{"name": "a", "image": image}]));
        prop_assert_eq!(&merged(&object, json!({})), &object);
        prop_assert_eq!(merged(&object, object.clone()), object);
    }
}
