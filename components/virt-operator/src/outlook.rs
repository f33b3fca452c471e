//! When a change of version will be over, for somebody who looks at the cluster from outside. It reads the policy and the
//! workload of the step under way; the record has the rest, and nothing is written.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, ListParams};
use kubevirt_api::names::annotation;
use kubevirt_api::upgrade::{PlanState, UpgradePlan};
use kubevirt_upgrade::Slot;
use kubevirt_upgrade::estimate::{Estimate, Progress, estimate, step_with_pods};

use crate::preview::policy;
use crate::upgrades::status_of;
use crate::watches::SELECTOR;

/// What is expected of a change; `None` while nothing tells.
///
/// # Errors
/// A request was refused or not answered.
pub async fn outlook(client: &Client, plan: &UpgradePlan, now: Timestamp) -> kube::Result<Option<Estimate>> {
    let status = status_of(plan);
    if status.state != PlanState::InProgress {
        return Ok(None);
    }
    let progress = match step_with_pods(&status) {
        Some(step) => progress(client, &step.name, &plan.spec.to.deployment_id).await?,
        None => None,
    };
    Ok(estimate(&status, progress, &policy(client).await?, now))
}

/// How far the workload of a step is. `None` for a step of several, and before its controller has acted.
async fn progress(client: &Client, step: &str, id: &str) -> kube::Result<Option<Progress>> {
    let ours = ListParams::default().labels(SELECTOR).fields(&format!("metadata.name={step}"));
    if step == Slot::Handler.code() {
        let found = Api::<DaemonSet>::all(client.clone()).list(&ours).await?.items.into_iter().next();
        return Ok(found.and_then(|found| of_daemon_set(&found, id)));
    }
    let found = Api::<Deployment>::all(client.clone()).list(&ours).await?.items.into_iter().next();
    Ok(found.and_then(|found| of_deployment(&found, id)))
}

fn of_daemon_set(found: &DaemonSet, id: &str) -> Option<Progress> {
    let status = found.status.as_ref()?;
    let acted = status.observed_generation;
    let (wanted, available) = (status.desired_number_scheduled, status.number_available);
    counted(&found.metadata, id, acted, wanted, status.updated_number_scheduled, available)
}

fn of_deployment(found: &Deployment, id: &str) -> Option<Progress> {
    let (status, wanted) = (found.status.as_ref()?, found.spec.as_ref()?.replicas.unwrap_or(1));
    counted(&found.metadata, id, status.observed_generation, wanted, status.updated_replicas, status.available_replicas)
}

/// A workload counts old and new pods that are ready together: of the new ones at most as many are not as are missing.
fn counted(
    metadata: &ObjectMeta,
    id: &str,
    acted: Option<i64>,
    wanted: i32,
    updated: Option<i32>,
    available: Option<i32>,
) -> Option<Progress> {
    let is_of = metadata.annotations.as_ref()?.get(annotation::STRATEGY_IDENTIFIER).is_some_and(|of| of == id);
    if !is_of {
        return Some(Progress { wanted: wanted.into(), done: 0 });
    }
    let unready = wanted.saturating_sub(available.unwrap_or_default()).max(0);
    let done = updated.unwrap_or_default().saturating_sub(unready).max(0);
    (acted >= metadata.generation).then(|| Progress { wanted: wanted.into(), done: done.into() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn daemon_set(id: &str, acted: i64, updated: i64, available: i64) -> Option<(i64, i64)> {
        let value = json!({"metadata": {"name": "virt-handler", "generation": 2,
                "annotations": {annotation::STRATEGY_IDENTIFIER: id}},
            "status": {"desiredNumberScheduled": 10, "observedGeneration": acted, "updatedNumberScheduled": updated,
                "numberAvailable": available, "currentNumberScheduled": 10, "numberMisscheduled": 0, "numberReady": 0}});
        let found = of_daemon_set(&serde_json::from_value(value).expect("a DaemonSet"), "new");
        found.map(|Progress { wanted, done }| (wanted, done))
    }

    #[test]
    fn of_a_daemon_set_those_count_that_are_new_and_ready_for_certain() {
        assert_eq!(daemon_set("old", 2, 10, 10), Some((10, 0)), "it is not written yet");
        assert_eq!(daemon_set("new", 1, 10, 10), None, "its controller has not acted");
        assert_eq!(daemon_set("new", 2, 4, 9), Some((10, 3)));
        assert_eq!(daemon_set("new", 2, 0, 8), Some((10, 0)));
        assert_eq!(daemon_set("new", 2, 10, 10), Some((10, 10)));
    }

    #[test]
    fn a_deployment_that_says_nothing_yet_tells_nothing() {
        let deployment = |status: Value| {
            let value = json!({"metadata": {"name": "virt-api", "generation": 2,
                    "annotations": {annotation::STRATEGY_IDENTIFIER: "new"}},
                "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status});
            of_deployment(&serde_json::from_value(value).expect("a Deployment"), "new").map(|found| found.done)
        };
        assert_eq!(deployment(json!({})), None);
        let status = json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 1});
        assert_eq!(deployment(status), Some(1));
    }
}
