//! The true state of what the operator keeps, without what differs from run to run: what two runs are compared by.

use std::collections::BTreeMap;

use kubevirt_release::Kind;
use nanokube::Nanokube;
use serde_json::{Map, Value};

use crate::invariants::{NAMESPACE, is_managed, text};

/// Objects by kind, namespace and name.
pub(crate) type EndState = BTreeMap<String, Value>;

/// What the operator manages now, each object masked.
pub(crate) fn managed(api: &Nanokube) -> EndState {
    let mut state = EndState::new();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt) {
        for object in api.stored_all(kind.group(), kind.plural()) {
            if is_managed(&object) {
                state.insert(key(*kind, &object), masked(&object));
            }
        }
    }
    state
}

/// Its names alone.
pub(crate) fn names(api: &Nanokube) -> Vec<String> {
    let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt);
    let all = kinds.flat_map(|kind| {
        let objects = api.stored_all(kind.group(), kind.plural());
        objects.into_iter().filter(|object| is_managed(object)).map(move |object| key(*kind, &object))
    });
    all.collect()
}

/// What the operator manages now with all that it could write, secrets and certificates included: equal means there was
/// nothing to write. The stamps of the last write are left out, and so is what the server fills in.
pub(crate) fn contents(api: &Nanokube) -> BTreeMap<String, Value> {
    let mut contents = BTreeMap::new();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt) {
        for object in api.stored_all(kind.group(), kind.plural()) {
            if is_managed(&object) {
                let resource = if kind.group().is_empty() {
                    kind.plural().to_owned()
                } else {
                    format!("{}.{}", kind.plural(), kind.group())
                };
                let mut content = unstamped(&object);
                for field in ["status", "apiVersion", "kind"] {
                    content.as_object_mut().and_then(|map| map.remove(field));
                }
                contents.insert(format!("{resource} {}", text(&object, "/metadata/name")), content);
            }
        }
    }
    contents
}

/// `Kind namespace/name` of an object.
fn key(kind: Kind, object: &Value) -> String {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

/// The custom resource's part of the state: what it says, without times.
pub(crate) fn told(api: &Nanokube) -> EndState {
    let mut state = EndState::new();
    for cr in api.stored_all("kubevirt.io", "kubevirts") {
        let mut status = cr.pointer("/status").cloned().unwrap_or_default();
        if let Some(map) = status.as_object_mut() {
            // Counts of writes, which may differ; the objects they count are compared by themselves.
            map.remove("generations");
        }
        for condition in status.pointer_mut("/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(map) = condition.as_object_mut() {
                map.retain(|name, _| ["type", "status", "reason"].contains(&name.as_str()));
            }
        }
        if let Some(conditions) = status.pointer_mut("/conditions").and_then(Value::as_array_mut) {
            conditions.sort_by_key(|condition| text(condition, "/type").to_owned());
        }
        state.insert(key(Kind::KubeVirt, &cr), status);
    }
    state
}

/// The metadata that somebody outside of the suite puts on objects, which is nobody else's business.
pub(crate) const MARK: &str = "example.org/mark";

/// An object without what the server writes, the stamps of the last write, and what third parties put beside.
fn unstamped(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| {
            ["name", "namespace", "labels", "annotations", "finalizers", "ownerReferences"].contains(&name.as_str())
        });
        for field in ["labels", "annotations"] {
            metadata.get_mut(field).and_then(Value::as_object_mut).map(|map| map.remove(MARK));
        }
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| {
            // Counters of others, and the stamps of the last write, which depend on when that was.
            !name.starts_with("deployment.kubernetes.io/")
                && !name.starts_with("deprecated.daemonset.template")
                && name != "kubevirt.io/generation"
                && name != "kubevirt.io/customizer-identifier"
        });
    }
    object
}

