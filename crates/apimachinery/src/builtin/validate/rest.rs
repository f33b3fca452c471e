//! Rules of the kinds that make no pods.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use super::{Unique, immutable, list, one_of, port, port_or_name, text};
use crate::field::{self, FieldError};
use crate::names;

pub(super) fn service(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    if ports.is_empty() && kind != "ExternalName" && text(spec, "clusterIP") != "None" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" && text(spec, "externalName").is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    let (mut by_name, mut by_port) = (Unique::new(), Unique::new());
    for (i, p) in ports.iter().enumerate() {
        let at = |name: &str| field::child(&field::index("spec.ports", i), name);
        if text(p, "name").is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(at("name"), ""));
            }
        } else {
            let why = names::dns_label(text(p, "name"));
            errors.extend(why.iter().map(|why| FieldError::invalid(at("name"), &p["name"], why)));
            by_name.check(&at("name"), &p["name"], errors);
        }
        port(&at("port"), &p["port"], errors);
        one_of(&at("protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], errors);
        if kind != "ExternalName" {
            port_or_name(&at("targetPort"), &p["targetPort"], errors);
        }
        let path = field::index("spec.ports", i);
        by_port.check(&path, &json!({"port": p["port"], "protocol": p["protocol"]}), errors);
    }
    errors.extend(names::labels("spec.selector", &spec["selector"]));
    one_of("spec.sessionAffinity", &spec["sessionAffinity"], &["ClientIP", "None"], errors);
    one_of("spec.type", &spec["type"], &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    one_of("spec.internalTrafficPolicy", &spec["internalTrafficPolicy"], &["Cluster", "Local"], errors);
}

/// The most an object of data may hold: what fits into one request to etcd.
const DATA_MAX_BYTES: usize = 1024 * 1024;

pub(super) fn data(kind: &str, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for map in ["data", "binaryData"] {
        for (name, v) in new[map].as_object().into_iter().flatten() {
            let fits = !name.is_empty()
                && name.len() <= names::SUBDOMAIN_MAX
                && !matches!(name.as_str(), "." | "..")
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !fits {
                let why = "a key must be letters, digits, '-', '_' and '.', at most 253 of them";
                errors.push(FieldError::invalid(field::key(map, name), &json!(name), why));
            }
            if map == "binaryData" && !new["data"][name].is_null() {
                errors.push(FieldError::invalid(
                    field::key(map, name),
                    &json!(name),
                    "duplicate of key present in data",
                ));
            }
            bytes += v.as_str().map_or(0, str::len);
        }
    }
    if bytes > DATA_MAX_BYTES {
        errors.push(FieldError::too_long("", DATA_MAX_BYTES));
    }
    if kind == "Secret" {
        let wanted: &[&str] = match text(new, "type") {
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            _ => &[],
        };
        for name in wanted.iter().filter(|n| new["data"][**n].is_null()) {
            errors.push(FieldError::required(field::key("data", name), ""));
        }
    }
    let registry = &new["data"][".dockerconfigjson"];
    if kind == "Secret" && text(new, "type") == "kubernetes.io/dockerconfigjson" && !registry.is_null() {
        let decoded = registry.as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        if serde_json::from_slice::<Value>(&decoded).is_err() {
            let hidden = json!("<secret contents redacted>");
            errors.push(FieldError::invalid(field::key("data", ".dockerconfigjson"), &hidden, "is no JSON"));
        }
    }
    let Some(old) = old else { return };
    if kind == "Secret" {
        immutable("type", &new["type"], &old["type"], errors);
    }
    if old["immutable"] == true {
        if new["immutable"] != true {
            errors.push(FieldError::forbidden("immutable", "the object is marked immutable"));
        }
        for map in ["data", "binaryData"] {
            if new[map] != old[map] {
                errors.push(FieldError::forbidden(map, "the object is marked immutable"));
            }
        }
    }
}

pub(super) fn role(kind: &str, new: &Value, errors: &mut Vec<FieldError>) {
    for (i, r) in list(new, "rules").iter().enumerate() {
        let at = |name: &str| field::child(&field::index("rules", i), name);
        if list(r, "verbs").is_empty() {
            errors.push(FieldError::required(at("verbs"), "a rule allows at least one verb"));
        }
        if !list(r, "nonResourceURLs").is_empty() {
            if kind == "Role" {
                let why = "a rule of a namespace cannot be about URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), &r["nonResourceURLs"], why));
            }
            if !list(r, "apiGroups").is_empty() || !list(r, "resources").is_empty() {
                let why = "a rule is about resources or about URLs, not both";
                errors.push(FieldError::invalid(at("nonResourceURLs"), &r["nonResourceURLs"], why));
            }
            continue;
        }
        if list(r, "apiGroups").is_empty() {
            errors.push(FieldError::required(at("apiGroups"), "a rule about resources names at least one API group"));
        }
        if list(r, "resources").is_empty() {
            errors.push(FieldError::required(at("resources"), "a rule about resources names at least one resource"));
        }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn binding(kind: &str, new: &Value, errors: &mut Vec<FieldError>) {
    let role = &new["roleRef"];
    if text(role, "apiGroup") != RBAC {
        errors.push(FieldError::not_supported("roleRef.apiGroup", &role["apiGroup"], &[json!(RBAC)]));
    }
    let allowed: &[&str] = if kind == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind_given = if role["kind"].is_null() { json!("") } else { role["kind"].clone() };
    one_of("roleRef.kind", &kind_given, allowed, errors);
    if text(role, "name").is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for (i, s) in list(new, "subjects").iter().enumerate() {
        let at = |name: &str| field::child(&field::index("subjects", i), name);
        if text(s, "name").is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let group = match text(s, "kind") {
            "ServiceAccount" => {
                if text(s, "namespace").is_empty() && kind == "ClusterRoleBinding" {
                    errors.push(FieldError::required(at("namespace"), ""));
                }
                ""
            }
            "User" | "Group" => RBAC,
            _ => {
                one_of(&at("kind"), &s["kind"], &["ServiceAccount", "User", "Group"], errors);
                continue;
            }
        };
        if text(s, "apiGroup") != group {
            errors.push(FieldError::not_supported(at("apiGroup"), &s["apiGroup"], &[json!(group)]));
        }
    }
}

pub(super) fn webhooks(new: &Value, errors: &mut Vec<FieldError>) {
    let mut unique = Unique::new();
    for (i, w) in list(new, "webhooks").iter().enumerate() {
        let at = |name: &str| field::child(&field::index("webhooks", i), name);
        let name = text(w, "name");
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        } else {
            // A name of at least three parts cannot be taken for one of Kubernetes' own.
            const PARTS_MIN: usize = 3;
            errors
                .extend(names::dns_subdomain(name).iter().map(|why| FieldError::invalid(at("name"), &w["name"], why)));
            if name.split('.').count() < PARTS_MIN {
                let why = "must have at least three parts separated by dots";
                errors.push(FieldError::invalid(at("name"), &w["name"], why));
            }
            unique.check(&at("name"), &w["name"], errors);
        }
        one_of(&at("failurePolicy"), &w["failurePolicy"], &["Fail", "Ignore"], errors);
        one_of(&at("matchPolicy"), &w["matchPolicy"], &["Equivalent", "Exact"], errors);
        if w["sideEffects"].is_null() {
            let why = "must specify one of None, NoneOnDryRun";
            errors.push(FieldError::required(at("sideEffects"), why));
        } else {
            one_of(&at("sideEffects"), &w["sideEffects"], &["None", "NoneOnDryRun"], errors);
        }
        if !w["timeoutSeconds"].as_i64().is_some_and(|n| (1..=30).contains(&n)) {
            let why = "must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(at("timeoutSeconds"), &w["timeoutSeconds"], why));
        }
        let versions = list(w, "admissionReviewVersions");
        if versions.is_empty() {
            let why = "must specify one of v1, v1beta1";
            errors.push(FieldError::required(at("admissionReviewVersions"), why));
        } else if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
            let why = "must include at least one of v1, v1beta1";
            errors.push(FieldError::invalid(at("admissionReviewVersions"), &w["admissionReviewVersions"], why));
        }
        let client = &w["clientConfig"];
        if client["url"].is_null() == client["service"].is_null() {
            errors.push(FieldError::required(at("clientConfig"), "exactly one of url or service is required"));
        }
        if let Some(url) = client["url"].as_str().filter(|u| !u.starts_with("https://")) {
            let path = field::child(&at("clientConfig"), "url");
            errors.push(FieldError::invalid(path, &json!(url), "must start with https://"));
        }
        if !client["service"].is_null() {
            service_reference(&field::child(&at("clientConfig"), "service"), &client["service"], errors);
        }
        for (j, rule) in list(w, "rules").iter().enumerate() {
            for name in ["operations", "apiGroups", "apiVersions", "resources"] {
                if list(rule, name).is_empty() {
                    let path = field::child(&field::index(&at("rules"), j), name);
                    errors.push(FieldError::required(path, ""));
                }
            }
        }
    }
}

fn service_reference(path: &str, service: &Value, errors: &mut Vec<FieldError>) {
    for name in ["namespace", "name"] {
        if text(service, name).is_empty() {
            errors.push(FieldError::required(field::child(path, name), ""));
        }
    }
    if !service["port"].is_null() {
        port(&field::child(path, "port"), &service["port"], errors);
    }
}

pub(super) fn api_service(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    let wanted = format!("{}.{}", text(spec, "version"), text(spec, "group"));
    if text(&new["metadata"], "name") != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", &new["metadata"]["name"], &why));
    }
    for (name, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        if !spec[name].as_i64().is_some_and(|n| (1..=most).contains(&n)) {
            let why = format!("must be positive and at most {most}");
            errors.push(FieldError::invalid(field::child("spec", name), &spec[name], &why));
        }
    }
    if !spec["service"].is_null() {
        service_reference("spec.service", &spec["service"], errors);
    }
    if spec["insecureSkipTLSVerify"] == true && !text(spec, "caBundle").is_empty() {
        let why = "may not be true if caBundle is present";
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", &json!(true), why));
    }
}

