//! Cases in which something breaks in the middle of a migration: every fault in every phase, and a controlling process
//! that vanishes. Afterwards exactly one side runs the guest, its heart beats on, and the trait says so.

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{Case, Fault, Phase, Stage, Verdict, client, home, running, told, whole, wrong};
use crate::migration::{Ends, SETTLE_WITHIN, run};
use crate::monitor::{GiveUp, Policy};
use crate::settle::{Intent, settle};

const PHASES: [Phase; 4] = [Phase::Prepare, Phase::Perform, Phase::SwitchOver, Phase::Finish];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for fault in [Fault::Abort, Fault::SourceDaemon, Fault::TargetDaemon, Fault::TargetProcess, Fault::Cut] {
        for phase in PHASES {
            // After the target runs the guest, its process is the guest.
            if (fault, phase) == (Fault::TargetProcess, Phase::Finish) {
                continue;
            }
            let name = format!("{fault:?} during {phase:?} leaves one guest");
            cases.push(Case::new(name, move |stage| struck(stage, fault, phase).boxed()));
        }
    }
    for phase in PHASES {
        let name = format!("a controlling process restarted during {phase:?} finds the truth");
        cases.push(Case::new(name, move |stage| restarted(stage, phase).boxed()));
    }
    cases
}

/// Slow enough that a phase can be met, fast enough that a case is short. What strikes while memory is copied may come a second
/// late (a call to libvirt 9.0 that waits for a keepalive message), and must not meet the switch-over then.
fn bandwidth(phase: Phase) -> u64 {
    if phase == Phase::Perform { 16 } else { 48 }
}

async fn struck(stage: &dyn Stage, fault: Fault, phase: Phase) -> Verdict {
    let from = running(stage).await?;
    let (source, target) = (client(stage, from).await?, client(stage, from.other()).await?);
    let mut how = stage.route(from).await?;
    how.bandwidth = Some(bandwidth(phase));
    let cancel = CancellationToken::new();
    let reached = stage.reach(from, phase);
    let ends = Ends { source: &*source, target: &*target };
    let name = stage.guest().name;
    let migration = run(ends, &name, &how, Policy::default(), cancel.clone(), |_| {});
    tokio::pin!(migration);
    tokio::select! {
        () = reached => {}
        outcome = &mut migration => {
            return wrong(format!("the migration ended before it was in {phase:?}: {outcome:?}"));
        }
    }
    let strike = async {
        let struck = match fault {
            Fault::Abort => {
                cancel.cancel();
                Ok(())
            }
            _ => stage.strike(from, fault).await,
        };
        stage.release().await;
        struck
    };
    let (outcome, struck) = futures::future::join(migration, strike).await;
    struck?;
    let outcome = told("settle", outcome)?;
    // Later the guest stands still for the switch-over, and nothing is given up any more.
    let may_be_given_up = matches!(phase, Phase::Prepare | Phase::Perform);
    if fault == Fault::Abort && may_be_given_up && (outcome.gave_up != Some(GiveUp::Asked) || outcome.moved()) {
        return wrong(format!("it was asked to give up and did not: {outcome:?}"));
    }
    let Some(side) = outcome.settlement.runs_on else { return wrong(format!("the guest is gone: {outcome:?}")) };
    let place = home(stage).await?;
    if place != from.side(side) {
        return wrong(format!("it is said to run on the {side:?} of {from:?}, and is on {place:?}"));
    }
    whole(stage).await.map_err(|error| format!("{error}, after {outcome:?}"))
}

async fn restarted(stage: &dyn Stage, phase: Phase) -> Verdict {
    let from = running(stage).await?;
    let name = stage.guest().name;
    let mut how = stage.route(from).await?;
    how.bandwidth = Some(bandwidth(phase));
    let reached = stage.reach(from, phase);
    let process = stage.depart(from, how)?;
    if tokio::time::timeout(SETTLE_WITHIN, reached).await.is_err() {
        return wrong(format!("the migration never was in {phase:?}"));
    }
    drop(process);
    stage.release().await;
    let (source, target) = (client(stage, from).await?, client(stage, from.other()).await?);
    let settlement = told("settle", settle(&*source, &*target, &name, Intent::Run, SETTLE_WITHIN).await)?;
    let Some(side) = settlement.runs_on else { return wrong("the guest is gone") };
    if home(stage).await? != from.side(side) {
        return wrong(format!("it is not where the new process says it is: {settlement:?}"));
    }
    whole(stage).await
}
