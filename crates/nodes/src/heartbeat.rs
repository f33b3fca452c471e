//! Registration, leases and status of all nodes, written by one task at an even pace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nanokube_controllers::action::Note;
use nanokube_controllers::cache::Name;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, warn};

use crate::Heartbeats;
use crate::fleet::Fleet;
use crate::node::Machine;

const LEASES: &str = "kube-node-lease";
/// A lease holds for as many renewals as a kubelet's does: 40 s at one every 10 s.
const RENEWALS: u32 = 4;
/// Pause after a failed registration.
const RETRY: Duration = Duration::from_millis(500);
/// Nodes that register at once.
const REGISTERING: usize = 16;

/// Renewals under way at once. One after another they would be as slow as the server's answers: with a hundred due in a
/// second, answers that take 50 ms would make live nodes look dead, and their pods would be moved, which makes answers
/// slower still.
const RENEWING: usize = 32;

/// Who has spoken, and who has to.
struct Voices {
    fleet: Arc<Fleet>,
    interval: Duration,
    /// The nodes that have joined.
    present: BTreeMap<String, Present>,
    /// When each of them is to speak next.
    turns: BTreeSet<(Instant, String)>,
    /// Nodes whose status must be written though nothing in it changed: others have overwritten it, or the last write
    /// failed.
    owed: BTreeSet<String>,
    /// What is being written, at most [`RENEWING`].
    running: FuturesUnordered<BoxFuture<'static, Spoken>>,
}

/// A node that has joined.
#[derive(Clone, Copy)]
struct Present {
    /// Since when it says that it is ready.
    since: Timestamp,
    /// When its status is to be written again though nothing in it changed.
    status_due: Instant,
}

/// A node has spoken; whether its status was written, if that was tried.
struct Spoken {
    node: String,
    status: Option<bool>,
}

/// Registers the nodes one after the other and renews the leases of those that have joined, for ever. Nodes named by `wakes` speak at
/// once.
pub(crate) async fn run(fleet: Arc<Fleet>, mut wakes: mpsc::UnboundedReceiver<String>) {
    let interval = interval(&fleet.options.heartbeats, fleet.options.count);
    let (to, mut joined) = mpsc::unbounded_channel();
    let voices = Voices {
        fleet: fleet.clone(),
        interval,
        present: BTreeMap::new(),
        turns: BTreeSet::new(),
        owed: BTreeSet::new(),
        running: FuturesUnordered::new(),
    };
    futures::future::join(join(&fleet, interval, to), voices.beat(&mut joined, &mut wakes)).await;
}

/// Registers all nodes, and says of each since when it is ready.
async fn join(fleet: &Fleet, interval: Duration, joined: mpsc::UnboundedSender<(String, Timestamp)>) {
    let every = fleet.options.join_every;
    let turns: BoxStream<'_, ()> = if every.is_zero() {
        futures::stream::repeat(()).boxed()
    } else {
        let mut turns = tokio::time::interval(every);
        // A server that had too much to do is not given more at once afterwards.
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        futures::stream::unfold(turns, async |mut turns| Some((_ = turns.tick().await, turns))).boxed()
    };
    turns
        .zip(futures::stream::iter(fleet.machines.values()))
        .for_each_concurrent(REGISTERING, |((), machine)| {
            let joined = joined.clone();
            async move {
                let since = fleet.options.clock.now();
                register(fleet, machine, since, interval).await;
                // Who listens ends no sooner than this.
                let _ = joined.send((machine.name.clone(), since));
            }
        })
        .await;
}

impl Voices {
    /// Gives each node that has joined its turns.
    async fn beat(
        mut self,
        joined: &mut mpsc::UnboundedReceiver<(String, Timestamp)>,
        wakes: &mut mpsc::UnboundedReceiver<String>,
    ) {
        // Nodes that joined together do not speak together.
        let pace = self.interval / self.fleet.options.count.max(1);
        let mut last_first = Instant::now();
        loop {
            let full = self.running.len() >= RENEWING;
            let turn = self.turns.first().map(|(due, _)| *due);
            tokio::select! {
                biased;
                Some(spoken) = self.running.next() => self.note(spoken),
                Some((name, since)) = joined.recv() => {
                    let status_due = Instant::now() + self.fleet.options.heartbeats.status;
                    last_first = last_first.max(Instant::now()) + pace;
                    self.turns.insert((last_first, name.clone()));
                    self.present.insert(name, Present { since, status_due });
                }
                Some(name) = wakes.recv(), if !full => self.speak_up(&name),
                () = tokio::time::sleep_until(turn.unwrap_or(last_first)), if !full && turn.is_some() => self.renew_first(),
                else => return,
            }
        }
    }

    fn note(&mut self, Spoken { node, status }: Spoken) {
        match status {
            Some(true) => _ = self.owed.remove(&node),
            Some(false) => _ = self.owed.insert(node),
            None => {}
        }
    }

