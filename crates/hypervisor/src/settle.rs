//! Decides which side of an interrupted migration runs the guest. [`judge`] is pure; [`settle`] asks both sides, does what
//! it says, and asks again.
//!
//! Two rules stand above all others. Nobody acts on absence of knowledge: a side that does not answer, or still works on
//! the migration, is waited for before anything starts, stops or ends. And the guest never runs twice: a paused side is only
//! resumed when the other one provably does not run and cannot start by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::hypervisor::{Error, Hypervisor, Pause, State, Stop};

/// One end of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// What is known about one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Its daemon does not answer.
    Unknown,
    /// Its daemon still works on a migration of this guest.
    Busy,
    /// Its daemon has no such domain.
    Absent,
    Known(State),
}

/// What to do with one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    Resume(Side),
    Destroy(Side),
    Pause(Side),
}

/// What both views together mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This side has the guest, the other one has nothing left.
    Settled(Side),
    Do(Step),
    Wait(&'static str),
    /// Neither side has the guest: it ended.
    Gone,
}

/// What the guest shall do once it is settled. Whoever asked for the migration knows: a user's pause is kept, any other
/// is part of the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    Run,
    StayPaused,
}

/// The verdict on two views.
pub fn judge(source: &View, target: &View, intent: Intent) -> Verdict {
    use View::{Absent, Busy, Known, Unknown};
    let gone = |view: &View| matches!(view, Absent | Known(State::Stopped(_)));
    match (source, target) {
        (Unknown, _) => Verdict::Wait("the source's daemon does not answer"),
        (_, Unknown) => Verdict::Wait("the target's daemon does not answer"),
        (Busy, _) => Verdict::Wait("the source still works on the migration"),
        (_, Busy) => Verdict::Wait("the target still works on the migration"),

        // Guests arrive paused so that this cannot happen; somebody who did not know resumed one. What the target did has
        // been seen by others already: its copy stays. The source's stops first, and the next look removes it.
        (Known(s), Known(t)) if s.runs() && t.runs() => Verdict::Do(Step::Pause(Side::Source)),
        (Known(s), other) if s.runs() => match gone(other) {
            true => Verdict::Settled(Side::Source),
            false => Verdict::Do(Step::Destroy(Side::Target)),
        },
        (other, Known(t)) if t.runs() => match gone(other) {
            true => Verdict::Settled(Side::Target),
            false => Verdict::Do(Step::Destroy(Side::Source)),
        },

        // Nobody runs it. The source's copy is complete for as long as it is there; the target's may not be.
        (Known(State::Paused(Pause::Migration | Pause::Other | Pause::StartingUp)), other) => {
            match (gone(other), other) {
                // The guest ended over there on its own account: it must not rise again here.
                (_, Known(State::Stopped(Stop::Shutdown))) => Verdict::Do(Step::Destroy(Side::Source)),
                (true, _) => Verdict::Do(Step::Resume(Side::Source)),
                (false, _) => Verdict::Do(Step::Destroy(Side::Target)),
            }
        }
        // Paused by request, or for a reason of its own, which is not ours to undo.
        (Known(State::Paused(why)), other) => match (gone(other), why, intent) {
            (true, Pause::User, Intent::Run) => Verdict::Do(Step::Resume(Side::Source)),
            (true, _, _) => Verdict::Settled(Side::Source),
            (false, _, _) => Verdict::Do(Step::Destroy(Side::Target)),
        },
        // It went on over here and ended on its own account: what the target holds is the past.
        (Known(State::Stopped(Stop::Shutdown)), Known(State::Paused(_))) => Verdict::Do(Step::Destroy(Side::Target)),
        // Guests travel so that they arrive paused like this: the target has everything, and waits to be told. What the source says
        // of its copy, which stood still, is of no interest any more; a daemon that was restarted may not even know.
        (Known(State::Stopped(_)) | Absent, Known(State::Paused(Pause::User))) => match intent {
            Intent::Run => Verdict::Do(Step::Resume(Side::Target)),
            Intent::StayPaused => Verdict::Settled(Side::Target),
        },
        (Known(State::Stopped(Stop::Migrated)) | Absent, Known(State::Paused(Pause::Migration | Pause::Other))) => {
            Verdict::Do(Step::Resume(Side::Target))
        }
        (Known(State::Stopped(Stop::Migrated)) | Absent, Known(State::Paused(Pause::StartingUp))) => {
            Verdict::Wait("the target has not received the guest yet")
        }
        // The source died while it was being copied: what the target holds is not a whole guest.
        (
            Known(State::Stopped(Stop::Crashed | Stop::Failed | Stop::Destroyed)),
            Known(State::Paused(Pause::Migration | Pause::Other | Pause::StartingUp)),
        ) => Verdict::Do(Step::Destroy(Side::Target)),
        (
            Known(State::Stopped(Stop::NeverStarted | Stop::Other)),
            Known(State::Paused(Pause::Migration | Pause::Other | Pause::StartingUp)),
        ) => Verdict::Wait("the source does not know why its copy stopped, and the target's is not whole yet"),
        (Known(State::Stopped(_)) | Absent, Known(State::Paused(_))) => Verdict::Settled(Side::Target),
        _ => Verdict::Gone,
    }
}

