//! The strategic merge patch: lists of built-in kinds merge by the key of their items, and directives in the patch say
//! what to delete, replace, retain and how to order.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::schema::Schema;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StrategicError {
    #[error("the patch of {field} must be an object")]
    NotAnObject { field: String },
    #[error("{field}: {directive:?} is not a $patch directive: use delete, replace or merge")]
    UnknownDirective { field: String, directive: String },
    #[error("{field}: an item of the patch lacks the merge key {key:?}")]
    MissingKey { field: String, key: String },
    #[error("{field}: the directive must be a list")]
    DirectiveNotAList { field: String },
    #[error("{field}: the patch sets {name:?}, which its $retainKeys does not retain")]
    NotRetained { field: String, name: String },
    #[error("{field}: the order names {item}, which the patch does not bring and the object does not have")]
    OrderMismatch { field: String, item: String },
}

/// Applies a strategic merge patch.
///
/// # Errors
/// A directive is malformed, or an item of the patch has no merge key.
pub fn strategic(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, StrategicError> {
    let Value::Object(changes) = patch else { return Err(StrategicError::NotAnObject { field: "the object".into() }) };
    let base = object.as_object().cloned().unwrap_or_default();
    merge_object("", schema, base, changes).map(Value::Object)
}

fn at(path: &str, name: &str) -> String {
    crate::field::child(path, name)
}

fn directive(path: &str, changes: &Map<String, Value>) -> Result<Option<&'static str>, StrategicError> {
    match changes.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(s)) if s == "delete" => Ok(Some("delete")),
        Some(Value::String(s)) if s == "replace" => Ok(Some("replace")),
        Some(Value::String(s)) if s == "merge" => Ok(None),
        Some(other) => {
            let directive = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            Err(StrategicError::UnknownDirective { field: path.to_owned(), directive })
        }
    }
}

fn merge_object(
    path: &str,
    schema: &Schema,
    mut base: Map<String, Value>,
    changes: &Map<String, Value>,
) -> Result<Map<String, Value>, StrategicError> {
    match directive(path, changes)? {
        Some("delete") => return Ok(Map::new()),
        Some(_) => {
            let kept = changes.iter().filter(|(n, _)| *n != DIRECTIVE).map(|(n, v)| (n.clone(), v.clone()));
            return Ok(kept.collect());
        }
        None => {}
    }
    if let Some(keys) = changes.get(RETAIN_KEYS) {
        let keys = list(path, keys)?;
        let set = changes.iter().filter(|(name, v)| !name.starts_with('$') && !v.is_null()).map(|(name, _)| name);
        if let Some(name) = set.into_iter().find(|name| !keys.iter().any(|k| k == *name)) {
            return Err(StrategicError::NotRetained { field: path.to_owned(), name: name.clone() });
        }
        base.retain(|name, _| keys.iter().any(|k| k == name));
    }
    let listed: BTreeSet<&str> =
        changes.keys().filter_map(|n| n.strip_prefix(ORDER).or_else(|| n.strip_prefix(DELETE_VALUES))).collect();
    let named = changes.keys().map(String::as_str).filter(|n| !n.starts_with('$'));
    let names: BTreeSet<&str> = named.chain(listed).collect();
    for name in names {
        let path = at(path, name);
        let fallback = Schema { preserve_unknown: true, ..Schema::any() };
        let sub = schema.field(name).map_or(&fallback, |(s, _)| s);
        let gone = changes.get(&format!("{DELETE_VALUES}{name}"));
        let order = changes.get(&format!("{ORDER}{name}"));
        match (changes.get(name), base.get(name)) {
            (Some(Value::Null), _) => {
                base.remove(name);
            }
            (Some(Value::Object(changes)), before) => {
                let before = before.and_then(Value::as_object).cloned();
                let deletes = directive(&path, changes)? == Some("delete");
                if deletes {
                    base.remove(name);
                } else {
                    let merged = merge_object(&path, sub, before.unwrap_or_default(), changes)?;
                    base.insert(name.to_owned(), Value::Object(merged));
                }
            }
            (change, before) if gone.is_some() || order.is_some() || change.is_some_and(Value::is_array) => {
                let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
                let gone = gone.map_or(Ok(&[][..]), |v| list(&path, v))?;
                let order = order.map(|v| list(&path, v)).transpose()?;
                let change = change.and_then(Value::as_array).map(Vec::as_slice);
                let merged = merge_list(&path, sub, before, change, gone, order)?;
                base.insert(name.to_owned(), Value::Array(merged));
            }
            (Some(v), _) => {
                base.insert(name.to_owned(), v.clone());
            }
            (None, _) => {}
        }
    }
    Ok(base)
}

