//! Whether a live object is what we want, without asking the server.
//!
//! The server adds to what it is sent (defaults, status, other managers' labels), so wanted must be contained in live,
//! not equal to it. What we once sent and no longer want is found in the object's own record of who manages what.

pub(crate) mod adoption;
mod differences;
mod record;

pub use differences::Difference;
pub(crate) use differences::differences;
pub use record::pack;
use std::fmt;
use std::ops::ControlFlow;

use serde_json::{Map, Value};

use crate::quantity;

/// The field manager under which the operator writes.
pub const FIELD_MANAGER: &str = "virt-operator";

/// The first place at which a live object differs from what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Where, e.g. `spec.template.spec.containers[0].image`.
    pub path: String,
    /// The same place as a JSON pointer.
    pub pointer: String,
    pub kind: DriftKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriftKind {
    /// A wanted field is not there.
    Missing,
    /// A field has another value.
    Value,
    /// A list has more or fewer elements.
    Length,
    /// We wrote this field once and no longer want it.
    NoLongerWanted,
    /// An operator that does not apply has written it under our name.
    NotAdopted,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DriftKind::Missing => "is missing",
            DriftKind::Value => "has another value",
            DriftKind::Length => "has more or fewer elements",
            DriftKind::NoLongerWanted => "is no longer wanted",
            DriftKind::NotAdopted => "is another operator's record",
        };
        write!(f, "{} {what}", self.path)
    }
}

/// Where `live` differs from `wanted`, or `None` when there is nothing to write. `ignored` lists annotations that alone
/// are no reason for a write.
pub fn drift(wanted: &Value, live: &Value, ignored: &[&str]) -> Option<Drift> {
    let mut path = Path::default();
    contained(wanted, live, ignored, &mut path)
        .or_else(|| leftover(wanted, live, ignored))
        .or_else(|| adoption::is_due(live).then(adoption::drift))
}

/// The place being looked at.
#[derive(Default)]
struct Path(Vec<Segment>);

enum Segment {
    Field(String),
    Index(usize),
}

impl Path {
    fn drift(&self, kind: DriftKind) -> Option<Drift> {
        let (mut path, mut pointer) = (String::new(), String::new());
        for segment in &self.0 {
            match segment {
                Segment::Field(name) => pointer.push_str(&format!("/{}", name.replace('~', "~0").replace('/', "~1"))),
                Segment::Index(index) => pointer.push_str(&format!("/{index}")),
            }
            match segment {
                Segment::Field(name) if path.is_empty() => path.push_str(name),
                Segment::Field(name) => path.push_str(&format!(".{name}")),
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        Some(Drift { path, pointer, kind })
    }

    fn with<T>(&mut self, segment: Segment, look: impl FnOnce(&mut Self) -> T) -> T {
        self.0.push(segment);
        let result = look(self);
        self.0.pop();
        result
    }

    /// The names of the fields from the root, list elements left out.
    fn fields(&self) -> Vec<&str> {
        let field = |segment: &'_ Segment| matches!(segment, Segment::Field(_));
        self.0
            .iter()
            .filter(|segment| field(segment))
            .map(|segment| match segment {
                Segment::Field(name) => name.as_str(),
                Segment::Index(_) => "",
            })
            .collect()
    }
}

fn contained(wanted: &Value, live: &Value, ignored: &[&str], path: &mut Path) -> Option<Drift> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .find_map(|(name, wanted)| {
                if is_skipped(path, name, ignored) {
                    return None;
                }
                path.with(Segment::Field(name.clone()), |path| match live.get(name) {
                    Some(live) => contained(wanted, live, ignored, path),
                    None if is_omitted(wanted, path) => None,
                    None => path.drift(DriftKind::Missing),
                })
            })
            .or_else(|| foreign_field(wanted, live, path)),
        (Value::Array(wanted), Value::Array(live)) => {
            let live = one_name_per_port(wanted, live, path);
            if wanted.len() != live.len() {
                return path.drift(DriftKind::Length);
            }
            wanted.iter().zip(live).enumerate().find_map(|(index, (wanted, live))| {
                path.with(Segment::Index(index), |path| contained(wanted, live, ignored, path))
            })
        }
        (wanted, live) if is_equal(wanted, live, path) => None,
        _ => path.drift(DriftKind::Value),
    }
}

/// A list as it is compared. A port of a container may have been given two names, by who does not apply; number and
/// protocol name it when it is applied. A further name of a wanted port is as good as none, and to take it away would cost
/// every pod.
fn one_name_per_port<'a>(wanted: &[Value], live: &'a [Value], path: &Path) -> Vec<&'a Value> {
    let is_ports = matches!(path.0.as_slice(), [.., Segment::Field(list), Segment::Index(_), Segment::Field(ports)]
        if list == "containers" && ports == "ports");
    let number =
        |port: &Value| (port.get("containerPort").cloned(), text(port, "protocol").unwrap_or("TCP").to_owned());
    let is_further_name = |port: &&Value| {
        let named = wanted.iter().find(|wanted| number(wanted) == number(port));
        named.is_some_and(|wanted| {
            let name = text(wanted, "name");
            text(port, "name") != name
                && live.iter().any(|other| number(other) == number(port) && text(other, "name") == name)
        })
    };
    live.iter().filter(|port| !(is_ports && is_further_name(port))).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// Fields of metadata and of a pod template that are ours as a whole: no server fills them in, so one that is there and not