/// An object without what the server writes, what is drawn, and what is secret.
fn masked(object: &Value) -> Value {
    let mut object = unstamped(object);
    let kind = text(&object, "/kind").to_owned();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
        match kind.as_str() {
            // Keys and certificates are made anew in every run; other configuration is not.
            "Secret" | "ConfigMap" => blank(map.get_mut("data")),
            _ => {}
        }
    }
    if kind == "Service"
        && let Some(spec) = object.pointer_mut("/spec").and_then(Value::as_object_mut)
        && spec.get("clusterIP").is_some_and(|address| address != "None")
    {
        // Drawn by the server.
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    blank_bundles(&mut object);
    object
}

fn blank(data: Option<&mut Value>) {
    let fields = data.and_then(Value::as_object_mut).into_iter().flat_map(Map::iter_mut);
    for (_, value) in fields.filter(|(name, _)| ["tls.crt", "tls.key", "ca-bundle"].contains(&name.as_str())) {
        *value = Value::from(if value.as_str().is_some_and(str::is_empty) { "" } else { "..." });
    }
}

fn blank_bundles(object: &mut Value) {
    let hide = |holder: Option<&mut Value>| {
        if let Some(bundle) = holder.and_then(|holder| holder.get_mut("caBundle")) {
            *bundle = Value::from("...");
        }
    };
    hide(object.pointer_mut("/spec"));
    for webhook in object.pointer_mut("/webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        hide(webhook.get_mut("clientConfig"));
    }
}

/// Where two states differ, one line each, at most `most` lines.
pub(crate) fn differences(wanted: &EndState, found: &EndState, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for key in wanted.keys().chain(found.keys().filter(|key| !wanted.contains_key(*key))) {
        match (wanted.get(key), found.get(key)) {
            (Some(wanted), Some(found)) => differ(key, "", wanted, found, &mut lines),
            (Some(_), None) => lines.push(format!("{key} is missing")),
            (None, _) => lines.push(format!("{key} is not wanted")),
        }
        if lines.len() > most {
            lines.truncate(most);
            lines.push("...".to_owned());
            break;
        }
    }
    lines
}

fn differ(key: &str, path: &str, wanted: &Value, found: &Value, lines: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for name in wanted.keys().chain(found.keys().filter(|name| !wanted.contains_key(*name))) {
                let null = Value::Null;
                let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(null.clone());
                differ(key, &format!("{path}.{name}"), &of(wanted), &of(found), lines);
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (at, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                differ(key, &format!("{path}[{at}]"), wanted, found, lines);
            }
        }
        (wanted, found) if wanted == found => {}
        (wanted, found) => {
            lines.push(format!("{key} {}: wanted {wanted}, found {found}", path.trim_start_matches('.')));
        }
    }
}

/// The resource versions of everything the operator keeps, the custom resource included: unchanged means nobody wrote.
/// Workloads' versions change when their status does, so their generation stands in.
pub(crate) fn versions(api: &Nanokube) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for kind in Kind::ALL {
        for object in api.stored_all(kind.group(), kind.plural()) {
            if *kind == Kind::KubeVirt || is_managed(&object) {
                let version = match kind {
                    Kind::Deployment | Kind::DaemonSet | Kind::PodDisruptionBudget => {
                        object.pointer("/metadata/generation").map(ToString::to_string).unwrap_or_default()
                    }
                    _ => text(&object, "/metadata/resourceVersion").to_owned(),
                };
                versions.insert(key(*kind, &object), version);
            }
        }
    }
    versions
}

/// Which of the suite's pods run an outdated template or are not ready: none when the suite is up.
pub(crate) fn unready(api: &Nanokube) -> Vec<String> {
    let pods = api.stored_all("", "pods");
    let is_ready = |pod: &Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let ours = pods.iter().filter(|pod| text(pod, "/metadata/namespace") == NAMESPACE && is_managed(pod));
    ours.filter(|pod| !is_ready(pod)).map(|pod| text(pod, "/metadata/name").to_owned()).collect()
}
