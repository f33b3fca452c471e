//! libvirt's numbers to our words. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use virt::domain::JobStats;
use virt_sys as sys;

use crate::hypervisor::{Capabilities, Change, Pause, Progress, State, Stop};

pub(super) fn state(state: sys::virDomainState, reason: i32) -> State {
    let reason = reason as u32;
    match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => State::Running,
        sys::VIR_DOMAIN_PAUSED => State::Paused(match reason {
            sys::VIR_DOMAIN_PAUSED_USER => Pause::User,
            sys::VIR_DOMAIN_PAUSED_MIGRATION => Pause::Migration,
            sys::VIR_DOMAIN_PAUSED_IOERROR => Pause::IoError,
            sys::VIR_DOMAIN_PAUSED_WATCHDOG => Pause::Watchdog,
            sys::VIR_DOMAIN_PAUSED_CRASHED => Pause::Crashed,
            sys::VIR_DOMAIN_PAUSED_STARTING_UP => Pause::StartingUp,
            sys::VIR_DOMAIN_PAUSED_POSTCOPY => Pause::Postcopy,
            sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => Pause::PostcopyFailed,
            _ => Pause::Other,
        }),
        sys::VIR_DOMAIN_PMSUSPENDED => State::Paused(Pause::User),
        sys::VIR_DOMAIN_SHUTDOWN => State::ShuttingDown,
        sys::VIR_DOMAIN_CRASHED => State::Stopped(Stop::Crashed),
        sys::VIR_DOMAIN_SHUTOFF => State::Stopped(match reason {
            sys::VIR_DOMAIN_SHUTOFF_UNKNOWN => Stop::NeverStarted,
            sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => Stop::Shutdown,
            sys::VIR_DOMAIN_SHUTOFF_DESTROYED => Stop::Destroyed,
            sys::VIR_DOMAIN_SHUTOFF_CRASHED => Stop::Crashed,
            sys::VIR_DOMAIN_SHUTOFF_MIGRATED => Stop::Migrated,
            sys::VIR_DOMAIN_SHUTOFF_FAILED => Stop::Failed,
            _ => Stop::Other,
        }),
        _ => State::Paused(Pause::Other),
    }
}

/// A lifecycle event; `None` for what nobody here needs (power management of the guest).
pub(super) fn change(event: i32, detail: i32) -> Option<Change> {
    let detail = detail as u32;
    Some(match event as u32 {
        sys::VIR_DOMAIN_EVENT_DEFINED => Change::Defined,
        sys::VIR_DOMAIN_EVENT_UNDEFINED => Change::Undefined,
        sys::VIR_DOMAIN_EVENT_STARTED if detail == sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED => Change::Arriving,
        sys::VIR_DOMAIN_EVENT_STARTED => Change::Started,
        sys::VIR_DOMAIN_EVENT_SUSPENDED => Change::Suspended(match detail {
            sys::VIR_DOMAIN_EVENT_SUSPENDED_PAUSED => Pause::User,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED => Pause::Migration,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR => Pause::IoError,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG => Pause::Watchdog,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY => Pause::Postcopy,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED => Pause::PostcopyFailed,
            _ => Pause::Other,
        }),
        sys::VIR_DOMAIN_EVENT_RESUMED => Change::Resumed,
        sys::VIR_DOMAIN_EVENT_SHUTDOWN => Change::ShuttingDown,
        sys::VIR_DOMAIN_EVENT_CRASHED => Change::Crashed,
        sys::VIR_DOMAIN_EVENT_STOPPED => Change::Stopped(match detail {
            sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => Stop::Shutdown,
            sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => Stop::Destroyed,
            sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED => Stop::Crashed,
            sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED => Stop::Migrated,
            sys::VIR_DOMAIN_EVENT_STOPPED_FAILED => Stop::Failed,
            _ => Stop::Other,
        }),
        _ => return None,
    })
}

pub(super) fn progress(statistics: &JobStats) -> Progress {
    let number = |value: Option<u64>| value.unwrap_or(0);
    Progress {
        elapsed: Duration::from_millis(number(statistics.time_elapsed)),
        total: number(statistics.data_total),
        processed: number(statistics.data_processed),
        remaining: number(statistics.data_remaining),
        memory_remaining: number(statistics.mem_remaining),
        disk_remaining: number(statistics.disk_remaining),
        iteration: number(statistics.mem_iteration),
        dirty_rate: number(statistics.mem_dirty_rate),
        downtime: statistics.downtime.map(Duration::from_millis),
        throttle: statistics.auto_converge_throttle.and_then(|percent| u32::try_from(percent).ok()).unwrap_or(0),
    }
}

/// `version` is `major * 1,000,000 + minor * 1,000 + release`.
fn version(version: u32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000)
}

/// The document is large and only two lists of it are needed; both stand in elements of their own.
pub(super) fn capabilities(xml: &str, libvirt: u32, qemu: u32) -> Capabilities {
    let x86_64 = xml.split("<arch name='x86_64'>").nth(1).and_then(|rest| rest.split("</arch>").next()).unwrap_or("");
    let machines: BTreeSet<String> = x86_64
        .split("<machine ")
        .skip(1)
        .filter_map(|rest| rest.split_once('>')?.1.split_once("</machine>"))
        .map(|(name, _)| name.to_owned())
        // Aliases such as `q35` mean something else on the next release.
        .filter(|name| name.contains('-'))
        .collect();
    Capabilities {
        libvirt: version(libvirt),
        qemu: version(qemu),
        machines: machines.into_iter().collect(),
        kvm: x86_64.contains("<domain type='kvm'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_types_are_read_from_the_guest_of_our_architecture() {
        let xml = "<guest><arch name='i686'><machine maxCpus='1'>pc-i440fx-1.0</machine></arch></guest>\
            <guest><arch name='x86_64'><machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>\
            <machine maxCpus='288'>pc-q35-7.2</machine><domain type='qemu'/><domain type='kvm'/></arch></guest>";
        let read = capabilities(xml, 9_000_000, 7_002_022);
        assert_eq!(read.machines, ["pc-q35-7.2"]);
        assert_eq!((read.libvirt.as_str(), read.qemu.as_str(), read.kvm), ("9.0.0", "7.2.22", true));
    }
}
