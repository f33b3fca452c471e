//! How long a change of version still takes (pure): from the pods that are still to be replaced and from how long those took
//! that were replaced already. Nothing of it is stored, so that it costs no write; whoever looks computes it anew. It says
//! nothing while nothing was seen: not before the first new pod is ready, nor while the change stands still.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::upgrade::{PlanState, StepProgress, StepStatus, UpgradePlanStatus};
use serde::{Serialize, Serializer};

use crate::input::{Pod, Snapshot, Workload};
use crate::order::{Slot, slot_of};
use crate::policy::Policy;
use crate::rollout;

/// How far the pods of the step under way are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pods that have to be new and ready.
    pub wanted: i64,
    /// Those that are.
    pub done: i64,
}

/// What is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    #[serde(rename = "secondsLeft")]
    pub seconds_left: i64,
    /// When it will be over.
    #[serde(serialize_with = "as_text")]
    pub ends: Timestamp,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.0}"))
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {} s left, until {:.0}", self.seconds_left, self.ends)
    }
}

/// The step under way, if it is one that replaces pods.
pub fn step_with_pods(status: &UpgradePlanStatus) -> Option<&StepStatus> {
    current(status).filter(|step| counts(step))
}

/// How far the pods of a step are, as the snapshot of a pass shows them.
pub fn progress(snapshot: &Snapshot, step: &str, id: &str) -> Progress {
    let of_step = snapshot.workloads.iter().filter(|(key, _)| slot_of(key).code() == step);
    let is_done = |pod: &&Pod| pod.id.as_deref() == Some(id) && pod.ready && !pod.deleting;
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let of = |workload: &Workload| {
        let skipped = rollout::skipped(workload, id, &snapshot.absent_nodes).len();
        Progress {
            wanted: (workload.wanted - count(skipped)).max(0),
            done: count(workload.pods.iter().filter(is_done).count()),
        }
    };
    of_step.map(|(_, workload)| of(workload)).fold(Progress { wanted: 0, done: 0 }, |sum, one| Progress {
        wanted: sum.wanted + one.wanted,
        done: sum.done + one.done,
    })
}

/// When a change will be over. `progress` is that of [`step_with_pods`].
pub fn estimate(
    status: &UpgradePlanStatus,
    progress: Option<Progress>,
    policy: &Policy,
    now: Timestamp,
) -> Option<Estimate> {
    if status.state != PlanState::InProgress {
        return None;
    }
    let current = current(status)?;
    let mut seen: Option<SignedDuration> = None;
    for step in status.steps.iter().filter(|step| step.state == StepProgress::Done && counts(step)) {
        seen = of_finished(step, policy).or(seen);
    }
    let mut left = SignedDuration::ZERO;
    if counts(current) {
        let progress = progress?;
        seen = of_current(current, progress, policy, now).or(seen);
        left += rest(current, progress, policy, seen?)?;
    }
    let later = status.steps.iter().filter(|step| step.number > current.number && step.state != StepProgress::Done);
    for step in later.filter(|step| counts(step)) {
        let all = Progress { wanted: step.pods.into(), done: 0 };
        left += rest(step, all, policy, seen?)?;
    }
    // Nobody knows more than seconds.
    let left = SignedDuration::from_secs(left.as_secs());
    Some(Estimate { seconds_left: left.as_secs(), ends: now.checked_add(left).ok()? })
}

/// The first step that is not over.
fn current(status: &UpgradePlanStatus) -> Option<&StepStatus> {
    status.steps.iter().find(|step| step.state != StepProgress::Done)
}

/// What only brings images is over when the slowest node is, of which the others say nothing.
fn counts(step: &StepStatus) -> bool {
    step.pods > 0 && step.name != Slot::Images.code()
}

/// How many pods of a step are replaced at once after the first.
fn width(step: &StepStatus, policy: &Policy) -> i64 {
    if step.name == Slot::Handler.code() { policy.wave.of(step.pods.into()) } else { 1 }
}

/// What the policy has people wait for between so many of the first pods of a step and the end.
fn pauses(step: &StepStatus, waves: i64, is_proven: bool, policy: &Policy) -> SignedDuration {
    if step.name != Slot::Handler.code() || waves <= 0 {
        return SignedDuration::ZERO;
    }
    let pauses = policy.pause.saturating_mul(i32::try_from(waves).unwrap_or(i32::MAX));
    if is_proven { pauses } else { pauses.saturating_add(policy.soak) }
}

