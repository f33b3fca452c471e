//! Discovery in both forms and the OpenAPI documents tell of the same resources, which are then served.

use std::collections::BTreeSet;

use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use nanokube::UserInfo;
use serde_json::{Value, json};

use crate::{object, resource, server};

async fn get(client: &Client, path: &str, accept: &str) -> Value {
    client.request(http::Request::get(path).header("accept", accept).body(Vec::new()).unwrap()).await.unwrap()
}

const PLAIN: &str = "application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `group/version plural[/sub] kind verbs`, from the lists of resources.
async fn plain(client: &Client) -> BTreeSet<String> {
    let mut paths = vec![("v1".to_owned(), "/api/v1".to_owned())];
    for group in get(client, "/apis", PLAIN).await["groups"].as_array().unwrap() {
        assert_eq!(group["preferredVersion"], group["versions"][0]);
        for version in group["versions"].as_array().unwrap() {
            let version = version["groupVersion"].as_str().unwrap();
            paths.push((version.to_owned(), format!("/apis/{version}")));
        }
    }
    let mut found = BTreeSet::new();
    for (version, path) in paths {
        let list = get(client, &path, PLAIN).await;
        assert_eq!(list["groupVersion"], json!(version));
        for entry in list["resources"].as_array().unwrap() {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            found.insert(format!("{version} {} {} {:?}", text("name"), text("kind"), texts(&entry["verbs"])));
        }
    }
    found
}

/// The same from the aggregated form.
async fn aggregated(client: &Client) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in ["/api", "/apis"] {
        for item in get(client, path, AGGREGATED).await["items"].as_array().unwrap() {
            for version in item["versions"].as_array().unwrap() {
                let name = version["version"].as_str().unwrap();
                let group = item["metadata"]["name"].as_str().unwrap_or_default();
                let whole = if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") };
                for entry in version["resources"].as_array().unwrap() {
                    let plural = entry["resource"].as_str().unwrap();
                    let kind = |entry: &Value| entry["responseKind"]["kind"].as_str().unwrap_or_default().to_owned();
                    found.insert(format!("{whole} {plural} {} {:?}", kind(entry), texts(&entry["verbs"])));
                    for sub in entry["subresources"].as_array().into_iter().flatten() {
                        let name = sub["subresource"].as_str().unwrap();
                        found.insert(format!("{whole} {plural}/{name} {} {:?}", kind(sub), texts(&sub["verbs"])));
                    }
                }
            }
        }
    }
    found
}

/// `group/version kind` of everything a document describes.
fn described(schemas: &Value) -> BTreeSet<String> {
    let kinds = schemas.as_object().unwrap().values().flat_map(|schema| {
        schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten().map(|kind| {
            let text = |field: &str| kind[field].as_str().unwrap_or_default();
            let group = if text("group").is_empty() { String::new() } else { format!("{}/", text("group")) };
            format!("{group}{} {}", text("version"), text("kind"))
        })
    });
    kinds.collect()
}

fn definition() -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.acme.io"},
        "spec": {"group": "acme.io", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [version("v1", true), version("v1beta1", false)]},
    })
}

#[tokio::test(start_paused = true)]
async fn both_forms_of_discovery_and_both_openapi_documents_agree() {
    let client = server().client(UserInfo::admin());
    let kind = resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions");
    let definitions = Api::<DynamicObject>::all_with(client.clone(), &kind);
    definitions.create(&PostParams::default(), &object(definition())).await.unwrap();

    let resources = plain(&client).await;
    assert_eq!(resources, aggregated(&client).await);
    assert!(resources.iter().any(|line| line.starts_with("acme.io/v1beta1 gadgets/status Gadget")));

    let mut in_v3 = BTreeSet::new();
    for (path, entry) in get(&client, "/openapi/v3", PLAIN).await["paths"].as_object().unwrap() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with(&format!("/openapi/v3/{path}?hash=")), "{url}");
        let document = get(&client, url, PLAIN).await;
        in_v3.extend(described(&document["components"]["schemas"]));
    }
    let in_v2 = described(&get(&client, "/openapi/v2", PLAIN).await["definitions"]);
    assert_eq!(in_v3, in_v2);
    let main = resources.iter().filter(|line| !line.split(' ').nth(1).unwrap().contains('/'));
    for line in main {
        let mut words = line.split(' ');
        let (version, _, kind) = (words.next().unwrap(), words.next(), words.next().unwrap());
        assert!(in_v3.contains(&format!("{version} {kind}")), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_group_and_version_has_its_api_service() {
    let client = server().client(UserInfo::admin());
    let kind = resource("apiregistration.k8s.io/v1", "APIService", "apiservices");
    let services = Api::<DynamicObject>::all_with(client.clone(), &kind);
    let names = || async {
        let list = services.list(&Default::default()).await.unwrap().items;
        assert!(list.iter().all(|service| service.data["status"]["conditions"][0]["status"] == "True"));
        list.into_iter().map(|service| service.metadata.name.unwrap()).collect::<BTreeSet<_>>()
    };
    let mut wanted: BTreeSet<String> = ["v1.".to_owned()].into();
    for group in get(&client, "/apis", PLAIN).await["groups"].as_array().unwrap() {
        let group_name = group["name"].as_str().unwrap();
        // Who registers others is not registered.
        if group_name != "apiregistration.k8s.io" {
            let versions = group["versions"].as_array().unwrap().iter();
            wanted.extend(versions.map(|version| format!("{}.{group_name}", version["version"].as_str().unwrap())));
        }
    }
    assert_eq!(names().await, wanted);

    let kind = resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions");
    let definitions = Api::<DynamicObject>::all_with(client.clone(), &kind);
    definitions.create(&PostParams::default(), &object(definition())).await.unwrap();
    assert!(names().await.is_superset(&["v1.acme.io".to_owned(), "v1beta1.acme.io".to_owned()].into()));
    definitions.delete("gadgets.acme.io", &Default::default()).await.unwrap();
    assert_eq!(names().await, wanted, "they go with the definition");
}