/// wanted was put there by somebody, or is left of an object that somebody made anew from an older one of ours.
fn foreign_field(wanted: &Map<String, Value>, live: &Map<String, Value>, path: &mut Path) -> Option<Drift> {
    if is_whole(path) {
        let name = live.keys().find(|name| !wanted.contains_key(*name))?;
        return path.with(Segment::Field(name.clone()), |path| path.drift(DriftKind::Length));
    }
    if is_in_version(path) {
        // A write of the list takes it away; one that comes back is contested.
        let is_more = |(name, live): &(&String, &Value), path: &mut Path| {
            !wanted.contains_key(*name) && path.with(Segment::Field((*name).clone()), |path| !is_omitted(live, path))
        };
        let (name, _) = live.iter().find(|field| is_more(field, path))?;
        return path.with(Segment::Field(name.clone()), |path| path.drift(DriftKind::NoLongerWanted));
    }
    const OF_CONTAINER: &[&str] = &[
        "args",
        "command",
        "env",
        "envFrom",
        "lifecycle",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "resources",
        "securityContext",
        "startupProbe",
        "volumeDevices",
        "volumeMounts",
    ];
    const OF_POD: &[&str] = &[
        "affinity",
        "dnsConfig",
        "hostAliases",
        "imagePullSecrets",
        "initContainers",
        "securityContext",
        "tolerations",
        "volumes",
    ];
    const OF_METADATA: &[&str] = &["ownerReferences"];
    let names = match path.0.as_slice() {
        // What we manage nobody else owns: with its owner it would be collected.
        [Segment::Field(metadata)] if metadata == "metadata" => OF_METADATA,
        [.., Segment::Field(list), Segment::Index(_)] if matches!(list.as_str(), "containers" | "initContainers") => {
            OF_CONTAINER
        }
        [.., Segment::Field(template), Segment::Field(spec)] if template == "template" && spec == "spec" => OF_POD,
        _ => return None,
    };
    let is_foreign = |name: &&&str| {
        !wanted.contains_key(**name)
            && match live.get(**name) {
                Some(Value::Array(list)) => !list.is_empty(),
                Some(Value::Object(map)) => !map.is_empty(),
                _ => false,
            }
    };
    let name = names.iter().find(is_foreign)?;
    path.with(Segment::Field((*name).to_owned()), |path| path.drift(DriftKind::Length))
}

/// Maps that are ours as a whole and that no server adds to: which pods a Service or budget is about, and where pods run.
/// The server keeps each as one value, so our own record does not name their keys.
fn is_whole(path: &Path) -> bool {
    match path.0.as_slice() {
        [Segment::Field(spec), Segment::Field(selector)] => spec == "spec" && selector == "selector",
        [Segment::Field(spec), Segment::Field(selector), Segment::Field(labels)] => {
            spec == "spec" && selector == "selector" && labels == "matchLabels"
        }
        [.., Segment::Field(template), Segment::Field(spec), Segment::Field(selector)] => {
            template == "template" && spec == "spec" && selector == "nodeSelector"
        }
        _ => false,
    }
}

/// Whether it is a version of a definition, or within one. The list of versions is kept as one value, so our own record names nothing
/// of it, and no server adds to it.
fn is_in_version(path: &Path) -> bool {
    matches!(path.0.as_slice(), [Segment::Field(spec), Segment::Field(versions), Segment::Index(_), ..]
        if spec == "spec" && versions == "versions")
}

/// What is never compared: what the server owns, and annotations that are no reason to write.
fn is_skipped(path: &Path, name: &str, ignored: &[&str]) -> bool {
    match path.fields().as_slice() {
        // Items of a list lack their own type; it is what was asked for.
        [] => matches!(name, "status" | "apiVersion" | "kind"),
        ["metadata"] => {
            matches!(name, "creationTimestamp" | "managedFields" | "resourceVersion" | "uid" | "generation")
        }
        ["metadata", "annotations"] => ignored.contains(&name),
        _ => false,
    }
}

