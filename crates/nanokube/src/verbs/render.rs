//! Objects and lists in the shape the client asked for.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{autoscaling, events};
use crate::core::Core;
use crate::kinds::Keeping;
use crate::registry::Resource;
use crate::reply::{JSON, Reply, Shape};
use crate::request::Query;
use crate::store::{Stored, tail_of};
use crate::table;

/// The object as another group or version spells it; nothing when it is spelled as stored.
fn respelled(resource: &Resource, stored: &Value) -> Option<Value> {
    match resource.keeping {
        Keeping::Events => Some(events::from_core(stored)),
        Keeping::As(..) => Some(autoscaling::from_metrics(stored)),
        Keeping::Own | Keeping::Review | Keeping::Binding | Keeping::Health => None,
    }
}

/// An object of the resource's version from what is stored.
pub(crate) fn versioned(resource: &Resource, stored: &Value) -> Value {
    let mut value = respelled(resource, stored).unwrap_or_else(|| stored.clone());
    value["apiVersion"] = json!(resource.api_version());
    value["kind"] = json!(resource.kind);
    value
}

/// What is stored from an object of the resource's version.
pub(crate) fn stored_form(resource: &Resource, value: Value) -> Value {
    let mut value = match resource.keeping {
        Keeping::Events => events::to_core(value),
        Keeping::As(..) => autoscaling::to_metrics(value),
        Keeping::Own | Keeping::Review | Keeping::Binding | Keeping::Health => value,
    };
    value["apiVersion"] = json!(resource.stored_as);
    value
}

/// The whole object as JSON bytes.
pub(crate) fn object_bytes(resource: &Resource, stored: &Stored) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    write_object(&mut out, resource, stored);
    Bytes::from(out)
}

pub(crate) fn write_object(out: &mut Vec<u8>, resource: &Resource, stored: &Stored) {
    out.extend_from_slice(b"{\"kind\":");
    serde_json::to_writer(&mut *out, &resource.kind).expect("a string serialises");
    out.extend_from_slice(b",\"apiVersion\":");
    serde_json::to_writer(&mut *out, &resource.api_version()).expect("a string serialises");
    // Only a resource that is spelled in another way looks into the object: the others' text is shown as it is kept.
    let is_respelled = matches!(resource.keeping, Keeping::Events | Keeping::As(..));
    let converted = is_respelled.then(|| respelled(resource, &stored.value)).flatten().map(|value| tail_of(&value));
    let tail: &[u8] = converted.as_deref().unwrap_or_else(|| stored.tail());
    if tail != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(tail);
}

/// One object in the wanted shape.
pub(crate) fn render_object(
    core: &Core,
    resource: &Resource,
    shape: Shape,
    query: &Query,
    stored: &Stored,
    code: u16,
) -> Reply {
    let name = super::metadata_text(&stored.value, "name").to_owned();
    let reply = match shape {
        Shape::Full => Reply::bytes(code, JSON, object_bytes(resource, stored)),
        Shape::Metadata => Reply::json(code, &partial(&stored.value)),
        Shape::Table => {
            let version = stored.revision.to_string();
            let objects = [&versioned(resource, &stored.value)];
            Reply::json(code, &table::table(resource, core.clock.now(), query, &version, None, &objects))
        }
    };
    Reply { name, ..reply }
}

/// A list in the wanted shape.
pub(crate) fn render_list(core: &Core, resource: &Resource, shape: Shape, query: &Query, list: &List) -> Reply {
    let mut metadata = json!({"resourceVersion": list.version});
    if !list.token.is_empty() {
        metadata["continue"] = json!(list.token);
    }
    if let Some(rest) = list.remaining {
        metadata["remainingItemCount"] = json!(rest);
    }
    match shape {
        Shape::Full => {
            let mut out = Vec::with_capacity(4096);
            out.extend_from_slice(b"{\"kind\":");
            serde_json::to_writer(&mut out, &resource.list_kind).expect("a string serialises");
            out.extend_from_slice(b",\"apiVersion\":");
            serde_json::to_writer(&mut out, &resource.api_version()).expect("a string serialises");
            out.extend_from_slice(b",\"metadata\":");
            serde_json::to_writer(&mut out, &metadata).expect("a JSON value serialises");
            out.extend_from_slice(b",\"items\":[");
            for (index, stored) in list.objects.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                // Items of built-in lists carry neither kind nor version; custom ones do.
                if resource.custom.is_some() {
                    write_object(&mut out, resource, stored);
                } else if let Some(value) = respelled(resource, &stored.value) {
                    out.push(b'{');
                    out.extend_from_slice(&tail_of(&value));
                } else {
                    out.push(b'{');
                    out.extend_from_slice(stored.tail());
                }
            }
            out.extend_from_slice(b"]}");
            Reply::bytes(200, JSON, Bytes::from(out))
        }
        Shape::Metadata => {
            let items: Vec<Value> = list.objects.iter().map(|stored| partial(&stored.value)).collect();
            let value = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            });
            Reply::json(200, &value)
        }
        Shape::Table => {
            let objects: Vec<Value> = list.objects.iter().map(|stored| versioned(resource, &stored.value)).collect();
            let objects: Vec<&Value> = objects.iter().collect();
            let more = Some(metadata);
            Reply::json(200, &table::table(resource, core.clock.now(), query, &list.version, more, &objects))
        }
    }
}

/// What a list answers.
pub(crate) struct List {
    pub version: String,
    pub objects: Vec<Arc<Stored>>,
    pub token: String,
    pub remaining: Option<usize>,
}

/// Only the metadata.
pub(crate) fn partial(object: &Value) -> Value {
    let mut metadata = object["metadata"].clone();
    // A counter of another version of the API, which metadata alone do not show.
    if object["kind"] == "DaemonSet"
        && let Some(map) = metadata.as_object_mut()
        && let Some(annotations) = map.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove("deprecated.daemonset.template.generation");
        if annotations.is_empty() {
            map.remove("annotations");
        }
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}
