//! Whether a workload has rolled out, and if not, why.

use std::collections::BTreeMap;

use kubevirt_release::ObjectKey;

use crate::input::{Absence, Pod, Workload, WorkloadKind};
use crate::reason::Reason;

/// How many pods a report names per workload: enough to start looking, short enough for a condition's message on a
/// cluster of thousands of nodes.
const NAMED_PODS: usize = 3;

/// What keeps a workload from being rolled out to `id`; empty when every pod it should have is new and ready and no
/// other pod of it runs. The workload's own counts and the pods come from separate watches, so both must agree. Nodes that
/// are not there are not waited for: what is on them is new when they are back.
pub(crate) fn missing(
    key: &ObjectKey,
    workload: &Workload,
    id: &str,
    absent: &BTreeMap<String, Absence>,
) -> Vec<Reason> {
    let Workload { kind, generation, observed_generation, wanted, updated, ready, total, pods } = workload;
    if observed_generation < generation {
        return vec![Reason::NotObserved { object: key.clone() }];
    }
    let skipped = i64::try_from(skipped(workload, id, absent).len()).unwrap_or(i64::MAX);
    let needed = wanted - skipped;
    let mut reasons = Vec::new();
    if *updated < needed {
        reasons.push(Reason::NotUpdated { object: key.clone(), kind: *kind, updated: *updated, wanted: *wanted });
    } else if *ready < needed || *total < needed {
        reasons.push(Reason::NotReady { object: key.clone(), kind: *kind, ready: *ready, wanted: *wanted });
    }
    let is_new = |pod: &&Pod| pod.id.as_deref() == Some(id);
    let waited_for = || pods.iter().filter(|pod| !is_absent(workload, pod, absent));
    let unready = waited_for().filter(is_new).filter(|pod| !pod.ready && !pod.deleting);
    reasons.extend(unready.take(NAMED_PODS).map(|pod| Reason::PodNotReady {
        pod: pod.name.to_string(),
        why: pod.not_ready.as_deref().unwrap_or("no reason reported").to_owned(),
    }));
    let old = waited_for().filter(|pod| !is_new(pod));
    reasons.extend(
        old.take(NAMED_PODS).map(|pod| Reason::OldPodRuns { pod: pod.name.to_string(), deleting: pod.deleting }),
    );
    reasons
}

fn is_absent(workload: &Workload, pod: &Pod, absent: &BTreeMap<String, Absence>) -> bool {
    workload.kind == WorkloadKind::DaemonSet && pod.node.as_ref().is_some_and(|node| absent.contains_key(&**node))
}

/// Whether a pod of another version runs where it counts.
pub(crate) fn runs_old(workload: &Workload, is_old: impl Fn(&Pod) -> bool, absent: &BTreeMap<String, Absence>) -> bool {
    workload.pods.iter().any(|pod| is_old(pod) && !is_absent(workload, pod, absent))
}

/// The nodes on which a DaemonSet is not as it should be and which are not waited for.
pub(crate) fn skipped<'a>(
    workload: &Workload,
    id: &str,
    absent: &'a BTreeMap<String, Absence>,
) -> Vec<(&'a String, Absence)> {
    if workload.kind != WorkloadKind::DaemonSet {
        return Vec::new();
    }
    let is_fine = |pod: &Pod| pod.id.as_deref() == Some(id) && pod.ready && !pod.deleting;
    // A node without a pod counts only as far as pods are missing: the DaemonSet may not be meant for it.
    let mut without = (workload.wanted - workload.total).max(0);
    let mut is_skipped = |node: &&String| {
        let mut here = workload.pods.iter().filter(|pod| pod.node.as_deref() == Some(node.as_str())).peekable();
        if here.peek().is_none() {
            without -= 1;
            return without >= 0;
        }
        !here.any(is_fine)
    };
    absent.iter().filter(|(node, _)| is_skipped(node)).map(|(node, absence)| (node, *absence)).collect()
}
