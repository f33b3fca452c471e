//! How a migration goes: prepare, perform, switch over, finish, confirm. At every step the world may have changed.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::host::{Job, Process};
use super::{Phase, Physics, Universe, World, failed, wrong_state};
use crate::hypervisor::{Change, Error, Event, Migration, Pause, Result, Stop};

/// Starting a process that waits takes this long.
const PREPARE_TAKES: Duration = Duration::from_millis(200);
/// The daemons talk to each other at the end.
const FINISH_TAKES: Duration = Duration::from_millis(20);
/// The grain of the copying.
const TICK: Duration = Duration::from_millis(20);
/// The first slow-down by auto-converge, and each further one, in percent.
const THROTTLE_FIRST: u32 = 20;
const THROTTLE_STEP: u32 = 10;
const THROTTLE_MAX: u32 = 99;

impl World {
    /// The source's daemon accepts the job, or not.
    pub(crate) fn begin(&mut self, source: &str, name: &str, how: &Migration) -> Result<()> {
        let physics = self.physics;
        let host = self.host(source);
        host.known(name)?;
        if host.jobs.contains_key(name) {
            return Err(wrong_state(name, "migrate", "a migration runs already"));
        }
        let Some(process) = host.processes.get(name) else {
            return Err(wrong_state(name, "migrate", "it does not run"));
        };
        if process.arriving {
            return Err(wrong_state(name, "migrate", "it has not arrived yet"));
        }
        if process.lacks_disks {
            self.end_process(source, name, Stop::Crashed, Stop::Failed);
            return Err(failed(name, "migrate", "its process ended: it cannot let go of disks that it lacks"));
        }
        let working_set = physics.working_set.min(process.domain.memory_kib * 1024);
        let job = Job {
            phase: Phase::Prepare,
            outgoing: true,
            aborted: false,
            started: Instant::now(),
            total: process.domain.memory_kib * 1024,
            processed: 0,
            remaining: working_set,
            iteration: 0,
            dirty_rate: 0,
            throttle: 0,
            max_downtime: how.max_downtime.unwrap_or(physics.default_downtime),
        };
        host.jobs.insert(name.to_owned(), job);
        Ok(())
    }

    /// Whether the migration can still go on, seen from the source.
    fn check(&mut self, source: &str, target: &str, name: &str) -> std::result::Result<(), Ending> {
        let link_up = self.link_up;
        let host = self.host(source);
        if !host.daemon_up {
            return Err(Ending::SourceDaemonGone);
        }
        if !host.processes.contains_key(name) {
            return Err(Ending::Failed("the guest's process ended during the migration".to_owned()));
        }
        if host.jobs.get(name).is_none_or(|job| job.aborted) {
            return Err(Ending::Aborted);
        }
        if !link_up {
            return Err(Ending::Failed("the connection to the target broke".to_owned()));
        }
        let Some(host) = self.hosts.get(target) else {
            return Err(Ending::Failed(format!("there is no host {target:?}")));
        };
        if !host.daemon_up {
            return Err(Ending::Failed("the connection to the target's daemon closed".to_owned()));
        }
        Ok(())
    }

    fn check_target_process(&self, target: &str, name: &str) -> std::result::Result<(), Ending> {
        match self.hosts.get(target).is_some_and(|host| host.processes.contains_key(name)) {
            true => Ok(()),
            false => Err(Ending::Failed("the target's process ended".to_owned())),
        }
    }
}

enum Ending {
    SourceDaemonGone,
    Aborted,
    Failed(String),
}

