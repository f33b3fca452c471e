//! How many pods of each Deployment run, and how many of them may be taken away at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubevirt_api::names::label;

use super::Inputs;
use crate::kinds::Kind;
use crate::object::Object;

/// Two: one can go away and one still answers.
pub const DEFAULT_API_REPLICAS: u64 = 2;
/// One virt-api pod per so many nodes.
const NODES_PER_API: u64 = 10;

/// How many virt-api pods a cluster of a size gets.
pub fn api_replicas(nodes: usize) -> u64 {
    match nodes as u64 {
        1 => 1,
        nodes => DEFAULT_API_REPLICAS.max(nodes / NODES_PER_API),
    }
}

/// Sets the number of pods: the CR's, or by size for virt-api, or the strategy's own.
pub(super) fn fit(deployment: &mut Object, inputs: &Inputs<'_>) {
    // The template service is one pod by design.
    if deployment.name().starts_with("virt-template") {
        return;
    }
    let asked = inputs.spec.infra.as_ref().and_then(|infra| infra.replicas).filter(|replicas| *replicas > 0);
    let replicas = match asked {
        Some(replicas) => u64::from(replicas),
        None if deployment.name() == "virt-api" => api_replicas(inputs.nodes),
        None => return,
    };
    deployment.value_mut()["spec"]["replicas"] = replicas.into();
}

/// The budget of a Deployment: all but one pod stay. A single pod has none, or its node could never be drained.
pub(super) fn disruption_budget(deployment: &Object) -> Option<Object> {
    if deployment.kind() != Kind::Deployment {
        return None;
    }
    let replicas = deployment.at("/spec/replicas").and_then(serde_json::Value::as_i64).unwrap_or(1);
    let min_available = i32::try_from(replicas - 1).ok().filter(|min| *min > 0)?;
    let selector = deployment.at("/spec/selector").cloned().unwrap_or_default();
    let selector: LabelSelector = serde_json::from_value(selector).unwrap_or_default();
    let name = format!("{}-pdb", deployment.name());
    Some(Object::of(&PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: deployment.namespace().map(Into::into),
            labels: Some([(label::KUBEVIRT.to_string(), name)].into()),
            ..Default::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(min_available)),
            selector: Some(selector),
            ..Default::default()
        }),
        status: None,
    }))
}
