//! Registration, leases and status of all nodes, written by one task at an even pace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
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
use tokio::time::Instant;
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
    /// Since when each node says that it is ready.
    since: BTreeMap<String, Timestamp>,
    /// Nodes whose status must be written though nothing in it changed: others have overwritten it, or the last write
    /// failed.
    owed: BTreeSet<String>,
    /// What is being written, at most [`RENEWING`].
    running: FuturesUnordered<BoxFuture<'static, Spoken>>,
}

/// A node has spoken; whether its status was written, if that was tried.
struct Spoken {
    node: String,
    status: Option<bool>,
}

/// Registers all nodes and then renews their leases for ever. Nodes named by `wakes` speak at once.
pub(crate) async fn run(fleet: Arc<Fleet>, mut wakes: mpsc::UnboundedReceiver<String>) {
    let started = fleet.options.clock.now();
    let interval = interval(&fleet.options.heartbeats, fleet.options.count);
    futures::stream::iter(fleet.machines.values())
        .for_each_concurrent(REGISTERING, |machine| register(&fleet, machine, started, interval))
        .await;
    let Some(pace) = interval.checked_div(fleet.options.count) else {
        return std::future::pending().await;
    };
    let since = fleet.machines.keys().map(|name| (name.clone(), started)).collect();
    let running = FuturesUnordered::new();
    let mut voices = Voices { fleet: fleet.clone(), interval, since, owed: BTreeSet::new(), running };
    let mut next = Instant::now() + pace;
    let mut status_due = Instant::now() + fleet.options.heartbeats.status;
    loop {
        let with_status = Instant::now() >= status_due;
        if with_status {
            status_due = Instant::now() + fleet.options.heartbeats.status;
        }
        for machine in fleet.machines.values() {
            loop {
                let full = voices.running.len() >= RENEWING;
                tokio::select! {
                    biased;
                    Some(spoken) = voices.running.next() => voices.note(spoken),
                    Some(name) = wakes.recv(), if !full => voices.speak_up(&name),
                    () = tokio::time::sleep_until(next), if !full => break,
                }
            }
            next = (next + pace).max(Instant::now());
            if fleet.options.power.is_on(&machine.name) {
                voices.renew(machine, with_status);
            }
        }
    }
}

impl Voices {
    fn note(&mut self, Spoken { node, status }: Spoken) {
        match status {
            Some(true) => _ = self.owed.remove(&node),
            Some(false) => _ = self.owed.insert(node),
            None => {}
        }
    }

    /// A node's turn.
    fn renew(&mut self, machine: &Machine, with_status: bool) {
        let with_status = with_status || self.owed.contains(&machine.name);
        let since = self.since.get(&machine.name).copied().unwrap_or_else(|| self.fleet.options.clock.now());
        let (fleet, machine, interval) = (self.fleet.clone(), machine.clone(), self.interval);
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
        self.since.insert(name.to_owned(), since);
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
