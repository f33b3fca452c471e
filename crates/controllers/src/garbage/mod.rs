//! Garbage collection and the emptying of namespaces: what must happen to objects of any kind, custom ones included.
//!
//! It follows the metadata of every resource the server has, and discovers again when a definition or an API service
//! changes.

mod discovery;
mod graph;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryFutureExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use kubevirt_runtime::clock::Clock;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use discovery::{Followed, discover};
use graph::{Graph, Item, Step};

/// Events waiting to be applied.
const EVENTS: usize = 1024;
/// From a change of the definitions to the next discovery: a definition is served a moment after it is written.
const SETTLE: Duration = Duration::from_millis(200);
/// Pause after a failed request or a failed watch.
const RETRY: Duration = Duration::from_millis(500);
/// From an event to the decision about it: a collector that follows watches is never at once, and whoever reads right
/// after a deletion in the foreground still sees the object with its finalizer. A tenth of a second is what a server
/// under light load shows.
const LAG: Duration = Duration::from_millis(100);
/// Requests under way at once.
const RUNNING: usize = 32;

type Watched = watcher::Event<PartialObjectMeta<DynamicObject>>;

/// Something to look at: an object, or a namespace that is going.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Object(String),
    Namespace(String),
}

enum Done {
    Acted(Key, Result<bool, kube::Error>),
    /// An owner's uid, and whether it is absent.
    Verified(Key, String, Result<bool, kube::Error>),
    Discovered(Result<BTreeMap<String, Followed>, kube::Error>),
}

struct Collector {
    client: Client,
    clock: Clock,
    graph: Graph,
    resources: Arc<BTreeMap<String, Followed>>,
    watches: BTreeMap<String, AbortHandle>,
    /// Uids seen in a list that is being received, per resource.
    listed: BTreeMap<String, BTreeSet<String>>,
    queue: BTreeSet<Key>,
    busy: BTreeSet<Key>,
    later: BTreeSet<(Instant, Key)>,
    discover_at: Option<Instant>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Collects garbage and empties namespaces until `stop` is cancelled.
pub(crate) async fn run(client: Client, clock: Clock, stop: CancellationToken) {
    let mut collector = Collector {
        client,
        clock,
        graph: Graph::default(),
        resources: Arc::default(),
        watches: BTreeMap::new(),
        listed: BTreeMap::new(),
        queue: BTreeSet::new(),
        busy: BTreeSet::new(),
        later: BTreeSet::new(),
        discover_at: Some(Instant::now()),
        running: FuturesUnordered::new(),
    };
    let (to, mut events) = mpsc::channel::<(String, Watched)>(EVENTS);
    let mut tasks = JoinSet::new();
    loop {
        collector.start();
        let next = [collector.discover_at, collector.later.first().map(|(at, _)| *at)].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some((resource, event)) = events.recv() => {
                collector.feed(&resource, event);
                while let Ok((resource, event)) = events.try_recv() {
                    collector.feed(&resource, event);
                }
            }
            Some(done) = collector.running.next() => collector.finish(done, &mut tasks, &to),
            () = async { match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            } } => collector.fire(),
        }
    }
}

