//! Who wrote which revision, and when: the audit log, read as the server writes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nanokube::{AuditSink, Nanokube};
use serde_json::Value;
use tokio::time::Instant;

/// An entry per revision. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    server: Arc<OnceLock<Nanokube>>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    last: u64,
    entries: BTreeMap<u64, (String, Instant)>,
}

impl Ledger {
    /// From now on revisions are read from this server.
    pub(crate) fn attach(&self, server: Nanokube) {
        self.lock().last = server.revision();
        assert!(self.server.set(server).is_ok(), "a ledger belongs to one server");
    }

    /// Who wrote a revision, and when. `None` for what the server wrote by itself.
    pub(crate) fn writer(&self, revision: u64) -> Option<(String, Instant)> {
        self.lock().entries.get(&revision).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditSink for Ledger {
    /// The line of a request is written right after it was carried out, before anybody else can write: every revision
    /// since the last line is this request's.
    fn write(&self, line: &str) {
        let Some(server) = self.server.get() else { return };
        let revision = server.revision();
        let mut book = self.lock();
        if revision == book.last {
            return;
        }
        let first = book.last + 1;
        book.last = revision;
        let event: Value = serde_json::from_str(line).expect("an audit line is JSON");
        if ["create", "update", "patch", "delete", "deletecollection"].iter().any(|verb| event["verb"] == *verb) {
            let who = short(event["user"]["username"].as_str().unwrap_or_default());
            for revision in first..=revision {
                book.entries.insert(revision, (who.clone(), Instant::now()));
            }
        }
    }
}

/// A user as transcripts name it.
fn short(user: &str) -> String {
    match user {
        "kubernetes-admin" => "nodes".to_owned(),
        "system:kube-controller-manager" => "controllers".to_owned(),
        "system:kube-scheduler" => "scheduler".to_owned(),
        other => other.rsplit(':').next().unwrap_or(other).to_owned(),
    }
}
