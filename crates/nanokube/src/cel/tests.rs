use apimachinery::schema::Schema;
use serde_json::json;

use super::*;

fn bindings(value: CelValue) -> Bindings {
    Bindings::from([("self", value)])
}

fn holds(source: &str, value: CelValue) -> Result<bool, String> {
    run_bool(&compile(source).unwrap(), &bindings(value))
}

#[test]
fn declared_names_are_escaped_and_data_is_not() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {
        "my_field": {"type": "integer"}, "a-b": {"type": "integer"}, "x.y": {"type": "integer"},
        "p__q": {"type": "integer"}, "in": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }}))
    .unwrap();
    let value = json!({"my_field": 1, "a-b": 2, "x.y": 3, "p__q": 4, "in": 5, "labels": {"a.b/c-d": "e"}});
    for rule in [
        "self.my_field == 1",
        "self.a__dash__b == 2",
        "self.x__dot__y == 3",
        "self.p__underscores__q == 4",
        "self.__in__ == 5",
        "self.labels['a.b/c-d'] == 'e'",
    ] {
        assert_eq!(holds(rule, typed(&value, &schema)), Ok(true), "{rule}");
    }
}

#[test]
fn formats_become_values_that_can_be_compared() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {
        "at": {"type": "string", "format": "date-time"}, "every": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"}, "part": {"type": "number"},
    }}))
    .unwrap();
    let value = json!({"at": "2026-01-01T00:00:00Z", "every": "1h30m", "data": "YWJj", "part": 3});
    for rule in [
        "self.at < timestamp('2026-06-01T00:00:00Z')",
        "self.every == duration('90m')",
        "size(self.data) == 3",
        "self.part == 3.0",
    ] {
        assert_eq!(holds(rule, typed(&value, &schema)), Ok(true), "{rule}");
    }
}

#[test]
fn failures_are_told_in_known_words() {
    assert_eq!(holds("self.a == 1", free(&json!({"b": 1}))), Err("no such key: a".to_owned()));
    assert_eq!(holds("1 / self.a == 1", free(&json!({"a": 0}))), Err("division by zero".to_owned()));
    assert!(compile("self.a ==").is_err());
}

#[test]
fn names_and_fields_are_looked_up() {
    let schema = Schema::from_crd(&json!({"type": "object", "properties": {
        "a": {"type": "object", "properties": {"b": {"type": "integer"}}}, "l": {"type": "array", "items": {"type": "string"}},
    }}))
    .unwrap();
    let fields = |source: &str| unknown_fields(&compile(source).unwrap(), "self", &schema);
    assert_eq!(fields("self.a.b > 0 && has(self.a.b)"), Vec::<String>::new());
    assert_eq!(fields("self.a.c > 0"), ["c"]);
    assert_eq!(fields("has(self.d)"), ["d"]);
    let names = |source: &str| unknown_names(&compile(source).unwrap(), &["self"]);
    assert_eq!(names("self.l.all(x, x != '' && x in ['a']) && type(self.a.b) == int"), Vec::<String>::new());
    for source in
        ["math.greatest(1, 2) == 2", "sets.contains([1], [1])", "optional.of(1).hasValue()", "ip.isCanonical('::1')"]
    {
        assert_eq!(names(source), Vec::<String>::new(), "{source}");
        assert_eq!(holds(source, free(&json!({}))), Ok(true), "{source}");
    }
    assert_eq!(names("object.x == self.l.size()"), ["object"]);
}
