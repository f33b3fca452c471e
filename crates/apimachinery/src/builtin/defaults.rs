//! Defaults of built-in kinds. Plain ones are in the tables; here are those that depend on other fields.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::normal;

/// Brings an object of a built-in kind into stored form and fills in its defaults: empty optional fields go, quantities
/// become canonical, always-present objects appear. Other kinds are left alone.
pub fn default(api_version: &str, kind: &str, object: &mut Value) {
    let Some(schema) = super::schema(api_version, kind) else { return };
    normal::stored_form(schema, object);
    schema.default(object);
    match kind {
        "Pod" => {
            let spec = object.pointer_mut("/spec");
            pod_spec(spec);
            pod_only(object.pointer_mut("/spec"));
            set(object.pointer_mut("/status"), "phase", || json!("Pending"));
        }
        "PodTemplate" => pod_spec(object.pointer_mut("/template/spec")),
        "Deployment" => {
            pod_spec(object.pointer_mut("/spec/template/spec"));
            if let Some(rolling) = rolling(object.pointer_mut("/spec/strategy")) {
                set(Some(rolling), "maxUnavailable", || json!("25%"));
                set(Some(rolling), "maxSurge", || json!("25%"));
            }
        }
        "DaemonSet" => {
            pod_spec(object.pointer_mut("/spec/template/spec"));
            if let Some(rolling) = rolling(object.pointer_mut("/spec/updateStrategy")) {
                set(Some(rolling), "maxUnavailable", || json!(1));
                set(Some(rolling), "maxSurge", || json!(0));
            }
            // Counts templates; the server counts on when a template changes.
            let annotations = object_at(object.pointer_mut("/metadata"), "annotations");
            set(annotations, "deprecated.daemonset.template.generation", || json!("1"));
        }
        "ReplicaSet" => pod_spec(object.pointer_mut("/spec/template/spec")),
        "ReplicationController" => template_labels(object),
        "StatefulSet" => {
            pod_spec(object.pointer_mut("/spec/template/spec"));
            set(rolling(object.pointer_mut("/spec/updateStrategy")), "partition", || json!(0));
            let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
            for claim in claims.into_iter().flatten() {
                set(Some(claim), "apiVersion", || json!("v1"));
                set(Some(claim), "kind", || json!("PersistentVolumeClaim"));
                requests_from_limits(claim.pointer_mut("/spec/resources"));
                set(object_at(Some(claim), "status"), "phase", || json!("Pending"));
            }
        }
        "Job" => job(object),
        "CronJob" => pod_spec(object.pointer_mut("/spec/jobTemplate/spec/template/spec")),
        "Service" => service(object.pointer_mut("/spec")),
        "Namespace" => {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !name.is_empty()
                && let Some(labels) = object_at(object.pointer_mut("/metadata"), "labels")
            {
                labels["kubernetes.io/metadata.name"] = json!(name);
            }
        }
        "Secret" => secret(object),
        "RoleBinding" | "ClusterRoleBinding" => {
            set(object.pointer_mut("/roleRef"), "apiGroup", || json!(RBAC));
            for s in items(object, "subjects") {
                if matches!(s["kind"].as_str(), Some("User" | "Group")) {
                    set(Some(s), "apiGroup", || json!(RBAC));
                }
            }
        }
        "CustomResourceDefinition" => {
            let names = object.pointer_mut("/spec/names");
            let kind = names.as_ref().and_then(|n| n["kind"].as_str()).unwrap_or_default().to_owned();
            if !kind.is_empty()
                && let Some(names) = names
            {
                set(Some(names), "listKind", || json!(format!("{kind}List")));
                set(Some(names), "singular", || json!(kind.to_lowercase()));
            }
        }
        "HorizontalPodAutoscaler" if api_version == "autoscaling/v2" => {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
            set(object.pointer_mut("/spec"), "metrics", || json!([metric]));
            behavior(object.pointer_mut("/spec/behavior"));
        }
        "NetworkPolicy" => {
            let outward = object.pointer("/spec/egress").is_some();
            let types = if outward { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            set(object.pointer_mut("/spec"), "policyTypes", || types);
        }
        "LimitRange" => limits(object.pointer_mut("/spec")),
        "PersistentVolumeClaim" => {
            requests_from_limits(object.pointer_mut("/spec/resources"));
            claim_source(object.pointer_mut("/spec"));
        }
        "EndpointSlice" => {
            for port in items(object, "ports") {
                set(Some(port), "name", || json!(""));
            }
        }
        _ => {}
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills in a field of an object that is there.
fn set(object: Option<&mut Value>, name: &str, value: impl FnOnce() -> Value) {
    if let Some(Value::Object(map)) = object
        && !map.contains_key(name)
    {
        map.insert(name.to_owned(), value());
    }
}

/// The object in a field, made when absent.
fn object_at<'a>(object: Option<&'a mut Value>, name: &str) -> Option<&'a mut Value> {
    let Some(Value::Object(map)) = object else { return None };
    let found = map.entry(name).or_insert(Value::Null);
    if !found.is_object() {
        *found = Value::Object(Map::new());
    }
    Some(found)
}

/// The items of a list in a field.
fn items<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The parameters of a rolling update, when the strategy is one.
fn rolling(strategy: Option<&mut Value>) -> Option<&mut Value> {
    let strategy = strategy.filter(|s| s["type"] == "RollingUpdate");
    object_at(strategy, "rollingUpdate")
}

/// Defaults of the specification of a pod, in a pod or in a template.
fn pod_spec(spec: Option<&mut Value>) {
    let Some(spec) = spec else { return };
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for c in items(spec, list) {
            let policy = pull_policy(c["image"].as_str().unwrap_or_default());
            set(Some(c), "imagePullPolicy", || json!(policy));
        }
    }
    for volume in items(spec, "volumes") {
        let image = volume["image"]["reference"].as_str().map(pull_policy);
        if let Some(policy) = image {
            set(volume.get_mut("image"), "pullPolicy", || json!(policy));
        }
        // A volume of no kind is an empty directory.
        if volume.as_object().is_some_and(|map| map.keys().all(|name| name == "name")) {
            set(Some(volume), "emptyDir", || json!({}));
        }
    }
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(Some(spec), "serviceAccount", || account);
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        set(Some(spec), "serviceAccountName", || account);
    }
}