/// The highest value a user's priority class may have; what is above belongs to the system.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn priority_class(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let system = text(&new["metadata"], "name").starts_with("system-");
    if !system && new["value"].as_i64().is_some_and(|n| n > USER_PRIORITY_MAX) {
        let why = format!("priorities above {USER_PRIORITY_MAX} belong to the system");
        errors.push(FieldError::forbidden("value", &why));
    }
    one_of("preemptionPolicy", &new["preemptionPolicy"], &["PreemptLowerPriority", "Never"], errors);
    if let Some(old) = old {
        for name in ["value", "preemptionPolicy"] {
            immutable(name, &new[name], &old[name], errors);
        }
    }
}

pub(super) fn storage_class(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if text(new, "provisioner").is_empty() {
        errors.push(FieldError::required("provisioner", ""));
    }
    if let Some(old) = old {
        for name in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
            if new[name] != old[name] {
                errors.push(FieldError::forbidden(name, "field is immutable"));
            }
        }
    }
}

pub(super) fn claim(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    if list(spec, "accessModes").is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        errors.push(FieldError::required("spec.resources[storage]", ""));
    }
    if let Some(old) = old {
        let rest = |spec: &Value| {
            let mut spec = spec.clone();
            if let Some(map) = spec.as_object_mut() {
                map.remove("resources");
                // Bound by the controller, once.
                map.remove("volumeName");
                map.remove("volumeAttributesClassName");
            }
            spec
        };
        if rest(spec) != rest(&old["spec"]) {
            let why = "of a claim that exists only resources.requests and volumeAttributesClassName may change";
            errors.push(FieldError::forbidden("spec", why));
        }
    }
}

pub(super) fn lease(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
        let why = "must be greater than 0";
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], why));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|n| n < 0) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.leaseTransitions", &spec["leaseTransitions"], why));
    }
}
