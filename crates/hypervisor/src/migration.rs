//! One migration from its start to a settled end: started on the source, supervised by the [`Monitor`], given up when it
//! or the caller says so, and settled whatever the hypervisor answered.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::hypervisor::{Error, Hypervisor, Migration, Pause, Progress, State};
use crate::monitor::{Decision, GiveUp, Monitor, Policy};
use crate::settle::{Intent, Settlement, Side, Step, Undecided, settle};

/// Between two looks at the job's statistics.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(400);

/// How long the two sides may take to agree on an end: a daemon's crash and restart on a slow host, twice, plus libvirt's
/// own keepalive of 30 s.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// How long a hypervisor may work on a migration that it was told to give up. libvirt finds a dead peer within 30 s and then asks it once
/// more; what takes twice as long ends no more, and whoever waits for it shall hear so.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(60);

/// The part of an allowed pause that is not copying: devices' state, and answers between the daemons. Hypervisors count the
/// copying alone against the pause they are told. 25 to 80 ms were measured between two releases under emulation.
const SWITCH_OVER: Duration = Duration::from_millis(100);

/// What of an allowed pause the hypervisor may spend on copying, so that the whole keeps within it. Never less than half:
/// a short pause would leave nothing, and the migration would not end.
pub(crate) fn for_copying(allowed: Duration) -> Duration {
    allowed.saturating_sub(SWITCH_OVER).max(allowed / 2)
}

/// Both ends of one migration.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub source: &'a dyn Hypervisor,
    pub target: &'a dyn Hypervisor,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the hypervisor said, when it did not work.
    pub error: Option<Error>,
    /// Why it was given up, when it was.
    pub gave_up: Option<GiveUp>,
    pub settlement: Settlement,
    /// The statistics of the whole, when the guest moved and the target has them.
    pub statistics: Option<Progress>,
    /// The last sample while it ran.
    pub last: Option<Progress>,
}

impl Outcome {
    pub fn moved(&self) -> bool {
        self.settlement.runs_on == Some(Side::Target)
    }
}

/// Moves a guest. `observe` sees every sample. `cancel` ends it: the guest then stays, unless it had already moved.
///
/// # Errors
/// When no end could be found within [`SETTLE_WITHIN`]. A hypervisor that does not end what it was told to give up is waited for a minute
/// before. It may still be moving the guest, which then arrives paused: whoever hears this calls [`settle`] until it succeeds.
pub async fn run(
    ends: Ends<'_>,
    name: &str,
    how: &Migration,
    policy: Policy,
    cancel: CancellationToken,
    mut observe: impl FnMut(&Progress) + Send,
) -> Result<Outcome, Undecided> {
    let Ends { source, target } = ends;
    let bytes = source.statistics(name).await.map_or(0, |statistics| statistics.memory_kib * 1024);
    let intent = match source.state(name).await {
        // Stopped by request, or for a reason that a move does not remove.
        Ok(State::Paused(Pause::User | Pause::IoError | Pause::Watchdog | Pause::Crashed)) => Intent::StayPaused,
        // One that is not there is not moved either; whoever is asked to move it says so.
        Ok(_) | Err(Error::NotFound(_)) => Intent::Run,
        Err(error) => return Err(Undecided::unknown(format!("whether the guest is to run is not known: {error}"))),
    };
    let how = &Migration { max_downtime: how.max_downtime.map(for_copying), ..how.clone() };
    let mut monitor: Option<Monitor> = None;
    let started = Instant::now();
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gave_up = None;
    let mut gave_up_at: Option<Instant> = None;
    let mut last = None;
    let mut job = source.migrate(name, how);
    let result = loop {
        tokio::select! {
            result = &mut job => break result,
            _ = ticks.tick() => {
                let Ok(Some(progress)) = source.progress(name).await else { continue };
                observe(&progress);
                last = Some(progress);
                // What is to be copied is known once the hypervisor has counted the disks.
                let monitor = monitor.get_or_insert_with(|| {
                    Monitor::new(policy.clone(), bytes.max(progress.total))
                });
                let why = match monitor.observe(started.elapsed(), &progress) {
                    Decision::Continue => continue,
                    Decision::Pause => {
                        // If it cannot be paused, the budget ends the migration.
                        let _ = source.pause(name).await;
                        continue;
                    }
                    Decision::Abort(why) => why,
                };
                gave_up_at.get_or_insert_with(Instant::now);
                if source.abort(name).await.is_ok() {
                    gave_up.get_or_insert(why);
                }
            }
            () = cancel.cancelled(), if gave_up.is_none() => {
                // There may be no job yet; the wish is repeated until there is one or the call returned.
                gave_up_at.get_or_insert_with(Instant::now);
                if source.abort(name).await.is_ok() {
                    gave_up = Some(GiveUp::Asked);
                } else {
                    tokio::time::sleep(ABORT_AGAIN).await;
                }
            }
            () = tokio::time::sleep_until(gave_up_at.unwrap_or(started) + GIVES_UP_WITHIN), if gave_up_at.is_some() => {
                let why = format!("it was told to give up {} s ago and still works on it", GIVES_UP_WITHIN.as_secs());
                break Err(Error::Failed { name: name.to_owned(), operation: "migrate", why });
            }
        }
    };
    drop(job);
    // A source that says so has let go of the guest, which stands still until somebody looks after it: no need to ask both
    // sides first. Should this fail, the two are asked.
    let resumed = result.is_ok() && intent == Intent::Run && target.resume(name).await.is_ok();
    let settled = settle(source, target, name, intent, SETTLE_WITHIN).await;
    let mut settlement = settled.map_err(|undecided| undecided.after(result.as_ref().err()))?;
    if resumed {
        settlement.steps.insert(0, Step::Resume(Side::Target));
    }
    let statistics = match settlement.runs_on {
        Some(Side::Target) => {
            // The source lets go of its record; whoever looks there later finds nothing rather than something stale.
            let _ = source.undefine(name).await;
            target.completed(name).await.ok().flatten()
        }
        _ => None,
    };
    Ok(Outcome { error: result.err(), gave_up, settlement, statistics, last })
}

