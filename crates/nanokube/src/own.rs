//! What a server puts into its own store for others to find: the service `kubernetes`, and the priorities of what a
//! cluster cannot do without.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::core::Core;
use crate::registry::resource_key;
use crate::store::Name;

/// The first address of services is the server's.
const SERVICE_IP: &str = "10.96.0.1";
/// Priority classes, with values above all that users may give.
const PRIORITIES: [(&str, u32, &str); 2] = [
    ("system-cluster-critical", 2_000_000_000, "For pods the cluster needs, wherever they run."),
    ("system-node-critical", 2_000_001_000, "For pods their node needs, more than anything else."),
];

/// At the start of a server.
pub(crate) fn bootstrap(core: &Core) {
    for (name, value, description) in PRIORITIES {
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name, "generation": 1},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        });
        put(core, "scheduling.k8s.io", "priorityclasses", object);
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": SERVICE_IP, "clusterIPs": [SERVICE_IP], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}],
        },
        "status": {"loadBalancer": {}},
    });
    put(core, "", "services", service);
}

/// Once the server listens: where it is.
pub(crate) fn publish_address(core: &Core, address: SocketAddr) {
    let ip = address.ip().to_string();
    let port = json!({"name": "https", "port": address.port(), "protocol": "TCP"});
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": ip}], "ports": [port]}],
    });
    put(core, "", "endpoints", endpoints);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "generation": 1,
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family, "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": [port],
    });
    put(core, "discovery.k8s.io", "endpointslices", slice);
}

/// Writes an object, in the place of what another server may have left. Its uid comes from a stream of its own: what a
/// cluster starts with must not change the uids of what comes later.
fn put(core: &Core, group: &str, plural: &str, mut object: Value) {
    let key = resource_key(group, plural);
    let metadata = &mut object["metadata"];
    let text = |field: &str, metadata: &Value| metadata[field].as_str().unwrap_or_default().to_owned();
    let place = Name::new(&text("namespace", metadata), &text("name", metadata));
    metadata["uid"] = json!(core.call_id());
    metadata["creationTimestamp"] = json!(core.now_text());
    // Err: it is there already.
    if core.store.create(&key, &place, object.clone()).is_ok() {
        return;
    }
    while let Some(live) = core.store.get(&key, &place) {
        for field in ["uid", "creationTimestamp"] {
            object["metadata"][field] = live.value["metadata"][field].clone();
        }
        if core.store.update(&key, &place, live.revision, object.clone()).is_ok() {
            return;
        }
    }
}
