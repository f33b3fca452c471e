//! Checking a value against a schema: types, required fields, limits, names of list items.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use serde_json::{Value, json};

use super::{Limits, ListType, Schema, Type};
use crate::field::{self, FieldError};

/// Compiled patterns, each once per process: a definition's pattern is met with every write of its objects.
static PATTERNS: Mutex<BTreeMap<String, Arc<Regex>>> = Mutex::new(BTreeMap::new());

/// Compiles a pattern of a schema.
pub(super) fn regex(pattern: &str) -> Result<Arc<Regex>, regex::Error> {
    let mut all = PATTERNS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(found) = all.get(pattern) {
        return Ok(found.clone());
    }
    let made = Arc::new(Regex::new(pattern)?);
    all.insert(pattern.to_owned(), made.clone());
    Ok(made)
}

/// A number as JSON, whole where it is whole.
pub(super) fn number(n: f64) -> Value {
    // 2^53: beyond it a float does not tell whole numbers apart.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "the bound above keeps the value exact")]
    if n.fract() == 0.0 && n.abs() < WHOLE_MAX { json!(n as i64) } else { json!(n) }
}

impl Schema {
    /// Everything in which the value differs from the schema. Unknown fields are no difference: they are pruned.
    pub fn validate(&self, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.validate_at("", value, &mut errors);
        errors
    }

