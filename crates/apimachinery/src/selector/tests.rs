use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn matches(selector: &str, labels: Value) -> bool {
    selector.parse::<LabelSelector>().unwrap().matches(labels.as_object())
}

#[test]
fn labels_in_text() {
    let labels = json!({"app": "web", "tier": "1", "empty": ""});
    for (selector, want) in [
        ("", true),
        ("app=web", true),
        ("app==web,tier=1", true),
        ("app = web , tier != 2", true),
        ("app!=web", false),
        ("other!=x", true),
        ("app in (api, web)", true),
        ("app in (api)", false),
        ("app notin (api)", true),
        ("other notin (api)", true),
        ("app", true),
        ("other", false),
        ("!other", true),
        ("!app", false),
        ("tier>0", true),
        ("tier gt 1", false),
        ("tier<2,tier lt 5", true),
        ("empty=", true),
        ("app=", false),
        ("empty in (,x)", true),
        ("e.com/key=v", false),
    ] {
        assert_eq!(matches(selector, labels.clone()), want, "{selector}");
    }
    assert!(!LabelSelector::nothing().matches(labels.as_object()));
    assert!("a".parse::<LabelSelector>().unwrap().matches_object(&json!({"metadata": {"labels": {"a": "b"}}})));
}

#[test]
fn label_texts_that_cannot_be_read() {
    let error = |s: &str| s.parse::<LabelSelector>().unwrap_err().to_string();
    assert_eq!(
        error("bad selector ("),
        "unable to parse requirement: found 'selector', expected: in, notin, =, ==, !=, gt, lt"
    );
    for s in
        ["a=b=c", "a in b", "a in (b", "a,", ",a", "=b", "a=b c", "!", "a b", "-a=b", "a=b/c", "a>x", "a in ()x", "/x"]
    {
        assert!(s.parse::<LabelSelector>().is_err(), "{s}");
    }
}

#[test]
fn labels_in_json() {
    let read = |v: Value| LabelSelector::from_json(&v);
    let s = read(json!({
        "matchLabels": {"a": "1"},
        "matchExpressions": [{"key": "b", "operator": "In", "values": ["x", "y"]}, {"key": "c",
            "operator": "DoesNotExist"}],
    }))
    .unwrap();
    assert_eq!(s.to_string(), "a=1,b in (x,y),!c");
    assert!(s.matches(json!({"a": "1", "b": "y"}).as_object()));
    assert!(!s.matches(json!({"a": "1", "b": "y", "c": ""}).as_object()));
    assert!(read(json!({})).unwrap().is_empty());
    assert!(!read(Value::Null).unwrap().matches(None));
    assert_eq!(
        read(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})),
        Err(LabelSelectorError::Operator("Like".into()))
    );
    assert_eq!(
        read(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
        Err(LabelSelectorError::NoValues("in"))
    );
    assert_eq!(
        read(json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]})),
        Err(LabelSelectorError::NeedlessValues)
    );
    assert_eq!(read(json!([])), Err(LabelSelectorError::Shape));
}

#[test]
fn fields() {
    let object = json!({"metadata": {"name": "x"}, "spec": {"unschedulable": true}, "status": {"phase": "Running"}});
    for (selector, want) in [
        ("", true),
        ("metadata.name=x", true),
        ("metadata.name==x,status.phase!=Failed", true),
        ("metadata.name!=x", false),
        ("spec.unschedulable=true", true),
        ("spec.nodeName=", true),
        ("spec.nodeName!=n", true),
    ] {
        assert_eq!(selector.parse::<FieldSelector>().unwrap().matches(&object), want, "{selector}");
    }
    let s: FieldSelector = r"metadata.name=a\,b\=c\\d".parse().unwrap();
    assert_eq!(s.exact("metadata.name"), Some(r"a,b=c\d"));
    assert_eq!(s.to_string(), r"metadata.name=a\,b\=c\\d");
    assert!("metadata.name".parse::<FieldSelector>().is_err());
    assert!(r"a=b\x".parse::<FieldSelector>().is_err());
    let e = "data.a=1".parse::<FieldSelector>().unwrap().only(&["metadata.name", "metadata.namespace"]);
    assert_eq!(
        e.unwrap_err().to_string(),
        r#""data.a" is not a known field selector: only "metadata.name", "metadata.namespace""#
    );
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = prop::collection::btree_set("([a-z0-9]([-a-z0-9._]{0,3}[a-z0-9])?)?", 1..4);
    let key = "([a-z]{1,4}/)?[a-zA-Z][a-z0-9]{0,4}".prop_filter("words of the language", |k| k != "in" && k != "notin");
    (key, 0..6, values, any::<i64>()).prop_map(|(key, how, values, n)| {
        let (operator, values) = match how {
            0 => (Operator::In, values),
            1 => (Operator::NotIn, values),
            2 => (Operator::Exists, [].into()),
            3 => (Operator::DoesNotExist, [].into()),
            4 => (Operator::GreaterThan, [n.unsigned_abs().wrapping_rem(1000).to_string()].into()),
            _ => (Operator::LessThan, [n.unsigned_abs().wrapping_rem(1000).to_string()].into()),
        };
        Requirement::new(&key, operator, values.iter().map(String::as_str)).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_printed_can_be_read(all in prop::collection::vec(requirement(), 1..4)) {
        let printed = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let read: LabelSelector = printed.parse().unwrap();
        prop_assert_eq!(&read.requirements, &all);
        prop_assert_eq!(read.to_string(), printed);
    }

    #[test]
    fn reading_never_panics(text in "[a-z=!<>(), ./-]{0,20}") {
        let _ = text.parse::<LabelSelector>();
        let _ = text.parse::<FieldSelector>();
        let _ = crate::jsonpath::JsonPath::parse(&text);
    }
}
