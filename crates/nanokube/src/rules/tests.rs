use serde_json::json;

use super::*;

fn schema(rules: Value) -> Schema {
    Schema::from_crd(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'nope'"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "n must not shrink"}],
            }},
        }},
    }}))
    .unwrap()
}

fn said(schema: &Schema, new: Value, old: Option<Value>) -> Vec<String> {
    let errors = check(
        &Expressions::default(),
        schema,
        &json!({"spec": new}),
        old.map(|old| json!({"spec": old})).as_ref(),
        &[],
    );
    errors.iter().map(|error| format!("{} {error}", error.cause.as_str())).collect()
}

#[test]
fn a_rule_refuses_with_its_message_reason_and_path() {
    let schema = schema(json!([
        {"rule": "self.min <= self.max", "message": "too wide"},
        {"rule": "self.max < 10", "messageExpression": "'max is ' + string(self.max)", "fieldPath": ".max",
         "reason": "FieldValueForbidden"},
        {"rule": "self.max != 13"},
    ]));
    assert_eq!(said(&schema, json!({"min": 1, "max": 2}), None), Vec::<String>::new());
    assert_eq!(said(&schema, json!({"min": 3, "max": 2}), None), ["FieldValueInvalid spec: Invalid value: too wide"]);
    assert_eq!(
        said(&schema, json!({"min": 3, "max": 13}), None),
        [
            "FieldValueForbidden spec.max: Forbidden: max is 13",
            "FieldValueInvalid spec: Invalid value: failed rule: self.max != 13"
        ]
    );
    assert_eq!(
        said(&schema, json!({"min": 1, "max": 2, "name": "nope"}), None),
        ["FieldValueInvalid spec.name: Invalid value: \"nope\": failed rule: self != 'nope'"]
    );
}

#[test]
fn a_rule_that_cannot_be_answered_refuses() {
    let schema = schema(json!([{"rule": "self.min <= self.max", "message": "too wide"}]));
    assert_eq!(
        said(&schema, json!({"max": 2}), None),
        ["FieldValueInvalid spec: Invalid value: no such key: min evaluating rule: too wide"]
    );
}

#[test]
fn transitions_compare_items_by_their_keys() {
    let schema = schema(json!([]));
    let old = json!({"ports": [{"name": "a", "n": 1}, {"name": "b", "n": 5}]});
    let swapped = json!({"ports": [{"name": "b", "n": 5}, {"name": "a", "n": 1}, {"name": "c", "n": 0}]});
    assert_eq!(said(&schema, swapped, Some(old.clone())), Vec::<String>::new());
    let shrunk = json!({"ports": [{"name": "b", "n": 4}, {"name": "a", "n": 1}]});
    assert_eq!(said(&schema, shrunk, Some(old)), ["FieldValueInvalid spec.ports[0]: Invalid value: n must not shrink"]);
}

#[test]
fn what_nobody_touches_stays_acceptable() {
    let schema = schema(json!([]));
    let value = json!({"name": "nope", "max": 1});
    assert_eq!(said(&schema, json!({"name": "nope", "max": 2}), Some(value)), Vec::<String>::new());
}

#[test]
fn an_optional_old_state_is_there_on_creation() {
    let schema = schema(json!([
        {"rule": "oldSelf.hasValue() || self.max == 1", "message": "starts at 1", "optionalOldSelf": true},
    ]));
    assert_eq!(said(&schema, json!({"max": 2}), None), ["FieldValueInvalid spec: Invalid value: starts at 1"]);
    assert_eq!(said(&schema, json!({"max": 2}), Some(json!({"max": 1}))), Vec::<String>::new());
}

#[test]
fn rules_are_not_asked_about_a_misshapen_object() {
    let schema = schema(json!([{"rule": "false"}]));
    let found = [FieldError::required("spec.max", "")];
    let errors = check(&Expressions::default(), &schema, &json!({"spec": {}}), None, &found);
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].field.as_str(), errors[0].cause), ("<nil>", Cause::Invalid));
}

#[test]
fn a_definition_with_wrong_rules_is_refused() {
    let found = |rule: Value| {
        let errors = check_declared(&schema(json!([rule])));
        errors.iter().map(|error| format!("{} {}", error.cause.as_str(), error.field)).collect::<Vec<_>>()
    };
    let at = "properties[spec].x-kubernetes-validations[0]";
    assert_eq!(found(json!({"rule": "self.min == self.max", "fieldPath": ".max"})), Vec::<String>::new());
    assert_eq!(found(json!({"rule": ""})), [format!("FieldValueRequired {at}.rule")]);
    assert_eq!(found(json!({"rule": "self.min =="})), [format!("FieldValueInvalid {at}.rule")]);
    assert_eq!(found(json!({"rule": "self.nope == 1"})), [format!("FieldValueInvalid {at}.rule")]);
    assert_eq!(found(json!({"rule": "object.min == 1"})), [format!("FieldValueInvalid {at}.rule")]);
    assert_eq!(found(json!({"rule": "true", "reason": "Because"})), [format!("FieldValueNotSupported {at}.reason")]);
    assert_eq!(found(json!({"rule": "true", "fieldPath": ".nope"})), [format!("FieldValueInvalid {at}.fieldPath")]);
    assert_eq!(
        found(json!({"rule": "true", "messageExpression": "1 +"})),
        [format!("FieldValueInvalid {at}.messageExpression")]
    );
}
