//! S9 and S10: how the version changes. A component gets the new one when those before it have it and are ready, and what
//! the history says of a change moves along a graph whose ends are ends.

use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

/// The order in which users are told that components change, with the resource of each.
const ORDER: [(&str, &str); 3] =
    [("daemonsets", "virt-handler"), ("deployments", "virt-controller"), ("deployments", "virt-api")];

/// The version that a workload's pods, or a pod, are made of.
const OF_PODS: &str = "/spec/template/metadata/annotations/kubevirt.io~1install-strategy-version";
const OF_POD: &str = "/metadata/annotations/kubevirt.io~1install-strategy-version";

pub(super) struct InOrder;

/// What of a component is not at the version and ready yet.
fn missing(sight: &Sight<'_>, plural: &str, component: &str, version: &str) -> Option<String> {
    let Some(workload) = sight.api.stored("apps", plural, NAMESPACE, component) else {
        return Some(format!("{component} does not exist"));
    };
    if text(&workload, OF_PODS) != version {
        return Some(format!("{component} is of {}", text(&workload, OF_PODS)));
    }
    let is_of = |pod: &&nanokube::StoredObject| {
        text(pod, "/metadata/namespace") == NAMESPACE && text(pod, "/metadata/labels/kubevirt.io") == component
    };
    let is_ready = |pod: &Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let pods = sight.api.stored_all("", "pods");
    let pods: Vec<_> = pods.iter().filter(is_of).collect();
    let old = pods.iter().find(|pod| text(pod, OF_POD) != version);
    if let Some(old) = old {
        return Some(format!("pod {} is of {}", text(old, "/metadata/name"), text(old, OF_POD)));
    }
    let is_any_ready = pods.iter().any(|pod| is_ready(pod));
    (!is_any_ready).then(|| format!("no pod of {component} is ready"))
}

impl Invariant for InOrder {
    fn id(&self) -> &'static str {
        "S9"
    }

    fn states(&self) -> &'static str {
        "a newer version reaches virt-handler, virt-controller and virt-api in this order, each when no old pod of those before it is left"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        let resource = sight.transition.resource.strip_suffix(".apps").unwrap_or_default();
        let changed = (resource, sight.transition.name());
        let Some(place) = ORDER.iter().position(|known| *known == changed) else { return Verdict::NotConcerned };
        let (Some(before), Some(after)) = (sight.transition.before(), sight.transition.after()) else {
            return Verdict::NotConcerned;
        };
        let (old, new) = (text(before, OF_PODS), text(after, OF_PODS));
        // Versions of worlds have one digit in each place. The way back goes the other way, in its own order.
        if !sight.by_operator() || old.is_empty() || new <= old {
            return Verdict::NotConcerned;
        }
        let missing = ORDER[..place].iter().find_map(|(plural, component)| missing(sight, plural, component, new));
        Verdict::of(missing.is_none(), || {
            format!("{} goes from {old} to {new} although {}", changed.1, missing.clone().unwrap_or_default())
        })
    }
}

pub(super) struct History;

/// Whether what is told of a change may follow what was told before.
fn may_follow(before: &str, after: &str) -> bool {
    const UNDER_WAY: [&str; 3] = ["InProgress", "Paused", "Blocked"];
    before == after
        || match before {
            "" => after == "InProgress" || after == "Paused" || after == "Blocked" || after == "RollingBack",
            "RollingBack" => matches!(after, "RolledBack" | "Superseded"),
            before if UNDER_WAY.contains(&before) => after != "RolledBack",
            _ => false,
        }
}

impl Invariant for History {
    fn id(&self) -> &'static str {
        "S10"
    }

    fn states(&self) -> &'static str {
        "a recorded change of version moves along its graph: what is over stays over, and nothing is undone that was not being undone"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        // What others write there, an operator of the future among them, is their affair.
        if !sight.is_of("upgradeplans.upgrade.kubevirt.io") || !sight.by_operator() {
            return Verdict::NotConcerned;
        }
        let Some(after) = sight.transition.after() else { return Verdict::NotConcerned };
        let state = |plan: &Value| text(plan, "/status/state").to_owned();
        let (was, is) = (sight.transition.before().map(state).unwrap_or_default(), state(after));
        Verdict::of(may_follow(&was, &is), || format!("{} went from {was:?} to {is:?}", sight.transition.name()))
    }
}
