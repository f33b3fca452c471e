//! S7: only who holds the lease writes, and nobody takes it from a holder whose time has not run out.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

/// Remembers when the holder last renewed the lease, in true time: the stamp inside it is of the holder's clock.
#[derive(Default)]
pub(super) struct OnlyTheLeader(Option<Timestamp>);

/// The Lease's name; components of the suite have others.
const NAME: &str = "virt-operator";

/// The lease's length when it does not say.
const LEASE: u64 = 15;

const HOLDER: &str = "/spec/holderIdentity";

/// When a lease that was renewed then runs out.
fn ends(lease: &Value, renewed: Timestamp) -> Option<Timestamp> {
    let length = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(LEASE);
    renewed.checked_add(Duration::from_secs(length)).ok()
}

impl Invariant for OnlyTheLeader {
    fn id(&self) -> &'static str {
        "S7"
    }

    fn states(&self) -> &'static str {
        "only the pod that holds the lease at that instant writes, and none takes it from a living holder"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if sight.is_of("leases.coordination.k8s.io") && sight.transition.namespace() == NAMESPACE {
            if sight.transition.name() != NAME {
                return Verdict::NotConcerned;
            }
            let renewed = self.0.replace(sight.now);
            let (Some(before), Some(after)) = (sight.transition.before(), sight.transition.after()) else {
                return Verdict::NotConcerned;
            };
            let (old, new) = (text(before, HOLDER), text(after, HOLDER));
            let until = renewed.and_then(|renewed| ends(before, renewed));
            let is_living = !old.is_empty() && until.is_some_and(|until| sight.now < until);
            // Who gives the lease up names nobody.
            return Verdict::of(old == new || new.is_empty() || !is_living, || {
                format!("{new} took the lease from {old}, whose time had not run out")
            });
        }
        let Some(writer) = sight.writer.filter(|writer| writer.is_operator()) else { return Verdict::NotConcerned };
        let pod = writer.pod.as_deref().unwrap_or("a process without a pod");
        let what = || format!("{pod} wrote {} {}", sight.transition.resource, sight.transition.name());
        let Some(lease) = sight.api.stored("coordination.k8s.io", "leases", NAMESPACE, NAME) else {
            return Verdict::Broken(format!("{} while there is no lease", what()));
        };
        let holder = text(&lease, HOLDER);
        if holder != pod {
            return Verdict::Broken(format!("{} while {holder:?} holds the lease", what()));
        }
        let until = self.0.and_then(|renewed| ends(&lease, renewed));
        Verdict::of(until.is_none_or(|until| sight.now <= until), || {
            format!("{} at {}, after its lease had ended", what(), sight.now)
        })
    }
}
