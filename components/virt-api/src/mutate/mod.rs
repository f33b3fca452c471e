//! Admission that fills in what a user left open. Pure: from an object, the settings in the KubeVirt CR and the request's
//! own identifier, which stands in for chance. What is there is never changed, so doing it twice changes nothing.
//!
//! Left to whoever acts on it: finalizers. One that nobody takes off again would keep objects for ever, and the
//! controllers that take them off put them on.

mod cluster;
mod devices;
mod instance;
mod machine;
mod resources;
mod value;

use kubevirt_runtime::admission::{Operation, Review, Verdict};
use serde_json::{Value, json};

pub(crate) use self::cluster::Cluster;
use self::value::{entry, fill, object};
use crate::rules;

/// The parts of an object that are filled in, each replaced as a whole.
const PARTS: [&str; 3] = ["metadata", "spec", "status"];

/// Judges a review sent to `path`; `None` for what is no mutating webhook.
pub(crate) fn mutate(path: &str, namespace: &str, review: &Review, cluster: &Cluster) -> Option<Verdict> {
    let mut new = review.object.clone();
    if !new.is_object() {
        return None;
    }
    match path {
        "/virtualmachines-mutate" => machine::fill_in(&mut new, review, cluster),
        "/virtualmachineinstances-mutate" => match review.operation {
            Operation::Create => instance::fill_in(&mut new, review, cluster),
            // It has no status subresource that would keep users from it.
            _ if !rules::is_own(namespace, &review.user) => keep_status(&mut new, &review.old_object),
            _ => {}
        },
        "/migration-mutate-create" => name_instance(&mut new),
        "/vm-clone-mutate-create" => name_target(&mut new, review),
        // Containers' paths are mounted by whoever makes the pod; here nothing is to be changed.
        "/virt-launcher-pod-mutate" => {}
        _ => return None,
    }
    Some(Verdict::Allow { patch: patch(&review.object, &new) })
}

/// The changes that make `new` of `old`.
fn patch(old: &Value, new: &Value) -> Vec<Value> {
    let changed = PARTS.iter().filter(|part| old.get(**part) != new.get(**part));
    changed
        .map(|part| {
            let path = format!("/{part}");
            match (old.get(*part), new.get(*part)) {
                (None, value) => json!({"op": "add", "path": path, "value": value}),
                (Some(_), Some(value)) => json!({"op": "replace", "path": path, "value": value}),
                (Some(_), None) => json!({"op": "remove", "path": path}),
            }
        })
        .collect()
}

fn keep_status(new: &mut Value, old: &Value) {
    let fields = object(new);
    match old.get("status") {
        Some(status) => drop(fields.insert("status".into(), status.clone())),
        None => drop(fields.remove("status")),
    }
}

/// Migrations are found by the instance they are about.
fn name_instance(migration: &mut Value) {
    if let Some(name) = migration.pointer("/spec/vmiName").and_then(Value::as_str).map(str::to_owned) {
        // Whatever a user wrote there: the label says what the spec says.
        object(entry(entry(migration, "metadata"), "labels")).insert("kubevirt.io/vmi-name".into(), name.into());
    }
}

/// A clone that names no target gets one of its own.
fn name_target(clone: &mut Value, review: &Review) {
    /// Enough to tell the clones of one machine apart.
    const SUFFIX: usize = 5;
    let Some(source) = clone.pointer("/spec/source/name").and_then(Value::as_str) else { return };
    let suffix: String = unique(review, "clone").chars().take(SUFFIX).collect();
    let name = format!("clone-{source}-{suffix}");
    let target = entry(entry(clone, "spec"), "target");
    fill(target, "apiGroup", "kubevirt.io");
    fill(target, "kind", "VirtualMachine");
    fill(target, "name", name);
}

/// A UUID that no other request has, the same each time this one is looked at.
fn unique(review: &Review, purpose: &str) -> String {
    use sha1::{Digest, Sha1};
    /// The namespace of the suite's name-based UUIDs.
    const NAMESPACE: uuid::Uuid = uuid::uuid!("6a1a24a1-4061-4607-8bf4-a3963d0c5895");
    let digest = Sha1::new().chain_update(NAMESPACE).chain_update(&review.uid).chain_update(purpose).finalize();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(byte, other)| *byte = other);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests;
