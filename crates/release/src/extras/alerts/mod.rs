//! The alerts: one table, the PrometheusRule made from it, and which metrics it looks at.
//!
//! An alert ships only if something exposes what it asks for: a component of the suite, or a source that clusters with
//! Prometheus have ([`EXTERNAL`]). A test scrapes the components and compares.

mod table;

use std::collections::BTreeSet;

use kubevirt_api::names::label;
use serde_json::{Map, Value, json};

use super::monitoring::{NAME, Runbooks};
use crate::kinds::Kind;
use crate::object::Object;

pub use table::{ALERTS, EXTERNAL, NOT_SHIPPED};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Critical,
    Warning,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// One alert.
#[derive(Clone, Copy, Debug)]
pub struct Alert {
    pub name: &'static str,
    pub severity: Severity,
    /// What it means for the suite as a whole; `None` when users' machines are concerned and not the suite.
    pub impact: Option<Severity>,
    /// How long the expression has to hold.
    pub window: &'static str,
    /// The expression; `{ns}` stands for the matcher of the suite's namespace.
    expression: &'static str,
    /// Whether it is about the pods in the suite's namespace.
    pub of_namespace: bool,
    pub summary: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl Alert {
    /// The expression for a suite in a namespace.
    pub fn expression(&self, namespace: &str) -> String {
        self.expression.replace("{ns}", &format!("namespace=\"{namespace}\""))
    }
}

/// The PrometheusRule for a suite in a namespace.
pub(super) fn rule(namespace: &str, runbooks: &Runbooks) -> Object {
    let kind = Kind::PrometheusRule;
    let rules: Vec<Value> = ALERTS.iter().map(|alert| entry(alert, namespace, runbooks)).collect();
    Object::from_value(json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {label::PROMETHEUS: "true", "k8s-app": "kubevirt"},
        },
        "spec": {"groups": [{"name": "kubevirt.alerts", "rules": rules}]},
    }))
    .expect("a kind, a name and a namespace")
}

fn entry(alert: &Alert, namespace: &str, runbooks: &Runbooks) -> Value {
    let mut labels: Map<String, Value> = [
        ("severity", alert.severity.word()),
        ("operator_health_impact", alert.impact.map_or("none", Severity::word)),
        ("kubernetes_operator_part_of", "kubevirt"),
        ("kubernetes_operator_component", "kubevirt"),
    ]
    .map(|(key, value)| (key.to_owned(), Value::from(value)))
    .into_iter()
    .collect();
    if alert.of_namespace {
        labels.insert("namespace".into(), namespace.into());
    }
    json!({
        "alert": alert.name,
        "expr": alert.expression(namespace),
        "for": alert.window,
        "labels": labels,
        "annotations": {
            "summary": alert.summary,
            "description": alert.advice,
            "runbook_url": runbooks.page(alert.name),
        },
    })
}

/// The metrics an expression looks at: every name in it that is no function, no word of the language, and no label.
pub fn metrics(expression: &str) -> BTreeSet<String> {
    /// Words between vectors.
    const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    /// What a list of labels may stand behind.
    const AGGREGATIONS: [&str; 5] = ["avg", "count", "max", "min", "sum"];
    /// Words that a list of labels follows.
    const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '{' => after(rest, '}'),
            '[' => after(rest, ']'),
            '"' => rest.get(1..).map_or("", |inner| after(inner, '"')),
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => {
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                let (name, tail) = rest.split_at(rest.find(|c| !is_inside(c)).unwrap_or(rest.len()));
                let tail = tail.trim_start();
                if LISTS.contains(&name) && tail.starts_with('(') {
                    after(tail, ')')
                } else {
                    if !tail.starts_with('(') && !WORDS.contains(&name) && !AGGREGATIONS.contains(&name) {
                        found.insert(name.to_owned());
                    }
                    tail
                }
            }
            // A number may have letters in it.
            c if c.is_ascii_digit() => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            c => &rest[c.len_utf8()..],
        };
        rest = skipped;
    }
    found
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, tail)| tail)
}