/// Runs a migration that was begun. Whoever asked for it may be gone.
pub(super) async fn run(
    universe: Universe,
    source: String,
    name: String,
    how: Migration,
    done: oneshot::Sender<Result<()>>,
) {
    // In the model a peer's address is its host's name.
    let target = how.peer.clone();
    let result = match go(&universe, &source, &target, &name, &how).await {
        Ok(()) => Ok(()),
        Err(Ending::SourceDaemonGone) => {
            // The target notices that its peer is gone. The source's own half waits for its daemon to come back.
            universe.lock().drop_incoming(&target, &name);
            return;
        }
        Err(ending) => {
            if matches!(ending, Ending::Aborted) {
                universe.until(|universe| !universe.lock().stuck).await;
            }
            let mut world = universe.lock();
            world.drop_incoming(&target, &name);
            let host = world.host(&source);
            let switched_over = host.jobs.remove(&name).is_some_and(|job| job.phase >= Phase::SwitchOver);
            if let Some(process) = host.processes.get_mut(&name)
                && !process.running
                && process.pause == Pause::Migration
            {
                process.running = true;
                process.lacks_disks = switched_over;
                host.tell(&name, Change::Resumed);
            }
            world.touch();
            match ending {
                Ending::Aborted => Err(Error::Aborted(name)),
                Ending::Failed(why) => Err(failed(&name, "migrate", &why)),
                Ending::SourceDaemonGone => return,
            }
        }
    };
    let _ = done.send(result);
}

impl World {
    /// The target gives up on a guest that has not arrived, if its daemon is there to do so.
    fn drop_incoming(&mut self, target: &str, name: &str) {
        if let Some(host) = self.hosts.get(target)
            && host.daemon_up
            && host.processes.get(name).is_some_and(|process| process.arriving)
        {
            self.end_process(target, name, Stop::Failed, Stop::Failed);
        }
    }
}

async fn go(
    universe: &Universe,
    source: &str,
    target: &str,
    name: &str,
    how: &Migration,
) -> std::result::Result<(), Ending> {
    prepare(universe, source, target, name)?;
    tokio::time::sleep(PREPARE_TAKES).await;
    perform(universe, source, target, name, how).await?;
    let left = {
        let mut world = universe.lock();
        let physics = world.physics;
        let host = world.host(source);
        let left = host.jobs.get(name).map_or(0, |job| job.remaining);
        set_phase(host, name, Phase::SwitchOver);
        if let Some(process) = host.processes.get_mut(name)
            && process.running
        {
            process.running = false;
            process.pause = Pause::Migration;
            host.tell(name, Change::Suspended(Pause::Migration));
        }
        world.touch();
        Duration::from_secs_f64(left as f64 / rate(&physics, how) as f64)
    };
    let switch_over = Instant::now();
    tokio::time::sleep(left + TICK).await;
    {
        let mut world = universe.lock();
        world.check(source, target, name)?;
        world.check_target_process(target, name)?;
        set_phase(world.host(source), name, Phase::Finish);
        world.touch();
    }
    tokio::time::sleep(FINISH_TAKES).await;
    finish(universe, source, target, name, switch_over)?;
    tokio::time::sleep(FINISH_TAKES).await;
    let mut world = universe.lock();
    if !world.host(source).daemon_up {
        return Err(Ending::SourceDaemonGone);
    }
    if !world.link_up || world.hosts.get(target).is_none_or(|host| !host.daemon_up) {
        // The target has it, and the source never learns: it takes the guest back.
        return Err(Ending::Failed("the connection to the target's daemon closed".to_owned()));
    }
    world.host(source).jobs.remove(name);
    world.end_process(source, name, Stop::Migrated, Stop::Migrated);
    Ok(())
}

fn set_phase(host: &mut super::host::Host, name: &str, phase: Phase) {
    if let Some(job) = host.jobs.get_mut(name) {
        job.phase = phase;
    }
}

fn prepare(universe: &Universe, source: &str, target: &str, name: &str) -> std::result::Result<(), Ending> {
    let mut world = universe.lock();
    world.check(source, target, name)?;
    let Some((process, job)) = ({
        let host = world.host(source);
        host.processes.get(name).cloned().zip(host.jobs.get(name).cloned())
    }) else {
        return Err(Ending::Failed("the guest's process ended during the migration".to_owned()));
    };
    let host = world.host(target);
    if host.processes.contains_key(name) {
        return Err(Ending::Failed("the target has a guest of this name already".to_owned()));
    }
    if !host.capabilities.machines.contains(&process.domain.machine) {
        return Err(Ending::Failed(format!("the target does not know machine type {}", process.domain.machine)));
    }
    let waiting = Process { running: false, pause: Pause::Migration, arriving: true, lacks_disks: false, ..process };
    host.processes.insert(name.to_owned(), waiting);
    host.jobs.insert(name.to_owned(), Job { outgoing: false, ..job });
    host.tell(name, Change::Arriving);
    world.touch();
    Ok(())
}