/// Between two attempts to abort a job that has not begun.
const ABORT_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Domain;
    use crate::hypervisor::Capabilities;
    use crate::model::{Physics, Universe};
    use crate::suite::Phase;
    use crate::suite::tests::machine;

    /// Two hosts, a guest that runs on the old one.
    async fn world() -> (Universe, Domain) {
        let universe = Universe::new(Physics::default());
        for host in ["old", "new"] {
            let (libvirt, qemu) = ("9.0.0".to_owned(), "7.2.22".to_owned());
            universe
                .add_host(host, Capabilities { libvirt, qemu, machines: vec!["pc-q35-7.2".to_owned()], kvm: false });
        }
        let source = universe.connect("old");
        let guest = machine("default_t1", 262_144);
        source.define(&guest).await.unwrap();
        source.start(&guest.name, Default::default()).await.unwrap();
        (universe, guest)
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_stayed_has_its_disks_before_a_silent_target_answers() {
        let (universe, guest) = world().await;
        let (source, target) = (universe.connect("old"), universe.connect("new"));
        let how = Migration { peer: "new".to_owned(), ..Migration::default() };
        let ends = Ends { source: &source, target: &target };
        let migration = run(ends, &guest.name, &how, Policy::default(), CancellationToken::new(), |_| {});
        let struck = async {
            universe.until(|universe| universe.phase("old", &guest.name) == Some(Phase::SwitchOver)).await;
            universe.kill_daemon("new");
            universe.until(|universe| universe.phase("old", &guest.name).is_none()).await;
            // The first look at both sides takes no longer.
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(target.list().await.is_err(), "it is still silent");
            assert!(universe.write(&guest.name), "a write ended the guest");
        };
        let (outcome, ()) = futures::future::join(migration, struck).await;
        let settlement = outcome.unwrap().settlement;
        assert_eq!(settlement, Settlement { runs_on: Some(Side::Source), steps: Vec::new() });
    }

    #[tokio::test(start_paused = true)]
    async fn a_hypervisor_that_never_gives_up_is_told_of() {
        let (universe, guest) = world().await;
        let (source, target) = (universe.connect("old"), universe.connect("new"));
        universe.set_stuck(true);
        let cancel = CancellationToken::new();
        let how = Migration { peer: "new".to_owned(), bandwidth: Some(48), ..Migration::default() };
        let ends = Ends { source: &source, target: &target };
        let began = Instant::now();
        let migration = run(ends, &guest.name, &how, Policy::default(), cancel.clone(), |_| {});
        let asked = async {
            universe.until(|universe| universe.phase("old", &guest.name) == Some(Phase::Perform)).await;
            cancel.cancel();
        };
        tokio::pin!(migration);
        tokio::select! {
            () = asked => {}
            outcome = &mut migration => panic!("it ended by itself: {outcome:?}"),
        }
        let outcome = migration.await;
        let undecided = outcome.unwrap_err();
        assert!(undecided.why.contains("still works on the migration"), "{undecided}");
        assert!(began.elapsed() < GIVES_UP_WITHIN + SETTLE_WITHIN + Duration::from_secs(5));
        // Whatever held it let go: the guest is found where it was.
        universe.set_stuck(false);
        let settlement = settle(&source, &target, &guest.name, Intent::Run, SETTLE_WITHIN).await.unwrap();
        assert_eq!(settlement.runs_on, Some(Side::Source));
    }

    #[test]
    fn an_allowed_pause_has_room_for_the_switch_over() {
        let millis = Duration::from_millis;
        assert_eq!(for_copying(millis(300)), millis(200));
        assert_eq!(for_copying(millis(2000)), millis(1900));
        assert_eq!(for_copying(millis(80)), millis(40), "short pauses keep half");
    }
}