impl Collector {
    fn api(&self, resource: &str, namespace: &str) -> Option<Api<DynamicObject>> {
        let followed = self.resources.get(resource)?;
        Some(if followed.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &followed.api)
        } else {
            Api::all_with(self.client.clone(), &followed.api)
        })
    }

    fn feed(&mut self, resource: &str, event: Watched) {
        match event {
            watcher::Event::Init => {
                self.listed.insert(resource.to_owned(), BTreeSet::new());
            }
            watcher::Event::InitApply(object) => {
                if let (Some(listed), Some(uid)) = (self.listed.get_mut(resource), &object.metadata.uid) {
                    listed.insert(uid.clone());
                }
                self.upsert(resource, &object);
            }
            watcher::Event::InitDone => {
                let listed = self.listed.remove(resource).unwrap_or_default();
                for uid in self.graph.of_resource(resource) {
                    if !listed.contains(&uid) {
                        self.forget(&uid);
                    }
                }
            }
            watcher::Event::Apply(object) => self.upsert(resource, &object),
            watcher::Event::Delete(object) => {
                if let Some(uid) = &object.metadata.uid {
                    self.forget(uid);
                }
                self.settle(resource);
            }
        }
    }

    /// A change of what the server serves leads to a new discovery.
    fn settle(&mut self, resource: &str) {
        if resource.starts_with("customresourcedefinitions.") || resource.starts_with("apiservices.") {
            self.discover_at.get_or_insert(Instant::now() + SETTLE);
        }
    }

    fn upsert(&mut self, resource: &str, object: &PartialObjectMeta<DynamicObject>) {
        let Some(uid) = object.metadata.uid.clone() else { return };
        let item = Item::of(resource, &object.metadata);
        if resource == "namespaces.v1." && item.deleting {
            self.queue.insert(Key::Namespace(item.name.name.clone()));
        }
        self.settle(resource);
        let concerned = self.graph.upsert(&uid, item);
        self.consider(concerned);
    }

    fn consider(&mut self, uids: impl IntoIterator<Item = String>) {
        let at = Instant::now() + LAG;
        self.later.extend(uids.into_iter().map(|uid| (at, Key::Object(uid))));
    }

    fn forget(&mut self, uid: &str) {
        let namespace = self.graph.get(uid).map(|item| item.name.namespace.clone());
        let concerned = self.graph.remove(uid);
        self.consider(concerned);
        // The namespace may have waited for this object.
        self.queue.extend(namespace.filter(|name| !name.is_empty()).map(Key::Namespace));
    }

    fn fire(&mut self) {
        let now = Instant::now();
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.queue.insert(key);
        }
        if self.discover_at.is_some_and(|at| at <= now) {
            self.discover_at = None;
            let client = self.client.clone();
            self.running.push(Box::pin(async move { Done::Discovered(discover(&client).await) }));
        }
    }

    fn start(&mut self) {
        let mut waiting = BTreeSet::new();
        while self.running.len() < RUNNING
            && let Some(key) = self.queue.pop_first()
        {
            if self.busy.contains(&key) {
                waiting.insert(key);
                continue;
            }
            let tasks = match &key {
                Key::Object(uid) => {
                    self.graph.decide(uid).into_iter().filter_map(|step| self.perform(&key, step)).collect()
                }
                Key::Namespace(name) => self.empty(&key, name).into_iter().collect::<Vec<_>>(),
            };
            for task in tasks {
                self.busy.insert(key.clone());
                self.running.push(task);
            }
        }
        self.queue.append(&mut waiting);
    }

    fn perform(&self, key: &Key, step: Step) -> Option<BoxFuture<'static, Done>> {
        let key = key.clone();
        let found = |uid: &str| {
            let item = self.graph.get(uid)?;
            Some((self.api(&item.resource, &item.name.namespace)?, item.name.name.clone(), item.finalizers.clone()))
        };
        match step {
            Step::Delete { uid, foreground } => {
                let (api, name, _) = found(&uid)?;
                let policy = if foreground { PropagationPolicy::Foreground } else { PropagationPolicy::Background };
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                    ..DeleteParams::default()
                };
                Some(Box::pin(async move { Done::Acted(key, settled(api.delete(&name, &params).await)) }))
            }
            Step::KeepOwners { uid, owners } => {
                let (api, name, _) = found(&uid)?;
                let patch = json!({"metadata": {"uid": uid, "ownerReferences": owners}});
                Some(Box::pin(async move { Done::Acted(key, patched(&api, &name, patch).await) }))
            }
            Step::Release { uid, finalizer } => {
                let (api, name, finalizers) = found(&uid)?;
                let rest: Vec<_> = finalizers.into_iter().filter(|known| known != finalizer).collect();
                let patch = json!({"metadata": {"uid": uid, "finalizers": rest}});
                Some(Box::pin(async move { Done::Acted(key, patched(&api, &name, patch).await) }))
            }
            Step::Verify { owner, namespace } => {
                let api = self.owner_api(&owner, &namespace)?;
                Some(Box::pin(async move {
                    let known = api.get_metadata_opt(&owner.name).await;
                    let absent =
                        known.map(|known| known.and_then(|known| known.metadata.uid).as_ref() != Some(&owner.uid));
                    Done::Verified(key, owner.uid, absent)
                }))
            }
        }
    }

    /// The API of an owner; a kind the server does not have says nothing about the owner.
    fn owner_api(&self, owner: &OwnerReference, namespace: &str) -> Option<Api<DynamicObject>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let same = |followed: &&Followed| followed.api.kind == owner.kind && followed.api.group == group;
        let followed = self.resources.values().find(same)?;
        Some(if followed.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &followed.api)
        } else {
            Api::all_with(self.client.clone(), &followed.api)
        })
    }

    /// Deletes what is in a namespace that is going, and then lets it go.
    fn empty(&self, key: &Key, name: &str) -> Option<BoxFuture<'static, Done>> {
        let going = self
            .graph
            .of_resource("namespaces.v1.")
            .into_iter()
            .find(|uid| self.graph.get(uid).is_some_and(|item| item.deleting && item.name.name == name))?;
        debug!(namespace = name, uid = going, "emptying a namespace");
        let now = self.clock.now();
        let (client, resources, key, name) =
            (self.client.clone(), self.resources.clone(), key.clone(), name.to_owned());
        Some(Box::pin(async move { Done::Acted(key, namespaces::empty(client, &resources, &name, now).await) }))
    }

    fn finish(&mut self, done: Done, tasks: &mut JoinSet<()>, to: &mpsc::Sender<(String, Watched)>) {
        match done {
            Done::Acted(key, result) => {
                self.busy.remove(&key);
                match result {
                    Ok(true) => {}
                    // Not done: what it waits for ends by itself and wakes it; a late look costs little.
                    Ok(false) => {
                        self.later.insert((Instant::now() + RETRY * 4, key));
                    }
                    Err(error) => {
                        debug!(?key, %error, "not collected, trying again");
                        self.later.insert((Instant::now() + RETRY, key));
                    }
                }
            }
            Done::Verified(key, uid, absent) => {
                self.busy.remove(&key);
                match absent {
                    Ok(true) => self.queue.extend(self.graph.note_absent(&uid).into_iter().map(Key::Object)),
                    // It exists: its own event is on the way, and brings its dependents up again.
                    Ok(false) => {}
                    Err(error) => {
                        debug!(?key, %error, "owner not verified, trying again");
                        self.later.insert((Instant::now() + RETRY, key));
                    }
                }
            }
            Done::Discovered(Ok(found)) => self.follow(found, tasks, to),
            Done::Discovered(Err(error)) => {
                warn!(%error, "discovery failed, trying again");
                self.discover_at.get_or_insert(Instant::now() + RETRY);
            }
        }
    }

    fn follow(
        &mut self,
        found: BTreeMap<String, Followed>,
        tasks: &mut JoinSet<()>,
        to: &mpsc::Sender<(String, Watched)>,
    ) {
        let gone: Vec<String> = self.watches.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some(watch) = self.watches.remove(&key) {
                watch.abort();
            }
            for uid in self.graph.of_resource(&key) {
                self.forget(&uid);
            }
        }
        for (key, followed) in &found {
            if !self.watches.contains_key(key) {
                let api = Api::all_with(self.client.clone(), &followed.api);
                self.watches.insert(key.clone(), tasks.spawn(watch(key.clone(), api, to.clone())));
            }
        }
        self.resources = Arc::new(found);
    }
}

async fn watch(key: String, api: Api<PartialObjectMeta<DynamicObject>>, to: mpsc::Sender<(String, Watched)>) {
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if to.send((key.clone(), event)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                debug!(resource = key, %error, "metadata watch failed, retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// What is gone already, or is another object by now, needs no more.
fn settled<T>(result: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(true),
        Err(error) => Err(error),
    }
}

async fn patched(api: &Api<DynamicObject>, name: &str, patch: serde_json::Value) -> Result<bool, kube::Error> {
    let patch = api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).map_ok(|_| ()).await;
    match patch {
        // Changed meanwhile: its event brings it up again, but a lost one must not leave it for ever.
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        other => settled(other),
    }
}
