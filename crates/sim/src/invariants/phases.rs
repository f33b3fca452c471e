//! S4: the status of the custom resource tells no future and moves along the declared graph.

use serde_json::Value;

use super::{Invariant, Sight, Verdict, text};

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

impl Invariant for Phases {
    fn id(&self) -> &'static str {
        "S4"
    }

    fn states(&self) -> &'static str {
        "status.observedGeneration is no later than the generation, and the phase moves along its graph"
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
        let phase = |object: &Value| text(object, "/status/phase").to_owned();
        let (was, is) = (sight.transition.before().map(phase).unwrap_or_default(), phase(after));
        Verdict::of(may_follow(&was, &is), || format!("the phase went from {was:?} to {is:?}"))
    }
}
