//! Rules of amounts: of what containers ask for and are limited to, of what claims, quotas and ranges count.

use super::at::{At, Found};
use crate::names;

const OF_CONTAINERS: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Resources that are shared: a container may ask for less than its limit.
const OVERCOMMITTED: [&str; 4] = ["cpu", "ephemeral-storage", "memory", "storage"];
/// Things that come whole.
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// Other names without a domain that mean something to somebody.
const MEASURED: [&str; 13] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "bindings",
    "namespaces",
];
/// Of those, what a quota does not count.
const NOT_IN_QUOTAS: [&str; 3] = ["storage", "bindings", "namespaces"];
const HUGE: &str = "hugepages-";

fn standard(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || ["", "requests.", "limits."].iter().any(|p| name.starts_with(&format!("{p}{HUGE}")))
}

/// A resource by name: qualified, or one that everybody knows.
pub(super) fn name(at: &At<'_>, name: &str, found: &mut Found) -> bool {
    let shown = serde_json::json!(name);
    let wrong = names::label_key(name);
    for why in &wrong {
        at.invalid_as(&shown, why, found);
    }
    if wrong.is_empty() && !name.contains('/') && !standard(name) {
        at.invalid_as(&shown, "must be a standard resource type or fully qualified", found);
    }
    wrong.is_empty()
}

fn name_in_container(at: &At<'_>, given: &str, found: &mut Found) {
    let shown = serde_json::json!(given);
    name(at, given, found);
    if !given.contains('/') {
        if !OF_CONTAINERS.contains(&given) && !given.starts_with(HUGE) {
            at.invalid_as(&shown, "must be a standard resource for containers", found);
        }
    } else if given.starts_with("requests.") {
        at.invalid_as(&shown, "doesn't follow extended resource name standard", found);
    }
}

pub(super) fn name_in_quota(at: &At<'_>, given: &str, found: &mut Found) {
    name(at, given, found);
    if !given.contains('/') && (!standard(given) || NOT_IN_QUOTAS.contains(&given)) && !given.contains(".storageclass.")
    {
        at.invalid_as(&serde_json::json!(given), "must be a standard resource for quota", found);
    }
}

/// An amount of a resource: none is less than nothing, and some things come only whole.
pub(super) fn amount(at: &At<'_>, name: &str, found: &mut Found) {
    let Some(amount) = at.amount() else {
        at.invalid("must be an amount such as 500m or 64Mi", found);
        return;
    };
    if amount.milli() < 0 {
        at.invalid("must be greater than or equal to 0", found);
    }
    let extended = name.contains('/') && !name.contains("kubernetes.io/");
    if (COUNTED.contains(&name) || extended) && amount.milli() % 1000 != 0 {
        at.invalid("must be an integer", found);
    }
}

pub(super) fn requirements(at: &At<'_>, found: &mut Found) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    for (name, limit) in limits.entries() {
        name_in_container(&limit, name, found);
        amount(&limit, name, found);
    }
    for (name, asked) in requests.entries() {
        name_in_container(&asked, name, found);
        amount(&asked, name, found);
        let limit = limits.key(name);
        let shared = OVERCOMMITTED.contains(&name) || (!name.contains('/') && !name.starts_with(HUGE));
        if !limit.given() {
            if !shared {
                limits.required("a resource that is not shared needs a limit", found);
            }
            continue;
        }
        if let (Some(a), Some(l)) = (asked.amount(), limit.amount()) {
            if a != l && !shared {
                let why = format!("must be equal to {name} limit of {}", limit.text());
                requests.invalid_as(asked.value, &why, found);
            } else if a > l {
                let why = format!("must be less than or equal to {name} limit of {}", limit.text());
                requests.invalid_as(asked.value, &why, found);
            }
        }
    }
    if !at.get("claims").empty() {
        let mut seen = Vec::new();
        for claim in at.get("claims").items() {
            let key = (claim.get("name").text(), claim.get("request").text());
            if seen.contains(&key) {
                claim.duplicate(found);
            }
            seen.push(key);
        }
    }
}
