//! Scenarios across crates: a whole cluster in this process, under paused time, seen only through its API.

pub mod rolling;

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams, TypeMeta};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};
use kubevirt_release::{Kind, Object};
use kubevirt_runtime::clock::Clock;
use nanokube::MemorySink;
use nanokube_cli::images::Table;
use nanokube_cli::{Cluster, Options};
use nanokube_nodes::Latencies;
use serde_json::Value;

use crate::rolling::Rolling;

/// The namespace of the suite in a release's manifests.
pub const NAMESPACE: &str = "kubevirt";
/// The operator's identity in a release's manifests.
pub const OPERATOR: &str = "system:serviceaccount:kubevirt:kubevirt-operator";
/// Simulated time. Everything here takes seconds; five minutes of it cost nothing and mean that something hangs.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster with simulated nodes that can run releases v0.1.0 to v0.3.0, and the log of every request.
pub struct World {
    pub cluster: Cluster,
    pub client: Client,
    audit: MemorySink,
}

impl World {
    /// Starts a cluster on the current runtime, whose time should be paused.
    pub fn start(nodes: u32, seed: u64) -> Self {
        Self::start_with(nodes, seed, |images| images)
    }

    /// As [`Self::start`], with the images that `change` makes of the usual ones.
    pub fn start_with(nodes: u32, seed: u64, change: impl FnOnce(Table) -> Table) -> Self {
        let audit = MemorySink::default();
        Self::of(Options { audit: Some(Box::new(audit.clone())), ..options(nodes, seed, change) }, audit)
    }

    /// As [`Self::start`], with endpoints that follow their pods more slowly: a part of `lag` that the seed draws for each
    /// Service.
    pub fn start_lagging(nodes: u32, seed: u64, lag: RangeInclusive<Duration>) -> Self {
        let options = Options { endpoint_lag: lag, ..options(nodes, seed, |images| images) };
        Self::of(options, MemorySink::default())
    }

    /// As [`Self::start`], watched by somebody who sees every commit. Requests are not kept: thousands of nodes make
    /// hundreds of thousands.
    pub fn start_watched(nodes: u32, seed: u64, watcher: &Arc<Rolling>) -> Self {
        let world = Self::start_under(nodes, seed, Arc::clone(watcher) as Arc<dyn nanokube::Faults>);
        watcher.attach(world.cluster.api.clone());
        world
    }

    /// As [`Self::start_watched`], where the pull of an image takes as long as `pull` says.
    pub fn start_pulling(
        nodes: u32,
        seed: u64,
        pull: Duration,
        watcher: &Arc<Rolling>,
        change: impl FnOnce(Table) -> Table,
    ) -> Self {
        let options = Options {
            faults: Arc::clone(watcher) as Arc<dyn nanokube::Faults>,
            latencies: Latencies { pull: pull..=pull, ..Latencies::default() },
            ..options(nodes, seed, change)
        };
        let world = Self::of(options, MemorySink::default());
        watcher.attach(world.cluster.api.clone());
        world
    }

    /// A world in which somebody sees every request; no audit log is kept.
    pub fn start_under(nodes: u32, seed: u64, faults: Arc<dyn nanokube::Faults>) -> Self {
        Self::of(Options { faults, ..options(nodes, seed, |images| images) }, MemorySink::default())
    }

    fn of(options: Options, audit: MemorySink) -> Self {
        let cluster = Cluster::start(options);
        let client = cluster.admin();
        Self { cluster, client, audit }
    }

    /// Every request so far, oldest first (`audit.k8s.io/v1` Events).
    pub fn requests(&self) -> Vec<Value> {
        self.audit.events()
    }

