//! A cluster that the tests of a file share: API server over HTTPS, controllers and simulated nodes, real time. It is
//! installed once; before and after each test it has to be as it should.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Config, ResourceExt as _};
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::{Kind, Object};
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::tls::probe;
use kubevirt_tests::{NAMESPACE, condition_of};
use nanokube::Pki;
use nanokube_cli::images::Table;
use nanokube_cli::{Cluster, Options};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const REGISTRY: &str = "localhost/kubevirt";
pub(crate) const VERSION: &str = "v0.2.0";

/// The contract's limit for a cluster to be as it should after a test.
const STABLE: Duration = Duration::from_secs(420);
/// The contract's limit for the operator's certificate to be one that the published authorities vouch for.
const SERVING: Duration = Duration::from_secs(90);
/// For steps that the contract gives no time: far more than any takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster for the tests of a file.
pub(crate) struct Fixture {
    nodes: u32,
    running: Mutex<Option<Arc<Running>>>,
}

struct Running {
    runtime: Runtime,
    suite: Suite,
    _cluster: Cluster,
}

impl Fixture {
    pub(crate) const fn new(nodes: u32) -> Self {
        Self { nodes, running: Mutex::new(None) }
    }

    /// Runs a test when it is its turn.
    pub(crate) fn test(&self, test: impl AsyncFnOnce(&Suite)) {
        // A test that failed does not keep the others from their turn.
        let mut turn = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = Arc::clone(turn.get_or_insert_with(|| Arc::new(Running::start(self.nodes))));
        running.runtime.block_on(async {
            running.suite.stable().await;
            test(&running.suite).await;
            running.suite.stable().await;
        });
    }
}

impl Running {
    fn start(nodes: u32) -> Self {
        kubevirt_runtime::process::install_crypto();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (cluster, suite) = runtime.block_on(async {
            let images = Table::suite(REGISTRY, &[VERSION]);
            let mut cluster = Cluster::start(Options::new(nodes, Clock::System, 1, Arc::new(images)));
            let pki = Pki::generate(&Clock::System, &[]).expect("certificates for the server");
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("https://{}", listener.local_addr().expect("it is bound"));
            let kubeconfig = Kubeconfig::from_yaml(&pki.kubeconfig(&url)).expect("a kubeconfig");
            cluster.serve(listener, pki);
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let client = Client::try_from(config.expect("a usable kubeconfig")).expect("a client");
            let suite = Suite { client };
            suite.install().await;
            suite.serves(&cluster).await;
            (cluster, suite)
        });
        Self { runtime, suite, _cluster: cluster }
    }
}

/// The suite on a cluster, as the administrator sees it.
pub(crate) struct Suite {
    pub(crate) client: Client,
}

impl Suite {
    async fn install(&self) {
        for object in operator_manifest(&ManifestOptions::new(REGISTRY, VERSION)) {
            self.apply(&object).await;
        }
        self.until(Kind::CustomResourceDefinition, "kubevirts.kubevirt.io", "served", PATIENCE, |definition| {
            condition_of(definition, "Established")["status"] == "True"
        })
        .await;
        self.apply(&cr_manifest(NAMESPACE)).await;
        self.stable().await;
    }

    /// The custom resource as a release ships it.
    pub(crate) async fn install_cr(&self) {
        self.apply(&cr_manifest(NAMESPACE)).await;
    }

    pub(crate) async fn apply(&self, object: &Object) {
        let parameters = PatchParams::apply("admin").force();
        let applied = self.api(object.kind()).patch(object.name(), &parameters, &Patch::Apply(object.value())).await;
        applied.unwrap_or_else(|error| panic!("apply {}: {error}", object.key()));
    }

