use expect_test::expect;
use serde_json::json;

use super::*;
use crate::field::{Cause, FieldError};

fn thing() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["max"],
                "x-kubernetes-validations": [{"rule": "self.replicas <= self.max"}],
                "properties": {
                    "replicas": {"type": "integer", "default": 1, "minimum": 0},
                    "max": {"type": "integer"},
                    "mode": {"type": "string", "enum": ["A", "B"]},
                    "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                    "list": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}, "v": {"type": "string", "default": "x"}},
                        },
                    },
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "port": {"x-kubernetes-int-or-string": true},
                    "none": {"type": "string", "nullable": true},
                    "when": {"type": "string", "format": "date-time"},
                    "either": {
                        "type": "object",
                        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                    },
                },
            },
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        },
    })
}

fn schema() -> Schema {
    Schema::from_crd(&thing()).unwrap()
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "e.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
}

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(|e| format!("{} {e}\n", e.cause.as_str())).collect()
}

#[test]
fn defaults_reach_into_lists_and_spare_absent_objects() {
    let mut o = object(json!({"max": 3, "list": [{"name": "a"}, {"name": "b", "v": "y"}], "mode": null, "none": null,
            "labels": {"a": null}}));
    schema().default(&mut o);
    assert_eq!(
        o["spec"],
        json!({"max": 3, "replicas": 1, "none": null, "labels": {}, "list": [{"name": "a", "v": "x"},
            {"name": "b", "v": "y"}]})
    );
    let mut bare = json!({"metadata": {"name": "t"}});
    schema().default(&mut bare);
    assert_eq!(bare, json!({"metadata": {"name": "t"}}));
}

#[test]
fn pruning_names_what_it_removes() {
    let mut o = object(json!({
        "max": 3, "junk": 1, "free": {"x": {"y": 1}}, "labels": {"any": "thing"},
        "list": [{"name": "a", "more": 1}], "port": 80,
    }));
    o["metadata"]["odd"] = json!(1);
    o["top"] = json!({});
    let want = ["metadata.odd", "spec.junk", "spec.list[0].more", "top"];
    assert_eq!(schema().unknown_fields(&o), want);
    assert_eq!(schema().prune(&mut o), want);
    assert_eq!(schema().prune(&mut o), [""; 0]);
    assert_eq!(o["spec"]["free"], json!({"x": {"y": 1}}));
    assert_eq!(o["spec"]["labels"], json!({"any": "thing"}));
}

#[test]
fn validation_names_field_and_cause() {
    let good = object(json!({
        "max": 3, "port": "http", "none": null, "when": "2026-01-01T00:00:00Z", "either": {"a": ""}, "name": "abc",
    }));
    assert_eq!(schema().validate(&good), []);
    let bad = object(json!({
        "replicas": -1, "mode": "C", "name": "TooLong", "list": [{"name": "a"}, {"name": "a"}, {}],
        "labels": {"a": 1}, "port": 1.5, "when": "yesterday", "either": {"a": "", "b": ""},
    }));
    expect![[r#"
        FieldValueInvalid spec.either: Invalid value: {"a":"","b":""}: spec.either in body must validate one and only one schema (oneOf)
        FieldValueTypeInvalid spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"
        FieldValueRequired spec.list[2].name: Required value
        FieldValueDuplicate spec.list[1]: Duplicate value: {"name":"a"}
        FieldValueNotSupported spec.mode: Unsupported value: "C": supported values: "A", "B"
        FieldValueTooLong spec.name: Too long: may not be more than 5 bytes
        FieldValueInvalid spec.name: Invalid value: "TooLong": spec.name in body should match '^[a-z]+$'
        FieldValueTypeInvalid spec.port: Invalid value: "number": spec.port in body must be of type integer or string: "number"
        FieldValueInvalid spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0
        FieldValueInvalid spec.when: Invalid value: "yesterday": spec.when in body must be of type date-time: "yesterday"
        FieldValueRequired spec.max: Required value
    "#]]
    .assert_eq(&lines(&schema().validate(&bad)));
    let none = schema().validate(&json!({"metadata": {"name": "t"}}));
    assert_eq!(none, [FieldError::required("spec", "")]);
    let text = schema().validate(&object(json!({"max": "3"})));
    assert_eq!((text[0].cause, text[0].field.as_str()), (Cause::TypeInvalid, "spec.max"));
}

#[test]
fn schemas_that_are_not_structural() {
    let errors = |patch: Value| {
        let mut schema = thing();
        json_patch::merge(&mut schema, &patch);
        Schema::from_crd(&schema).map(|_| String::new()).unwrap_or_else(|e| lines(&e))
    };
    let spec = |fields: Value| json!({"properties": {"spec": {"properties": fields}}});
    assert_eq!(errors(json!({})), "");
    expect![[r#"
        FieldValueRequired properties[spec].type: Required value: must not be empty for specified object fields
    "#]]
    .assert_eq(&errors(json!({"properties": {"spec": {"type": null}}})));
    expect![[r#"
        FieldValueRequired type: Required value: must not be empty at the root
    "#]]
    .assert_eq(&errors(json!({"type": null})));
    expect![[r#"
        FieldValueInvalid type: Invalid value: "string": must be object at the root
    "#]]
    .assert_eq(&errors(json!({"type": "string"})));
    for (fields, cause, at) in [
        (json!({"x": {"type": "array"}}), Cause::Required, "items"),
        (json!({"x": {"type": "array", "items": {}}}), Cause::Required, "items.type"),
        (json!({"x": {"type": "tuple"}}), Cause::NotSupported, "type"),
        (json!({"x": {"type": "object", "$ref": "y"}}), Cause::Forbidden, "$ref"),
        (json!({"x": {"type": "object", "additionalProperties": false}}), Cause::Forbidden, "additionalProperties"),
        (
            json!({"x": {"type": "object", "properties": {"y": {"type": "string"}},
                "additionalProperties": {"type": "string"}}}),
            Cause::Forbidden,
            "additionalProperties",
        ),
        (json!({"x": {"type": "string", "pattern": "("}}), Cause::Invalid, "pattern"),
        (json!({"x": {"type": "string", "allOf": [{"type": "string"}]}}), Cause::Forbidden, "allOf[0].type"),
        (
            json!({"x": {"type": "object", "anyOf": [{"properties": {"y": {"minimum": 1}}}]}}),
            Cause::Required,
            "properties[y]",
        ),
        (json!({"x": {"type": "string", "default": 3}}), Cause::TypeInvalid, "default"),
        (
            json!({"x": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}),
            Cause::Required,
            "x-kubernetes-list-map-keys",
        ),
        (
            json!({"x": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}}}}}),
            Cause::Required,
            "items.properties[n].default",
        ),
        (json!({"x": {"type": "string", "x-kubernetes-list-type": "set"}}), Cause::Invalid, "type"),
        (json!({"x": {"type": "integer", "x-kubernetes-int-or-string": true}}), Cause::Invalid, "type"),
    ] {
        let mut schema = thing();
        json_patch::merge(&mut schema, &spec(fields.clone()));
        let found = Schema::from_crd(&schema).unwrap_err();
        let at = format!("properties[spec].properties[x].{at}");
        assert!(found.iter().any(|e| e.cause == cause && e.field == at), "{fields}: {found:?}");
    }
    let meta =
        errors(json!({"properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}));
    assert!(meta.contains("properties[metadata].properties[labels]"), "{meta}");
}

#[test]
fn names_may_be_limited_and_metadata_is_the_same_everywhere() {
    let mut source = thing();
    source["properties"]["metadata"] =
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}});
    let schema = Schema::from_crd(&source).unwrap();
    let mut o = object(json!({"max": 1}));
    o["metadata"] = json!({"name": "long", "labels": {"a": "b"}, "uid": "u"});
    assert_eq!(schema.unknown_fields(&o), [""; 0]);
    assert_eq!(schema.validate(&o)[0].field, "metadata.name");
}

#[test]
fn int_or_string_with_a_pattern() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {"q": {
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": "^[0-9]+%?$",
    }}}))
    .unwrap();
    for (q, good) in [(json!(3), true), (json!("25%"), true), (json!("x"), false), (json!(true), false)] {
        assert_eq!(schema.validate(&json!({"q": q})).is_empty(), good, "{q}");
    }
}