/// Defaults that pods have and templates have not.
fn pod_only(spec: Option<&mut Value>) {
    let Some(spec) = spec else { return };
    set(Some(spec), "enableServiceLinks", || json!(true));
    let shares_host = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for p in items(spec, list).flat_map(|c| items(c, "ports")).filter(|_| shares_host) {
            let port = p["containerPort"].clone();
            set(Some(p), "hostPort", || port);
        }
    }
    for list in ["initContainers", "containers"] {
        for c in items(spec, list) {
            requests_from_limits(c.get_mut("resources"));
        }
    }
}

/// An image that moves is pulled every time.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.split_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    }
}

/// Who limits a resource and asks for none of it asks for the limit.
fn requests_from_limits(resources: Option<&mut Value>) {
    let Some(resources) = resources else { return };
    let Some(limits) = resources["limits"].as_object().cloned() else { return };
    let mut requests = object_at(Some(resources), "requests");
    for (name, v) in limits {
        set(requests.as_deref_mut(), &name, || v);
    }
}

/// Of a container's limits: who has a maximum has it by default, and who has a default asks for it by default.
fn limits(spec: Option<&mut Value>) {
    let Some(spec) = spec else { return };
    for limit in items(spec, "limits").filter(|limit| limit["type"] == "Container") {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(given) = limit[from].as_object().cloned() else { continue };
            let mut target = object_at(Some(&mut *limit), to);
            for (name, amount) in given {
                set(target.as_deref_mut(), &name, || amount);
            }
        }
    }
}

