//! What stands between a request and the store, through the front door: rules, webhooks, policies, aggregated APIs.

mod aggregation;
mod backend;
mod policies;
mod rules;
mod webhooks;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, UserInfo};
use serde_json::Value;

fn options() -> Options {
    Options::new(Clock::anchored("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()), 7)
}

fn admin() -> Client {
    Nanokube::new(options()).client(UserInfo::admin())
}

fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn namespaced(client: &Client, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), "default", &resource(api_version, kind, plural))
}

fn cluster(client: &Client, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource(api_version, kind, plural))
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

async fn create(api: &Api<DynamicObject>, value: Value) -> DynamicObject {
    api.create(&PostParams::default(), &object(value)).await.unwrap()
}

/// Code and message of a refusal.
fn refusal(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("not an answer of the server: {other}"),
    }
}
