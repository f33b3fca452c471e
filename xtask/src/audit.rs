//! Reads nanokube's audit log: what each identity asked of the API, in order.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The operator's identity in a release's manifests.
pub(crate) const OPERATOR: &str = "system:serviceaccount:kubevirt:kubevirt-operator";

/// One request (`audit.k8s.io/v1` Event, the fields that are read here).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub verb: String,
    pub user: User,
    #[serde(default)]
    pub object_ref: ObjectRef,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct User {
    pub username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectRef {
    pub resource: String,
    pub name: String,
    pub subresource: String,
}

impl Entry {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    pub(crate) fn by_operator(&self) -> bool {
        self.user.username == OPERATOR
    }
}

/// All entries so far. A line that is still being written is not an entry yet.
///
/// # Errors
/// The file cannot be read, or holds something that is no audit event.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read the audit log {}", path.display()))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("audit log {}, line {}", path.display(), number + 1))
        })
        .collect()
}

/// The workloads in the order in which the operator first wrote them.
pub(crate) fn workload_order(entries: &[Entry]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.by_operator() && entry.is_write()) {
        let ObjectRef { resource, name, subresource } = &entry.object_ref;
        let workload = matches!(resource.as_str(), "deployments" | "daemonsets") && subresource.is_empty();
        if workload && !order.contains(name) {
            order.push(name.clone());
        }
    }
    order
}