#[test]
fn rules_are_found_with_the_value_before() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {"spec": {
        "type": "object",
        "x-kubernetes-validations": [{"rule": "a"}],
        "properties": {
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {
                "type": "object", "required": ["n"], "x-kubernetes-validations": [{"rule": "b"}],
                "properties": {"n": {"type": "string"}, "v": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "c"}]}},
        },
    }}}))
    .unwrap();
    let old = json!({"spec": {"list": [{"n": "y", "v": 1}], "map": {"k": 1}}});
    let new = json!({"spec": {"list": [{"n": "x"}, {"n": "y", "v": 2}], "map": {"k": 2}}});
    let sites = schema.rule_sites(&new, Some(&old));
    let found: Vec<(&str, bool)> = sites.iter().map(|s| (s.path.as_str(), s.old.is_some())).collect();
    assert_eq!(found, [("spec", true), ("spec.list[0]", false), ("spec.list[1]", true), ("spec.map[k]", true)]);
    assert_eq!(sites[2].old, Some(&json!({"n": "y", "v": 1})));
    assert!(schema.rule_sites(&json!({}), None).is_empty());
}

#[test]
fn published_form_reads_back() {
    let schema = schema();
    let published = schema.to_openapi();
    assert_eq!(
        published.pointer("/properties/spec/properties/replicas"),
        Some(&json!({"type": "integer", "default": 1, "minimum": 0}))
    );
    assert_eq!(
        published.pointer("/properties/spec/properties/list/x-kubernetes-list-map-keys"),
        Some(&json!(["name"]))
    );
    let mut again = published;
    again["properties"].as_object_mut().unwrap().remove("metadata");
    assert_eq!(Schema::from_crd(&again).unwrap(), schema);
}

#[test]
fn equal_parts_are_held_once() {
    let (one, two) = (schema(), schema());
    assert!(Arc::ptr_eq(&one.properties["spec"], &two.properties["spec"]));
    let spec = &one.properties["spec"];
    assert!(Arc::ptr_eq(
        &spec.properties["max"],
        &Schema::from_crd(&json!({
        "type": "object", "properties": {"n": {"type": "integer"}}}))
        .unwrap()
        .properties["n"]
    ));
    assert!(!Arc::ptr_eq(&spec.properties["max"], &spec.properties["replicas"]));
}

#[test]
fn an_embedded_resource_says_what_it_is() {
    let schema = json!({"type": "object", "properties": {"inner": {
        "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}});
    let schema = Schema::from_crd(&schema).unwrap();
    for (inner, want) in [
        (json!({"apiVersion": "v1", "kind": "Pod"}), vec![]),
        (json!({"apiVersion": "v1"}), vec!["inner.kind"]),
        (json!({"kind": ""}), vec!["inner.apiVersion", "inner.kind"]),
    ] {
        let found = schema.validate(&json!({"inner": inner}));
        assert!(found.iter().all(|e| e.cause == Cause::Required), "{found:?}");
        assert_eq!(found.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
    }
}
