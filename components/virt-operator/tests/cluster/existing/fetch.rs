//! The strategy of a version that is not in the cluster is got by a Job that runs that version's operator.

use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kubevirt_release::Kind;
use serde_json::Value;

use super::suite::{BROKEN, SMALL_REGISTRY, images, small};
use crate::support::{Cluster, condition, tag};

async fn cluster() -> Cluster {
    let cluster = Cluster::start_with(1, Arc::new(images));
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster
}

fn message(cr: &Value) -> String {
    let conditions = cr["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "Synchronized");
    found.and_then(|condition| condition["message"].as_str()).unwrap_or_default().to_owned()
}

async fn jobs(cluster: &Cluster) -> Vec<String> {
    cluster.names(Kind::Job, "kubevirt.io/install-strategy").await
}

#[tokio::test(start_paused = true)]
async fn another_operator_is_asked_and_what_it_writes_is_deployed() {
    let cluster = cluster().await;
    let suite = small();
    cluster.patch_cr(suite.spec(0)).await;
    cluster.cr_until("the Job is on its way", |cr| condition(cr, "Synchronized") == "False StrategyPending").await;
    let cr = cluster.settled(suite.versions[0]).await;
    assert_eq!(condition(&cr, "Synchronized"), "-");
    let maps = cluster.api(Kind::ConfigMap).list(&ListParams::default().labels("kubevirt.io/install-strategy")).await;
    let maps = maps.expect("ConfigMaps").items;
    assert_eq!(maps.len(), 1);
    let id = &maps[0].metadata.annotations.as_ref().expect("annotations")["kubevirt.io/install-strategy-identifier"];
    assert_eq!(cr["status"]["observedDeploymentID"], id.as_str(), "it was asked for under this ID");
    assert_eq!(jobs(&cluster).await, [""; 0], "the Job has done its work");
}

#[tokio::test(start_paused = true)]
async fn another_version_of_this_operator_writes_its_own_strategy() {
    let cluster = cluster().await;
    cluster.settled("v0.1.0").await;
    cluster.patch_cr(tag("v0.2.0")).await;
    let cr = cluster.settled("v0.2.0").await;
    assert_eq!(cr["status"]["operatorVersion"], "v0.1.0", "the operator is the old one");
    let api = cluster.pods("virt-api").await;
    assert!(api.iter().all(|(_, image, ready)| image.ends_with(":v0.2.0") && *ready), "{api:?}");
    assert_eq!(jobs(&cluster).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_is_named_and_nothing_changes() {
    let cluster = cluster().await;
    cluster.settled("v0.1.0").await;
    let pods = cluster.pods("virt-api").await;
    cluster.patch_cr(tag("v0.30")).await;
    let cr = cluster.cr_until("it is told", |cr| condition(cr, "Synchronized") == "False TargetUnavailable").await;
    let said = message(&cr);
    assert!(said.contains("virt-operator:v0.30") && said.contains("ErrImagePull"), "{said}");
    assert_eq!(condition(&cr, "Available"), "True AllComponentsReady");
    assert_eq!(cluster.pods("virt-api").await, pods);
    assert_eq!(jobs(&cluster).await.len(), 1);
    cluster.patch_cr(tag("v0.1.0")).await;
    cluster.cr_until("it is in sync", |cr| condition(cr, "Synchronized") == "-").await;
    cluster.until("the Job is gone", async || jobs(&cluster).await.is_empty().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_told_and_tried_again_later_and_later() {
    let cluster = cluster().await;
    cluster.patch_cr(serde_json::json!({"spec": {"imageRegistry": SMALL_REGISTRY, "imageTag": BROKEN}})).await;
    let cr = cluster.cr_until("it is told", |cr| message(cr).contains("failed")).await;
    assert_eq!(condition(&cr, "Synchronized"), "False TargetUnavailable");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let made = cluster
        .events()
        .iter()
        .filter(|event| event["objectRef"]["resource"] == "jobs" && event["responseStatus"]["code"] == 201)
        .count();
    // Attempts at about 0, 10, 30, 70 and 150 s, each with the time its pod takes.
    assert!((3..=5).contains(&made), "{made} attempts in two minutes");
}
