//! What the operator may do: what its code asks of the API server and nothing else, made of the registry of kinds.
//!
//! It need not hold what it grants. The right to give the suite's own roles rules it lacks (`escalate`), and to hand those
//! roles out (`bind`), lets it write the roles of every version, an older one's with a rule this one has dropped too, and
//! spares it the rights of all components together. A test replays recorded requests against these rules.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;
use kubevirt_api::{crds, upgrade};
use serde_json::Value;

use super::NAME;
use crate::certificates;
use crate::config::DeploymentConfig;
use crate::extras::monitoring;
use crate::kinds::{Care, Kind};
use crate::object::Object;
use crate::rbac::{GROUP as RBAC, named, rule};
use crate::render::render;

/// Writing what one does not hold into a role.
const FILL: &[&str] = &["escalate"];
/// Giving somebody a role whose rights one does not hold.
const GIVE: &[&str] = &["bind"];

/// Roles that releases of the existing suite have and this one has not: such a release can be installed by this operator.
const OF_OTHER_RELEASES: &[&str] = &["kubevirt-exportproxy", "kubevirt-synchronization-controller"];

/// A role of every cluster that those releases give to their virt-api.
const GIVEN_BY_OTHER_RELEASES: &str = "system:auth-delegator";

/// Whose client certificates the API server shows to webhooks.
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// What the operator may do everywhere.
pub fn cluster_rules(namespace: &str) -> Vec<PolicyRule> {
    let mut rules = of_kinds(false, namespace);
    rules.extend([
        rule("kubevirt.io", &["kubevirts/status"], &["patch"]),
        // The record of versions in which objects are stored, which nobody else shortens.
        rule("apiextensions.k8s.io", &["customresourcedefinitions/status"], &["patch"]),
        // The history of changes of version is the operator's, how careful they are is the administrator's.
        rule(upgrade::GROUP, &["upgradeplans"], &["list", "watch", "create", "patch", "delete"]),
        rule(upgrade::GROUP, &["upgradeplans/status"], &["patch"]),
        rule(upgrade::GROUP, &["upgradepolicies"], &["list", "watch"]),
        named("", &["configmaps"], &[AUTHENTICATION], &["list", "watch"]),
        // What it may do itself: asked before a change of version, which must not be refused half-way.
        rule("authorization.k8s.io", &["selfsubjectrulesreviews"], &["create"]),
        named(RBAC, &["clusterroles"], &names(&filled(Kind::ClusterRole)), FILL),
        named(RBAC, &["clusterroles"], &names(&given(Kind::ClusterRole)), GIVE),
    ]);
    // Who still has objects of the suite is asked before and during its removal; they are stored anew, unchanged, when their
    // storage version is another one. With what is kept in stock both may be done anyhow.
    let in_stock = |row: &crds::Row| {
        let stocked = Kind::ALL.iter().filter(|kind| kind.care() == Care::Stocks);
        stocked.into_iter().any(|kind| (kind.group(), kind.plural()) == (row.group, row.plural))
    };
    let asked: Vec<&crds::Row> = crds::ROWS.iter().filter(|row| !in_stock(row)).collect();
    let mut groups: Vec<&str> = asked.iter().map(|row| row.group).collect();
    groups.dedup();
    rules.extend(groups.iter().map(|group| {
        let plurals: Vec<&str> = asked.iter().filter(|row| row.group == *group).map(|row| row.plural).collect();
        rule(group, &plurals, &["list", "patch"])
    }));
    rules
}

