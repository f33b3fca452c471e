//! S2: the operator deletes nothing that is not its own, and no definition while the suite is wanted.

use serde_json::Value;

use super::{Invariant, Sight, Verdict, is_managed, text};

pub(super) struct Deletions;

/// What users own: with any of these goes somebody's machine or data.
fn is_users(resource: &str) -> bool {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    let of_suite = group == "kubevirt.io" || group.ends_with(".kubevirt.io");
    (of_suite && resource != "kubevirts.kubevirt.io" && !resource.starts_with("virtualmachinecluster"))
        || matches!(resource, "persistentvolumeclaims" | "persistentvolumes" | "pods" | "namespaces" | "nodes")
}

/// Whether deletion was asked for by this very commit.
pub(super) fn begins(before: &Value, after: Option<&Value>) -> bool {
    let is_going = |object: &Value| object.pointer("/metadata/deletionTimestamp").is_some();
    !is_going(before) && after.is_none_or(is_going)
}

impl Invariant for Deletions {
    fn id(&self) -> &'static str {
        "S2"
    }

    fn states(&self) -> &'static str {
        "the operator deletes only what it made, by uid, and definitions only when the suite is being removed"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        let Some(before) = sight.transition.before() else { return Verdict::NotConcerned };
        if !sight.by_operator() || !begins(before, sight.transition.after()) {
            return Verdict::NotConcerned;
        }
        let what =
            || format!("{} {}/{}", sight.transition.resource, sight.transition.namespace(), sight.transition.name());
        if is_users(&sight.transition.resource) {
            return Verdict::Broken(format!("{} belongs to users", what()));
        }
        if !is_managed(before) {
            return Verdict::Broken(format!("{} is not labelled as managed by the operator", what()));
        }
        let options: Value = serde_json::from_slice(sight.sent).unwrap_or_default();
        if text(&options, "/preconditions/uid") != text(before, "/metadata/uid") {
            return Verdict::Broken(format!("{} is deleted whichever object has that name", what()));
        }
        if sight.is_of("customresourcedefinitions.apiextensions.k8s.io") {
            let is_wanted = sight.kubevirt().is_some_and(|cr| text(&cr, "/metadata/deletionTimestamp").is_empty());
            return Verdict::of(!is_wanted, || {
                format!("{} goes, and with it all its objects, while the suite is wanted", what())
            });
        }
        Verdict::Holds
    }
}
