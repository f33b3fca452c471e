//! A VirtualMachine: what has to stay the same whenever its guest is started again is decided when it is stored.

use kubevirt_runtime::admission::{Operation, Review};
use serde_json::Value;

use super::value::{entry, fill, text};
use super::{Cluster, unique};

pub(super) fn fill_in(machine: &mut Value, review: &Review, cluster: &Cluster) {
    let is_going = machine.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let has_guest = machine.pointer("/spec/template/spec").is_some_and(Value::is_object);
    if is_going || !has_guest {
        return;
    }
    // A preference may name another machine type, and nobody has looked it up here.
    let is_open = machine.pointer("/spec/preference").is_none_or(Value::is_null);
    let guest = entry(entry(entry(machine, "spec"), "template"), "spec");
    fill(guest, "architecture", cluster.architecture());
    let architecture = text(guest, "/architecture").unwrap_or_default().to_owned();
    let domain = entry(guest, "domain");
    if is_open {
        fill(entry(domain, "machine"), "type", cluster.machine_type(&architecture));
    }
    if review.operation == Operation::Create {
        fill(entry(domain, "firmware"), "uuid", unique(review, "uuid"));
    }
}
