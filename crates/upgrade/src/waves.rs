//! How virt-handler goes over the nodes where the policy asks for more than the usual sequence: a chosen first node, a
//! time that it has to last there, waves with pauses. The DaemonSet then waits for its pods to be deleted, and which ones
//! are is decided here, from the pods alone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::input::{Absence, Pod, Workload};
use crate::policy::{Policy, Share};
use crate::reason::Reason;

/// What the DaemonSet does by itself, and what is done for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roll {
    /// It goes over the nodes by itself, so many at a time.
    Rolling(Share),
    /// It waits; these pods are replaced now.
    Still { replace: Vec<String> },
}

/// What is to be done at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    pub roll: Roll,
    /// What is waited for.
    pub reason: Option<Reason>,
    /// When it is over.
    pub due: Option<Timestamp>,
}

impl Wave {
    fn of(roll: Roll) -> Self {
        Self { roll, reason: None, due: None }
    }
}

/// The next step over the nodes for a DaemonSet whose template is already that of `id`.
pub fn wave(
    workload: &Workload,
    id: &str,
    policy: &Policy,
    absent: &BTreeMap<String, Absence>,
    first: &BTreeSet<String>,
    now: Timestamp,
) -> Wave {
    let is_there = |pod: &&Pod| pod.node.as_ref().is_none_or(|node| !absent.contains_key(&**node));
    let pods: Vec<&Pod> = workload.pods.iter().filter(is_there).collect();
    let is_new = |pod: &&&Pod| pod.id.as_deref() == Some(id);
    let mut old: Vec<&Pod> = pods.iter().filter(|pod| !is_new(pod) && !pod.deleting).copied().collect();
    old.sort_by_key(|pod| (pod.node.as_ref().is_none_or(|node| !first.contains(&**node)), &pod.name));
    let new: Vec<&Pod> = pods.iter().filter(|pod| is_new(pod) && !pod.deleting).copied().collect();
    let still = |replace: Vec<String>| Wave::of(Roll::Still { replace });
    if old.is_empty() {
        // What is left finishes as a DaemonSet usually does.
        return Wave::of(Roll::Rolling(Share::Nodes(1)));
    }
    let is_between = pods.iter().any(|pod| pod.deleting)
        || i64::try_from(pods.len()).is_ok_and(|present| present + missing(absent) < workload.wanted);
    if new.is_empty() {
        return still(if is_between { Vec::new() } else { vec![old[0].name.to_string()] });
    }
    let lasted = |pod: &Pod, span| pod.since.filter(|_| pod.ready).and_then(|since| since.checked_add(span).ok());
    let proven_at = new.iter().filter_map(|pod| lasted(pod, policy.soak)).min();
    match proven_at {
        None => return still(Vec::new()),
        Some(at) if at > now => {
            let ready = new.iter().find(|pod| pod.ready).map(|pod| pod.name.to_string()).unwrap_or_default();
            let reason = Reason::Soaking { pod: ready, seconds: policy.soak.as_secs() };
            return Wave { reason: Some(reason), due: Some(at), ..still(Vec::new()) };
        }
        Some(_) => {}
    }
    if policy.pause.is_zero() {
        return Wave::of(Roll::Rolling(policy.wave));
    }
    if is_between || new.iter().any(|pod| !pod.ready) {
        return still(Vec::new());
    }
    let over_at = new.iter().filter_map(|pod| lasted(pod, policy.pause)).max();
    if let Some(at) = over_at.filter(|at| *at > now) {
        let reason = Reason::BetweenWaves { seconds: policy.pause.as_secs() };
        return Wave { reason: Some(reason), due: Some(at), ..still(Vec::new()) };
    }
    // An old pod that is not ready is a node without virt-handler already.
    let unready = old.iter().filter(|pod| !pod.ready).count();
    let room = usize::try_from(policy.wave.of(workload.wanted)).unwrap_or(usize::MAX).saturating_sub(unready);
    let (ready, sick): (Vec<&Pod>, Vec<&Pod>) = old.iter().copied().partition(|pod| pod.ready);
    still(sick.into_iter().chain(ready.into_iter().take(room)).map(|pod| pod.name.to_string()).collect())
}

