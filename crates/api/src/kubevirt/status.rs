//! `status` of the KubeVirt CR.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

use super::conditions::Condition;
use crate::{AsGiven, api_struct};

/// Where an installation is in its life. It stays `Deployed` during an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Deploying,
    Deployed,
    Deleting,
    Deleted,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploying => "Deploying",
            Self::Deployed => "Deployed",
            Self::Deleting => "Deleting",
            Self::Deleted => "Deleted",
        })
    }
}

api_struct! {
    /// What the operator found and did.
    pub struct KubeVirtStatus {
        /// `Deploying`, `Deployed`, `Deleting` or `Deleted`.
        #[schemars(with = "Option<String>")]
        phase: Phase,
        conditions: Vec<Condition>,
        operator_version: String,
        target_kube_virt_registry: String,
        target_kube_virt_version: String,
        #[serde(rename = "targetDeploymentID")]
        target_deployment_id: String,
        /// JSON text of the deployment config.
        target_deployment_config: String,
        observed_kube_virt_registry: String,
        observed_kube_virt_version: String,
        #[serde(rename = "observedDeploymentID")]
        observed_deployment_id: String,
        /// JSON text of the deployment config.
        observed_deployment_config: String,
        /// Guests that do not yet run the release's launcher; written by virt-controller.
        outdated_virtual_machine_instance_workloads: i32,
        /// The CR's generation at the last time everything was ready.
        observed_generation: i64,
        default_architecture: String,
        #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
        generations: Vec<GenerationStatus>,
        #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
        synchronization_addresses: Vec<String>,
    }
}

/// The generation of a managed object at its last write.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GenerationStatus {
    pub group: String,
    pub resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    pub last_generation: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Fields this release does not know, kept as they are. The schema knows none.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: AsGiven,
}
