//! Access and token reviews: answered from the rules in force, never stored.

use apimachinery::FieldError;
use serde_json::{Value, json};

use crate::authn;
use crate::authz::Attributes;
use crate::identity::UserInfo;
use crate::reply::Reply;
use crate::request::WriteOptions;
use crate::status::{About, ApiError};
use crate::verbs::{Target, parse_body, record_owner};

pub(crate) fn create(target: &Target<'_>) -> Result<Reply, ApiError> {
    let mut review = parse_body(target, &target.resource.kind)?;
    review["kind"] = json!(target.resource.kind);
    review["apiVersion"] = json!(target.resource.api_version());
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    let user = &target.context.user;
    if !matches!(target.resource.plural.as_str(), "selfsubjectrulesreviews" | "selfsubjectreviews") {
        let options = WriteOptions::parse(target.query(), "CreateOptions")?;
        record_owner(target, &options, &mut review)?;
    }
    match target.resource.plural.as_str() {
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let namespace = review["metadata"]["namespace"].as_str().unwrap_or_default();
            if target.resource.namespaced && namespace != target.path.namespace {
                let text = format!("spec.resourceAttributes.namespace must match namespace: {}", target.path.namespace);
                return Err(ApiError::bad_request(text));
            }
            check_asked(target, &review)?;
            review["status"] = access(target, &reviewed_user(&review["spec"]), &review["spec"]);
        }
        "selfsubjectaccessreviews" => {
            check_asked(target, &review)?;
            review["status"] = access(target, user, &review["spec"]);
        }
        "selfsubjectrulesreviews" => {
            let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            review["spec"] = json!({});
            review["status"] = target.core.authz.rules(target.core, user, &namespace);
        }
        "selfsubjectreviews" => review["status"] = json!({"userInfo": user.to_value()}),
        "tokenreviews" => {
            let token = review["spec"]["token"].as_str().unwrap_or_default();
            if token.is_empty() {
                return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
            }
            let audiences: Vec<String> = review["spec"]["audiences"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            review["status"] = match authn::token_user(target.core, token, &audiences) {
                Ok((user, audiences)) => {
                    json!({"authenticated": true, "user": user.to_value(), "audiences": audiences})
                }
                Err(error) => json!({"user": {}, "error": error}),
            };
        }
        _ => return Err(ApiError::no_resource()),
    }
    Ok(Reply::json(201, &review))
}

/// Whether a value is as good as none: some clients write every field.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// What is wrong with an access review, all of it.
fn check_asked(target: &Target<'_>, review: &Value) -> Result<(), ApiError> {
    let (spec, metadata) = (&review["spec"], &review["metadata"]);
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let local = target.resource.namespaced;
    let mut errors = Vec::new();
    if resource.is_object() && other.is_object() {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", other, why));
    }
    if !resource.is_object() && !other.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec.resourceAttributes", other, why));
    }
    if target.resource.plural != "selfsubjectaccessreviews" {
        let user = reviewed_user(spec);
        if user.name.is_empty() && user.groups.is_empty() {
            let why = "at least one of user or group must be specified";
            errors.push(FieldError::invalid("spec.user", &json!(""), why));
        }
    }
    let own = ["managedFields", "namespace", "creationTimestamp"];
    let said = metadata.as_object().into_iter().flatten().any(|(key, v)| !own.contains(&key.as_str()) && !is_zero(v));
    if said {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", metadata, why));
    }
    if local && resource.is_object() && resource["namespace"].as_str().unwrap_or_default() != target.path.namespace {
        let field = "spec.resourceAttributes.namespace";
        errors.push(FieldError::invalid(field, &resource["namespace"], "must match metadata.namespace"));
    }
    if local && other.is_object() {
        errors.push(FieldError::invalid("spec.nonResourceAttributes", other, "disallowed on this kind of request"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    // The kind is lost on the way to whoever checks: clients see none.
    Err(ApiError::invalid(About { group: &target.resource.group, what: "", name: "" }, &errors))
}

fn reviewed_user(spec: &Value) -> UserInfo {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    UserInfo {
        name: text(&spec["user"]).unwrap_or_default(),
        groups: spec["groups"].as_array().into_iter().flatten().filter_map(text).collect(),
        ..UserInfo::default()
    }
}

fn access(target: &Target<'_>, user: &UserInfo, spec: &Value) -> Value {
    let resource = &spec["resourceAttributes"];
    let field = |value: &'_ Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = ["verb", "group", "resource", "subresource", "namespace", "name"]
        .iter()
        .map(|name| field(resource, name))
        .collect();
    let qualified = if names[3].is_empty() { names[2].clone() } else { format!("{}/{}", names[2], names[3]) };
    let (path, verb) = (field(&spec["nonResourceAttributes"], "path"), field(&spec["nonResourceAttributes"], "verb"));
    let asked = if path.is_empty() {
        Attributes {
            verb: &names[0],
            group: &names[1],
            resource: &qualified,
            namespace: &names[4],
            name: &names[5],
            path: "",
        }
    } else {
        Attributes { verb: &verb, path: &path, ..Attributes::default() }
    };
    match target.core.authz.allows(target.core, user, &asked) {
        Ok(reason) if reason.is_empty() => json!({"allowed": true}),
        Ok(reason) => json!({"allowed": true, "reason": reason}),
        Err(()) => json!({"allowed": false}),
    }
}
