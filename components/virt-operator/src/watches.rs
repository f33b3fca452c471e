//! The watches that keep the cache: one per kind, opened by the leader only.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::Stream;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::{GroupVersionKind, PartialObjectMeta, TypeMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{conditions, wait, watcher as watch_objects};
use kube::{Client, ResourceExt};
use kubevirt_api::names::label;
use kubevirt_release::extras::TYPES;
use kubevirt_release::{Care, Kind, ObjectKey};
use kubevirt_runtime::causes::Causes;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::apis::apis;
use crate::cache::{Cache, NodeFacts, Nodes, Objects, Source, insert_pod};
use crate::follow::{RETRY_LONGEST, all, next, stand_still};
use crate::pods::{Pods, Shared, SuitePod};
use crate::reconcile::World;
use crate::strategies::Memory;
use crate::{nodes, optional};

/// How many nodes a list shows at once: their metadata alone has a kilobyte or two each, so a page is some megabytes, for a
/// moment; five thousand nodes take two requests.
const NODES: u32 = 2500;

/// How many pods a list shows at once: some ten kilobytes each, which are in memory while they are read.
const PODS: u32 = 100;

/// The kinds that are followed one like the other. Of nodes only metadata is read, by a watch of its own.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.care().follows() && *kind != Kind::Node)
}

/// Opens every watch. The tasks end when the set is dropped.
pub fn start(client: &Client, namespace: &str) -> (Arc<Cache>, JoinSet<()>) {
    let sources = kinds().map(Source::Kind).chain([Source::Pods, Source::Nodes]);
    let cache = Arc::new(Cache::new(sources));
    let mut tasks = JoinSet::new();
    let (definitions, mut optional) = apis();
    tasks.spawn(definitions.follow(client.clone()));
    for kind in kinds() {
        let (client, namespace, cache) = (client.clone(), namespace.to_owned(), Arc::clone(&cache));
        match optional.remove(&kind) {
            Some(attempts) => tasks.spawn(optional::follow(attempts, client, namespace, cache)),
            None => tasks.spawn(follow_kind(kind, client, namespace, cache)),
        };
    }
    tasks.spawn(follow_pods(client.clone(), namespace.to_owned(), Arc::clone(&cache)));
    tasks.spawn(follow_nodes(client.clone(), Arc::clone(&cache)));
    (cache, tasks)
}

/// What the operator manages carries this.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/managed-by in (virt-operator,kubevirt-operator)";

/// Selects what the operator manages.
fn ours() -> watcher::Config {
    all().labels(SELECTOR)
}

/// Everything the watches would show, read once, without the kinds in `but`: for whoever looks at a cluster without
/// keeping it.
///
/// # Errors
/// A list was refused or not answered.
pub async fn look(client: &Client, namespace: &str, but: &[Kind]) -> kube::Result<World> {
    let list = |config: watcher::Config| ListParams {
        label_selector: config.label_selector,
        field_selector: config.field_selector,
        ..ListParams::default()
    };
    let mut world = World::default();
    for kind in kinds().filter(|kind| !but.contains(kind) && !TYPES.contains(kind)) {
        let (api, config) = scope(kind, client.clone(), namespace);
        let listed = match api.list(&list(config)).await {
            Err(kube::Error::Api(status)) if status.code == 404 && kind.is_optional() => {
                world.unserved.insert(kind);
                continue;
            }
            listed => listed?,
        };
        for object in listed.items {
            let key = ObjectKey::new(kind, object.namespace().as_deref(), &object.name_any());
            let live = Arc::new(slim(kind, object));
            if kind == Kind::KubeVirt {
                world.crs.push(live);
            } else {
                world.objects.insert(key, live);
            }
        }
    }
    world.strategies = Memory::default().of(&world.objects);
    let mut shared = Shared::default();
    for pod in pods(client.clone(), namespace).list(&list(ours())).await?.items {
        insert_pod(&mut world.pods, &mut shared, pod.name_any(), pod.facts);
    }
    let listed: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
    for node in listed.list(&ListParams::default()).await?.items {
        world.nodes.insert(node.name_any(), node_facts(node.labels()));
    }
    Ok(world)
}

/// One object by its name, whatever its labels.
///
/// # Errors
/// The request was refused or not answered.
pub async fn get(client: &Client, key: &ObjectKey) -> kube::Result<Option<Value>> {
    let (api, _) = scope(key.kind, client.clone(), key.namespace.as_deref().unwrap_or_default());
    Ok(api.get_opt(&key.name).await?.map(|object| slim(key.kind, object)))
}

/// The objects of a kind in a namespace that carry a label, whatever its value.
///
/// # Errors
/// The request was refused or not answered.
pub async fn labelled(
    client: &Client,
    namespace: &str,
    kind: Kind,
    label: &str,
) -> kube::Result<Vec<(ObjectKey, Value)>> {
    let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = api.list(&ListParams::default().labels(label)).await?;
    let keyed = found.items.into_iter().map(|object| {
        let key = ObjectKey::new(kind, object.namespace().as_deref(), &object.name_any());
        (key, slim(kind, object))
    });
    Ok(keyed.collect())
}

