//! Whether a workload has rolled out, and if not, why.

use kubevirt_release::ObjectKey;

use crate::input::{Pod, Workload};
use crate::reason::Reason;

/// How many pods a report names per workload: enough to start looking, short enough for a condition's message on a
/// cluster of thousands of nodes.
const NAMED_PODS: usize = 3;

/// What keeps a workload from being rolled out to `id`; empty when every pod it should have is new and ready and no
/// other pod of it runs. The workload's own counts and the pods come from separate watches, so both must agree.
pub(crate) fn missing(key: &ObjectKey, workload: &Workload, id: &str) -> Vec<Reason> {
    let Workload { kind, generation, observed_generation, wanted, updated, ready, total, pods } = workload;
    if observed_generation < generation {
        return vec![Reason::NotObserved { object: key.clone() }];
    }
    let mut reasons = Vec::new();
    if updated < wanted {
        reasons.push(Reason::NotUpdated { object: key.clone(), kind: *kind, updated: *updated, wanted: *wanted });
    } else if ready < wanted || total < wanted {
        reasons.push(Reason::NotReady { object: key.clone(), kind: *kind, ready: *ready, wanted: *wanted });
    }
    let is_new = |pod: &&Pod| pod.id.as_deref() == Some(id);
    let unready = pods.iter().filter(is_new).filter(|pod| !pod.ready && !pod.deleting);
    reasons.extend(unready.take(NAMED_PODS).map(|pod| Reason::PodNotReady {
        pod: pod.name.clone(),
        why: pod.not_ready.clone().unwrap_or_else(|| "no reason reported".to_owned()),
    }));
    let old = pods.iter().filter(|pod| !is_new(pod));
    reasons
        .extend(old.take(NAMED_PODS).map(|pod| Reason::OldPodRuns { pod: pod.name.clone(), deleting: pod.deleting }));
    reasons
}
