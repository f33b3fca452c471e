//! The one table of built-in resources. A new kind is one line here; everything else follows from it.

/// What a subresource answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sub {
    Status,
    Scale,
    /// `pods/binding`: sets the node.
    Binding,
    /// `pods/eviction`: a deletion that asks the disruption budgets first.
    Eviction,
    /// `pods/log`: refused with a reason; logs are with the nodes.
    Log,
    /// `namespaces/finalize`.
    Finalize,
    /// `serviceaccounts/token`.
    Token,
    /// `certificatesigningrequests/approval` and the like are not served; this marks `pods/ephemeralcontainers`.
    EphemeralContainers,
}

impl Sub {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Finalize => "finalize",
            Self::Token => "token",
            Self::EphemeralContainers => "ephemeralcontainers",
        }
    }

    /// The verbs discovery announces.
    pub(crate) const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::EphemeralContainers => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
        }
    }

    /// Group, version and kind of the body when it is not the resource's own.
    pub(crate) const fn body(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status | Self::Log | Self::Finalize | Self::EphemeralContainers => None,
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
        }
    }
}

/// How objects of a kind are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// In the store, under the resource's own key.
    Own,
    /// `events.k8s.io`: the objects are those of the core group, spelled differently.
    Events,
    /// Answered and forgotten (access reviews); only `create` exists.
    Review,
}

/// A built-in kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub short_names: &'static [&'static str],
    pub namespaced: bool,
    /// Member of the category `all`, or of the named ones.
    pub categories: &'static [&'static str],
    pub subresources: &'static [Sub],
    /// Field selectors beside `metadata.name` and `metadata.namespace`.
    pub selectors: &'static [&'static str],
    /// `metadata.generation` counts changes of what a user wants.
    pub generation: bool,
    /// A completed deletion answers with the object instead of a Status.
    pub shows_deleted: bool,
    pub keeping: Keeping,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        plural,
        singular,
        kind,
        short_names: &[],
        namespaced: true,
        categories: &[],
        subresources: &[],
        selectors: &[],
        generation: false,
        shows_deleted: false,
        keeping: Keeping::Own,
    }
}

impl Kind {
    const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }
    const fn cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }
    const fn all(self) -> Self {
        Self { categories: &["all"], ..self }
    }
    const fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }
    const fn subs(self, subresources: &'static [Sub]) -> Self {
        Self { subresources, ..self }
    }
    const fn select(self, selectors: &'static [&'static str]) -> Self {
        Self { selectors, ..self }
    }
    const fn generation(self) -> Self {
        Self { generation: true, ..self }
    }
    const fn shows_deleted(self) -> Self {
        Self { shows_deleted: true, ..self }
    }
    const fn keeping(self, keeping: Keeping) -> Self {
        Self { keeping, ..self }
    }
}

