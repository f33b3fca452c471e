//! What an installation brings beside the suite itself: what Prometheus is told, and ready-made instance types and
//! preferences. No component needs any of it, so it waits for nobody and nobody waits for it.

pub mod alerts;
pub mod instancetypes;
pub mod monitoring;
pub mod preferences;

use std::collections::BTreeMap;

use crate::kinds::Kind;
use crate::object::{Object, ObjectKey};

/// Kinds whose objects are all ready-made types: what carries the operator's labels and is none of them is removed.
pub const TYPES: [Kind; 2] = [Kind::VirtualMachineClusterInstancetype, Kind::VirtualMachineClusterPreference];

/// Whether an object stands beside the version: it is neither planned with it nor pruned with it.
pub fn is_extra(key: &ObjectKey) -> bool {
    let is_monitoring = matches!(key.kind, Kind::ServiceMonitor | Kind::PrometheusRule)
        || (matches!(key.kind, Kind::Role | Kind::RoleBinding) && key.name == monitoring::ACCESS);
    is_monitoring || TYPES.contains(&key.kind)
}

/// Every ready-made type of a kind, with the labels that every managed object carries ([`crate::desired::product_labels`]).
pub fn types(kind: Kind, labels: &BTreeMap<&str, String>) -> Vec<Object> {
    let mut objects = match kind {
        Kind::VirtualMachineClusterInstancetype => instancetypes::all(),
        Kind::VirtualMachineClusterPreference => preferences::all(),
        _ => Vec::new(),
    };
    for object in &mut objects {
        for (key, value) in labels {
            object.set_label(key, value.clone());
        }
    }
    objects
}

#[cfg(test)]
mod tests;
