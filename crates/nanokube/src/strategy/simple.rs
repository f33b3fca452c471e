//! Kinds that need little.

use apimachinery::FieldError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::status::ApiError;
use crate::verbs::{Target, metadata_text};

/// An entry of a map that may be missing.
fn entry<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut at = object;
    for part in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*part];
    }
    if !at.is_object() {
        *at = json!({});
    }
    at.as_object_mut().expect("made above")
}

pub(super) fn namespace(object: &mut Value) {
    let name = metadata_text(object, "name").to_owned();
    entry(object, &["metadata", "labels"]).insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    let spec = entry(object, &["spec"]);
    if spec.get("finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
    }
    object["status"] = json!({"phase": "Active"});
}

/// `stringData` is written into `data` and not kept.
pub(super) fn secret(object: &mut Value) {
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    let data = entry(object, &["data"]);
    for (key, text) in texts {
        data.insert(key, json!(STANDARD.encode(text.as_str().unwrap_or_default())));
    }
}

pub(super) fn daemonset(object: &mut Value) {
    let annotations = entry(object, &["metadata", "annotations"]);
    annotations.insert("deprecated.daemonset.template.generation".to_owned(), json!("1"));
}

/// The old counter of template changes goes on being kept.
pub(super) fn daemonset_template(old: &Value, new: &mut Value) {
    const COUNTER: &str = "deprecated.daemonset.template.generation";
    let before =
        old["metadata"]["annotations"][COUNTER].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let changed = old["spec"]["template"] != new["spec"]["template"];
    let now = if changed { before + 1 } else { before };
    if now > 0 {
        entry(new, &["metadata", "annotations"]).insert(COUNTER.to_owned(), json!(now.to_string()));
    }
}

pub(super) fn budget(object: &mut Value) {
    object["status"] = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
}

/// A job's pods are found by the job's uid unless the user brings a selector and says so. What the user says besides
/// stays, for the rules of jobs to find wrong.
pub(super) fn job(object: &mut Value) {
    let uid = metadata_text(object, "uid").to_owned();
    let name = metadata_text(object, "name").to_owned();
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let labels = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    let template = entry(object, &["spec", "template", "metadata", "labels"]);
    for (key, value) in labels {
        template.entry(key).or_insert_with(|| json!(value));
    }
    // A job without labels has those of its template, as with any default.
    if object["metadata"]["labels"].as_object().is_none_or(Map::is_empty) {
        let all = object["spec"]["template"]["metadata"]["labels"].clone();
        object["metadata"]["labels"] = all;
    }
    let selector = entry(object, &["spec", "selector", "matchLabels"]);
    selector.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| json!(uid));
}

/// Selector and generated labels of a job do not change.
pub(super) fn job_update(old: &Value, new: &mut Value) {
    if new["spec"]["selector"].is_null() {
        new["spec"]["selector"] = old["spec"]["selector"].clone();
    }
}

/// A binding that could change its role would let the holder of one binding grant another role.
pub(super) fn check_role_ref(target: &Target<'_>, old: &Value, new: &Value) -> Result<(), ApiError> {
    let bindings = ["rolebindings", "clusterrolebindings"].contains(&target.resource.plural.as_str());
    if target.resource.group != "rbac.authorization.k8s.io" || !bindings || old["roleRef"] == new["roleRef"] {
        return Ok(());
    }
    let text = |field: &str| new["roleRef"][field].as_str().unwrap_or_default().to_owned();
    let shown = json!({"APIGroup": text("apiGroup"), "Kind": text("kind"), "Name": text("name")});
    let error = FieldError::invalid("roleRef", &shown, "cannot change roleRef");
    Err(ApiError::invalid(target.about_kind(metadata_text(new, "name")), &[error]))
}
