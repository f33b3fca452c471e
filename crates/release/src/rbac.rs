//! Rules of access: short ways to write them down, and whether one set covers another.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;

pub const READ: &[&str] = &["get", "list", "watch"];

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

/// Whether who holds `held` may grant `needed`: every single permission in it is held, as the API server checks it.
pub fn covers(held: &[PolicyRule], needed: &PolicyRule) -> bool {
    permissions(needed).iter().all(|permission| held.iter().any(|rule| allows(rule, permission)))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Permission {
    Path { path: String, verb: String },
    Resource { group: String, resource: String, name: Option<String>, verb: String },
}

fn permissions(rule: &PolicyRule) -> BTreeSet<Permission> {
    let PolicyRule { api_groups, non_resource_urls, resource_names, resources, verbs } = rule;
    let mut found = BTreeSet::new();
    for verb in verbs {
        for path in non_resource_urls.iter().flatten() {
            found.insert(Permission::Path { path: path.clone(), verb: verb.clone() });
        }
        for group in api_groups.iter().flatten() {
            for resource in resources.iter().flatten() {
                let names = resource_names.iter().flatten().cloned().map(Some).collect::<Vec<_>>();
                for name in if names.is_empty() { vec![None] } else { names } {
                    let (group, resource, verb) = (group.clone(), resource.clone(), verb.clone());
                    found.insert(Permission::Resource { group, resource, name, verb });
                }
            }
        }
    }
    found
}

fn allows(rule: &PolicyRule, permission: &Permission) -> bool {
    let holds = |list: Option<&Vec<String>>, wanted: &str| {
        list.is_some_and(|items| items.iter().any(|item| item == wanted || item == "*"))
    };
    match permission {
        Permission::Path { path, verb } => {
            holds(Some(&rule.verbs), verb) && holds(rule.non_resource_urls.as_ref(), path)
        }
        Permission::Resource { group, resource, name, verb } => {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            holds(Some(&rule.verbs), verb)
                && holds(rule.api_groups.as_ref(), group)
                && holds(rule.resources.as_ref(), resource)
                && (names.is_empty() || name.as_ref().is_some_and(|name| names.contains(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_covered_permission_by_permission() {
        let held = [
            rule("", &["pods"], &["get", "list"]),
            rule("apps", &["*"], &["*"]),
            named("", &["secrets"], &["a"], &["get"]),
        ];
        assert!(covers(&held, &rule("", &["pods"], &["list"])));
        assert!(covers(&held, &rule("apps", &["deployments"], &["patch", "delete"])));
        assert!(covers(&held, &named("", &["pods"], &["x"], &["get"])));
        assert!(covers(&held, &named("", &["secrets"], &["a"], &["get"])));
        assert!(!covers(&held, &rule("", &["pods"], &["list", "watch"])));
        assert!(!covers(&held, &rule("", &["secrets"], &["get"])));
        assert!(!covers(&held, &named("", &["secrets"], &["a", "b"], &["get"])));
        let path =
            PolicyRule { non_resource_urls: Some(owned(&["/metrics"])), verbs: owned(&["get"]), ..Default::default() };
        assert!(!covers(&held, &path));
        assert!(covers(std::slice::from_ref(&path), &path));
    }
}
