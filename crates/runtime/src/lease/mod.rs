//! Leader election on a `coordination.k8s.io` Lease, and the fence every write of a leader asks first.
//!
//! Who is quiet and who writes: the leader renews every 5 s (12 writes a minute), a standby only watches (no write, no
//! polling). Whether a lease has run out is measured by this process's own monotonic clock from the moment a change of
//! the Lease was *seen*; the times written in the Lease are for people, so a wrong wall clock does no harm. Every claim
//! goes through the API server's compare-and-swap on `resourceVersion`.
//!
//! What it does not survive: somebody deletes the Lease and a process that never saw it starts before the holder writes it
//! again (up to 5 s). Such a process leads at once, because it cannot tell this from a fresh cluster, where waiting would
//! delay every installation. Clearing `holderIdentity` by hand has the same effect.
//!
//! This module never decides what a leader does.

mod elector;
mod fence;
mod record;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use fence::{Fence, NotLeader};

use crate::clock::Clock;

/// How long a lease holds without a renewal: what Kubernetes' own controllers use, so that a take-over after a crash
/// takes as long as people are used to.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How often the leader renews: twice within the time its fence holds, so one renewal may fail outright without losing
/// the lease, at 12 writes a minute.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How long before its lease runs out a leader stops writing.
///
/// A standby may take over no earlier than `LEASE_DURATION` after the API server stored the last renewal, which is after
/// the renewal was *sent*; the fence counts from that sending. What remains to be covered is a write that passed the
/// fence and is still on its way: it has to arrive within this margin. So a writer gives each request at most this long
/// (the same 5 s that other leader elections keep between renew deadline and lease). Clocks of two machines that run at
/// different speeds (below 0.1 %, 15 ms here) disappear in it.
pub const SAFETY_MARGIN: Duration = Duration::from_secs(5);

/// How long one request about the lease may take: two whole tries fit between a renewal that was due and the end of
/// the fence.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Which lease, and under which name.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    pub namespace: String,
    /// Name of the Lease object.
    pub name: String,
    /// Who holds it: the pod's name. Two processes must not share one.
    pub identity: String,
}

/// Where this process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Not the leader; `holder` is who is, as far as known.
    Standby { holder: Option<String> },
    /// The leader of this generation (the Lease's `leaseTransitions`), a number that only grows.
    Leader { generation: u64 },
}

impl Claim {
    /// Whether this process leads.
    pub fn leads(&self) -> bool {
        matches!(self, Self::Leader { .. })
    }
}

/// A running candidacy. Dropping it is like a crash: the lease is not released and runs out.
pub struct Election {
    claim: watch::Receiver<Claim>,
    fence: Fence,
    release: CancellationToken,
    task: JoinSet<()>,
}

impl Election {
    /// Stands for election until [`Self::release`] or drop. `seed` feeds the jitter of retries after a failure.
    pub fn start(config: LeaseConfig, client: kube::Client, clock: Clock, seed: u64) -> Self {
        let (sender, claim) = watch::channel(Claim::Standby { holder: None });
        let fence = Fence::closed();
        let release = CancellationToken::new();
        let elector = elector::Elector::new(config, client, clock, seed, sender, fence.clone());
        let mut task = JoinSet::new();
        task.spawn(elector.run(release.clone()));
        Self { claim, fence, release, task }
    }

    /// Where this process stands, now and whenever it changes. A loss is seen here by the fence's deadline at the latest.
    pub fn claim(&self) -> watch::Receiver<Claim> {
        self.claim.clone()
    }

    /// The fence to ask before every write.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Stops standing and, if this process leads, frees the lease so that a standby takes over at once. The fence closes
    /// before the lease is freed; call this when no write is under way any more.
    pub async fn release(mut self) {
        self.fence.close();
        self.release.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
