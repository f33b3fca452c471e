//! Objects and lists in the shape the client asked for.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::events;
use crate::core::Core;
use crate::kinds::Keeping;
use crate::registry::Resource;
use crate::reply::{JSON, Reply, Shape};
use crate::request::Query;
use crate::store::{Stored, tail_of};
use crate::table;

/// An object of the resource's version from what is stored.
pub(crate) fn versioned(resource: &Resource, stored: &Value) -> Value {
    let mut value = if resource.keeping == Keeping::Events { events::from_core(stored) } else { stored.clone() };
    value["apiVersion"] = json!(resource.api_version());
    value["kind"] = json!(resource.kind);
    value
}

/// What is stored from an object of the resource's version.
pub(crate) fn stored_form(resource: &Resource, value: Value) -> Value {
    let mut value = if resource.keeping == Keeping::Events { events::to_core(value) } else { value };
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
    let converted;
    let tail: &[u8] = if resource.keeping == Keeping::Events {
        converted = tail_of(&events::from_core(&stored.value));
        &converted
    } else {
        stored.tail()
    };
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
                } else if resource.keeping == Keeping::Events {
                    out.push(b'{');
                    out.extend_from_slice(&tail_of(&events::from_core(&stored.value)));
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
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
