//! What the leader knows of the cluster: one map of objects, kept by one watch per kind.
//!
//! Events only say that something changed; whoever decides reads the map. What was just written is put into the map by
//! the writer, and an older event that arrives later does not undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kubevirt_release::{Kind, ObjectKey};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::catalogue::Catalogue;
use crate::contest::{Contest, Contests};
use crate::kept::Kept;
use crate::pods::{PodFacts, Pods, Shared};
use crate::strategies::{Memory, Strategies};

/// An object as it was last seen.
pub type Live = Arc<Value>;

/// All objects, of all kinds.
pub type Objects = BTreeMap<ObjectKey, Live>;

/// What is kept of a node: it is counted, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// It is labelled as able to run VMs.
    pub schedulable: bool,
    pub control_plane: bool,
    /// It has labels that the suite put there.
    pub labelled: bool,
}

/// Nodes by name.
pub type Nodes = BTreeMap<String, NodeFacts>;

/// What one watch follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Kind(Kind),
    Pods,
    Nodes,
}

/// An object that went: it was deleted, or lost the label by which it is followed and may get it back.
struct Gone {
    uid: String,
    /// The version at which it went; a state from after that is news.
    at: Option<u64>,
}

impl Gone {
    fn covers(&self, object: &Value) -> bool {
        let is_after = matches!((self.at, version(object)), (Some(at), Some(version)) if version > at);
        text(object, "/metadata/uid") == Some(&self.uid) && !is_after
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => f.write_str(kind.plural()),
            Self::Pods => f.write_str("pods"),
            Self::Nodes => f.write_str("nodes"),
        }
    }
}

#[derive(Default)]
struct Known {
    objects: Objects,
    /// What last went under a key: the answer to our own write may come after the event that says so, and must not bring
    /// the object back.
    gone: BTreeMap<ObjectKey, Gone>,
    contests: Contests,
    /// Kinds of optional APIs that the cluster does not serve at present.
    unserved: BTreeSet<Kind>,
    /// Why a watch does not get on, as it was last told.
    troubles: BTreeMap<Source, String>,
    pods: Pods,
    shared: Shared,
    nodes: Nodes,
}

/// The map, its watches' progress and the bell that rings when something changed.
pub struct Cache {
    known: Mutex<Known>,
    /// The ready-made types, of which less is kept.
    pub catalogue: Catalogue,
    /// The watches that have not yet seen their first list.
    pending: watch::Sender<BTreeSet<Source>>,
    changed: Notify,
    strategies: Memory,
    /// What passes leave to each other.
    pub kept: Kept,
}

impl Cache {
    /// An empty cache that waits for the first list of each of `watches`.
    pub fn new(watches: impl IntoIterator<Item = Source>) -> Self {
        let (pending, _) = watch::channel(watches.into_iter().collect());
        Self {
            known: Mutex::default(),
            catalogue: Catalogue::default(),
            pending,
            changed: Notify::new(),
            strategies: Memory::default(),
            kept: Kept::default(),
        }
    }

    /// Waits until each watch has seen its first list.
    pub async fn synced(&self) {
        let mut pending = self.pending.subscribe();
        // The sender lives as long as this cache, so waiting cannot fail.
        let _ = pending.wait_for(BTreeSet::is_empty).await;
    }

    /// What has not been listed yet, and why not, as far as anything went wrong.
    pub fn not_synced(&self) -> Vec<String> {
        let pending = self.pending.borrow().clone();
        let known = self.lock();
        let told = pending.iter().map(|source| match known.troubles.get(source) {
            Some(why) => format!("{source}: {why}"),
            None => format!("{source}: no answer yet"),
        });
        told.collect()
    }

    /// Takes note of how a watch gets on.
    pub fn follows(&self, source: Source, trouble: Option<String>) {
        let mut known = self.lock();
        match trouble {
            Some(why) => known.troubles.insert(source, why),
            None => known.troubles.remove(&source),
        };
    }

    /// Waits until something changed since the last call returned.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Rings the bell for something that is kept elsewhere.
    pub fn ring(&self) {
        self.changed.notify_one();
    }

    /// The kinds of optional APIs that are not served now.
    pub fn unserved(&self) -> BTreeSet<Kind> {
        self.lock().unserved.clone()
    }

    /// Takes note that a kind is not served: nothing of it exists.
    pub fn not_served(&self, kind: Kind) {
        let mut known = self.lock();
        let is_news = known.unserved.insert(kind);
        known.objects.retain(|key, _| key.kind != kind);
        known.troubles.remove(&Source::Kind(kind));
        drop(known);
        self.catalogue.forget(kind);
        if is_news {
            self.listed(Source::Kind(kind));
        }
    }

    /// Takes note that a kind of an optional API is served and all of its objects were seen.
    pub fn served(&self, kind: Kind) {
        self.lock().unserved.remove(&kind);
        self.listed(Source::Kind(kind));
    }

