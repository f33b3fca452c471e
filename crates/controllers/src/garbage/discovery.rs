//! Which resources a server has, as far as a collector of garbage can follow them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Client;
use kube::core::ApiResource;

/// A resource that can be listed, watched and deleted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Followed {
    pub(super) api: ApiResource,
    pub(super) namespaced: bool,
}

/// `plural.version.group` of each resource; of a group its preferred version.
pub(super) async fn discover(client: &Client) -> Result<BTreeMap<String, Followed>, kube::Error> {
    let mut found = BTreeMap::new();
    let core = client.list_core_api_resources("v1").await?;
    add(&mut found, "", "v1", core.resources);
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.or_else(|| group.versions.first().cloned());
        let Some(preferred) = preferred else { continue };
        // A group whose server is away is followed when it is back; the others must not wait for it.
        if let Ok(list) = client.list_api_group_resources(&preferred.group_version).await {
            add(&mut found, &group.name, &preferred.version, list.resources);
        }
    }
    Ok(found)
}

fn add(found: &mut BTreeMap<String, Followed>, group: &str, version: &str, resources: Vec<APIResource>) {
    for resource in resources {
        let can = |verb: &str| resource.verbs.iter().any(|known| known == verb);
        // Events own nothing, outnumber all else and end by themselves.
        let events = resource.name == "events";
        if resource.name.contains('/') || events || !["list", "watch", "delete"].iter().all(|verb| can(verb)) {
            continue;
        }
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let api = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: resource.kind.clone(),
            plural: resource.name.clone(),
        };
        found.insert(format!("{}.{version}.{group}", resource.name), Followed { api, namespaced: resource.namespaced });
    }
}
