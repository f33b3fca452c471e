//! Sets of field paths, in the form `managedFields` stores them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The name of a step of a path, as `fieldsV1` writes it: `f:<field>`, `k:<keys of a list item>`, `v:<item of a set>`,
/// `i:<index>`. The JSON inside is canonical, so equal steps are equal strings.
pub(super) type Step = String;

pub(super) fn field_step(name: &str) -> Step {
    format!("f:{name}")
}

/// A set of paths, as a tree. A node is a member when its own path is in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) member: bool,
    pub(super) children: BTreeMap<Step, Set>,
}

/// The text of `fieldsV1` cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SetError {
    #[error("a set of fields must be an object, found {0}")]
    NotAnObject(String),
    #[error("{0:?} is not a step of a path: it must start with f:, k:, v: or i:")]
    Step(String),
}

impl Set {
    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// The node of a child; made when it is not there.
    pub(super) fn at(&mut self, step: &str) -> &mut Self {
        self.children.entry(step.to_owned()).or_default()
    }

    pub(super) fn insert(&mut self, path: &[Step]) {
        let mut node = self;
        for step in path {
            node = node.at(step);
        }
        node.member = true;
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, theirs) in &other.children {
            self.at(step).union(theirs);
        }
    }

    /// The members that are not members of `other`.
    #[must_use]
    pub(super) fn minus(&self, other: &Self) -> Self {
        let children = self.children.iter().map(|(step, ours)| match other.children.get(step) {
            Some(theirs) => (step.clone(), ours.minus(theirs)),
            None => (step.clone(), ours.clone()),
        });
        Self { member: self.member && !other.member, children: children.filter(|(_, s)| !s.is_empty()).collect() }
    }

    /// The members of both.
    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .filter_map(|(step, ours)| other.children.get(step).map(|theirs| (step.clone(), ours.and(theirs))));
        Self { member: self.member && other.member, children: children.filter(|(_, s)| !s.is_empty()).collect() }
    }

    /// Removes a path and everything below it.
    pub(super) fn cut(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.children.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(s) = self.children.get_mut(*first) {
                    s.cut(rest);
                    if s.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    /// Every member's path as people read it: `.spec.containers[name="x"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.paths_at("", &mut out);
        out
    }

    fn paths_at(&self, path: &str, out: &mut Vec<String>) {
        if self.member {
            out.push(path.to_owned());
        }
        for (step, s) in &self.children {
            s.paths_at(&format!("{path}{}", shown(step)), out);
        }
    }

    /// The form stored in `fieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, s) in self.children.iter().filter(|(_, s)| !s.is_empty()) {
            map.insert(step.clone(), s.to_fields_v1());
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// The value is not such a tree.
    pub fn from_fields_v1(value: &Value) -> Result<Self, SetError> {
        let map = value.as_object().ok_or_else(|| SetError::NotAnObject(value.to_string()))?;
        let mut set = Self::default();
        for (step, v) in map {
            if step == "." {
                set.member = true;
                continue;
            }
            let step = canonical(step)?;
            let mut below = Self::from_fields_v1(v)?;
            if below.children.is_empty() {
                below.member = true;
            }
            set.children.insert(step, below);
        }
        Ok(set)
    }
}

fn canonical(step: &str) -> Result<Step, SetError> {
    let wrong = || SetError::Step(step.to_owned());
    match step.split_at_checked(2) {
        Some(("f:", _)) => Ok(step.to_owned()),
        Some(("i:", n)) if n.parse::<i64>().is_ok() => Ok(step.to_owned()),
        Some((head @ ("k:" | "v:"), json)) => {
            let value: Value = serde_json::from_str(json).map_err(|_| wrong())?;
            if head == "k:" && !value.is_object() {
                return Err(wrong());
            }
            Ok(format!("{head}{value}"))
        }
        _ => Err(wrong()),
    }
}

fn shown(step: &str) -> String {
    let (head, rest) = step.split_at(2);
    match head {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let mut out = String::from("[");
            for (i, (name, v)) in keys.iter().enumerate() {
                let _ = write!(out, "{}{name}={v}", if i == 0 { "" } else { "," });
            }
            out + "]"
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}
