//! Flags of a component become its container's command; the container's arguments stay and follow.

use std::collections::BTreeMap;

use kubevirt_api::kubevirt::Flags as Given;
use serde_json::Value;

use super::{Place, Why};
use crate::kinds::Kind;
use crate::object::ObjectKey;

/// The flags of one component.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flags {
    pub(super) place: Place,
    kind: Kind,
    /// The workload's name and the container's.
    name: &'static str,
    command: Vec<String>,
}

/// The flags that are given.
pub(super) fn read(given: Option<&Given>) -> Vec<Flags> {
    let Some(Given { api, controller, handler, other: _ }) = given else { return vec![] };
    let of = |component, kind, name, flags: &Option<BTreeMap<String, String>>| {
        let flags = flags.as_ref().filter(|flags| !flags.is_empty())?;
        Some(Flags { place: Place::Flags { component }, kind, name, command: command(name, flags) })
    };
    [
        of("api", Kind::Deployment, "virt-api", api),
        of("controller", Kind::Deployment, "virt-controller", controller),
        of("handler", Kind::DaemonSet, "virt-handler", handler),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A program with its flags, by name: without a value, with a switch's value, or with a word of its own.
fn command(name: &str, flags: &BTreeMap<String, String>) -> Vec<String> {
    let flags: BTreeMap<String, String> = flags.iter().map(|(k, v)| (k.to_lowercase(), v.to_lowercase())).collect();
    let words = flags.iter().flat_map(|(key, value)| match value.as_str() {
        "" => vec![format!("--{key}")],
        "true" | "false" => vec![format!("--{key}={value}")],
        _ => vec![format!("--{key}"), value.clone()],
    });
    [name.to_owned()].into_iter().chain(words).collect()
}

impl Flags {
    pub(super) fn concerns(&self, key: &ObjectKey) -> bool {
        key.kind == self.kind && key.name == self.name
    }

    pub(super) fn apply(&self, workload: &mut Value) -> Result<(), Why> {
        let containers = workload.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        let own = containers.into_iter().flatten().find(|container| container["name"] == self.name);
        own.ok_or(Why::NoContainer(self.name))?["command"] = self.command.clone().into();
        Ok(())
    }
}
