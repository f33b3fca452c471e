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
    /// `certificatesigningrequests/approval`: the conditions of its status.
    Approval,
    EphemeralContainers,
    /// Announced, since a real server has it, and refused with a reason.
    Refused(Refused),
}

/// What only a node could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refused {
    Attach,
    Exec,
    PortForward,
    NodeProxy,
    PodProxy,
    ServiceProxy,
    Resize,
}

impl Refused {
    const fn kind(self) -> Option<&'static str> {
        match self {
            Self::Attach => Some("PodAttachOptions"),
            Self::Exec => Some("PodExecOptions"),
            Self::PortForward => Some("PodPortForwardOptions"),
            Self::NodeProxy => Some("NodeProxyOptions"),
            Self::PodProxy => Some("PodProxyOptions"),
            Self::ServiceProxy => Some("ServiceProxyOptions"),
            Self::Resize => None,
        }
    }
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
            Self::Approval => "approval",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Refused(Refused::Attach) => "attach",
            Self::Refused(Refused::Exec) => "exec",
            Self::Refused(Refused::PortForward) => "portforward",
            Self::Refused(Refused::NodeProxy | Refused::PodProxy | Refused::ServiceProxy) => "proxy",
            Self::Refused(Refused::Resize) => "resize",
        }
    }

    /// The verbs discovery announces.
    pub(crate) const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status
            | Self::Scale
            | Self::EphemeralContainers
            | Self::Approval
            | Self::Refused(Refused::Resize) => &["get", "patch", "update"],
            Self::Refused(Refused::Attach | Refused::Exec | Refused::PortForward) => &["create", "get"],
            Self::Refused(_) => &["create", "delete", "get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
        }
    }

    /// Group, version and kind of the body when it is not the resource's own.
    pub(crate) const fn body(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status | Self::Log | Self::Finalize | Self::EphemeralContainers | Self::Approval => None,
            Self::Refused(refused) => match refused.kind() {
                Some(kind) => Some(("", "v1", kind)),
                None => None,
            },
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
        }
    }
}