    /// Each replica of the operator shows a certificate on its webhooks' port that the published authorities vouch for.
    async fn serves(&self, cluster: &Cluster) {
        let bundle = self.get(Kind::ConfigMap, "kubevirt-ca").await.expect("the authorities are published");
        let bundle = bundle["data"]["ca-bundle"].as_str().expect("a bundle").to_owned();
        let net = cluster.network.host(IpAddr::from([10, 96, 0, 9]));
        for pod in self.pods("kubevirt.io=virt-operator").await.values() {
            let address: IpAddr = pod["status"]["podIP"].as_str().expect("it runs").parse().expect("an address");
            let address = SocketAddr::new(address, 8444);
            let name = format!("kubevirt-operator-webhook.{NAMESPACE}.svc");
            let asked = async {
                // A replica takes its certificate over when a watch tells it of it.
                while probe(net.as_ref(), address, &name, &bundle, &Clock::System).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            let answered = tokio::time::timeout(SERVING, asked).await;
            assert!(answered.is_ok(), "{address} does not show a certificate of the published authority");
        }
    }

    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        self.api_of(kind.group(), kind.version(), kind.name(), kind.plural(), kind.namespaced())
    }

    /// A handle for objects of any kind, in the suite's namespace.
    pub(crate) fn api_of(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        scoped: bool,
    ) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        if scoped {
            Api::namespaced_with(self.client.clone(), NAMESPACE, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    pub(crate) fn instances(&self) -> Api<DynamicObject> {
        self.api_of("kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances", true)
    }

    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.api(kind).get_opt(name).await.expect("reading works").map(value)
    }

    pub(crate) async fn kubevirt(&self) -> Value {
        self.get(Kind::KubeVirt, "kubevirt").await.expect("there is a custom resource")
    }

    pub(crate) async fn create(&self, object: Value) -> Result<Value, kube::Error> {
        let object = Object::from_value(object).expect("an object of a known kind");
        let stored = serde_json::from_value(object.value().clone()).expect("an object");
        self.api(object.kind()).create(&PostParams::default(), &stored).await.map(value)
    }

    /// Changes an object by a merge patch.
    pub(crate) async fn merge(&self, kind: Kind, name: &str, patch: Value) -> Result<Value, kube::Error> {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(value)
    }

    /// Changes an object by a JSON patch.
    pub(crate) async fn edit(&self, kind: Kind, name: &str, patch: Value) -> Value {
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).expect("a JSON patch"));
        self.api(kind).patch(name, &PatchParams::default(), &patch).await.map(value).expect("the edit is accepted")
    }

    /// Changes the custom resource's spec by a merge patch.
    pub(crate) async fn configure(&self, spec: Value) -> Result<Value, kube::Error> {
        self.merge(Kind::KubeVirt, "kubevirt", json!({ "spec": spec })).await
    }

    /// The message with which a change of the custom resource's spec is refused.
    pub(crate) async fn refused(&self, spec: Value) -> String {
        self.configure(spec).await.expect_err("it is refused").to_string()
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> Result<(), kube::Error> {
        self.api(kind).delete(name, &DeleteParams::default()).await.map(drop)
    }

    /// Waits until an object exists and is as asked for. Its state then.
    pub(crate) async fn until(
        &self,
        kind: Kind,
        name: &str,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let holds = |object: Option<&DynamicObject>| object.is_some_and(|object| holds(&value(object.clone())));
        match tokio::time::timeout(limit, await_condition(self.api(kind), name, holds)).await {
            Ok(Ok(Some(object))) => value(object),
            Ok(other) => panic!("{kind} {name}: {what}: {other:?}"),
            Err(_) => {
                let (last, cr) = (self.get(kind, name).await, self.get(Kind::KubeVirt, "kubevirt").await);
                let status = cr.map(|cr| cr["status"]["conditions"].clone());
                panic!("{kind} {name}: not {what} within {limit:?}; last seen: {last:#?}; {status:#?}")
            }
        }
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone(&self, kind: Kind, name: &str, limit: Duration) {
        let gone = await_condition(self.api(kind), name, |object: Option<&DynamicObject>| object.is_none());
        let waited = tokio::time::timeout(limit, gone).await;
        let last = if waited.is_err() { self.get(kind, name).await } else { None };
        assert!(matches!(waited, Ok(Ok(_))), "{kind} {name} is not gone within {limit:?}: {last:#?}");
    }

    /// Watches an object for a time; it has to stay as asked for.
    pub(crate) async fn keeps(&self, kind: Kind, name: &str, time: Duration, holds: impl Fn(&Value) -> bool) {
        let broken = |object: Option<&DynamicObject>| !object.is_some_and(|object| holds(&value(object.clone())));
        let waited = tokio::time::timeout(time, await_condition(self.api(kind), name, broken)).await;
        assert!(waited.is_err(), "{kind} {name} did not stay as it was for {time:?}: {waited:#?}");
    }

    pub(crate) async fn pods(&self, selector: &str) -> BTreeMap<String, Value> {
        let api = self.api_of("", "v1", "Pod", "pods", true);
        let listed = api.list(&ListParams::default().labels(selector)).await.expect("listing works");
        listed.items.into_iter().map(|pod| (pod.name_any(), value(pod))).collect()
    }

    /// Waits until the pods of a selector are as asked for.
    pub(crate) async fn until_pods(
        &self,
        selector: &str,
        what: &str,
        limit: Duration,
        holds: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) {
        let api = self.api_of("", "v1", "Pod", "pods", true);
        let watching = async {
            let mut events =
                std::pin::pin!(watcher(api, watcher::Config::default().labels(selector)).default_backoff());
            let (mut known, mut listed) = (BTreeMap::new(), false);
            while let Some(event) = events.try_next().await.unwrap_or(None) {
                match event {
                    watcher::Event::Init => (known, listed) = (BTreeMap::new(), false),
                    watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                        known.insert(pod.name_any(), value(pod));
                    }
                    watcher::Event::Delete(pod) => drop(known.remove(&pod.name_any())),
                    watcher::Event::InitDone => listed = true,
                }
                if listed && holds(&known) {
                    return;
                }
            }
            panic!("the watch of pods ended");
        };
        if tokio::time::timeout(limit, watching).await.is_err() {
            panic!("pods {selector}: not {what} within {limit:?}: {:#?}", self.pods(selector).await);
        }
    }

    /// Waits until the installation is as it should be, and every pod of the suite is of it.
    pub(crate) async fn stable(&self) {
        let cr = self
            .until(Kind::KubeVirt, "kubevirt", "stable", STABLE, |cr| {
                let is = |kind: &str, status: &str| condition_of(cr, kind)["status"] == status;
                is("Created", "True")
                    && is("Available", "True")
                    && is("Progressing", "False")
                    && is("Degraded", "False")
                    && cr["status"]["observedGeneration"] == cr["metadata"]["generation"]
                    && cr["status"]["observedDeploymentID"] == cr["status"]["targetDeploymentID"]
            })
            .await;
        let id = &cr["status"]["observedDeploymentID"];
        self.until_pods(
            "app.kubernetes.io/managed-by=virt-operator",
            "all ready and of this version",
            STABLE,
            |pods| {
                let is_well = |pod: &Value| {
                    pod["metadata"]["annotations"]["kubevirt.io/install-strategy-identifier"] == *id && is_ready(pod)
                };
                !pods.is_empty() && pods.values().all(is_well)
            },
        )
        .await;
    }

    /// Waits until the generation that an object has now stands in the custom resource's status.
    pub(crate) async fn generation_recorded(&self, kind: Kind, name: &str, limit: Duration) -> i64 {
        let live = self.get(kind, name).await.expect("the object exists");
        let generation = live["metadata"]["generation"].as_i64().expect("it has a generation");
        self.until(Kind::KubeVirt, "kubevirt", &format!("recording {name} at {generation}"), limit, |cr| {
            recorded(cr, kind, name) == Some(generation)
        })
        .await;
        generation
    }
}

/// The generation of an object that the custom resource's status names.
pub(crate) fn recorded(cr: &Value, kind: Kind, name: &str) -> Option<i64> {
    let generations = cr["status"]["generations"].as_array()?;
    let own = generations.iter().find(|entry| entry["resource"] == kind.plural() && entry["name"] == name)?;
    own["lastGeneration"].as_i64()
}

/// Whether a pod runs, is ready and is not on its way out.
pub(crate) fn is_ready(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
        && pod["metadata"]["deletionTimestamp"].is_null()
        && condition_of(pod, "Ready")["status"] == "True"
}

fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object is data")
}
