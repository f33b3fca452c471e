//! The KubeVirt custom resource: the one object a cluster admin edits, and the CRD that serves it.
//!
//! It never decides what follows from a field; `release` and `upgrade` do.

mod conditions;
mod configuration;
mod schema;
mod spec;
mod status;

pub use conditions::{
    Condition, ConditionStatus, ConditionType, ConditionUpdate, Reason, Situation, enter, find_condition,
    remove_condition, set_condition,
};
pub use configuration::*;
pub(crate) use schema::without_foreign_formats;
pub use spec::*;
pub use status::{GenerationStatus, KubeVirtStatus, Phase};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The API version in which objects are stored.
pub const STORAGE_VERSION: &str = "v1";
/// The older API version that is still served.
pub const OLD_VERSION: &str = "v1alpha3";

impl KubeVirt {
    /// The CRD, with both versions. It shadows the derived `CustomResourceExt::crd`, which knows of one version only.
    pub fn crd() -> CustomResourceDefinition {
        schema::crd()
    }
}

#[cfg(test)]
mod tests;
