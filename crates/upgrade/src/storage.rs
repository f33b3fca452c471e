//! Which definitions have objects that may lie in a version nobody stores any more, and which versions may go when all of
//! them were stored anew (pure). The API server keeps the record, `status.storedVersions`: it gains a version when the
//! storage version changes, and loses one only when somebody says that no object is left in it.

use serde_json::{Value, json};

/// One definition whose objects are to be stored anew. A change of the definition makes it another one: what was written
/// before the change counts for nothing then, because it may have been stored in yet another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The definition's name.
    pub definition: String,
    pub group: String,
    pub kind: String,
    pub plural: String,
    /// The version in which objects are stored now.
    pub storage: String,
    /// The version through which they are read and written: the storage version, whose schema keeps all that is stored; if
    /// it is not served, another.
    pub through: String,
    /// The versions to go.
    pub old: Vec<String>,
    uid: String,
    generation: i64,
}

impl Migration {
    /// What a definition needs, if it needs anything. One that is going takes its objects along, and the objects of one
    /// that serves no version cannot be reached.
    fn of(definition: &Value) -> Option<Self> {
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        if text("/metadata/deletionTimestamp").is_some() {
            return None;
        }
        let versions = definition.pointer("/spec/versions")?.as_array()?;
        let yes = |version: &&Value, field: &str| version.get(field) == Some(&Value::Bool(true));
        let stored = versions.iter().find(|version| yes(version, "storage"))?;
        let through = Some(stored).filter(|version| yes(version, "served"));
        let through = through.or_else(|| versions.iter().find(|version| yes(version, "served")))?;
        let name = |version: &Value| version.get("name").and_then(Value::as_str).map(str::to_owned);
        let storage = name(stored)?;
        let old: Vec<String> = recorded(definition).filter(|version| *version != storage).map(str::to_owned).collect();
        if old.is_empty() {
            return None;
        }
        Some(Self {
            definition: text("/metadata/name")?,
            group: text("/spec/group")?,
            kind: text("/spec/names/kind")?,
            plural: text("/spec/names/plural")?,
            through: name(through)?,
            storage,
            old,
            uid: text("/metadata/uid")?,
            generation: definition.pointer("/metadata/generation").and_then(Value::as_i64)?,
        })
    }

    /// The change of the definition's status that ends it, valid for the very state that was seen. `None` when that is not
    /// the definition any more whose objects were written.
    pub fn end(&self, definition: &Value) -> Option<Value> {
        if Self::of(definition).as_ref() != Some(self) {
            return None;
        }
        let left: Vec<&str> =
            recorded(definition).filter(|version| !self.old.iter().any(|old| old == version)).collect();
        let version = definition.pointer("/metadata/resourceVersion")?;
        Some(json!({"metadata": {"resourceVersion": version}, "status": {"storedVersions": left}}))
    }
}

/// The versions in which objects may be stored.
fn recorded(definition: &Value) -> impl Iterator<Item = &str> {
    let stored = definition.pointer("/status/storedVersions").and_then(Value::as_array);
    stored.into_iter().flatten().filter_map(Value::as_str)
}

/// The definitions whose objects are to be stored anew, in the order in which they are given.
pub fn migrations<'a>(definitions: impl IntoIterator<Item = &'a Value>) -> Vec<Migration> {
    definitions.into_iter().filter_map(Migration::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions are written as their name, `s` for stored and `-` for not served.
    fn definition(versions: &[&str], stored: &[&str]) -> Value {
        let version = |text: &&str| {
            let (name, marks) = text.split_once(' ').unwrap_or((text, ""));
            json!({"name": name, "served": !marks.contains('-'), "storage": marks.contains('s')})
        };
        json!({
            "metadata": {"name": "things.g", "uid": "u", "generation": 2, "resourceVersion": "7"},
            "spec": {"group": "g", "names": {"kind": "Thing", "plural": "things"},
                     "versions": versions.iter().map(version).collect::<Vec<_>>()},
            "status": {"storedVersions": stored},
        })
    }

    fn only(definition: &Value) -> Option<Migration> {
        migrations([definition]).pop()
    }

    #[test]
    fn only_a_definition_with_another_version_than_the_stored_one_on_record_is_due() {
        assert_eq!(only(&definition(&["v1 s", "v1alpha3"], &["v1"])), None);
        assert_eq!(only(&definition(&["v1 s"], &[])), None, "it has no status yet");
        let due = only(&definition(&["v1alpha3", "v1 s", "v2"], &["v1alpha3", "v1", "v2"])).expect("it is due");
        assert_eq!((&*due.storage, &*due.through), ("v1", "v1"));
        assert_eq!(due.old, ["v1alpha3", "v2"]);
        let mut going = definition(&["v1alpha3", "v1 s"], &["v1alpha3", "v1"]);
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(only(&going), None);
    }

    #[test]
    fn objects_are_reached_through_a_version_that_is_served() {
        let stored = ["v1alpha1", "v1"];
        let through = |versions: &[&str]| only(&definition(versions, &stored)).map(|due| due.through);
        assert_eq!(through(&["v1alpha1", "v1 s"]).as_deref(), Some("v1"));
        assert_eq!(through(&["v1alpha1", "v1 s-"]).as_deref(), Some("v1alpha1"));
        assert_eq!(through(&["v1alpha1 -", "v1 s-"]), None);
    }

    #[test]
    fn it_ends_with_the_definition_it_began_with_and_with_no_other() {
        let began = definition(&["v1alpha1", "v1 s"], &["v1alpha1", "v1"]);
        let due = only(&began).expect("it is due");
        let end = json!({"metadata": {"resourceVersion": "7"}, "status": {"storedVersions": ["v1"]}});
        assert_eq!(due.end(&began), Some(end));
        let changed = |pointer: &str, value: Value| {
            let mut changed = began.clone();
            *changed.pointer_mut(pointer).expect("a field") = value;
            due.end(&changed)
        };
        assert_eq!(changed("/metadata/generation", 3.into()), None, "there and back is a change, too");
        assert_eq!(changed("/metadata/uid", "other".into()), None);
        assert_eq!(changed("/status/storedVersions", json!(["v1alpha1", "v1", "v0"])), None);
        assert_eq!(changed("/status/storedVersions", json!(["v1"])), None, "somebody was quicker");
        let newer = changed("/metadata/resourceVersion", "9".into()).expect("only the status is newer");
        assert_eq!(newer["metadata"]["resourceVersion"], "9");
    }
}
