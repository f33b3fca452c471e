//! Everything that is not a resource: discovery in both forms, `/version`, health, OpenAPI.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::aggregation;
use crate::core::Core;
use crate::kinds::Sub;
use crate::openapi;
use crate::probes;
use crate::registry::{Resource, Table, join_version};
use crate::reply::{JSON, Reply};
use crate::server::Context;
use crate::status::ApiError;

/// The Kubernetes version whose API this is.
pub(crate) const MINOR: u32 = 36;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// Answers a path that names no resource.
pub(crate) fn handle(core: &Arc<Core>, context: &Context) -> Result<Reply, ApiError> {
    if !matches!(context.info.method.as_str(), "GET" | "HEAD") {
        return Err(ApiError::method_not_allowed());
    }
    let table = core.registry.table();
    let parts: Vec<&str> = context.info.path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [probe @ ("healthz" | "readyz" | "livez"), check @ ..] => probes::answer(probe, check, &context.info.query),
        ["version"] => Ok(Reply::json(200, &version())),
        [""] => Ok(Reply::json(200, &json!({"paths": paths(&table)}))),
        ["api"] => {
            Ok(aggregate(context, || aggregated_core(&table)).unwrap_or_else(|| Reply::json(200, &core_versions())))
        }
        ["apis"] => {
            let offers = core.aggregated.claims(core);
            let items = || {
                let mut items = aggregated_groups(&table);
                aggregation::join_items(&mut items, &offers);
                items
            };
            Ok(aggregate(context, items).unwrap_or_else(|| {
                let mut groups = group_list(&table);
                aggregation::join_groups(&mut groups, &offers);
                Reply::json(200, &groups)
            }))
        }
        ["api", "v1"] => Ok(Reply::json(200, &resource_list(&table, "", "v1"))),
        ["apis", group] => {
            let mut groups = group_list(&table);
            aggregation::join_groups(&mut groups, &core.aggregated.claims(core));
            group_object(&groups, group).map(|value| Reply::json(200, &value)).ok_or_else(ApiError::no_path)
        }
        ["apis", group, version] if table.serves(group, version) => {
            Ok(Reply::json(200, &resource_list(&table, group, version)))
        }
        ["openapi", "v3"] => Ok(Reply::json(200, &openapi::index(&table))),
        ["openapi", "v3", "api", version] => document(&table, "", version),
        ["openapi", "v3", "apis", group, version] => document(&table, group, version),
        ["openapi", "v2"] => openapi::v2(&table, &context.accept),
        ["openid", ..] | [".well-known", ..] | ["metrics"] | ["logs", ..] => {
            Err(ApiError::not_implemented(&context.info.path))
        }
        _ => Err(ApiError::no_path()),
    }
}

fn document(table: &Table, group: &str, version: &str) -> Result<Reply, ApiError> {
    if table.serves(group, version) {
        Ok(Reply::json(200, &openapi::document(table, group, version)))
    } else {
        Err(ApiError::no_path())
    }
}

/// `/version`: the Kubernetes version that is spoken, and who speaks it.
pub(crate) fn version() -> Value {
    let minor = MINOR.to_string();
    json!({
        "major": "1", "minor": minor,
        "emulationMajor": "1", "emulationMinor": minor,
        "minCompatibilityMajor": "1", "minCompatibilityMinor": (MINOR - 1).to_string(),
        "gitVersion": format!("v1.{MINOR}.0+nanokube.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform_arch()),
    })
}

fn platform_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths(table: &Table) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in table.groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths
}

fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}],
    })
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let entry = |version: &String| json!({"groupVersion": join_version(group, version), "version": version});
    json!({
        "name": group, "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

fn group_list(table: &Table) -> Value {
    let groups: Vec<Value> = table.groups().iter().map(|(group, versions)| group_value(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_object(groups: &Value, name: &str) -> Option<Value> {
    let mut value = groups["groups"].as_array()?.iter().find(|group| group["name"] == name)?.clone();
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn resource_list(table: &Table, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for resource in table.iter().filter(|resource| resource.group == group && resource.version == version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if let Some(hash) = resource.storage_hash() {
            entry["storageVersionHash"] = json!(hash);
        }
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for sub in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.path()), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": sub.verbs(),
            });
            if let Some((group, version, kind)) = sub.body() {
                entry["kind"] = json!(kind);
                if (group, version) != (resource.group.as_str(), resource.version.as_str()) {
                    entry["group"] = json!(group);
                    entry["version"] = json!(version);
                }
            }
            list.push(entry);
        }
    }
    let mut value = json!({"kind": "APIResourceList", "groupVersion": join_version(group, version), "resources": list});
    // The oldest list of all tells no version of itself.
    if !group.is_empty() {
        value["apiVersion"] = json!("v1");
    }
    value
}

/// The aggregated form, if the client prefers it.
fn aggregate(context: &Context, items: impl FnOnce() -> Value) -> Option<Reply> {
    for entry in context.accept.split(',') {
        let parameters: BTreeMap<&str, &str> =
            entry.split(';').filter_map(|part| part.trim().split_once('=')).collect();
        match (parameters.get("as").copied(), parameters.get("v").copied()) {
            (Some("APIGroupDiscoveryList"), Some(version @ ("v2" | "v2beta1"))) => {
                let mut value = items();
                value["apiVersion"] = json!(format!("apidiscovery.k8s.io/{version}"));
                let content_type = if version == "v2" { AGGREGATED } else { AGGREGATED_BETA };
                return Some(Reply::bytes(200, content_type, Bytes::from(value.to_string())));
            }
            (None, _) if entry.trim().starts_with(JSON) => return None,
            _ => {}
        }
    }
    None
}

fn aggregated_core(table: &Table) -> Value {
    let versions = [aggregated_version(table, "", "v1")];
    json!({"kind": "APIGroupDiscoveryList", "metadata": {}, "items": [{"metadata": {}, "versions": versions}]})
}

fn aggregated_groups(table: &Table) -> Value {
    let items: Vec<Value> = table
        .groups()
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_version(table, group, version)).collect();
            json!({"metadata": {"name": group}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "metadata": {}, "items": items})
}

fn aggregated_version(table: &Table, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = table
        .iter()
        .filter(|resource| resource.group == group && resource.version == version)
        .map(|resource| aggregated_resource(resource))
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(resource: &Resource) -> Value {
    // What is empty is that of the resource.
    let own = |kind: &str| json!({"group": "", "version": "", "kind": kind});
    let kind = |sub: Sub| match sub.body() {
        Some((group, version, kind)) if (group, version) != (resource.group.as_str(), resource.version.as_str()) => {
            json!({"group": group, "version": version, "kind": kind})
        }
        Some((.., kind)) => own(kind),
        None => own(&resource.kind),
    };
    let mut value = json!({
        "resource": resource.plural, "responseKind": own(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources: Vec<Value> = resource
            .subresources
            .iter()
            .map(|sub| json!({"subresource": sub.path(), "responseKind": kind(*sub), "verbs": sub.verbs()}))
            .collect();
        value["subresources"] = json!(subresources);
    }
    value
}
