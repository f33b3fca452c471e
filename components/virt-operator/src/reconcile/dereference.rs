//! Step 1: what there is, read from the cache in one go (the cache is the client here; nothing is requested).

use kubevirt_release::Kind;

use crate::cache::{Cache, Live, Nodes, Objects, Pods};

/// The cluster as one pass sees it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The KubeVirt CRs of all namespaces.
    pub crs: Vec<Live>,
    /// Everything else that is labelled as managed by the operator.
    pub objects: Objects,
    pub pods: Pods,
    pub nodes: Nodes,
}

/// Everything the cache knows now.
pub fn dereference(cache: &Cache) -> World {
    let (crs, objects) = cache.objects().into_iter().partition(|(key, _)| key.kind == Kind::KubeVirt);
    let crs: Objects = crs;
    World { crs: crs.into_values().collect(), objects, pods: cache.pods(), nodes: cache.nodes() }
}
