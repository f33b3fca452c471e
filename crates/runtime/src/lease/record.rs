//! What a Lease object says, and what one is written to say. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::{LEASE_DURATION, LeaseConfig};

/// A Lease as an elector reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// `None`: free.
    pub(super) holder: Option<String>,
    pub(super) generation: u64,
    /// How long the holder asked for.
    pub(super) duration: Duration,
    pub(super) acquired: Option<Timestamp>,
    pub(super) resource_version: String,
}

impl Record {
    pub(super) fn read(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
            generation: spec
                .and_then(|spec| spec.lease_transitions)
                .and_then(|count| u64::try_from(count).ok())
                .unwrap_or(0),
            duration: seconds.map_or(LEASE_DURATION, Duration::from_secs),
            acquired: spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0),
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// A term of office, won or applied for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) generation: u64,
    /// Wall-clock stamp, which also tells this application from any other.
    pub(super) acquired: Timestamp,
}

/// The Lease that claims or renews `term`. `resource_version` is what it must replace; `None` creates.
pub(super) fn held(config: &LeaseConfig, term: &Term, renewed: Timestamp, resource_version: Option<&str>) -> Lease {
    let seconds = i32::try_from(LEASE_DURATION.as_secs()).expect("a lease of seconds fits");
    Lease {
        metadata: meta(config, resource_version),
        spec: Some(LeaseSpec {
            holder_identity: Some(config.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(MicroTime(micros(term.acquired))),
            renew_time: Some(MicroTime(micros(renewed))),
            lease_transitions: Some(transitions(term.generation)),
            ..LeaseSpec::default()
        }),
    }
}

/// The Lease that frees `term`: no holder, the shortest duration, the count of transitions kept.
pub(super) fn freed(config: &LeaseConfig, term: &Term, now: Timestamp, resource_version: &str) -> Lease {
    Lease {
        metadata: meta(config, Some(resource_version)),
        spec: Some(LeaseSpec {
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(micros(term.acquired))),
            renew_time: Some(MicroTime(micros(now))),
            lease_transitions: Some(transitions(term.generation)),
            ..LeaseSpec::default()
        }),
    }
}

/// The wire carries microseconds; cutting here lets a stamp be compared with what comes back.
pub(super) fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

fn meta(config: &LeaseConfig, resource_version: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(config.name.clone()),
        namespace: Some(config.namespace.clone()),
        resource_version: resource_version.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

/// The field is 32 bits wide: two thousand million changes of leader.
fn transitions(generation: u64) -> i32 {
    i32::try_from(generation).unwrap_or(i32::MAX)
}