/// A replication controller without labels or selector takes those of its template.
fn template_labels(object: &mut Value) {
    pod_spec(object.pointer_mut("/spec/template/spec"));
    let Some(labels) = object.pointer("/spec/template/metadata/labels").cloned() else { return };
    set(object.pointer_mut("/metadata"), "labels", || labels.clone());
    set(object.pointer_mut("/spec"), "selector", || labels);
}

/// A job, but not what a cron job makes jobs of.
fn job(object: &mut Value) {
    if let Some(labels) = object.pointer("/spec/template/metadata/labels").cloned() {
        set(object.pointer_mut("/metadata"), "labels", || labels);
    }
    let Some(spec) = object.pointer_mut("/spec") else { return };
    pod_spec(spec.pointer_mut("/template/spec"));
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set(Some(spec), "completions", || json!(1));
    }
    // Who counts failures per index does not count them together.
    let failures = if spec.get("backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
    let policy = spec.get_mut("podFailurePolicy");
    let replacement = if policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    for rule in policy.into_iter().flat_map(|policy| items(policy, "rules")) {
        for condition in items(rule, "onPodConditions") {
            if condition["status"] == "" {
                condition["status"] = json!("True");
            }
            set(Some(condition), "status", || json!("True"));
        }
    }
    for (name, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(failures)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
    ] {
        set(Some(spec), name, || value);
    }
}

/// How an autoscaler moves that says something about it: up fast, down to what is needed, in steps of a quarter of a
/// minute.
fn behavior(behavior: Option<&mut Value>) {
    /// Autoscalers look at their metrics once in this time.
    const STEP_SECONDS: i64 = 15;
    let Some(behavior) = behavior else { return };
    let share = json!({"type": "Percent", "value": 100, "periodSeconds": STEP_SECONDS});
    let count = json!({"type": "Pods", "value": 4, "periodSeconds": STEP_SECONDS});
    for (direction, policies) in [("scaleUp", json!([count, share])), ("scaleDown", json!([share]))] {
        let mut rules = object_at(Some(&mut *behavior), direction);
        if direction == "scaleUp" {
            set(rules.as_deref_mut(), "stabilizationWindowSeconds", || json!(0));
        }
        set(rules.as_deref_mut(), "selectPolicy", || json!("Max"));
        set(rules, "policies", || policies);
    }
}

/// A claim says twice what it is filled from: the newer field can name anything, the older one not.
fn claim_source(spec: Option<&mut Value>) {
    let Some(spec) = spec else { return };
    if let Some(source) = spec.get("dataSource").cloned() {
        set(Some(spec), "dataSourceRef", || source);
    }
}

fn service(spec: Option<&mut Value>) {
    let Some(spec) = spec else { return };
    for p in items(spec, "ports") {
        if p["targetPort"].is_null() || p["targetPort"] == 0 || p["targetPort"] == "" {
            p["targetPort"] = p["port"].clone();
        }
    }
    if spec["type"] == "ExternalName"
        && let Some(map) = spec.as_object_mut()
    {
        map.remove("internalTrafficPolicy");
    }
    if spec["sessionAffinity"] == "ClientIP" {
        // Three hours.
        set(Some(spec), "sessionAffinityConfig", || json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    let addressed = spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty());
    if matches!(spec["type"].as_str(), Some("LoadBalancer" | "NodePort")) || (addressed && spec["type"] == "ClusterIP")
    {
        set(Some(spec), "externalTrafficPolicy", || json!("Cluster"));
    }
    if spec["type"] == "LoadBalancer" {
        set(Some(spec), "allocateLoadBalancerNodePorts", || json!(true));
    }
}

/// `stringData` is for writing only: its texts become `data`.
fn secret(object: &mut Value) {
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|o| o.remove("stringData")) else { return };
    let Some(data) = object_at(Some(object), "data") else { return };
    for (name, v) in texts {
        if let Some(text) = v.as_str() {
            data[name] = json!(BASE64.encode(text));
        }
    }
}
