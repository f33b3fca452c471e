//! S7: only who holds the lease writes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

/// Remembers when the lease was last written, in true time: the stamp inside it is of the holder's clock.
#[derive(Default)]
pub(super) struct OnlyTheLeader(Option<Timestamp>);

/// The lease's length when it does not say.
const LEASE: u64 = 15;

impl Invariant for OnlyTheLeader {
    fn id(&self) -> &'static str {
        "S7"
    }

    fn states(&self) -> &'static str {
        "only the pod that holds the lease at that instant writes"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if sight.is_of("leases.coordination.k8s.io") && sight.transition.namespace() == NAMESPACE {
            self.0 = Some(sight.now);
            return Verdict::NotConcerned;
        }
        let Some(writer) = sight.writer.filter(|writer| writer.is_operator()) else { return Verdict::NotConcerned };
        let pod = writer.pod.as_deref().unwrap_or("a process without a pod");
        let what = || format!("{pod} wrote {} {}", sight.transition.resource, sight.transition.name());
        let Some(lease) = sight.api.stored("coordination.k8s.io", "leases", NAMESPACE, "virt-operator") else {
            return Verdict::Broken(format!("{} while there is no lease", what()));
        };
        let holder = text(&lease, "/spec/holderIdentity");
        if holder != pod {
            return Verdict::Broken(format!("{} while {holder:?} holds the lease", what()));
        }
        let length = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(LEASE);
        let until = self.0.and_then(|renewed| renewed.checked_add(Duration::from_secs(length)).ok());
        Verdict::of(until.is_none_or(|until| sight.now <= until), || {
            format!("{} at {}, after its lease had ended", what(), sight.now)
        })
    }
}
