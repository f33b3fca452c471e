//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Target, metadata_text, render};
use crate::filter::Filter;
use crate::reply::{Reply, negotiate};
use crate::request::{ListOptions, VersionMatch};
use crate::status::ApiError;
use crate::store::{Revision, Snapshot, StoreError, Stored};

pub(super) fn get(target: &Target<'_>) -> Result<Reply, ApiError> {
    let shape = negotiate(&target.context.accept)?;
    let stored = target.live()?;
    Ok(render::render_object(target.core, &target.resource, shape, target.query(), &stored, 200))
}

pub(super) fn list(target: &Target<'_>) -> Result<Reply, ApiError> {
    let shape = negotiate(&target.context.accept)?;
    let options = ListOptions::parse(target.query(), false)?;
    let filter = filter(target, &options)?;
    let (snapshot, start) = snapshot(target, &options)?;
    let mut matching = snapshot
        .objects
        .into_iter()
        .filter(|stored| start.as_ref().is_none_or(|start| &place(stored) > start) && filter.matches(&stored.value));
    // Version 0 means that any state will do; such lists come from a cache that does not paginate.
    let limit =
        if options.resource_version == Some(0) && options.continue_token.is_empty() { 0 } else { options.limit };
    let mut list = render::List {
        version: snapshot.revision.to_string(),
        objects: Vec::new(),
        token: String::new(),
        remaining: None,
    };
    if limit == 0 {
        list.objects = matching.collect();
    } else {
        list.objects = matching.by_ref().take(limit).collect();
        let rest = matching.count();
        if rest > 0 {
            list.token = token(snapshot.revision, list.objects.last());
            // With a selector the number of the rest is not told, as on a real server.
            list.remaining = filter.is_plain().then_some(rest);
        }
    }
    Ok(render::render_list(target.core, &target.resource, shape, target.query(), &list))
}

/// What the request selects.
pub(super) fn filter(target: &Target<'_>, options: &ListOptions) -> Result<Filter, ApiError> {
    let namespace = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    Filter::new(&target.resource, namespace, &target.path.name, &options.label_selector, &options.field_selector)
}

type Place = (String, String);

fn place(stored: &Stored) -> Place {
    (metadata_text(&stored.value, "namespace").to_owned(), metadata_text(&stored.value, "name").to_owned())
}

/// The objects of the version that is asked for, and after which of them the page begins.
fn snapshot(target: &Target<'_>, options: &ListOptions) -> Result<(Snapshot, Option<Place>), ApiError> {
    let (store, key) = (&target.core.store, &target.resource.key);
    let namespace = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    if !options.continue_token.is_empty() {
        let (revision, start) = read_token(&options.continue_token).ok_or_else(|| {
            ApiError::bad_request("invalid continue token: continue key is not valid: it is not one of this server's")
        })?;
        let snapshot = store.list_at(key, namespace, revision).map_err(|error| store_error(&error))?;
        return Ok((snapshot, Some(start)));
    }
    let snapshot = match (options.resource_version, options.version_match) {
        (Some(revision), Some(VersionMatch::Exact)) => {
            store.list_at(key, namespace, revision).map_err(|error| store_error(&error))?
        }
        (Some(revision), _) => {
            let snapshot = store.list(key, namespace);
            if revision > snapshot.revision {
                return Err(ApiError::future_version(revision, snapshot.revision));
            }
            snapshot
        }
        (None, _) => store.list(key, namespace),
    };
    Ok((snapshot, None))
}

/// Where the next page begins: the version of the first page and the last object shown.
fn token(revision: Revision, last: Option<&Arc<Stored>>) -> String {
    let (namespace, name) = last.map(|stored| place(stored)).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json!({"rv": revision, "after": [namespace, name]}).to_string())
}

fn read_token(token: &str) -> Option<(Revision, Place)> {
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let after = value["after"].as_array()?;
    Some((value["rv"].as_u64()?, (after.first()?.as_str()?.to_owned(), after.get(1)?.as_str()?.to_owned())))
}

/// A store's refusal to read at some version.
pub(super) fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(&format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, current } => ApiError::future_version(*asked, *current),
        StoreError::Exists | StoreError::NotFound | StoreError::Conflict { .. } => {
            ApiError::internal(&error.to_string())
        }
    }
}
