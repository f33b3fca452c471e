//! Writes that did not last: somebody changes an object on its way in (a mutating webhook, a policy), or the server stores
//! another spelling than it was sent. Writing it again would change nothing, so it is left alone for a while and said.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kubevirt_apply::{DriftKind, differs};
use kubevirt_release::{Object, ObjectKey};
use serde_json::Value;

/// How long a contested object is left alone: whoever contests it may have been removed since, and one write in five
/// minutes harms nobody.
const RETRY: Duration = Duration::from_secs(300);

/// One object whose write did not last.
#[derive(Clone, Debug, PartialEq)]
pub struct Contest {
    wanted: Value,
    /// What came of it, without what changes at every write.
    left: Value,
    /// The first field that is not as it was written.
    pub path: String,
    pub until: Timestamp,
}

/// Contested objects.
pub type Contests = BTreeMap<ObjectKey, Contest>;

impl Contest {
    /// What a write amounts to: a contest if its result is not what was sent.
    pub fn of(sent: &Object, stored: &Value, now: Timestamp) -> Option<Self> {
        // Lists of ours with foreign elements are put right in several writes, not contested.
        let drift = differs(sent, stored).filter(|drift| drift.kind != DriftKind::Length)?;
        let until = now.checked_add(RETRY).ok()?;
        Some(Self { wanted: sent.value().clone(), left: settled(stored), path: drift.path, until })
    }

    /// Whether the same is wanted and the same is there, so that writing would end in the same way.
    pub fn goes_on(&self, wanted: &Object, live: &Value) -> bool {
        self.wanted == *wanted.value() && self.left == settled(live)
    }
}

fn settled(live: &Value) -> Value {
    let mut live = live.clone();
    if let Some(object) = live.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in ["resourceVersion", "generation", "managedFields"] {
                metadata.remove(name);
            }
        }
    }
    live
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(port: u16, version: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "virt-api", "namespace": "kubevirt", "resourceVersion": version},
            "spec": {"ports": [{"port": port}]}})
    }

    #[test]
    fn what_was_changed_on_its_way_in_is_left_alone_until_something_changes() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("a time");
        let sent = Object::from_value(service(443, "")).expect("an object");
        assert_eq!(Contest::of(&sent, &service(443, "7"), at(0)), None);
        let contest = Contest::of(&sent, &service(444, "7"), at(0)).expect("it did not last");
        assert_eq!(contest.path, "spec.ports[0].port");
        assert!(contest.goes_on(&sent, &service(444, "8")));
        assert!(!contest.goes_on(&sent, &service(445, "9")), "something else is there now");
        let other = Object::from_value(service(442, "")).expect("an object");
        assert!(!contest.goes_on(&other, &service(444, "8")), "something else is wanted now");
        assert_eq!(contest.until, at(300), "then it is tried again");
    }
}
