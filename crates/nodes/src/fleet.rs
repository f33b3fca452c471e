//! What all nodes share, and the one task that hands pods to their workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Pod;
use nanokube_controllers::cache::{Change, Fed, Watch, follow};
use nanokube_controllers::events::Recorder;
use nanokube_controllers::kinds::{Kind, Object, Objects};
use nanokube_controllers::pods::{has_ended, node_name};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::loopback::Blocks;
use crate::node::Machine;
use crate::pod;
use crate::process::Shared;

/// Events waiting to be applied.
const EVENTS: usize = 1024;

/// What all workers share.
pub(crate) struct Fleet {
    pub(crate) options: Options,
    pub(crate) machines: BTreeMap<String, Machine>,
    /// Pods, nodes, Secrets and ConfigMaps, as the watch shows them. Never held across an await.
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

    /// Notes that a node has an image.
    pub(crate) fn pulled(&self, node: &str, image: &str) {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        pulled.insert((node.to_owned(), image.to_owned()));
    }

    /// Whether a node has an image.
    pub(crate) fn has_image(&self, node: &str, image: &str) -> bool {
        let pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        pulled.contains(&(node.to_owned(), image.to_owned()))
    }
}

/// A pod's worker, seen from the task that feeds it.
struct Feed {
    pod: watch::Sender<Arc<Pod>>,
    node: String,
}

/// Runs until `stop` is cancelled; `blocks` holds the addresses of the nodes if those are of the loopback network.
pub(crate) async fn run(
    options: Options,
    blocks: Option<Blocks>,
    processes: Option<Arc<Shared>>,
    stop: CancellationToken,
) {
    let numbers = options.first_number..options.first_number + options.count;
    let machine = |number| match blocks.as_ref().and_then(|blocks| blocks.subnet(number)) {
        Some(subnet) => Machine::on_loopback(number, subnet, processes.is_some()),
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
    for kind in [Kind::Secret, Kind::ConfigMap, Kind::Node, Kind::Pod] {
        tasks.spawn(follow(fleet.options.client.clone(), Watch::all(kind), to.clone()));
    }
    drop(to);
    let (wake, wakes) = mpsc::unbounded_channel();
    tasks.spawn(crate::heartbeat::run(fleet.clone(), wakes));
    if let Some(shared) = &fleet.processes {
        for machine in fleet.machines.values() {
            tasks.spawn(crate::process::serve(fleet.clone(), machine.clone(), shared.clone()));
        }
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = feed(fleet, events, wake) => {}
    }
}

/// What the feeding task keeps.
struct Feeder {
    fleet: Arc<Fleet>,
    /// Workers by the uid of their pod.
    workers: BTreeMap<String, Feed>,
    running: JoinSet<String>,
    /// Nodes that should speak up at once.
    wake: mpsc::UnboundedSender<String>,
}

/// Applies events and keeps one worker per pod of ours. Dropping this future drops every worker.
async fn feed(fleet: Arc<Fleet>, mut events: mpsc::Receiver<Fed>, wake: mpsc::UnboundedSender<String>) {
    let mut power = fleet.options.power.dark();
    let mut dark = power.borrow_and_update().clone();
    let mut feeder = Feeder { fleet, workers: BTreeMap::new(), running: JoinSet::new(), wake };
    let mut held: Vec<Change> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = feeder.running.join_next() => {
                if let Ok(uid) = ended {
                    feeder.workers.remove(&uid);
                }
            }
            Ok(()) = power.changed() => {
                let now = power.borrow_and_update().clone();
                feeder.workers.retain(|_, worker| !now.contains(&worker.node));
                for node in dark.difference(&now) {
                    feeder.boot(node);
                }
                dark = now;
            }
            Some(Fed { kind, update }) = events.recv() => {
                let (changes, all) = {
                    let mut objects = feeder.fleet.objects.write().unwrap_or_else(PoisonError::into_inner);
                    let changes = update(&mut objects, &mut Vec::new());
                    (changes, objects.secrets.synced() && objects.config_maps.synced() && objects.pods.synced())
                };
                match kind {
                    Kind::Pod => held.extend(changes),
                    Kind::Node => changes.iter().for_each(|change| feeder.speak_up(change)),
                    _ if changes.is_empty() => {}
                    _ => feeder.fleet.sources.send_modify(|count| *count += 1),
                }
                // Before the Secrets are known, a pod that mounts one would seem to lack it.
                if all {
                    for change in held.drain(..) {
                        feeder.hand_out(change);
                    }
                }
            }
            else => return,
        }
    }
}

impl Feeder {
    /// A node of ours that others take for dead says at once that it lives.
    fn speak_up(&self, change: &Change) {
        let Some(Object::Node(node)) = &change.new else { return };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let unwell = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status != "True");
        let name = &change.name.name;
        if unwell && self.fleet.machines.contains_key(name) && self.fleet.options.power.is_on(name) {
            // The receiver ends only with the fleet.
            let _ = self.wake.send(name.clone());
        }
    }

    /// A node has power again: it says so, and runs what is still bound to it.
    fn boot(&mut self, node: &str) {
        let _ = self.wake.send(node.to_owned());
        let pods: Vec<Arc<Pod>> = self.fleet.read(|objects| objects.pods_on(node).cloned().collect());
        for pod in pods {
            self.run(pod);
        }
    }

    fn hand_out(&mut self, change: Change) {
        let new = change.new.as_ref().and_then(|object| object.as_pod());
        if let Some(old) = change.old.as_ref().and_then(|object| object.as_pod())
            && new.is_none_or(|new| uid_of(new) != uid_of(old))
        {
            // Without a sender the worker learns that its pod is gone from the API, and drops everything.
            self.workers.remove(&uid_of(old));
        }
        let Some(pod) = new else { return };
        match self.workers.get(&uid_of(pod)) {
            Some(worker) => drop(worker.pod.send_replace(pod.clone())),
            None => self.run(pod.clone()),
        }
    }

    /// Starts a worker for a pod that a node of ours should run.
    fn run(&mut self, pod: Arc<Pod>) {
        let Some(machine) = node_name(&pod).and_then(|node| self.fleet.machines.get(node)) else { return };
        let over = has_ended(&pod) && pod.metadata.deletion_timestamp.is_none();
        if over || !self.fleet.options.power.is_on(&machine.name) {
            return;
        }
        let uid = uid_of(&pod);
        let (sender, receiver) = watch::channel(pod);
        self.workers.insert(uid.clone(), Feed { pod: sender, node: machine.name.clone() });
        let (fleet, machine) = (self.fleet.clone(), machine.clone());
        self.running.spawn(async move {
            pod::run(fleet, machine, receiver).await;
            uid
        });
    }
}

fn uid_of(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}