/// How a migration's end looks once it is clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// `None`: the guest ended.
    pub runs_on: Option<Side>,
    /// What had to be done.
    pub steps: Vec<Step>,
}

/// Pause between two looks. Daemons answer within milliseconds and come back within a second or two after a crash.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A side that says "busy" this long without end is asked to abort: its peer is gone and it has not noticed. libvirt's own
/// keepalive finds a dead peer within 30 s; beyond that it would wait for ever.
const BUSY_PATIENCE: Duration = Duration::from_secs(40);

/// Why an end could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "after {waited:?} it is still open which side runs the guest: {why} (source {source_view}, target {target_view})"
)]
pub struct Undecided {
    pub waited: Duration,
    pub why: String,
    source_view: String,
    target_view: String,
}

impl Undecided {
    /// The same, and what went wrong before.
    pub(crate) fn after(self, error: Option<&Error>) -> Self {
        match error {
            Some(error) => Self { why: format!("{}; before that: {error}", self.why), ..self },
            None => self,
        }
    }

    /// Nothing was begun, because this is not known.
    pub(crate) fn unknown(why: String) -> Self {
        let not_asked = || "not asked".to_owned();
        Self { waited: Duration::ZERO, why, source_view: not_asked(), target_view: not_asked() }
    }
}

/// What one side knows about a guest now.
pub async fn look(hypervisor: &dyn Hypervisor, name: &str) -> View {
    match hypervisor.progress(name).await {
        Ok(Some(_)) => return View::Busy,
        Ok(None) => {}
        Err(Error::NotFound(_)) => return View::Absent,
        Err(_) => return View::Unknown,
    }
    match hypervisor.state(name).await {
        Ok(state) => View::Known(state),
        Err(Error::NotFound(_)) => View::Absent,
        Err(_) => View::Unknown,
    }
}