    fn validate_at(&self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.has_type(value) {
            let (name, have) = (self.kind.as_str().unwrap_or("integer or string"), type_name(value));
            let shown = if path.is_empty() { "" } else { path };
            errors.push(FieldError::type_invalid(
                path,
                &json!(have),
                &format!("{shown} in body must be of type {name}: {}", json!(have)),
            ));
            return;
        }
        if let Some(limits) = &self.limits {
            limits.check(path, value, errors);
        }
        match value {
            Value::Object(map) => {
                for (name, s) in &self.properties {
                    if let Some(v) = map.get(name) {
                        s.validate_at(&field::child(path, name), v, errors);
                    }
                }
                if self.embedded_resource {
                    for name in ["apiVersion", "kind"] {
                        let known = errors.iter().any(|e| e.field == field::child(path, name));
                        if !known && map.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
                            errors.push(FieldError::required(field::child(path, name), "must not be empty"));
                        }
                    }
                }
                if let Some(s) = &self.additional {
                    for (name, v) in map.iter().filter(|(n, _)| !self.properties.contains_key(*n)) {
                        s.validate_at(&field::child(path, name), v, errors);
                    }
                }
                for name in self.required.iter().filter(|n| !map.contains_key(*n)) {
                    errors.push(FieldError::required(field::child(path, name), ""));
                }
            }
            Value::Array(list) => {
                for (i, v) in list.iter().enumerate() {
                    if let Some(s) = &self.items {
                        s.validate_at(&field::index(path, i), v, errors);
                    }
                }
                self.check_names(path, list, errors);
            }
            _ => {}
        }
    }

    /// The first list item whose name another item has already.
    pub(crate) fn duplicate_names(&self, value: &Value) -> Option<FieldError> {
        let mut errors = Vec::new();
        self.duplicates_at("", value, &mut errors);
        errors.into_iter().next()
    }

    fn duplicates_at(&self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        match value {
            Value::Object(map) => {
                for (name, v) in map {
                    if let Some((s, _)) = self.field(name) {
                        s.duplicates_at(&field::child(path, name), v, errors);
                    }
                }
            }
            Value::Array(list) => {
                self.check_names(path, list, errors);
                for (i, v) in list.iter().enumerate() {
                    self.item().duplicates_at(&field::index(path, i), v, errors);
                }
            }
            _ => {}
        }
    }

    /// Values that a reader of typed objects could not even decode: wrong JSON types, and amounts, times and bytes that
    /// are none. `null` stands for "not set" everywhere and is no error here.
    pub fn undecodable(&self, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.undecodable_at("", value, &mut errors);
        errors
    }

    fn undecodable_at(&self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        let amount = self.limits.as_ref().is_some_and(|l| l.format.as_deref() == Some("quantity"));
        if value.is_null() || (amount && value.is_number()) {
            return;
        }
        if !self.has_type(value) {
            let name = self.kind.as_str().unwrap_or("integer or string");
            errors.push(FieldError::type_invalid(path, value, &format!("must be of type {name}")));
            return;
        }
        match value {
            Value::Number(n) => {
                let short = self.limits.as_ref().is_some_and(|l| l.format.as_deref() == Some("int32"));
                if short && n.as_i64().is_none_or(|n| i32::try_from(n).is_err()) && !n.is_f64() {
                    errors.push(FieldError::type_invalid(path, value, "must be of type int32"));
                }
            }
            Value::String(text) => {
                let format = self.limits.as_ref().and_then(|l| l.format.as_deref()).unwrap_or_default();
                if matches!(format, "quantity" | "date-time" | "micro-time" | "byte") && !has_format(format, text) {
                    errors.push(FieldError::type_invalid(path, value, &format!("must be of type {format}")));
                }
            }
            Value::Object(map) => {
                for (name, v) in map {
                    if let Some((s, _)) = self.field(name) {
                        s.undecodable_at(&field::child(path, name), v, errors);
                    }
                }
            }
            Value::Array(list) => {
                for (i, v) in list.iter().enumerate() {
                    self.item().undecodable_at(&field::index(path, i), v, errors);
                }
            }
            _ => {}
        }
    }

    fn has_type(&self, value: &Value) -> bool {
        match self.kind {
            Type::Any => true,
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
            Type::String => value.is_string(),
            Type::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
            Type::Number => value.is_number(),
            Type::Boolean => value.is_boolean(),
            Type::IntOrString => value.is_i64() || value.is_u64() || value.is_string(),
        }
    }

    /// No two items of a set are equal, no two items of a list map have the same keys.
    fn check_names(&self, path: &str, list: &[Value], errors: &mut Vec<FieldError>) {
        let mut seen = BTreeSet::new();
        for (i, item) in list.iter().enumerate() {
            let name = match self.list {
                ListType::Atomic => return,
                ListType::Set => item.clone(),
                ListType::Map => {
                    let keys = self.map_keys.iter().filter_map(|k| {
                        let default = || self.item().properties.get(k).and_then(|s| s.default.clone());
                        item.get(k).cloned().or_else(default).map(|v| (k.clone(), v))
                    });
                    Value::Object(keys.collect())
                }
            };
            if !seen.insert(name.to_string()) {
                errors.push(FieldError::duplicate(field::index(path, i), &name));
            }
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Limits {
    fn check(&self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        let shown = if path.is_empty() { "" } else { path };
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            errors.push(FieldError::not_supported(path, value, &self.allowed));
        }
        match value {
            Value::Number(n) => self.check_number(path, value, n.as_f64().unwrap_or_default(), errors),
            Value::String(s) => self.check_text(path, value, s, errors),
            Value::Array(list) => {
                let have = list.len() as u64;
                if let Some(max) = self.max_items.filter(|max| have > *max) {
                    errors.push(FieldError::too_many(path, list.len(), usize::try_from(max).unwrap_or(usize::MAX)));
                }
                if let Some(min) = self.min_items.filter(|min| have < *min) {
                    let why = format!("{shown} in body should have at least {min} items");
                    errors.push(FieldError::invalid(path, &json!(have), &why));
                }
            }
            Value::Object(map) => {
                let have = map.len() as u64;
                if let Some(max) = self.max_properties.filter(|max| have > *max) {
                    errors.push(FieldError::too_many(path, map.len(), usize::try_from(max).unwrap_or(usize::MAX)));
                }
                if let Some(min) = self.min_properties.filter(|min| have < *min) {
                    let why = format!("{shown} in body should have at least {min} properties");
                    errors.push(FieldError::invalid(path, &json!(have), &why));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.check_logic(path, value, errors);
    }

    fn check_number(&self, path: &str, value: &Value, n: f64, errors: &mut Vec<FieldError>) {
        let mut wrong =
            |why: String| errors.push(FieldError::invalid(path, value, &format!("{path} in body should be {why}")));
        if let Some(min) = self.minimum {
            if self.exclusive_minimum && n <= min {
                wrong(format!("greater than {}", number(min)));
            } else if !self.exclusive_minimum && n < min {
                wrong(format!("greater than or equal to {}", number(min)));
            }
        }
        if let Some(max) = self.maximum {
            if self.exclusive_maximum && n >= max {
                wrong(format!("less than {}", number(max)));
            } else if !self.exclusive_maximum && n > max {
                wrong(format!("less than or equal to {}", number(max)));
            }
        }
        if let Some(of) = self.multiple_of.filter(|of| *of != 0.0 && (n / of).fract() != 0.0) {
            wrong(format!("a multiple of {}", number(of)));
        }
        let whole = match self.format.as_deref() {
            Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            _ => None,
        };
        if let Some((min, max)) = whole
            && !(min..=max).contains(&n)
        {
            wrong("a 32-bit integer".to_owned());
        }
    }

    fn check_text(&self, path: &str, value: &Value, text: &str, errors: &mut Vec<FieldError>) {
        let have = text.chars().count() as u64;
        if let Some(max) = self.max_length.filter(|max| have > *max) {
            errors.push(FieldError::too_long(path, usize::try_from(max).unwrap_or(usize::MAX)));
        }
        let mut wrong = |why: String| errors.push(FieldError::invalid(path, value, &format!("{path} in body {why}")));
        if let Some(min) = self.min_length.filter(|min| have < *min) {
            wrong(format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = &self.pattern {
            match regex(pattern) {
                Ok(re) if re.is_match(text) => {}
                Ok(_) => wrong(format!("should match '{pattern}'")),
                Err(e) => wrong(format!("cannot be checked against '{pattern}': {e}")),
            }
        }
        if let Some(format) = self.format.as_deref().filter(|f| !has_format(f, text)) {
            wrong(format!("must be of type {format}: {value}"));
        }
    }

    fn check_logic(&self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        for s in &self.all_of {
            s.validate_at(path, value, errors);
        }
        let fits = |s: &Schema| {
            let mut found = Vec::new();
            s.validate_at(path, value, &mut found);
            found.is_empty()
        };
        let mut wrong = |why: &str| errors.push(FieldError::invalid(path, value, &format!("{path} in body {why}")));
        if !self.any_of.is_empty() && !self.any_of.iter().any(fits) {
            wrong("must validate at least one schema (anyOf)");
        }
        if !self.one_of.is_empty() && self.one_of.iter().filter(|s| fits(s)).count() != 1 {
            wrong("must validate one and only one schema (oneOf)");
        }
        if self.not.as_ref().is_some_and(|s| fits(s)) {
            wrong("must not validate the schema (not)");
        }
    }
}

/// Whether a time says its seconds to six digits, no fewer and no more.
fn has_microseconds(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    fraction.bytes().take_while(u8::is_ascii_digit).count() == 6
}

/// Formats that are checked; others are documentation.
fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "micro-time" => text.parse::<jiff::Timestamp>().is_ok() && has_microseconds(text),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => BASE64_STANDARD.decode(text.replace(['\r', '\n'], "")).is_ok(),
        "quantity" => text.parse::<crate::quantity::Quantity>().is_ok(),
        "uuid" => {
            let groups: Vec<&str> = text.split('-').collect();
            groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12])
                && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        _ => true,
    }
}
