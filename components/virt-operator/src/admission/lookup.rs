//! Fetches the facts a review needs (client required). Nothing is decided and nothing is written: placements are rehearsed.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kubevirt_api::names::GROUP;
use kubevirt_apply::{RehearsalError, rehearse};
use kubevirt_release::{Kind, Object};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Facts, Needs, WORKLOADS};

/// All look-ups of one review. The API server gives a webhook 10 s; what takes longer is answered with an error of ours,
/// which says more than a time-out.
const LOOKUP: Duration = Duration::from_secs(8);

/// How many objects of a kind are asked for: one is enough to know, two is what the contract says.
const ENOUGH: u32 = 2;

/// The rehearsed workloads' name.
const NAME: &str = "placement-validation-webhook";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} could not be listed: {source}")]
    List { what: &'static str, source: kube::Error },
    #[error("an object could not be tried: {0}")]
    Rehearsal(#[from] RehearsalError),
    #[error("the cluster's API did not answer within {LOOKUP:?}")]
    TooSlow,
}

/// Everything the review needs to know.
///
/// # Errors
/// The API server refused or did not answer in time.
pub async fn facts(client: &Client, needs: &Needs, namespace: &str) -> Result<Facts, Error> {
    timeout(LOOKUP, look(client, needs, namespace)).await.map_err(|_| Error::TooSlow)?
}

/// What the server would say against objects, one sentence each.
///
/// # Errors
/// As for [`facts`].
pub async fn objections(client: &Client, objects: &[Object]) -> Result<Vec<String>, Error> {
    let ask = async {
        let mut objections = Vec::new();
        for object in objects {
            if let Some(objection) = rehearse(client, object).await? {
                objections.push(format!("{}: {objection}", object.key()));
            }
        }
        Ok(objections)
    };
    timeout(LOOKUP, ask).await.map_err(|_| Error::TooSlow)?
}

async fn look(client: &Client, needs: &Needs, namespace: &str) -> Result<Facts, Error> {
    let Needs { custom_resources, workloads, infra, nodes } = needs;
    let mut facts = Facts::default();
    if *custom_resources {
        let found = list(client, "KubeVirt", "kubevirts", ListParams::default()).await?;
        facts.custom_resources = found.into_iter().filter_map(|cr| serde_json::to_value(cr).ok()).collect();
    }
    if *workloads {
        for (plural, name) in WORKLOADS {
            // The kind only names the type of the list.
            if !list(client, "List", plural, ListParams::default().limit(ENOUGH)).await?.is_empty() {
                facts.workloads.push(name);
            }
        }
    }
    let placements = [("infra", Kind::Deployment, infra), ("workloads", Kind::DaemonSet, nodes)];
    for (part, kind, placement) in placements {
        let Some(placement) = placement else { continue };
        if let Some(objection) = rehearse(client, &rehearsal(kind, namespace, placement)).await? {
            facts.placements.push((part, objection));
        }
    }
    Ok(facts)
}

async fn list(
    client: &Client,
    kind: &str,
    plural: &'static str,
    parameters: ListParams,
) -> Result<Vec<DynamicObject>, Error> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind), plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match api.list(&parameters).await {
        Ok(found) => Ok(found.items),
        // No such kind: none of its objects either.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(source) => Err(Error::List { what: plural, source }),
    }
}

/// The smallest workload with a placement.
fn rehearsal(kind: Kind, namespace: &str, placement: &Value) -> Object {
    let labels = json!({"kubevirt.io": NAME});
    let mut pod = json!({"containers": [{"name": NAME, "image": NAME}]});
    for part in ["nodeSelector", "affinity", "tolerations"] {
        if let Some(given) = placement.get(part) {
            pod[part] = given.clone();
        }
    }
    let value = json!({
        "apiVersion": kind.api_version(), "kind": kind.name(),
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    });
    Object::from_value(value).expect("a workload with a name and a namespace")
}