fn rate(physics: &Physics, how: &Migration) -> u64 {
    let limit = how.bandwidth.map_or(u64::MAX, |mebibytes| mebibytes << 20);
    physics.link.min(limit).max(1)
}

/// Copies until what is left fits into the downtime.
async fn perform(
    universe: &Universe,
    source: &str,
    target: &str,
    name: &str,
    how: &Migration,
) -> std::result::Result<(), Ending> {
    let mut pass = 0_u64;
    loop {
        {
            let mut world = universe.lock();
            world.check(source, target, name)?;
            world.check_target_process(target, name)?;
            let physics = world.physics;
            let host = world.host(source);
            let running = host.processes.get(name).is_some_and(|process| process.running);
            let Some(job) = host.jobs.get_mut(name) else { return Err(Ending::Aborted) };
            job.phase = Phase::Perform;
            let new_pass = pass == 0;
            if new_pass {
                pass = job.remaining.max(1);
                job.iteration += 1;
                if how.auto_converge && job.iteration > 2 && job.throttle < THROTTLE_MAX {
                    let next = if job.throttle == 0 { THROTTLE_FIRST } else { job.throttle + THROTTLE_STEP };
                    job.throttle = next.min(THROTTLE_MAX);
                }
            }
            let seconds = TICK.as_secs_f64();
            let bytes = (rate(&physics, how) as f64 * seconds) as u64;
            let moved = bytes.min(job.remaining);
            job.processed += moved;
            job.remaining -= moved;
            pass = pass.saturating_sub(bytes);
            job.dirty_rate = if running { physics.dirty_rate * u64::from(100 - job.throttle) / 100 } else { 0 };
            let dirtied = (job.dirty_rate as f64 * seconds) as u64;
            job.remaining = (job.remaining + dirtied).min(physics.hot_set.max(job.remaining));
            let fits = (job.max_downtime.as_secs_f64() * rate(&physics, how) as f64) as u64;
            let converged = job.remaining <= fits && job.processed > 0;
            let number = job.iteration as u32;
            if new_pass {
                host.publish(&Event::Iteration { name: name.to_owned(), number });
            }
            world.touch();
            if converged {
                return Ok(());
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// The target has the guest, paused, and keeps it.
fn finish(
    universe: &Universe,
    source: &str,
    target: &str,
    name: &str,
    switch_over: Instant,
) -> std::result::Result<(), Ending> {
    let mut world = universe.lock();
    world.check_target_process(target, name)?;
    if !world.host(source).daemon_up {
        return Err(Ending::SourceDaemonGone);
    }
    if !world.host(target).daemon_up || !world.link_up {
        return Err(Ending::Failed("the connection to the target's daemon closed".to_owned()));
    }
    let statistics = world.host(source).jobs.get(name).map(|job| {
        let mut statistics = job.progress();
        statistics.remaining = 0;
        statistics.memory_remaining = 0;
        statistics.downtime = Some(switch_over.elapsed());
        statistics
    });
    let host = world.host(target);
    host.jobs.remove(name);
    if let Some(process) = host.processes.get_mut(name) {
        process.arriving = false;
        process.running = false;
        process.pause = Pause::User;
        let domain = process.domain.clone();
        host.stored.insert(name.to_owned(), domain);
    }
    host.tell(name, Change::Suspended(Pause::User));
    host.tell(name, Change::Defined);
    if let Some(statistics) = statistics {
        host.completed.insert(name.to_owned(), statistics);
        host.publish(&Event::JobCompleted { name: name.to_owned(), statistics });
    }
    world.touch();
    Ok(())
}
