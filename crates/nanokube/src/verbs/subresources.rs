//! Scale, binding, eviction and token requests.

use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, Outcome, remove};
use super::render::versioned;
use super::write::{Change, applied_to, finish_update, manager, patched};
use super::{Target, body, meta, metadata_text};
use crate::admission::{self, Asked, Operation};
use crate::core::seconds;
use crate::jsonpaths;
use crate::kinds::Sub;
use crate::registry::{Resource, resource_key};
use crate::reply::Reply;
use crate::request::{WriteOptions, check_not_forced};
use crate::status::{ApiError, created};
use crate::store::{Name, Stored};
use crate::tokens::{AUDIENCE, Claims};

/// Where a resource keeps what `scale` shows.
struct ScalePaths {
    spec: String,
    status: String,
    selector: Option<String>,
}

fn scale_paths(resource: &Resource) -> ScalePaths {
    match resource.custom.as_ref().and_then(|custom| custom.scale.clone()) {
        Some(scale) => {
            ScalePaths { spec: scale.spec_replicas, status: scale.status_replicas, selector: scale.label_selector }
        }
        None => ScalePaths { spec: ".spec.replicas".to_owned(), status: ".status.replicas".to_owned(), selector: None },
    }
}

fn scale_of(resource: &Resource, stored: &Stored) -> Value {
    let paths = scale_paths(resource);
    let object = &stored.value;
    let number = |path: &str| jsonpaths::simple(object, path).and_then(Value::as_i64);
    let selector = match &paths.selector {
        Some(path) => jsonpaths::simple(object, path).and_then(Value::as_str).unwrap_or_default().to_owned(),
        None if resource.custom.is_some() => String::new(),
        None => jsonpaths::selector_text(&object["spec"]["selector"]),
    };
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {},
        "spec": {}, "status": {"replicas": number(&paths.status).unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    // Zero is not written, as in any field that is left out when empty.
    if let Some(replicas) = number(&paths.spec).filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

pub(super) fn get_scale(target: &Target<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &scale_of(&target.resource, &*target.live()?)))
}

pub(super) async fn update_scale(target: &Target<'_>) -> Result<Reply, ApiError> {
    let scale = body::parse(target, "Scale")?;
    set_scale(target, &target.live()?, scale, "UpdateOptions").await
}

pub(super) async fn patch_scale(target: &Target<'_>) -> Result<Reply, ApiError> {
    let media = body::media_type(&target.context.content_type);
    let live = target.live()?;
    let current = scale_of(&target.resource, &live);
    let scale = match media.as_str() {
        "application/merge-patch+json" | "application/json-patch+json" | "application/strategic-merge-patch+json" => {
            check_not_forced(target.query())?;
            let patch: Value = serde_json::from_slice(&target.context.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
            // Scale has only maps: a strategic merge is a merge.
            let media = media.replace("strategic-merge", "merge");
            patched(&target.resource, &current, &patch, &media)?
        }
        "application/apply-patch+yaml" => return apply_scale(target, &live).await,
        _ => return Err(ApiError::unsupported_patch()),
    };
    set_scale(target, &live, scale, "PatchOptions").await
}

/// Applies the number of replicas; its owner is recorded in the object that is scaled.
async fn apply_scale(target: &Target<'_>, live: &Arc<Stored>) -> Result<Reply, ApiError> {
    let options = WriteOptions::parse(target.query(), "PatchOptions")?;
    if options.field_manager.is_empty() {
        let text = "Required value: is required for apply patch";
        return Err(ApiError::invalid_option("PatchOptions", "fieldManager", "FieldValueRequired", text));
    }
    let config = body::parse_yaml(&target.context.body)?;
    if config["kind"].as_str().is_some_and(|kind| kind != "Scale") {
        return Err(ApiError::bad_request("the object provided is no Scale"));
    }
    let resource = &target.resource;
    let mut applied = json!({
        "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": target.path.name},
    });
    if let Some(replicas) = config["spec"].get("replicas") {
        if replicas.as_i64().is_none_or(|count| count < 0) {
            let error =
                apimachinery::FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            let about = crate::status::About { group: "autoscaling", what: "Scale", name: &target.path.name };
            return Err(ApiError::invalid(about, &[error]));
        }
        jsonpaths::set_simple(&mut applied, &scale_paths(resource).spec, replicas.clone());
    }
    let stated = metadata_text(&config, "resourceVersion").to_owned();
    let stated = if stated == live.revision.to_string() { String::new() } else { stated };
    let new = applied_to(target, &options, &versioned(resource, &live.value), &applied, "scale")?;
    let change = Change { new, sub: Some(Sub::Scale), manager: None, stated: &stated };
    let stored = finish_update(target, &options, live, change).await?;
    Ok(Reply::json(200, &scale_of(resource, &stored)))
}

