//! The one registry of the kinds that a release may contain. A new kind is one line.
//!
//! It holds what a client must know to address an object, in which phase objects of a kind are applied, and what the
//! operator does with them: its watches and its role are made of that.

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

/// What the operator does with objects of a kind. Kinds of a namespace it looks after in its own and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Care {
    /// Follows those that carry its label, makes them, keeps them as they should be, removes them.
    Keeps,
    /// As [`Self::Keeps`], for objects whose names are all known: it also finds those that lost their label.
    KeepsKnown,
    /// As [`Self::Keeps`], in whatever namespace they have to be.
    KeepsAnywhere,
    /// As [`Self::Keeps`], and looks whether there are some of others in any namespace.
    KeepsAndSeeks,
    /// As [`Self::Keeps`], and removes all of them together.
    Stocks,
    /// Follows one, and puts its label on it.
    Labels,
    /// Follows them all, and takes the suite's labels off.
    Cleans,
    /// Follows them all, and tells them what became of their wishes.
    Serves,
    /// Nothing: the administrator's manifest brings them, or this release has none.
    Leaves,
}

impl Care {
    /// Whether objects of the kind are followed by a watch.
    pub fn follows(self) -> bool {
        match self {
            Self::Keeps
            | Self::KeepsKnown
            | Self::KeepsAnywhere
            | Self::KeepsAndSeeks
            | Self::Stocks
            | Self::Labels
            | Self::Cleans
            | Self::Serves => true,
            Self::Leaves => false,
        }
    }
}

macro_rules! kinds {
    ($( $kind:ident $group:ident $version:ident $plural:literal $scope:ident $phase:ident $care:ident; )*) => {
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
                        scope: Scope::$scope, phase: Phase::$phase, care: Care::$care,
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
    care: Care,
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
const UPGRADE: &str = "upgrade.kubevirt.io";

#[rustfmt::skip]
kinds! {
//  kind                              group      version plural                               scope      phase         care
    Namespace                         CORE       v1      "namespaces"                         Cluster    Definitions   Labels;
    Node                              CORE       v1      "nodes"                              Cluster    Definitions   Cleans;
    CustomResourceDefinition          EXTENSIONS v1      "customresourcedefinitions"          Cluster    Definitions   Keeps;
    PriorityClass                     SCHEDULING v1      "priorityclasses"                    Cluster    Definitions   Leaves;
    ServiceAccount                    CORE       v1      "serviceaccounts"                    Namespaced Access        KeepsAndSeeks;
    ClusterRole                       RBAC       v1      "clusterroles"                       Cluster    Access        Keeps;
    ClusterRoleBinding                RBAC       v1      "clusterrolebindings"                Cluster    Access        Keeps;
    Role                              RBAC       v1      "roles"                              Namespaced Access        Keeps;
    RoleBinding                       RBAC       v1      "rolebindings"                       Namespaced Access        Keeps;
    SecurityContextConstraints        SECURITY   v1      "securitycontextconstraints"         Cluster    Access        Keeps;
    Service                           CORE       v1      "services"                           Namespaced Configuration Keeps;
    ConfigMap                         CORE       v1      "configmaps"                         Namespaced Configuration Keeps;
    Secret                            CORE       v1      "secrets"                            Namespaced Configuration KeepsKnown;
    Job                               BATCH      v1      "jobs"                               Namespaced Workloads     Keeps;
    DaemonSet                         APPS       v1      "daemonsets"                         Namespaced Workloads     Keeps;
    Deployment                        APPS       v1      "deployments"                        Namespaced Workloads     Keeps;
    PodDisruptionBudget               POLICY     v1      "poddisruptionbudgets"               Namespaced Workloads     Keeps;
    ValidatingAdmissionPolicyBinding  ADMISSION  v1      "validatingadmissionpolicybindings"  Cluster    Admission     Keeps;
    ValidatingAdmissionPolicy         ADMISSION  v1      "validatingadmissionpolicies"        Cluster    Admission     Keeps;
    ValidatingWebhookConfiguration    ADMISSION  v1      "validatingwebhookconfigurations"    Cluster    Admission     Keeps;
    MutatingWebhookConfiguration      ADMISSION  v1      "mutatingwebhookconfigurations"      Cluster    Admission     Keeps;
    APIService                        APISERVICE v1      "apiservices"                        Cluster    Admission     Keeps;
    Route                             ROUTE      v1      "routes"                             Namespaced Extras        Keeps;
    ServiceMonitor                    MONITORING v1      "servicemonitors"                    Namespaced Extras        KeepsAnywhere;
    PrometheusRule                    MONITORING v1      "prometheusrules"                    Namespaced Extras        Keeps;
    VirtualMachineClusterInstancetype TYPES      v1beta1 "virtualmachineclusterinstancetypes" Cluster    Extras        Stocks;
    VirtualMachineClusterPreference   TYPES      v1beta1 "virtualmachineclusterpreferences"   Cluster    Extras        Stocks;
    KubeVirt                          KUBEVIRT   v1      "kubevirts"                          Namespaced Extras        Serves;
    UpgradePlan                       UPGRADE    v1alpha1 "upgradeplans"                      Cluster    Extras        Leaves;
    UpgradePolicy                     UPGRADE    v1alpha1 "upgradepolicies"                   Cluster    Extras        Leaves;
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

    /// Whether objects of this kind make the API server call something.
    pub fn registers(self) -> bool {
        matches!(self, Self::ValidatingWebhookConfiguration | Self::MutatingWebhookConfiguration | Self::APIService)
    }

    pub fn care(self) -> Care {
        self.facts().care
    }

    /// Whether a cluster may lack the API of this kind, get it later, or lose it: what other programs bring, what can be
    /// switched off, and what the suite's own definitions bring.
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::SecurityContextConstraints
                | Self::Route
                | Self::ServiceMonitor
                | Self::PrometheusRule
                | Self::VirtualMachineClusterInstancetype
                | Self::VirtualMachineClusterPreference
        ) || self.is_built_in_option()
    }

    /// Whether the API of this kind may come without a definition: with the server itself, or with an aggregated one.
    pub fn is_built_in_option(self) -> bool {
        matches!(self, Self::Route | Self::ValidatingAdmissionPolicy | Self::ValidatingAdmissionPolicyBinding)
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
