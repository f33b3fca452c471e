//! Access and token reviews: answered from the rules in force, never stored.

use serde_json::{Value, json};

use crate::authn;
use crate::authz::Attributes;
use crate::identity::UserInfo;
use crate::reply::Reply;
use crate::request::WriteOptions;
use crate::status::ApiError;
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
            let local = target.resource.namespaced;
            if local && review["spec"]["resourceAttributes"]["namespace"] != json!(target.path.namespace) {
                let text = "spec.resourceAttributes.namespace must match the namespace of the request";
                return Err(ApiError::bad_request(text));
            }
            let asked = reviewed_user(&review["spec"]);
            if asked.name.is_empty() && asked.groups.is_empty() {
                let error = apimachinery::FieldError::invalid(
                    "spec.user",
                    &json!(""),
                    "at least one of user or group must be specified",
                );
                return Err(ApiError::invalid(target.about_kind(""), &[error]));
            }
            review["status"] = access(target, &asked, &review["spec"]);
        }
        "selfsubjectaccessreviews" => review["status"] = access(target, user, &review["spec"]),
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
