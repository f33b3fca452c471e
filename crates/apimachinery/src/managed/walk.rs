//! Walking values along a schema: which paths a value has, how two values differ, one value merged into another, paths
//! taken out.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{Set, Step, field_step};
use crate::schema::{ListType, MapType, Schema, Type};

/// How a value takes part in ownership.
enum Shape<'a> {
    /// One owner for the whole value.
    Leaf,
    /// Owned field by field.
    Fields(Option<&'a Map<String, Value>>),
    /// Owned item by item.
    Items(&'a [Value]),
}

/// `null` counts as an empty object or list where the schema says it is one.
fn shape<'a>(schema: &Schema, value: &'a Value) -> Shape<'a> {
    if schema.map == MapType::Atomic {
        return Shape::Leaf;
    }
    match (schema.kind, value) {
        (Type::Object, Value::Object(map)) => Shape::Fields(Some(map)),
        (Type::Object, Value::Null) => Shape::Fields(None),
        (Type::Any, Value::Object(map)) if schema.preserve_unknown => Shape::Fields(Some(map)),
        (Type::Array, Value::Array(list)) if schema.list != ListType::Atomic => Shape::Items(list),
        (Type::Array, Value::Null) if schema.list != ListType::Atomic => Shape::Items(&[]),
        _ => Shape::Leaf,
    }
}

/// The name of a list item among its fellows.
pub(super) fn item_step(schema: &Schema, item: &Value) -> Step {
    if schema.list == ListType::Set {
        return format!("v:{item}");
    }
    let mut keys = Map::new();
    for key in &schema.map_keys {
        let default = || schema.item().properties.get(key).and_then(|s| s.default.clone());
        if let Some(v) = item.get(key).cloned().or_else(default) {
            keys.insert(key.clone(), v);
        }
    }
    format!("k:{}", Value::Object(keys))
}

/// The names of the items in order, and the items of each name. More than one item of a name is wrong, but a live
/// object may have them: a list is only checked for it when it is applied.
fn named<'a>(schema: &Schema, list: &'a [Value]) -> (Vec<Step>, BTreeMap<Step, Vec<&'a Value>>) {
    let mut order = Vec::new();
    let mut items: BTreeMap<Step, Vec<&'a Value>> = BTreeMap::new();
    for item in list {
        let step = item_step(schema, item);
        let same = items.entry(step).or_insert_with_key(|step| {
            order.push(step.clone());
            Vec::new()
        });
        same.push(item);
    }
    (order, items)
}

/// Every path of a value that can have an owner.
pub(super) fn paths(schema: &Schema, value: &Value) -> Set {
    let mut set = Set::default();
    match shape(schema, value) {
        Shape::Leaf => set.member = true,
        Shape::Fields(None) => {}
        Shape::Fields(Some(map)) => {
            for (name, v) in map {
                let Some((sub, declared)) = schema.field(name) else { continue };
                let mut below = paths(sub, v);
                let empty = v.is_null() || v.as_object().is_some_and(Map::is_empty);
                below.member |= empty || !declared;
                if !below.is_empty() {
                    set.children.insert(field_step(name), below);
                }
            }
        }
        Shape::Items(list) => {
            for item in list {
                let mut below = paths(schema.item(), item);
                below.member = true;
                set.at(&item_step(schema, item)).union(&below);
            }
        }
    }
    set
}

/// How a value changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) added: Set,
    pub(super) removed: Set,
    pub(super) modified: Set,
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }
}

/// Compares two values along a schema.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Change {
    let mut change = Change::default();
    compare_at(schema, &mut Vec::new(), Some(old), Some(new), &mut change);
    change
}

fn compare_at(schema: &Schema, path: &mut Vec<Step>, old: Option<&Value>, new: Option<&Value>, change: &mut Change) {
    let leaf = |change: &mut Change| match (old, new) {
        (None, Some(_)) => change.added.insert(path),
        (Some(_), None) => change.removed.insert(path),
        (Some(a), Some(b)) if !same(a, b) => change.modified.insert(path),
        _ => {}
    };
    let (a, b) = (old.map(|v| shape(schema, v)), new.map(|v| shape(schema, v)));
    match (a, b) {
        (Some(Shape::Fields(a)), Some(Shape::Fields(b))) => {
            if a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return leaf(change);
            }
            compare_fields(schema, path, a, b, change);
        }
        (Some(Shape::Items(a)), Some(Shape::Items(b))) => {
            if a.is_empty() && b.is_empty() {
                return leaf(change);
            }
            compare_items(schema, path, a, b, change);
        }
        (Some(Shape::Fields(a)), None) if !a.is_none_or(Map::is_empty) => {
            change.removed.insert(path);
            compare_fields(schema, path, a, None, change);
        }
        (None, Some(Shape::Fields(b))) if !b.is_none_or(Map::is_empty) => {
            change.added.insert(path);
            compare_fields(schema, path, None, b, change);
        }
        (Some(Shape::Items(a)), None) if !a.is_empty() => {
            change.removed.insert(path);
            compare_items(schema, path, a, &[], change);
        }
        (None, Some(Shape::Items(b))) if !b.is_empty() => {
            change.added.insert(path);
            compare_items(schema, path, &[], b, change);
        }
        // A leaf, or a value that changed its shape: what was below is gone, what is below now is new.
        (a, b) => {
            leaf(change);
            if let Some(Shape::Fields(a)) = a {
                compare_fields(schema, path, a, None, change);
            }
            if let Some(Shape::Fields(b)) = b {
                compare_fields(schema, path, None, b, change);
            }
        }
    }
}

