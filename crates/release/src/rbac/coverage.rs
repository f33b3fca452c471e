//! Whether rights cover rights, as the API server asks before it lets somebody grant them (pure). A rule is a product of
//! lists; what is compared are the single permissions that it is made of.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

/// One thing that a rule allows. A `*` in it stands for everything there may ever be, so only a `*` covers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// A path that is no resource.
    Path { path: String, verb: String },
    /// A resource, with its subresource behind a slash; of one name, or of any.
    Resource { group: String, resource: String, name: Option<String>, verb: String },
}

/// Whether who holds `held` may grant `needed`: every single permission in it is held.
pub fn covers(held: &[PolicyRule], needed: &PolicyRule) -> bool {
    missing(held, std::slice::from_ref(needed)).is_empty()
}

/// What is in `needed` and not held.
pub fn missing(held: &[PolicyRule], needed: &[PolicyRule]) -> BTreeSet<Permission> {
    let wanted = needed.iter().flat_map(permissions);
    wanted.filter(|permission| !held.iter().any(|rule| allows(rule, permission))).collect()
}

/// The permissions in words, those that differ in verbs or in resources alone together: `get, list pods, services in the
/// core group`.
pub fn in_words(permissions: &BTreeSet<Permission>) -> Vec<String> {
    /// Group, name and verbs; the resources that are alike in them share a line.
    type Line<'a> = (&'a str, Option<&'a str>, BTreeSet<&'a str>);
    let mut paths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut resources: BTreeMap<(&str, Option<&str>, &str), BTreeSet<&str>> = BTreeMap::new();
    for permission in permissions {
        match permission {
            Permission::Path { path, verb } => paths.entry(path).or_default().insert(verb),
            Permission::Resource { group, resource, name, verb } => {
                resources.entry((group.as_str(), name.as_deref(), resource.as_str())).or_default().insert(verb)
            }
        };
    }
    let mut alike: BTreeMap<Line<'_>, Vec<&str>> = BTreeMap::new();
    for ((group, name, resource), verbs) in resources {
        alike.entry((group, name, verbs)).or_default().push(resource);
    }
    let list = |items: &BTreeSet<&str>| items.iter().copied().collect::<Vec<_>>().join(", ");
    let of_resources = alike.into_iter().map(|((group, name, verbs), resources)| {
        let group = if group.is_empty() { "the core group".to_owned() } else { format!("group {group}") };
        let name = name.map(|name| format!(" named {name}")).unwrap_or_default();
        format!("{} {} in {group}{name}", list(&verbs), resources.join(", "))
    });
    of_resources.chain(paths.into_iter().map(|(path, verbs)| format!("{} {path}", list(&verbs)))).collect()
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
            let reaches = |held: &String| {
                held == path || held.strip_suffix('*').is_some_and(|beginning| path.starts_with(beginning))
            };
            holds(Some(&rule.verbs), verb) && rule.non_resource_urls.iter().flatten().any(reaches)
        }
        Permission::Resource { group, resource, name, verb } => {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            // The same subresource of everything.
            let of_any = resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
            let resources = rule.resources.as_ref();
            holds(Some(&rule.verbs), verb)
                && holds(rule.api_groups.as_ref(), group)
                && (holds(resources, resource) || of_any.is_some_and(|of_any| holds(resources, &of_any)))
                && (names.is_empty() || name.as_ref().is_some_and(|name| names.contains(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::{named, owned, rule};
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
        let path = paths(&["/metrics"]);
        assert!(!covers(&held, &path));
        assert!(covers(std::slice::from_ref(&path), &path));
    }

    #[test]
    fn a_star_covers_what_it_stands_for_and_is_covered_by_a_star_alone() {
        let held = [rule("", &["*/status"], &["*"]), paths(&["/healthz/*"])];
        assert!(covers(&held, &rule("", &["pods/status"], &["patch"])));
        assert!(!covers(&held, &rule("", &["pods"], &["patch"])));
        assert!(!covers(&held, &rule("", &["pods/log"], &["get"])));
        assert!(covers(&held, &paths(&["/healthz/etcd"])) && covers(&held, &paths(&["/healthz/etcd/*"])));
        assert!(!covers(&held, &paths(&["/healthz"])));
        let all = [rule("*", &["*"], &["*"])];
        assert!(covers(&all, &rule("*", &["*"], &["*"])) && covers(&all, &rule("", &["*/status"], &["get"])));
        assert!(!covers(&[rule("", &["pods"], &["get", "list", "watch"])], &rule("", &["pods"], &["*"])));
    }

    #[test]
    fn what_is_missing_is_told_and_nothing_else() {
        let held = [rule("", &["pods"], &["get"])];
        let needed = [
            rule("", &["pods", "services"], &["get", "list"]),
            named("apps", &["deployments"], &["a"], &["patch"]),
            paths(&["/metrics"]),
        ];
        let told = in_words(&missing(&held, &needed));
        let expected = [
            "get, list services in the core group",
            "list pods in the core group",
            "patch deployments in group apps named a",
            "get /metrics",
        ];
        assert_eq!(told, expected);
    }

    fn paths(paths: &[&str]) -> PolicyRule {
        PolicyRule { non_resource_urls: Some(owned(paths)), verbs: owned(&["get"]), ..Default::default() }
    }

    const VERBS: &[&str] = &["get", "list", "*"];
    const GROUPS: &[&str] = &["", "apps", "*"];
    const RESOURCES: &[&str] = &["pods", "pods/log", "nodes", "*/log", "*"];
    const NAMES: &[&str] = &["a", "b"];
    const PATHS: &[&str] = &["/a", "/a/b", "/a/*", "*"];

    fn some(of: &'static [&'static str], least: usize) -> impl Strategy<Value = Vec<String>> {
        vec(select(of).prop_map(str::to_owned), least..=2)
    }

    fn any_rule() -> impl Strategy<Value = PolicyRule> {
        let resources = (some(VERBS, 1), some(GROUPS, 1), some(RESOURCES, 1), some(NAMES, 0));
        let resources = resources.prop_map(|(verbs, groups, resources, names)| PolicyRule {
            verbs,
            api_groups: Some(groups),
            resources: Some(resources),
            resource_names: Some(names),
            non_resource_urls: None,
        });
        let paths = (some(VERBS, 1), some(PATHS, 1));
        let paths = paths.prop_map(|(verbs, paths)| PolicyRule {
            verbs,
            non_resource_urls: Some(paths),
            ..PolicyRule::default()
        });
        prop_oneof![3 => resources, 1 => paths]
    }

    fn any_rules() -> impl Strategy<Value = Vec<PolicyRule>> {
        vec(any_rule(), 0..5)
    }

    /// A request as an authorizer sees it: nothing in it stands for anything else.
    type Asked = (&'static str, Result<(&'static str, &'static str, Option<&'static str>), &'static str>);

    fn requests() -> Vec<Asked> {
        let mut all = Vec::new();
        for verb in ["get", "list", "watch"] {
            for group in ["", "apps", "batch"] {
                for resource in ["pods", "pods/log", "nodes", "nodes/log", "nodes/status", "jobs"] {
                    all.extend([None, Some("a"), Some("b"), Some("c")].map(|name| (verb, Ok((group, resource, name)))));
                }
            }
            all.extend(["/a", "/a/b", "/a/b/c", "/b"].map(|path| (verb, Err(path))));
        }
        all
    }

    /// Whether rules let a request pass, stated without single permissions.
    fn permits(rules: &[PolicyRule], (verb, what): &Asked) -> bool {
        let has = |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|it| it == "*" || it == wanted);
        rules.iter().any(|rule| {
            let verbs = Some(rule.verbs.clone());
            has(&verbs, verb)
                && match what {
                    Ok((group, resource, name)) => {
                        let part = resource.split('/').nth(1).map(|part| format!("*/{part}"));
                        let names = rule.resource_names.clone().unwrap_or_default();
                        has(&rule.api_groups, group)
                            && (has(&rule.resources, resource) || part.is_some_and(|part| has(&rule.resources, &part)))
                            && (names.is_empty() || name.is_some_and(|name| names.iter().any(|it| it == name)))
                    }
                    Err(path) => rule.non_resource_urls.iter().flatten().any(|held| match held.strip_suffix('*') {
                        Some(beginning) => path.starts_with(beginning),
                        None => held == path,
                    }),
                }
        })
    }

    /// A rule that allows one permission and nothing else.
    fn alone(permission: &Permission) -> PolicyRule {
        match permission {
            Permission::Path { path, verb } => PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![path.clone()]),
                ..PolicyRule::default()
            },
            Permission::Resource { group, resource, name, verb } => PolicyRule {
                verbs: vec![verb.clone()],
                api_groups: Some(vec![group.clone()]),
                resources: Some(vec![resource.clone()]),
                resource_names: name.clone().map(|name| vec![name]),
                non_resource_urls: None,
            },
        }
    }

    proptest! {
        /// Who is let grant something gives nobody a request that would be refused himself.
        #[test]
        fn what_is_covered_permits_nothing_more(held in any_rules(), needed in any_rules()) {
            if missing(&held, &needed).is_empty() {
                for request in requests() {
                    prop_assert!(!permits(&needed, &request) || permits(&held, &request), "{request:?}");
                }
            }
        }

        /// What is named is what has to be given, and no more than that.
        #[test]
        fn with_what_is_missing_all_is_covered(held in any_rules(), needed in any_rules(), left_out in any::<Index>()) {
            let lacking: Vec<Permission> = missing(&held, &needed).into_iter().collect();
            let with = |given: &[Permission]| -> Vec<PolicyRule> {
                held.iter().cloned().chain(given.iter().map(alone)).collect()
            };
            prop_assert!(missing(&with(&lacking), &needed).is_empty());
            for permission in &lacking {
                prop_assert!(!covers(&held, &alone(permission)));
            }
            if !lacking.is_empty() {
                let mut fewer = lacking.clone();
                let left = fewer.remove(left_out.index(lacking.len()));
                // Another permission with a star may stand for the one that is left out.
                let stands_in = fewer.iter().any(|other| covers(&[alone(other)], &alone(&left)));
                prop_assert_eq!(missing(&with(&fewer), &needed).is_empty(), stands_in);
            }
        }

        #[test]
        fn more_rights_cover_no_less(held in any_rules(), more in any_rules(), needed in any_rules()) {
            let both: Vec<PolicyRule> = held.iter().chain(&more).cloned().collect();
            prop_assert!(missing(&both, &needed).is_subset(&missing(&held, &needed)));
            prop_assert!(missing(&needed, &needed).is_empty());
        }
    }
}
