//! Cases in which the guest moves and nothing goes wrong, or only the guest itself is difficult.

use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ANSWERS_WITHIN, Case, Place, Stage, Verdict, client, event, home, running, told, until, well, whole, wrong,
};
use crate::hypervisor::{Change, Error, Event, Pause, Progress, State};
use crate::migration::{Ends, Outcome, SETTLE_WITHIN, for_copying, run};
use crate::monitor::{GiveUp, Monitor, OnBudget, Policy};
use crate::settle::{Side, Step, View};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("the guest moves to the other release and back without losing a beat", |stage| {
            async move {
                there(stage).await?;
                there(stage).await
            }
            .boxed()
        }),
        Case::new("a paused guest moves and stays paused", |stage| stays_paused(stage).boxed()),
        Case::new("what cannot be moved is refused and runs on", |stage| refused(stage).boxed()),
        Case::new("a guest faster than the link is given up when its budget is spent", |stage| budget(stage).boxed()),
        Case::new("a guest faster than the link is slowed down until it fits", |stage| slowed(stage).boxed()),
        Case::new("a guest faster than the link is paused when that is allowed", |stage| interrupted(stage).boxed()),
        Case::new("a paused guest that does not fit either is given up and runs on", |stage| hopeless(stage).boxed()),
    ]
}

/// Moves the guest with everything at its default.
pub(super) async fn travel(stage: &dyn Stage, policy: Policy) -> Result<(Place, Outcome, Vec<Progress>), String> {
    let from = home(stage).await?;
    let (source, target) = (client(stage, from).await?, client(stage, from.other()).await?);
    let how = stage.route(from).await?;
    let mut samples = Vec::new();
    let ends = Ends { source: &*source, target: &*target };
    let watch = |progress: &Progress| samples.push(*progress);
    let outcome = run(ends, &stage.guest().name, &how, policy, CancellationToken::new(), watch).await;
    Ok((from, told("settle", outcome)?, samples))
}

async fn there(stage: &dyn Stage) -> Verdict {
    let from = running(stage).await?;
    let name = stage.guest().name;
    let (source, target) = (client(stage, from).await?, client(stage, from.other()).await?);
    let (mut here, mut over_there) = (source.events(), target.events());
    let (_, outcome, _) = travel(stage, Policy::default()).await?;
    if !outcome.moved() || outcome.error.is_some() || outcome.settlement.steps != [Step::Resume(Side::Target)] {
        return wrong(format!("it did not move as it should: {outcome:?}"));
    }
    let Some(statistics) = outcome.statistics else { return wrong("the target has no statistics of the migration") };
    if statistics.downtime.is_none() {
        return wrong(format!("the downtime is not known: {statistics:?}"));
    }
    let mine = |change: Change| Event::Domain { name: name.clone(), change };
    let mut seen = Vec::new();
    for change in [Change::Suspended(Pause::Migration), Change::Stopped(crate::hypervisor::Stop::Migrated)] {
        let wanted = mine(change);
        event(&mut here, &mut seen, ANSWERS_WITHIN, |event| *event == wanted).await?;
    }
    let mut seen = Vec::new();
    for change in [Change::Arriving, Change::Suspended(Pause::User), Change::Resumed] {
        let wanted = mine(change);
        event(&mut over_there, &mut seen, ANSWERS_WITHIN, |event| *event == wanted).await?;
    }
    if source.state(&name).await != Err(Error::NotFound(name.clone())) {
        return wrong(format!("the source still knows the guest: {:?}", source.state(&name).await));
    }
    if home(stage).await? != from.other() {
        return wrong("the guest is not where it moved");
    }
    well(stage).await
}

async fn stays_paused(stage: &dyn Stage) -> Verdict {
    let from = running(stage).await?;
    let name = stage.guest().name;
    told("pause", client(stage, from).await?.pause(&name).await)?;
    let (_, outcome, _) = travel(stage, Policy::default()).await?;
    if !outcome.moved() {
        return wrong(format!("it did not move: {outcome:?}"));
    }
    let target = client(stage, from.other()).await?;
    if target.state(&name).await != Ok(State::Paused(Pause::User)) {
        return wrong(format!("on the target it is {:?}", target.state(&name).await));
    }
    told("resume", target.resume(&name).await)?;
    well(stage).await
}

