//! The names of the subresource API. Pure data.

use kubevirt_component::Verb;

/// The aggregated API group.
pub(crate) const GROUP: &str = "subresources.kubevirt.io";

/// Its versions, the preferred one first; both have the same shape.
pub(crate) const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];

/// A subresource of a namespaced object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subresource {
    pub(crate) resource: &'static str,
    pub(crate) kind: &'static str,
    /// The name in discovery and in access rules.
    pub(crate) name: &'static str,
    /// What follows the name in the path, parameters in braces; empty for nothing.
    pub(crate) tail: &'static str,
    pub(crate) verb: Verb,
}

impl Subresource {
    /// Its path below the object.
    pub(crate) fn path(&self) -> String {
        format!("{}{}", self.name, self.tail)
    }

    /// The verb an access rule grants.
    pub(crate) fn access_verb(&self) -> &'static str {
        match self.verb {
            Verb::Get => "get",
            Verb::Put | Verb::Post => "update",
        }
    }
}

const fn vmi(verb: Verb, name: &'static str) -> Subresource {
    Subresource { resource: "virtualmachineinstances", kind: "VirtualMachineInstance", name, tail: "", verb }
}

const fn vm(verb: Verb, name: &'static str) -> Subresource {
    Subresource { resource: "virtualmachines", kind: "VirtualMachine", name, tail: "", verb }
}

/// Every subresource. Rows of one name differ by their tail.
pub(crate) const ALL: &[Subresource] = &[
    vmi(Verb::Get, "console"),
    vmi(Verb::Get, "vnc"),
    vmi(Verb::Get, "vnc/screenshot"),
    vmi(Verb::Get, "usbredir"),
    vmi(Verb::Get, "vsock"),
    Subresource { tail: "/{port}", ..vmi(Verb::Get, "portforward") },
    Subresource { tail: "/{port}/{protocol}", ..vmi(Verb::Get, "portforward") },
    vmi(Verb::Put, "pause"),
    vmi(Verb::Put, "unpause"),
    vmi(Verb::Put, "freeze"),
    vmi(Verb::Put, "unfreeze"),
    vmi(Verb::Put, "reset"),
    vmi(Verb::Put, "softreboot"),
    vmi(Verb::Get, "guestosinfo"),
    vmi(Verb::Get, "userlist"),
    vmi(Verb::Get, "filesystemlist"),
    vmi(Verb::Get, "objectgraph"),
    vmi(Verb::Put, "addvolume"),
    vmi(Verb::Put, "removevolume"),
    vmi(Verb::Put, "evacuate/cancel"),
    vm(Verb::Put, "start"),
    vm(Verb::Put, "stop"),
    vm(Verb::Put, "restart"),
    vm(Verb::Put, "migrate"),
    vm(Verb::Get, "expand-spec"),
    vm(Verb::Get, "objectgraph"),
    vm(Verb::Put, "memorydump"),
    vm(Verb::Put, "removememorydump"),
    vm(Verb::Put, "addvolume"),
    vm(Verb::Put, "removevolume"),
    vm(Verb::Put, "evacuate/cancel"),
    Subresource { tail: "/{port}", ..vm(Verb::Get, "portforward") },
    Subresource { tail: "/{port}/{protocol}", ..vm(Verb::Get, "portforward") },
];
