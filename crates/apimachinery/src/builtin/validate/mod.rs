//! The rules of built-in kinds that clients meet: required fields, names, what may not change, what must fit together.
//! Custom resource definitions are judged by whoever serves them; reviews are questions and have no rules.

mod access;
mod at;
mod containers;
mod data;
mod extension;
mod jobs;
mod network;
mod pod_changes;
mod pods;
mod resources;
mod scaling;
mod schedule;
mod selectors;
mod services;
mod storage;
mod volumes;
mod workloads;

use serde_json::Value;

use crate::field::{self, Cause, FieldError};
use crate::names::{self, NameRule};
use crate::schema::Schema;
use at::At;

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
    if kind == "CustomResourceDefinition" {
        return errors;
    }
    let ruled = rules(api_version, kind, new, old, &mut errors);
    if has_name(kind) {
        rest_of_schema(schema, new, ruled, &mut errors);
    }
    errors
}

/// Everything wrong with a change of a part that has an endpoint of its own (`status`, `ephemeralcontainers`): what the
/// rest of the object holds was judged when it was written.
pub fn validate_part(kind: &str, part: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = names::metadata(new, name_rule(kind));
    errors.extend(names::metadata_update(new, old));
    match (kind, part) {
        (_, "status") => workloads::status(kind, new, &mut errors),
        ("Pod", "ephemeralcontainers") => {
            pods::pod(new, &mut errors);
            pod_changes::ephemeral(new, old, &mut errors);
        }
        _ => {}
    }
    errors
}

/// The rules of a kind; false for a kind that has none of its own.
fn rules(api_version: &str, kind: &str, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) -> bool {
    match kind {
        "Pod" => {
            pods::pod(new, errors);
            match old {
                Some(old) => pod_changes::pod(new, old, errors),
                None => pods::created(new, errors),
            }
        }
        "PodTemplate" => pods::template(&At::root(new).get("template"), errors),
        "Deployment" => workloads::deployment(new, old, errors),
        "DaemonSet" => workloads::daemon_set(new, old, errors),
        "ReplicaSet" => workloads::replica_set(new, old, errors),
        "StatefulSet" => workloads::stateful_set(new, old, errors),
        "ReplicationController" => workloads::replication_controller(new, errors),
        "Job" => jobs::job(new, old, errors),
        "CronJob" => jobs::cron_job(new, old, errors),
        "PodDisruptionBudget" => scaling::budget(new, errors),
        "HorizontalPodAutoscaler" => scaling::autoscaler(new, errors),
        "PriorityClass" => scaling::priority_class(new, old, errors),
        "RuntimeClass" => scaling::runtime_class(new, old, errors),
        "Service" => services::service(new, old, errors),
        "Endpoints" => services::endpoints(new, errors),
        "EndpointSlice" => services::slice(new, old, errors),
        "Ingress" => network::ingress(new, old, errors),
        "IngressClass" => network::ingress_class(new, old, errors),
        "NetworkPolicy" => network::policy(new, errors),
        "ConfigMap" => data::config_map(new, old, errors),
        "Secret" => data::secret(new, old, errors),
        "Lease" => data::lease(new, errors),
        "Event" => data::event(api_version, new, old, errors),
        "Role" | "ClusterRole" => access::role(kind, new, errors),
        "RoleBinding" | "ClusterRoleBinding" => access::binding(kind, new, errors),
        "PersistentVolumeClaim" => storage::claim(new, old, errors),
        "PersistentVolume" => storage::volume(new, old, errors),
        "StorageClass" => storage::class(new, old, errors),
        "CSIDriver" => storage::driver(new, old, errors),
        "ResourceQuota" => storage::quota(new, old, errors),
        "LimitRange" => storage::limit_range(new, errors),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => extension::webhooks(kind, new, errors),
        "ValidatingAdmissionPolicy" => extension::validating_policy(new, errors),
        "MutatingAdmissionPolicy" => extension::mutating_policy(new, errors),
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            extension::policy_binding(kind, new, errors);
        }
        "APIService" => extension::api_service(new, errors),
        _ => return false,
    }
    true
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
fn rest_of_schema(schema: &Schema, new: &Value, ruled: bool, errors: &mut Vec<FieldError>) {
    let mut found = schema.validate(new);
    // A kind with rules of its own says itself which of its lists and objects must be there.
    found.retain(|e| !ruled || e.cause != Cause::Required);
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

#[cfg(test)]
mod tests;