    /// The operator's writes since request number `since`, as `verb resource name`, its lease aside.
    pub fn operator_writes(&self, since: usize) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let writes = ["create", "update", "patch", "delete", "deletecollection"];
        self.requests()
            .iter()
            .skip(since)
            .filter(|event| event["user"]["username"] == OPERATOR)
            .filter(|event| writes.contains(&event["verb"].as_str().unwrap_or_default()))
            // Its lease aside, and what it asks in the form of an object.
            .filter(|event| {
                !["leases", "selfsubjectrulesreviews"]
                    .iter()
                    .any(|resource| event["objectRef"]["resource"] == *resource)
            })
            // A rehearsal stores nothing.
            .filter(|event| !event["requestURI"].as_str().unwrap_or_default().contains("dryRun=All"))
            .map(|event| {
                let object = &event["objectRef"];
                let resource = match object["subresource"].as_str() {
                    Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
                    None => text(&object["resource"]),
                };
                format!("{} {resource} {}", text(&event["verb"]), text(&object["name"]))
            })
            .collect()
    }

    /// A handle for objects of a kind that the product manages.
    pub fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        self.api_of(kind.group(), kind.version(), kind.name(), kind.plural(), namespace.filter(|_| kind.namespaced()))
    }

    /// A handle for objects of any kind.
    pub fn api_of(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The KubeVirt custom resources, in one of the served versions.
    pub fn kubevirts(&self, version: &str) -> Api<DynamicObject> {
        self.api_of("kubevirt.io", version, "KubeVirt", "kubevirts", Some(NAMESPACE))
    }

    /// Applies objects in their order, as `kubectl apply --server-side` does.
    pub async fn apply(&self, objects: &[Object]) {
        for object in objects {
            let api = self.api(object.kind(), object.namespace());
            let params = PatchParams::apply("test").force();
            // A kind whose CRD was just applied is served a moment later.
            if object.kind().group().ends_with("kubevirt.io") && !object.kind().group().is_empty() {
                self.established(&format!("{}.{}", object.kind().plural(), object.kind().group())).await;
            }
            api.patch(object.name(), &params, &Patch::Apply(object.value()))
                .await
                .unwrap_or_else(|error| panic!("apply {}: {error}", object.key()));
        }
    }

    /// Waits until a CRD is served.
    pub async fn established(&self, name: &str) {
        let api = self.api(Kind::CustomResourceDefinition, None);
        until(&api, name, "Established", |object| condition(object, "Established")["status"] == "True").await;
    }

    /// Changes the spec of the KubeVirt custom resource by a merge patch.
    pub async fn patch_kubevirt(&self, spec: Value) -> DynamicObject {
        let patch = serde_json::json!({ "spec": spec });
        self.kubevirts("v1")
            .patch("kubevirt", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("patch the KubeVirt custom resource")
    }

    /// Waits until the custom resource says what is asked.
    pub async fn kubevirt_until(&self, what: &str, says: impl Fn(&Value) -> bool) -> Value {
        let object = until(&self.kubevirts("v1"), "kubevirt", what, |object| says(&object.data)).await;
        object.data
    }

    /// `name uid` of every pod of the suite (the operator's own aside), sorted.
    pub async fn suite_pods(&self) -> Vec<String> {
        let pods =
            self.api_of("", "v1", "Pod", "pods", Some(NAMESPACE)).list(&Default::default()).await.expect("list pods");
        let suite = pods.items.iter().filter(|pod| !pod.name_any().starts_with("virt-operator-"));
        let mut names: Vec<String> =
            suite.map(|pod| format!("{} {}", pod.name_any(), pod.uid().unwrap_or_default())).collect();
        names.sort();
        names
    }

    /// How many pods of a component exist.
    pub async fn count(&self, component: &str) -> usize {
        let pods = self.suite_pods().await;
        pods.iter().filter(|pod| pod.starts_with(&format!("{component}-"))).count()
    }
}

fn options(nodes: u32, seed: u64, change: impl FnOnce(Table) -> Table) -> Options {
    let start = "2026-01-01T00:00:00Z".parse().expect("a valid time");
    // No launcher's image ships yet; that of a release is held on nodes where Secrets are needed to pull it.
    let images = Table::suite("localhost/kubevirt", &["v0.1.0", "v0.2.0", "v0.3.0"])
        .with_idle("localhost/kubevirt/virt-launcher:v0.1.0");
    Options::new(nodes, Clock::anchored(start), seed, Arc::new(change(images)))
}

/// Waits until an object does not exist; fails after [`PATIENCE`].
pub async fn until_gone(api: &Api<DynamicObject>, name: &str) {
    let wait = await_condition(api.clone(), name, |object: Option<&DynamicObject>| object.is_none());
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => panic!("{name}: gone: {error}"),
        Err(_) => panic!("{name}: not gone within {PATIENCE:?}"),
    }
}

/// Waits until an object exists and satisfies a condition; fails after [`PATIENCE`] with the object as it was last.
pub async fn until(
    api: &Api<DynamicObject>,
    name: &str,
    what: &str,
    holds: impl Fn(&DynamicObject) -> bool,
) -> DynamicObject {
    let wait = await_condition(api.clone(), name, |object: Option<&DynamicObject>| object.is_some_and(&holds));
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Ok(Some(object))) => object,
        Ok(Ok(None)) => panic!("{name}: {what}: the object vanished"),
        Ok(Err(error)) => panic!("{name}: {what}: {error}"),
        Err(_) => {
            let last = api.get_opt(name).await;
            panic!("{name}: not {what} within {PATIENCE:?}; last seen: {last:#?}")
        }
    }
}

/// Lets simulated time pass, to see that nothing happens in it.
pub async fn quiet_for(time: Duration) {
    let never = std::future::pending::<()>();
    assert!(tokio::time::timeout(time, never).await.is_err());
}

/// A condition of an object's status by its type.
pub fn condition<'a>(object: &'a DynamicObject, kind: &str) -> &'a Value {
    condition_of(&object.data, kind)
}

/// A condition in the data of an object by its type; null when there is none.
pub fn condition_of<'a>(data: &'a Value, kind: &str) -> &'a Value {
    let conditions = data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// Types of an object as the API names them.
pub fn type_meta(api_version: &str, kind: &str) -> TypeMeta {
    TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() }
}

/// Runs a scenario on a single-threaded runtime with paused time.
pub fn simulate<F: Future<Output = ()>>(scenario: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime without network needs nothing of the system");
    runtime.block_on(scenario);
}
