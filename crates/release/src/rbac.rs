//! Rules of access: short ways to write them down, and whether one set covers another.

mod coverage;

use k8s_openapi::api::rbac::v1::PolicyRule;

pub use self::coverage::{Permission, covers, in_words, missing};

pub const READ: &[&str] = &["get", "list", "watch"];

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Verbs on resources of one API group; the core group is empty.
pub fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..Default::default()
    }
}

/// As [`rule`], for objects of the given names only. It covers a `create` by server-side apply, which names the object;
/// one by POST is asked for without a name.
pub fn named(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule { resource_names: Some(owned(names)), ..rule(group, resources, verbs) }
}

fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
