//! All objects of a cluster as YAML, read through its API; `up --import` takes them back.

use std::io::Write;

use anyhow::{Context as _, Result};
use kube::Client;
use serde_json::Value;

/// Objects asked for at once: a few megabytes of the largest kinds.
const PAGE: u32 = 500;

/// A resource whose objects are exported.
struct Listed {
    path: String,
    api_version: String,
    kind: String,
}

/// Writes every object, each kind in the preferred version of its group; how many there were.
///
/// # Errors
/// The cluster does not answer, or the objects cannot be written.
pub(crate) async fn write(client: &Client, secrets: bool, out: &mut impl Write) -> Result<usize> {
    let mut count = 0;
    for resource in resources(client).await? {
        if resource.kind == "Secret" && resource.api_version == "v1" && !secrets {
            continue;
        }
        for mut object in list(client, &resource.path).await? {
            let Some(map) = object.as_object_mut() else { continue };
            map.insert("apiVersion".to_owned(), resource.api_version.clone().into());
            map.insert("kind".to_owned(), resource.kind.clone().into());
            let text = kubevirt_release::yaml::document(&object);
            writeln!(out, "---\n{}", text.trim_end()).context("write the objects")?;
            count += 1;
        }
    }
    Ok(count)
}

async fn get(client: &Client, path: &str) -> Result<Value> {
    let request = http::Request::get(path).body(Vec::new()).with_context(|| format!("ask for {path}"))?;
    client.request(request).await.with_context(|| format!("read {path}"))
}

/// What can be listed and created again. Events are there once, under their first name.
async fn resources(client: &Client) -> Result<Vec<Listed>> {
    let mut paths = vec![("v1".to_owned(), "/api/v1".to_owned())];
    let groups = get(client, "/apis").await?;
    for group in groups["groups"].as_array().into_iter().flatten().filter(|group| group["name"] != "events.k8s.io") {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default().to_owned();
        paths.push((version.clone(), format!("/apis/{version}")));
    }
    let mut found = Vec::new();
    for (api_version, path) in paths {
        let list = match client.request::<Value>(http::Request::get(&path).body(Vec::new())?).await {
            Ok(list) => list,
            // Another server's group that is away: this cluster does not hold its objects.
            Err(kube::Error::Api(status)) if status.code == 503 => continue,
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        for entry in list["resources"].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap_or_default();
            let can =
                |verb: &str| entry["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|known| known == verb));
            if name.contains('/') || !can("list") || !can("create") {
                continue;
            }
            found.push(Listed {
                path: format!("{path}/{name}"),
                api_version: api_version.clone(),
                kind: entry["kind"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(found)
}

async fn list(client: &Client, path: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let mut page = get(client, &format!("{path}?limit={PAGE}{next}")).await?;
        if let Some(items) = page["items"].as_array_mut() {
            objects.append(items);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = format!("&continue={token}"),
            _ => return Ok(objects),
        }
    }
}
