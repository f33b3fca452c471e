//! What a client knows of the cluster: one watch-fed store per kind, which also takes in the answers to its own writes.
//!
//! An answer to a write is newer than what the watch has shown so far. Storing it at once means that a decision never
//! repeats a write only because its event is still on the way, so no expectations and no waiting times are needed.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::mpsc::Sender;
use tracing::{debug, warn};

use crate::kinds::{Cached, Kind, Object, Objects, Visitor};

/// Namespace and name; a cluster-scoped object has an empty namespace. Sorts by namespace first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

impl Name {
    /// A name from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::of_meta(object.meta())
    }

    /// The name in an object's metadata.
    pub fn of_meta(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What happened to one object in a store.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: Kind,
    pub name: Name,
    pub old: Option<Object>,
    pub new: Option<Object>,
}

impl Change {
    /// The object before and after, as far as there is one.
    pub fn both(&self) -> impl Iterator<Item = &Object> {
        self.old.iter().chain(self.new.iter())
    }
}

/// The uid of the controlling owner, or nothing.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// Objects of one kind by name, and by the uid of their controlling owner.
pub struct Store<K> {
    objects: BTreeMap<Name, Arc<K>>,
    /// Under the empty string: objects without a controlling owner.
    owned: BTreeMap<String, BTreeSet<Name>>,
    /// Uids whose deletion we have been told of in an answer, but whose last event has not arrived.
    gone: BTreeSet<String>,
    /// Names written by us while a list was on the way; the list may not contain them yet.
    fresh: BTreeSet<Name>,
    /// Names seen in the list that is being received.
    listed: Option<BTreeSet<Name>>,
    /// The newest version that lists and events have shown.
    seen: u128,
    synced: bool,
    /// Pods are kept without what only their node needs.
    pub(crate) lean: bool,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            owned: BTreeMap::new(),
            gone: BTreeSet::new(),
            fresh: BTreeSet::new(),
            listed: None,
            seen: 0,
            synced: false,
            lean: false,
        }
    }
}

/// Takes out of a pod what only its node needs: volumes alone are most of a pod's memory. Those of claims stay, as the
/// pod is what keeps them.
pub fn slim(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    let claimed = spec.volumes.take().into_iter().flatten();
    let claimed: Vec<_> = claimed.filter(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()).collect();
    spec.volumes = (!claimed.is_empty()).then_some(claimed);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.env = None;
        container.env_from = None;
        container.volume_mounts = None;
        container.command = None;
        container.args = None;
        container.lifecycle = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
        container.security_context = None;
    }
}

fn revision<K: Resource>(object: &K) -> Option<u128> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

fn owner_key<K: Resource>(object: &K) -> String {
    controller_uid(object.meta()).unwrap_or_default().to_owned()
}

impl<K: Resource + 'static> Store<K> {
    /// The object of this name.
    pub fn get(&self, name: &Name) -> Option<&Arc<K>> {
        self.objects.get(name)
    }

    /// All objects, sorted by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Arc<K>)> {
        self.objects.iter()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether the first list has arrived.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// The objects of one namespace.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.objects
            .range((Bound::Included(Name::new(namespace, "")), Bound::Unbounded))
            .take_while(move |(name, _)| name.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects whose controlling owner has this uid.
    pub fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<K>> + use<'a, K> {
        self.owned.get(uid).into_iter().flatten().filter_map(|name| self.objects.get(name))
    }

    /// The objects of a namespace that no controller owns.
    pub fn orphans<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.owned_by("").filter(move |object| object.meta().namespace.as_deref() == Some(namespace))
    }

    pub(crate) fn upsert(&mut self, object: K) -> Option<(Option<Arc<K>>, Arc<K>)> {
        let name = Name::of(&object);
        if object.meta().uid.as_ref().is_some_and(|uid| self.gone.contains(uid)) {
            return None;
        }
        if let Some(known) = self.objects.get(&name)
            && known.meta().uid == object.meta().uid
            && let (Some(before), Some(after)) = (revision(known.as_ref()), revision(&object))
            && after <= before
        {
            return None;
        }
        Some(self.replace(&name, object))
    }

    /// Whether an answer tells of an object that events have already shown to be gone: on a busy machine the answer to a delete
    /// may come when the pod has ended. What is there at a later version than events have shown is news.
    fn is_past(&self, name: &Name, answer: &K) -> bool {
        let is_known = self.objects.get(name).is_some_and(|known| known.meta().uid == answer.meta().uid);
        !is_known && revision(answer).is_some_and(|revision| revision <= self.seen)
    }

    fn sees(&mut self, object: &K) {
        self.seen = self.seen.max(revision(object).unwrap_or_default());
    }

    pub(crate) fn replace(&mut self, name: &Name, mut object: K) -> (Option<Arc<K>>, Arc<K>) {
        // Nobody decides by who wrote a field, and these lists are as large as the rest of a small object.
        object.meta_mut().managed_fields = None;
        if self.lean
            && let Some(pod) = (&mut object as &mut dyn Any).downcast_mut::<Pod>()
        {
            slim(pod);
        }
        let object = Arc::new(object);
        let old = self.objects.insert(name.clone(), object.clone());
        if let Some(old) = &old {
            self.disown(&owner_key(old.as_ref()), name);
        }
        self.owned.entry(owner_key(object.as_ref())).or_default().insert(name.clone());
        (old, object)
    }

    pub(crate) fn remove(&mut self, name: &Name, uid: Option<&str>) -> Option<Arc<K>> {
        let known = self.objects.get(name)?;
        if uid.is_some() && known.meta().uid.as_deref() != uid {
            return None;
        }
        let old = self.objects.remove(name)?;
        self.disown(&owner_key(old.as_ref()), name);
        Some(old)
    }

    fn disown(&mut self, owner: &str, name: &Name) {
        if let Some(names) = self.owned.get_mut(owner) {
            names.remove(name);
            if names.is_empty() {
                self.owned.remove(owner);
            }
        }
    }
}

