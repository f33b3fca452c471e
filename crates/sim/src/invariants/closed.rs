//! S12: a kind that a newer release brings. Its definition serves long before anybody judges what is stored under it.

use kubevirt_release::gate;
use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};
use crate::releases::{NEW_DEFINITION, lacks_definition};
use crate::world::VERSIONS;

pub(super) struct Closed;

/// A pod of the older virt-api that may still answer.
fn older_answers(sight: &Sight<'_>) -> bool {
    let pods = sight.api.stored_all("", "pods");
    pods.iter().any(|pod| {
        text(pod, "/metadata/namespace") == NAMESPACE
            && text(pod, "/metadata/labels/kubevirt.io") == "virt-api"
            && text(pod, "/metadata/annotations/kubevirt.io~1install-strategy-version") == VERSIONS[0]
    })
}

/// The newer release is not on its way, or not any more.
fn is_given_up(sight: &Sight<'_>) -> bool {
    let is_wanted =
        |cr: Value| text(&cr, "/metadata/deletionTimestamp").is_empty() && text(&cr, "/spec/imageTag") == VERSIONS[1];
    let plans = sight.api.stored_all("upgrade.kubevirt.io", "upgradeplans");
    let is_back = |plan: &Value| {
        matches!(text(plan, "/status/state"), "RollingBack" | "RolledBack" | "Aborted" | "Superseded")
            || matches!(text(plan, "/spec/request"), "Rollback" | "Abort")
    };
    let number =
        |plan: &Value| text(plan, "/metadata/name").rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
    let newest = plans.iter().max_by_key(|plan| number(plan));
    !sight.kubevirt().is_some_and(is_wanted) || newest.is_some_and(|plan| is_back(plan))
}

fn closes(registration: Option<&Value>) -> bool {
    registration.is_some_and(|registration| gate::closed(registration).any(|name| name == NEW_DEFINITION))
}

impl Invariant for Closed {
    fn id(&self) -> &'static str {
        "S12"
    }

    fn states(&self) -> &'static str {
        "a kind that a newer version brings is closed from before it is served until no older virt-api is left or the version is given up"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if !sight.by_operator() {
            return Verdict::NotConcerned;
        }
        let (before, after) = (sight.transition.before(), sight.transition.after());
        if sight.is_of("customresourcedefinitions.apiextensions.k8s.io") && sight.transition.name() == NEW_DEFINITION {
            // Who takes the gate away is somebody else, and it is the operator's to close it again.
            let is_new = before.is_none() && older_answers(sight) && lacks_definition(sight.api);
            if !is_new {
                return Verdict::NotConcerned;
            }
            let group = "admissionregistration.k8s.io";
            let gate = sight.api.stored(group, "validatingwebhookconfigurations", "", gate::NAME);
            return Verdict::of(closes(gate.as_deref()), || format!("{NEW_DEFINITION} is made and nothing closes it"));
        }
        if sight.transition.name() == gate::NAME && closes(before) && !closes(after) {
            return Verdict::of(!older_answers(sight) || is_given_up(sight), || {
                format!("{NEW_DEFINITION} is opened while a virt-api of {} may answer", VERSIONS[0])
            });
        }
        Verdict::NotConcerned
    }
}
