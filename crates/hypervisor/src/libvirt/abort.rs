//! Giving up a migration so that it ends, and no guest with it.
//!
//! What was seen with libvirt 9.0 and QEMU 7.2 when a cancellation meets the switch-over, under load in one of ten attempts:
//!
//! - QEMU hands over its devices and is told to cancel: it fails an assertion, and the guest is gone. So from the moment the guest
//!   stands still for the switch-over nothing is given up any more; it takes a fraction of a second, and then the guest is on one side.
//! - QEMU has cancelled and lets the guest run again before libvirt looks whether it stands still. libvirt waits for it to stop, which
//!   it does no more, and nothing ends the migration. A stop of a few milliseconds is what it waits for.
//! - QEMU's migration thread has found that nobody cancelled and is about to wait for libvirt's leave to switch over. Cancelled just
//!   then, it is "cancelling" for ever, waits for a leave that nobody gives any more, and the guest stands still. The leave makes it
//!   look again.

use std::time::Duration;

use tokio::time::Instant;
use virt::domain::Domain as Guest;

use super::{Libvirt, convert, ffi};
use crate::hypervisor::{Error, Hypervisor, Pause, Result, State};

/// How long a cancellation may take before it counts as missed. It takes a few milliseconds, and the guest may be standing still
/// meanwhile. Too early does no harm: QEMU forgets leaves that came before it waits.
const CANCELS_WITHIN: Duration = Duration::from_millis(250);
/// Between two looks at the job.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// How long the guest stands still so that libvirt sees it: well below the pauses that a migration may cost anyway.
const STOP_FOR: Duration = Duration::from_millis(50);

/// Leave to go on, which QEMU takes only from a migration that is being cancelled: any other is not touched.
const LEAVE: &str = r#"{"execute": "migrate-continue", "arguments": {"state": "cancelling"}}"#;
const LOOK: &str = r#"{"execute": "query-migrate"}"#;
const STOP: &str = r#"{"execute": "stop"}"#;
const GO_ON: &str = r#"{"execute": "cont"}"#;

const OPERATION: &str = "abort the migration of";

pub(super) async fn abort(client: &Libvirt, name: &str) -> Result<()> {
    // One after the other in one go: a migration gets from running to its switch-over within milliseconds.
    let is_too_late = client.on_domain(name, OPERATION, |domain| {
        let (state, reason) = domain.get_state()?;
        let is_too_late = match convert::state(state, reason) {
            State::Paused(pause) => is_too_late(pause, &status(&tell(domain, LOOK)?)),
            _ => false,
        };
        if !is_too_late {
            ffi::abort_job(domain)?;
        }
        Ok(is_too_late)
    });
    if is_too_late.await? {
        let why = "the guest stands still for the switch-over, which is over in a moment".to_owned();
        return Err(Error::WrongState { name: name.to_owned(), operation: OPERATION, why });
    }
    if ends(client, name).await {
        return Ok(());
    }
    // libvirt has accepted the wish; should one of these be refused, it was not what was missing.
    let _ = client.on_domain(name, OPERATION, |domain| tell(domain, LEAVE)).await;
    if ends(client, name).await {
        return Ok(());
    }
    // Only a guest that surely stays is told to go on: QEMU itself says that it cancelled.
    let stop = |domain: &Guest| match has_cancelled(&status(&tell(domain, LOOK)?)) {
        true => tell(domain, STOP).map(|_| true),
        false => Ok(false),
    };
    if client.state(name).await? == State::Running && client.on_domain(name, OPERATION, stop).await? {
        tokio::time::sleep(STOP_FOR).await;
        client.on_domain(name, OPERATION, |domain| tell(domain, GO_ON)).await?;
    }
    Ok(())
}

/// Whether the migration ends soon. One that cannot be asked about counts as ended: there is nothing to do about it here.
async fn ends(client: &Libvirt, name: &str) -> bool {
    let asked = Instant::now();
    while asked.elapsed() < CANCELS_WITHIN {
        if !matches!(client.progress(name).await, Ok(Some(_))) {
            return true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
}

/// What QEMU answers.
fn tell(domain: &Guest, command: &str) -> std::result::Result<String, virt::error::Error> {
    domain.qemu_monitor_command(command, 0)
}

/// QEMU's own word for how far its migration is, empty when there was none.
fn status(answer: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    answer["return"]["status"].as_str().unwrap_or_default().to_owned()
}

/// Whether QEMU's migration is over and the guest here to stay.
fn has_cancelled(status: &str) -> bool {
    matches!(status, "cancelled" | "failed")
}

/// Whether a guest that stands still is being switched over. One that was stopped by request may still be copied.
fn is_too_late(pause: Pause, status: &str) -> bool {
    match status {
        "cancelling" => false,
        "pre-switchover" | "device" | "completed" => true,
        _ => pause == Pause::Migration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_says_how_far_it_is() {
        assert_eq!(status(r#"{"return":{"status":"cancelled"},"id":"libvirt-487"}"#), "cancelled");
        for answer in [r#"{"return":{}}"#, r#"{"error":{"class":"GenericError"}}"#, ""] {
            assert_eq!(status(answer), "", "{answer}");
        }
        assert!(has_cancelled("cancelled") && !has_cancelled("cancelling") && !has_cancelled(""));
    }

    #[test]
    fn nothing_is_given_up_once_the_guest_stands_still_for_the_switch_over() {
        for status in ["active", "pre-switchover", "device", "completed"] {
            assert!(is_too_late(Pause::Migration, status), "{status}");
        }
        assert!(!is_too_late(Pause::Migration, "cancelling"), "it was given up already and may have missed it");
        assert!(!is_too_late(Pause::User, "active"), "stopped so that it converges");
        assert!(is_too_late(Pause::User, "device"));
    }
}