impl Objects {
    /// Takes in the answer to our own request.
    pub fn answered<K: Cached>(&mut self, object: K) -> Option<Change> {
        let (store, name) = (K::store_mut(self), Name::of(&object));
        if store.is_past(&name, &object) {
            return None;
        }
        if store.listed.is_some() {
            store.fresh.insert(name);
        }
        self.upsert(object)
    }

    /// Takes in that our own delete has removed an object; a late event does not bring it back.
    pub fn deleted<K: Cached>(&mut self, name: &Name, uid: &str) -> Option<Change> {
        let change = self.remove::<K>(name, Some(uid))?;
        K::store_mut(self).gone.insert(uid.to_owned());
        Some(change)
    }

    /// Takes in an event of a watch. `unsure` receives the names that a list lacks although we wrote them meanwhile.
    pub fn feed<K: Cached>(&mut self, event: Event<K>, unsure: &mut Vec<Name>) -> Vec<Change> {
        match event {
            Event::Init => {
                let store = K::store_mut(self);
                store.listed = Some(BTreeSet::new());
                store.fresh.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let store = K::store_mut(self);
                store.sees(&object);
                if let Some(listed) = &mut store.listed {
                    listed.insert(Name::of(&object));
                }
                self.upsert(object).into_iter().collect()
            }
            Event::InitDone => {
                let store = K::store_mut(self);
                let listed = store.listed.take().unwrap_or_default();
                let fresh = std::mem::take(&mut store.fresh);
                store.synced = true;
                // A list starts a new history: events of what we deleted before it do not come any more.
                store.gone.clear();
                let missing: Vec<Name> = store.objects.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                let (kept, lost): (Vec<Name>, Vec<Name>) = missing.into_iter().partition(|name| fresh.contains(name));
                unsure.extend(kept);
                lost.iter().filter_map(|name| self.remove::<K>(name, None)).collect()
            }
            Event::Apply(object) => {
                K::store_mut(self).sees(&object);
                self.upsert(object).into_iter().collect()
            }
            Event::Delete(object) => {
                K::store_mut(self).sees(&object);
                let name = Name::of(&object);
                let uid = object.uid();
                if let Some(uid) = &uid {
                    K::store_mut(self).gone.remove(uid);
                }
                self.remove::<K>(&name, uid.as_deref()).into_iter().collect()
            }
        }
    }
}

/// One watch: a kind, limited by field or label selectors.
#[derive(Clone, Debug)]
pub struct Watch {
    pub kind: Kind,
    /// Empty: all namespaces.
    pub namespace: String,
    pub fields: Option<String>,
    pub labels: Option<String>,
}

impl Watch {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Self {
        Self { kind, namespace: String::new(), fields: None, labels: None }
    }

    /// Those that match a field selector.
    pub fn fields(kind: Kind, fields: impl Into<String>) -> Self {
        Self { fields: Some(fields.into()), ..Self::all(kind) }
    }
}

