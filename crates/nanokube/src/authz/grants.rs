//! Nobody may grant what he does not hold: checks of the `escalate` and `bind` rules on roles and bindings.

use serde_json::Value;

use super::{Attributes, GROUP, Rule, rules_in};
use crate::registry::resource_key;
use crate::status::ApiError;
use crate::store::Name;
use crate::verbs::{Target, metadata_text};

/// Checks a role or binding that is about to be written.
///
/// # Errors
/// 403 with the rules that are missing.
pub(crate) fn check_escalation(target: &Target<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if target.resource.group != GROUP {
        return Ok(());
    }
    let (core, user) = (target.core, &target.context.user);
    let namespace = metadata_text(new, "namespace");
    let name = metadata_text(new, "name");
    let may = |verb: &str, resource: &str, namespace: &str, name: &str| {
        let asked = Attributes { verb, group: GROUP, resource, namespace, name, path: "" };
        core.authz.allows(core, user, &asked).is_ok()
    };
    let granted = match target.resource.plural.as_str() {
        plural @ ("roles" | "clusterroles") => {
            // Asked of the request: one that creates has no name in its path, so that a rule for one name does not help.
            if may("escalate", plural, namespace, &target.path.name)
                || old.is_some_and(|old| old["rules"] == new["rules"])
            {
                return Ok(());
            }
            rules_in(new)
        }
        "rolebindings" | "clusterrolebindings" => {
            let same = |old: &Value| old["roleRef"] == new["roleRef"] && old["subjects"] == new["subjects"];
            if old.is_some_and(same) {
                return Ok(());
            }
            let role = new["roleRef"]["name"].as_str().unwrap_or_default();
            let local = new["roleRef"]["kind"] == "Role";
            let plural = if local { "roles" } else { "clusterroles" };
            if may("bind", plural, namespace, role) {
                return Ok(());
            }
            let home = if local { namespace } else { "" };
            let found = core.store.get(&resource_key(GROUP, plural), &Name::new(home, role));
            let about = crate::status::About { group: GROUP, what: plural, name: role };
            rules_in(&found.ok_or_else(|| ApiError::not_found(about))?.value)
        }
        _ => return Ok(()),
    };
    let held = core.authz.rules_of(core, user, namespace);
    let missing: Vec<&Rule> = granted.iter().filter(|rule| !covered(rule, &held)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups = user.groups.iter().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(" ");
    let rules: Vec<String> = missing.iter().map(|rule| shown(rule)).collect();
    let why = format!(
        "user \"{}\" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        rules.join("\n")
    );
    Err(ApiError::forbidden(target.about(name), &why))
}

/// Whether every single permission of a rule is held.
fn covered(rule: &Rule, held: &[Rule]) -> bool {
    let any_name = [String::new()];
    let names: &[String] = if rule.names.is_empty() { &any_name } else { &rule.names };
    let contains = |list: &[String], wanted: &str| list.iter().any(|entry| entry == "*" || entry == wanted);
    rule.verbs.iter().all(|verb| {
        let paths = rule.paths.iter().all(|path| {
            held.iter().any(|other| {
                let by_prefix = |entry: &String| {
                    entry == path || entry.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
                };
                contains(&other.verbs, verb) && other.paths.iter().any(by_prefix)
            })
        });
        let resources = rule.groups.iter().all(|group| {
            rule.resources.iter().all(|resource| {
                names.iter().all(|name| {
                    held.iter().any(|other| {
                        let named = other.names.is_empty() || (!name.is_empty() && other.names.contains(name));
                        let sub = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
                        let matches = contains(&other.resources, resource)
                            || sub.is_some_and(|sub| other.resources.contains(&sub));
                        contains(&other.verbs, verb) && contains(&other.groups, group) && matches && named
                    })
                })
            })
        });
        paths && resources
    })
}

fn shown(rule: &Rule) -> String {
    let list = |values: &[String]| values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(" ");
    let mut parts = Vec::new();
    for (label, values) in [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("NonResourceURLs", &rule.paths),
        ("Verbs", &rule.verbs),
    ] {
        if !values.is_empty() {
            parts.push(format!("{label}:[{}]", list(values)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