/// Looks and acts until exactly one side has the guest. Safe to call at any time after a migration was started, by anyone,
/// any number of times.
///
/// # Errors
/// When a side stays silent for `bound`.
pub async fn settle(
    source: &dyn Hypervisor,
    target: &dyn Hypervisor,
    name: &str,
    intent: Intent,
    bound: Duration,
) -> Result<Settlement, Undecided> {
    let started = Instant::now();
    let mut steps = Vec::new();
    let mut aborted = false;
    let mut reclaimed = false;
    loop {
        let (source_view, target_view) = futures::future::join(look(source, name), look(target, name)).await;
        if !reclaimed && may_lack_its_disks(&source_view, &target_view) {
            // Refused, it is tried with the next look, if there is one: where the guest runs does not depend on it.
            reclaimed = source.reclaim_disks(name).await.is_ok();
        }
        let why = match judge(&source_view, &target_view, intent) {
            Verdict::Settled(side) => return Ok(Settlement { runs_on: Some(side), steps }),
            Verdict::Gone => return Ok(Settlement { runs_on: None, steps }),
            Verdict::Do(step) => {
                let done = match step {
                    Step::Resume(side) => pick(side, source, target).resume(name).await,
                    Step::Destroy(side) => pick(side, source, target).destroy(name).await,
                    Step::Pause(side) => pick(side, source, target).pause(name).await,
                };
                match done {
                    Ok(()) => {
                        steps.push(step);
                        continue;
                    }
                    // The world moved on in between: look again.
                    Err(error) => error.to_string(),
                }
            }
            Verdict::Wait(why) => why.to_owned(),
        };
        let waited = started.elapsed();
        if waited >= bound {
            let (source_view, target_view) = (format!("{source_view:?}"), format!("{target_view:?}"));
            return Err(Undecided { waited, why, source_view, target_view });
        }
        if waited >= BUSY_PATIENCE && source_view == View::Busy && !aborted {
            aborted = source.abort(name).await.is_ok();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether the guest runs where it was, perhaps without its disks. QEMU 7.2 that is told to give up while the last of the guest
/// travels lets go of the disks and then lets the guest run on: its next write, or its next migration, ends it with a failed
/// assertion (`BDRV_O_INACTIVE`). libvirt tells it so when it loses the target in that moment. No state shows it, so every guest
/// that stayed is looked after, and at once: a target that is silent may be so for long. Disks of a guest that runs over there
/// are not touched.
fn may_lack_its_disks(source: &View, target: &View) -> bool {
    let runs_there = matches!(target, View::Known(state) if state.runs());
    *source == View::Known(State::Running) && !runs_there
}

fn pick<'a>(side: Side, source: &'a dyn Hypervisor, target: &'a dyn Hypervisor) -> &'a dyn Hypervisor {
    match side {
        Side::Source => source,
        Side::Target => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_views() -> Vec<View> {
        let pauses = [
            Pause::User,
            Pause::Migration,
            Pause::StartingUp,
            Pause::IoError,
            Pause::Watchdog,
            Pause::Crashed,
            Pause::Postcopy,
            Pause::PostcopyFailed,
            Pause::Other,
        ];
        let stops = [
            Stop::NeverStarted,
            Stop::Shutdown,
            Stop::Destroyed,
            Stop::Crashed,
            Stop::Migrated,
            Stop::Failed,
            Stop::Other,
        ];
        let mut views = vec![View::Unknown, View::Busy, View::Absent];
        views.push(View::Known(State::Running));
        views.push(View::Known(State::ShuttingDown));
        views.extend(pauses.map(|pause| View::Known(State::Paused(pause))));
        views.extend(stops.map(|stop| View::Known(State::Stopped(stop))));
        views
    }

    /// The world after a step, with every way the hypervisor may name the result.
    fn after(view: &View, step: Step) -> View {
        match (step, view) {
            (Step::Resume(_), View::Known(State::Paused(_))) => View::Known(State::Running),
            (Step::Pause(_), View::Known(state)) if state.runs() => View::Known(State::Paused(Pause::User)),
            (Step::Destroy(_), View::Known(state)) if state.is_active() => View::Known(State::Stopped(Stop::Destroyed)),
            (step, view) => panic!("{step:?} makes no sense for {view:?}"),
        }
    }

    #[test]
    fn silence_is_never_acted_upon() {
        for view in all_views() {
            for blind in [View::Unknown, View::Busy] {
                assert!(matches!(judge(&blind, &view, Intent::Run), Verdict::Wait(_)), "{view:?}");
                assert!(matches!(judge(&view, &blind, Intent::Run), Verdict::Wait(_)), "{view:?}");
            }
        }
    }

    #[test]
    fn every_pair_of_views_settles_in_three_steps_and_never_runs_twice() {
        for source in all_views() {
            for target in all_views() {
                let (mut source, mut target) = (source.clone(), target.clone());
                let twice =
                    |a: &View, b: &View| matches!((a, b), (View::Known(a), View::Known(b)) if a.runs() && b.runs());
                let began_twice = twice(&source, &target);
                let ended_by_itself = source == View::Known(State::Stopped(Stop::Shutdown));
                let arrived = matches!(&source, View::Absent | View::Known(State::Stopped(_)))
                    && !ended_by_itself
                    && target == View::Known(State::Paused(Pause::User));
                let mut steps = 0;
                while let Verdict::Do(step) = judge(&source, &target, Intent::Run) {
                    match step {
                        Step::Resume(Side::Source) | Step::Destroy(Side::Source) | Step::Pause(Side::Source) => {
                            source = after(&source, step);
                        }
                        Step::Resume(Side::Target) | Step::Destroy(Side::Target) | Step::Pause(Side::Target) => {
                            target = after(&target, step);
                        }
                    }
                    assert!(began_twice || !twice(&source, &target), "{step:?} made it run twice");
                    steps += 1;
                    assert!(steps <= 3, "{source:?} and {target:?} go round in circles");
                }
                assert!(
                    !arrived || target == View::Known(State::Running),
                    "{source:?}: the whole guest is on the target"
                );
                if let Verdict::Settled(side) = judge(&source, &target, Intent::Run) {
                    let (kept, other) = match side {
                        Side::Source => (&source, &target),
                        Side::Target => (&target, &source),
                    };
                    assert!(matches!(kept, View::Known(state) if state.is_active()));
                    let stands = [Pause::User, Pause::Migration, Pause::Other, Pause::StartingUp];
                    assert!(
                        !stands.map(|pause| View::Known(State::Paused(pause))).contains(kept),
                        "nobody resumed {kept:?}"
                    );
                    assert!(matches!(other, View::Absent | View::Known(State::Stopped(_))));
                }
            }
        }
    }

    #[test]
    fn disks_are_taken_back_where_the_guest_runs_alone() {
        let running = View::Known(State::Running);
        for other in all_views() {
            let alone = !matches!(&other, View::Known(state) if state.runs());
            assert_eq!(may_lack_its_disks(&running, &other), alone, "{other:?}");
            assert_eq!(may_lack_its_disks(&other, &View::Absent), other == running, "{other:?}");
        }
    }

    #[test]
    fn a_pause_that_somebody_wanted_is_kept_on_either_side() {
        let paused = View::Known(State::Paused(Pause::User));
        assert_eq!(judge(&View::Absent, &paused, Intent::StayPaused), Verdict::Settled(Side::Target));
        assert_eq!(judge(&View::Absent, &paused, Intent::Run), Verdict::Do(Step::Resume(Side::Target)));
        assert_eq!(judge(&paused, &View::Absent, Intent::StayPaused), Verdict::Settled(Side::Source));
        assert_eq!(judge(&paused, &View::Absent, Intent::Run), Verdict::Do(Step::Resume(Side::Source)));
        assert_eq!(judge(&View::Known(State::Running), &paused, Intent::Run), Verdict::Do(Step::Destroy(Side::Target)));
    }

    #[test]
    fn a_guest_that_ended_on_the_target_does_not_rise_on_the_source() {
        let source = View::Known(State::Paused(Pause::Migration));
        let target = View::Known(State::Stopped(Stop::Shutdown));
        assert_eq!(judge(&source, &target, Intent::Run), Verdict::Do(Step::Destroy(Side::Source)));
    }

    #[test]
    fn a_target_that_never_started_leaves_the_guest_to_the_source() {
        let source = View::Known(State::Paused(Pause::Migration));
        assert_eq!(judge(&source, &View::Absent, Intent::Run), Verdict::Do(Step::Resume(Side::Source)));
        let target = View::Known(State::Paused(Pause::Migration));
        assert_eq!(judge(&source, &target, Intent::Run), Verdict::Do(Step::Destroy(Side::Target)));
        let source = View::Known(State::Stopped(Stop::Migrated));
        assert_eq!(judge(&source, &target, Intent::Run), Verdict::Do(Step::Resume(Side::Target)));
    }
}
