//! Giving up a migration so that it ends, and no guest with it.
//!
//! What was seen with libvirt 9.0 and QEMU 7.2 when a cancellation meets the switch-over, under load in one of ten attempts:
//!
//! - QEMU hands over its devices and is told to cancel: it fails an assertion, and the guest is gone. So while the guest stands still
//!   for the switch-over nothing is given up; that takes a fraction of a second, and then the guest is on one side.
//! - QEMU has cancelled and lets the guest run again before libvirt looks whether it stands still. libvirt waits for it to stop, which
//!   it does no more, and nothing ends the migration. A short stop is what it waits for.
//! - QEMU's migration thread has found that nobody cancelled and is about to wait for libvirt's leave to switch over. Cancelled just
//!   then, it is "cancelling" for ever, waits for a leave that nobody gives any more, and the guest stands still. The leave makes it
//!   look again.
//!
//! Looking and aborting are two calls. Between them a daemon with too much to do could get from a running guest to the handing over of
//! devices, which takes it half a dozen exchanges with QEMU: the first case is made unlikely, not impossible.

use std::time::Duration;

use tokio::time::Instant;
use virt::domain::Domain as Guest;

use super::qmp::{GO_ON, STOP, Told, status, tell};
use super::{Libvirt, convert, ffi};
use crate::hypervisor::{Error, Hypervisor, Result, State};

/// How long a cancellation may take before it counts as missed. It takes a few milliseconds, and the guest may be standing still
/// meanwhile. Too early does no harm: QEMU forgets leaves that came before it waits.
const CANCELS_WITHIN: Duration = Duration::from_millis(250);
/// How long what was missed is made up for. Whoever asked waits so long at most, and may ask again.
const MADE_UP_WITHIN: Duration = Duration::from_secs(10);
/// How long the guest may stand still while QEMU waits for libvirt to switch over before that counts as stuck (a copy of a disk whose
/// connection is dead): then nothing has been handed over, and it may still be given up.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at the job.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// How long the guest stands still so that libvirt sees it, unless the migration ends before: well below the pauses that a migration
/// may cost anyway.
const STOP_FOR: Duration = Duration::from_millis(100);

/// Leave to go on, which QEMU takes only from a migration that is being cancelled: any other is not touched.
const LEAVE: &str = r#"{"execute": "migrate-continue", "arguments": {"state": "cancelling"}}"#;
const HOW_FAR: &str = r#"{"execute": "query-migrate"}"#;
const WHY_STILL: &str = r#"{"execute": "query-status"}"#;

const OPERATION: &str = "abort the migration of";

/// Whether it may be given up now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chance {
    Now,
    /// QEMU waits for libvirt; nothing is handed over yet.
    Waits,
    /// Devices are being handed over, or will be at once.
    Gone,
}

pub(super) async fn abort(client: &Libvirt, name: &str) -> Result<()> {
    let asked = Instant::now();
    loop {
        let is_stuck = asked.elapsed() >= LEAVES_WITHIN;
        // One after the other in one go: a migration gets from running to its switch-over within milliseconds.
        let chance = client.on_domain(name, OPERATION, move |domain| {
            let chance = chance(domain)?;
            if chance == Chance::Now || chance == Chance::Waits && is_stuck {
                ffi::abort_job(domain)?;
                return Ok(Chance::Now);
            }
            Ok(chance)
        });
        match chance.await? {
            Chance::Now => break,
            Chance::Waits => tokio::time::sleep(LOOK_AGAIN).await,
            Chance::Gone => {
                let why = "the guest stands still for the switch-over, which is over in a moment".to_owned();
                return Err(Error::WrongState { name: name.to_owned(), operation: OPERATION, why });
            }
        }
    }
    make_up(client, name).await
}

fn chance(domain: &Guest) -> Told<Chance> {
    let (state, reason) = domain.get_state()?;
    match convert::state(state, reason) {
        State::Paused(_) => Ok(chance_of_still(&status(&tell(domain, HOW_FAR)?), &status(&tell(domain, WHY_STILL)?))),
        _ => Ok(Chance::Now),
    }
}

/// What QEMU says of a guest that stands still: how far its migration is, and in what state the guest is. Only the latter tells whether it
/// was stopped by request or is being switched over; the former may be of an earlier migration, also of one that brought the guest here.
fn chance_of_still(migration: &str, guest: &str) -> Chance {
    match (migration, guest) {
        ("cancelling", _) => Chance::Now,
        ("pre-switchover", "finish-migrate") => Chance::Waits,
        (_, "finish-migrate" | "postmigrate") => Chance::Gone,
        _ => Chance::Now,
    }
}

/// Gives libvirt and QEMU what they wait for, until the migration has ended.
async fn make_up(client: &Libvirt, name: &str) -> Result<()> {
    let asked = Instant::now();
    while !ends(client, name, CANCELS_WITHIN).await && asked.elapsed() < MADE_UP_WITHIN {
        // libvirt has accepted the wish; should QEMU refuse, it was not the leave that was missing.
        let _ = client.on_domain(name, OPERATION, |domain| tell(domain, LEAVE)).await;
        if ends(client, name, CANCELS_WITHIN).await {
            break;
        }
        // Only a guest that surely stays is told to go on: QEMU itself says that it cancelled.
        let stopped = client.on_domain(name, OPERATION, |domain| {
            let (state, reason) = domain.get_state()?;
            if convert::state(state, reason) != State::Running || !has_cancelled(&status(&tell(domain, HOW_FAR)?)) {
                return Ok(false);
            }
            tell(domain, STOP).map(|_| true)
        });
        if stopped.await? {
            ends(client, name, STOP_FOR).await;
            client.on_domain(name, OPERATION, |domain| tell(domain, GO_ON)).await?;
        }
    }
    Ok(())
}

/// Whether the migration ends soon. One that cannot be asked about counts as ended: there is nothing to do about it here.
async fn ends(client: &Libvirt, name: &str, within: Duration) -> bool {
    let asked = Instant::now();
    while asked.elapsed() < within {
        if !matches!(client.progress(name).await, Ok(Some(_))) {
            return true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
}

/// Whether QEMU's migration is over and the guest here to stay.
fn has_cancelled(status: &str) -> bool {
    matches!(status, "cancelled" | "failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_was_given_up_is_known_by_qemus_word() {
        assert!(has_cancelled("cancelled") && !has_cancelled("cancelling") && !has_cancelled(""));
    }

    #[test]
    fn nothing_is_given_up_while_the_guest_is_switched_over() {
        for migration in ["active", "device", "completed"] {
            assert_eq!(chance_of_still(migration, "finish-migrate"), Chance::Gone, "{migration}");
        }
        assert_eq!(chance_of_still("completed", "postmigrate"), Chance::Gone);
        assert_eq!(chance_of_still("pre-switchover", "finish-migrate"), Chance::Waits);
        assert_eq!(
            chance_of_still("cancelling", "finish-migrate"),
            Chance::Now,
            "it was given up, and may have missed it"
        );
    }

    #[test]
    fn a_guest_that_was_stopped_by_request_may_be_given_up_whatever_an_earlier_migration_came_to() {
        for migration in ["", "setup", "active", "completed", "cancelled", "failed"] {
            assert_eq!(chance_of_still(migration, "paused"), Chance::Now, "{migration}");
        }
    }
}
