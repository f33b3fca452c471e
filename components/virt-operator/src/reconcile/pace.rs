//! When progress is told (pure): a status is written to be read, and each write reaches everybody who watches the CR.
//!
//! A step that begins, or is held up by something of another kind than before, is told at once. That one more of five
//! thousand pods is ready is told after a pause, which grows while the step takes. The last state is always told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::kubevirt::KubeVirtStatus;
use kubevirt_upgrade::{Plan, Reason, StepState};

/// The first pause: most steps of a small cluster are over before it is. It doubles, so that minutes of a roll-out take a
/// handful of writes.
const FIRST: SignedDuration = SignedDuration::from_secs(5);

/// The longest pause: who watches an hour of a large roll-out reads a new figure each minute.
const LONGEST: SignedDuration = SignedDuration::from_secs(60);

/// What holds a step up: the step's and the reason's code, and what ails a pod, without its name.
type Wait = (&'static str, &'static str, String);

/// The step of a plan that has none left.
const DONE: usize = 0;

/// What a plan's progress is beside its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// What is being brought about.
    target: String,
    /// The step that is under way.
    step: usize,
    waits: BTreeSet<Wait>,
}

impl Kind {
    pub(super) fn of(plan: &Plan) -> Self {
        let step = plan.steps().iter().find(|step| step.state != StepState::Done).map_or(DONE, |step| step.number);
        let mut waits = BTreeSet::new();
        for step in plan.steps() {
            let StepState::Waiting(reasons) = &step.state else { continue };
            // That a write was not acted upon yet is over in a moment, or told with the next figures.
            let lasts = |reason: &&Reason| !matches!(reason, Reason::After { .. } | Reason::NotObserved { .. });
            for reason in reasons.iter().filter(lasts) {
                let ails = if let Reason::PodNotReady { why, .. } = reason { ailment(why) } else { String::new() };
                waits.insert((step.slot.code(), reason.code(), ails));
            }
        }
        Self { target: plan.target().id.clone(), step, waits }
    }
}

/// `container virt-api: ErrImagePull` of a longer text: what follows names pods, nodes and times.
fn ailment(why: &str) -> String {
    let parts = if why.starts_with("container ") { 2 } else { 1 };
    let short = why.split(": ").take(parts).collect::<Vec<_>>().join(": ");
    short.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// [`Pace`] as the passes share it.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Pace>);

impl Progress {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was told, and when the next figures are due. Only in memory: an operator that begins anew tells once more.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The version that is being brought about.
    target: String,
    last: Option<Timestamp>,
    /// By step, as far as anything was told of it. A busy cluster's pods fall behind and recover, and with them the plan
    /// goes back and forth between its steps; each is news once.
    steps: BTreeMap<usize, Told>,
}

#[derive(Debug, Default)]
struct Told {
    waits: BTreeSet<Wait>,
    pause: SignedDuration,
}

impl Pace {
    /// Whether figures may be told now, or else from when on.
    ///
    /// # Errors
    /// The time from which they may.
    pub(super) fn ask(&self, kind: &Kind, now: Timestamp) -> Result<(), Timestamp> {
        let Some(last) = self.last.filter(|_| self.target == kind.target) else { return Ok(()) };
        let Some(told) = self.steps.get(&kind.step) else { return Ok(()) };
        // What is no longer waited for is progress; what is waited for anew is news.
        let is_news = !kind.waits.is_subset(&told.waits);
        let due = last.saturating_add(told.pause).unwrap_or(Timestamp::MAX);
        // A clock that was put back must not silence the operator.
        if is_news || now >= due || now < last { Ok(()) } else { Err(due) }
    }

    /// Figures of this kind were told.
    pub(super) fn tell(&mut self, kind: Kind, now: Timestamp) {
        let Kind { target, step, waits } = kind;
        // What is complete begins anew, if it begins.
        if self.target != target || step == DONE {
            *self = Self { target, ..Self::default() };
        }
        let since = self.last.map_or(SignedDuration::MAX, |last| now.duration_since(last));
        self.last = Some(now);
        match self.steps.entry(step) {
            Entry::Vacant(entry) => drop(entry.insert(Told { waits, pause: FIRST })),
            Entry::Occupied(mut entry) => {
                let told = entry.get_mut();
                told.waits.extend(waits);
                if since >= told.pause {
                    told.pause = told.pause.saturating_mul(2).min(LONGEST);
                }
            }
        }
    }
}

/// Whether two states of the status differ in nothing but what their conditions' messages say and which generations
/// objects have: a roll-out changes them on its way.
pub(super) fn is_figures_only(old: &KubeVirtStatus, new: &KubeVirtStatus) -> bool {
    let wordless = |status: &KubeVirtStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.message = None;
            // Both change with the message.
            condition.last_probe_time = None;
            condition.last_transition_time = None;
        }
        status.generations = None;
        status
    };
    old != new && wordless(old) == wordless(new)
}