async fn set_scale(target: &Target<'_>, live: &Arc<Stored>, mut scale: Value, kind: &str) -> Result<Reply, ApiError> {
    let options = WriteOptions::parse(target.query(), kind)?;
    let resource = &target.resource;
    let asked = Asked { operation: Operation::Update, ..asked(target, options.dry_run) };
    admission::ask(&asked, &mut scale, &scale_of(resource, live)).await?;
    let replicas = &scale["spec"]["replicas"];
    if replicas.as_i64().is_some_and(|count| i32::try_from(count).is_err()) {
        let why = format!("spec.replicas: {replicas} is no number of type int32");
        return Err(if kind == "PatchOptions" {
            ApiError::invalid_patch(&apimachinery::FieldError::invalid("patch", &scale, &why))
        } else {
            ApiError::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: json: {why}"))
        });
    }
    let replicas = match replicas {
        Value::Null => 0,
        value => value.as_i64().filter(|count| *count >= 0).ok_or_else(|| {
            let error = apimachinery::FieldError::invalid("spec.replicas", value, "must be greater than or equal to 0");
            let about = crate::status::About { group: "autoscaling", what: "Scale", name: &target.path.name };
            ApiError::invalid(about, &[error])
        })?,
    };
    let stated = metadata_text(&scale, "resourceVersion").to_owned();
    let stated = if stated == live.revision.to_string() { String::new() } else { stated };
    let mut new = versioned(resource, &live.value);
    jsonpaths::set_simple(&mut new, &scale_paths(resource).spec, json!(replicas));
    let mut manager = manager(target, &options, "scale");
    manager.time = None;
    let change = Change { new, sub: Some(Sub::Scale), manager: Some(manager), stated: &stated };
    let stored = finish_update(target, &options, live, change).await?;
    Ok(Reply::json(200, &scale_of(resource, &stored)))
}

/// The creation of what is sent to a subresource.
fn asked<'a>(target: &'a Target<'a>, dry_run: bool) -> Asked<'a> {
    Asked { target, operation: Operation::Create, name: &target.path.name, dry_run }
}

/// `bindings`: the pod is the one of the binding's name.
pub(super) async fn bind_by_name(target: &Target<'_>) -> Result<Reply, ApiError> {
    let binding = body::parse(target, "Binding")?;
    let table = target.core.registry.table();
    let pods = table.get("", "v1", "pods").ok_or_else(ApiError::no_resource)?;
    let path = crate::request::ResourcePath {
        plural: "pods".to_owned(),
        name: metadata_text(&binding, "name").to_owned(),
        ..target.path.clone()
    };
    bind(&Target { core: target.core, context: target.context, resource: pods, path: &path }).await
}

/// Puts a pod on a node, once.
pub(super) async fn bind(target: &Target<'_>) -> Result<Reply, ApiError> {
    let options = WriteOptions::parse(target.query(), "CreateOptions")?;
    let mut binding = body::parse(target, "Binding")?;
    admission::ask(&asked(target, options.dry_run), &mut binding, &Value::Null).await?;
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    let kind = binding["target"]["kind"].as_str().unwrap_or("Node");
    if node.is_empty() || !matches!(kind, "" | "Node") {
        let error = apimachinery::FieldError::required("target.name", "");
        let about = crate::status::About { group: "", what: "Binding", name: &target.path.name };
        return Err(ApiError::invalid(about, &[error]));
    }
    let live = target.live()?;
    let name = &target.path.name;
    let current: &Value = &live.value;
    if meta::is_terminating(current) {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(ApiError::conflict(target.about(name), &why));
    }
    let assigned = current["spec"]["nodeName"].as_str().unwrap_or_default();
    if !assigned.is_empty() {
        let why = format!("pod {name} is already assigned to node \"{assigned}\"");
        return Err(ApiError::conflict(crate::status::About { group: "", what: "pods/binding", name }, &why));
    }
    let uid = metadata_text(&binding, "uid");
    if !uid.is_empty() && uid != metadata_text(current, "uid") {
        return Err(ApiError::conflict(
            target.about(name),
            "the UID in the precondition does not match the UID in record",
        ));
    }
    let mut new = current.clone();
    new["spec"]["nodeName"] = json!(node);
    if let Some(annotations) = binding["metadata"]["annotations"].as_object() {
        let own = meta::metadata_mut(&mut new).entry("annotations").or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            own.extend(annotations.clone());
        }
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": target.core.now_text(),
    });
    set_condition(&mut new, condition);
    if !options.dry_run {
        let place = target.name();
        let written = target.core.store.update(&target.resource.key, &place, live.revision, new);
        written.map_err(|_| ApiError::stale(target.about(name)))?;
    }
    Ok(Reply::json(201, &created()))
}

