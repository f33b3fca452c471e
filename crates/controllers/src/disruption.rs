//! PodDisruptionBudgets: how many more pods may be evicted now.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use crate::action::{Controller, Decision, View, status_change};
use crate::cache::{Change, Name, controller_uid};
use crate::kinds::{Kind, Objects};
use crate::pods::{self, Round, scaled};
use crate::replicaset::count;

/// An eviction that was granted but has not led to a deletion within this time is taken back, as the API defines.
const DISRUPTION_TIMEOUT: Duration = Duration::from_secs(120);

/// The controller.
pub struct DisruptionBudgets;

impl Controller for DisruptionBudgets {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::PodDisruptionBudget, Kind::Pod, Kind::ReplicaSet, Kind::Deployment]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        let in_namespace = || objects.disruption_budgets.in_namespace(&change.name.namespace);
        match change.kind {
            Kind::PodDisruptionBudget => vec![change.name.clone()],
            Kind::Pod => in_namespace()
                .filter(|budget| {
                    let selector = selector(budget);
                    change.both().any(|object| {
                        let labels = object.meta().labels.clone().unwrap_or_default();
                        selector.as_ref().is_some_and(|selector| selector.matches(&labels))
                    })
                })
                .map(|budget| Name::of(budget.as_ref()))
                .collect(),
            Kind::ReplicaSet | Kind::Deployment => in_namespace().map(|budget| Name::of(budget.as_ref())).collect(),
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let Some(budget) = view.objects.disruption_budgets.get(key) else { return Decision::none() };
        decide(view, budget)
    }
}

/// The budget's selector; an empty one means every pod of the namespace, none means no pod.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::try_from(budget.spec.as_ref()?.selector.clone()?).ok()
}

/// How many pods the controllers of these pods want.
fn wanted_by_controllers(view: &View<'_>, pods: &[&Arc<Pod>]) -> i32 {
    let mut controllers = std::collections::BTreeMap::new();
    for pod in pods {
        let Some(uid) = controller_uid(&pod.metadata) else { continue };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.uid == uid);
        let name = owner.map(|owner| Name::new(namespace, owner.name.clone())).unwrap_or_default();
        let Some(set) = view.objects.replica_sets.get(&name) else { continue };
        let above = set.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let deployment =
            above.and_then(|owner| view.objects.deployments.get(&Name::new(namespace, owner.name.clone())));
        let (uid, replicas) = match deployment {
            Some(deployment) => (deployment.metadata.uid.clone(), deployment.spec.as_ref().and_then(|it| it.replicas)),
            None => (set.metadata.uid.clone(), set.spec.as_ref().and_then(|it| it.replicas)),
        };
        controllers.insert(uid, replicas.unwrap_or(1));
    }
    controllers.values().sum()
}

fn decide(view: &View<'_>, budget: &PodDisruptionBudget) -> Decision {
    let mut decision = Decision::none();
    let Some(spec) = &budget.spec else { return decision };
    let Some(selector) = selector(budget) else { return decision };
    let namespace = budget.metadata.namespace.clone().unwrap_or_default();
    let pods: Vec<&Arc<Pod>> = view
        .objects
        .pods
        .in_namespace(&namespace)
        .filter(|pod| !pods::has_ended(pod) && crate::ownership::matches(&selector, pod.as_ref()))
        .collect();
    let by_controllers = || wanted_by_controllers(view, &pods);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = by_controllers();
            (expected, (expected - scaled(most, expected, Round::Up)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (count(pods.len()), *least),
        (None, Some(least)) => {
            let expected = by_controllers();
            (expected, scaled(least, expected, Round::Up))
        }
        (None, None) => (count(pods.len()), 1),
    };

    let old = budget.status.clone().unwrap_or_default();
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, since| {
        let pod = view.objects.pods.get(&Name::new(namespace.clone(), name.clone()));
        let age = Duration::try_from(view.now.duration_since(since.0)).unwrap_or_default();
        let pending = pod.is_some_and(|pod| !pods::is_terminating(pod)) && age < DISRUPTION_TIMEOUT;
        if pending {
            decision.look_again(DISRUPTION_TIMEOUT - age);
        }
        pending
    });
    let healthy = pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !pods::is_terminating(pod) && pods::is_ready(pod) && !disrupted.contains_key(name)
    });
    let healthy = count(healthy.count());
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut next = budget.clone();
    next.status = Some(PodDisruptionBudgetStatus {
        conditions: Some(conditions(view, budget, &old, allowed)),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
        disrupted_pods: if disrupted.is_empty() { None } else { Some(disrupted) },
    });
    decision.actions.extend(status_change(budget, &next));
    decision
}

fn conditions(
    view: &View<'_>,
    budget: &PodDisruptionBudget,
    old: &PodDisruptionBudgetStatus,
    allowed: i32,
) -> Vec<Condition> {
    const ALLOWED: &str = "DisruptionAllowed";
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let known = conditions.iter().find(|condition| condition.type_ == ALLOWED && condition.status == status);
    let since = known.map_or(Time(view.now), |known| known.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: budget.metadata.generation,
    });
    conditions
}