#[cfg(test)]
mod tests {
    use kubevirt_api::kubevirt::{ConditionType, ConditionUpdate, Reason, set_condition};

    use super::*;

    fn kind(step: usize, waits: &[&'static str]) -> Kind {
        Kind {
            target: "id".to_owned(),
            step,
            waits: waits.iter().map(|code| ("Handler", *code, String::new())).collect(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a valid time")
    }

    #[test]
    fn figures_come_at_growing_distance_and_the_last_ones_always() {
        let mut pace = Pace::default();
        let mut told = Vec::new();
        for second in 0..600 {
            let now = at(second);
            if pace.ask(&kind(3, &["NotReady"]), now).is_ok() {
                pace.tell(kind(3, &["NotReady"]), now);
                told.push(second);
            }
        }
        assert_eq!(told, [0, 5, 15, 35, 75, 135, 195, 255, 315, 375, 435, 495, 555]);
        assert_eq!(pace.ask(&kind(3, &["NotReady"]), at(600)), Err(at(615)), "the pass looks again then");
    }

    #[test]
    fn a_new_step_and_a_new_kind_of_blocker_are_told_at_once_and_each_kind_once() {
        let mut pace = Pace::default();
        pace.tell(kind(3, &["NotReady"]), at(0));
        assert_eq!(pace.ask(&kind(4, &["NotReady"]), at(1)), Ok(()));
        assert_eq!(pace.ask(&kind(3, &["NotReady", "PodNotReady"]), at(1)), Ok(()));
        pace.tell(kind(3, &["NotReady", "PodNotReady"]), at(1));
        assert_eq!(pace.ask(&kind(3, &["NotReady"]), at(2)), Err(at(6)), "less to wait for");
        pace.tell(kind(3, &["NotReady"]), at(6));
        assert!(pace.ask(&kind(3, &["NotReady", "PodNotReady"]), at(7)).is_err(), "told before");
    }

    #[test]
    fn a_plan_that_goes_back_and_forth_between_its_steps_is_told_of_each_once() {
        let mut pace = Pace::default();
        let mut told = Vec::new();
        for second in 0..30 {
            let (now, step) = (at(second), if second % 2 == 0 { 3 } else { 5 });
            if pace.ask(&kind(step, &["NotReady"]), now).is_ok() {
                pace.tell(kind(step, &["NotReady"]), now);
                told.push(second);
            }
        }
        assert_eq!(told, [0, 1, 6, 11, 21]);
        pace.tell(kind(DONE, &[]), at(30));
        assert_eq!(pace.ask(&kind(3, &["NotReady"]), at(31)), Ok(()), "another roll-out begins");
    }

    #[test]
    fn what_ails_a_pod_has_neither_names_nor_numbers() {
        assert_eq!(ailment("container virt-api: ErrImagePull: no such image: x"), "container virt-api: ErrImagePull");
        assert_eq!(ailment("Unschedulable: 0/5000 nodes are available"), "Unschedulable");
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_silence_the_operator() {
        let mut pace = Pace::default();
        pace.tell(kind(3, &[]), at(100));
        assert_eq!(pace.ask(&kind(3, &[]), at(0)), Ok(()));
    }

    #[test]
    fn only_messages_are_figures() {
        // As they follow each other in a cluster, where every change has its time.
        let then = |old: &KubeVirtStatus, second: i64, message: &str, is: bool| {
            let mut conditions = old.conditions.clone().unwrap_or_default();
            let update =
                ConditionUpdate::new(ConditionType::Progressing, is, Reason::DeploymentInProgress, message.to_owned());
            set_condition(&mut conditions, &update, at(second));
            KubeVirtStatus { conditions: Some(conditions), ..KubeVirtStatus::default() }
        };
        let first = then(&KubeVirtStatus::default(), 0, "1 of 3", true);
        let second = then(&first, 1, "2 of 3", true);
        assert!(is_figures_only(&first, &second));
        assert!(is_figures_only(&second, &then(&second, 5, "3 of 3", true)));
        assert!(!is_figures_only(&second, &then(&second, 5, "2 of 3", true)), "nothing to tell");
        assert!(!is_figures_only(&second, &then(&second, 5, "3 of 3", false)));
        let recorded = KubeVirtStatus { generations: Some(Vec::new()), ..first.clone() };
        assert!(is_figures_only(&first, &recorded));
    }
}
