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

/// Sets the number of pods that follows from the cluster's size, for virt-api; the others keep the strategy's own. A
/// change of `spec.customizeComponents` may say otherwise afterwards.
pub(super) fn by_size(deployment: &mut Object, inputs: &Inputs<'_>) {
    if deployment.name() == "virt-api" {
        deployment.value_mut()["spec"]["replicas"] = api_replicas(inputs.nodes).into();
    }
}

/// Sets the number of pods that `spec.infra` asks of all Deployments; it has the last word.
pub(super) fn as_asked(deployment: &mut Object, inputs: &Inputs<'_>) {
    let asked = inputs.spec.infra.as_ref().and_then(|infra| infra.replicas).filter(|replicas| *replicas > 0);
    // The template service is one pod by design.
    if let Some(replicas) = asked.filter(|_| !deployment.name().starts_with("virt-template")) {
        deployment.value_mut()["spec"]["replicas"] = replicas.into();
    }
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
