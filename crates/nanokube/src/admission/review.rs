//! `AdmissionReview` from the asking side: the document that is sent, and what an answer means. Pure.

use std::collections::BTreeMap;

use apimachinery::patch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::status::ApiError;

/// Versions this server speaks, as `admissionReviewVersions` name them.
const SPOKEN: [&str; 2] = ["v1", "v1beta1"];

/// What a webhook answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// A JSON patch; `null` for none.
    pub patch: Value,
    /// The refusal, ready for the client.
    pub refusal: Option<ApiError>,
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// The `apiVersion` of the review: the first the webhook lists that is spoken here.
pub(super) fn version(listed: &Value) -> Option<String> {
    let listed = listed.as_array().into_iter().flatten().filter_map(Value::as_str);
    listed.into_iter().find(|version| SPOKEN.contains(version)).map(|version| format!("admission.k8s.io/{version}"))
}

/// The document that is sent.
pub(super) fn question(version: &str, mut request: Value, object: &Value, old: &Value) -> Value {
    request["object"] = object.clone();
    request["oldObject"] = old.clone();
    json!({"kind": "AdmissionReview", "apiVersion": version, "request": request})
}

/// Reads an answer.
///
/// # Errors
/// Why it is none.
pub(super) fn answer(hook: &str, version: &str, uid: &str, body: &[u8]) -> Result<Answer, String> {
    let review: Value = serde_json::from_slice(body).map_err(|error| format!("couldn't decode the answer: {error}"))?;
    let found = (review["kind"].as_str().unwrap_or_default(), review["apiVersion"].as_str().unwrap_or_default());
    if found != ("AdmissionReview", version) {
        return Err(format!(
            "expected webhook response of {version}, Kind=AdmissionReview, got {}, Kind={}",
            found.1, found.0
        ));
    }
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let answered = response["uid"].as_str().unwrap_or_default();
    // The older version did not have to repeat it.
    if answered != uid && version == "admission.k8s.io/v1" {
        return Err(format!("expected response.uid={uid:?}, got {answered:?}"));
    }
    let texts = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    let mut answer = Answer {
        patch: Value::Null,
        refusal: None,
        warnings: texts(&response["warnings"]),
        annotations: annotations
            .filter_map(|(key, value)| Some((format!("{hook}/{key}"), value.as_str()?.to_owned())))
            .collect(),
    };
    if response["allowed"] != true {
        answer.refusal = Some(refusal(hook, &response["status"]));
        return Ok(answer);
    }
    if let Some(encoded) = response["patch"].as_str().filter(|patch| !patch.is_empty()) {
        match response["patchType"].as_str() {
            Some("JSONPatch") => {}
            Some(other) => return Err(format!("invalid webhook response.patchType: {other:?}")),
            None => return Err("webhook returned response.patch but not response.patchType".to_owned()),
        }
        let decoded = STANDARD.decode(encoded).map_err(|error| format!("response.patch is not base64: {error}"))?;
        answer.patch =
            serde_json::from_slice(&decoded).map_err(|error| format!("response.patch is not JSON: {error}"))?;
    }
    Ok(answer)
}

/// The status of a refusal, with the webhook's name in front of its message.
fn refusal(hook: &str, status: &Value) -> ApiError {
    let mut whole = if status.is_object() { status.clone() } else { json!({}) };
    let code = whole["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let code = code.unwrap_or(400);
    let denied = format!("admission webhook \"{hook}\" denied the request");
    let text = |field: &str| whole[field].as_str().filter(|text| !text.is_empty());
    let message = match text("message").or(text("reason")) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    };
    let reason = whole["reason"].as_str().unwrap_or_default().to_owned();
    whole["kind"] = json!("Status");
    whole["apiVersion"] = json!("v1");
    if !whole["metadata"].is_object() {
        whole["metadata"] = json!({});
    }
    whole["status"] = json!("Failure");
    whole["message"] = json!(message);
    whole["code"] = json!(code);
    ApiError::verbatim(code, &reason, whole)
}

/// The object with an answer's patch applied.
///
/// # Errors
/// The patch does not fit.
pub(super) fn patched(object: &Value, patch: &Value) -> Result<Value, String> {
    patch::json(object, patch).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