/// Whether the server leaves such a value out when it stores an object: what a Go type calls empty. Entries of string
/// maps are data and stay.
fn is_omitted(wanted: &Value, path: &Path) -> bool {
    const STRING_MAPS: [&str; 6] = ["labels", "annotations", "matchLabels", "nodeSelector", "data", "binaryData"];
    let fields = path.fields();
    if is_in_version(path) {
        return is_omitted_in_version(wanted, fields.last().copied().unwrap_or_default());
    }
    let in_map = fields.len() >= 2 && STRING_MAPS.contains(&fields[fields.len() - 2]);
    match wanted {
        Value::Null => true,
        Value::Object(map) => map.values().all(|value| is_omitted(value, path)),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty() && !in_map,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

/// The same below a version of a definition, where most of what is empty says something: a lowest value of 0, a status that is a
/// subresource, a default.
fn is_omitted_in_version(wanted: &Value, name: &str) -> bool {
    match wanted {
        Value::Null => true,
        Value::Object(map) => {
            map.is_empty() && matches!(name, "properties" | "patternProperties" | "definitions" | "dependencies")
        }
        Value::Array(items) => items.is_empty() && name != "default",
        Value::String(text) => text.is_empty() && name != "default",
        Value::Bool(value) => !value && name != "default",
        Value::Number(number) => number.as_f64() == Some(0.0) && name == "priority",
    }
}

fn is_equal(wanted: &Value, live: &Value, path: &Path) -> bool {
    if wanted == live {
        return true;
    }
    match (wanted, live) {
        (Value::Number(wanted), Value::Number(live)) => wanted.as_f64() == live.as_f64(),
        // A quantity may be written as number or text and is stored in one canonical spelling.
        _ if is_quantity(path) => {
            let number = |value: &Value| match value {
                Value::String(text) => quantity::parse(text),
                Value::Number(number) => quantity::parse(&number.to_string()),
                _ => None,
            };
            number(wanted).is_some_and(|wanted| number(live) == Some(wanted))
        }
        _ => is_omitted(wanted, path) && is_omitted(live, path),
    }
}

/// Whether a field holds a Kubernetes quantity.
fn is_quantity(path: &Path) -> bool {
    let fields = path.fields();
    let parent = fields.len().checked_sub(2).map(|index| fields[index]);
    matches!(parent, Some("requests" | "limits" | "capacity")) || fields.last() == Some(&"sizeLimit")
}

/// The first field that we manage in the live object, by its own record, and that is not wanted.
fn leftover(wanted: &Value, live: &Value, ignored: &[&str]) -> Option<Drift> {
    match leftovers(wanted, live, ignored, &mut ControlFlow::Break) {
        ControlFlow::Break(drift) => Some(drift),
        ControlFlow::Continue(()) => None,
    }
}

/// What is done with a place that was found: whoever wants no more breaks off.
type Tell<'a> = dyn FnMut(Drift) -> ControlFlow<Drift> + 'a;

/// The fields that we manage in the live object, by its own record, and that are not wanted.
fn leftovers(wanted: &Value, live: &Value, ignored: &[&str], tell: &mut Tell<'_>) -> ControlFlow<Drift> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let ours = entries.into_iter().flatten().filter(|entry| {
        entry.get("manager").and_then(Value::as_str) == Some(FIELD_MANAGER)
            && entry.get("operation").and_then(Value::as_str) == Some("Apply")
            && entry.get("subresource").is_none_or(|subresource| subresource.as_str() == Some(""))
    });
    for fields in ours.filter_map(record::fields) {
        unwanted(&fields, wanted, ignored, &mut Path::default(), tell)?;
    }
    ControlFlow::Continue(())
}

fn unwanted(
    fields: &Map<String, Value>,
    wanted: &Value,
    ignored: &[&str],
    path: &mut Path,
    tell: &mut Tell<'_>,
) -> ControlFlow<Drift> {
    let goes_on = ControlFlow::Continue(());
    for (selector, below) in fields {
        let Some(below) = below.as_object() else { continue };
        let list = || wanted.as_array().map(Vec::as_slice);
        if let Some(name) = selector.strip_prefix("f:") {
            if is_skipped(path, name, ignored) {
                continue;
            }
            path.with(Segment::Field(name.to_owned()), |path| match wanted.get(name) {
                Some(wanted) => unwanted(below, wanted, ignored, path, tell),
                None => path.drift(DriftKind::NoLongerWanted).map_or(goes_on.clone(), &mut *tell),
            })?;
        } else if let Some(keys) = selector.strip_prefix("k:") {
            let (Ok(keys), Some(list)) = (serde_json::from_str(keys), list()) else { continue };
            match element(list, &keys) {
                Some((index, element)) => {
                    path.with(Segment::Index(index), |path| unwanted(below, element, ignored, path, tell))?;
                }
                None => path.drift(DriftKind::NoLongerWanted).map_or(goes_on.clone(), &mut *tell)?,
            }
        } else if let Some(value) = selector.strip_prefix("v:") {
            let (Ok(value), Some(list)) = (serde_json::from_str::<Value>(value), list()) else { continue };
            if !list.contains(&value) {
                path.drift(DriftKind::NoLongerWanted).map_or(goes_on.clone(), &mut *tell)?;
            }
        }
    }
    goes_on
}

/// The element of a list that has the given key fields.
fn element<'a>(list: &'a [Value], keys: &Map<String, Value>) -> Option<(usize, &'a Value)> {
    list.iter().enumerate().find(|(_, element)| is_element(element, keys))
}

/// Whether a list element has the given key fields; the server fills in a key that was not sent (a port's protocol).
fn is_element(element: &Value, keys: &Map<String, Value>) -> bool {
    keys.iter().all(|(name, value)| match element.get(name) {
        Some(own) => own == value,
        None => name == "protocol" && value == "TCP",
    })
}

#[cfg(test)]
mod tests;
