//! Webhooks: which are asked, in which order, and what becomes of what they say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Full;
use serde_json::{Value, json};

use super::Asked;
use super::matching::Criteria;
use super::review::{self, Answer};
use crate::backend::{self, CallError, Place, Trust};
use crate::registry::{Resource, resource_key};
use crate::schemas;
use crate::status::ApiError;
use crate::store::Stored;

/// A webhook that says nothing about time.
const DEFAULT_TIMEOUT: u64 = 10;

/// A webhook with the configuration it stands in.
#[derive(Clone)]
struct Hook {
    configuration: Arc<Stored>,
    index: usize,
}

impl Hook {
    fn value(&self) -> &Value {
        &self.configuration.value["webhooks"][self.index]
    }

    fn name(&self) -> &str {
        self.value()["name"].as_str().unwrap_or_default()
    }

    fn ignores_failures(&self) -> bool {
        self.value()["failurePolicy"] == "Ignore"
    }

    fn seconds(&self) -> u64 {
        self.value()["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// Configurations by name, in each the webhooks as they stand there.
fn hooks(asked: &Asked<'_>, plural: &str) -> Vec<Hook> {
    let key = resource_key("admissionregistration.k8s.io", plural);
    let configurations = asked.target.core.store.list_kept(&key);
    let hooks = configurations.into_iter().flat_map(|configuration| {
        let count = configuration.value["webhooks"].as_array().map_or(0, Vec::len);
        (0..count).map(move |index| Hook { configuration: configuration.clone(), index })
    });
    hooks.collect()
}

pub(super) async fn mutate(asked: &Asked<'_>, object: &mut Value, old: &Value) -> Result<(), ApiError> {
    let hooks = hooks(asked, "mutatingwebhookconfigurations");
    let mut asked_already = Vec::new();
    let mut again = BTreeSet::new();
    for (position, hook) in hooks.iter().enumerate() {
        let Some(changed) = change(asked, hook, object, old).await? else { continue };
        if changed {
            again.extend(asked_already.iter().copied());
        }
        if hook.value()["reinvocationPolicy"] == "IfNeeded" {
            asked_already.push(position);
        }
    }
    // Those who saw the object before somebody else changed it see it once more, and only once.
    for position in again {
        change(asked, &hooks[position], object, old).await?;
    }
    Ok(())
}

/// Asks one webhook; whether it changed the object, nothing when it is not concerned.
async fn change(asked: &Asked<'_>, hook: &Hook, object: &mut Value, old: &Value) -> Result<Option<bool>, ApiError> {
    let Some(meant) = concerned(asked, hook, object, old)? else { return Ok(None) };
    let Some(answer) = call(asked, hook, &meant, object, old).await? else { return Ok(Some(false)) };
    if let Some(refusal) = answer.refusal {
        return Err(refusal);
    }
    if answer.patch.as_array().is_none_or(Vec::is_empty) || object.is_null() {
        return Ok(Some(false));
    }
    let mut new = review::patched(&spelled(object, &meant, asked), &answer.patch)
        .map_err(|error| ApiError::internal(&format!("the patch of webhook \"{}\" failed: {error}", hook.name())))?;
    let resource = &asked.target.resource;
    if object["kind"] == resource.kind.as_str() {
        new["apiVersion"] = object["apiVersion"].clone();
        schemas::prune(resource, &mut new);
        schemas::default(resource, &mut new);
    }
    let changed = new != *object;
    *object = new;
    Ok(Some(changed))
}

pub(super) async fn validate(asked: &Asked<'_>, object: &Value, old: &Value) -> Result<(), ApiError> {
    let hooks = hooks(asked, "validatingwebhookconfigurations");
    let mut calls = Vec::new();
    for hook in &hooks {
        if let Some(meant) = concerned(asked, hook, object, old)? {
            calls.push(async move { call(asked, hook, &meant, object, old).await });
        }
    }
    // All are asked at once; of several refusals the client sees the first in order.
    for answer in join_all(calls).await {
        if let Some(refusal) = answer?.and_then(|answer| answer.refusal) {
            return Err(refusal);
        }
    }
    Ok(())
}

/// The version in which a webhook is to be asked, if at all.
fn concerned(asked: &Asked<'_>, hook: &Hook, object: &Value, old: &Value) -> Result<Option<Arc<Resource>>, ApiError> {
    let table = asked.target.core.registry.table();
    let namespace_object = asked.namespace_object();
    let subject = asked.subject(object, old, &namespace_object.value);
    let Some(meant) = Criteria::of_webhook(hook.value()).meant(&subject, &table) else { return Ok(None) };
    let meant = asked.shared(meant, &table);
    let conditions = &hook.value()["matchConditions"];
    if conditions.as_array().is_none_or(Vec::is_empty) {
        return Ok(Some(meant));
    }
    let bindings = asked.bindings(&meant, &spelled(object, &meant, asked), &spelled(old, &meant, asked));
    match asked.conditions_hold(conditions, &bindings) {
        Ok(true) => Ok(Some(meant)),
        Ok(false) => Ok(None),
        Err(_) if hook.ignores_failures() => Ok(None),
        Err(error) => Err(ApiError::forbidden(asked.target.about(asked.name), &error)),
    }
}

/// The object in the version a webhook wants; versions of a resource differ in nothing else here.
fn spelled(object: &Value, meant: &Resource, asked: &Asked<'_>) -> Value {
    let mut object = object.clone();
    if object["apiVersion"] == asked.target.resource.api_version().as_str() {
        object["apiVersion"] = json!(meant.api_version());
    }
    object
}

/// Asks; nothing when there was no answer and the webhook does not insist on one.
async fn call(
    asked: &Asked<'_>,
    hook: &Hook,
    meant: &Resource,
    object: &Value,
    old: &Value,
) -> Result<Option<Answer>, ApiError> {
    let name = hook.name();
    let side_effects = hook.value()["sideEffects"].as_str().unwrap_or_default();
    if asked.dry_run && !matches!(side_effects, "None" | "NoneOnDryRun") {
        return Err(ApiError::bad_request(format!("admission webhook \"{name}\" does not support dry run")));
    }
    let core = asked.target.core;
    let uid = core.call_id();
    let (object, old) = (spelled(object, meant, asked), spelled(old, meant, asked));
    let answered = match review::version(&hook.value()["admissionReviewVersions"]) {
        None => Err("webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned()),
        Some(version) => {
            let question = review::question(&version, asked.describe(meant, &uid), &object, &old);
            post(asked, hook, &question).await.map_err(|error| format!("failed to call webhook: {error}")).and_then(
                |body| {
                    review::answer(name, &version, &uid, &body)
                        .map_err(|error| format!("received invalid webhook response: {error}"))
                },
            )
        }
    };
    let notes = &asked.target.context.notes;
    match answered {
        Ok(answer) => {
            for warning in &answer.warnings {
                notes.warn(warning);
            }
            for (key, value) in &answer.annotations {
                notes.annotate(key.clone(), value.clone());
            }
            Ok(Some(answer))
        }
        Err(error) if hook.ignores_failures() => {
            tracing::warn!(webhook = name, error, "a webhook failed and is ignored");
            Ok(None)
        }
        Err(error) => Err(ApiError::internal(&format!("failed calling webhook \"{name}\": {error}"))),
    }
}

/// Sends the question; the answer's body.
async fn post(asked: &Asked<'_>, hook: &Hook, question: &Value) -> Result<Bytes, String> {
    let client = &hook.value()["clientConfig"];
    let seconds = hook.seconds();
    let (place, path) = place(client).map_err(|error| error.to_string())?;
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}timeout={seconds}s");
    let request = http::Request::post(&path)
        .header(http::header::HOST, place.authority())
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json, */*")
        .header(http::header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|error| error.to_string())?;
    let trust = Trust::bundle(&client["caBundle"]);
    let within = Duration::from_secs(seconds);
    let answer = backend::exchange(asked.target.core, &place, &trust, request, within).await;
    let (code, body) = answer.map_err(|error| format!("Post \"https://{}{path}\": {error}", place.authority()))?;
    match code {
        200..=299 => Ok(body),
        404 => Err("the server could not find the requested resource".to_owned()),
        _ => {
            let text: String = String::from_utf8_lossy(&body).trim().chars().take(1024).collect();
            Err(format!("an error on the server ({text:?}) has prevented the request from succeeding"))
        }
    }
}

/// Where a webhook is, and the path there.
fn place(client: &Value) -> Result<(Place, String), CallError> {
    let with_slash = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    match client["url"].as_str() {
        Some(url) => {
            let parsed: http::Uri = url.parse().map_err(|_| CallError::Url(url.to_owned()))?;
            let path = parsed.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            Ok((Place::url(&parsed)?, path.to_owned()))
        }
        None => {
            let service = &client["service"];
            Ok((Place::service(service), with_slash(service["path"].as_str().unwrap_or_default())))
        }
    }
}
