use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::builtin;

fn by(name: &str, time: &str) -> Manager {
    Manager { name: name.into(), api_version: "v1".into(), subresource: String::new(), time: Some(time.into()) }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

fn schema() -> &'static Schema {
    builtin::schema("v1", "ConfigMap").unwrap()
}

/// One line per owner: manager, operation, time, fields.
fn owners(object: &Value) -> String {
    let mut out = String::new();
    for e in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let text = |n: &str| e[n].as_str().unwrap_or("-").to_owned();
        let sub = e.get("subresource").map(|s| format!("/{}", s.as_str().unwrap())).unwrap_or_default();
        out += &format!("{}{sub} {} {} {}\n", text("manager"), text("operation"), text("time"), e["fieldsV1"]);
    }
    out
}

fn check(object: &Value, want: Expect) {
    want.assert_eq(&owners(object));
}

#[test]
fn apply_owns_what_it_says_and_removes_what_it_no_longer_says() {
    let one = apply(schema(), None, &config_map(json!({"a": "1", "b": "1"})), &by("m1", "t1"), false).unwrap();
    check(
        &one,
        expect![[r#"
        m1 Apply t1 {"f:data":{"f:a":{},"f:b":{}}}
    "#]],
    );
    let same = apply(schema(), Some(&one), &config_map(json!({"a": "1", "b": "1"})), &by("m1", "t2"), false).unwrap();
    assert_eq!(same, one, "an equal configuration changes nothing, not even a time");
    let less = apply(schema(), Some(&one), &config_map(json!({"a": "1"})), &by("m1", "t3"), false).unwrap();
    assert_eq!(less["data"], json!({"a": "1"}));
    check(
        &less,
        expect![[r#"
        m1 Apply t3 {"f:data":{"f:a":{}}}
    "#]],
    );
    let none = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let gone = apply(schema(), Some(&less), &none, &by("m1", "t4"), false).unwrap();
    assert_eq!(gone, none, "the map goes with its last entry");
}

#[test]
fn a_conflict_names_the_owner_and_force_takes_over() {
    let live = apply(schema(), None, &config_map(json!({"a": "1"})), &by("m1", "t1"), false).unwrap();
    let other = config_map(json!({"a": "2"}));
    let e = apply(schema(), Some(&live), &other, &by("m2", "t2"), false).unwrap_err();
    expect![[r#"Apply failed with 1 conflict: conflict with "m1": .data.a"#]].assert_eq(&e.to_string());
    let forced = apply(schema(), Some(&live), &other, &by("m2", "t2"), true).unwrap();
    check(
        &forced,
        expect![[r#"
        m2 Apply t2 {"f:data":{"f:a":{}}}
    "#]],
    );
    // The former owner may say something else without losing what the other took.
    let c = apply(schema(), Some(&forced), &config_map(json!({"c": "1"})), &by("m1", "t3"), false).unwrap();
    assert_eq!(c["data"], json!({"a": "2", "c": "1"}));
    let mut edited = c.clone();
    edited["data"]["a"] = json!("9");
    record_update(schema(), Some(&c), &mut edited, &by("upd", "t4"));
    check(
        &edited,
        expect![[r#"
        m1 Apply t3 {"f:data":{"f:c":{}}}
        upd Update t4 {"f:data":{"f:a":{}}}
    "#]],
    );
    let e =
        apply(schema(), Some(&edited), &config_map(json!({"a": "2", "c": "2"})), &by("m3", "t5"), false).unwrap_err();
    let ApplyError::Conflicts(all) = &e else { panic!("{e}") };
    let found: Vec<(String, &str)> = all.iter().map(|c| (c.message(), c.field.as_str())).collect();
    assert_eq!(
        found,
        [(r#"conflict with "m1""#.to_owned(), ".data.c"), (r#"conflict with "upd" using v1"#.to_owned(), ".data.a"),]
    );
    expect![[r#"
        Apply failed with 2 conflicts: conflicts with "m1":
        - .data.c
        conflicts with "upd" using v1:
        - .data.a"#]]
    .assert_eq(&e.to_string());
}

#[test]
fn the_same_value_is_shared_and_stays_until_the_last_owner_drops_it() {
    let a = config_map(json!({"a": "1"}));
    let live = apply(schema(), None, &a, &by("m1", "t1"), false).unwrap();
    let both = apply(schema(), Some(&live), &a, &by("m2", "t2"), false).unwrap();
    check(
        &both,
        expect![[r#"
        m1 Apply t1 {"f:data":{"f:a":{}}}
        m2 Apply t2 {"f:data":{"f:a":{}}}
    "#]],
    );
    let empty = config_map(json!({}));
    let one = apply(schema(), Some(&both), &empty, &by("m1", "t3"), false).unwrap();
    assert_eq!(one["data"], json!({"a": "1"}));
    let none = apply(schema(), Some(&one), &empty, &by("m2", "t4"), false).unwrap();
    assert_eq!(none["data"].get("a"), None);
}

#[test]
fn an_update_keeps_what_it_did_not_touch() {
    let mut live = config_map(json!({"a": "1"}));
    live["metadata"]["labels"] = json!({"app": "x"});
    live["metadata"]["finalizers"] = json!(["e.com/f"]);
    live["metadata"]["uid"] = json!("u");
    record_update(schema(), None, &mut live, &by("cli", "t1"));
    check(
        &live,
        expect![[r#"
        cli Update t1 {"f:data":{".":{},"f:a":{}},"f:metadata":{"f:finalizers":{".":{},"v:\"e.com/f\"":{}},"f:labels":{".":{},"f:app":{}}}}
    "#]],
    );
    let mut same = live.clone();
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    record_update(schema(), Some(&live), &mut same, &by("cli", "t2"));
    assert_eq!(same, live);
    let mut next = live.clone();
    next["metadata"].as_object_mut().unwrap().remove("labels");
    next["data"]["b"] = json!("2");
    record_update(schema(), Some(&live), &mut next, &by("other", "t2"));
    check(
        &next,
        expect![[r#"
        cli Update t1 {"f:data":{".":{},"f:a":{}},"f:metadata":{"f:finalizers":{".":{},"v:\"e.com/f\"":{}}}}
        other Update t2 {"f:data":{"f:b":{}}}
    "#]],
    );
    // A single empty entry asks for a fresh start.
    let mut reset = next.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    record_update(schema(), Some(&next), &mut reset, &by("other", "t3"));
    check(&reset, expect![""]);
}

#[test]
fn lists_of_named_items_merge_and_defaults_have_no_owner() {
    let schema = builtin::schema("apps/v1", "Deployment").unwrap();
    let by = |name: &str, time: &str| Manager { api_version: "apps/v1".into(), ..by(name, time) };
    let config = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "a", "image": "i:1", "env": [{"name": "X", "value": "1"}],
                    "ports": [{"containerPort": 80}]}]},
            },
        },
    });
    let mut live = apply(schema, None, &config, &by("m1", "t1"), false).unwrap();
    builtin::default("apps/v1", "Deployment", &mut live);
    check(
        &live,
        expect![[r#"
        m1 Apply t1 {"f:spec":{"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:env":{"k:{\"name\":\"X\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}
    "#]],
    );
    let side = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s:1"}]}}},
    });
    let mut live = apply(schema, Some(&live), &side, &by("m2", "t2"), false).unwrap();
    builtin::default("apps/v1", "Deployment", &mut live);
    // The first manager's configuration has no environment any more; the other's container stays.
    let mut config = config;
    config["spec"]["template"]["spec"]["containers"][0]["env"] = json!([]);
    let mut live = apply(schema, Some(&live), &config, &by("m1", "t3"), false).unwrap();
    builtin::default("apps/v1", "Deployment", &mut live);
    let containers = live.pointer("/spec/template/spec/containers").unwrap();
    let names: Vec<&str> = containers.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "side"]);
    assert!(containers[0].get("env").is_none());
    let e = apply(
        schema,
        Some(&live),
        &{
            let mut c = side;
            c["spec"]["template"]["spec"]["containers"] = json!([{"name": "a", "image": "other"}]);
            c
        },
        &by("m2", "t4"),
        false,
    );
    expect![[r#"Apply failed with 1 conflict: conflict with "m1": .spec.template.spec.containers[name="a"].image"#]]
        .assert_eq(&e.unwrap_err().to_string());
}

#[test]
fn subresources_own_apart() {
    let schema = builtin::schema("apps/v1", "Deployment").unwrap();
    let manager = |sub: &str, time: Option<&str>| Manager {
        name: "c".into(),
        api_version: "apps/v1".into(),
        subresource: sub.into(),
        time: time.map(str::to_owned),
    };
    let mut live =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}});
    builtin::default("apps/v1", "Deployment", &mut live);
    live["spec"] = json!({"replicas": 1});
    record_update(schema, None, &mut live, &manager("", Some("t1")));
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(3);
    record_update(schema, Some(&live), &mut scaled, &manager("scale", None));
    let mut status = scaled.clone();
    status["status"]["replicas"] = json!(3);
    record_update(schema, Some(&scaled), &mut status, &manager("status", Some("t2")));
    check(
        &status,
        expect![[r#"
        c/scale Update - {"f:spec":{"f:replicas":{}}}
        c/status Update t2 {"f:status":{"f:replicas":{}}}
    "#]],
    );
}

#[test]
fn custom_objects_with_free_parts() {
    let schema = Schema::from_crd(&json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"x": {"type": "integer"}}},
            "plain": {"type": "array", "items": {"type": "integer"}},
        }}},
    }))
    .unwrap();
    let object = json!({
        "apiVersion": "e.com/v1", "kind": "T", "metadata": {"name": "t"},
        "spec": {"free": {"x": {"y": [1]}}, "set": ["a", "b"], "atom": {"x": 1}, "plain": [1, 2]},
    });
    let mut updated = object.clone();
    record_update(&schema, None, &mut updated, &by("u", "t1"));
    let applied = apply(&schema, None, &object, &by("a", "t1"), false).unwrap();
    check(
        &updated,
        expect![[r#"
        u Update t1 {"f:spec":{".":{},"f:atom":{},"f:free":{".":{},"f:x":{".":{},"f:y":{}}},"f:plain":{},"f:set":{".":{},"v:\"a\"":{},"v:\"b\"":{}}}}
    "#]],
    );
    check(
        &applied,
        expect![[r#"
        a Apply t1 {"f:spec":{"f:atom":{},"f:free":{"f:x":{".":{},"f:y":{}}},"f:plain":{},"f:set":{"v:\"a\"":{},"v:\"b\"":{}}}}
    "#]],
    );
    let more = json!({"apiVersion": "e.com/v1", "kind": "T", "metadata": {"name": "t"}, "spec": {"set": ["c", "a"]}});
    let both = apply(&schema, Some(&applied), &more, &by("b", "t2"), false).unwrap();
    assert_eq!(both["spec"]["set"], json!(["c", "a", "b"]));
    let twice = json!({"metadata": {"name": "t"}, "spec": {"set": ["a", "a"]}});
    let e = apply(&schema, Some(&both), &twice, &by("b", "t3"), false).unwrap_err();
    assert!(matches!(&e, ApplyError::Duplicate(f) if f.field == "spec.set[1]"), "{e}");
}

#[test]
fn fields_of_others_in_a_dropped_object_stay() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "s": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
    }}}}))
    .unwrap();
    let object = |spec: Value| json!({"metadata": {"name": "t"}, "spec": spec});
    let live = apply(&schema, None, &object(json!({"s": {"a": "1"}})), &by("m", "t1"), false).unwrap();
    let mut touched = live.clone();
    touched["spec"]["s"]["b"] = json!("2");
    record_update(&schema, Some(&live), &mut touched, &by("u", "t2"));
    let dropped = apply(&schema, Some(&touched), &object(json!({})), &by("m", "t3"), false).unwrap();
    assert_eq!(dropped["spec"], json!({"s": {"b": "2"}}));
    let all = apply(&schema, Some(&live), &json!({"metadata": {"name": "t"}}), &by("m", "t3"), false).unwrap();
    assert_eq!(all.get("spec"), None);
}

#[test]
fn what_cannot_be_applied() {
    let mut config = config_map(json!({}));
    config["metadata"]["managedFields"] = json!([]);
    let e = apply(schema(), None, &config, &by("m", "t"), false).unwrap_err();
    assert_eq!(e.to_string(), "metadata.managedFields must be nil");
    let mut live = config_map(json!({}));
    for (entry, problem) in [
        (json!({"operation": "Guess"}), "metadata.managedFields[0].operation must be Apply or Update"),
        (json!({"operation": "Apply", "fieldsType": "V2"}), "metadata.managedFields[0].fieldsType must be FieldsV1"),
        (
            json!({"operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}),
            "metadata.managedFields[0].fieldsV1: \"x\" is not a step of a path: it must start with f:, k:, v: or i:",
        ),
    ] {
        live["metadata"]["managedFields"] = json!([entry]);
        assert_eq!(metadata_problem(&live).unwrap().to_string(), problem);
    }
}

#[test]
fn times_alone_are_no_change() {
    let a = apply(schema(), None, &config_map(json!({"a": "1"})), &by("m", "t1"), false).unwrap();
    let b = apply(schema(), None, &config_map(json!({"a": "1"})), &by("m", "t2"), false).unwrap();
    let c = apply(schema(), None, &config_map(json!({"a": "1"})), &by("n", "t1"), false).unwrap();
    assert!(a != b && equal_but_for_times(&a, &b) && !equal_but_for_times(&a, &c));
}

#[test]
fn items_that_share_a_name_survive_the_apply_of_others() {
    let schema = builtin::schema("v1", "Service").unwrap();
    let port = |name: &str| json!({"name": name, "port": 1, "protocol": "TCP"});
    let mut live = json!({"metadata": {"name": "s"}, "spec": {"ports": [port("a"), port("b")]}});
    record_update(schema, None, &mut live, &by("u", "t1"));
    let labels =
        json!({"metadata": {"name": "s", "labels": {"x": "y"}}, "spec": {"ports": [{"port": 2, "protocol": "TCP"}]}});
    let next = apply(schema, Some(&live), &labels, &by("m", "t2"), false).unwrap();
    let names: Vec<&Value> = next["spec"]["ports"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, [&json!("a"), &json!("b"), &Value::Null]);
    let mut same = next.clone();
    record_update(schema, Some(&next), &mut same, &by("v", "t3"));
    assert_eq!(same, next);
}

#[test]
fn fields_of_unknown_owners_are_not_overwritten_silently() {
    let live = config_map(json!({"a": "1", "b": "1"}));
    let mut config = config_map(json!({"a": "2"}));
    config["metadata"]["creationTimestamp"] = Value::Null;
    let e = apply(schema(), Some(&live), &config, &by("m", "t"), false).unwrap_err();
    assert_eq!(e.to_string(), "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a");
    let forced = apply(schema(), Some(&live), &config, &by("m", "t"), true).unwrap();
    assert_eq!(forced["metadata"].get("creationTimestamp"), None);
    check(
        &forced,
        expect![[r#"
        m Apply t {"f:data":{"f:a":{}}}
        before-first-apply Update t {"f:data":{".":{},"f:b":{}}}
    "#]],
    );
}
