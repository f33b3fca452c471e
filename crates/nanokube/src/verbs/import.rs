//! Taking in objects that were exported: they keep uid, owners and status, and only their versions are new.

use std::sync::Arc;

use serde_json::{Value, json};

use super::render::stored_form;
use super::{meta, metadata_text, tidying};
use crate::core::Core;
use crate::registry::Resource;
use crate::store::{Name, StoreError, Stored};

/// Why objects were not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the text is no YAML: {0}")]
    Syntax(String),
    #[error("document {0} is no object with apiVersion, kind and metadata.name")]
    NoObject(usize),
    #[error("{kind} {name}: {api_version} has no such kind here; its definition must be among the objects")]
    Unknown { api_version: String, kind: String, name: String },
    #[error("{kind} {name} changes while it is taken in; import before the cluster runs")]
    Busy { kind: String, name: String },
}

/// The objects of a text with any number of YAML documents; empty ones are skipped.
pub(crate) fn parse(text: &str) -> Result<Vec<Value>, ImportError> {
    // Only `true` and `false` are switches, and the text comes from a file that its owner names.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        budget: None,
    };
    let read: Result<Vec<Value>, _> = serde_saphyr::from_multiple_with_options(text, options);
    let documents = read.map_err(|error| ImportError::Syntax(error.to_string()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Stores the objects, definitions first; what is there already under the same name is replaced.
///
/// # Errors
/// [`ImportError`]; what came before the object it names is stored.
pub(crate) fn import(core: &Arc<Core>, objects: Vec<Value>) -> Result<usize, ImportError> {
    let count = objects.len();
    for (index, object) in objects.iter().enumerate() {
        let named = ["apiVersion", "kind"].iter().all(|field| object[*field].is_string());
        if !named || metadata_text(object, "name").is_empty() {
            return Err(ImportError::NoObject(index + 1));
        }
    }
    let is_definition = |object: &Value| object["kind"] == "CustomResourceDefinition";
    let (definitions, rest): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(is_definition);
    for object in definitions.into_iter().chain(rest) {
        take_in(core, object)?;
    }
    Ok(count)
}

fn take_in(core: &Arc<Core>, mut object: Value) -> Result<(), ImportError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind, name) = (text("apiVersion"), text("kind"), metadata_text(&object, "name").to_owned());
    let table = core.registry.table();
    let same = |resource: &&Arc<Resource>| {
        resource.kind == kind && resource.api_version() == api_version && resource.is_kept()
    };
    let Some(resource) = table.iter().find(same) else {
        return Err(ImportError::Unknown { api_version, kind, name });
    };
    let metadata = meta::metadata_mut(&mut object);
    if !metadata.contains_key("uid") {
        metadata.insert("uid".to_owned(), json!(core.uid()));
    }
    if !metadata.contains_key("creationTimestamp") {
        metadata.insert("creationTimestamp".to_owned(), json!(core.now_text()));
    }
    let place = Name::new(metadata_text(&object, "namespace"), &name);
    let value = stored_form(resource, object);
    let stored = put(core, resource, &place, value).map_err(|_| ImportError::Busy { kind, name })?;
    tidying::after_write(core, resource, &stored);
    Ok(())
}

fn put(core: &Core, resource: &Resource, place: &Name, value: Value) -> Result<Arc<Stored>, StoreError> {
    match core.store.get(&resource.key, place) {
        Some(live) => core.store.update(&resource.key, place, live.revision, value),
        None => core.store.create(&resource.key, place, value),
    }
}
