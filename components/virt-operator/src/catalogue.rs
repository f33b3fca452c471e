//! The ready-made types that carry the operator's labels, as far as they are looked at: what each amounts to, in a few
//! bytes. There are more of them than of everything else together, and they hardly ever change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kubevirt_release::Kind;
use kubevirt_release::desired::NO_REASON_TO_WRITE;
use serde_json::Value;
use sha1::{Digest as _, Sha1};

use crate::cache::text;

/// What is kept of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The resource version it was seen at.
    version: u64,
    digest: u64,
    /// Deletion was asked for.
    pub going: bool,
}

impl Entry {
    fn of(object: &Value) -> Self {
        Self {
            version: text(object, "/metadata/resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default(),
            digest: digest(object),
            going: text(object, "/metadata/deletionTimestamp").is_some(),
        }
    }

    /// Whether the object is exactly the wanted one: labels, annotations and content.
    pub fn is(&self, wanted: &Value) -> bool {
        self.digest == digest(wanted)
    }

    /// The resource version, as the server wrote it.
    pub fn version(&self) -> String {
        self.version.to_string()
    }
}

/// Entries of one kind by name.
pub type Entries = BTreeMap<String, Entry>;

/// Entries by kind; kinds that were not listed yet, or are not served, are missing.
#[derive(Default)]
pub struct Catalogue(Mutex<BTreeMap<Kind, Arc<Entries>>>);

impl Catalogue {
    /// What is known now.
    pub fn now(&self) -> BTreeMap<Kind, Arc<Entries>> {
        self.lock().clone()
    }

    /// Takes note of an object, unless a newer state of it is known; tells whether that was news.
    pub fn store(&self, kind: Kind, object: &Value) -> bool {
        let (Some(name), entry) = (text(object, "/metadata/name"), Entry::of(object)) else { return false };
        let mut all = self.lock();
        let Some(known) = all.get_mut(&kind).map(Arc::make_mut) else { return false };
        let is_news = known.get(name).is_none_or(|old| old.version < entry.version);
        if is_news {
            known.insert(name.to_owned(), entry);
        }
        is_news
    }

    /// Forgets an object; tells whether it was known.
    pub fn remove(&self, kind: Kind, name: &str) -> bool {
        self.lock().get_mut(&kind).is_some_and(|known| Arc::make_mut(known).remove(name).is_some())
    }

    /// Adds an object to a list that is being read.
    pub fn add(entries: &mut Entries, object: &Value) {
        if let Some(name) = text(object, "/metadata/name") {
            entries.insert(name.to_owned(), Entry::of(object));
        }
    }

    /// Replaces everything known of a kind by the entries of a list.
    pub fn set(&self, kind: Kind, entries: Entries) {
        self.lock().insert(kind, Arc::new(entries));
    }

    /// Forgets a kind that is not served any more.
    pub fn forget(&self, kind: Kind) {
        self.lock().remove(&kind);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Arc<Entries>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an object amounts to: its labels, its annotations, those aside that are no reason to write, and its content. Eight
/// bytes of a hash tell two of a few hundred objects apart.
fn digest(object: &Value) -> u64 {
    let mut hash = Sha1::new();
    let map = |pointer: &str| object.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut annotations = map("/metadata/annotations");
    annotations.retain(|name, _| !NO_REASON_TO_WRITE.contains(&name.as_str()));
    for part in [map("/metadata/labels"), annotations, map("/spec")] {
        // Maps are in the order of their keys, so equal values are equal text.
        hash.update(Value::Object(part).to_string());
        hash.update([0]);
    }
    hash.finalize().as_slice().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KIND: Kind = Kind::VirtualMachineClusterInstancetype;

    fn object(version: &str, cpus: u32) -> Value {
        json!({"metadata": {"name": "u1.small", "labels": {"a": "b"}, "resourceVersion": version, "uid": version},
               "spec": {"cpu": {"guest": cpus}}})
    }

    fn listed(objects: &[Value]) -> Entries {
        let mut entries = Entries::new();
        objects.iter().for_each(|object| Catalogue::add(&mut entries, object));
        entries
    }

    fn entry(catalogue: &Catalogue) -> Option<Entry> {
        catalogue.now().get(&KIND)?.get("u1.small").copied()
    }

    #[test]
    fn an_object_is_the_wanted_one_whatever_the_server_added() {
        let catalogue = Catalogue::default();
        assert!(!catalogue.store(KIND, &object("1", 1)), "the kind was not listed yet");
        catalogue.set(KIND, listed(&[object("5", 1)]));
        let wanted = json!({"metadata": {"name": "u1.small", "labels": {"a": "b"}}, "spec": {"cpu": {"guest": 1}}});
        assert!(entry(&catalogue).expect("known").is(&wanted));
        let mut labelled = wanted.clone();
        labelled["metadata"]["labels"]["c"] = "d".into();
        assert!(!entry(&catalogue).expect("known").is(&labelled), "a label more is a difference");
        let mut stamped = wanted;
        stamped["metadata"]["annotations"]["kubevirt.io/generation"] = "7".into();
        assert!(entry(&catalogue).expect("known").is(&stamped), "when it was written is none");
    }

    #[test]
    fn an_older_state_does_not_undo_a_newer_one() {
        let catalogue = Catalogue::default();
        catalogue.set(KIND, listed(&[object("5", 1)]));
        assert!(!catalogue.store(KIND, &object("4", 2)));
        assert!(catalogue.store(KIND, &object("6", 2)));
        assert_eq!(entry(&catalogue).expect("known").version(), "6");
        assert!(catalogue.remove(KIND, "u1.small"));
        assert!(!catalogue.remove(KIND, "u1.small"));
        catalogue.forget(KIND);
        assert_eq!(catalogue.now().get(&KIND), None);
    }
}
