//! A namespace that is going: what is in it is deleted, its conditions say what holds it, and then it is let go.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::json;

use super::discovery::Followed;
use super::settled;

/// Pods go before what they use: a Secret must not vanish under a program that is still to shut down.
const FIRST: &str = "pods.v1.";

/// What is known after a pass.
#[derive(Debug, Default)]
struct Findings {
    /// Groups and versions whose server is away: what they hold in the namespace is not known.
    failing: Vec<String>,
    /// `plural.group` and how many objects are left.
    remaining: BTreeMap<String, usize>,
    /// How many of what is left waits for each finalizer.
    finalizers: BTreeMap<String, usize>,
}

/// One pass over a namespace; whether it is done.
pub(super) async fn empty(
    client: Client,
    resources: &BTreeMap<String, Followed>,
    name: &str,
    now: Timestamp,
) -> Result<bool, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(mut namespace) = namespaces.get_opt(name).await? else { return Ok(true) };
    if namespace.metadata.deletion_timestamp.is_none() {
        return Ok(true);
    }
    let mut findings = Findings { failing: failing(&client).await?, ..Findings::default() };
    let rest = resources.iter().filter(|(key, followed)| followed.namespaced && *key != FIRST);
    for (key, followed) in resources.get_key_value(FIRST).into_iter().chain(rest) {
        if key != FIRST && findings.remaining.contains_key("pods.") {
            break;
        }
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), name, &followed.api);
        for object in api.list_metadata(&ListParams::default()).await?.items {
            let group = &followed.api.group;
            *findings.remaining.entry(format!("{}.{group}", followed.api.plural)).or_default() += 1;
            for finalizer in object.metadata.finalizers.into_iter().flatten() {
                *findings.finalizers.entry(finalizer).or_default() += 1;
            }
            if object.metadata.deletion_timestamp.is_none() {
                let own = object.metadata.name.unwrap_or_default();
                settled(api.delete(&own, &DeleteParams::background()).await)?;
            }
        }
    }
    let told = namespace.status.clone().and_then(|status| status.conditions).unwrap_or_default();
    let conditions = conditions(&findings, &told, now);
    let texts = |list: &[NamespaceCondition]| {
        let text = |it: &NamespaceCondition| (it.type_.clone(), it.status.clone(), it.message.clone());
        list.iter().map(text).collect::<Vec<_>>()
    };
    if texts(&told) != texts(&conditions) {
        let patch = json!({"status": {"conditions": conditions}});
        settled(namespaces.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
    }
    if !findings.remaining.is_empty() || !findings.failing.is_empty() {
        return Ok(false);
    }
    let events: Api<Event> = Api::namespaced(client.clone(), name);
    let _ = events.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    namespace.metadata.resource_version = None;
    let spec = namespace.spec.get_or_insert_default();
    spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != "kubernetes");
    settled(namespaces.replace_subresource("finalize", name, &PostParams::default(), &namespace).await)
}

/// Aggregated APIs that cannot be reached. Nobody can tell what they hold, so the namespace waits for them.
async fn failing(client: &Client) -> Result<Vec<String>, kube::Error> {
    let services = match Api::<APIService>::all(client.clone()).list(&ListParams::default()).await {
        // A server without aggregation has none.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Vec::new()),
        services => services?,
    };
    let away = services.items.into_iter().filter_map(|service| {
        let spec = service.spec.filter(|spec| spec.service.is_some())?;
        let conditions = service.status.and_then(|status| status.conditions).unwrap_or_default();
        let available = conditions.iter().any(|it| it.type_ == "Available" && it.status == "True");
        (!available).then(|| format!("{}/{}", spec.group.unwrap_or_default(), spec.version.unwrap_or_default()))
    });
    Ok(away.collect())
}

/// The conditions of a namespace that is going, in their usual order; what has not changed keeps its time.
fn conditions(findings: &Findings, old: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
    let Findings { failing, remaining, finalizers } = findings;
    let counts = |map: &BTreeMap<String, usize>, before: &str, unit: &str| {
        map.iter().map(|(name, count)| format!("{name}{before}{count} {unit}")).collect::<Vec<_>>().join(", ")
    };
    let discovery = format!(
        "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
        failing.len(),
        failing.iter().map(|it| format!("{it}: stale GroupVersion discovery: {it}")).collect::<Vec<_>>().join(", ")
    );
    let resources = format!("Some resources are remaining: {}", counts(remaining, " has ", "resource instances"));
    let held = format!(
        "Some content in the namespace has finalizers remaining: {}",
        counts(finalizers, " in ", "resource instances")
    );
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            !failing.is_empty(),
            "DiscoveryFailed",
            discovery.as_str(),
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "",
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            false,
            "",
            "",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !remaining.is_empty(),
            "SomeResourcesRemain",
            resources.as_str(),
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !finalizers.is_empty(),
            "SomeFinalizersRemain",
            held.as_str(),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
    .into_iter()
    .map(|(kind, holds, reason, message, well, well_message)| {
        let status = if holds { "True" } else { "False" };
        let known = old.iter().find(|known| known.type_ == kind && known.status == status);
        NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(if holds { reason } else { well }.to_owned()),
            message: Some(if holds { message } else { well_message }.to_owned()),
            last_transition_time: known.and_then(|known| known.last_transition_time.clone()).or(Some(Time(now))),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_holds_a_namespace() {
        let findings = Findings {
            failing: vec!["sub.example.com/v1".to_owned()],
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: BTreeMap::new(),
        };
        let made = conditions(&findings, &[], Timestamp::UNIX_EPOCH);
        let holding: Vec<_> = made.iter().filter(|it| it.status == "True").map(|it| it.type_.as_str()).collect();
        assert_eq!(holding, ["NamespaceDeletionDiscoveryFailure", "NamespaceContentRemaining"]);
        assert!(made[0].message.as_deref().unwrap().contains("stale GroupVersion discovery: sub.example.com/v1"));
        assert!(made[3].message.as_deref().unwrap().contains("pods. has 2 resource instances"));
        assert_eq!(conditions(&findings, &made, Timestamp::MAX), made, "what is told already keeps its time");
    }
}
