//! Bad requests: each is refused with the right status, reason, cause and field, and leaves no trace in the store.

use std::collections::BTreeSet;

use kube::Client;
use nanokube::UserInfo;
use serde_json::{Value, json};

use crate::server;

const REQUIRED: &str = "FieldValueRequired";
const INVALID: &str = "FieldValueInvalid";
const UNSUPPORTED: &str = "FieldValueNotSupported";
const FORBIDDEN: &str = "FieldValueForbidden";
const DUPLICATE: &str = "FieldValueDuplicate";
const NOT_FOUND: &str = "FieldValueNotFound";
const TOO_LONG: &str = "FieldValueTooLong";

fn template(restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i:1"}]},
    })
}

/// A good object of each kind: where it is posted, and what.
fn good(kind: &str) -> (&'static str, Value) {
    let (api_version, proper, path, rest) = match kind {
        "configmap" => ("v1", "ConfigMap", "/api/v1/namespaces/default/configmaps", json!({"data": {"a": "1"}})),
        "secret" => {
            ("v1", "Secret", "/api/v1/namespaces/default/secrets", json!({"type": "Opaque", "data": {"a": "MQ=="}}))
        }
        "pod" => (
            "v1",
            "Pod",
            "/api/v1/namespaces/default/pods",
            json!({"spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "image": "i:1", "ports": [{"name": "web", "containerPort": 80}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            }}),
        ),
        "service" => (
            "v1",
            "Service",
            "/api/v1/namespaces/default/services",
            json!({"spec": {"selector": {"a": "b"}, "ports": [{"name": "a", "port": 80}]}}),
        ),
        "claim" => (
            "v1",
            "PersistentVolumeClaim",
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        "deployment" => (
            "apps/v1",
            "Deployment",
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template("Always")}}),
        ),
        "daemonset" => (
            "apps/v1",
            "DaemonSet",
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template("Always")}}),
        ),
        "job" => (
            "batch/v1",
            "Job",
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"spec": {"template": template("Never")}}),
        ),
        "budget" => (
            "policy/v1",
            "PodDisruptionBudget",
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}),
        ),
        "role" => (
            "rbac.authorization.k8s.io/v1",
            "Role",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        "rolebinding" => (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "default"}]}),
        ),
        "webhook" => (
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            json!({"webhooks": [{
                "name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "s", "namespace": "default"}},
                "rules": [{"apiGroups": ["never.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["things"]}],
            }]}),
        ),
        "apiservice" => (
            "apiregistration.k8s.io/v1",
            "APIService",
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({"spec": {"group": "sub.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"name": "s", "namespace": "default"}}}),
        ),
        "lease" => (
            "coordination.k8s.io/v1",
            "Lease",
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"spec": {"leaseDurationSeconds": 10}}),
        ),
        "storageclass" => (
            "storage.k8s.io/v1",
            "StorageClass",
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"provisioner": "example.com/p"}),
        ),
        "priorityclass" => {
            ("scheduling.k8s.io/v1", "PriorityClass", "/apis/scheduling.k8s.io/v1/priorityclasses", json!({"value": 5}))
        }
        "definition" => (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer", "minimum": 1, "maximum": 9},
                    "mode": {"type": "string", "enum": ["A", "B"]},
                    "code": {"type": "string", "pattern": "^[a-z]+$"},
                    "short": {"type": "string", "maxLength": 3},
                    "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
                    "flag": {"type": "boolean"},
                }}}}}}]}}),
        ),
        "thing" => {
            ("example.com/v1", "Thing", "/apis/example.com/v1/namespaces/default/things", json!({"spec": {"size": 1}}))
        }
        other => panic!("no good {other}"),
    };
    let name = match kind {
        "definition" => "things.example.com",
        "apiservice" => "v1.sub.example.com",
        _ => "live",
    };
    let mut object = json!({"apiVersion": api_version, "kind": proper, "metadata": {"name": name}});
    for (key, value) in rest.as_object().expect("fields") {
        object[key] = value.clone();
    }
    (path, object)
}

enum Way {
    /// A new object, good but for what is set.
    Create,
    /// A merge patch of the good object that is there.
    Change,
}