/// What is kept of a node that was read as a whole.
pub(crate) fn facts_of(node: &Value) -> NodeFacts {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    node_facts(&labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect())
}

/// Where objects of a kind are, and which of them are looked at.
pub(crate) fn scope(kind: Kind, client: Client, namespace: &str) -> (Api<DynamicObject>, watcher::Config) {
    let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
    match kind {
        Kind::KubeVirt => (Api::all_with(client, &resource), all()),
        Kind::Namespace => (Api::all_with(client, &resource), all().fields(&format!("metadata.name={namespace}"))),
        // Elsewhere the operator keeps nothing, and may look at nothing.
        kind if kind.namespaced() && kind.care() != Care::KeepsAnywhere => {
            (Api::namespaced_with(client, namespace, &resource), ours())
        }
        _ => (Api::all_with(client, &resource), ours()),
    }
}

/// The suite's pods, which are where the operator is: elsewhere a pod of the same label and name is somebody else's.
fn pods(client: Client, namespace: &str) -> Api<SuitePod> {
    Api::namespaced(client, namespace)
}

async fn follow_kind(kind: Kind, client: Client, namespace: String, cache: Arc<Cache>) {
    if kind == Kind::KubeVirt {
        // Its definition comes with the operator's manifest, perhaps after the operator itself.
        until_established(&client, "kubevirts.kubevirt.io").await;
    }
    let (api, config) = scope(kind, client, &namespace);
    let key_of = |object: &DynamicObject| ObjectKey::new(kind, object.namespace().as_deref(), &object.name_any());
    let mut listing = Objects::new();
    let mut events = std::pin::pin!(watch_objects(api, config));
    while let Some(event) = next_of(Source::Kind(kind), &mut events, &cache).await {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => {
                listing.insert(key_of(&object), Arc::new(slim(kind, object)));
            }
            Event::InitDone => cache.replace_kind(kind, std::mem::take(&mut listing)),
            Event::Apply(object) => cache.store(key_of(&object), slim(kind, object)),
            Event::Delete(object) => cache.left(&key_of(&object), &slim(kind, object)),
        }
    }
    stand_still().await;
}

pub(crate) async fn until_established(client: &Client, definition: &str) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    while let Err(error) =
        wait::await_condition(definitions.clone(), definition, conditions::is_crd_established()).await
    {
        tracing::warn!(definition, %error, "waiting for the definition");
        tokio::time::sleep(RETRY_LONGEST).await;
    }
}

async fn follow_pods(client: Client, namespace: String, cache: Arc<Cache>) {
    let mut listing = (Pods::default(), Shared::default());
    let mut events = std::pin::pin!(watch_objects(pods(client, &namespace), ours().page_size(PODS)));
    while let Some(event) = next_of(Source::Pods, &mut events, &cache).await {
        match event {
            Event::Init => listing = Default::default(),
            Event::InitApply(pod) => {
                insert_pod(&mut listing.0, &mut listing.1, pod.name_any(), pod.facts);
            }
            Event::InitDone => cache.replace_pods(std::mem::take(&mut listing)),
            Event::Apply(pod) => cache.store_pod(pod.name_any(), pod.facts),
            Event::Delete(pod) => cache.remove_pod(&pod.name_any()),
        }
    }
    stand_still().await;
}

/// Nodes are only counted, so only their metadata is read.
async fn follow_nodes(client: Client, cache: Arc<Cache>) {
    let mut listing = Nodes::new();
    let nodes: Api<PartialObjectMeta<Node>> = Api::all(client);
    let mut events = std::pin::pin!(watch_objects(nodes, all().page_size(NODES)));
    while let Some(event) = next_of(Source::Nodes, &mut events, &cache).await {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(node) => {
                listing.insert(node.name_any(), node_facts(node.labels()));
            }
            Event::InitDone => cache.replace_nodes(std::mem::take(&mut listing)),
            Event::Apply(node) => cache.store_node(node.name_any(), node_facts(node.labels())),
            Event::Delete(node) => cache.remove_node(&node.name_any()),
        }
    }
    stand_still().await;
}

/// The next event of a source; how its watch gets on is kept in the cache.
async fn next_of<K>(
    source: Source,
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
    cache: &Cache,
) -> Option<Event<K>> {
    let heed = |error: Option<&watcher::Error>| cache.follows(source, error.map(|error| Causes(error).to_string()));
    next(events, &source.to_string(), heed).await
}

fn node_facts(labels: &BTreeMap<String, String>) -> NodeFacts {
    const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
    NodeFacts {
        schedulable: labels.get(label::SCHEDULABLE).is_some_and(|value| value == "true"),
        control_plane: CONTROL_PLANE.iter().any(|role| labels.contains_key(*role)),
        labelled: labels.keys().any(|key| nodes::is_ours(key)),
    }
}

/// The object as a tree, with its type (items of a list come without), as it is kept.
pub(crate) fn slim(kind: Kind, mut object: DynamicObject) -> Value {
    object.types = Some(TypeMeta { api_version: kind.api_version(), kind: kind.name().to_owned() });
    let mut live = serde_json::to_value(object).unwrap_or_default();
    kubevirt_apply::pack(&mut live);
    live
}