fn missing(absent: &BTreeMap<String, Absence>) -> i64 {
    i64::try_from(absent.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::input::WorkloadKind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).expect("a time")
    }

    /// One pod per letter: `o` an old one, `n` a new one that is not ready, `N` one that is since the moment 0, `d` an old
    /// one on its way out.
    fn set(pods: &str) -> Workload {
        let pod = |(index, state): (usize, char)| Pod {
            name: format!("pod-{index}").into(),
            id: Some(if matches!(state, 'o' | 'd') { "old" } else { "new" }.into()),
            revision: None,
            created: None,
            ready: state != 'n',
            not_ready: None,
            deleting: state == 'd',
            node: Some(format!("node-{index}").into()),
            since: Some(at(0)),
            trouble: None,
            prepared: false,
        };
        let pods: Vec<Pod> = pods.chars().enumerate().map(pod).collect();
        let count = i64::try_from(pods.len()).expect("a few");
        Workload {
            kind: WorkloadKind::DaemonSet,
            generation: 1,
            observed_generation: 1,
            wanted: count,
            updated: 0,
            ready: count,
            total: count,
            pods,
        }
    }

    fn policy(soak: i64, pause: i64, wave: Share) -> Policy {
        let seconds = SignedDuration::from_secs;
        Policy { soak: seconds(soak), pause: seconds(pause), wave, ..Policy::default() }
    }

    fn step(pods: &str, policy: &Policy, second: i64) -> String {
        let first = BTreeSet::from(["node-2".to_owned()]);
        let Wave { roll, reason, due: _ } = wave(&set(pods), "new", policy, &BTreeMap::new(), &first, at(second));
        let why = reason.map(|reason| format!(" {}", reason.code())).unwrap_or_default();
        match roll {
            Roll::Rolling(share) => format!("rolling {}{why}", share.written()),
            Roll::Still { replace } => format!("[{}]{why}", replace.join(" ")),
        }
    }

    #[test]
    fn the_chosen_node_goes_first_and_lasts_before_others_follow() {
        let policy = policy(60, 0, Share::Percent(10));
        for (pods, second, expected) in [
            ("oooo", 0, "[pod-2]"),
            ("oodo", 1, "[]"),
            ("oono", 2, "[]"),
            ("ooNo", 59, "[] Soaking"),
            ("ooNo", 60, "rolling \"10%\""),
            ("NoNo", 99, "rolling \"10%\""),
            ("NNNN", 99, "rolling 1"),
        ] {
            assert_eq!(step(pods, &policy, second), expected, "{pods} at {second}");
        }
    }

    #[test]
    fn waves_have_a_size_and_a_pause() {
        let policy = policy(0, 30, Share::Nodes(2));
        for (pods, second, expected) in [
            ("oooooo", 0, "[pod-2]"),
            ("ooNooo", 10, "[] BetweenWaves"),
            ("ooNooo", 30, "[pod-0 pod-1]"),
            ("ddNooo", 31, "[]"),
            ("NnNooo", 40, "[]"),
            ("NNNooo", 60, "[pod-3 pod-4]"),
            ("NNNNNN", 60, "rolling 1"),
        ] {
            assert_eq!(step(pods, &policy, second), expected, "{pods} at {second}");
        }
    }

    #[test]
    fn no_wave_is_larger_than_the_policy_says_with_what_is_missing_already() {
        let mut set = set("Nooooo");
        set.pods[1].ready = false;
        let policy = policy(0, 30, Share::Nodes(2));
        let found = wave(&set, "new", &policy, &BTreeMap::new(), &BTreeSet::new(), at(60));
        // The one that is not ready is replaced beside one more.
        assert_eq!(found.roll, Roll::Still { replace: vec!["pod-1".to_owned(), "pod-2".to_owned()] });
    }

    #[test]
    fn a_node_that_is_not_there_is_neither_chosen_nor_waited_for() {
        let policy = policy(0, 30, Share::Nodes(2));
        let absent = BTreeMap::from([("node-2".to_owned(), Absence::Unreachable)]);
        let first = BTreeSet::from(["node-2".to_owned()]);
        let found = wave(&set("ooo"), "new", &policy, &absent, &first, at(0));
        assert_eq!(found.roll, Roll::Still { replace: vec!["pod-0".to_owned()] });
    }
}
