//! Discovery of `subresources.kubevirt.io`, as the API server's aggregator and clients ask for it. Pure.

use std::collections::BTreeSet;

use http::StatusCode;
use kubevirt_component::{Call, Verb};
use kubevirt_runtime::serve::{self, Response};
use serde_json::{Value, json};

use crate::State;
use crate::subresources::{ALL, GROUP, Subresource, VERSIONS};

/// `GET /apis`
pub(crate) fn groups(_: &State, _: &Call) -> Response {
    let body = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group_object()]});
    serve::json(StatusCode::OK, &body)
}

/// `GET /apis/{group}`
pub(crate) fn group(_: &State, _: &Call) -> Response {
    let mut body = group_object();
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    serve::json(StatusCode::OK, &body)
}

/// `GET /apis/{group}/{version}`
pub(crate) fn resources(_: &State, call: &Call) -> Response {
    let version = call.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    serve::json(StatusCode::OK, &resource_list(version))
}

fn group_object() -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    json!({
        "name": GROUP,
        "versions": VERSIONS.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": version(&VERSIONS[0]),
    })
}

fn resource_list(version: &str) -> Value {
    let mut listed = BTreeSet::new();
    let mut resources: Vec<Value> = ALL
        .iter()
        .filter(|subresource| listed.insert((subresource.resource, subresource.name)))
        .map(resource)
        .collect();
    resources.push(entry("expand-vm-spec", true, "VirtualMachine", "update"));
    for name in ["version", "guestfs", "healthz"] {
        resources.push(entry(name, false, "", "get"));
    }
    for name in ["start-cluster-profiler", "stop-cluster-profiler", "dump-cluster-profiler"] {
        resources.push(entry(name, false, "", "get"));
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{version}"),
        "resources": resources,
    })
}

fn resource(subresource: &Subresource) -> Value {
    let name = format!("{}/{}", subresource.resource, subresource.name);
    entry(&name, true, subresource.kind, subresource.access_verb())
}

fn entry(name: &str, namespaced: bool, kind: &str, verb: &str) -> Value {
    json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": [verb]})
}

/// `GET /openapi/v2`: only the paths that are answered, so that the aggregator has something true to merge.
pub(crate) fn openapi(_: &State, _: &Call) -> Response {
    let mut paths = serde_json::Map::new();
    for version in VERSIONS {
        for (path, about) in [
            ("", "The resources of this version."),
            ("/version", "The version of virt-api."),
            ("/healthz", "Readiness."),
        ] {
            let operation = json!({
                "description": about, "produces": ["application/json"],
                "responses": {"200": {"description": "OK"}},
            });
            let verb = Verb::Get.to_string().to_lowercase();
            paths.insert(format!("/apis/{GROUP}/{version}{path}"), json!({ verb: operation }));
        }
    }
    let info = json!({"title": "virt-api", "version": concat!("v", env!("CARGO_PKG_VERSION"))});
    serve::json(StatusCode::OK, &json!({"swagger": "2.0", "info": info, "paths": paths}))
}
