//! The kinds that scripts can name.

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

/// A kind: its name in scripts, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// As scripts and transcripts write it.
    pub(crate) word: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
}

const fn kind(
    word: &'static str,
    group: &'static str,
    name: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Kind {
    Kind { word, group, version: "v1", name, plural, namespaced }
}

pub(crate) const KINDS: &[Kind] = &[
    kind("apiservice", "apiregistration.k8s.io", "APIService", "apiservices", false),
    kind("budget", "policy", "PodDisruptionBudget", "poddisruptionbudgets", true),
    kind("configmap", "", "ConfigMap", "configmaps", true),
    kind("daemonset", "apps", "DaemonSet", "daemonsets", true),
    kind("deployment", "apps", "Deployment", "deployments", true),
    kind("endpoints", "", "Endpoints", "endpoints", true),
    kind("endpointslice", "discovery.k8s.io", "EndpointSlice", "endpointslices", true),
    kind("event", "", "Event", "events", true),
    kind("namespace", "", "Namespace", "namespaces", false),
    kind("node", "", "Node", "nodes", false),
    kind("pod", "", "Pod", "pods", true),
    kind("replicaset", "apps", "ReplicaSet", "replicasets", true),
    kind("revision", "apps", "ControllerRevision", "controllerrevisions", true),
    kind("secret", "", "Secret", "secrets", true),
    kind("service", "", "Service", "services", true),
    kind("serviceaccount", "", "ServiceAccount", "serviceaccounts", true),
    kind(
        "validatingwebhook",
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
];

impl Kind {
    /// The kind that a script means, in singular or plural.
    pub(crate) fn find(word: &str) -> Option<Self> {
        KINDS.iter().copied().find(|kind| word == kind.word || word.strip_suffix('s') == Some(kind.word))
    }

    /// The kind of an object's `apiVersion` and `kind`.
    pub(crate) fn of(name: &str) -> Option<Self> {
        KINDS.iter().copied().find(|kind| kind.name == name)
    }

    pub(crate) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.name);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// All objects of the kind.
    pub(crate) fn everywhere(&self, client: Client) -> Api<DynamicObject> {
        Api::all_with(client, &self.resource())
    }

    /// The objects of a namespace, or of the cluster.
    pub(crate) fn within(&self, client: Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client, namespace, &self.resource())
        } else {
            self.everywhere(client)
        }
    }
}
