//! S11: while pods of two versions run, the roles of their accounts hold what either version was given.
//!
//! What a version needs is read from its install strategy, which is in the cluster for whoever wants to know: its roles, and
//! the accounts they are bound to.

use std::collections::{BTreeMap, BTreeSet};

use kubevirt_api::names::{annotation, label};
use kubevirt_release::{Kind, Strategy};
use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

/// The version that a pod, or a workload's pods, are made of.
const OF_POD: &str = "/metadata/annotations/kubevirt.io~1install-strategy-version";
const OF_PODS: &str = "/spec/template/metadata/annotations/kubevirt.io~1install-strategy-version";
const ACCOUNT: &str = "/spec/serviceAccountName";
const ACCOUNT_OF_PODS: &str = "/spec/template/spec/serviceAccountName";

/// A role: whether it is of the whole cluster, and its name.
type Role = (bool, String);

/// The rules that an account has through each role.
type Needs = BTreeMap<String, Vec<(Role, Vec<Value>)>>;

#[derive(Default)]
pub(super) struct Grants {
    /// What the accounts of each version need.
    releases: BTreeMap<String, Needs>,
    /// Roles that somebody else wrote last. Until the operator has repaired them they are not its word.
    disturbed: BTreeSet<Role>,
}

fn rules(role: &Value) -> Vec<Value> {
    role.get("rules").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The strategy that a ConfigMap holds; none where it cannot be read.
fn strategy_of(map: &Value) -> Option<Strategy> {
    let typed = serde_json::from_value(map.clone()).ok()?;
    Strategy::decode(&typed).ok()
}

/// What a strategy says of roles and of who has them.
fn needs(strategy: &Strategy) -> Needs {
    let of = |kind: Kind| strategy.objects.iter().filter(move |object| object.kind() == kind);
    let mut roles: BTreeMap<Role, Vec<Value>> = BTreeMap::new();
    for (kind, is_wide) in [(Kind::ClusterRole, true), (Kind::Role, false)] {
        roles.extend(of(kind).map(|role| ((is_wide, role.name().to_owned()), rules(role.value()))));
    }
    let mut needs = Needs::new();
    for binding in of(Kind::ClusterRoleBinding).chain(of(Kind::RoleBinding)) {
        let role = (
            text(binding.value(), "/roleRef/kind") == "ClusterRole",
            text(binding.value(), "/roleRef/name").to_owned(),
        );
        let Some(rules) = roles.get(&role) else { continue };
        let subjects = binding.value().get("subjects").and_then(Value::as_array).into_iter().flatten();
        for account in subjects.filter(|subject| text(subject, "/kind") == "ServiceAccount") {
            needs.entry(text(account, "/name").to_owned()).or_default().push((role.clone(), rules.clone()));
        }
    }
    needs
}

/// The role that a commit is about.
fn role_of(sight: &Sight<'_>) -> Option<Role> {
    let name = sight.transition.name().to_owned();
    match &*sight.transition.resource {
        "clusterroles.rbac.authorization.k8s.io" => Some((true, name)),
        "roles.rbac.authorization.k8s.io" if sight.transition.namespace() == NAMESPACE => Some((false, name)),
        _ => None,
    }
}

fn named((is_wide, name): &Role) -> String {
    format!("{} {name}", if *is_wide { "ClusterRole" } else { "Role" })
}

impl Grants {
    /// Takes note of what a version consists of.
    fn learn(&mut self, map: &Value) {
        if map.pointer("/metadata/labels").and_then(|labels| labels.get(label::INSTALL_STRATEGY)).is_none() {
            return;
        }
        let version = map.pointer("/metadata/annotations").and_then(|all| all.get(annotation::STRATEGY_VERSION));
        if let (Some(version), Some(strategy)) = (version.and_then(Value::as_str), strategy_of(map)) {
            self.releases.insert(version.to_owned(), needs(&strategy));
        }
    }

    /// The rules of a role that an account of a version needs.
    fn needed<'a>(&'a self, version: &str, account: &str, role: &'a Role) -> impl Iterator<Item = &'a Value> {
        let all = self.releases.get(version).and_then(|needs| needs.get(account));
        all.into_iter().flatten().filter(move |(of, _)| of == role).flat_map(|(_, rules)| rules)
    }

    /// A role loses nothing that a running pod needs.
    fn keeps(&self, sight: &Sight<'_>, role: &Role) -> Verdict {
        let kept = sight.transition.after().map(rules).unwrap_or_default();
        let before = sight.transition.before().map(rules).unwrap_or_default();
        let lost: Vec<&Value> = before.iter().filter(|rule| !kept.contains(rule)).collect();
        if lost.is_empty() {
            return Verdict::Holds;
        }
        let pods = sight.api.stored_all("", "pods");
        let missed = pods.iter().filter(|pod| text(pod, "/metadata/namespace") == NAMESPACE).find_map(|pod| {
            let version = text(pod, OF_POD);
            let rule = self.needed(version, text(pod, ACCOUNT), role).find(|rule| lost.contains(rule))?;
            let name = text(pod, "/metadata/name");
            Some(format!("{} loses {rule}, which pod {name} of {version} needs", named(role)))
        });
        missed.map_or(Verdict::Holds, Verdict::Broken)
    }

    /// Pods of another version are asked for when their roles hold what they need.
    fn has(&self, sight: &Sight<'_>, workload: &Value) -> Verdict {
        let (version, account) = (text(workload, OF_PODS), text(workload, ACCOUNT_OF_PODS));
        let Some(needs) = self.releases.get(version).and_then(|needs| needs.get(account)) else {
            return Verdict::NotConcerned;
        };
        for (role, needed) in needs.iter().filter(|(role, _)| !self.disturbed.contains(role)) {
            let (plural, namespace) = if role.0 { ("clusterroles", "") } else { ("roles", NAMESPACE) };
            let live = sight.api.stored("rbac.authorization.k8s.io", plural, namespace, &role.1);
            let held = live.map(|role| rules(&role)).unwrap_or_default();
            if let Some(rule) = needed.iter().find(|rule| !held.contains(rule)) {
                let (name, role) = (sight.transition.name(), named(role));
                return Verdict::Broken(format!("{name} goes to {version}, which needs {rule}, and {role} lacks it"));
            }
        }
        Verdict::Holds
    }
}

impl Invariant for Grants {
    fn id(&self) -> &'static str {
        "S11"
    }

    fn states(&self) -> &'static str {
        "a role holds every rule that a pod of either version needs, from before the pod is made until it is gone"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if sight.is_of("configmaps") {
            sight.transition.after().into_iter().for_each(|map| self.learn(map));
            return Verdict::NotConcerned;
        }
        if let Some(role) = role_of(sight) {
            if !sight.by_operator() {
                self.disturbed.insert(role);
                return Verdict::NotConcerned;
            }
            self.disturbed.remove(&role);
            return self.keeps(sight, &role);
        }
        let is_workload = sight.is_of("daemonsets.apps") || sight.is_of("deployments.apps");
        let (Some(before), Some(after)) = (sight.transition.before(), sight.transition.after()) else {
            return Verdict::NotConcerned;
        };
        if !is_workload || !sight.by_operator() || text(before, OF_PODS) == text(after, OF_PODS) {
            return Verdict::NotConcerned;
        }
        self.has(sight, after)
    }
}