async fn refused(stage: &dyn Stage) -> Verdict {
    let from = running(stage).await?;
    let name = stage.guest().name;
    let source = client(stage, from).await?;
    if !matches!(source.abort(&name).await, Err(Error::WrongState { .. })) {
        return wrong("a migration that does not exist was aborted");
    }
    let mut nowhere = stage.route(from).await?;
    nowhere.peer = "/nowhere".to_owned();
    let result = source.migrate(&name, &nowhere).await;
    if !matches!(result, Err(Error::Failed { .. })) {
        return wrong(format!("a migration to nowhere gives {result:?}"));
    }
    if !matches!(source.migrate("nobody", &nowhere).await, Err(Error::NotFound(_))) {
        return wrong("an unknown guest could be moved");
    }
    until(&*source, &name, ANSWERS_WITHIN, |view| *view == View::Known(State::Running)).await?;
    whole(stage).await
}

/// A migration over the slow link with a busy guest.
async fn difficult(
    stage: &dyn Stage,
    policy: Policy,
    auto_converge: bool,
    max_downtime: Duration,
) -> Result<(Place, Outcome, Vec<Progress>), String> {
    difficult_over(stage, stage.slow_link(), policy, auto_converge, max_downtime).await
}

async fn difficult_over(
    stage: &dyn Stage,
    bandwidth: u64,
    policy: Policy,
    auto_converge: bool,
    max_downtime: Duration,
) -> Result<(Place, Outcome, Vec<Progress>), String> {
    let from = running(stage).await?;
    stage.busy(true).await?;
    let (source, target) = (client(stage, from).await?, client(stage, from.other()).await?);
    let mut how = stage.route(from).await?;
    how.bandwidth = Some(bandwidth);
    how.auto_converge = auto_converge;
    how.max_downtime = Some(max_downtime);
    let mut samples = Vec::new();
    let ends = Ends { source: &*source, target: &*target };
    let watch = |progress: &Progress| samples.push(*progress);
    let outcome = run(ends, &stage.guest().name, &how, policy, CancellationToken::new(), watch).await;
    stage.busy(false).await?;
    Ok((from, told("settle", outcome)?, samples))
}

/// Short for a test, long enough for several passes over the guest's memory.
fn policy(on_budget: OnBudget, seconds: u64, stage: &dyn Stage) -> Policy {
    let gib = f64::max(stage.guest().memory_kib as f64 / f64::from(1 << 20), 1e-9);
    Policy {
        completion_timeout_per_gib: Duration::from_secs_f64(seconds as f64 / gib),
        progress_timeout: ANSWERS_WITHIN,
        on_budget,
    }
}

/// What a busy guest may at most be stopped for by a migration that succeeds.
const MAX_DOWNTIME: Duration = Duration::from_millis(300);

async fn budget(stage: &dyn Stage) -> Verdict {
    let (from, outcome, samples) = difficult(stage, policy(OnBudget::Abort, 12, stage), false, MAX_DOWNTIME).await?;
    if !matches!(outcome.gave_up, Some(GiveUp::Budget { .. })) || outcome.moved() {
        return wrong(format!("it was not given up: {outcome:?}"));
    }
    let moving = samples.windows(2).any(|pair| pair[1].processed > pair[0].processed);
    let passes = samples.last().map_or(0, |sample| sample.iteration);
    if samples.len() < 5 || !moving || passes < 2 || samples.iter().all(|sample| sample.dirty_rate == 0) {
        return wrong(format!("progress was not reported: {samples:?}"));
    }
    if home(stage).await? != from {
        return wrong("it is elsewhere");
    }
    whole(stage).await
}

async fn slowed(stage: &dyn Stage) -> Verdict {
    // What the switch-over costs on this host at the moment: a guest at rest has next to nothing to copy in it.
    running(stage).await?;
    let (_, at_rest, _) = travel(stage, Policy::default()).await?;
    let Some(switch_over) = at_rest.statistics.and_then(|statistics| statistics.downtime) else {
        return wrong(format!("the downtime at rest is not known: {at_rest:?}"));
    };
    let (from, outcome, samples) = difficult(stage, policy(OnBudget::Abort, 120, stage), true, MAX_DOWNTIME).await?;
    let throttle = samples.iter().map(|sample| sample.throttle).max().unwrap_or(0);
    if throttle == 0 {
        return wrong(format!("the guest was never slowed down: {:?}", samples.last()));
    }
    if !outcome.moved() || home(stage).await? != from.other() {
        return wrong(format!("slowed down by {throttle} % it still did not move: {outcome:?}"));
    }
    let Some(downtime) = outcome.statistics.and_then(|statistics| statistics.downtime) else {
        return wrong(format!("the downtime is not known: {outcome:?}"));
    };
    // A host too busy to switch over in the time reserved for it adds the difference, and no more.
    let allowed = MAX_DOWNTIME.max(for_copying(MAX_DOWNTIME) + switch_over);
    stage.note(&format!(
        "slowed down by {throttle} %, stopped for {downtime:?}, of {MAX_DOWNTIME:?} allowed (at rest {switch_over:?})"
    ));
    if downtime > allowed {
        return wrong(format!("it was stopped for {downtime:?}, and {allowed:?} was allowed: {outcome:?}"));
    }
    well(stage).await
}

