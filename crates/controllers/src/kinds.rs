//! The kinds this crate works with, in one table. From it come [`Kind`], [`Object`] and [`Objects`] (one store per
//! kind); a new kind is one line here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource};

use crate::cache::{Change, Name, Store};

/// A kind that is cached: how to reach its objects through a client, and where they are stored.
pub trait Cached:
    Resource<DynamicType = ()> + serde::Serialize + serde::de::DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Which kind this is.
    const KIND: Kind;
    /// Whether objects of this kind live in namespaces.
    const NAMESPACED: bool;
    /// The API of this kind in a namespace; a cluster-scoped kind ignores the namespace.
    fn api(client: Client, namespace: &str) -> Api<Self>;
    /// Wraps an object.
    fn wrap(object: Arc<Self>) -> Object;
    /// The store of this kind.
    fn store(objects: &Objects) -> &Store<Self>;
    /// The store of this kind, to change it.
    fn store_mut(objects: &mut Objects) -> &mut Store<Self>;
}

/// Code that runs for one kind, chosen at run time by [`Kind::visit`].
pub trait Visitor {
    /// What a visit gives.
    type Out;
    /// Runs for the kind `K`.
    fn visit<K: Cached>(self) -> Self::Out;
}

/// Code that runs for one object, chosen at run time by [`Object::visit`].
pub trait ObjectVisitor {
    /// What a visit gives.
    type Out;
    /// Runs for the object.
    fn visit<K: Cached>(self, object: &Arc<K>) -> Self::Out;
}

macro_rules! api {
    (namespaced, $client:ident, $namespace:ident) => {
        Api::namespaced($client, $namespace)
    };
    (cluster, $client:ident, $namespace:ident) => {{
        let _ = $namespace;
        Api::all($client)
    }};
}

macro_rules! is_namespaced {
    (namespaced) => {
        true
    };
    (cluster) => {
        false
    };
}

macro_rules! kinds {
    ($($kind:ident $field:ident $scope:ident),* $(,)?) => {
        /// A kind of object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($kind),* }

        /// An object of any of the kinds.
        #[derive(Clone, Debug)]
        pub enum Object { $($kind(Arc<$kind>)),* }

        /// What is known of the cluster: one store per kind, and which pods run on which node.
        #[derive(Default)]
        pub struct Objects {
            $(pub $field: Store<$kind>,)*
            pods_on: BTreeMap<String, BTreeSet<Name>>,
        }

        $(impl Cached for $kind {
            const KIND: Kind = Kind::$kind;
            const NAMESPACED: bool = is_namespaced!($scope);
            fn api(client: Client, namespace: &str) -> Api<Self> { api!($scope, client, namespace) }
            fn wrap(object: Arc<Self>) -> Object { Object::$kind(object) }
            fn store(objects: &Objects) -> &Store<Self> { &objects.$field }
            fn store_mut(objects: &mut Objects) -> &mut Store<Self> { &mut objects.$field }
        })*

        impl Kind {
            /// Runs `visitor` with the Rust type of this kind.
            pub fn visit<V: Visitor>(self, visitor: V) -> V::Out {
                match self { $(Self::$kind => visitor.visit::<$kind>()),* }
            }
        }

        impl Object {
            /// Runs `visitor` with the typed object.
            pub fn visit<V: ObjectVisitor>(&self, visitor: V) -> V::Out {
                match self { $(Self::$kind(object) => visitor.visit(object)),* }
            }

            /// The object's metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata),* }
            }

            /// The object's kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),* }
            }
        }
    };
}

kinds! {
    Pod pods namespaced,
    Node nodes cluster,
    Namespace namespaces cluster,
    Service services namespaced,
    ReplicaSet replica_sets namespaced,
    Deployment deployments namespaced,
    DaemonSet daemon_sets namespaced,
    ControllerRevision controller_revisions namespaced,
    Job jobs namespaced,
    Endpoints endpoints namespaced,
    EndpointSlice endpoint_slices namespaced,
    ServiceAccount service_accounts namespaced,
    ConfigMap config_maps namespaced,
    Secret secrets namespaced,
    PodDisruptionBudget disruption_budgets namespaced,
    Lease leases namespaced,
    PersistentVolumeClaim claims namespaced,
    PersistentVolume volumes cluster,
}

impl Object {
    /// The object's name.
    pub fn name(&self) -> Name {
        Name::of_meta(self.meta())
    }

    /// The pod, when this is one.
    pub fn as_pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Self::Pod(pod) => Some(pod),
            _ => None,
        }
    }
}

impl Objects {
    /// For those who do not run pods: pods are kept without what only their node needs.
    pub fn lean() -> Self {
        let mut objects = Self::default();
        objects.pods.lean = true;
        objects
    }

    /// Stores an object, unless something newer is known. Gives the change, if there is one.
    pub fn upsert<K: Cached>(&mut self, object: K) -> Option<Change> {
        let name = Name::of(&object);
        let (old, new) = K::store_mut(self).upsert(object)?;
        let change = Change { kind: K::KIND, name, old: old.map(K::wrap), new: Some(K::wrap(new)) };
        self.index(&change);
        Some(change)
    }

    /// Forgets an object. With a `uid`, only that incarnation.
    pub fn remove<K: Cached>(&mut self, name: &Name, uid: Option<&str>) -> Option<Change> {
        let old = K::store_mut(self).remove(name, uid)?;
        let change = Change { kind: K::KIND, name: name.clone(), old: Some(K::wrap(old)), new: None };
        self.index(&change);
        Some(change)
    }

    /// Puts a pod in the place of the known one, whatever its version.
    pub(crate) fn replace_pod(&mut self, name: &Name, pod: Pod) -> Option<Change> {
        let (old, new) = self.pods.replace(name, pod);
        let (old, new) = (old.map(Pod::wrap), Some(Pod::wrap(new)));
        let change = Change { kind: Kind::Pod, name: name.clone(), old, new };
        self.index(&change);
        Some(change)
    }

    fn index(&mut self, change: &Change) {
        let node_of = |object: &Option<Object>| {
            let pod = object.as_ref().and_then(Object::as_pod)?;
            Some(crate::pods::node_name(pod).unwrap_or_default().to_owned())
        };
        let (old, new) = (node_of(&change.old), node_of(&change.new));
        if old == new {
            return;
        }
        if let Some(node) = old
            && let Some(pods) = self.pods_on.get_mut(&node)
        {
            pods.remove(&change.name);
            if pods.is_empty() {
                self.pods_on.remove(&node);
            }
        }
        if let Some(node) = new {
            self.pods_on.entry(node).or_default().insert(change.name.clone());
        }
    }

    /// The pods bound to a node; under the empty name, those bound to none.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.pods_on.get(node).into_iter().flatten().filter_map(|name| self.pods.get(name))
    }
}