fn set_condition(object: &mut Value, condition: Value) {
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|other| other["type"] != condition["type"]);
        list.push(condition);
    }
}

/// Deletes a pod if the disruption budgets allow it.
pub(super) async fn evict(target: &Target<'_>) -> Result<Reply, ApiError> {
    let mut eviction = body::parse(target, "Eviction")?;
    let dry = WriteOptions::parse(target.query(), "CreateOptions")?.dry_run;
    admission::ask(&asked(target, dry), &mut eviction, &Value::Null).await?;
    let options = DeleteOptions::parse(target.query(), &eviction["deleteOptions"])?.or_dry_run(dry).admitted();
    let pod = target.live()?;
    if needs_no_budget(&pod.value) {
        return evicted(target, &options).await;
    }
    let budgets: Vec<Arc<Stored>> = budgets_of(target, &pod.value);
    let [budget] = budgets.as_slice() else {
        if budgets.is_empty() {
            return evicted(target, &options).await;
        }
        return Err(ApiError::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    };
    let spec = &budget.value["spec"];
    let status = &budget.value["status"];
    let ready = is_ready(&pod.value);
    if !ready {
        let healthy = status["currentHealthy"].as_i64().unwrap_or(0);
        let desired = status["desiredHealthy"].as_i64().unwrap_or(0);
        let always = spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return evicted(target, &options).await;
        }
    }
    spend(target, budget, options.is_dry_run())?;
    evicted(target, &options).await
}

/// A pod that changes while it is marked is marked again this often.
const MARK_ATTEMPTS: usize = 8;

/// Deletes the pod; its condition says first that it goes by an eviction.
async fn evicted(target: &Target<'_>, options: &DeleteOptions) -> Result<Reply, ApiError> {
    let mut options = options.clone();
    for _ in 0..MARK_ATTEMPTS {
        let live = target.live()?;
        if options.is_dry_run() || meta::is_terminating(&live.value) || !options.agrees(&live) {
            break;
        }
        let mut new = live.value.clone();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null,
            "lastTransitionTime": target.core.now_text(), "observedGeneration": new["metadata"]["generation"],
        });
        set_condition(&mut new, condition);
        if let Ok(marked) = target.core.store.update(&target.resource.key, &target.name(), live.revision, new) {
            options = options.following(&marked);
            break;
        }
    }
    let options = &options;
    match remove(target, &target.name(), options).await? {
        Outcome::Gone(_) | Outcome::Begun(_) => Ok(Reply::json(201, &created())),
    }
}

