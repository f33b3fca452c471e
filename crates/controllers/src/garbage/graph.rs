//! Who owns whom, over all kinds, and what follows for an object. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cache::Name;

/// An owner with this finalizer waits for the dependents that block it.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// An owner with this finalizer lets go of its dependents first.
pub(super) const ORPHAN: &str = "orphan";

/// One object, as far as ownership is concerned.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// `plural.version.group`, the key of its resource.
    pub(super) resource: String,
    pub(super) name: Name,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    pub(super) finalizers: Vec<String>,
}

impl Item {
    pub(super) fn of(resource: &str, meta: &ObjectMeta) -> Self {
        Self {
            resource: resource.to_owned(),
            name: Name::of_meta(meta),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        }
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
    }
}

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Delete it; with `foreground`, its own dependents first.
    Delete { uid: String, foreground: bool },
    /// Keep only these owners.
    KeepOwners { uid: String, owners: Vec<OwnerReference> },
    /// Its deletion need not wait any more.
    Release { uid: String, finalizer: &'static str },
    /// Ask the server whether an owner that was never seen exists.
    Verify { owner: OwnerReference, namespace: String },
}

/// All objects by uid.
#[derive(Default)]
pub(super) struct Graph {
    items: BTreeMap<String, Item>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    /// Owners that the server said do not exist. A uid never comes back.
    absent: BTreeSet<String>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    /// Stores an object; gives the uids to look at. Most changes are none of ownership and concern nobody: a DaemonSet's
    /// status changes with each of its thousands of pods, and none of them need be looked at for it.
    pub(super) fn upsert(&mut self, uid: &str, item: Item) -> Vec<String> {
        if self.items.get(uid) == Some(&item) {
            return Vec::new();
        }
        // An owner that waits until it is let go of is concerned by exactly that.
        let lost: Vec<String> =
            self.items.get(uid).into_iter().flat_map(|known| &known.owners).map(|it| it.uid.clone()).collect();
        self.unlink(uid);
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
        self.items.insert(uid.to_owned(), item);
        let mut concerned = self.around(uid);
        concerned.extend(lost.into_iter().filter(|owner| !self.items[uid].owners.iter().any(|it| it.uid == *owner)));
        concerned
    }

