//! What the planner is told: the wanted objects of a version and a snapshot of what exists. Plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kubevirt_release::ObjectKey;
use serde::Serialize;

/// A version as the cluster names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The version of the suite, e.g. `v1.9.0`.
    pub version: String,
    /// The deployment ID: the hash over everything each component pod contains.
    pub id: String,
}

/// Everything a plan is made from.
#[derive(Clone, Debug)]
pub struct Input {
    /// The version that was last complete, `None` before the first installation has finished.
    pub observed: Option<Identity>,
    pub target: Identity,
    /// The objects of the target version, all of them.
    pub desired: BTreeSet<ObjectKey>,
    pub snapshot: Snapshot,
    /// Versions that are not semantic, oldest first, as far as their order is known.
    pub releases: Vec<String>,
    /// Whether the version brings kinds that stay closed until its virt-api serves. What closes them is among the desired
    /// objects as long as [`crate::gate::wanted`].
    pub closes: bool,
    /// Whether the images of the new virt-handler are to be on the nodes before the first one is replaced. The object that
    /// sees to it is among the desired ones as long as [`crate::images::wanted`].
    pub pulls_images: bool,
    /// Whether nodes that lack images are not waited for any more.
    pub images_overdue: bool,
}

/// What exists, as the caches show it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Each object of ours in the cluster, wanted or not.
    pub objects: BTreeMap<ObjectKey, Existing>,
    /// Webhook configurations and aggregated APIs that must not be registered yet, and why: a registration without a
    /// backend that answers makes the API server refuse what it should hand on. Asked about new objects only.
    pub no_backend: BTreeMap<ObjectKey, String>,
    /// The state of each Deployment and DaemonSet of ours.
    pub workloads: BTreeMap<ObjectKey, Workload>,
    /// Nodes that are not waited for, and why. Their pods are new when the nodes are back.
    pub absent_nodes: BTreeMap<String, Absence>,
}

impl Snapshot {
    /// Whether an object exists as that of a deployment: what rolls has begun to.
    pub(crate) fn is_of(&self, key: &ObjectKey, id: &str) -> bool {
        self.objects.get(key).is_some_and(|existing| existing.id.as_deref() == Some(id))
    }
}

/// Why a node is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Absence {
    /// Its kubelet says that it cannot run pods.
    NotReady,
    /// Nothing was heard of its kubelet.
    Unreachable,
    /// Somebody took it out of service.
    Cordoned,
}

impl Absence {
    /// The machine-readable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotReady => "NodeNotReady",
            Self::Unreachable => "NodeUnreachable",
            Self::Cordoned => "NodeCordoned",
        }
    }
}

/// One live object, compared with what the target version wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// The content is what the target version wants.
    pub same: bool,
    /// For roles and bindings: the content also holds everything the old and the new version need together. For registrations:
    /// the API server trusts whoever answers them.
    pub same_transitional: bool,
    /// The deployment ID the object is stamped with.
    pub id: Option<String>,
    /// Why the object, although written, does not serve yet (a CRD that is not established).
    pub not_serving: Option<String>,
    /// Deletion was asked for and has not finished.
    pub deleting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum WorkloadKind {
    Deployment,
    DaemonSet,
}

/// How far a Deployment or DaemonSet has rolled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub kind: WorkloadKind,
    pub generation: i64,
    /// The generation its controller has acted on.
    pub observed_generation: i64,
    /// Pods it should have: `spec.replicas`, or the nodes it is scheduled to.
    pub wanted: i64,
    /// Pods of the newest template.
    pub updated: i64,
    pub ready: i64,
    /// Pods of any template.
    pub total: i64,
    pub pods: Vec<Pod>,
}

/// One pod of a workload. There is one for each node, so whoever plans shares the texts and does not copy them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: Arc<str>,
    /// The deployment ID it was made from.
    pub id: Option<Arc<str>>,
    /// The template it was made from, by the name its controller gave that.
    pub revision: Option<Arc<str>>,
    /// When it was made, as the API server writes it: a later one is a greater text.
    pub created: Option<Arc<str>>,
    pub ready: bool,
    /// Why it is not ready, in the words of the kubelet or the scheduler.
    pub not_ready: Option<Arc<str>>,
    /// Deletion was asked for; it still runs.
    pub deleting: bool,
    /// The node it is on, once it is on one.
    pub node: Option<Arc<str>>,
    /// Since when it is as ready as it is; for one that never was, since it was made.
    pub since: Option<Timestamp>,
    pub trouble: Option<Trouble>,
    /// Its init containers have brought as many images onto its node as they can, whatever became of them: all; or those up
    /// to one that fails; or none, where the node has no room for the pod.
    pub prepared: bool,
}

/// What a pod suffers from, where that by itself says whether waiting helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A container ends soon after each start.
    CrashLoops { restarts: i64 },
    /// A container's image cannot be pulled.
    NoImage,
}
