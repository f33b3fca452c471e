//! A place in an object under judgement: its path, and what stands there. The rules of all kinds are written with it.

use serde_json::{Value, json};

use crate::field::{self, FieldError};
use crate::names;
use crate::quantity::Quantity;

/// What was found wrong so far, in the order in which clients read it.
pub(super) type Found = Vec<FieldError>;

/// The highest number a user or group may have: ids are signed 32-bit numbers.
const ID_MAX: i64 = i32::MAX as i64;

pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> At<'a> {
    pub(super) fn root(object: &'a Value) -> Self {
        Self::new("", object)
    }

    pub(super) fn new(path: &str, value: &'a Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// A field, null when it is not there.
    pub(super) fn get(&self, name: &str) -> At<'a> {
        At { path: field::child(&self.path, name), value: &self.value[name] }
    }

    /// An entry of a map whose keys are data.
    pub(super) fn key(&self, name: &str) -> At<'a> {
        At { path: field::key(&self.path, name), value: &self.value[name] }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let list: &'a [Value] = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(move |(i, value)| At { path: field::index(&path, i), value })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        let map = self.value.as_object();
        map.into_iter().flatten().map(move |(name, value)| (name.as_str(), At { path: field::key(&path, name), value }))
    }

    pub(super) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub(super) fn given(&self) -> bool {
        !self.value.is_null()
    }

    /// Nothing there, or nothing in it.
    pub(super) fn empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    pub(super) fn amount(&self) -> Option<Quantity> {
        self.text().parse().ok()
    }

    pub(super) fn required(&self, why: &str, found: &mut Found) {
        found.push(FieldError::required(&self.path, why));
    }

    pub(super) fn invalid(&self, why: &str, found: &mut Found) {
        found.push(FieldError::invalid(&self.path, self.value, why));
    }

    /// As [`At::invalid`], where the answer shows another value than the one that stands here.
    pub(super) fn invalid_as(&self, shown: &Value, why: &str, found: &mut Found) {
        found.push(FieldError::invalid(&self.path, shown, why));
    }

    pub(super) fn forbidden(&self, why: &str, found: &mut Found) {
        found.push(FieldError::forbidden(&self.path, why));
    }

    pub(super) fn duplicate(&self, found: &mut Found) {
        found.push(FieldError::duplicate(&self.path, self.value));
    }

    pub(super) fn not_found(&self, found: &mut Found) {
        found.push(FieldError::not_found(&self.path, self.value));
    }

    pub(super) fn duplicate_as(&self, shown: &Value, found: &mut Found) {
        found.push(FieldError::duplicate(&self.path, shown));
    }

    pub(super) fn not_supported(&self, allowed: &[&str], found: &mut Found) {
        let shown = if self.value.is_null() { &json!("") } else { self.value };
        let allowed: Vec<Value> = allowed.iter().map(|word| json!(word)).collect();
        found.push(FieldError::not_supported(&self.path, shown, &allowed));
    }

    /// A text that, when it is there, is one of a few. The words are given in the order in which clients read them.
    pub(super) fn one_of(&self, allowed: &[&str], found: &mut Found) {
        if self.given() && !allowed.contains(&self.text()) {
            self.not_supported(allowed, found);
        }
    }

    /// As [`At::one_of`], and it must be there.
    pub(super) fn must_be_one_of(&self, allowed: &[&str], found: &mut Found) {
        if self.empty() { self.required("", found) } else { self.one_of(allowed, found) }
    }

    pub(super) fn must_be_given(&self, found: &mut Found) {
        if self.empty() {
            self.required("", found);
        }
    }

    /// A text that is there and named by a rule.
    pub(super) fn must_be_named(&self, rule: fn(&str) -> Vec<String>, found: &mut Found) {
        if self.empty() { self.required("", found) } else { self.named(rule, found) }
    }

    /// A text that, unless it is empty, is named by a rule.
    pub(super) fn named(&self, rule: fn(&str) -> Vec<String>, found: &mut Found) {
        if !self.empty() {
            found.extend(rule(self.text()).iter().map(|why| FieldError::invalid(&self.path, self.value, why)));
        }
    }

    pub(super) fn not_negative(&self, found: &mut Found) {
        if self.number().is_some_and(|n| n < 0) {
            self.invalid("must be greater than or equal to 0", found);
        }
    }

    pub(super) fn positive(&self, found: &mut Found) {
        if self.number().is_some_and(|n| n <= 0) {
            self.invalid("must be greater than zero", found);
        }
    }

    /// A number that, when it is there, lies between two others.
    pub(super) fn between(&self, least: i64, most: i64, found: &mut Found) {
        if self.number().is_some_and(|n| !(least..=most).contains(&n)) {
            self.invalid(&format!("must be between {least} and {most}, inclusive"), found);
        }
    }

    /// A port by number.
    pub(super) fn port(&self, found: &mut Found) {
        if !self.number().is_some_and(|n| (1..=65535).contains(&n)) {
            self.invalid("must be between 1 and 65535, inclusive", found);
        }
    }

    /// A port by number or by name.
    pub(super) fn port_or_name(&self, found: &mut Found) {
        match self.value.as_str() {
            Some(name) => found.extend(names::port_name(name).iter().map(|why| self.error(why))),
            None => self.port(found),
        }
    }

    fn error(&self, why: &str) -> FieldError {
        FieldError::invalid(&self.path, self.value, why)
    }

    /// The number of a user or a group.
    pub(super) fn id(&self, found: &mut Found) {
        self.between(0, ID_MAX, found);
    }

    /// A count or a share.
    pub(super) fn amount_or_percent(&self, found: &mut Found) {
        match self.value.as_str() {
            Some(_) if self.percent().is_none() => {
                self.invalid("must be a whole number or a percentage such as 25%", found);
            }
            Some(_) => {}
            None => self.not_negative(found),
        }
    }

    /// More than all cannot be available or missing.
    pub(super) fn at_most_all(&self, found: &mut Found) {
        if self.percent().is_some_and(|percent| percent > 100) {
            self.invalid("must not be greater than 100%", found);
        }
    }

    fn percent(&self) -> Option<u64> {
        self.text().strip_suffix('%').and_then(|digits| digits.parse().ok())
    }

    /// Neither a count nor a share of anything.
    pub(super) fn none_at_all(&self) -> bool {
        self.number() == Some(0) || self.percent() == Some(0)
    }

    pub(super) fn labels(&self, found: &mut Found) {
        found.extend(names::labels(&self.path, self.value));
    }

    /// The same as before.
    pub(super) fn immutable(&self, old: &Value, found: &mut Found) {
        if self.value != old {
            self.invalid("field is immutable", found);
        }
    }
}
