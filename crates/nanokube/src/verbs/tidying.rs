//! What a committed write entails inside the server: definitions begin or cease to be served, roles aggregate.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{meta, metadata_text};
use crate::core::Core;
use crate::registry::{Resource, resource_key};
use crate::store::{Name, ResourceKey, Stored};
use crate::{aggregation, authz, crd};

/// Holds a definition until its objects are gone.
pub(super) const DEFINITION_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Lost races with other writers are repeated this often; each repetition means that somebody else made progress.
const ATTEMPTS: usize = 16;

fn definitions() -> ResourceKey {
    resource_key("apiextensions.k8s.io", "customresourcedefinitions")
}

/// After an object was created or changed.
pub(super) fn after_write(core: &Arc<Core>, resource: &Resource, stored: &Arc<Stored>) {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        settle_definition(core, metadata_text(&stored.value, "name"));
    } else if resource.is("rbac.authorization.k8s.io", "clusterroles") {
        authz::aggregate(core);
    } else if resource.is("apiregistration.k8s.io", "apiservices") {
        aggregation::after_write(core, stored);
    }
}

/// After an object is gone.
pub(super) fn after_delete(core: &Arc<Core>, resource: &Resource, last: &Value) {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        core.registry.set_custom(metadata_text(last, "name"), Vec::new());
        aggregation::register_custom(core);
    } else if resource.is("rbac.authorization.k8s.io", "clusterroles") {
        authz::aggregate(core);
    } else if resource.is("apiregistration.k8s.io", "apiservices") {
        aggregation::after_delete(core, last);
    } else if let Some(custom) = &resource.custom {
        settle_definition(core, &custom.definition);
    }
}

/// Brings what is served, and the definition's status, in line with the definition.
pub(crate) fn settle_definition(core: &Arc<Core>, name: &str) {
    let place = Name::new("", name);
    for _ in 0..ATTEMPTS {
        let Some(live) = core.store.get(&definitions(), &place) else { return };
        if meta::is_terminating(&live.value) {
            if finish_definition(core, &live) {
                return;
            }
            continue;
        }
        let table = core.registry.table();
        let (status, resources) = crd::settle(&live.value, &table, &core.now_text());
        core.registry.set_custom(name, resources);
        aggregation::register_custom(core);
        if status == live.value["status"] {
            return;
        }
        let mut new = live.value.clone();
        new["status"] = status;
        let Some(resource) = table.get("apiextensions.k8s.io", "v1", "customresourcedefinitions") else { return };
        if super::write::write_own(core, &resource, &live, new, "status").is_ok() {
            return;
        }
    }
    tracing::warn!(name, "a definition changed faster than its status could be written");
}

/// Deletes the objects of a definition that is being deleted, and the definition with the last of them.
fn finish_definition(core: &Arc<Core>, live: &Stored) -> bool {
    let definition: &Value = &live.value;
    let name = metadata_text(definition, "name");
    let key = resource_key(
        definition["spec"]["group"].as_str().unwrap_or_default(),
        definition["spec"]["names"]["plural"].as_str().unwrap_or_default(),
    );
    for object in core.store.objects(&key, "") {
        let place = Name::new(metadata_text(&object.value, "namespace"), metadata_text(&object.value, "name"));
        let mut last = object.value.clone();
        if !meta::is_terminating(&last) {
            let metadata = meta::metadata_mut(&mut last);
            metadata.insert("deletionTimestamp".to_owned(), json!(core.now_text()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
        }
        // A lost race means that the object is changing or gone; the write that won comes back here.
        if meta::finalizers(&last).is_empty() {
            let _ = core.store.delete(&key, &place, object.revision, last);
        } else if last != *object.value {
            let _ = core.store.update(&key, &place, object.revision, last);
        }
    }
    if core.store.count(&key, "") > 0 {
        return true;
    }
    let finalizers: Vec<&str> =
        meta::finalizers(definition).into_iter().filter(|name| *name != DEFINITION_FINALIZER).collect();
    let mut new = definition.clone();
    let place = Name::new("", name);
    if finalizers.is_empty() {
        if core.store.delete(&definitions(), &place, live.revision, new).is_err() {
            return false;
        }
        core.registry.set_custom(name, Vec::new());
        aggregation::register_custom(core);
        return true;
    }
    if finalizers.len() == meta::finalizers(definition).len() {
        return true;
    }
    new["metadata"]["finalizers"] = json!(finalizers);
    crd::mark_terminated(&mut new, &core.now_text());
    core.store.update(&definitions(), &place, live.revision, new).is_ok()
}
