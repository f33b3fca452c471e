//! S8: what others need goes last.
//!
//! Users' objects are cleaned up by the suite's workloads, and those work with their accounts, roles and Secrets until they
//! have ended.

use kubevirt_release::Kind;

use super::{Invariant, NAMESPACE, Sight, Verdict, is_managed, text};

pub(super) struct Order;

/// The label by which users find the pods of a component.
const COMPONENT: &str = "/metadata/labels/kubevirt.io";
const COMPONENTS: [&str; 3] = ["virt-api", "virt-controller", "virt-handler"];

/// What workloads cannot do without.
const NEEDED: [&str; 6] = [
    "serviceaccounts",
    "secrets",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

fn names(sight: &Sight<'_>, group: &str, plural: &str, is_one: impl Fn(&serde_json::Value) -> bool) -> Vec<String> {
    let all = sight.api.stored_all(group, plural);
    all.iter().filter(|object| is_one(object)).map(|object| text(object, "/metadata/name").to_owned()).collect()
}

impl Invariant for Order {
    fn id(&self) -> &'static str {
        "S8"
    }

    fn states(&self) -> &'static str {
        "an uninstallation takes definitions before workloads, and accounts, roles and Secrets after their pods"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        let Some(before) = sight.transition.before() else { return Verdict::NotConcerned };
        let is_wanted = || sight.kubevirt().is_some_and(|cr| text(&cr, "/metadata/deletionTimestamp").is_empty());
        if !sight.by_operator() || !super::deletions::begins(before, sight.transition.after()) || is_wanted() {
            return Verdict::NotConcerned;
        }
        let resource = &*sight.transition.resource;
        let (left, what) = if matches!(resource, "deployments.apps" | "daemonsets.apps") {
            let kind = Kind::CustomResourceDefinition;
            (names(sight, kind.group(), kind.plural(), is_managed), "definitions")
        } else if NEEDED.contains(&resource) {
            let is_ours = |pod: &serde_json::Value| {
                text(pod, "/metadata/namespace") == NAMESPACE && COMPONENTS.contains(&text(pod, COMPONENT))
            };
            (names(sight, "", "pods", is_ours), "pods")
        } else {
            return Verdict::NotConcerned;
        };
        Verdict::of(left.is_empty(), || {
            format!("{resource} {} goes before these {what}: {}", sight.transition.name(), left.join(", "))
        })
    }
}
