//! What all nodes share, and the one task that hands pods to their workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Pod;
use nanokube_controllers::cache::{Change, Fed, Watch, follow};
use nanokube_controllers::events::Recorder;
use nanokube_controllers::kinds::{Kind, Objects};
use nanokube_controllers::pods::{has_ended, node_name};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::node::Machine;
use crate::pod;
use crate::process::Shared;

/// Events waiting to be applied.
const EVENTS: usize = 1024;

/// What all workers share.
pub(crate) struct Fleet {
    pub(crate) options: Options,
    pub(crate) machines: BTreeMap<String, Machine>,
    /// Pods, Secrets and ConfigMaps, as the watch shows them. Never held across an await.
    pub(crate) objects: RwLock<Objects>,
    /// Counts changes of Secrets and ConfigMaps, for those who wait for one.
    pub(crate) sources: watch::Sender<u64>,
    pub(crate) recorder: Recorder,
    /// Pod addresses in use, and the last one given, per node.
    addresses: Mutex<BTreeMap<String, (u8, BTreeSet<u8>)>>,
    /// Images that a node has pulled.
    pulled: Mutex<BTreeSet<(String, String)>>,
    /// Set where pods are processes.
    pub(crate) processes: Option<Arc<Shared>>,
}

impl Fleet {
    /// Reads the stores.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Objects) -> T) -> T {
        look(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A free pod address on a node. Addresses are given in turn, so one is not reused while someone may still dial it.
    pub(crate) fn take_address(&self, machine: &Machine) -> Option<IpAddr> {
        /// The first host number: 0 is the network, 1 its gateway.
        const FIRST: u8 = 2;
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, used) = addresses.entry(machine.name.clone()).or_insert_with(|| (FIRST - 1, BTreeSet::new()));
        let free =
            (*last..u8::MAX).skip(1).chain(FIRST..=*last).find(|number| *number >= FIRST && !used.contains(number))?;
        *last = free;
        used.insert(free);
        Some(machine.pod_ip(free))
    }

    /// Gives an address back.
    pub(crate) fn free_address(&self, machine: &Machine, ip: IpAddr) {
        if let IpAddr::V4(ip) = ip {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, used)) = addresses.get_mut(&machine.name) {
                used.remove(&ip.octets()[3]);
            }
        }
    }

    /// Notes that a node has an image; whether it had it before.
    pub(crate) fn pulled(&self, node: &str, image: &str) -> bool {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        !pulled.insert((node.to_owned(), image.to_owned()))
    }
}

/// A pod's worker, seen from the task that feeds it.
struct Feed {
    pod: watch::Sender<Arc<Pod>>,
}

pub(crate) async fn run(options: Options, processes: Option<Arc<Shared>>, stop: CancellationToken) {
    let numbers = options.first_number..options.first_number + options.count;
    let machine = |number| match &processes {
        Some(shared) => Machine::on_loopback(number, shared.block()),
        None => Machine::new(number),
    };
    let machines = numbers.map(machine).map(|machine| (machine.name.clone(), machine)).collect();
    let fleet = Arc::new(Fleet {
        recorder: Recorder::new(options.clock.clone()),
        machines,
        objects: RwLock::new(Objects::default()),
        sources: watch::Sender::new(0),
        addresses: Mutex::default(),
        pulled: Mutex::default(),
        processes,
        options,
    });
    let (to, events) = mpsc::channel(EVENTS);
    let mut tasks = JoinSet::new();
    for kind in [Kind::Secret, Kind::ConfigMap, Kind::Pod] {
        tasks.spawn(follow(fleet.options.client.clone(), Watch::all(kind), to.clone()));
    }
    drop(to);
    tasks.spawn(crate::heartbeat::run(fleet.clone()));
    if let Some(shared) = &fleet.processes {
        for machine in fleet.machines.values() {
            tasks.spawn(crate::process::serve(fleet.clone(), machine.clone(), shared.clone()));
        }
    }
    tokio::select! {
        () = stop.cancelled() => {}
        () = feed(fleet, events) => {}
    }
}

/// Applies events and keeps one worker per pod of ours. Dropping this future drops every worker.
async fn feed(fleet: Arc<Fleet>, mut events: mpsc::Receiver<Fed>) {
    let mut workers: BTreeMap<String, Feed> = BTreeMap::new();
    let mut running: JoinSet<String> = JoinSet::new();
    let mut held: Vec<Change> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => {
                if let Ok(uid) = ended {
                    workers.remove(&uid);
                }
            }
            Some(Fed { kind, update }) = events.recv() => {
                let (changes, all) = {
                    let mut objects = fleet.objects.write().unwrap_or_else(PoisonError::into_inner);
                    let changes = update(&mut objects, &mut Vec::new());
                    (changes, objects.secrets.synced() && objects.config_maps.synced() && objects.pods.synced())
                };
                if kind != Kind::Pod && !changes.is_empty() {
                    fleet.sources.send_modify(|count| *count += 1);
                }
                if kind == Kind::Pod {
                    held.extend(changes);
                }
                // Before the Secrets are known, a pod that mounts one would seem to lack it.
                if all {
                    for change in held.drain(..) {
                        hand_out(&fleet, &mut workers, &mut running, change);
                    }
                }
            }
            else => return,
        }
    }
}

fn hand_out(fleet: &Arc<Fleet>, workers: &mut BTreeMap<String, Feed>, running: &mut JoinSet<String>, change: Change) {
    let uid_of = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    let new = change.new.as_ref().and_then(|object| object.as_pod());
    if let Some(old) = change.old.as_ref().and_then(|object| object.as_pod())
        && new.is_none_or(|new| uid_of(new) != uid_of(old))
    {
        // Without a sender the worker learns that its pod is gone from the API, and drops everything.
        workers.remove(&uid_of(old));
    }
    let Some(pod) = new else { return };
    let uid = uid_of(pod);
    if let Some(worker) = workers.get(&uid) {
        worker.pod.send_replace(pod.clone());
        return;
    }
    let Some(machine) = node_name(pod).and_then(|node| fleet.machines.get(node)) else { return };
    if has_ended(pod) && pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let (sender, receiver) = watch::channel(pod.clone());
    workers.insert(uid.clone(), Feed { pod: sender });
    let (fleet, machine) = (fleet.clone(), machine.clone());
    running.spawn(async move {
        pod::run(fleet, machine, receiver).await;
        uid
    });
}