    /// The turn of whoever has waited longest.
    fn renew_first(&mut self) {
        let Some((due, name)) = self.turns.pop_first() else { return };
        self.turns.insert((next_turn(due, self.interval, Instant::now()), name.clone()));
        let (Some(machine), Some(present)) = (self.fleet.machines.get(&name).cloned(), self.present.get_mut(&name))
        else {
            return;
        };
        if !self.fleet.options.power.is_on(&name) {
            return;
        }
        let is_due = Instant::now() >= present.status_due;
        if is_due {
            present.status_due = Instant::now() + self.fleet.options.heartbeats.status;
        }
        let with_status = is_due || self.owed.contains(&name);
        let (fleet, since, interval) = (self.fleet.clone(), present.since, self.interval);
        self.running.push(Box::pin(async move {
            renew(&fleet, &machine, interval).await;
            let status = if with_status { Some(write_status(&fleet, &machine, since).await) } else { None };
            Spoken { node: machine.name, status }
        }));
    }

    /// A node that others may take for dead renews its lease and writes its status at once.
    fn speak_up(&mut self, name: &str) {
        let fleet = self.fleet.clone();
        let Some(machine) = fleet.machines.get(name).filter(|_| fleet.options.power.is_on(name)).cloned() else {
            return;
        };
        let (since, interval) = (fleet.options.clock.now(), self.interval);
        // One that has yet to join speaks when it does.
        let Some(present) = self.present.get_mut(name) else { return };
        present.since = since;
        self.running.push(Box::pin(async move {
            renew(&fleet, &machine, interval).await;
            let status = Some(write_status(&fleet, &machine, since).await);
            let name = machine.name;
            let node = fleet.read(|objects| objects.nodes.get(&Name::new("", name.as_str())).cloned());
            if let Some(node) = node {
                let text = format!("Node {name} status is now: NodeReady");
                let mut note = Note::normal(node.as_ref(), "kubelet", "NodeReady", text);
                note.host = Some(name.clone());
                fleet.recorder.record(&fleet.options.client, note).await;
            }
            Spoken { node: name, status }
        }));
    }
}

/// A node's turn after the one that was due. Turns that were missed are left out, so that those of many nodes stay apart.
fn next_turn(due: Instant, interval: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due).as_nanos().checked_div(interval.as_nanos());
    due + interval.saturating_mul(late.and_then(|late| u32::try_from(late).ok()).unwrap_or(0).saturating_add(1))
}

/// The unit of [`Heartbeats::WRITES_PER_SECOND`].
const SECOND: Duration = Duration::from_secs(1);

/// The time between two renewals of one lease.
fn interval(heartbeats: &Heartbeats, count: u32) -> Duration {
    heartbeats.lease.max(SECOND * count / Heartbeats::WRITES_PER_SECOND)
}

async fn register(fleet: &Fleet, machine: &Machine, started: Timestamp, interval: Duration) {
    let api: Api<Node> = Api::all(fleet.options.client.clone());
    let node = machine.object(&fleet.options.labels);
    loop {
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => break,
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                // A node that comes back keeps what others have put on it.
                let patch = json!({"metadata": {"labels": node.metadata.labels}});
                match api.patch(&machine.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    Ok(_) => break,
                    Err(error) => warn!(node = machine.name, %error, "node not registered, trying again"),
                }
            }
            Err(error) => warn!(node = machine.name, %error, "node not registered, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
    while !write_status(fleet, machine, started).await {
        tokio::time::sleep(RETRY).await;
    }
    renew(fleet, machine, interval).await;
}

async fn write_status(fleet: &Fleet, machine: &Machine, since: Timestamp) -> bool {
    let api: Api<Node> = Api::all(fleet.options.client.clone());
    let status = machine.status(&fleet.options.capacity, since, fleet.options.clock.now());
    // Resources that others announce (device plugins) are merged with, not removed.
    let patch = Patch::Merge(json!({"status": status}));
    match api.patch_status(&machine.name, &PatchParams::default(), &patch).await {
        Ok(_) => true,
        Err(error) => {
            warn!(node = machine.name, %error, "node status not written");
            false
        }
    }
}

async fn renew(fleet: &Fleet, machine: &Machine, interval: Duration) {
    let api: Api<Lease> = Api::namespaced(fleet.options.client.clone(), LEASES);
    let now = MicroTime(fleet.options.clock.now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match api.patch(&machine.name, &PatchParams::default(), &patch).await {
        Ok(_) => return,
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return debug!(node = machine.name, %error, "lease not renewed"),
    }
    let nodes: Api<Node> = Api::all(fleet.options.client.clone());
    let uid = match nodes.get_metadata(&machine.name).await {
        Ok(node) => node.metadata.uid.unwrap_or_default(),
        Err(error) => return debug!(node = machine.name, %error, "lease not created"),
    };
    let seconds = (interval * RENEWALS).as_secs();
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(machine.name.clone()),
            namespace: Some(LEASES.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: machine.name.clone(),
                uid,
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(machine.name.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    if let Err(error) = api.create(&PostParams::default(), &lease).await {
        debug!(node = machine.name, %error, "lease not created");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_that_were_missed_do_not_bring_nodes_together() {
        let (began, interval) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(next_turn(at(3), interval, at(3)), at(13));
        assert_eq!(next_turn(at(3), interval, at(12)), at(13), "late, but not by a turn");
        assert_eq!(next_turn(at(3), interval, at(45)), at(53), "four turns late");
        assert_eq!(next_turn(at(6), interval, at(45)), at(46), "and another node stays apart from it");
    }
}
