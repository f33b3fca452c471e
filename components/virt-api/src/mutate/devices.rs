//! Disks, their buses and images, and the pod's network.

use serde_json::{Value, json};

use super::Cluster;
use super::value::{entry, fill, is_empty, list, text};

/// Volumes that are no disks: a memory dump is written, a container's path is shared as files.
const NO_DISKS: [&str; 2] = ["memoryDump", "containerPath"];

/// When images of disks are pulled: those that may change under their name, always.
pub(super) fn pull_policies(spec: &mut Value) {
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(disk) = volume.get_mut("containerDisk").filter(|disk| disk.is_object()) else { continue };
        let policy = policy(text(disk, "/image").unwrap_or_default());
        fill(disk, "imagePullPolicy", policy);
    }
}

fn policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (image.contains('@'), tag) {
        (true, _) => "IfNotPresent",
        (false, None | Some("latest")) => "Always",
        (false, Some(_)) => "IfNotPresent",
    }
}

/// Connects a guest that says nothing about networks to the pod's.
pub(super) fn pod_network(spec: &mut Value, cluster: &Cluster) {
    const NAME: &str = "default";
    let has = |pointer: &str| spec.pointer(pointer).and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    let refused = spec.pointer("/domain/devices/autoattachPodInterface") == Some(&Value::Bool(false));
    if refused || has("/networks") || has("/domain/devices/interfaces") {
        return;
    }
    list(spec, "networks").push(json!({"name": NAME, "pod": {}}));
    let devices = entry(entry(spec, "domain"), "devices");
    list(devices, "interfaces").push(json!({"name": NAME, cluster.interface(): {}}));
}

/// A disk for each volume that has none, and a bus for each disk.
pub(super) fn disks(spec: &mut Value, architecture: &str) {
    let is_disk =
        |volume: &&Value| !NO_DISKS.iter().any(|kind| volume.get(*kind).is_some_and(|source| !source.is_null()));
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<String> =
        volumes.filter(is_disk).filter_map(|volume| text(volume, "/name")).map(str::to_owned).collect();
    let devices = entry(entry(spec, "domain"), "devices");
    let taken = |devices: &Value, of: &str, name: &str| {
        let items = devices.get(of).and_then(Value::as_array).into_iter().flatten();
        items.into_iter().any(|item| text(item, "/name") == Some(name))
    };
    for name in names {
        if !taken(devices, "disks", &name) && !taken(devices, "filesystems", &name) {
            list(devices, "disks").push(json!({ "name": name }));
        }
    }
    let bus = if architecture == "amd64" { "sata" } else { "virtio" };
    for disk in devices.get_mut("disks").and_then(Value::as_array_mut).into_iter().flatten() {
        let given =
            ["disk", "cdrom", "lun"].into_iter().find(|kind| disk.get(*kind).is_some_and(|target| !is_empty(target)));
        fill(entry(disk, given.unwrap_or("disk")), "bus", bus);
    }
}
