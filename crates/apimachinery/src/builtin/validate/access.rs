//! Rules of roles and of who has them.

use serde_json::Value;

use super::at::{At, Found};
use super::selectors;
use crate::names;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn role(kind: &str, new: &Value, found: &mut Found) {
    let root = At::root(new);
    for rule in root.get("rules").items() {
        let urls = rule.get("nonResourceURLs");
        let (groups, resources) = (rule.get("apiGroups"), rule.get("resources"));
        if rule.get("verbs").empty() {
            rule.get("verbs").required("a rule allows at least one verb", found);
        }
        if !urls.empty() {
            if kind == "Role" {
                urls.invalid("a rule of a namespace cannot be about URLs", found);
            }
            if !groups.empty() || !resources.empty() || !rule.get("resourceNames").empty() {
                urls.invalid("a rule is about resources or about URLs, not both", found);
            }
            continue;
        }
        if groups.empty() {
            groups.required("a rule about resources names at least one API group", found);
        }
        if resources.empty() {
            resources.required("a rule about resources names at least one resource", found);
        }
    }
    let aggregation = root.get("aggregationRule");
    if kind == "ClusterRole" && aggregation.given() {
        let chosen = aggregation.get("clusterRoleSelectors");
        if chosen.empty() {
            chosen.required("at least one selector of cluster roles", found);
        }
        for selector in chosen.items() {
            selectors::label_selector(&selector, found);
        }
    }
}

pub(super) fn binding(kind: &str, new: &Value, found: &mut Found) {
    let root = At::root(new);
    let role = root.get("roleRef");
    if role.get("apiGroup").text() != RBAC {
        role.get("apiGroup").not_supported(&[RBAC], found);
    }
    let allowed: &[&str] = if kind == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !allowed.contains(&role.get("kind").text()) {
        role.get("kind").not_supported(allowed, found);
    }
    role.get("name").must_be_named(names::path_segment, found);
    for subject in root.get("subjects").items() {
        let (name, group) = (subject.get("name"), subject.get("apiGroup"));
        name.must_be_given(found);
        let wanted = match subject.get("kind").text() {
            "ServiceAccount" => {
                name.named(names::dns_subdomain, found);
                ""
            }
            "User" | "Group" => RBAC,
            _ => {
                subject.get("kind").not_supported(&["ServiceAccount", "User", "Group"], found);
                continue;
            }
        };
        if group.text() != wanted {
            group.not_supported(&[wanted], found);
        }
        if wanted.is_empty() && kind == "ClusterRoleBinding" {
            subject.get("namespace").must_be_given(found);
        }
    }
}
