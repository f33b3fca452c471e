//! `spec` of the KubeVirt CR, but for `configuration`.

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::CustomResource;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::configuration::KubeVirtConfiguration;
use super::schema::textless;
use super::status::KubeVirtStatus;
use crate::{AsGiven, api_struct};

/// What Kubernetes takes as a pull policy.
pub(super) const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// What should run: which release, where, and how it is kept up to date.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "KubeVirt",
    namespaced,
    status = "KubeVirtStatus",
    derive = "Default",
    derive = "PartialEq",
    shortname = "kv",
    shortname = "kvs",
    category = "all",
    doc = "The installation of KubeVirt in this cluster; there is at most one.",
    label("operator.kubevirt.io", ""),
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtSpec {
    /// The version to run. Absent: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Where images are pulled from. Absent: where the operator's own image came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_registry: Option<String>,
    /// Pull policy of the suite's own pods. Absent: `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = PULL_POLICIES))]
    pub image_pull_policy: Option<String>,
    /// Secrets with which the images of the suite are pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub image_pull_secrets: Option<Vec<PullSecret>>,
    /// The namespace Prometheus runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_namespace: Option<String>,
    /// The namespace the ServiceMonitor is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_monitor_namespace: Option<String>,
    /// The ServiceAccount Prometheus runs as. Absent: `prometheus-k8s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_account: Option<String>,
    /// How running guests come to the new release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_update_strategy: Option<WorkloadUpdateStrategy>,
    /// `RemoveWorkloads` (the default) or `BlockUninstallIfWorkloadsExist`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uninstall_strategy: Option<String>,
    /// Lifetimes of the certificates the operator issues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_rotate_strategy: Option<CertificateRotateStrategy>,
    /// Becomes the label `app.kubernetes.io/version` of every managed object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_version: Option<String>,
    /// Becomes the label `app.kubernetes.io/part-of` of every managed object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
    /// Becomes the label `app.kubernetes.io/component` of every managed object. Absent: `kubevirt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_component: Option<String>,
    /// The port of the synchronization controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synchronization_port: Option<String>,
    /// Settings the running components follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<KubeVirtConfiguration>,
    /// Placement and number of the cluster-wide components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra: Option<ComponentConfig>,
    /// Placement of virt-handler, and by it of VMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<ComponentConfig>,
    /// Changes to rendered objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customize_components: Option<CustomizeComponents>,
    /// Fields this release does not know, kept as they are. The schema knows none.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: AsGiven,
}

api_struct! {
    /// A Secret of the install namespace.
    pub struct PullSecret {
        name: String,
    }
}

api_struct! {
    /// How running guests come to the new release.
    pub struct WorkloadUpdateStrategy {
        /// `LiveMigrate`, `Evict`; the least disruptive one that fits a guest is taken. None: guests are left alone.
        #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
        workload_update_methods: Vec<String>,
        /// Evictions per batch. Absent: 10.
        batch_eviction_size: i32,
        /// The gap between two batches. Absent: one minute.
        batch_eviction_interval: Duration,
    }
}

api_struct! {
    /// Lifetimes of the certificates the operator issues.
    pub struct CertificateRotateStrategy {
        /// The operator is its own authority.
        self_signed: SelfSigned,
    }
}

api_struct! {
    /// Lifetimes under the operator's own authority. The three older fields win over the new ones when set.
    pub struct SelfSigned {
        ca: CertificateLifetime,
        server: CertificateLifetime,
        /// Older name of `ca.duration`.
        ca_rotate_interval: Duration,
        /// Older name of `server.duration`.
        cert_rotate_interval: Duration,
        /// Older name of `ca.renewBefore`.
        ca_overlap_interval: Duration,
    }
}

api_struct! {
    /// How long a certificate lives and when it is replaced.
    pub struct CertificateLifetime {
        duration: Duration,
        /// How long before its end a certificate is replaced. Absent: a fifth of its duration.
        renew_before: Duration,
    }
}

/// The lifetimes that are in force, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateLifetimes {
    pub ca_duration: u64,
    pub ca_renew_before: u64,
    pub server_duration: u64,
    pub server_renew_before: u64,
}

/// A week: long enough that a cluster that was off over a weekend still trusts itself.
const CA_SECONDS: u64 = 168 * 3600;
/// A day.
const SERVER_SECONDS: u64 = 24 * 3600;
/// The fraction of a certificate's life that is left when it is replaced: 1/5.
const RENEW_FRACTION: u64 = 5;

impl KubeVirtSpec {
    /// The certificate lifetimes with defaults and the older fields applied.
    pub fn certificate_lifetimes(&self) -> CertificateLifetimes {
        let given = self.certificate_rotate_strategy.as_ref().and_then(|s| s.self_signed.clone()).unwrap_or_default();
        let SelfSigned { ca, server, ca_rotate_interval, cert_rotate_interval, ca_overlap_interval, other: _ } = given;
        let (ca, server) = (ca.unwrap_or_default(), server.unwrap_or_default());
        let seconds = |d: Option<Duration>| d.map(|d| std::time::Duration::from(d).as_secs());
        let ca_duration = seconds(ca_rotate_interval.or(ca.duration)).unwrap_or(CA_SECONDS);
        let server_duration = seconds(cert_rotate_interval.or(server.duration)).unwrap_or(SERVER_SECONDS);
        CertificateLifetimes {
            ca_duration,
            ca_renew_before: seconds(ca_overlap_interval.or(ca.renew_before)).unwrap_or(ca_duration / RENEW_FRACTION),
            server_duration,
            server_renew_before: seconds(server.renew_before).unwrap_or(server_duration / RENEW_FRACTION),
        }
    }

    /// What happens to workloads when the CR is deleted.
    pub fn uninstall(&self) -> UninstallStrategy {
        match self.uninstall_strategy.as_deref() {
            Some("BlockUninstallIfWorkloadsExist") => UninstallStrategy::BlockUninstallIfWorkloadsExist,
            _ => UninstallStrategy::RemoveWorkloads,
        }
    }
}

/// What happens to workloads when the CR is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UninstallStrategy {
    RemoveWorkloads,
    BlockUninstallIfWorkloadsExist,
}

api_struct! {
    /// Placement and number of a set of pods.
    pub struct ComponentConfig {
        node_placement: NodePlacement,
        /// How many of each. Absent: the component's default.
        replicas: u8,
    }
}

api_struct! {
    /// Where pods may run.
    pub struct NodePlacement {
        node_selector: BTreeMap<String, String>,
        #[schemars(schema_with = "textless::<Option<Affinity>>")]
        affinity: AsGiven,
        #[schemars(schema_with = "textless::<Option<Vec<Toleration>>>")]
        tolerations: Vec<AsGiven>,
    }
}

api_struct! {
    /// Changes to rendered objects.
    pub struct CustomizeComponents {
        #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
        patches: Vec<CustomizePatch>,
        flags: Flags,
    }
}

/// One change to one rendered object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomizePatch {
    /// The object's name, or `*`.
    #[schemars(length(min = 1))]
    pub resource_name: String,
    /// The object's kind, or `*`.
    #[schemars(length(min = 1))]
    pub resource_type: String,
    /// The change, as JSON text.
    pub patch: String,
    /// `json`, `merge` or `strategic`.
    #[serde(rename = "type")]
    pub patch_type: String,
    /// Fields this release does not know, kept as they are. The schema knows none.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: AsGiven,
}

api_struct! {
    /// Command line flags that are added to components; an empty value makes a bare flag.
    pub struct Flags {
        api: BTreeMap<String, String>,
        controller: BTreeMap<String, String>,
        handler: BTreeMap<String, String>,
    }
}
