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
    ($( $kind:ident $group:literal $version:literal $plural:literal $scope:ident $phase:ident; )*) => {
        /// A kind of managed object. The order is that of phases, then of this table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $( $kind, )* }

        impl Kind {
            /// Every kind, in order.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )*];

            const fn facts(self) -> Facts {
                match self {
                    $( Self::$kind => Facts {
                        name: stringify!($kind), group: $group, version: $version, plural: $plural,
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

#[rustfmt::skip]
kinds! {
//  kind                              group                          version    plural                                scope      phase
    Namespace                         ""                             "v1"       "namespaces"                          Cluster    Definitions;
    CustomResourceDefinition          "apiextensions.k8s.io"         "v1"       "customresourcedefinitions"           Cluster    Definitions;
    PriorityClass                     "scheduling.k8s.io"            "v1"       "priorityclasses"                     Cluster    Definitions;
    ServiceAccount                    ""                             "v1"       "serviceaccounts"                     Namespaced Access;
    ClusterRole                       "rbac.authorization.k8s.io"    "v1"       "clusterroles"                        Cluster    Access;
    ClusterRoleBinding                "rbac.authorization.k8s.io"    "v1"       "clusterrolebindings"                 Cluster    Access;
    Role                              "rbac.authorization.k8s.io"    "v1"       "roles"                               Namespaced Access;
    RoleBinding                       "rbac.authorization.k8s.io"    "v1"       "rolebindings"                        Namespaced Access;
    SecurityContextConstraints        "security.openshift.io"        "v1"       "securitycontextconstraints"          Cluster    Access;
    Service                           ""                             "v1"       "services"                            Namespaced Configuration;
    Secret                            ""                             "v1"       "secrets"                             Namespaced Configuration;
    ConfigMap                         ""                             "v1"       "configmaps"                          Namespaced Configuration;
    Job                               "batch"                        "v1"       "jobs"                                Namespaced Workloads;
    DaemonSet                         "apps"                         "v1"       "daemonsets"                          Namespaced Workloads;
    Deployment                        "apps"                         "v1"       "deployments"                         Namespaced Workloads;
    PodDisruptionBudget               "policy"                       "v1"       "poddisruptionbudgets"                Namespaced Workloads;
    ValidatingAdmissionPolicyBinding  "admissionregistration.k8s.io" "v1"       "validatingadmissionpolicybindings"   Cluster    Admission;
    ValidatingAdmissionPolicy         "admissionregistration.k8s.io" "v1"       "validatingadmissionpolicies"         Cluster    Admission;
    ValidatingWebhookConfiguration    "admissionregistration.k8s.io" "v1"       "validatingwebhookconfigurations"     Cluster    Admission;
    MutatingWebhookConfiguration      "admissionregistration.k8s.io" "v1"       "mutatingwebhookconfigurations"       Cluster    Admission;
    APIService                        "apiregistration.k8s.io"       "v1"       "apiservices"                         Cluster    Admission;
    Route                             "route.openshift.io"           "v1"       "routes"                              Namespaced Extras;
    ServiceMonitor                    "monitoring.coreos.com"        "v1"       "servicemonitors"                     Namespaced Extras;
    PrometheusRule                    "monitoring.coreos.com"        "v1"       "prometheusrules"                     Namespaced Extras;
    VirtualMachineClusterInstancetype "instancetype.kubevirt.io"     "v1beta1"  "virtualmachineclusterinstancetypes"  Cluster    Extras;
    VirtualMachineClusterPreference   "instancetype.kubevirt.io"     "v1beta1"  "virtualmachineclusterpreferences"    Cluster    Extras;
    KubeVirt                          "kubevirt.io"                  "v1"       "kubevirts"                           Namespaced Extras;
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