/// How long a wave of a finished step took, the pauses that the policy asked for left out.
fn of_finished(step: &StepStatus, policy: &Policy) -> Option<SignedDuration> {
    let took = step.finished.as_ref()?.0.duration_since(step.started.as_ref()?.0);
    let pods: i64 = step.pods.into();
    let after_the_first = waves(pods - 1, width(step, policy));
    per_wave(took.saturating_sub(pauses(step, after_the_first, false, policy)), pods, width(step, policy))
}

/// How long a wave takes of the step under way, as far as it has come.
fn of_current(step: &StepStatus, progress: Progress, policy: &Policy, now: Timestamp) -> Option<SignedDuration> {
    let took = now.duration_since(step.started.as_ref()?.0);
    let width = width(step, policy);
    let begun = waves(progress.done - 1, width);
    per_wave(took.saturating_sub(pauses(step, begun, begun == 0, policy)), progress.done, width)
}

/// The time for a wave, when the first pod and so many others in waves took a time together.
fn per_wave(took: SignedDuration, pods: i64, width: i64) -> Option<SignedDuration> {
    if pods <= 0 {
        return None;
    }
    // The first pod is a wave of its own; of the last wave that has begun, the part that is over counts.
    let parts = i128::from(width.saturating_add(pods - 1));
    let millis = took.as_millis().max(0).saturating_mul(i128::from(width)) / parts;
    Some(SignedDuration::from_millis(i64::try_from(millis).ok()?))
}

/// How long what is left of a step takes.
fn rest(step: &StepStatus, progress: Progress, policy: &Policy, wave: SignedDuration) -> Option<SignedDuration> {
    let Progress { wanted, done } = progress;
    let left = (wanted - done).max(0);
    if left == 0 {
        return Some(SignedDuration::ZERO);
    }
    let (width, is_begun) = (width(step, policy), done > 0);
    let after_the_first = waves(if is_begun { left } else { left - 1 }, width);
    let all = after_the_first + i64::from(!is_begun);
    let replacing = wave.checked_mul(i32::try_from(all).ok()?)?;
    let is_proven = waves(done - 1, width) > 0;
    replacing.checked_add(pauses(step, after_the_first, is_proven, policy))
}

