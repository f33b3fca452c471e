//! The rules of built-in kinds that clients meet: required fields, names, what may not change, what must fit together.
//! Custom resource definitions are judged by whoever serves them; reviews are questions and have no rules.

mod network;
mod pods;
mod rest;
mod workloads;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{self, Cause, FieldError};
use crate::names::{self, NameRule};
use crate::schema::Schema;

/// Everything wrong with an object of a built-in kind, new (`old` absent) or changed. The object is in stored form, as
/// [`super::default`] leaves it. A kind that is not built in has no rules here.
pub fn validate(api_version: &str, kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(schema) = super::schema(api_version, kind) else { return Vec::new() };
    let mut errors = Vec::new();
    if has_name(kind) {
        errors.extend(names::metadata(new, name_rule(kind)));
    }
    if let Some(old) = old {
        errors.extend(names::metadata_update(new, old));
    }
    match kind {
        "Pod" => pods::pod(new, old, &mut errors),
        "PodTemplate" => pods::template("template", &new["template"], &mut errors),
        "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet" => workloads::workload(kind, new, old, &mut errors),
        "Job" => workloads::job("spec", &new["spec"], old.map(|o| &o["spec"]), &mut errors),
        "CronJob" => workloads::cron_job(new, &mut errors),
        "PodDisruptionBudget" => workloads::budget(new, &mut errors),
        "Service" => rest::service(new, &mut errors),
        "Secret" | "ConfigMap" => rest::data(kind, new, old, &mut errors),
        "Role" | "ClusterRole" => rest::role(kind, new, &mut errors),
        "RoleBinding" | "ClusterRoleBinding" => rest::binding(kind, new, &mut errors),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => rest::webhooks(new, &mut errors),
        "APIService" => rest::api_service(new, &mut errors),
        "PriorityClass" => rest::priority_class(new, old, &mut errors),
        "StorageClass" => rest::storage_class(new, old, &mut errors),
        "PersistentVolumeClaim" => rest::claim(new, old, &mut errors),
        "Lease" => rest::lease(new, &mut errors),
        "HorizontalPodAutoscaler" => network::autoscaler(new, &mut errors),
        "Ingress" => network::ingress(new, &mut errors),
        "NetworkPolicy" => network::policy(new, &mut errors),
        "EndpointSlice" => network::slice(new, old, &mut errors),
        "PersistentVolume" => network::volume(new, &mut errors),
        "RuntimeClass" => network::runtime_class(new, old, &mut errors),
        "ReplicationController" => network::replication(new, &mut errors),
        "CustomResourceDefinition" => return errors,
        _ => {}
    }
    if has_name(kind) {
        rest_of_schema(schema, new, &mut errors);
    }
    errors
}

/// Reviews are questions, not objects.
fn has_name(kind: &str) -> bool {
    !kind.ends_with("Review") && !matches!(kind, "TokenRequest" | "Scale" | "Binding" | "Eviction")
}

/// How objects of a kind are named.
fn name_rule(kind: &str) -> NameRule {
    match kind {
        "Namespace" => NameRule::Label,
        "Service" => NameRule::LetterLabel,
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" => NameRule::PathSegment,
        // `v1.` is the core group's; an address may be of IPv6; the others are named by people.
        "APIService" | "IPAddress" | "CertificateSigningRequest" | "FlowSchema" | "PriorityLevelConfiguration" => {
            NameRule::PathSegment
        }
        _ => NameRule::Subdomain,
    }
}

/// Fields the type requires, and amounts that are none, where nobody complained yet. The status is the server's
/// business.
fn rest_of_schema(schema: &Schema, new: &Value, errors: &mut Vec<FieldError>) {
    let mut found = schema.validate(new);
    empty_texts(schema, "", new, &mut found);
    for e in found {
        let known = ["status", "metadata"].iter().any(|p| e.field.starts_with(p))
            || errors.iter().any(|o| e.field.starts_with(&o.field));
        if matches!(e.cause, Cause::Required | Cause::Invalid) && !known {
            errors.push(e);
        }
    }
}

/// A required text that is empty is missing. Values (of headers, of kernel parameters) may be empty.
fn empty_texts(schema: &Schema, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, v) in map {
                let path = field::child(path, name);
                if v == "" && name != "value" && schema.required.contains(name) {
                    errors.push(FieldError::required(path, ""));
                } else if let Some((s, _)) = schema.field(name) {
                    empty_texts(s, &path, v, errors);
                }
            }
        }
        Value::Array(list) => {
            for (i, v) in list.iter().enumerate() {
                empty_texts(schema.item(), &field::index(path, i), v, errors);
            }
        }
        _ => {}
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text that must be one of a few.
fn one_of(path: &str, value: &Value, allowed: &[&str], errors: &mut Vec<FieldError>) {
    if value.as_str().is_none_or(|v| !allowed.contains(&v)) && !value.is_null() {
        let allowed: Vec<Value> = allowed.iter().map(|a| json!(a)).collect();
        errors.push(FieldError::not_supported(path, value, &allowed));
    }
}

fn not_negative(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
    }
}

fn port(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if !value.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        errors.push(FieldError::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

/// A port by number or by name.
fn port_or_name(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    match value.as_str() {
        Some(name) => errors.extend(names::port_name(name).iter().map(|why| FieldError::invalid(path, value, why))),
        None => port(path, value, errors),
    }
}

/// Says when the same name comes again.
struct Unique(BTreeSet<String>);

impl Unique {
    fn new() -> Self {
        Self(BTreeSet::new())
    }

    fn check(&mut self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        if !self.0.insert(value.to_string()) {
            errors.push(FieldError::duplicate(path, value));
        }
    }
}

/// A name every item of a list must have.
fn item_name(path: &str, item: &Value, unique: &mut Unique, errors: &mut Vec<FieldError>) {
    let path = field::child(path, "name");
    let name = text(item, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    errors.extend(names::dns_label(name).iter().map(|why| FieldError::invalid(&path, &item["name"], why)));
    unique.check(&path, &item["name"], errors);
}

fn immutable(path: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if new != old {
        errors.push(FieldError::invalid(path, new, "field is immutable"));
    }
}

#[cfg(test)]
mod tests;
