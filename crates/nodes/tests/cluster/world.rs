//! A cluster for one test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::host::Program;
use kubevirt_runtime::net::memory::MemoryNet;
use nanokube::{Nanokube, UserInfo};
use nanokube_nodes::{Heartbeats, Image, Latencies, Power};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a condition may take in simulated time before the test fails.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct World {
    kube: Nanokube,
    pub(crate) network: Arc<MemoryNet>,
    nodes: CancellationToken,
    _stop: DropGuard,
}

impl World {
    pub(crate) async fn start(nodes: u32) -> Self {
        Self::with(nodes, BTreeMap::new()).await
    }

    pub(crate) async fn with_program(nodes: u32, image: &str, program: impl Program) -> Self {
        let program: Arc<dyn Program> = Arc::new(program);
        Self::with(nodes, [(image.to_owned(), program)].into()).await
    }

    async fn with(count: u32, programs: BTreeMap<String, Arc<dyn Program>>) -> Self {
        // RUST_LOG=debug shows what the controllers, the nodes and the server say.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let clock = Clock::anchored("2026-01-01T00:00:00Z".parse().expect("a time"));
        let kube = Nanokube::new(nanokube::Options::new(clock.clone(), 1));
        let stop = CancellationToken::new();
        let controllers = nanokube_controllers::Options {
            clock: clock.clone(),
            seed: 1,
            endpoint_lag: Duration::from_millis(10)..=Duration::from_millis(100),
        };
        let of = kube.clone();
        let client_for = move |user: &str| of.client(UserInfo::new(user, &["system:authenticated"]));
        let until = stop.clone();
        tokio::spawn(async move { nanokube_controllers::run(client_for, controllers, until).await });
        let network = MemoryNet::new();
        let connect = {
            let kube = kube.clone();
            move |token: &str| Ok(kube.client_with_token(token))
        };
        let images = move |image: &str| {
            let name = image.split(':').next().unwrap_or_default();
            match programs.get(name) {
                Some(program) => Some(Image::Program(program.clone())),
                None => (name == "idle").then_some(Image::Idle),
            }
        };
        let nodes = stop.child_token();
        let options = nanokube_nodes::Options {
            client: kube.client(UserInfo::admin()),
            connect: Arc::new(connect),
            count,
            first_number: 1,
            join_every: Duration::ZERO,
            images: Arc::new(images),
            network: network.clone().into(),
            latencies: Latencies::default(),
            heartbeats: Heartbeats::default(),
            power: Power::default(),
            clock,
            seed: 1,
            capacity: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        let until = nodes.clone();
        tokio::spawn(async move { nanokube_nodes::run(options, until).await });
        let world = Self { kube, network, nodes, _stop: stop.drop_guard() };
        world
            .until_nodes(|nodes| {
                nodes.len() == count as usize
                    && nodes.iter().all(|node| node.status.as_ref().is_some_and(|it| it.allocatable.is_some()))
            })
            .await;
        world
    }

    pub(crate) fn client(&self) -> Client {
        self.kube.client(UserInfo::admin())
    }

    /// Stops all nodes, as a power cut does.
    pub(crate) fn stop_nodes(&self) {
        self.nodes.cancel();
    }

    /// Waits until an object fulfils a condition.
    pub(crate) async fn until<K>(&self, name: &str, mut condition: impl FnMut(&K) -> bool)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api: Api<K> = Api::default_namespaced(self.client());
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut stream = watcher(api, config).applied_objects().boxed();
        let wait = async {
            while let Some(object) = stream.try_next().await.expect("a watch") {
                if condition(&object) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let now = self.get::<K>(name).await;
            panic!("{name} did not get there: {now:#?}");
        }
    }

    /// Waits until all objects of a kind fulfil a condition; asked after each change.
    pub(crate) async fn until_all<K>(&self, condition: impl FnMut(&[K]) -> bool)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        until_all(Api::default_namespaced(self.client()), condition).await;
    }

    pub(crate) async fn until_nodes(&self, condition: impl FnMut(&[Node]) -> bool) {
        until_all(Api::all(self.client()), condition).await;
    }

    /// The message of the first event with this reason.
    pub(crate) async fn event(&self, reason: &str) -> String {
        let mut message = None;
        self.until_all::<Event>(|events| {
            message =
                events.iter().find(|event| event.reason.as_deref() == Some(reason)).and_then(|it| it.message.clone());
            message.is_some()
        })
        .await;
        message.expect("found")
    }

    pub(crate) async fn get<K>(&self, name: &str) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        Api::<K>::default_namespaced(self.client()).get(name).await.expect("it exists")
    }

    pub(crate) async fn get_cluster<K>(&self, name: &str) -> K
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        Api::<K>::all(self.client()).get(name).await.expect("it exists")
    }

    pub(crate) async fn only<K>(&self) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let mut items =
            Api::<K>::default_namespaced(self.client()).list(&ListParams::default()).await.expect("a list").items;
        assert_eq!(items.len(), 1);
        items.remove(0)
    }

    pub(crate) async fn pods(&self, labels: &str) -> Vec<Pod> {
        let api: Api<Pod> = Api::default_namespaced(self.client());
        api.list(&ListParams::default().labels(labels)).await.expect("a list").items
    }
}

async fn until_all<K>(api: Api<K>, mut condition: impl FnMut(&[K]) -> bool)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let mut stream = watcher(api.clone(), watcher::Config::default()).boxed();
    let wait = async {
        while let Some(event) = stream.try_next().await.expect("a watch") {
            if matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                continue;
            }
            let all = api.list(&ListParams::default()).await.expect("a list").items;
            if condition(&all) {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("did not get there: {:#?}", api.list(&ListParams::default()).await.expect("a list").items);
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    nanokube_controllers::pods::is_ready(pod)
}

pub(crate) fn available(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

pub(crate) fn updated(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.updated_replicas).unwrap_or(0)
}

fn template(name: &str, image: &str) -> serde_json::Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "main", "image": image}]},
    })
}

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, image)},
    }))
    .expect("a deployment")
}

pub(crate) fn daemon_set(name: &str, image: &str) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template(name, image)},
    }))
    .expect("a daemon set")
}
