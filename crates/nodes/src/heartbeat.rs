//! Registration, leases and status of all nodes, written by one task at an even pace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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

/// Who has spoken, and who has to.
struct Voices {
    /// Since when each node says that it is ready.
    since: BTreeMap<String, Timestamp>,
    /// Nodes whose status must be written though nothing in it changed: others have overwritten it, or the last write
    /// failed.
    owed: BTreeSet<String>,
}

/// Registers all nodes and then renews their leases for ever. Nodes named by `wakes` speak at once.
pub(crate) async fn run(fleet: Arc<Fleet>, mut wakes: mpsc::UnboundedReceiver<String>) {
    use futures::StreamExt;
    let started = fleet.options.clock.now();
    let interval = interval(&fleet.options.heartbeats, fleet.options.count);
    futures::stream::iter(fleet.machines.values())
        .for_each_concurrent(REGISTERING, |machine| register(&fleet, machine, started, interval))
        .await;
    let Some(pace) = interval.checked_div(fleet.options.count) else {
        return std::future::pending().await;
    };
    let since = fleet.machines.keys().map(|name| (name.clone(), started)).collect();
    let mut voices = Voices { since, owed: BTreeSet::new() };
    let mut next = Instant::now() + pace;
    let mut status_due = Instant::now() + fleet.options.heartbeats.status;
    loop {
        let with_status = Instant::now() >= status_due;
        if with_status {
            status_due = Instant::now() + fleet.options.heartbeats.status;
        }
        for machine in fleet.machines.values() {
            loop {
                tokio::select! {
                    biased;
                    Some(name) = wakes.recv() => voices.speak_up(&fleet, &name, interval).await,
                    () = tokio::time::sleep_until(next) => break,
                }
            }
            next = (next + pace).max(Instant::now());
            if !fleet.options.power.is_on(&machine.name) {
                continue;
            }
            renew(&fleet, machine, interval).await;
            if with_status || voices.owed.contains(&machine.name) {
                voices.write(&fleet, machine).await;
            }
        }
    }
}

impl Voices {
    /// A node that others may take for dead renews its lease and writes its status at once.
    async fn speak_up(&mut self, fleet: &Fleet, name: &str, interval: Duration) {
        let Some(machine) = fleet.machines.get(name).filter(|_| fleet.options.power.is_on(name)) else { return };
        self.since.insert(name.to_owned(), fleet.options.clock.now());
        renew(fleet, machine, interval).await;
        self.write(fleet, machine).await;
        let node = fleet.read(|objects| objects.nodes.get(&Name::new("", name)).cloned());
        if let Some(node) = node {
            let text = format!("Node {name} status is now: NodeReady");
            let mut note = Note::normal(node.as_ref(), "kubelet", "NodeReady", text);
            note.host = Some(name.to_owned());
            fleet.recorder.record(&fleet.options.client, note).await;
        }
    }

    async fn write(&mut self, fleet: &Fleet, machine: &Machine) {
        let since = self.since.get(&machine.name).copied().unwrap_or_else(|| fleet.options.clock.now());
        if write_status(fleet, machine, since).await {
            self.owed.remove(&machine.name);
        } else {
            self.owed.insert(machine.name.clone());
        }
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
