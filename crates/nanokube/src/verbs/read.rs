//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

use super::{Target, render};
use crate::faults::Read;
use crate::filter::Filter;
use crate::reply::{Reply, negotiate};
use crate::request::{ListOptions, VersionMatch};
use crate::server::call;
use crate::status::ApiError;
use crate::store::{Name, Revision, Snapshot, StoreError, Stored};

pub(super) fn get(target: &Target<'_>) -> Result<Reply, ApiError> {
    let shape = negotiate(&target.context.accept)?;
    let read = target.core.faults.read(call(target.context));
    let version = target.query().get("resourceVersion");
    let any = version == Some("0");
    let current = target.core.store.revision();
    if let Some(asked) = version.and_then(|text| text.parse::<Revision>().ok()).filter(|asked| *asked > current) {
        return Err(ApiError::future_version(asked, current));
    }
    let stored = if read.behind > 0 && any { earlier(target, read.behind)? } else { target.live()? };
    Ok(render::render_object(target.core, &target.resource, shape, target.query(), &stored, 200))
}

pub(super) fn list(target: &Target<'_>) -> Result<Reply, ApiError> {
    let shape = negotiate(&target.context.accept)?;
    let options = ListOptions::parse(target.query(), false)?;
    let filter = filter(target, &options)?;
    let read = target.core.faults.read(call(target.context));
    let any = options.resource_version == Some(0) && options.continue_token.is_empty();
    let mut snapshot = snapshot(target, &options)?;
    if any {
        snapshot = replica(target, snapshot, read);
    }
    let mut matching = snapshot.objects.into_iter().filter(|(name, stored)| filter.sees(name, stored));
    // Version 0 means that any state will do; such lists come from a cache that does not paginate.
    let limit = match (any, options.limit, read.page) {
        (true, ..) | (_, 0, _) => usize::MAX,
        (false, limit, page) => limit.min(page.unwrap_or(limit)).max(1),
    };
    let mut last = None;
    let mut list = render::List {
        version: snapshot.revision.to_string(),
        objects: Vec::new(),
        token: String::new(),
        remaining: None,
    };
    for (name, stored) in matching.by_ref().take(limit) {
        list.objects.push(stored);
        last = Some(name);
    }
    // With a selector the number of the rest is not told, as on a real server: that there is one is enough.
    let rest = if filter.is_plain() { matching.count() } else { usize::from(matching.next().is_some()) };
    if rest > 0 {
        list.token = token(snapshot.revision, last);
        list.remaining = filter.is_plain().then_some(rest);
    }
    Ok(render::render_list(target.core, &target.resource, shape, target.query(), &list))
}

/// What a replica that is behind knows of the object.
fn earlier(target: &Target<'_>, behind: u64) -> Result<Arc<Stored>, ApiError> {
    let name = target.name();
    let now = target.core.store.list(&target.resource.key, &name.namespace);
    let then = replica(target, now, Read { behind, ..Read::default() });
    let found = then.objects.into_iter().find(|(found, _)| found.name == name.name);
    found.map(|(_, stored)| stored).ok_or_else(|| ApiError::not_found(target.about(&name.name)))
}

/// A snapshot as another replica may give it: older, or in another order. History that is gone cannot be shown.
pub(super) fn replica(target: &Target<'_>, now: Snapshot, read: Read) -> Snapshot {
    let namespace = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    let then = now.revision.saturating_sub(read.behind).max(1);
    let mut snapshot = match read.behind {
        0 => now,
        _ => target.core.store.list_at(&target.resource.key, namespace, then, None).unwrap_or(now),
    };
    if let Some(seed) = read.order {
        let mut draws = ChaCha8Rng::seed_from_u64(seed);
        for last in (1..snapshot.objects.len()).rev() {
            let other = draws.next_u64() % (last as u64 + 1);
            snapshot.objects.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }
    snapshot
}

/// What the request selects.
pub(super) fn filter(target: &Target<'_>, options: &ListOptions) -> Result<Filter, ApiError> {
    let namespace = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    Filter::new(&target.resource, namespace, &target.path.name, &options.label_selector, &options.field_selector)
}

/// The objects of the version that is asked for, those of the page and after it.
fn snapshot(target: &Target<'_>, options: &ListOptions) -> Result<Snapshot, ApiError> {
    let (store, key) = (&target.core.store, &target.resource.key);
    let namespace = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    if !options.continue_token.is_empty() {
        let (revision, start) = read_token(&options.continue_token).ok_or_else(|| {
            ApiError::bad_request("invalid continue token: continue key is not valid: it is not one of this server's")
        })?;
        return store.list_at(key, namespace, revision, Some(&start)).map_err(|error| store_error(&error));
    }
    let snapshot = match (options.resource_version, options.version_match) {
        (Some(revision), Some(VersionMatch::Exact)) => {
            store.list_at(key, namespace, revision, None).map_err(|error| store_error(&error))?
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
    Ok(snapshot)
}

/// Where the next page begins: the version of the first page and the last object shown.
fn token(revision: Revision, last: Option<Name>) -> String {
    let (namespace, name) = last.map(|Name { namespace, name }| (namespace, name)).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json!({"rv": revision, "after": [namespace, name]}).to_string())
}

fn read_token(token: &str) -> Option<(Revision, Name)> {
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let after = value["after"].as_array()?;
    Some((value["rv"].as_u64()?, Name::new(after.first()?.as_str()?, after.get(1)?.as_str()?)))
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
