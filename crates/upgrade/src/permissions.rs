//! Whether the operator may write the roles and bindings of a version (pure), as the API server asks: nobody grants what he
//! does not hold, unless he may `escalate` that role, or `bind` it. Said beforehand, because a refusal comes half-way.
//!
//! It errs on the side of going on: where anything is not known, or was written before, nothing is said.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use kubevirt_release::rbac::{GROUP, covers, in_words, missing, named};
use kubevirt_release::{Kind, ObjectKey};
use serde::Deserialize;
use serde_json::Value;

use crate::preflight::Finding;

/// An object as it would be written, with what is live under its key.
pub type Written<'a> = (&'a ObjectKey, &'a Value, Option<&'a Value>);

/// The roles and bindings that the server would refuse to whoever holds `held` in a namespace. What he holds in others is not
/// known, so of them nothing is said.
pub fn refused(objects: &[Written<'_>], namespace: &str, held: &[PolicyRule]) -> Vec<Finding> {
    let by_key: BTreeMap<&ObjectKey, (&Value, Option<&Value>)> =
        objects.iter().map(|(key, new, live)| (*key, (*new, *live))).collect();
    let is_asked = |key: &ObjectKey| key.namespace.as_deref().is_none_or(|of| of == namespace);
    let found = objects.iter().filter(|(key, ..)| is_asked(key)).filter_map(|(key, new, live)| {
        let (verb, role, rules) = match key.kind {
            Kind::ClusterRole | Kind::Role => ("escalate", (*key).clone(), to_fill(new, *live)?),
            Kind::ClusterRoleBinding | Kind::RoleBinding => {
                let role = to_give(key, new, *live)?;
                let rules = rules_of(by_key.get(&role)?.0)?;
                ("bind", role, rules)
            }
            _ => return None,
        };
        if covers(held, &named(GROUP, &[role.kind.plural()], &[&role.name], &[verb])) {
            return None;
        }
        let lacking = in_words(&missing(held, &rules));
        (!lacking.is_empty()).then(|| Finding::PermissionMissing {
            object: key.to_string(),
            unless: format!("{verb} {} {}", role.kind.plural(), role.name),
            rules: lacking,
        })
    });
    found.collect()
}

/// The rules that a role is to get; none when it has them all already: then somebody was allowed to write them.
fn to_fill(new: &Value, live: Option<&Value>) -> Option<Vec<PolicyRule>> {
    let rules = rules_of(new)?;
    let has = live.and_then(rules_of).unwrap_or_default();
    rules.iter().any(|rule| !has.contains(rule)).then_some(rules)
}

/// The role that a binding is to give; none when it gives it to the same accounts already.
fn to_give(key: &ObjectKey, new: &Value, live: Option<&Value>) -> Option<ObjectKey> {
    let (role, accounts) = given(new)?;
    if live.and_then(given).is_some_and(|has| has == (role.clone(), accounts)) {
        return None;
    }
    let RoleRef { api_group: _, kind, name } = &role;
    match kind.as_str() {
        "ClusterRole" => Some(ObjectKey::new(Kind::ClusterRole, None, name)),
        "Role" => Some(ObjectKey::new(Kind::Role, key.namespace.as_deref(), name)),
        _ => None,
    }
}

/// Which role a binding gives to whom, with what is left out and what the server fills in alike. None: it cannot be read.
fn given(binding: &Value) -> Option<(RoleRef, Vec<Subject>)> {
    let text = |field: &str| Some(binding.get("roleRef")?.get(field)?.as_str()?.to_owned());
    let role = RoleRef { api_group: Some(GROUP.to_owned()), kind: text("kind")?, name: text("name")? };
    let subjects = binding.get("subjects").filter(|subjects| !subjects.is_null());
    let mut subjects = subjects.map_or(Some(Vec::new()), |of| Vec::<Subject>::deserialize(of).ok())?;
    for Subject { api_group, kind, name: _, namespace } in &mut subjects {
        let default = if kind == "ServiceAccount" { "" } else { GROUP };
        *api_group = Some(api_group.take().filter(|group| !group.is_empty()).unwrap_or_else(|| default.to_owned()));
        *namespace = namespace.take().filter(|namespace| !namespace.is_empty());
    }
    Some((role, subjects))
}

/// The rules of a role, with what is left out and what is empty alike. None: they cannot be read.
fn rules_of(role: &Value) -> Option<Vec<PolicyRule>> {
    let rules = role.get("rules").filter(|rules| !rules.is_null());
    let mut rules = rules.map_or(Some(Vec::new()), |rules| Vec::<PolicyRule>::deserialize(rules).ok())?;
    for PolicyRule { api_groups, non_resource_urls, resource_names, resources, verbs: _ } in &mut rules {
        for list in [api_groups, non_resource_urls, resource_names, resources] {
            *list = list.take().filter(|list| !list.is_empty());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use kubevirt_release::rbac::rule;
    use serde_json::json;

    use super::*;

    fn key(kind: Kind) -> ObjectKey {
        ObjectKey::new(kind, kind.namespaced().then_some("kubevirt"), "r")
    }

    fn role(verbs: &[&str]) -> Value {
        json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    }

    fn binding(kind: &str, account: &str) -> Value {
        json!({"roleRef": {"kind": kind, "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": account}]})
    }

    fn told(objects: &[(ObjectKey, Value, Option<Value>)], held: &[PolicyRule]) -> Vec<String> {
        let objects: Vec<Written<'_>> = objects.iter().map(|(key, new, live)| (key, new, live.as_ref())).collect();
        refused(&objects, "kubevirt", held).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_role_with_a_right_that_is_not_held_is_refused_unless_it_may_be_filled() {
        for (kind, other) in [(Kind::ClusterRole, Kind::Role), (Kind::Role, Kind::ClusterRole)] {
            let wanted = [(key(kind), role(&["get", "watch"]), Some(role(&["get"])))];
            let gets = rule("", &["pods"], &["get"]);
            let found = told(&wanted, std::slice::from_ref(&gets));
            assert!(found[0].contains(": watch pods in the core group"), "{found:?}");
            let fills = |kind: Kind, name: &str| named(GROUP, &[kind.plural()], &[name], &["escalate"]);
            assert_eq!(told(&wanted, &[gets.clone(), fills(kind, "r")]), [""; 0]);
            assert_eq!(told(&wanted, &[rule(GROUP, &["*"], &["*"])]), [""; 0]);
            assert_eq!(told(&wanted, &[gets.clone(), rule("*", &["*"], &["watch"])]), [""; 0]);
            let no_help = [fills(kind, "other"), fills(other, "r"), named(GROUP, &[kind.plural()], &["r"], &["bind"])];
            for no_help in no_help {
                assert_eq!(told(&wanted, &[gets.clone(), no_help]).len(), 1);
            }
        }
    }

    #[test]
    fn what_is_there_already_and_what_cannot_be_read_is_nobodys_hindrance() {
        let known = key(Kind::ClusterRole);
        let empty =
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": []}]});
        for (new, live) in [
            (role(&["get"]), Some(role(&["get"]))),
            (role(&["get"]), Some(empty)),
            (json!({}), None),
            (json!({"rules": null}), None),
            (json!({"rules": ["x"]}), None),
        ] {
            assert_eq!(told(&[(known.clone(), new.clone(), live)], &[]), [""; 0], "{new}");
        }
        assert_eq!(told(&[(known, role(&["get"]), None)], &[]).len(), 1);
        let elsewhere = ObjectKey::new(Kind::Role, Some("kube-system"), "r");
        assert_eq!(told(&[(elsewhere, role(&["get"]), None)], &[]), [""; 0], "nobody asked about that namespace");
        let workload = ObjectKey::new(Kind::Deployment, Some("kubevirt"), "r");
        assert_eq!(told(&[(workload, role(&["get"]), None)], &[]), [""; 0]);
    }

    #[test]
    fn a_binding_needs_what_its_role_has_unless_it_may_be_given() {
        let pairs = [
            (Kind::ClusterRoleBinding, Kind::ClusterRole),
            (Kind::RoleBinding, Kind::Role),
            (Kind::RoleBinding, Kind::ClusterRole),
        ];
        for (kind, of) in pairs {
            let there = (key(of), role(&["get"]), Some(role(&["get"])));
            let with = |live: Option<Value>| [there.clone(), (key(kind), binding(of.name(), "a"), live)];
            let found = told(&with(None), &[]);
            assert!(found.len() == 1 && found[0].starts_with(&key(kind).to_string()), "{found:?}");
            assert_eq!(told(&with(None), &[rule("", &["pods"], &["get"])]), [""; 0]);
            assert_eq!(told(&with(None), &[named(GROUP, &[of.plural()], &["r"], &["bind"])]), [""; 0]);
            assert_eq!(told(&with(Some(binding(of.name(), "a"))), &[]), [""; 0], "it is given already");
            assert_eq!(told(&with(Some(binding(of.name(), "b"))), &[]).len(), 1);
            let mut as_kept = binding(of.name(), "a");
            as_kept["roleRef"]["apiGroup"] = GROUP.into();
            as_kept["subjects"][0]["apiGroup"] = "".into();
            assert_eq!(told(&with(Some(as_kept)), &[]), [""; 0], "the server filled it in");
            let [_, alone] = with(None);
            assert_eq!(told(&[alone], &[]), [""; 0], "nobody knows what is in the role");
        }
    }
}