/// Way, kind, where the mistake is (a JSON pointer), the mistake, and what must be said: cause and field.
type Case = (Way, &'static str, &'static str, Value, &'static str, &'static str);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Way::{Change, Create};
    vec![
        // metadata
        (Create, "configmap", "/metadata/name", json!("Bad_Name"), INVALID, "metadata.name"),
        (Create, "configmap", "/metadata/name", json!(""), REQUIRED, "metadata.name"),
        (Create, "configmap", "/metadata/labels", json!({"bad key!": "v"}), INVALID, "metadata.labels"),
        (Create, "configmap", "/metadata/annotations", json!({"bad key!": "v"}), INVALID, "metadata.annotations"),
        (Create, "configmap", "/metadata/annotations", json!({"big": "x".repeat(300_000)}), TOO_LONG, "metadata.annotations"),
        (Create, "configmap", "/metadata/finalizers", json!(["nodomain"]), INVALID, "metadata.finalizers[0]"),
        (Create, "configmap", "/metadata/ownerReferences", json!([{"apiVersion": "v1", "kind": "A", "name": "a", "uid": ""}]), INVALID, "metadata.ownerReferences[0].uid"),
        // pods
        (Create, "pod", "/spec/containers", json!([]), REQUIRED, "spec.containers"),
        (Create, "pod", "/spec/containers/0/name", json!(""), REQUIRED, "spec.containers[0].name"),
        (Create, "pod", "/spec/containers/0/name", json!("Bad_"), INVALID, "spec.containers[0].name"),
        (Create, "pod", "/spec/containers", json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]), DUPLICATE, "spec.containers[1].name"),
        (Create, "pod", "/spec/containers/0/image", json!(""), REQUIRED, "spec.containers[0].image"),
        (Create, "pod", "/spec/containers/0/image", json!(" i "), INVALID, "spec.containers[0].image"),
        (Create, "pod", "/spec/containers/0/imagePullPolicy", json!("Perhaps"), UNSUPPORTED, "spec.containers[0].imagePullPolicy"),
        (Create, "pod", "/spec/containers/0/ports", json!([{"containerPort": 70000}]), INVALID, "spec.containers[0].ports[0].containerPort"),
        (Create, "pod", "/spec/containers/0/ports", json!([{"containerPort": 80, "protocol": "X"}]), UNSUPPORTED, "spec.containers[0].ports[0].protocol"),
        (Create, "pod", "/spec/containers/0/ports", json!([{"name": "a", "containerPort": 80}, {"name": "a", "containerPort": 81}]), DUPLICATE, "spec.containers[0].ports[1].name"),
        (Create, "pod", "/spec/containers/0/env", json!([{"name": "", "value": "x"}]), REQUIRED, "spec.containers[0].env[0].name"),
        (Create, "pod", "/spec/containers/0/volumeMounts/0/name", json!("other"), NOT_FOUND, "spec.containers[0].volumeMounts[0].name"),
        (Create, "pod", "/spec/containers/0/volumeMounts/0/mountPath", json!(""), REQUIRED, "spec.containers[0].volumeMounts[0].mountPath"),
        (Create, "pod", "/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]), INVALID, "spec.containers[0].volumeMounts[1].mountPath"),
        (Create, "pod", "/spec/containers/0/readinessProbe", json!({"periodSeconds": 5}), REQUIRED, "spec.containers[0].readinessProbe"),
        (Create, "pod", "/spec/containers/0/resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}), INVALID, "spec.containers[0].resources.requests"),
        (Create, "pod", "/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}]), FORBIDDEN, "spec.ephemeralContainers"),
        (Create, "pod", "/spec/volumes/0", json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}), FORBIDDEN, "spec.volumes[0].hostPath"),
        (Create, "pod", "/spec/restartPolicy", json!("Sometimes"), UNSUPPORTED, "spec.restartPolicy"),
        (Create, "pod", "/spec/dnsPolicy", json!("Guess"), UNSUPPORTED, "spec.dnsPolicy"),
        (Create, "pod", "/spec/activeDeadlineSeconds", json!(0), INVALID, "spec.activeDeadlineSeconds"),
        (Create, "pod", "/spec/nodeSelector", json!({"bad key!": "x"}), INVALID, "spec.nodeSelector"),
        (Create, "pod", "/spec/hostname", json!("Bad_"), INVALID, "spec.hostname"),
        (Create, "pod", "/spec/tolerations", json!([{"key": "a", "operator": "Like"}]), UNSUPPORTED, "spec.tolerations[0].operator"),
        (Create, "pod", "/spec/tolerations", json!([{"key": "a", "operator": "Exists", "effect": "Hurts"}]), UNSUPPORTED, "spec.tolerations[0].effect"),
        (Create, "pod", "/spec/topologySpreadConstraints", json!([{"maxSkew": 0, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]), INVALID, "spec.topologySpreadConstraints[0].maxSkew"),
        (Change, "pod", "/spec/restartPolicy", json!("Never"), FORBIDDEN, "spec"),
        // workloads
        (Create, "deployment", "/spec/replicas", json!(-1), INVALID, "spec.replicas"),
        (Create, "deployment", "/spec/selector", Value::Null, REQUIRED, "spec.selector"),
        (Create, "deployment", "/spec/template/metadata/labels", json!({"app": "b"}), INVALID, "spec.template.metadata.labels"),
        (Create, "deployment", "/spec/minReadySeconds", json!(601), INVALID, "spec.progressDeadlineSeconds"),
        (Create, "deployment", "/spec/template/spec/restartPolicy", json!("Never"), UNSUPPORTED, "spec.template.spec.restartPolicy"),
        (Create, "deployment", "/spec/strategy", json!({"type": "Hope"}), UNSUPPORTED, "spec.strategy"),
        (Change, "deployment", "/spec/selector", json!({"matchLabels": {"app": "b"}}), INVALID, "spec.selector"),
        (Create, "daemonset", "/spec/updateStrategy", json!({"type": "Hope"}), UNSUPPORTED, "spec.updateStrategy"),
        (Create, "job", "/spec/backoffLimit", json!(-1), INVALID, "spec.backoffLimit"),
        (Create, "budget", "/spec/maxUnavailable", json!(1), INVALID, "spec"),
        (Create, "budget", "/spec/minAvailable", json!("120%"), INVALID, "spec.minAvailable"),
        // services, data, storage
        (Create, "service", "/spec/ports", json!([]), REQUIRED, "spec.ports"),
        (Create, "service", "/spec/ports/0/port", json!(0), INVALID, "spec.ports[0].port"),
        (Create, "service", "/spec/ports", json!([{"port": 1}, {"port": 2}]), REQUIRED, "spec.ports[0].name"),
        (Create, "service", "/spec/type", json!("Magic"), UNSUPPORTED, "spec.type"),
        (Create, "service", "/spec/sessionAffinity", json!("Love"), UNSUPPORTED, "spec.sessionAffinity"),
        (Create, "configmap", "/data", json!({"bad key": "1"}), INVALID, "data[bad key]"),
        (Change, "secret", "/type", json!("example.com/other"), INVALID, "type"),
        (Create, "claim", "/spec/accessModes", json!([]), REQUIRED, "spec.accessModes"),
        (Create, "claim", "/spec/resources", json!({}), REQUIRED, "spec.resources[storage]"),
        (Create, "storageclass", "/provisioner", json!(""), REQUIRED, "provisioner"),
        (Change, "storageclass", "/provisioner", json!("example.com/q"), FORBIDDEN, "provisioner"),
        (Create, "priorityclass", "/value", json!(2_000_000_000), FORBIDDEN, "value"),
        (Create, "priorityclass", "/preemptionPolicy", json!("Ask"), UNSUPPORTED, "preemptionPolicy"),
        (Create, "lease", "/spec/leaseDurationSeconds", json!(0), INVALID, "spec.leaseDurationSeconds"),
        // access
        (Create, "role", "/rules/0/verbs", json!([]), REQUIRED, "rules[0].verbs"),
        (Create, "role", "/rules/0/resources", json!([]), REQUIRED, "rules[0].resources"),
        (Create, "rolebinding", "/roleRef/kind", json!("Group"), UNSUPPORTED, "roleRef.kind"),
        (Create, "rolebinding", "/subjects/0/kind", json!("Robot"), UNSUPPORTED, "subjects[0].kind"),
        (Change, "rolebinding", "/roleRef/name", json!("other"), INVALID, "roleRef"),
        // the API's own extension points
        (Create, "webhook", "/webhooks/0/name", json!("short"), INVALID, "webhooks[0].name"),
        (Create, "webhook", "/webhooks/0/sideEffects", json!("Many"), UNSUPPORTED, "webhooks[0].sideEffects"),
        (Create, "webhook", "/webhooks/0/timeoutSeconds", json!(31), INVALID, "webhooks[0].timeoutSeconds"),
        (Create, "webhook", "/webhooks/0/clientConfig", json!({}), REQUIRED, "webhooks[0].clientConfig"),
        (Create, "apiservice", "/spec/groupPriorityMinimum", json!(0), INVALID, "spec.groupPriorityMinimum"),
        (Create, "apiservice", "/spec/versionPriority", json!(2000), INVALID, "spec.versionPriority"),
        // objects of a definition
        (Create, "thing", "/spec", json!({}), REQUIRED, "spec.size"),
        (Create, "thing", "/spec/size", json!(0), INVALID, "spec.size"),
        (Create, "thing", "/spec/mode", json!("C"), UNSUPPORTED, "spec.mode"),
        (Create, "thing", "/spec/code", json!("A1"), INVALID, "spec.code"),
        (Create, "thing", "/spec/short", json!("four"), TOO_LONG, "spec.short"),
        (Create, "thing", "/spec/list", json!(["a", "b"]), "FieldValueTooMany", "spec.list"),
        (Create, "thing", "/spec/flag", json!("yes"), "FieldValueTypeInvalid", "spec.flag"),
    ]
}

