//! Which objects a controller owns: by controller reference, adopting orphans that its selector matches and releasing
//! what its selector no longer matches.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use kube::core::{Selector, SelectorExt};
use serde_json::json;

use crate::action::{Action, patch_of};
use crate::kinds::{Cached, Objects};
use crate::pods::controller_ref;

/// What a controller owns now, and the patches that make it so.
pub struct Claim<K> {
    pub owned: Vec<Arc<K>>,
    pub actions: Vec<Action>,
}

/// A parsed selector; one that cannot be parsed, or an empty one, selects nothing.
pub fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone()).ok().filter(|selector| !selector.selects_all())
}

/// Whether a selector matches an object's labels.
pub fn matches<K: Resource>(selector: &Selector, object: &K) -> bool {
    static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    selector.matches(object.meta().labels.as_ref().unwrap_or(&NONE))
}

/// Claims objects of kind `K` for `owner`.
pub fn claim<O, K>(objects: &Objects, owner: &O, wanted: &Selector) -> Claim<K>
where
    O: Cached,
    K: Cached,
{
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let leaving = owner.meta().deletion_timestamp.is_some();
    let mut claim = Claim { owned: Vec::new(), actions: Vec::new() };
    for object in K::store(objects).owned_by(uid) {
        if matches(wanted, object.as_ref()) {
            claim.owned.push(object.clone());
        } else if !leaving && object.meta().deletion_timestamp.is_none() {
            let rest: Vec<_> = object.meta().owner_references.iter().flatten().filter(|r| r.uid != uid).collect();
            claim.actions.push(patch_of(object.as_ref(), None, json!({"metadata": {"ownerReferences": rest}})));
        }
    }
    if leaving {
        return claim;
    }
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    for object in K::store(objects).orphans(namespace) {
        if object.meta().deletion_timestamp.is_none() && matches(wanted, object.as_ref()) {
            let mut owners = object.meta().owner_references.clone().unwrap_or_default();
            owners.push(controller_ref(owner));
            claim.actions.push(patch_of(object.as_ref(), None, json!({"metadata": {"ownerReferences": owners}})));
            claim.owned.push(object.clone());
        }
    }
    claim
}
