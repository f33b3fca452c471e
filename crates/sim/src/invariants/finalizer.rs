//! S5: the finalizer is there before anything else is, and goes only after everything else went.

use kubevirt_release::Kind;
use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, is_managed, text};

pub(super) struct Finalizer;

const FINALIZER: &str = "kubevirt.io/foregroundDeleteKubeVirt";

fn has_it(cr: &Value) -> bool {
    let names = cr.pointer("/metadata/finalizers").and_then(Value::as_array);
    names.into_iter().flatten().any(|name| name == FINALIZER)
}

/// What is left of the suite.
fn left(sight: &Sight<'_>) -> Vec<String> {
    let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt);
    let all = kinds.flat_map(|kind| {
        let objects = sight.api.stored_all(kind.group(), kind.plural());
        objects
            .into_iter()
            .filter(|object| is_managed(object))
            .map(move |object| format!("{kind} {}", text(&object, "/metadata/name")))
    });
    all.collect()
}

impl Invariant for Finalizer {
    fn id(&self) -> &'static str {
        "S5"
    }

    fn states(&self) -> &'static str {
        "the finalizer is on the custom resource before anything is created, and goes after everything is gone"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        let (before, after) = (sight.transition.before(), sight.transition.after());
        if sight.is_of("kubevirts.kubevirt.io") {
            let had = before.is_some_and(|cr| has_it(cr) && text(cr, "/metadata/namespace") == NAMESPACE);
            if !had || after.is_some_and(has_it) || !sight.by_operator() {
                return Verdict::NotConcerned;
            }
            let left = left(sight);
            return Verdict::of(left.is_empty(), || {
                format!("the finalizer went while {} objects are left: {}", left.len(), left.join(", "))
            });
        }
        let (None, Some(after)) = (before, after) else { return Verdict::NotConcerned };
        if !sight.by_operator() || !is_managed(after) {
            return Verdict::NotConcerned;
        }
        Verdict::of(sight.kubevirt().is_some_and(|cr| has_it(&cr)), || {
            format!(
                "{} {} was created while no custom resource has the finalizer",
                sight.transition.resource,
                sight.transition.name()
            )
        })
    }
}