/// Puts `value` at a JSON pointer; the last step may be new.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    match object.pointer_mut(parent).expect("the parent is there") {
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        parent => parent[last] = value,
    }
}

/// Only `pointer` with `value`, for a merge patch.
fn nested(pointer: &str, value: Value) -> Value {
    pointer.rsplit('/').filter(|part| !part.is_empty()).fold(value, |inner, part| json!({part: inner}))
}

async fn send(client: &Client, method: &str, path: &str, content: &str, body: &Value) -> Result<Value, kube::Error> {
    let request = http::Request::builder().method(method).uri(path).header("content-type", content);
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_with_their_field_and_change_nothing() {
    let server = server();
    let client = server.client(UserInfo::admin());
    crate::default_account(&client).await;
    let cases = cases();
    let mut kinds: Vec<&str> = cases.iter().map(|case| case.1).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in std::iter::once("definition").chain(kinds) {
        let (path, object) = good(kind);
        send(&client, "POST", path, "application/json", &object)
            .await
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    for (way, kind, pointer, mistake, cause, field) in cases {
        assert!(seen.insert((field, cause)), "two cases with {cause} at {field}");
        let before = (server.revision(), server.objects());
        let (path, mut object) = good(kind);
        let answer = match way {
            Way::Create => {
                if kind != "apiservice" {
                    object["metadata"]["name"] = json!("other");
                }
                set(&mut object, pointer, mistake);
                send(&client, "POST", path, "application/json", &object).await
            }
            Way::Change => {
                let name = object["metadata"]["name"].as_str().unwrap();
                let (path, body) = (format!("{path}/{name}"), nested(pointer, mistake));
                send(&client, "PATCH", &path, "application/merge-patch+json", &body).await
            }
        };
        let said = match answer {
            Err(kube::Error::Api(status)) => status,
            other => {
                wrong.push(format!("{kind} {pointer}: expected a refusal, got {other:?}"));
                continue;
            }
        };
        let causes = said.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
        let named = causes.iter().any(|said| said.reason == cause && said.field == field);
        if (said.code, said.reason.as_str()) != (422, "Invalid") || !named {
            let causes: Vec<String> = causes.iter().map(|cause| format!("{} {}", cause.reason, cause.field)).collect();
            wrong.push(format!(
                "{kind} {pointer}: expected {cause} {field}, got {} {} {causes:?}: {}",
                said.code,
                said.reason,
                said.message.chars().take(160).collect::<String>()
            ));
        }
        if (server.revision(), server.objects()) != before {
            wrong.push(format!("{kind} {pointer}: the store changed"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
