//! The server through its front door: real clients, paused time, one seed.

mod access;
mod admitted;
mod bad_requests;
mod definitions;
mod discovery;
mod exchanges;
mod fault_plans;
mod faults;
mod https;
mod objects;
mod watch_contract;
mod watches;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, UserInfo};
use serde_json::{Value, json};

fn options() -> Options {
    Options::new(Clock::anchored("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()), 7)
}

fn server() -> Nanokube {
    Nanokube::new(options())
}

/// The account that a controller would give the namespace; pods need it.
async fn default_account(client: &Client) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&namespaced(client, "v1", "ServiceAccount", "serviceaccounts"), account).await;
}

fn admin() -> Client {
    server().client(UserInfo::admin())
}

fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn namespaced(client: &Client, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), "default", &resource(api_version, kind, plural))
}

fn config_maps(client: &Client) -> Api<DynamicObject> {
    namespaced(client, "v1", "ConfigMap", "configmaps")
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, labels: Value) -> DynamicObject {
    object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"},
    }))
}

async fn create(api: &Api<DynamicObject>, value: Value) -> DynamicObject {
    api.create(&PostParams::default(), &object(value)).await.unwrap()
}

fn code(error: kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the server: {other}"),
    }
}
