//! Aggregated APIs on the network of simulated pods.

use std::sync::Arc;

use futures::StreamExt;
use http::StatusCode;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, WatchEvent, WatchParams};
use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::serve::{Response, json as answer_json};
use nanokube::{Nanokube, UserInfo};
use serde_json::{Value, json};

use super::backend::{API_SERVER, Backend, Seen, expose};
use super::{cluster, create, namespaced, options, refusal};

fn setup() -> (Arc<MemoryNet>, Client) {
    let network = MemoryNet::new();
    let api = Nanokube::new(options().with_net(network.host(API_SERVER)));
    (network, api.client(UserInfo::admin()))
}

/// Serves `metrics.example.io/v1` with one resource that has one object.
fn serve(seen: &Seen) -> Response {
    let list = json!({"kind": "MeterList", "apiVersion": "metrics.example.io/v1", "metadata": {}, "items": [
        {"kind": "Meter", "apiVersion": "metrics.example.io/v1", "metadata": {"name": "m", "namespace": "default"}},
    ]});
    let answer = match seen.path.split('?').next().unwrap() {
        "/apis/metrics.example.io/v1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.example.io/v1", "resources": [
                {"name": "meters", "singularName": "meter", "namespaced": true, "kind": "Meter", "verbs": ["get", "list"]},
            ],
        }),
        "/apis/metrics.example.io/v1/namespaces/default/meters" => list,
        _ => return answer_json(StatusCode::NOT_FOUND, &json!({"kind": "Status", "apiVersion": "v1", "code": 404})),
    };
    answer_json(StatusCode::OK, &answer)
}

fn services(client: &Client) -> Api<DynamicObject> {
    cluster(client, "apiregistration.k8s.io/v1", "APIService", "apiservices")
}

async fn register(client: &Client, bundle: &str) {
    create(&services(client), json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.metrics.example.io"},
        "spec": {
            "group": "metrics.example.io", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
            "service": {"namespace": "default", "name": "meter"}, "caBundle": bundle,
        },
    }))
    .await;
}

/// Waits until the condition `Available` has a reason.
async fn until_reason(client: &Client, reason: &str) -> Value {
    let mut watch = services(client).watch(&WatchParams::default(), "0").await.unwrap().boxed();
    loop {
        let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = watch.next().await.unwrap().unwrap() else {
            continue;
        };
        let condition = service.data["status"]["conditions"][0].clone();
        if condition["reason"] == reason {
            return condition;
        }
    }
}

async fn raw(client: &Client, path: &str) -> Result<Value, kube::Error> {
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn an_aggregated_api_comes_up_is_used_and_goes_away() {
    let (network, client) = setup();
    let backend = Backend::start(&network, "meter.default.svc", serve).await;
    register(&client, &backend.bundle).await;
    let missing = until_reason(&client, "ServiceNotFound").await;
    assert_eq!(
        (&missing["status"], &missing["message"]),
        (&json!("False"), &json!("service/meter in \"default\" is not present"))
    );
    assert_eq!(refusal(raw(&client, "/apis/metrics.example.io/v1").await.unwrap_err()).0, 503);

    expose(&client, "meter", true).await;
    assert_eq!(until_reason(&client, "Passed").await["status"], "True");
    backend.seen();
    let meters = namespaced(&client, "metrics.example.io/v1", "Meter", "meters");
    let list = meters.list(&ListParams::default().labels("a=b")).await.unwrap();
    assert_eq!(list.items[0].metadata.name.as_deref(), Some("m"));
    let seen = backend.seen();
    let asked = seen.iter().find(|seen| seen.path.contains("meters")).unwrap();
    assert!(asked.path.ends_with("labelSelector=a%3Db"), "{}", asked.path);
    assert_eq!(asked.headers["x-remote-user"], "kubernetes-admin");
    let groups: Vec<_> = asked.headers.get_all("x-remote-group").iter().collect();
    assert_eq!(groups, ["system:masters", "system:authenticated"]);

    let groups = client.list_api_groups().await.unwrap().groups;
    assert!(groups.iter().any(|group| group.name == "metrics.example.io"));
    let own = raw(&client, "/apis/metrics.example.io").await.unwrap();
    assert_eq!(own["preferredVersion"]["groupVersion"], "metrics.example.io/v1");

    // Whoever serves it finds here whose client certificates to believe.
    let maps = Api::<DynamicObject>::namespaced_with(
        client.clone(),
        "kube-system",
        &super::resource("v1", "ConfigMap", "configmaps"),
    );
    let published = maps.get("extension-apiserver-authentication").await.unwrap();
    assert_eq!(published.data["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert!(published.data["data"]["requestheader-client-ca-file"].as_str().unwrap().starts_with("-----BEGIN"));

    namespaced(&client, "v1", "Service", "services").delete("meter", &DeleteParams::default()).await.unwrap();
    until_reason(&client, "ServiceNotFound").await;
    assert_eq!(refusal(meters.list(&ListParams::default()).await.unwrap_err()).0, 503);
    let groups = client.list_api_groups().await.unwrap().groups;
    assert!(
        groups.iter().any(|group| group.name == "metrics.example.io"),
        "the claim stands, so clients learn what is away"
    );
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let asked = http::Request::get("/apis").header("accept", accept).body(Vec::new()).unwrap();
    let aggregated: Value = client.request(asked).await.unwrap();
    let items = aggregated["items"].as_array().unwrap();
    let away = items.iter().find(|item| item["metadata"]["name"] == "metrics.example.io").unwrap();
    assert_eq!(away["versions"], json!([{"version": "v1", "freshness": "Stale"}]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_trusted_is_not_available() {
    let (network, client) = setup();
    let _backend = Backend::start(&network, "meter.default.svc", serve).await;
    expose(&client, "meter", true).await;
    register(&client, "").await;
    let failed = until_reason(&client, "FailedDiscoveryCheck").await;
    let text = failed["message"].as_str().unwrap();
    assert!(text.ends_with("x509: certificate signed by unknown authority"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_service_without_ready_endpoints_is_not_available() {
    let (_, client) = setup();
    expose(&client, "meter", false).await;
    register(&client, "").await;
    assert_eq!(until_reason(&client, "MissingEndpoints").await["status"], "False");
}