    /// All objects as they are known now.
    pub fn objects(&self) -> Objects {
        self.lock().objects.clone()
    }

    /// The install strategies among the objects.
    pub fn strategies(&self) -> Strategies {
        self.strategies.of(&self.lock().objects)
    }

    /// The nodes as they are known now.
    pub fn nodes(&self) -> Nodes {
        self.lock().nodes.clone()
    }

    /// The pods of the suite as they are known now.
    pub fn pods(&self) -> Pods {
        self.lock().pods.clone()
    }

    /// The writes of this process that did not last and are not yet to be tried again.
    pub fn contests(&self, now: Timestamp) -> Contests {
        let mut known = self.lock();
        known.contests.retain(|_, contest| now < contest.until);
        known.contests.clone()
    }

    /// Takes note of how a write ended: whether it lasted, or is contested.
    pub fn wrote(&self, key: &ObjectKey, contest: Option<Contest>) {
        let mut known = self.lock();
        match contest {
            Some(contest) => known.contests.insert(key.clone(), contest),
            None => known.contests.remove(key),
        };
    }

    /// How many pods of the suite are known.
    pub fn pod_count(&self) -> usize {
        self.lock().pods.len()
    }

    /// Takes note of an object, unless a newer state of it is known.
    pub fn store(&self, key: ObjectKey, mut object: Value) {
        // The answer to a write comes as the server has it.
        kubevirt_apply::pack(&mut object);
        let mut known = self.lock();
        if known.gone.get(&key).is_some_and(|gone| gone.covers(&object)) {
            return;
        }
        known.gone.remove(&key);
        let is_news = store(&mut known.objects, key, object);
        drop(known);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Takes note of a pod. Most of what happens to one changes nothing that is looked at, and rings no bell.
    pub fn store_pod(&self, name: String, pod: PodFacts) {
        let mut known = self.lock();
        let Known { pods, shared, .. } = &mut *known;
        let is_news = insert_pod(pods, shared, name, pod);
        drop(known);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Takes note of an object that was asked for by name, because no watch shows it: it lost its label.
    pub fn found(&self, key: ObjectKey, object: Value) {
        let mut known = self.lock();
        known.gone.remove(&key);
        store(&mut known.objects, key, object);
    }

    /// Forgets an object that no longer exists, unless another one has taken its name since.
    pub fn remove(&self, key: &ObjectKey, uid: Option<&str>) {
        self.forget(key, uid, None);
    }

    /// Forgets an object that a watch no longer shows: it was deleted, or lost the label by which it is followed. `last`
    /// is its last state; what is known from after that stays.
    pub fn left(&self, key: &ObjectKey, last: &Value) {
        let is_newer = self.lock().objects.get(key).is_some_and(|live| is_older(last, live));
        if !is_newer {
            self.forget(key, text(last, "/metadata/uid"), version(last));
        }
    }

    fn forget(&self, key: &ObjectKey, uid: Option<&str>, at: Option<u64>) {
        let mut known = self.lock();
        let is_news = remove(&mut known.objects, key, uid);
        if let Some(uid) = uid {
            known.gone.insert(key.clone(), Gone { uid: uid.to_owned(), at });
        }
        drop(known);
        if is_news {
            self.changed.notify_one();
        }
    }

    pub fn remove_pod(&self, name: &str) {
        if Arc::make_mut(&mut self.lock().pods).remove(name).is_some() {
            self.changed.notify_one();
        }
    }

    /// Replaces everything known of a kind by what a list showed.
    pub fn replace_kind(&self, kind: Kind, listed: Objects) {
        let mut known = self.lock();
        known.unserved.remove(&kind);
        known.objects.retain(|key, _| key.kind != kind || listed.contains_key(key));
        for (key, object) in listed {
            let is_stale = known.objects.get(&key).is_some_and(|old| is_older(&object, old));
            if !is_stale {
                known.objects.insert(key, object);
            }
        }
        drop(known);
        self.listed(Source::Kind(kind));
    }

    /// Replaces all pods by what a list showed, and what they share.
    pub fn replace_pods(&self, listed: (Pods, Shared)) {
        let mut known = self.lock();
        (known.pods, known.shared) = listed;
        drop(known);
        self.listed(Source::Pods);
    }

    /// Takes note of a node. A node reports every few seconds; only what is counted rings the bell.
    pub fn store_node(&self, name: String, facts: NodeFacts) {
        if self.lock().nodes.insert(name, facts) != Some(facts) {
            self.changed.notify_one();
        }
    }

    pub fn remove_node(&self, name: &str) {
        if self.lock().nodes.remove(name).is_some() {
            self.changed.notify_one();
        }
    }

    pub fn replace_nodes(&self, nodes: Nodes) {
        self.lock().nodes = nodes;
        self.listed(Source::Nodes);
    }

    fn listed(&self, source: Source) {
        self.pending.send_if_modified(|pending| pending.remove(&source));
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes note of an object; tells whether that was news.
fn store<K: Ord>(known: &mut BTreeMap<K, Live>, key: K, object: Value) -> bool {
    let is_news = known.get(&key).is_none_or(|old| !is_older_or_same(&object, old));
    if is_news {
        known.insert(key, Arc::new(object));
    }
    is_news
}

/// Takes note of a pod; tells whether that was news.
pub(crate) fn insert_pod(pods: &mut Pods, shared: &mut Shared, name: String, pod: PodFacts) -> bool {
    if pods.get(name.as_str()) == Some(&pod) {
        return false;
    }
    Arc::make_mut(pods).insert(name.into(), shared.share(pod));
    true
}

fn remove<K: Ord>(known: &mut BTreeMap<K, Live>, key: &K, uid: Option<&str>) -> bool {
    let is_it = known.get(key).is_some_and(|live| uid.is_none() || text(live, "/metadata/uid") == uid);
    is_it && known.remove(key).is_some()
}

/// A text field of an object.
pub fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

fn version(object: &Value) -> Option<u64> {
    text(object, "/metadata/resourceVersion")?.parse().ok()
}

/// Whether `new` is an earlier state of the same object than `old`. Versions of one kind are ordered numbers on every
/// supported server; where they are not, the event counts.
fn is_older(new: &Value, old: &Value) -> bool {
    text(new, "/metadata/uid") == text(old, "/metadata/uid")
        && matches!((version(new), version(old)), (Some(new), Some(old)) if new < old)
}

fn is_older_or_same(new: &Value, old: &Value) -> bool {
    is_older(new, old)
        || (text(new, "/metadata/uid") == text(old, "/metadata/uid")
            && version(new).is_some()
            && version(new) == version(old))
}

#[cfg(test)]
mod tests {
    use kubevirt_release::{Kind, ObjectKey};
    use serde_json::{Value, json};

    use super::{Cache, Nodes, Objects, Source};

    fn object(uid: &str, version: &str) -> Value {
        json!({"metadata": {"name": "a", "uid": uid, "resourceVersion": version}})
    }

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::Service, Some("kubevirt"), "a")
    }

    #[test]
    fn an_event_from_before_our_own_write_does_not_undo_it() {
        let cache = Cache::new([]);
        cache.store(key(), object("u", "10"));
        cache.store(key(), object("u", "9"));
        assert_eq!(*cache.objects()[&key()], object("u", "10"));
        cache.store(key(), object("other", "8"));
        assert_eq!(*cache.objects()[&key()], object("other", "8"), "another object of the same name counts");
    }

    #[test]
    fn a_late_deletion_spares_the_object_that_took_the_name() {
        let cache = Cache::new([]);
        cache.store(key(), object("new", "10"));
        cache.remove(&key(), Some("old"));
        assert_eq!(cache.objects().len(), 1);
        cache.remove(&key(), Some("new"));
        assert_eq!(cache.objects().len(), 0);
    }

    #[test]
    fn an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back() {
        let cache = Cache::new([]);
        cache.store(key(), object("u", "10"));
        cache.remove(&key(), Some("u"));
        cache.store(key(), object("u", "11"));
        assert!(cache.objects().is_empty());
        cache.store(key(), object("successor", "12"));
        assert_eq!(cache.objects().len(), 1);
        cache.remove(&key(), Some("u"));
        assert_eq!(cache.objects().len(), 1, "a late event about the predecessor");
    }

    #[test]
    fn an_object_that_lost_its_label_is_known_again_when_it_has_it_back() {
        let cache = Cache::new([]);
        cache.store(key(), object("u", "10"));
        cache.left(&key(), &object("u", "11"));
        assert!(cache.objects().is_empty());
        cache.store(key(), object("u", "9"));
        assert!(cache.objects().is_empty(), "a state from before it went");
        cache.store(key(), object("u", "12"));
        assert_eq!(cache.objects().len(), 1, "labelled anew");
        cache.left(&key(), &object("u", "11"));
        assert_eq!(cache.objects().len(), 1, "told late");
    }

    #[test]
    fn a_list_forgets_what_it_does_not_show() {
        let cache = Cache::new([Source::Kind(Kind::Service)]);
        cache.store(key(), object("u", "10"));
        cache.replace_kind(Kind::Service, Objects::new());
        assert!(cache.objects().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_synced_when_every_watch_has_listed() {
        let cache = Cache::new([Source::Kind(Kind::Service), Source::Nodes]);
        cache.replace_kind(Kind::Service, Objects::new());
        let early = tokio::time::timeout(std::time::Duration::from_secs(1), cache.synced()).await;
        assert!(early.is_err());
        cache.replace_nodes(Nodes::new());
        cache.synced().await;
    }
}