/// What the operator may do in its own namespace.
pub fn namespace_rules(namespace: &str) -> Vec<PolicyRule> {
    let mut rules = of_kinds(true, namespace);
    rules.extend([
        named(RBAC, &["roles"], &names(&filled(Kind::Role)), FILL),
        named(RBAC, &["roles"], &names(&given(Kind::Role)), GIVE),
        // Where a policy governs a roll-out, the operator says which pods are made anew.
        rule("", &["pods"], &["list", "watch", "delete"]),
        // Whether what the API server is to call is there.
        rule("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
        rule("", &["events"], &["create"]),
        // A new lease has no name yet when it is asked whether it may be made.
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named("coordination.k8s.io", &["leases"], &[NAME], &["get", "list", "watch", "update"]),
    ]);
    rules
}

/// What looking after objects takes, for the kinds of a namespace or of the cluster. Server-side apply makes objects by
/// `patch` and needs `create` beside it, both under the object's name.
fn of_kinds(namespaced: bool, namespace: &str) -> Vec<PolicyRule> {
    const KEEP: &[&str] = &["list", "watch", "create", "patch", "delete"];
    let mut rules: Vec<PolicyRule> = vec![];
    let mut add = |more: PolicyRule| {
        // Kinds of one group that are treated alike share a rule.
        let alike = rules.iter_mut().find(|rule| {
            (&rule.api_groups, &rule.verbs, &rule.resource_names)
                == (&more.api_groups, &more.verbs, &more.resource_names)
        });
        match alike {
            Some(rule) => rule.resources.get_or_insert_default().extend(more.resources.unwrap_or_default()),
            None => rules.push(more),
        }
    };
    let everywhere = |kind: &Kind| matches!(kind.care(), Care::Serves | Care::KeepsAnywhere | Care::KeepsAndSeeks);
    for kind in Kind::ALL.iter().filter(|kind| kind.namespaced() == namespaced || everywhere(kind)) {
        let (group, plural) = (kind.group(), &[kind.plural()]);
        match kind.care() {
            Care::Keeps => add(rule(group, plural, KEEP)),
            Care::KeepsKnown => {
                let secrets: Vec<&str> = certificates::known(namespace).iter().map(|c| c.secret).collect();
                add(rule(group, plural, &["list", "watch"]));
                add(named(group, plural, &secrets, &["get", "create", "patch", "delete"]));
            }
            Care::Labels => add(named(group, plural, &[namespace], &["list", "watch", "patch"])),
            Care::Cleans => add(rule(group, plural, &["get", "list", "watch", "patch"])),
            // In every namespace: one in another is told that it is not followed.
            Care::Serves if !namespaced => add(rule(group, plural, &["list", "watch", "patch"])),
            Care::KeepsAnywhere if !namespaced => add(rule(group, plural, KEEP)),
            // In which namespace the account of Prometheus is.
            Care::KeepsAndSeeks if !namespaced => add(rule(group, plural, &["list", "watch"])),
            Care::KeepsAndSeeks => add(rule(group, plural, &["create", "patch", "delete"])),
            Care::Stocks => {
                add(rule(group, plural, KEEP));
                add(rule(group, plural, &["deletecollection"]));
            }
            Care::Serves | Care::KeepsAnywhere | Care::Leaves => {}
        }
    }
    rules
}

/// The names of the suite's roles of a kind, sorted.
fn filled(kind: Kind) -> Vec<String> {
    let ours = suite().into_iter().filter(|object| object.kind() == kind).map(|object| object.name().to_owned());
    sorted(ours.chain(beside(kind)).chain(OF_OTHER_RELEASES.iter().map(ToString::to_string)))
}

/// The names of the roles of a kind that the suite's bindings give to somebody, sorted.
fn given(kind: Kind) -> Vec<String> {
    let text = |object: &Object, pointer: &str| object.at(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let of_kind = |object: &Object| text(object, "/roleRef/kind").is_some_and(|given| given == kind.name());
    let ours = suite().into_iter().filter(of_kind).filter_map(|binding| text(&binding, "/roleRef/name"));
    let everywhere = (kind == Kind::ClusterRole).then_some(GIVEN_BY_OTHER_RELEASES);
    let others = OF_OTHER_RELEASES.iter().copied().chain(everywhere).map(ToOwned::to_owned);
    sorted(ours.chain(beside(kind)).chain(others))
}

/// The role of a kind that stands beside the version: what Prometheus may look at.
fn beside(kind: Kind) -> Option<String> {
    (kind == Kind::Role).then(|| monitoring::ACCESS.to_owned())
}

/// The objects of this release. Which roles there are depends on nothing that is configured.
fn suite() -> Vec<Object> {
    render(&DeploymentConfig::default()).objects
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<String>>().into_iter().collect()
}

fn names(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}
