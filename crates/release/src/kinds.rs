//! The one registry of the kinds that a release may contain. A new kind is one line.
//!
//! It holds what a client must know to address an object, and in which phase objects of a kind are applied.

use std::fmt;

/// In which order objects of different kinds become useful. Phases are ordered; the planner may refine them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What other objects live in or are made of.
    Definitions,
    /// Who may do what: before anything runs with these rights.
    Access,
    /// Addresses and configuration that pods mount or dial.
    Configuration,
    /// Pods.
    Workloads,
    /// What the API server calls: only once something answers.
    Admission,
    /// What is of use once the rest runs.
    Extras,
}

macro_rules! kinds {
    ($( $kind:ident $group:ident $version:ident $plural:literal $scope:ident $phase:ident; )*) => {
        /// A kind of managed object. The order is that of phases, then of this table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $( $kind, )* }

        impl Kind {
            /// Every kind, in order.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )*];

            const fn facts(self) -> Facts {
                match self {
                    $( Self::$kind => Facts {
                        name: stringify!($kind), group: $group, version: stringify!($version), plural: $plural,
                        scope: Scope::$scope, phase: Phase::$phase,
                    }, )*
                }
            }
        }
    };
}

struct Facts {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    scope: Scope,
    phase: Phase,
}

#[derive(PartialEq)]
enum Scope {
    Namespaced,
    Cluster,
}

const CORE: &str = "";
const EXTENSIONS: &str = "apiextensions.k8s.io";
const SCHEDULING: &str = "scheduling.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const SECURITY: &str = "security.openshift.io";
const BATCH: &str = "batch";
const APPS: &str = "apps";
const POLICY: &str = "policy";
const ADMISSION: &str = "admissionregistration.k8s.io";
const APISERVICE: &str = "apiregistration.k8s.io";
const ROUTE: &str = "route.openshift.io";
const MONITORING: &str = "monitoring.coreos.com";
const TYPES: &str = "instancetype.kubevirt.io";
const KUBEVIRT: &str = "kubevirt.io";

#[rustfmt::skip]
kinds! {
//  kind                              group      version plural                               scope      phase
    Namespace                         CORE       v1      "namespaces"                         Cluster    Definitions;
    Node                              CORE       v1      "nodes"                              Cluster    Definitions;
    CustomResourceDefinition          EXTENSIONS v1      "customresourcedefinitions"          Cluster    Definitions;
    PriorityClass                     SCHEDULING v1      "priorityclasses"                    Cluster    Definitions;
    ServiceAccount                    CORE       v1      "serviceaccounts"                    Namespaced Access;
    ClusterRole                       RBAC       v1      "clusterroles"                       Cluster    Access;
    ClusterRoleBinding                RBAC       v1      "clusterrolebindings"                Cluster    Access;
    Role                              RBAC       v1      "roles"                              Namespaced Access;
    RoleBinding                       RBAC       v1      "rolebindings"                       Namespaced Access;
    SecurityContextConstraints        SECURITY   v1      "securitycontextconstraints"         Cluster    Access;
    Service                           CORE       v1      "services"                           Namespaced Configuration;
    ConfigMap                         CORE       v1      "configmaps"                         Namespaced Configuration;
    Secret                            CORE       v1      "secrets"                            Namespaced Configuration;
    Job                               BATCH      v1      "jobs"                               Namespaced Workloads;
    DaemonSet                         APPS       v1      "daemonsets"                         Namespaced Workloads;
    Deployment                        APPS       v1      "deployments"                        Namespaced Workloads;
    PodDisruptionBudget               POLICY     v1      "poddisruptionbudgets"               Namespaced Workloads;
    ValidatingAdmissionPolicyBinding  ADMISSION  v1      "validatingadmissionpolicybindings"  Cluster    Admission;
    ValidatingAdmissionPolicy         ADMISSION  v1      "validatingadmissionpolicies"        Cluster    Admission;
    ValidatingWebhookConfiguration    ADMISSION  v1      "validatingwebhookconfigurations"    Cluster    Admission;
    MutatingWebhookConfiguration      ADMISSION  v1      "mutatingwebhookconfigurations"      Cluster    Admission;
    APIService                        APISERVICE v1      "apiservices"                        Cluster    Admission;
    Route                             ROUTE      v1      "routes"                             Namespaced Extras;
    ServiceMonitor                    MONITORING v1      "servicemonitors"                    Namespaced Extras;
    PrometheusRule                    MONITORING v1      "prometheusrules"                    Namespaced Extras;
    VirtualMachineClusterInstancetype TYPES      v1beta1 "virtualmachineclusterinstancetypes" Cluster    Extras;
    VirtualMachineClusterPreference   TYPES      v1beta1 "virtualmachineclusterpreferences"   Cluster    Extras;
    KubeVirt                          KUBEVIRT   v1      "kubevirts"                          Namespaced Extras;
}

impl Kind {
    /// The kind of an `apiVersion` and `kind` pair, if it is one of ours.
    pub fn find(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::ALL.iter().copied().find(|k| k.name() == kind && k.group() == group && k.version() == version)
    }

    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.facts().group
    }

    pub fn version(self) -> &'static str {
        self.facts().version
    }

    /// `group/version`, or `version` in the core group.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_string(),
            group => format!("{group}/{}", self.version()),
        }
    }

    pub fn plural(self) -> &'static str {
        self.facts().plural
    }

    pub fn namespaced(self) -> bool {
        self.facts().scope == Scope::Namespaced
    }

    pub fn phase(self) -> Phase {
        self.facts().phase
    }

    /// Whether objects of this kind make pods from a template.
    pub fn has_pod_template(self) -> bool {
        matches!(self, Self::Deployment | Self::DaemonSet | Self::Job)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_what_manifests_say() {
        for kind in Kind::ALL {
            assert_eq!(Kind::find(&kind.api_version(), kind.name()), Some(*kind));
            assert!(kind.plural().starts_with(&kind.name().to_lowercase()[..kind.name().len() - 1]));
        }
        assert_eq!(Kind::find("policy/v1beta1", "PodDisruptionBudget"), None);
        assert_eq!(Kind::find("v1", "Pod"), None);
    }

    #[test]
    fn the_table_is_in_the_order_of_phases() {
        assert!(Kind::ALL.windows(2).all(|pair| pair[0].phase() <= pair[1].phase()));
    }
}
