//! S4: the status of the custom resource tells no future, claims nothing that is not so, and moves along the declared
//! graph.

use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

pub(super) struct Phases;

/// Whether a phase may follow another. An installed suite that is upgraded or repaired stays Deployed.
fn may_follow(before: &str, after: &str) -> bool {
    before == after
        || matches!(
            (before, after),
            ("", _)
                | ("Deploying", "Deployed" | "Deleting" | "Deleted")
                | ("Deployed", "Deleting" | "Deleted")
                | ("Deleting", "Deleted")
        )
}

/// Whether the status says that the version is rolled out.
fn claims_done(cr: &Value) -> bool {
    let conditions = cr.pointer("/status/conditions").and_then(Value::as_array);
    let is = |name: &str, status: &str| {
        let mut all = conditions.into_iter().flatten();
        all.any(|condition| condition["type"] == name && condition["status"] == status)
    };
    text(cr, "/status/phase") == "Deployed" && is("Available", "True") && is("Progressing", "False")
}

/// Workloads of the suite that are missing or not rolled out.
fn unfinished(sight: &Sight<'_>) -> Vec<String> {
    let number = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let wanted = [("deployments", "virt-api"), ("deployments", "virt-controller"), ("daemonsets", "virt-handler")];
    let mut lines = Vec::new();
    for (plural, name) in wanted {
        let Some(workload) = sight.api.stored("apps", plural, NAMESPACE, name) else {
            lines.push(format!("{name} does not exist"));
            continue;
        };
        let (wanted, updated, ready) = if plural == "deployments" {
            ("/spec/replicas", "/status/updatedReplicas", "/status/readyReplicas")
        } else {
            ("/status/desiredNumberScheduled", "/status/updatedNumberScheduled", "/status/numberReady")
        };
        let wanted = number(&workload, wanted);
        if number(&workload, "/status/observedGeneration") < number(&workload, "/metadata/generation") {
            lines.push(format!("{name} has just been changed"));
        } else if number(&workload, updated) < wanted || number(&workload, ready) < wanted {
            lines.push(format!("{name} is not rolled out"));
        }
    }
    lines
}

impl Invariant for Phases {
    fn id(&self) -> &'static str {
        "S4"
    }

    fn states(&self) -> &'static str {
        "status.observedGeneration is no later than the generation, nothing is told done that is not, and the phase moves along its graph"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if !sight.is_of("kubevirts.kubevirt.io") {
            return Verdict::NotConcerned;
        }
        let Some(after) = sight.transition.after() else { return Verdict::NotConcerned };
        let number = |pointer: &str| after.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let (generation, observed) = (number("/metadata/generation"), number("/status/observedGeneration"));
        if observed > generation {
            return Verdict::Broken(format!("observedGeneration {observed} is ahead of generation {generation}"));
        }
        if sight.by_operator() && claims_done(after) && !sight.transition.before().is_some_and(claims_done) {
            let unfinished = unfinished(sight);
            if !unfinished.is_empty() {
                return Verdict::Broken(format!("the status says that all is done: {}", unfinished.join(", ")));
            }
        }
        let phase = |object: &Value| text(object, "/status/phase").to_owned();
        let (was, is) = (sight.transition.before().map(phase).unwrap_or_default(), phase(after));
        Verdict::of(may_follow(&was, &is), || format!("the phase went from {was:?} to {is:?}"))
    }
}
