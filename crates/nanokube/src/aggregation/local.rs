//! `APIService` objects of the groups and versions this server serves itself: they say so, and are always available.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{is_remote, services};
use crate::core::Core;
use crate::registry::Table;
use crate::store::{Name, StoreError};

/// Says who looks after such an object.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Group, its priority among groups, and the priority of its first version; as on any server, since clients that choose
/// between groups of one kind follow them.
const PRIORITIES: &[(&str, u32, u32)] = &[
    ("", 18000, 1),
    ("apps", 17800, 15),
    ("events.k8s.io", 17750, 5),
    ("authentication.k8s.io", 17700, 15),
    ("authorization.k8s.io", 17600, 15),
    ("autoscaling", 17500, 15),
    ("batch", 17400, 15),
    ("certificates.k8s.io", 17300, 15),
    ("networking.k8s.io", 17200, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("storage.k8s.io", 16800, 15),
    ("admissionregistration.k8s.io", 16700, 15),
    ("apiextensions.k8s.io", 16700, 15),
    ("scheduling.k8s.io", 16600, 15),
    ("coordination.k8s.io", 16500, 15),
    ("node.k8s.io", 16300, 15),
    ("discovery.k8s.io", 16200, 12),
    ("resource.k8s.io", 16200, 15),
    ("flowcontrol.apiserver.k8s.io", 16100, 21),
];
/// The priorities of groups that come from definitions.
const CUSTOM: (u32, u32) = (1000, 100);
/// A newer stable version of a group stands above an older one by this.
const NEWER: u32 = 15;

fn service(core: &Core, group: &str, version: &str, custom: bool) -> Value {
    let (group_priority, first) =
        PRIORITIES.iter().find(|(known, ..)| *known == group).map_or(CUSTOM, |(_, group, first)| (*group, *first));
    let number = version.strip_prefix('v').and_then(|number| number.parse::<u32>().ok()).unwrap_or(1);
    let version_priority = if custom { CUSTOM.1 } else { first + number.saturating_sub(1) * NEWER };
    let mut spec = json!({
        "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
    });
    if !group.is_empty() {
        spec["group"] = json!(group);
    }
    let now = core.now_text();
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {
            // Not from the stream of other uids: which groups there are must not change the uids of objects.
            "name": name(group, version), "uid": core.call_id(), "creationTimestamp": now,
            "labels": {AUTOMANAGED: if custom { "true" } else { "onstart" }},
        },
        "spec": spec,
        "status": {"conditions": [{
            "type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
            "message": "Local APIServices are always available",
        }]},
    })
}

fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// The groups and versions of definitions, or (`custom` false) those that are built in. The registration of servers
/// behind this one is not itself registered.
fn wanted(table: &Table, custom: bool) -> BTreeSet<(String, String)> {
    table
        .iter()
        .filter(|resource| resource.custom.is_some() == custom && resource.group != "apiregistration.k8s.io")
        .map(|resource| (resource.group.clone(), resource.version.clone()))
        .collect()
}

/// Puts the objects of the built-in groups into an empty store.
pub(crate) fn register_built_in(core: &Core) {
    for (group, version) in wanted(&core.registry.table(), false) {
        let object = service(core, &group, &version, false);
        // The store is empty, so there is nothing to collide with.
        let _ = core.store.create(&services(), &Name::new("", &name(&group, &version)), object);
    }
}

/// Brings the objects of the groups of definitions in line with what is served.
pub(crate) fn register_custom(core: &Core) {
    let wanted = wanted(&core.registry.table(), true);
    for (group, version) in &wanted {
        let place = Name::new("", &name(group, version));
        match core.store.get(&services(), &place) {
            // Another server's claim to the group stands.
            Some(_) => {}
            None => match core.store.create(&services(), &place, service(core, group, version, true)) {
                Ok(_) | Err(StoreError::Exists) => {}
                Err(error) => tracing::warn!(%error, name = place.name, "a group was not registered"),
            },
        }
    }
    for known in core.store.objects(&services(), "") {
        let spec = &known.value["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let ours = known.value["metadata"]["labels"][AUTOMANAGED] == "true" && !is_remote(&known.value);
        if ours && !wanted.contains(&(text("group"), text("version"))) {
            let place = Name::new("", known.value["metadata"]["name"].as_str().unwrap_or_default());
            // A lost race is one with somebody who changed it; the next change of a definition looks again.
            let _ = core.store.delete(&services(), &place, known.revision, known.value.clone());
        }
    }
}
