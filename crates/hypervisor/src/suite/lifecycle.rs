//! Cases with one host: define to undefine, pause, crashes of the daemon, shutdown.

use futures::FutureExt;

use super::{
    ANSWERS_WITHIN, BEATS_WITHIN, BOOTS_WITHIN, Case, Fault, Place, Stage, Verdict, boot, client, drain, event, home,
    lists, running, told, until, well, wrong,
};
use crate::accelerator as probe;
use crate::hypervisor::{Change, Error, Event, Pause, Start, State, Stop};
use crate::settle::View;

pub(super) fn first() -> Vec<Case> {
    vec![
        Case::new("an empty guest is defined, started, paused, resumed, destroyed, forgotten", |stage| {
            async move {
                for place in [Place::Old, Place::New] {
                    empty(stage, place).await.map_err(|error| format!("{place:?}: {error}"))?;
                }
                Ok(())
            }
            .boxed()
        }),
        Case::new("capabilities name versions and machine types", |stage| capabilities(stage).boxed()),
        Case::new("hardware virtualization is used only if a probe guest runs", |stage| accelerator(stage).boxed()),
        Case::new("the guest boots, and is described as it was defined", |stage| boots(stage).boxed()),
        Case::new("a paused guest's heart stands still", |stage| paused(stage).boxed()),
        Case::new("a crash of the daemon is no stop of the guest", |stage| daemon_crash(stage).boxed()),
    ]
}

pub(super) fn last() -> Vec<Case> {
    vec![
        Case::new("a killed process is reported as such", |stage| killed(stage).boxed()),
        Case::new("the guest obeys the power button", |stage| shutdown(stage).boxed()),
    ]
}

async fn empty(stage: &dyn Stage, place: Place) -> Verdict {
    let client = client(stage, place).await?;
    let guest = stage.empty_guest();
    let name = guest.name.as_str();
    // From an earlier run that failed.
    let _ = client.destroy(name).await;
    let _ = client.undefine(name).await;
    let mut events = client.events();
    let missing = Err(Error::NotFound(name.to_owned()));
    if client.state(name).await != missing || client.start(name, Start::default()).await.is_ok() {
        return wrong("a domain that nobody defined is known");
    }
    told("define", client.define(&guest).await)?;
    if client.state(name).await != Ok(State::Stopped(Stop::NeverStarted)) {
        return wrong(format!("a defined guest is {:?}", client.state(name).await));
    }
    for (what, result) in [
        ("pause", client.pause(name).await),
        ("resume", client.resume(name).await),
        ("shut down", client.shutdown(name).await),
        ("destroy", client.destroy(name).await),
    ] {
        if !matches!(result, Err(Error::WrongState { .. })) {
            return wrong(format!("to {what} a stopped guest gives {result:?}"));
        }
    }
    told("start", client.start(name, Start { paused: true }).await)?;
    if client.state(name).await != Ok(State::Paused(Pause::User)) {
        return wrong(format!("a guest started paused is {:?}", client.state(name).await));
    }
    if !matches!(client.start(name, Start::default()).await, Err(Error::WrongState { .. })) {
        return wrong("a guest could be started twice");
    }
    told("resume", client.resume(name).await)?;
    if client.state(name).await != Ok(State::Running) || stage.processes(place, name) != 1 {
        return wrong(format!("a resumed guest is {:?}", client.state(name).await));
    }
    let listed = told("list", client.list().await)?;
    if !lists(&listed, name, |state| state == State::Running) {
        return wrong(format!("the running guest is not in {listed:?}"));
    }
    told("pause", client.pause(name).await)?;
    told("resume", client.resume(name).await)?;
    told("destroy", client.destroy(name).await)?;
    if client.state(name).await != Ok(State::Stopped(Stop::Destroyed)) || stage.processes(place, name) != 0 {
        return wrong(format!("a destroyed guest is {:?}", client.state(name).await));
    }
    told("undefine", client.undefine(name).await)?;
    if client.state(name).await != missing {
        return wrong("a forgotten guest is known");
    }
    let mut seen = Vec::new();
    let last = Event::Domain { name: name.to_owned(), change: Change::Undefined };
    event(&mut events, &mut seen, ANSWERS_WITHIN, |event| *event == last).await?;
    // Whether QEMU still says that it ends when it is killed is a matter of luck.
    let mut changes: Vec<Change> = changes(&seen, name);
    changes.retain(|change| *change != Change::ShuttingDown);
    let expected = [
        Change::Defined,
        Change::Started,
        Change::Suspended(Pause::User),
        Change::Resumed,
        Change::Suspended(Pause::User),
        Change::Resumed,
        Change::Stopped(Stop::Destroyed),
        Change::Undefined,
    ];
    if changes != expected {
        return wrong(format!("events came as {changes:?}"));
    }
    Ok(())
}

fn changes(events: &[Event], guest: &str) -> Vec<Change> {
    let change = |event: &Event| match event {
        Event::Domain { name, change } if name == guest => Some(*change),
        _ => None,
    };
    events.iter().filter_map(change).collect()
}

async fn capabilities(stage: &dyn Stage) -> Verdict {
    let machine = stage.guest().machine;
    for place in [Place::Old, Place::New] {
        let capabilities = told("capabilities", client(stage, place).await?.capabilities().await)?;
        if !capabilities.machines.contains(&machine) {
            return wrong(format!("{place:?} does not offer {machine}: {capabilities:?}"));
        }
        if capabilities.qemu.split('.').count() != 3 || capabilities.libvirt.split('.').count() != 3 {
            return wrong(format!("{place:?} has no versions: {capabilities:?}"));
        }
    }
    Ok(())
}

