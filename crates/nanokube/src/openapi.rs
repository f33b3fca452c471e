//! OpenAPI documents: what `kubectl explain`, `kubectl apply` and the detection of server-side field validation read.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kinds::Sub;
use crate::registry::{Resource, Table, join_version};
use crate::reply::{JSON, Reply};
use crate::status::ApiError;

/// `/openapi/v3`: where the documents are. The hash changes with the content, so that clients may keep them for ever.
pub(crate) fn index(table: &Table) -> Value {
    let mut paths = Map::new();
    let mut add = |path: String, group: &str, version: &str| {
        let hash = hash(&document(table, group, version).to_string());
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    add("api/v1".to_owned(), "", "v1");
    for (group, versions) in table.groups() {
        for version in versions {
            add(format!("apis/{group}/{version}"), &group, &version);
        }
    }
    json!({"paths": paths})
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

/// One group and version.
pub(crate) fn document(table: &Table, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in table.iter().filter(|resource| resource.group == group && resource.version == version) {
        let name = schema_name(resource);
        schemas.insert(name.clone(), schema_of(resource));
        add_paths(&mut paths, resource, &name);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": format!("v1.{}.0", crate::discovery::MINOR)},
        "paths": paths, "components": {"schemas": schemas},
    })
}

/// Reversed group, version, kind: the way definitions are named everywhere.
fn schema_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> =
        if resource.group.is_empty() { vec!["core", "api", "k8s", "io"] } else { resource.group.split('.').collect() };
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), resource.version, resource.kind)
}

fn group_version_kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn schema_of(resource: &Resource) -> Value {
    let mut schema = match (&resource.custom, resource.schema()) {
        (Some(custom), _) if custom.openapi.is_object() => custom.openapi.clone(),
        (_, Some(schema)) => schema.to_openapi(),
        _ => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    schema["type"] = json!("object");
    let properties = &mut schema["properties"];
    for field in ["apiVersion", "kind"] {
        if properties[field].is_null() {
            properties[field] = json!({"type": "string"});
        }
    }
    if properties["metadata"]["properties"].is_null() {
        properties["metadata"] = json!({"type": "object"});
    }
    schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(resource)]);
    schema
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, schema: &str) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
    let gvk = group_version_kind(resource);
    let content = |media: &[&str]| -> Value {
        media.iter().map(|media| ((*media).to_owned(), json!({"schema": reference}))).collect::<Map<_, _>>().into()
    };
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let operation = |action: &str, parameters: &[&str], body: Option<&[&str]>| {
        let mut value = json!({
            "tags": [format!("{}_{}", resource.group, resource.version)],
            "parameters": parameters.iter().map(|name| parameter(name)).collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK", "content": content(&[JSON])}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
        });
        if let Some(media) = body {
            value["requestBody"] = json!({"content": content(media), "required": true});
        }
        value
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let list = ["labelSelector", "fieldSelector", "limit", "continue", "watch", "resourceVersion"];
    let create = operation("post", &write, Some(&[JSON]));
    if !resource.is_kept() {
        paths.insert(collection, json!({"post": create}));
        return;
    }
    let custom = resource.custom.is_some();
    let patches: &[&str] = if custom {
        &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
    } else {
        &[
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ]
    };
    let patch_parameters = ["dryRun", "fieldManager", "fieldValidation", "force"];
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", &list, None), "post": create,
            "delete": operation("deletecollection", &list, Some(&[JSON])),
        }),
    );
    let one = json!({
        "get": operation("get", &[], None),
        "put": operation("put", &write, Some(&[JSON])),
        "patch": operation("patch", &patch_parameters, Some(patches)),
        "delete": operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"], Some(&[JSON])),
    });
    let item = format!("{collection}/{{name}}");
    if resource.has(Sub::Status) {
        let mut status = one.clone();
        if let Some(map) = status.as_object_mut() {
            map.remove("delete");
        }
        paths.insert(format!("{item}/status"), status);
    }
    paths.insert(item, one);
}

/// `/openapi/v2`, without schemas' details: old clients learn which kinds exist and that fields are validated here.
///
/// # Errors
/// 406 for the protobuf form, which is not written.
pub(crate) fn v2(table: &Table, accept: &str) -> Result<Reply, ApiError> {
    let json_wanted = accept.is_empty() || accept.contains("json") || accept.contains("*/*");
    if !json_wanted {
        return Err(ApiError::not_acceptable());
    }
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for resource in table.iter() {
        let name = schema_name(resource);
        let mut schema = schema_of(resource);
        if let Some(map) = schema.as_object_mut() {
            map.retain(|key, _| {
                matches!(key.as_str(), "type" | "description" | "properties" | "x-kubernetes-group-version-kind")
            });
        }
        definitions.insert(name.clone(), schema);
        let root = if resource.group.is_empty() { "/api".to_owned() } else { "/apis".to_owned() };
        let path = format!("{root}/{}/{}", join_version(&resource.group, &resource.version), resource.plural);
        let validation = json!([{"name": "fieldValidation", "in": "query", "type": "string"}]);
        paths.insert(
            path,
            json!({"post": {"parameters": validation, "x-kubernetes-group-version-kind": group_version_kind(resource),
                "responses": {"200": {"description": "OK"}}}}),
        );
    }
    let value = json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": format!("v1.{}.0", crate::discovery::MINOR)},
        "paths": paths, "definitions": definitions,
    });
    Ok(Reply::bytes(200, JSON, Bytes::from(value.to_string())))
}
