//! A new VirtualMachineInstance: everything its domain is made from is decided when it is stored, in the order in which one
//! follows from the other.

use kubevirt_runtime::admission::Review;
use serde_json::{Value, json};

use super::value::{entry, fill, object, text};
use super::{Cluster, devices, resources, unique};

/// The user as whom a guest runs.
const RUNTIME_USER: u64 = 107;
/// How a guest's PCI devices are laid out.
const PCI_TOPOLOGY: &str = "v3";

pub(super) fn fill_in(instance: &mut Value, review: &Review, cluster: &Cluster) {
    let spec = entry(instance, "spec");
    fill(spec, "architecture", cluster.architecture());
    let architecture = text(spec, "/architecture").unwrap_or_default().to_owned();
    fill(entry(entry(spec, "domain"), "machine"), "type", cluster.machine_type(&architecture));
    resources::topology(entry(spec, "domain"));
    resources::guest_memory(entry(spec, "domain"));
    devices::pull_policies(spec);
    if let Some(strategy) = cluster.eviction_strategy() {
        fill(spec, "evictionStrategy", strategy);
    }
    devices::pod_network(spec, cluster);
    devices::disks(spec, &architecture);
    let domain = entry(spec, "domain");
    fill(entry(domain, "cpu"), "model", cluster.cpu_model());
    let firmware = entry(domain, "firmware");
    fill(firmware, "uuid", unique(review, "uuid"));
    fill(firmware, "serial", unique(review, "serial"));
    fill(entry(entry(domain, "features"), "acpi"), "enabled", true);
    resources::room_to_grow(domain, &architecture, cluster);

    let (topology, memory) = (resources::current_topology(domain), resources::current_memory(domain));
    fill(entry(entry(instance, "metadata"), "annotations"), "kubevirt.io/pci-topology-version", PCI_TOPOLOGY);
    let mut status = json!({"phase": "Pending", "runtimeUser": RUNTIME_USER, "currentCPUTopology": topology});
    if let Some(memory) = memory {
        object(&mut status).insert("memory".into(), memory);
    }
    // A new instance has no past, whatever was sent along.
    object(instance).insert("status".into(), status);
}