const STATUS: &[Sub] = &[Sub::Status];
const SCALED: &[Sub] = &[Sub::Scale, Sub::Status];
const POD: &[Sub] = &[Sub::Binding, Sub::EphemeralContainers, Sub::Eviction, Sub::Log, Sub::Status];
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const REGARDING_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reason",
    "reportingController",
    "type",
];
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Every built-in resource.
pub(crate) const BUILT_IN: &[Kind] = &[
    kind("", "v1", "configmaps", "configmap", "ConfigMap").short(&["cm"]),
    kind("", "v1", "endpoints", "endpoints", "Endpoints").short(&["ep"]),
    kind("", "v1", "events", "event", "Event").short(&["ev"]).select(EVENT_FIELDS),
    kind("", "v1", "limitranges", "limitrange", "LimitRange").short(&["limits"]),
    kind("", "v1", "namespaces", "namespace", "Namespace")
        .short(&["ns"])
        .cluster()
        .subs(&[Sub::Finalize, Sub::Status])
        .select(&["status.phase"])
        .shows_deleted(),
    kind("", "v1", "nodes", "node", "Node")
        .short(&["no"])
        .cluster()
        .subs(STATUS)
        .select(&["spec.unschedulable"])
        .shows_deleted(),
    kind("", "v1", "persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim")
        .short(&["pvc"])
        .subs(STATUS)
        .shows_deleted(),
    kind("", "v1", "persistentvolumes", "persistentvolume", "PersistentVolume")
        .short(&["pv"])
        .cluster()
        .subs(STATUS)
        .shows_deleted(),
    kind("", "v1", "pods", "pod", "Pod").short(&["po"]).all().subs(POD).select(POD_FIELDS).generation().shows_deleted(),
    kind("", "v1", "resourcequotas", "resourcequota", "ResourceQuota").short(&["quota"]).subs(STATUS).shows_deleted(),
    kind("", "v1", "secrets", "secret", "Secret").select(&["type"]),
    kind("", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount")
        .short(&["sa"])
        .subs(&[Sub::Token])
        .shows_deleted(),
    kind("", "v1", "services", "service", "Service")
        .short(&["svc"])
        .all()
        .subs(STATUS)
        .select(&["spec.clusterIP", "spec.type"])
        .shows_deleted(),
    kind(
        ADMISSION,
        "v1",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
        "MutatingWebhookConfiguration",
    )
    .cluster()
    .categories(&["api-extensions"])
    .generation(),
    kind(ADMISSION, "v1", "validatingadmissionpolicies", "validatingadmissionpolicy", "ValidatingAdmissionPolicy")
        .cluster()
        .categories(&["api-extensions"])
        .subs(STATUS)
        .generation(),
    kind(
        ADMISSION,
        "v1",
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
        "ValidatingAdmissionPolicyBinding",
    )
    .cluster()
    .categories(&["api-extensions"])
    .generation(),
    kind(
        ADMISSION,
        "v1",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
        "ValidatingWebhookConfiguration",
    )
    .cluster()
    .categories(&["api-extensions"])
    .generation(),
    kind(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "customresourcedefinition",
        "CustomResourceDefinition",
    )
    .short(&["crd", "crds"])
    .cluster()
    .categories(&["api-extensions"])
    .subs(STATUS)
    .generation(),
    kind("apiregistration.k8s.io", "v1", "apiservices", "apiservice", "APIService")
        .cluster()
        .categories(&["api-extensions"])
        .subs(STATUS),
    kind(APPS, "v1", "controllerrevisions", "controllerrevision", "ControllerRevision"),
    kind(APPS, "v1", "daemonsets", "daemonset", "DaemonSet").short(&["ds"]).all().subs(STATUS).generation(),
    kind(APPS, "v1", "deployments", "deployment", "Deployment").short(&["deploy"]).all().subs(SCALED).generation(),
    kind(APPS, "v1", "replicasets", "replicaset", "ReplicaSet")
        .short(&["rs"])
        .all()
        .subs(SCALED)
        .select(&["status.replicas"])
        .generation(),
    kind(APPS, "v1", "statefulsets", "statefulset", "StatefulSet").short(&["sts"]).all().subs(SCALED).generation(),
    kind("authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview")
        .cluster()
        .keeping(Keeping::Review),
    kind("authentication.k8s.io", "v1", "tokenreviews", "tokenreview", "TokenReview")
        .cluster()
        .keeping(Keeping::Review),
    kind(AUTHORIZATION, "v1", "localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview")
        .keeping(Keeping::Review),
    kind(AUTHORIZATION, "v1", "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview")
        .cluster()
        .keeping(Keeping::Review),
    kind(AUTHORIZATION, "v1", "selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview")
        .cluster()
        .keeping(Keeping::Review),
    kind(AUTHORIZATION, "v1", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview")
        .cluster()
        .keeping(Keeping::Review),
    kind("batch", "v1", "cronjobs", "cronjob", "CronJob").short(&["cj"]).all().subs(STATUS).generation(),
    kind("batch", "v1", "jobs", "job", "Job").all().subs(STATUS).select(&["status.successful"]).generation(),
    kind("coordination.k8s.io", "v1", "leases", "lease", "Lease"),
    kind("discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice").generation(),
    kind("events.k8s.io", "v1", "events", "event", "Event")
        .short(&["ev"])
        .select(REGARDING_FIELDS)
        .keeping(Keeping::Events),
    kind("policy", "v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget")
        .short(&["pdb"])
        .subs(STATUS)
        .generation(),
    kind(RBAC, "v1", "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding").cluster(),
    kind(RBAC, "v1", "clusterroles", "clusterrole", "ClusterRole").cluster(),
    kind(RBAC, "v1", "rolebindings", "rolebinding", "RoleBinding"),
    kind(RBAC, "v1", "roles", "role", "Role"),
    kind("scheduling.k8s.io", "v1", "priorityclasses", "priorityclass", "PriorityClass")
        .short(&["pc"])
        .cluster()
        .generation(),
    kind("storage.k8s.io", "v1", "storageclasses", "storageclass", "StorageClass").short(&["sc"]).cluster(),
];
