//! The history of a DaemonSet's templates, as ControllerRevisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Selector;
use serde_json::json;

use super::REVISION_HASH;
use crate::action::{Action, View, delete_of, patch_of};
use crate::cache::Name;
use crate::kinds::Object;
use crate::ownership::selector;
use crate::pods::{controller_ref, template_hash};

/// Old templates kept when a set says nothing.
const HISTORY_LIMIT: usize = 10;

/// The current template's hash, and what keeps the history in order.
pub(super) struct Revisions {
    pub(super) hash: String,
    pub(super) actions: Vec<Action>,
}

pub(super) fn revisions(view: &View<'_>, set: &DaemonSet) -> Revisions {
    let mut actions = Vec::new();
    let Some(spec) = &set.spec else { return Revisions { hash: String::new(), actions } };
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let owned: Vec<&Arc<ControllerRevision>> = view.objects.controller_revisions.owned_by(uid).collect();
    let latest = owned.iter().map(|revision| revision.revision).max().unwrap_or(0);

    // A name that a foreign revision holds is passed over.
    let base = set.status.as_ref().and_then(|status| status.collision_count);
    let (hash, name) = (0..)
        .map(|attempt| {
            let collisions = if attempt == 0 { base } else { Some(base.unwrap_or(0) + attempt) };
            let hash = template_hash(&spec.template, collisions);
            let name = format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default());
            (hash, Name::new(namespace.clone(), name))
        })
        .find(|(_, name)| {
            let taken = view.objects.controller_revisions.get(name);
            taken.is_none_or(|taken| owned.iter().any(|own| own.metadata.uid == taken.metadata.uid))
        })
        .expect("an endless sequence of hashes finds a free name");

    match view.objects.controller_revisions.get(&name) {
        None => actions.push(Action::Create { object: create(set, &hash, &name, latest + 1), note: None }),
        // Gone back to an earlier template: its revision becomes the latest again.
        Some(known) if known.revision < latest => {
            actions.push(patch_of(known.as_ref(), None, json!({"revision": latest + 1})));
        }
        Some(_) => {}
    }
    actions.extend(forget(view, set, &owned, &hash));
    Revisions { hash, actions }
}

fn create(set: &DaemonSet, hash: &str, name: &Name, revision: i64) -> Object {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    let mut data = json!({"spec": {"template": template}});
    data["spec"]["template"]["$patch"] = json!("replace");
    Object::ControllerRevision(Arc::new(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_ref(set)]),
            ..ObjectMeta::default()
        },
        data: Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(data)),
        revision,
    }))
}

/// Deletes the oldest revisions that no pod runs any more, beyond the limit.
fn forget(view: &View<'_>, set: &DaemonSet, owned: &[&Arc<ControllerRevision>], current: &str) -> Vec<Action> {
    let spec = set.spec.as_ref();
    let limit = spec.and_then(|spec| spec.revision_history_limit);
    let limit = limit.map_or(HISTORY_LIMIT, |limit| limit.max(0).unsigned_abs() as usize);
    if owned.len() <= limit + 1 {
        return Vec::new();
    }
    let wanted: Option<Selector> = spec.and_then(|spec| selector(&spec.selector));
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let hash_of = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_HASH).cloned());
    let live: BTreeSet<String> = match wanted {
        Some(_) => view.objects.pods.owned_by(uid).filter_map(|pod| hash_of(pod)).collect(),
        None => return Vec::new(),
    };
    let mut unused: Vec<_> = owned
        .iter()
        .filter(|revision| {
            let hash = revision.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_HASH));
            hash.is_some_and(|hash| hash != current && !live.contains(hash))
        })
        .collect();
    unused.sort_by_key(|revision| revision.revision);
    let surplus = unused.len().saturating_sub(limit);
    unused.into_iter().take(surplus).map(|revision| delete_of(revision.as_ref(), None)).collect()
}