fn list<'a>(path: &str, value: &'a Value) -> Result<&'a [Value], StrategicError> {
    let list = value.as_array().map(Vec::as_slice);
    list.ok_or_else(|| StrategicError::DirectiveNotAList { field: path.to_owned() })
}

fn merge_list(
    path: &str,
    schema: &Schema,
    before: Vec<Value>,
    change: Option<&[Value]>,
    gone: &[Value],
    order: Option<&[Value]>,
) -> Result<Vec<Value>, StrategicError> {
    if !schema.patch.merge {
        return Ok(change.map_or(before, <[Value]>::to_vec));
    }
    let change = change.unwrap_or_default();
    match schema.patch.merge_key {
        None => {
            let mut out: Vec<Value> = before.iter().filter(|v| !gone.contains(v)).cloned().collect();
            for v in change {
                if !out.contains(v) {
                    out.push(v.clone());
                }
            }
            Ok(arrange(out, change, &before, order, |v| v.clone()))
        }
        Some(key) => merge_keyed(path, schema, key, before, change, order),
    }
}

fn merge_keyed(
    path: &str,
    schema: &Schema,
    key: &'static str,
    before: Vec<Value>,
    change: &[Value],
    order: Option<&[Value]>,
) -> Result<Vec<Value>, StrategicError> {
    let missing = || StrategicError::MissingKey { field: path.to_owned(), key: key.to_owned() };
    let name = |v: &Value| v.get(key).cloned().unwrap_or(Value::Null);
    let replaces = change.iter().any(|v| v.get(DIRECTIVE).is_some_and(|d| d == "replace"));
    let mut out = if replaces { Vec::new() } else { before.clone() };
    let mut brought = Vec::new();
    for (i, item) in change.iter().enumerate() {
        let at = crate::field::index(path, i);
        let Value::Object(fields) = item else { return Err(StrategicError::NotAnObject { field: at }) };
        match directive(&at, fields)? {
            // The marker of a replaced list may stand alone.
            Some("replace") if fields.len() == 1 => continue,
            Some("delete") => {
                let gone = fields.get(key).ok_or_else(missing)?;
                out.retain(|v| v.get(key) != Some(gone));
                continue;
            }
            _ => {}
        }
        let id = fields.get(key).ok_or_else(missing)?;
        let known = out.iter().position(|v| v.get(key) == Some(id));
        let base = known.and_then(|i| out[i].as_object().cloned()).unwrap_or_default();
        let merged = Value::Object(merge_object(&at, schema.item(), base, fields)?);
        match known {
            Some(i) => out[i] = merged.clone(),
            None => out.push(merged.clone()),
        }
        brought.push(merged);
    }
    if let Some(order) = order {
        for wanted in order {
            let id = name(wanted);
            if !out.iter().any(|v| name(v) == id) && !change.iter().any(|v| name(v) == id) {
                return Err(StrategicError::OrderMismatch { field: path.to_owned(), item: id.to_string() });
            }
        }
    }
    Ok(arrange(out, &brought, &before, order, name))
}

/// Puts the items of a merged list in order: those the patch names (in the order it asks for, else its own) among those
/// only the object has. An item of the object stands before the first item of the patch that followed it in the object;
/// items the object did not have go before it.
fn arrange(
    merged: Vec<Value>,
    change: &[Value],
    before: &[Value],
    order: Option<&[Value]>,
    name: impl Fn(&Value) -> Value,
) -> Vec<Value> {
    let wanted: Vec<Value> = order.unwrap_or(change).iter().map(&name).collect();
    let place = |v: &Value| before.iter().position(|b| name(b) == name(v));
    let (mut ours, theirs): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|v| wanted.contains(&name(v)));
    ours.sort_by_key(|v| wanted.iter().position(|w| *w == name(v)));
    let mut out = Vec::new();
    let mut theirs = theirs.into_iter().peekable();
    for v in ours {
        while let (Some(t), Some(here)) = (theirs.peek().and_then(place), place(&v)) {
            if t >= here {
                break;
            }
            out.extend(theirs.next());
        }
        out.push(v);
    }
    out.extend(theirs);
    out
}