async fn accelerator(stage: &dyn Stage) -> Verdict {
    let [old, new] = [Place::Old, Place::New].map(|place| chosen(stage, place));
    futures::future::try_join(old, new).await.map(|_| ())
}

async fn chosen(stage: &dyn Stage, place: Place) -> Verdict {
    let guest = stage.probe_guest(place).await?;
    let client = client(stage, place).await?;
    // A probe that never ends would refuse everything.
    let ran = told("run the probe guest under emulation", probe::run(&*client, &guest, BOOTS_WITHIN).await)?;
    if ran != probe::Ran::Itself {
        return wrong(format!("{place:?}: under emulation the probe guest fared like this: {ran:?}"));
    }
    let choice = told("choose", probe::choose(&*client, &guest, probe::PROBE_WITHIN).await)?;
    if stage.has_kvm(place).is_some_and(|has| has != (choice == probe::Choice::Kvm)) {
        return wrong(format!("{place:?}: chosen was {choice:?}"));
    }
    let offered = told("capabilities", client.capabilities().await)?.kvm;
    if offered == (choice == probe::Choice::Emulation(probe::Refusal::NotOffered)) {
        return wrong(format!("{place:?}: offered: {offered}, chosen: {choice:?}"));
    }
    let name = guest.name.as_str();
    if stage.processes(place, name) != 0 || client.state(name).await != Err(Error::NotFound(name.to_owned())) {
        return wrong(format!("{place:?}: something of the probe guest is left"));
    }
    stage.note(&match choice {
        probe::Choice::Kvm => format!("{place:?} pair: guests run with KVM"),
        probe::Choice::Emulation(why) => format!("{place:?} pair: guests are emulated; KVM is not used: {why}"),
    });
    Ok(())
}

async fn boots(stage: &dyn Stage) -> Verdict {
    boot(stage, Place::Old).await?;
    let client = client(stage, Place::Old).await?;
    let guest = stage.guest();
    let mut described = told("describe", client.describe(&guest.name).await)?;
    // While it runs, the processor's model is spelled out; that is the hypervisor's to say.
    described.cpu.features.clone_from(&guest.cpu.features);
    if described != guest {
        return wrong(format!("defined as {guest:?} and described as {described:?}"));
    }
    let endpoints = told("endpoints", client.endpoints(&guest.name).await)?;
    if endpoints != guest.endpoints() {
        return wrong(format!("endpoints {endpoints:?}"));
    }
    let statistics = told("statistics", client.statistics(&guest.name).await)?;
    if statistics.memory_kib != guest.memory_kib || statistics.cpu_time.is_zero() {
        return wrong(format!("statistics {statistics:?}"));
    }
    if client.progress(&guest.name).await != Ok(None) {
        return wrong("a guest that stays where it is reports a migration");
    }
    well(stage).await
}

async fn paused(stage: &dyn Stage) -> Verdict {
    let place = running(stage).await?;
    let client = client(stage, place).await?;
    let name = stage.guest().name;
    told("pause", client.pause(&name).await)?;
    if !matches!(client.pause(&name).await, Err(Error::WrongState { .. })) {
        return wrong("a paused guest could be paused");
    }
    // What was under way still arrives.
    stage.beats(2, super::LOOK * 25).await;
    let before = stage.heard();
    if stage.beats(1, super::LOOK * 50).await || stage.heard() != before {
        return wrong("a paused guest's heart beats");
    }
    told("resume", client.resume(&name).await)?;
    well(stage).await
}

async fn daemon_crash(stage: &dyn Stage) -> Verdict {
    let place = running(stage).await?;
    let client = client(stage, place).await?;
    let name = stage.guest().name;
    let mut events = client.events();
    stage.strike(place, Fault::SourceDaemon).await?;
    let mut seen = Vec::new();
    event(&mut events, &mut seen, ANSWERS_WITHIN, |event| matches!(event, Event::Lost { .. })).await?;
    event(&mut events, &mut seen, ANSWERS_WITHIN, |event| matches!(event, Event::Resumed { .. })).await?;
    seen.extend(drain(&mut events));
    if changes(&seen, &name).iter().any(|change| matches!(change, Change::Stopped(_) | Change::Crashed)) {
        return wrong(format!("the crash was told as a stop: {seen:?}"));
    }
    let resumed = seen.iter().any(
        |event| matches!(event, Event::Resumed { domains } if lists(domains, &name, |state| state == State::Running)),
    );
    if !resumed {
        return wrong(format!("the running guest was not found again: {seen:?}"));
    }
    if home(stage).await? != place {
        return wrong("the guest is elsewhere");
    }
    well(stage).await
}

async fn killed(stage: &dyn Stage) -> Verdict {
    let place = running(stage).await?;
    let client = client(stage, place).await?;
    let name = stage.guest().name;
    let mut events = client.events();
    // Seen from the other host, this one is the target.
    stage.strike(place.other(), Fault::TargetProcess).await?;
    until(&*client, &name, BEATS_WITHIN, |view| *view == View::Known(State::Stopped(Stop::Crashed))).await?;
    let mut seen = Vec::new();
    event(&mut events, &mut seen, BEATS_WITHIN, |event| {
        *event == Event::Domain { name: name.clone(), change: Change::Stopped(Stop::Failed) }
    })
    .await
}

async fn shutdown(stage: &dyn Stage) -> Verdict {
    let place = running(stage).await?;
    let client = client(stage, place).await?;
    let name = stage.guest().name;
    told("shut down", client.shutdown(&name).await)?;
    until(&*client, &name, BOOTS_WITHIN, |view| *view == View::Known(State::Stopped(Stop::Shutdown))).await?;
    told("undefine", client.undefine(&name).await)
}