/// In which order `/apis` lists the groups of this server: by their priority.
pub(crate) const GROUP_ORDER: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// How objects of a kind are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// In the store, under the resource's own key.
    Own,
    /// `events.k8s.io`: the objects are those of the core group, spelled differently.
    Events,
    /// In the store, under the key of the other group and version whose objects these are.
    As(&'static str, &'static str),
    /// Answered and forgotten (access reviews); only `create` exists.
    Review,
    /// `bindings`: the same as the subresource of the pod that its name tells.
    Binding,
    /// `componentstatuses`: the server itself, asked and not stored.
    Health,
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
const POD: &[Sub] = &[
    Sub::Refused(Refused::Attach),
    Sub::Binding,
    Sub::EphemeralContainers,
    Sub::Eviction,
    Sub::Refused(Refused::Exec),
    Sub::Log,
    Sub::Refused(Refused::PortForward),
    Sub::Refused(Refused::PodProxy),
    Sub::Refused(Refused::Resize),
    Sub::Status,
];
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
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Every built-in resource.
pub(crate) const BUILT_IN: &[Kind] = &[
    kind("", "v1", "bindings", "binding", "Binding").keeping(Keeping::Binding),
    kind("", "v1", "componentstatuses", "componentstatus", "ComponentStatus")
        .short(&["cs"])
        .cluster()
        .keeping(Keeping::Health),
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
        .subs(&[Sub::Refused(Refused::NodeProxy), Sub::Status])
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
    kind("", "v1", "podtemplates", "podtemplate", "PodTemplate").generation().shows_deleted(),
    kind("", "v1", "replicationcontrollers", "replicationcontroller", "ReplicationController")
        .short(&["rc"])
        .all()
        .subs(SCALED)
        .select(&["status.replicas"])
        .generation(),
    kind("", "v1", "resourcequotas", "resourcequota", "ResourceQuota").short(&["quota"]).subs(STATUS).shows_deleted(),
    kind("", "v1", "secrets", "secret", "Secret").select(&["type"]),
    kind("", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount")
        .short(&["sa"])
        .subs(&[Sub::Token])
        .shows_deleted(),
    kind("", "v1", "services", "service", "Service")
        .short(&["svc"])
        .all()
        .subs(&[Sub::Refused(Refused::ServiceProxy), Sub::Status])
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
    kind("autoscaling", "v1", "horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler")
        .short(&["hpa"])
        .all()
        .subs(STATUS)
        .keeping(Keeping::As("autoscaling", "v2")),
    kind("autoscaling", "v2", "horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler")
        .short(&["hpa"])
        .all()
        .subs(STATUS),
    kind("batch", "v1", "cronjobs", "cronjob", "CronJob").short(&["cj"]).all().subs(STATUS).generation(),
    kind("batch", "v1", "jobs", "job", "Job").all().subs(STATUS).select(&["status.successful"]).generation(),
    kind(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "certificatesigningrequest",
        "CertificateSigningRequest",
    )
    .short(&["csr"])
    .cluster()
    .subs(&[Sub::Approval, Sub::Status])
    .select(&["spec.signerName"]),
    kind("coordination.k8s.io", "v1", "leases", "lease", "Lease"),
    kind("discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice").generation(),
    kind("events.k8s.io", "v1", "events", "event", "Event")
        .short(&["ev"])
        .select(REGARDING_FIELDS)
        .keeping(Keeping::Events),
    kind(FLOW, "v1", "flowschemas", "flowschema", "FlowSchema").cluster().subs(STATUS).generation(),
    kind(FLOW, "v1", "prioritylevelconfigurations", "prioritylevelconfiguration", "PriorityLevelConfiguration")
        .cluster()
        .subs(STATUS)
        .generation(),
    kind("networking.k8s.io", "v1", "ingressclasses", "ingressclass", "IngressClass").cluster().generation(),
    kind("networking.k8s.io", "v1", "ingresses", "ingress", "Ingress").short(&["ing"]).subs(STATUS).generation(),
    kind("networking.k8s.io", "v1", "ipaddresses", "ipaddress", "IPAddress")
        .short(&["ip"])
        .cluster()
        .select(&["spec.parentRef.resource"]),
    kind("networking.k8s.io", "v1", "networkpolicies", "networkpolicy", "NetworkPolicy")
        .short(&["netpol"])
        .generation(),
    kind("networking.k8s.io", "v1", "servicecidrs", "servicecidr", "ServiceCIDR").cluster().subs(STATUS),
    kind("node.k8s.io", "v1", "runtimeclasses", "runtimeclass", "RuntimeClass").cluster(),
    kind("policy", "v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget")
        .short(&["pdb"])
        .subs(STATUS)
        .generation(),
    kind(RBAC, "v1", "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding").cluster(),
    kind(RBAC, "v1", "clusterroles", "clusterrole", "ClusterRole").cluster(),
    kind(RBAC, "v1", "rolebindings", "rolebinding", "RoleBinding"),
    kind(RBAC, "v1", "roles", "role", "Role"),
    kind("resource.k8s.io", "v1", "deviceclasses", "deviceclass", "DeviceClass").cluster().generation(),
    kind("resource.k8s.io", "v1", "resourceclaims", "resourceclaim", "ResourceClaim").subs(STATUS),
    kind("resource.k8s.io", "v1", "resourceclaimtemplates", "resourceclaimtemplate", "ResourceClaimTemplate"),
    kind("resource.k8s.io", "v1", "resourceslices", "resourceslice", "ResourceSlice")
        .cluster()
        .select(&["spec.driver", "spec.nodeName"])
        .generation(),
    kind("scheduling.k8s.io", "v1", "priorityclasses", "priorityclass", "PriorityClass")
        .short(&["pc"])
        .cluster()
        .generation(),
    kind("storage.k8s.io", "v1", "csidrivers", "csidriver", "CSIDriver").cluster().generation().shows_deleted(),
    kind("storage.k8s.io", "v1", "csinodes", "csinode", "CSINode").cluster().shows_deleted(),
    kind("storage.k8s.io", "v1", "csistoragecapacities", "csistoragecapacity", "CSIStorageCapacity").shows_deleted(),
    kind("storage.k8s.io", "v1", "storageclasses", "storageclass", "StorageClass")
        .short(&["sc"])
        .cluster()
        .shows_deleted(),
    kind("storage.k8s.io", "v1", "volumeattachments", "volumeattachment", "VolumeAttachment")
        .cluster()
        .subs(STATUS)
        .shows_deleted(),
    kind("storage.k8s.io", "v1", "volumeattributesclasses", "volumeattributesclass", "VolumeAttributesClass")
        .short(&["vac"])
        .cluster()
        .shows_deleted(),
];