fn compare_fields(
    schema: &Schema,
    path: &mut Vec<Step>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    change: &mut Change,
) {
    let old_names = old.into_iter().flat_map(Map::keys);
    let new_names = new.into_iter().flat_map(Map::keys).filter(|n| !old.is_some_and(|o| o.contains_key(*n)));
    for name in old_names.chain(new_names) {
        let Some((sub, _)) = schema.field(name) else { continue };
        path.push(field_step(name));
        compare_at(sub, path, old.and_then(|m| m.get(name)), new.and_then(|m| m.get(name)), change);
        path.pop();
    }
}

fn compare_items(schema: &Schema, path: &mut Vec<Step>, old: &[Value], new: &[Value], change: &mut Change) {
    let (old_order, old) = named(schema, old);
    let (new_order, new) = named(schema, new);
    for step in old_order.iter().chain(new_order.iter().filter(|s| !old.contains_key(*s))) {
        path.push(step.clone());
        let (a, b) = (old.get(step).map_or(&[][..], Vec::as_slice), new.get(step).map_or(&[][..], Vec::as_slice));
        if a.len() > 1 || b.len() > 1 {
            // Items that share a name are told apart by nothing: they are one value.
            let equal = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b));
            match (a.is_empty(), b.is_empty()) {
                (true, _) => change.added.insert(path),
                (_, true) => change.removed.insert(path),
                _ if !equal => change.modified.insert(path),
                _ => {}
            }
        } else {
            compare_at(schema.item(), path, a.first().copied(), b.first().copied(), change);
        }
        path.pop();
    }
}

/// Equality of JSON values that takes `1` and `1.0` for the same number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, a)| y.get(k).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// `config` merged into `live`: what the config says wins, everything else stays.
pub(super) fn merge(schema: &Schema, live: &Value, config: &Value) -> Value {
    match (shape(schema, live), shape(schema, config)) {
        (Shape::Fields(a), Shape::Fields(b)) => {
            let mut out = a.cloned().unwrap_or_default();
            for (name, v) in b.into_iter().flatten() {
                let merged = match (out.get(name), schema.field(name)) {
                    (Some(before), Some((sub, _))) => merge(sub, before, v),
                    (None, Some((sub, _))) => merge(sub, &Value::Null, v),
                    _ => v.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::Items(a), Shape::Items(b)) => Value::Array(merge_items(schema, a, b)),
        _ => config.clone(),
    }
}

/// Items of both lists, each once. Items the config names come in its order; the others keep their place before the
/// item they stood before.
fn merge_items(schema: &Schema, live: &[Value], config: &[Value]) -> Vec<Value> {
    let (live_order, live) = named(schema, live);
    let (config_order, config) = named(schema, config);
    let merged = |step: &Step| {
        let said = config[step][0];
        live.get(step).map_or_else(|| merge(schema.item(), &Value::Null, said), |l| merge(schema.item(), l[0], said))
    };
    let mut out = Vec::new();
    let mut next = 0;
    for step in &live_order {
        match config_order.iter().position(|s| s == step) {
            None => out.extend(live[step].iter().map(|v| (*v).clone())),
            Some(at) => {
                while next <= at {
                    out.push(merged(&config_order[next]));
                    next += 1;
                }
            }
        }
    }
    out.extend(config_order[next..].iter().map(merged));
    out
}

/// Takes out of `value` what `last` has and `keep` has not. A declared object counts as being in a set when anything
/// below it is: it goes when the last field that anybody wants is gone.
pub(super) fn take_out(schema: &Schema, value: &mut Value, last: &Set, keep: &Set) {
    let goes = |step: &str, declared: bool| {
        let within = |set: &Set| set.children.get(step).is_some_and(|s| s.member || (declared && !s.is_empty()));
        within(last) && !within(keep)
    };
    let none = Set::default();
    let below = |set: &'_ Set, step: &str| set.children.get(step).cloned().unwrap_or_default();
    if matches!(shape(schema, value), Shape::Leaf) {
        return;
    }
    match value {
        Value::Object(map) => {
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                let Some((sub, declared)) = schema.field(&name) else { continue };
                let step = field_step(&name);
                if !last.children.contains_key(&step) {
                    continue;
                }
                if goes(&step, declared) {
                    map.remove(&name);
                } else if let Some(v) = map.get_mut(&name) {
                    take_out(sub, v, &below(last, &step), keep.children.get(&step).unwrap_or(&none));
                }
            }
        }
        Value::Array(list) => {
            list.retain_mut(|item| {
                let step = item_step(schema, item);
                if goes(&step, false) {
                    return false;
                }
                take_out(schema.item(), item, &below(last, &step), keep.children.get(&step).unwrap_or(&none));
                true
            });
        }
        _ => {}
    }
}
