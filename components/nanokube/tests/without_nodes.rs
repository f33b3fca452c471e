//! A cluster without nodes behaves like a control plane that has just started: workloads wait, then their pods are Pending.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use kubevirt_runtime::clock::Clock;
use nanokube_cli::images::Table;
use nanokube_cli::{Cluster, Options};
use nanokube_controllers::WORKLOADS_BEGIN;
use serde_json::json;
use tokio::time::Instant;

/// 2026-01-01.
const START: &str = "2026-01-01T00:00:00Z";

fn cluster(nodes: u32) -> Cluster {
    let clock = Clock::anchored(START.parse().unwrap());
    let images = Arc::new(Table::suite("localhost/kubevirt", &[]).with_idle("img:1"));
    Cluster::start(Options::new(nodes, clock, 1, images))
}

async fn deploy(client: &Client) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "img:1"}]}}},
    });
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
}

/// The first pod and how long it took.
async fn first_pod(client: &Client) -> (Pod, Duration) {
    let (start, api) = (Instant::now(), Api::<Pod>::default_namespaced(client.clone()));
    loop {
        if let Some(pod) = api.list(&ListParams::default()).await.unwrap().items.pop() {
            return (pod, start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_waits_for_the_controllers_and_its_pod_for_a_node() {
    let cluster = cluster(0);
    let client = cluster.admin();
    deploy(&client).await;
    let (pod, took) = first_pod(&client).await;
    assert!((WORKLOADS_BEGIN..WORKLOADS_BEGIN + Duration::from_secs(1)).contains(&took), "{took:?}");
    assert_eq!(pod.status.and_then(|status| status.phase).as_deref(), Some("Pending"));
    assert_eq!(pod.spec.and_then(|spec| spec.node_name), None);
}

#[tokio::test(start_paused = true)]
async fn with_a_node_nothing_waits() {
    let cluster = cluster(1);
    let client = cluster.admin();
    deploy(&client).await;
    let (_, took) = first_pod(&client).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_bound_to_a_node_that_does_not_exist_is_left_alone_for_a_while() {
    let cluster = cluster(0);
    let api: Api<Pod> = Api::default_namespaced(cluster.admin());
    // The account of the namespace comes from a controller.
    let made = loop {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "img:1"}]}});
        match api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await {
            Ok(made) => break made,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let bind = http::Request::post("/api/v1/namespaces/default/pods/p/binding")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&body).unwrap())
        .unwrap();
    cluster.admin().request::<serde_json::Value>(bind).await.unwrap();
    let bound = Instant::now();
    while api.get_opt("p").await.unwrap().is_some_and(|pod| pod.metadata.uid == made.metadata.uid) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let stayed = bound.elapsed();
    assert!((Duration::from_secs(39)..Duration::from_secs(45)).contains(&stayed), "{stayed:?}");
}