    /// Forgets an object; gives the uids to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let around = self.around(uid);
        self.unlink(uid);
        if self.items.remove(uid).is_some() {
            self.absent.insert(uid.to_owned());
        }
        around
    }

    /// Notes that the server does not know an owner.
    pub(super) fn note_absent(&mut self, uid: &str) -> Vec<String> {
        self.absent.insert(uid.to_owned());
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The uids of a resource.
    pub(super) fn of_resource(&self, resource: &str) -> Vec<String> {
        self.items.iter().filter(|(_, item)| item.resource == resource).map(|(uid, _)| uid.clone()).collect()
    }

    fn unlink(&mut self, uid: &str) {
        for owner in self.items.get(uid).map(|item| item.owners.clone()).unwrap_or_default() {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn around(&self, uid: &str) -> Vec<String> {
        let owners = self.items.get(uid).into_iter().flat_map(|item| item.owners.iter().map(|owner| owner.uid.clone()));
        let dependents = self.dependents.get(uid).into_iter().flatten().cloned();
        std::iter::once(uid.to_owned()).chain(owners).chain(dependents).collect()
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = (&String, &Item)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.items.get_key_value(uid))
    }

    fn blocking(&self, uid: &str) -> bool {
        self.dependents(uid).any(|(_, item)| {
            item.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        })
    }

    /// What is to be done about one object.
    pub(super) fn decide(&self, uid: &str) -> Vec<Step> {
        let Some(item) = self.items.get(uid) else { return Vec::new() };
        let has = |wanted: &str| item.finalizers.iter().any(|finalizer| finalizer == wanted);
        if item.deleting && has(ORPHAN) {
            let steps: Vec<Step> = self.dependents(uid).map(|(own, item)| without(own, item, uid)).collect();
            let release = vec![Step::Release { uid: uid.to_owned(), finalizer: ORPHAN }];
            return if steps.is_empty() { release } else { steps };
        }
        if item.waits_for_dependents() && !self.blocking(uid) {
            return vec![Step::Release { uid: uid.to_owned(), finalizer: FOREGROUND }];
        }
        if item.deleting || item.owners.is_empty() {
            return Vec::new();
        }
        self.judge(uid, item)
    }

    fn judge(&self, uid: &str, item: &Item) -> Vec<Step> {
        let (mut solid, mut waiting, mut unseen) = (Vec::new(), false, Vec::new());
        for owner in &item.owners {
            match self.items.get(&owner.uid) {
                Some(known) if known.waits_for_dependents() => waiting = true,
                Some(_) => solid.push(owner.clone()),
                None if self.absent.contains(&owner.uid) => {}
                None => unseen.push(owner.clone()),
            }
        }
        if !unseen.is_empty() {
            let namespace = item.name.namespace.clone();
            return unseen.into_iter().map(|owner| Step::Verify { owner, namespace: namespace.clone() }).collect();
        }
        if solid.len() == item.owners.len() {
            return Vec::new();
        }
        if !solid.is_empty() {
            return vec![Step::KeepOwners { uid: uid.to_owned(), owners: solid }];
        }
        vec![Step::Delete { uid: uid.to_owned(), foreground: waiting && self.blocking(uid) }]
    }
}

fn without(uid: &str, item: &Item, owner: &str) -> Step {
    let owners = item.owners.iter().filter(|known| known.uid != owner).cloned().collect();
    Step::KeepOwners { uid: uid.to_owned(), owners }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, owners: &[&str], deleting: bool, finalizers: &[&str]) -> Item {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        Item {
            resource: "pods.v1.".to_owned(),
            name: Name::new("n", name),
            owners: owners.iter().map(owner).collect(),
            deleting,
            finalizers: finalizers.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn background() {
        let mut graph = Graph::default();
        graph.upsert("set", item("set", &[], false, &[]));
        graph.upsert("pod", item("pod", &["set"], false, &[]));
        assert_eq!(graph.decide("pod"), []);
        assert!(graph.remove("set").contains(&"pod".to_owned()));
        assert_eq!(graph.decide("pod"), [Step::Delete { uid: "pod".to_owned(), foreground: false }]);
    }

    #[test]
    fn a_change_that_is_none_of_ownership_concerns_nobody() {
        let mut graph = Graph::default();
        graph.upsert("set", item("set", &[], false, &[]));
        assert_eq!(graph.upsert("pod", item("pod", &["set"], false, &[])), ["pod", "set"]);
        assert_eq!(graph.upsert("set", item("set", &[], false, &[])), Vec::<String>::new());
        assert_eq!(graph.upsert("set", item("set", &[], true, &[FOREGROUND])), ["set", "pod"]);
        assert_eq!(graph.upsert("pod", item("pod", &[], false, &[])), ["pod", "set"], "the owner that was let go of");
    }

    #[test]
    fn an_owner_never_seen_is_asked_for_before_anything_is_deleted() {
        let mut graph = Graph::default();
        graph.upsert("pod", item("pod", &["set"], false, &[]));
        assert!(matches!(graph.decide("pod")[..], [Step::Verify { .. }]));
        assert_eq!(graph.note_absent("set"), ["pod"]);
        assert!(matches!(graph.decide("pod")[..], [Step::Delete { .. }]));
    }

    #[test]
    fn foreground_goes_from_the_leaves_up() {
        let mut graph = Graph::default();
        graph.upsert("web", item("web", &[], true, &[FOREGROUND]));
        graph.upsert("set", item("set", &["web"], false, &[]));
        graph.upsert("pod", item("pod", &["set"], false, &[]));
        assert_eq!(graph.decide("web"), []);
        assert_eq!(graph.decide("set"), [Step::Delete { uid: "set".to_owned(), foreground: true }]);
        graph.upsert("set", item("set", &["web"], true, &[FOREGROUND]));
        assert_eq!(graph.decide("pod"), [Step::Delete { uid: "pod".to_owned(), foreground: false }]);
        graph.remove("pod");
        assert_eq!(graph.decide("set"), [Step::Release { uid: "set".to_owned(), finalizer: FOREGROUND }]);
        graph.remove("set");
        assert_eq!(graph.decide("web"), [Step::Release { uid: "web".to_owned(), finalizer: FOREGROUND }]);
    }

    #[test]
    fn orphans_are_let_go_first() {
        let mut graph = Graph::default();
        graph.upsert("web", item("web", &[], true, &[ORPHAN]));
        graph.upsert("set", item("set", &["web"], false, &[]));
        assert_eq!(graph.decide("web"), [Step::KeepOwners { uid: "set".to_owned(), owners: vec![] }]);
        graph.upsert("set", item("set", &[], false, &[]));
        assert_eq!(graph.decide("web"), [Step::Release { uid: "web".to_owned(), finalizer: ORPHAN }]);
    }
}