async fn interrupted(stage: &dyn Stage) -> Verdict {
    let from = running(stage).await?;
    let name = stage.guest().name;
    let (source, target) = (client(stage, from).await?, client(stage, from.other()).await?);
    let stopped = standstill(&name, source.events(), target.events());
    let policy = policy(OnBudget::Pause, 12, stage);
    let moving = difficult(stage, policy.clone(), false, MAX_DOWNTIME);
    let (moved, stopped) = futures::future::join(moving, tokio::time::timeout(SETTLE_WITHIN, stopped)).await;
    let (from, outcome, _) = moved?;
    if outcome.settlement.runs_on != Some(Side::Target) || home(stage).await? != from.other() {
        return wrong(format!("paused, it still did not move: {outcome:?}"));
    }
    let stopped = told("it was never paused", stopped)?;
    // It may be stopped for as long as it was given before.
    let bytes = stage.guest().memory_kib * 1024;
    let budget = Monitor::new(policy, bytes.max(outcome.last.map_or(0, |last| last.total))).budget();
    stage.note(&format!("paused after {budget:?}, stopped for {stopped:?}, of {budget:?} allowed"));
    if stopped > budget {
        return wrong(format!("it was stopped for {stopped:?}, and {budget:?} was allowed: {outcome:?}"));
    }
    well(stage).await
}

/// Paused, the guest would still need three times as long as it is given.
async fn hopeless(stage: &dyn Stage) -> Verdict {
    /// A guest of either stage has 60 MiB and more to copy: a dozen seconds.
    const BANDWIDTH: u64 = 5;
    /// Twice this, once it is paused, is a third of that.
    const BUDGET_SECONDS: u64 = 2;
    /// A sample, and an answer of a host with a lot to do.
    const LATE: Duration = Duration::from_secs(2);
    let from = running(stage).await?;
    let source = client(stage, from).await?;
    let name = stage.guest().name;
    let stopped = standstill(&name, source.events(), source.events());
    let policy = policy(OnBudget::Pause, BUDGET_SECONDS, stage);
    let moving = difficult_over(stage, BANDWIDTH, policy, false, MAX_DOWNTIME);
    let (moved, stopped) = futures::future::join(moving, tokio::time::timeout(SETTLE_WITHIN, stopped)).await;
    let (from, outcome, _) = moved?;
    let Some(GiveUp::Budget { budget }) = outcome.gave_up else {
        return wrong(format!("it was not given up: {outcome:?}"));
    };
    if outcome.moved() || home(stage).await? != from {
        return wrong(format!("it is elsewhere: {outcome:?}"));
    }
    // The budget was doubled when the guest was paused.
    let (stopped, allowed) = (told("it did not run again", stopped)?, budget / 2);
    stage.note(&format!("given up after {budget:?}, stopped for {stopped:?}, of {allowed:?} allowed"));
    if stopped > allowed + LATE {
        return wrong(format!("it was stopped for {stopped:?}, and {allowed:?} was allowed: {outcome:?}"));
    }
    whole(stage).await
}

/// How long the guest stands still between being paused here and running over there.
async fn standstill(
    name: &str,
    mut here: tokio::sync::mpsc::UnboundedReceiver<Event>,
    mut over_there: tokio::sync::mpsc::UnboundedReceiver<Event>,
) -> Duration {
    let mine = |change: Change| Event::Domain { name: name.to_owned(), change };
    let resumed = mine(Change::Resumed);
    // Whoever pauses a guest that moves pauses it for the migration, a hypervisor finds.
    let paused = [Pause::User, Pause::Migration].map(|why| mine(Change::Suspended(why)));
    while here.recv().await.is_some_and(|event| !paused.contains(&event)) {}
    let began = Instant::now();
    while over_there.recv().await.is_some_and(|event| event != resumed) {}
    began.elapsed()
}
