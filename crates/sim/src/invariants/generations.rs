//! S3: what is applied never goes back: neither the generation an object was written for, nor that of the lease.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Invariant, Sight, Verdict, text};

/// The highest generation seen, by uid of the object: one that is made anew begins anew.
#[derive(Default)]
pub(super) struct Generations(BTreeMap<String, i64>);

const APPLIED: &str = "/metadata/annotations/kubevirt.io~1generation";

impl Invariant for Generations {
    fn id(&self) -> &'static str {
        "S3"
    }

    fn states(&self) -> &'static str {
        "the generation an object was applied for, and the lease's, never decrease"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if !sight.by_operator() {
            return Verdict::NotConcerned;
        }
        let Some(after) = sight.transition.after() else { return Verdict::NotConcerned };
        let generation = if sight.is_of("leases.coordination.k8s.io") {
            after.pointer("/spec/leaseTransitions").and_then(Value::as_i64)
        } else {
            text(after, APPLIED).parse().ok()
        };
        let Some(generation) = generation else { return Verdict::NotConcerned };
        // A new custom resource counts from one again.
        let cr = sight.kubevirt().map(|cr| text(&cr, "/metadata/uid").to_owned()).unwrap_or_default();
        let key = format!(
            "{} {}",
            text(after, "/metadata/uid"),
            if sight.is_of("leases.coordination.k8s.io") { "" } else { &cr }
        );
        let highest = self.0.entry(key).or_insert(generation);
        let was = *highest;
        *highest = was.max(generation);
        Verdict::of(generation >= was, || {
            format!(
                "{} {} went from generation {was} back to {generation}",
                sight.transition.resource,
                sight.transition.name()
            )
        })
    }
}