/// Something that changes the stores: applied where the stores live.
pub type Update = Box<dyn FnOnce(&mut Objects, &mut Vec<Name>) -> Vec<Change> + Send>;

/// An update with the kind it is about.
pub struct Fed {
    pub kind: Kind,
    pub update: Update,
}

/// Pause after the first failure of a watch: long enough not to hammer a server that restarts.
const WATCH_RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause: a kind that a server does not serve yet (a CRD to come) is looked for this often.
const WATCH_RETRY_MAX: Duration = Duration::from_secs(10);

/// Follows one kind and sends every event to `to`. Ends when the receiver is gone.
pub async fn follow(client: Client, watch: Watch, to: Sender<Fed>) {
    struct Follow {
        client: Client,
        watch: Watch,
        to: Sender<Fed>,
    }
    impl Visitor for Follow {
        type Out = futures::future::BoxFuture<'static, ()>;
        fn visit<K: Cached>(self) -> Self::Out {
            Box::pin(follow_kind::<K>(self.client, self.watch, self.to))
        }
    }
    watch.kind.visit(Follow { client, watch, to }).await;
}

async fn follow_kind<K: Cached>(client: Client, watch: Watch, to: Sender<Fed>) {
    let api = if watch.namespace.is_empty() { kube::Api::all(client) } else { K::api(client, &watch.namespace) };
    let config = watcher::Config {
        field_selector: watch.fields.clone(),
        label_selector: watch.labels.clone(),
        ..watcher::Config::default()
    };
    let stream = watcher::watcher::<K>(api, config);
    let mut stream = std::pin::pin!(retrying(stream, K::KIND));
    while let Some(event) = stream.next().await {
        let update: Update = Box::new(move |objects, unsure| objects.feed(event, unsure));
        if to.send(Fed { kind: K::KIND, update }).await.is_err() {
            return;
        }
    }
}

/// Turns failures into pauses. kube's own back-off draws jitter from the system's randomness, which a seeded run must not.
fn retrying<K: Send>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    kind: Kind,
) -> impl Stream<Item = Event<K>> + Send {
    futures::stream::unfold((Box::pin(stream), WATCH_RETRY_FIRST), move |(mut stream, mut pause)| async move {
        loop {
            match stream.next().await? {
                Ok(event) => return Some((event, (stream, WATCH_RETRY_FIRST))),
                Err(error) => {
                    if pause == WATCH_RETRY_FIRST {
                        debug!(?kind, %error, "watch failed, retrying");
                    } else {
                        warn!(?kind, %error, "watch keeps failing, retrying");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(WATCH_RETRY_MAX);
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, revision: u64) -> Pod {
        let metadata = json!({"name": name, "namespace": "a", "uid": uid, "resourceVersion": revision.to_string()});
        serde_json::from_value(json!({"metadata": metadata})).expect("a pod")
    }

    fn feed(objects: &mut Objects, event: Event<Pod>) {
        objects.feed(event, &mut Vec::new());
    }

    fn uids(objects: &Objects) -> Vec<String> {
        objects.pods.iter().filter_map(|(_, pod)| pod.metadata.uid.clone()).collect()
    }

    #[test]
    fn an_answer_that_comes_late_does_not_bring_back_what_has_gone() {
        let mut objects = Objects::default();
        feed(&mut objects, Event::Apply(pod("one", "1", 5)));
        // Its deletion was answered with version 6 and is under way for long.
        feed(&mut objects, Event::Apply(pod("one", "1", 6)));
        feed(&mut objects, Event::Delete(pod("one", "1", 7)));
        assert!(objects.answered(pod("one", "1", 6)).is_none());
        assert!(objects.pods.is_empty());
        // Nor does it take the place of one that has the name now.
        feed(&mut objects, Event::Apply(pod("one", "2", 8)));
        assert!(objects.answered(pod("one", "1", 6)).is_none());
        assert_eq!(uids(&objects), ["2"]);
    }

    #[test]
    fn an_answer_that_is_ahead_of_the_events_is_news() {
        let mut objects = Objects::default();
        feed(&mut objects, Event::Apply(pod("one", "1", 5)));
        assert!(objects.answered(pod("two", "2", 6)).is_some());
        assert!(objects.answered(pod("one", "1", 7)).is_some());
        assert_eq!(uids(&objects), ["1", "2"]);
        feed(&mut objects, Event::Apply(pod("two", "2", 6)));
        assert!(objects.answered(pod("two", "2", 8)).is_some(), "of one that is known only the newer counts");
    }
}