/// In how many waves so many pods are replaced.
fn waves(pods: i64, width: i64) -> i64 {
    let pods = pods.max(0);
    pods / width + i64::from(pods % width > 0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Share;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn step(number: u32, name: &str, pods: u32, began: Option<i64>, ended: Option<i64>) -> StepStatus {
        let state = match (began, ended) {
            (_, Some(_)) => StepProgress::Done,
            (Some(_), None) => StepProgress::InProgress,
            (None, None) => StepProgress::Pending,
        };
        let time = |second: Option<i64>| second.map(|second| Time(at(second)));
        let (started, finished) = (time(began), time(ended));
        StepStatus { number, name: name.to_owned(), state, started, finished, pods, ..StepStatus::default() }
    }

    fn status(steps: Vec<StepStatus>) -> UpgradePlanStatus {
        UpgradePlanStatus { steps, ..UpgradePlanStatus::default() }
    }

    /// Definitions are done, virt-handler is replaced on so many nodes since the moment 10, the others follow.
    fn under_way(nodes: u32) -> UpgradePlanStatus {
        status(vec![
            step(1, "crds", 0, Some(0), Some(10)),
            step(2, "virt-handler", nodes, Some(10), None),
            step(3, "virt-controller", 2, None, None),
            step(4, "virt-api", 2, None, None),
            step(5, "prune", 0, None, None),
        ])
    }

    fn left(status: &UpgradePlanStatus, done: i64, policy: &Policy, now: i64) -> Option<i64> {
        let wanted = step_with_pods(status).map_or(0, |step| step.pods.into());
        estimate(status, Some(Progress { wanted, done }), policy, at(now)).map(|found| {
            assert_eq!(found.ends, at(now + found.seconds_left));
            found.seconds_left
        })
    }

    #[test]
    fn nothing_is_said_before_anything_was_seen_and_while_nothing_moves() {
        let policy = Policy::default();
        assert_eq!(left(&under_way(21), 0, &policy, 25), None);
        assert!(left(&under_way(21), 1, &policy, 25).is_some());
        let begins = status(vec![step(1, "crds", 0, Some(0), None), step(2, "virt-handler", 3, None, None)]);
        assert_eq!(estimate(&begins, None, &policy, at(5)), None);
        let images = status(vec![step(1, "images", 3, Some(0), None), step(2, "virt-handler", 3, None, None)]);
        assert_eq!((step_with_pods(&images), estimate(&images, None, &policy, at(5))), (None, None));
        for state in [PlanState::Paused, PlanState::Blocked, PlanState::RollingBack, PlanState::Succeeded] {
            let still = UpgradePlanStatus { state, ..under_way(21) };
            assert_eq!(left(&still, 5, &policy, 25), None, "{state:?}");
        }
    }

    /// Twenty nodes after the first, two percent more than a tenth at once: three. Each wave takes fifteen seconds.
    #[test]
    fn waves_that_are_left_take_as_long_as_those_that_were_seen() {
        let policy = Policy::default();
        let others = 4 * 15;
        assert_eq!(left(&under_way(21), 1, &policy, 25), Some(7 * 15 + others), "after the first");
        assert_eq!(left(&under_way(21), 10, &policy, 10 + 4 * 15), Some(4 * 15 + others), "after three waves");
        assert_eq!(
            left(&under_way(21), 21, &policy, 10 + 8 * 15),
            Some(62),
            "only the others: four times 8 * 15 * 3 / 23"
        );
    }

    #[test]
    fn what_a_finished_step_took_is_expected_of_those_that_follow() {
        let mut status = under_way(3);
        status.steps[1] = step(2, "virt-handler", 3, Some(10), Some(40));
        status.steps[2].state = StepProgress::InProgress;
        status.steps[2].started = Some(Time(at(40)));
        let policy = Policy::default();
        assert_eq!(left(&status, 0, &policy, 41), Some(4 * 10), "nothing of its own was seen yet");
        assert_eq!(left(&status, 1, &policy, 46), Some(3 * 6), "its own are quicker");
        for done in 2..=4 {
            status.steps[done - 1] = step(u32::try_from(done).expect("few"), "virt-api", 2, Some(40), Some(50));
        }
        assert_eq!(left(&status, 0, &policy, 60), Some(0), "no pod is left to replace");
    }

    #[test]
    fn the_pauses_of_the_policy_are_counted_once() {
        let policy = Policy {
            soak: SignedDuration::from_secs(100),
            pause: SignedDuration::from_secs(50),
            wave: Share::Nodes(2),
            ..Policy::default()
        };
        let handler = |nodes: u32| status(vec![step(1, "virt-handler", nodes, Some(0), None)]);
        // The first took 10 s; four others in two waves, a soak, two pauses.
        assert_eq!(left(&handler(5), 1, &policy, 10), Some(2 * 10 + 100 + 2 * 50));
        // The soak, a pause and two waves are behind us.
        assert_eq!(left(&handler(5), 3, &policy, 10 + 100 + 50 + 10), Some(10 + 50));
    }

    #[test]
    fn a_snapshot_tells_what_is_new_and_ready() {
        use std::collections::BTreeMap;

        use kubevirt_release::{Kind, ObjectKey};

        use crate::input::{Absence, WorkloadKind};

        let pod = |id: &str, ready: bool, node: &str| Pod {
            name: node.into(),
            id: Some(id.into()),
            revision: None,
            created: None,
            ready,
            not_ready: None,
            deleting: false,
            node: Some(node.into()),
            since: None,
            trouble: None,
            prepared: false,
        };
        let pods = vec![pod("new", true, "a"), pod("new", false, "b"), pod("old", true, "c"), pod("old", false, "d")];
        let workload = Workload {
            kind: WorkloadKind::DaemonSet,
            generation: 1,
            observed_generation: 1,
            wanted: 4,
            updated: 2,
            ready: 2,
            total: 4,
            pods,
        };
        let key = ObjectKey::new(Kind::DaemonSet, Some("kubevirt"), "virt-handler");
        let snapshot = Snapshot {
            workloads: BTreeMap::from([(key, workload)]),
            absent_nodes: BTreeMap::from([("d".to_owned(), Absence::Unreachable)]),
            ..Snapshot::default()
        };
        assert_eq!(progress(&snapshot, "virt-handler", "new"), Progress { wanted: 3, done: 1 });
        assert_eq!(progress(&snapshot, "virt-api", "new"), Progress { wanted: 0, done: 0 });
    }

    proptest! {
        /// Where pods take equally long, the end that is expected stays where it is, within a wave of each kind.
        #[test]
        fn an_even_pace_is_foreseen(nodes in 1_u32..400, wave_seconds in 1_i64..120, waves_done in 0_i64..12) {
            let policy = Policy::default();
            let width = policy.wave.of(nodes.into());
            let total = 1 + waves(i64::from(nodes) - 1, width);
            let waves_done = waves_done.min(total - 1);
            let done = (1 + waves_done * width).min(nodes.into());
            let now = (1 + waves_done) * wave_seconds;
            let status = status(vec![step(1, "virt-handler", nodes, Some(0), None)]);
            let expected = now + left(&status, done, &policy, now).expect("something was seen");
            let actual = total * wave_seconds;
            prop_assert!((expected - actual).abs() <= wave_seconds + total, "{expected} for {actual}");
        }
    }
}
