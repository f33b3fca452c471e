//! How many nodes may be without their agent at once while a DaemonSet rolls: one, until a new pod has proven itself on
//! one node; then a tenth of them; and one again when all are new.

use std::sync::Arc;

use crate::input::{Pod, Workload};

/// A DaemonSet's `maxUnavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One node at a time: before, and as long as nobody knows whether the new pod works.
    Canary,
    /// A tenth of the nodes, as clients that watch an update know it.
    Spread,
}

/// The pace that a DaemonSet should have, given the one it has. `changes` says that its present template is not known
/// to have been ready on every node yet; a repair or a pod that fails is no roll-out, and moves nothing.
pub fn pace(workload: &Workload, has: Pace, changes: bool) -> Pace {
    let Workload { kind: _, generation, observed_generation, wanted, updated, ready: _, total: _, pods } = workload;
    if observed_generation < generation {
        return has;
    }
    let Some(proven) = proven(*updated, pods) else { return has };
    let rolls = changes || updated < wanted || has == Pace::Spread;
    if rolls && proven > 0 && proven < *wanted { Pace::Spread } else { Pace::Canary }
}

/// How many pods of the newest template are ready. `None` while the workload's own count and the pods, which come by
/// separate watches, do not agree.
fn proven(updated: i64, pods: &[Pod]) -> Option<i64> {
    if updated == 0 {
        return Some(0);
    }
    // A pod is made from the newest template there is, so the youngest pod shows which that is.
    let youngest = pods.iter().filter_map(|pod| pod.created.as_ref()).max()?;
    let mut revisions: Vec<&Arc<str>> = pods
        .iter()
        .filter(|pod| pod.created.as_ref() == Some(youngest))
        .filter_map(|pod| pod.revision.as_ref())
        .collect();
    revisions.sort();
    revisions.dedup();
    let is_of = |pod: &&Pod, revision: &Arc<str>| pod.revision.as_ref() == Some(revision) && !pod.deleting;
    let count = |revision: &Arc<str>, also: fn(&Pod) -> bool| {
        i64::try_from(pods.iter().filter(|pod| is_of(pod, revision) && also(pod)).count()).unwrap_or(i64::MAX)
    };
    let mut agreeing = revisions.into_iter().filter(|revision| count(revision, |_| true) == updated);
    match (agreeing.next(), agreeing.next()) {
        (Some(revision), None) => Some(count(revision, |pod| pod.ready)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::WorkloadKind;

    /// A DaemonSet on as many nodes as there are letters: `o` an old pod, `n` a new one that is not ready, `N` one that is.
    fn set(pods: &str) -> Workload {
        let pod = |(index, state): (usize, char)| Pod {
            name: format!("pod-{index}").into(),
            id: None,
            revision: Some(if state == 'o' { "old" } else { "new" }.into()),
            created: Some(format!("2026-01-01T00:00:0{}Z", if state == 'o' { 0 } else { index + 1 }).into()),
            ready: state != 'n',
            not_ready: None,
            deleting: false,
            node: None,
            since: None,
            trouble: None,
            prepared: false,
        };
        let pods: Vec<Pod> = pods.chars().enumerate().map(pod).collect();
        let count = |counts: &dyn Fn(&Pod) -> bool| {
            i64::try_from(pods.iter().filter(|pod| counts(pod)).count()).expect("a few")
        };
        Workload {
            kind: WorkloadKind::DaemonSet,
            generation: 2,
            observed_generation: 2,
            wanted: count(&|_| true),
            updated: count(&|pod| pod.revision.as_deref() == Some("new")),
            ready: count(&|pod| pod.ready),
            total: count(&|_| true),
            pods,
        }
    }

    #[test]
    fn one_then_a_tenth_then_one() {
        use Pace::{Canary, Spread};
        for (pods, has, wanted) in [
            ("ooo", Canary, Canary),
            ("noo", Canary, Canary),
            ("Noo", Canary, Spread),
            ("Nno", Spread, Spread),
            ("NNn", Spread, Spread),
            ("NNN", Spread, Canary),
            ("NNN", Canary, Canary),
        ] {
            assert_eq!(pace(&set(pods), has, true), wanted, "{pods}");
        }
    }

    #[test]
    fn no_new_pod_that_works_any_more_stops_the_spreading() {
        assert_eq!(pace(&set("nno"), Pace::Spread, true), Pace::Canary);
    }

    #[test]
    fn a_pod_that_fails_without_a_change_moves_nothing() {
        assert_eq!(pace(&set("NNn"), Pace::Canary, false), Pace::Canary);
        assert_eq!(pace(&set("NNn"), Pace::Canary, true), Pace::Spread, "the last of a roll-out");
        assert_eq!(pace(&set("NNo"), Pace::Canary, false), Pace::Spread, "an old pod shows a roll-out by itself");
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        for has in [Pace::Canary, Pace::Spread] {
            assert_eq!(pace(&Workload { observed_generation: 1, ..set("Noo") }, has, true), has);
            assert_eq!(pace(&Workload { updated: 2, ..set("Noo") }, has, true), has, "one of the two was not seen yet");
        }
    }

    #[test]
    fn a_node_is_never_more_than_one() {
        assert_eq!(pace(&set("N"), Pace::Canary, true), Pace::Canary);
        assert_eq!(pace(&set(""), Pace::Spread, true), Pace::Canary);
    }
}
