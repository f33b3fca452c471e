//! Processors and memory: what a guest starts with, and what it may grow to while it runs.

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use super::Cluster;
use super::value::{entry, fill, text};

/// The most processors a guest can have.
const MOST_CPUS: u64 = 512;
/// Memory is plugged in in pieces of this size, and a guest has to consist of them.
const PIECE: i128 = 2 << 20;
/// With huge pages of a gibibyte, pieces are as large as they.
const LARGE_PIECE: i128 = 1 << 30;
/// A smaller guest has no use for more memory while it runs.
const LEAST_TO_GROW: i128 = 1 << 30;

fn quantity(domain: &Value, pointer: &str) -> Option<Quantity> {
    let value = domain.pointer(pointer)?;
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn count(domain: &Value, field: &str) -> u64 {
    domain.pointer(&format!("/cpu/{field}")).and_then(Value::as_u64).filter(|count| *count > 0).unwrap_or(1)
}

/// One socket of one core of one thread; as many sockets as processors are asked for where nobody said how they are
/// arranged.
pub(super) fn topology(domain: &mut Value) {
    let given =
        ["sockets", "cores", "threads"].map(|field| domain.pointer(&format!("/cpu/{field}")).and_then(Value::as_u64));
    let is_open = given.iter().all(|count| count.is_none_or(|count| count == 0));
    let asked = ["limits", "requests"].iter().find_map(|list| quantity(domain, &format!("/resources/{list}/cpu")));
    let sockets =
        asked.filter(|_| is_open).and_then(|cpus| u64::try_from(cpus.whole()).ok()).map_or(1, |cpus| cpus.max(1));
    let cpu = entry(domain, "cpu");
    for (field, default) in [("sockets", sockets), ("cores", 1), ("threads", 1)] {
        let count = entry(cpu, field);
        if count.as_u64().is_none_or(|count| count == 0) {
            *count = default.into();
        }
    }
}

/// A guest that names no memory has what is asked of the node for it.
pub(super) fn guest_memory(domain: &mut Value) {
    let named = domain.pointer("/memory/guest").is_some_and(|guest| !guest.is_null());
    let asked =
        ["requests", "limits"].iter().find_map(|list| domain.pointer(&format!("/resources/{list}/memory")).cloned());
    if let Some(asked) = asked.filter(|asked| !named && !asked.is_null()) {
        fill(entry(domain, "memory"), "guest", asked);
    }
}

/// How far sockets and memory may be raised later, where they can be at all.
pub(super) fn room_to_grow(domain: &mut Value, architecture: &str, cluster: &Cluster) {
    if architecture != "amd64" {
        return;
    }
    let (sockets, per_socket) =
        (count(domain, "sockets"), count(domain, "cores").saturating_mul(count(domain, "threads")));
    let wanted = cluster.max_cpu_sockets().unwrap_or_else(|| sockets.saturating_mul(cluster.hotplug_ratio()));
    let most = wanted.min(MOST_CPUS / per_socket).max(sockets);
    fill(entry(domain, "cpu"), "maxSockets", most);
    if let Some(most) = most_memory(domain, cluster) {
        fill(entry(domain, "memory"), "maxGuest", most);
    }
}

fn most_memory(domain: &Value, cluster: &Cluster) -> Option<String> {
    let is_set = |pointer: &str| domain.pointer(pointer).is_some_and(|value| !value.is_null());
    if ["/cpu/realtime", "/cpu/numa/guestMappingPassthrough", "/launchSecurity"].into_iter().any(is_set) {
        return None;
    }
    let guest = quantity(domain, "/memory/guest")?.whole();
    let piece = if text(domain, "/memory/hugepages/pageSize") == Some("1Gi") { LARGE_PIECE } else { PIECE };
    if guest < LEAST_TO_GROW || guest % piece != 0 {
        return None;
    }
    let configured = cluster.max_guest().and_then(|most| most.parse::<Quantity>().ok()).map(Quantity::whole);
    let most = configured.unwrap_or_else(|| guest.saturating_mul(i128::from(cluster.hotplug_ratio())));
    // Whoever set less for the cluster meant guests that are smaller.
    (most >= guest).then(|| in_binary(most))
}

/// An amount of bytes as people write it.
fn in_binary(bytes: i128) -> String {
    const UNITS: [(&str, i128); 3] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let unit = UNITS.iter().find(|(_, size)| bytes % size == 0);
    unit.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// What the guest starts with, for its status.
pub(super) fn current_topology(domain: &Value) -> Value {
    json!({"sockets": count(domain, "sockets"), "cores": count(domain, "cores"), "threads": count(domain, "threads")})
}

/// The same for memory, if it is known.
pub(super) fn current_memory(domain: &Value) -> Option<Value> {
    let guest = domain.pointer("/memory/guest").filter(|guest| !guest.is_null())?;
    Some(json!({"guestAtBoot": guest, "guestCurrent": guest, "guestRequested": guest}))
}
