//! Properties of ownership that hold for all objects of a schema with every kind of merging.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"},
        "b": {"type": "string"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "x": {"type": "string"}, "y": {"type": "string"}}}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
    }}}}))
    .unwrap()
});

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["p", "q", "r"]).prop_map(str::to_owned)
}

/// The items of `spec`; keys come from the given names, so that two managers can be kept apart.
fn spec(scalars: &'static [&'static str], names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let item = (prop::option::of(word()), prop::option::of(word()));
    (
        prop::collection::btree_map(prop::sample::select(scalars.to_vec()), word(), 0..=scalars.len()),
        prop::collection::btree_map(prop::sample::select(names.to_vec()), word(), 0..=names.len()),
        prop::collection::btree_map(prop::sample::select(names.to_vec()), item, 0..=names.len()),
        prop::collection::btree_set(prop::sample::select(names.to_vec()), 0..=names.len()),
    )
        .prop_map(|(scalars, map, list, set)| {
            let mut spec = Map::new();
            for (name, v) in scalars {
                spec.insert(name.into(), if name == "plain" { json!([v]) } else { json!(v) });
            }
            if !map.is_empty() {
                spec.insert("map".into(), json!(map));
            }
            let items: Vec<Value> = list
                .into_iter()
                .map(|(name, (x, y))| {
                    let mut item = BTreeMap::from([("name", name.to_owned())]);
                    item.extend(x.map(|x| ("x", x)));
                    item.extend(y.map(|y| ("y", y)));
                    json!(item)
                })
                .collect();
            if !items.is_empty() {
                spec.insert("list".into(), items.into());
            }
            if !set.is_empty() {
                spec.insert("set".into(), json!(set));
            }
            json!({"metadata": {"name": "t"}, "spec": spec})
        })
}

fn any_spec() -> impl Strategy<Value = Value> {
    spec(&["a", "b", "plain"], &["k", "l", "m"])
}

fn by(name: &str) -> Manager {
    Manager { name: name.into(), api_version: "e.com/v1".into(), subresource: String::new(), time: Some("t".into()) }
}

fn sorted(mut v: Value) -> Value {
    for list in ["/spec/list", "/spec/set"] {
        if let Some(Value::Array(l)) = v.pointer_mut(list) {
            l.sort_by_key(Value::to_string);
        }
    }
    v
}

fn owned(object: &Value, manager: &str) -> Set {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let mine = list.into_iter().flatten().find(|e| e["manager"] == manager);
    mine.map(|e| Set::from_fields_v1(&e["fieldsV1"]).unwrap()).unwrap_or_default()
}

fn without_owners(mut object: Value) -> Value {
    remove_entries(&mut object);
    object
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in any_spec(), config in any_spec()) {
        let live = apply(&SCHEMA, None, &first, &by("one"), true).unwrap();
        let once = apply(&SCHEMA, Some(&live), &config, &by("two"), true).unwrap();
        let twice = apply(&SCHEMA, Some(&once), &config, &by("two"), false).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn one_applier_gets_exactly_what_it_says(first in any_spec(), config in any_spec()) {
        let live = apply(&SCHEMA, None, &first, &by("one"), false).unwrap();
        let next = apply(&SCHEMA, Some(&live), &config, &by("one"), false).unwrap();
        let mut want = config;
        if want["spec"] == json!({}) && next.get("spec").is_none() {
            want.as_object_mut().unwrap().remove("spec");
        }
        prop_assert_eq!(sorted(without_owners(next)), sorted(want));
    }

    #[test]
    fn disjoint_managers_commute(
        start in any_spec(),
        one in spec(&["a"], &["k"]),
        two in spec(&["b"], &["l"]),
    ) {
        let live = apply(&SCHEMA, None, &start, &by("zero"), false).unwrap();
        let go = |first: (&str, &Value), second: (&str, &Value)| {
            let half = apply(&SCHEMA, Some(&live), first.1, &by(first.0), true).unwrap();
            sorted(apply(&SCHEMA, Some(&half), second.1, &by(second.0), true).unwrap())
        };
        prop_assert_eq!(go(("one", &one), ("two", &two)), go(("two", &two), ("one", &one)));
    }

    #[test]
    fn an_update_owns_exactly_what_changed(old in any_spec(), new in any_spec()) {
        let old = apply(&SCHEMA, None, &old, &by("one"), false).unwrap();
        let mut after = new.clone();
        record_update(&SCHEMA, Some(&old), &mut after, &by("upd"));
        let change = walk::compare(&SCHEMA, &without_owners(old.clone()), &new);
        let mut want = change.added.clone();
        want.union(&change.modified);
        strip(&mut want);
        prop_assert_eq!(owned(&after, "upd"), want.clone());
        // Nobody else owns those any more, and nobody owns what is gone.
        prop_assert!(owned(&after, "one").and(&want).is_empty());
        prop_assert!(owned(&after, "one").and(&change.removed).is_empty());
        // The rest of the former owner's fields it keeps.
        let kept = owned(&old, "one").minus(&want).minus(&change.removed);
        prop_assert_eq!(owned(&after, "one"), kept);
        prop_assert_eq!(without_owners(after), new);
    }

    #[test]
    fn a_set_survives_its_written_form(config in any_spec()) {
        let mut set = walk::paths(&SCHEMA, &config);
        strip(&mut set);
        prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
    }

    #[test]
    fn forced_apply_never_leaves_a_field_with_two_values(first in any_spec(), second in any_spec()) {
        let live = apply(&SCHEMA, None, &first, &by("one"), false).unwrap();
        let next = apply(&SCHEMA, Some(&live), &second, &by("two"), true).unwrap();
        // Whatever the first still owns has the value it gave.
        let kept = owned(&next, "one");
        let change = walk::compare(&SCHEMA, &first, &without_owners(next));
        prop_assert!(kept.and(&change.modified).is_empty());
    }
}