/// Pods that are ending or that no node has may always go.
fn needs_no_budget(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_terminating(pod)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn budget_key() -> crate::store::ResourceKey {
    resource_key("policy", "poddisruptionbudgets")
}

fn budgets_of(target: &Target<'_>, pod: &Value) -> Vec<Arc<Stored>> {
    let all = target.core.store.objects(&budget_key(), &target.path.namespace);
    all.into_iter()
        .filter(|budget| {
            LabelSelector::from_json(&budget.value["spec"]["selector"])
                .is_ok_and(|selector| selector.matches_object(pod))
        })
        .collect()
}

/// Takes one disruption from the budget, so that two evictions at once cannot both use the last.
fn spend(target: &Target<'_>, budget: &Arc<Stored>, dry_run: bool) -> Result<(), ApiError> {
    let name = metadata_text(&budget.value, "name");
    let place = Name::new(&target.path.namespace, name);
    let store = &target.core.store;
    loop {
        let refuse = |message: &str| {
            let text = "Cannot evict pod as it would violate the pod's disruption budget.";
            ApiError::too_many_requests(text, None).with_cause("DisruptionBudget", message, "")
        };
        let Some(live) = store.get(&budget_key(), &place) else { return Ok(()) };
        let status = &live.value["status"];
        let observed = status["observedGeneration"].as_i64().unwrap_or(0);
        if observed < live.value["metadata"]["generation"].as_i64().unwrap_or(0) {
            return Err(refuse(&format!("The disruption budget {name} is still being processed by the server.")));
        }
        let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
        if allowed <= 0 {
            let number = |field: &str| status[field].as_i64().unwrap_or(0);
            return Err(refuse(&format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number("desiredHealthy"),
                number("currentHealthy")
            )));
        }
        if dry_run {
            return Ok(());
        }
        let mut new = live.value.clone();
        new["status"]["disruptionsAllowed"] = json!(allowed - 1);
        new["status"]["disruptedPods"][&target.path.name] = json!(target.core.now_text());
        if store.update(&budget_key(), &place, live.revision, new).is_ok() {
            return Ok(());
        }
    }
}

/// A token that asks for no time gets this long.
const TOKEN_SECONDS: i64 = 3600;
/// Shorter tokens would expire on their way.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Issues a token for a service account.
pub(super) async fn token(target: &Target<'_>) -> Result<Reply, ApiError> {
    let mut request = body::parse(target, "TokenRequest")?;
    let account = target.live()?;
    let dry = WriteOptions::parse(target.query(), "CreateOptions")?.dry_run;
    admission::ask(&asked(target, dry), &mut request, &Value::Null).await?;
    let core = target.core;
    let seconds_wanted = request["spec"]["expirationSeconds"].as_i64().unwrap_or(TOKEN_SECONDS);
    if seconds_wanted < TOKEN_SECONDS_MIN {
        let error = apimachinery::FieldError::invalid(
            "spec.expirationSeconds",
            &json!(seconds_wanted),
            "may not specify a duration less than 10 minutes",
        );
        let about = crate::status::About { group: "authentication.k8s.io", what: "TokenRequest", name: "" };
        return Err(ApiError::invalid(about, &[error]));
    }
    let audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let audiences = if audiences.is_empty() { vec![AUDIENCE.to_owned()] } else { audiences };
    let bound = bound_object(target, &request["spec"]["boundObjectRef"])?;
    let now = core.clock.now();
    let expires = now.saturating_add(SignedDuration::from_secs(seconds_wanted)).unwrap_or(now);
    let claims = Claims {
        namespace: target.path.namespace.clone(),
        account: target.path.name.clone(),
        account_uid: metadata_text(&account.value, "uid").to_owned(),
        bound,
        audiences: audiences.clone(),
        issued: now.as_second(),
        expires: expires.as_second(),
        id: core.uid(),
    };
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"] = json!({
        "name": target.path.name, "namespace": target.path.namespace, "creationTimestamp": core.now_text(),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds_wanted);
    request["status"] = json!({"token": core.tokens.sign(&claims), "expirationTimestamp": seconds(expires)});
    Ok(Reply::json(201, &request))
}

/// The object a token is tied to must exist, with the stated uid.
fn bound_object(target: &Target<'_>, reference: &Value) -> Result<Option<(String, String, String)>, ApiError> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    if name.is_empty() {
        return Ok(None);
    }
    let plural = match kind.as_str() {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        other => return Err(ApiError::bad_request(format!("cannot bind token to object of type {other}"))),
    };
    let namespace = if plural == "nodes" { "" } else { target.path.namespace.as_str() };
    let about = crate::status::About { group: "", what: plural, name: &name };
    let found = target.core.store.get(&resource_key("", plural), &Name::new(namespace, &name));
    let found = found.ok_or_else(|| ApiError::not_found(about))?;
    let own = metadata_text(&found.value, "uid");
    if !uid.is_empty() && uid != own {
        let why = format!("the UID in the bound object reference ({uid}) does not match the UID in record ({own})");
        return Err(ApiError::conflict(about, &why));
    }
    let uid = own.to_owned();
    Ok(Some((kind.to_lowercase(), name, uid)))
}
