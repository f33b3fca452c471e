//! One `audit.k8s.io/v1` Event per request, as a line of JSON at the Metadata level.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::identity::UserInfo;
use crate::request::RequestInfo;

/// Where audit lines go.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one line, without line feed.
    fn write(&self, line: &str);
}

/// Writes lines to a file or a pipe.
pub struct WriterSink<W>(Mutex<W>);

impl<W: Write + Send + 'static> WriterSink<W> {
    pub fn new(writer: W) -> Self {
        Self(Mutex::new(writer))
    }
}

impl<W: Write + Send + 'static> AuditSink for WriterSink<W> {
    fn write(&self, line: &str) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(writer, "{line}").and_then(|()| writer.flush()) {
            tracing::warn!(%error, "an audit line could not be written");
        }
    }
}

/// Keeps lines in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemorySink(Arc<Mutex<Vec<String>>>);

impl MemorySink {
    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl AuditSink for MemorySink {
    fn write(&self, line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    }
}

/// What is known when a request ends (or, for a watch, when its answer begins).
pub(crate) struct Record<'a> {
    pub id: &'a str,
    pub request: &'a RequestInfo,
    pub uri: &'a str,
    pub user: &'a UserInfo,
    /// Who acts, when `user` is not the one who authenticated.
    pub impersonated: Option<&'a UserInfo>,
    pub user_agent: &'a str,
    pub source: &'a str,
    pub code: u16,
    /// The Status' reason of a refusal.
    pub reason: &'a str,
    /// The name of an object created with `generateName`.
    pub created_name: &'a str,
    /// What admission noted.
    pub annotations: &'a BTreeMap<String, String>,
    pub received: Timestamp,
    pub stage_time: Timestamp,
}

impl Record<'_> {
    /// The line.
    pub(crate) fn to_line(&self) -> String {
        let stage = if self.request.is_watch() { "ResponseStarted" } else { "ResponseComplete" };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": self.id, "stage": stage,
            "requestURI": self.uri, "verb": self.request.verb, "user": self.user.to_value(),
            "sourceIPs": [self.source], "userAgent": self.user_agent,
            "responseStatus": self.status(),
            "requestReceivedTimestamp": micros(self.received), "stageTimestamp": micros(self.stage_time),
        });
        if let Some(user) = self.impersonated {
            event["impersonatedUser"] = user.to_value();
        }
        if let Some(object) = self.object_ref() {
            event["objectRef"] = object;
        }
        if !self.annotations.is_empty() {
            event["annotations"] = json!(self.annotations);
        }
        event.to_string()
    }

    fn status(&self) -> Value {
        let mut status = json!({"metadata": {}, "code": self.code});
        if !self.reason.is_empty() {
            status["status"] = json!("Failure");
            status["reason"] = json!(self.reason);
        }
        status
    }

    fn object_ref(&self) -> Option<Value> {
        let path = self.request.resource.as_ref()?;
        let name = if path.name.is_empty() { self.created_name } else { &path.name };
        let fields = [
            ("resource", path.plural.as_str()),
            ("namespace", &path.namespace),
            ("name", name),
            ("apiGroup", &path.group),
            ("apiVersion", &path.version),
            ("subresource", &path.subresource),
        ];
        let map: Map<String, Value> = fields
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(key, text)| (key.to_owned(), json!(text)))
            .collect();
        Some(Value::Object(map))
    }
}

fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}
