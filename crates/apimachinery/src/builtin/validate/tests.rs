use serde_json::{Value, json};

use super::*;

/// An object with defaults filled in, as the server validates it.
fn judged(api_version: &str, kind: &str, mut new: Value, old: Option<Value>) -> Vec<(String, &'static str)> {
    new["apiVersion"] = json!(api_version);
    new["kind"] = json!(kind);
    super::super::default(api_version, kind, &mut new);
    let old = old.map(|mut old| {
        super::super::default(api_version, kind, &mut old);
        old
    });
    let mut found: Vec<_> =
        validate(api_version, kind, &new, old.as_ref()).into_iter().map(|e| (e.field, e.cause.as_str())).collect();
    found.dedup();
    found
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

fn changed(mut object: Value, patch: Value) -> Value {
    json_patch::merge(&mut object, &patch);
    object
}

/// Each case: a change that spoils a good object, the field that must be named, and the cause.
fn each(api_version: &str, kind: &str, good: &Value, cases: &[(Value, &str, &str)]) {
    assert_eq!(judged(api_version, kind, good.clone(), None), [], "{kind}");
    assert_eq!(judged(api_version, kind, good.clone(), Some(good.clone())), [], "{kind}");
    for (patch, field, cause) in cases {
        let found = judged(api_version, kind, changed(good.clone(), patch.clone()), None);
        assert!(
            found.iter().any(|(f, c)| f == field && c == &format!("FieldValue{cause}")),
            "{kind} {patch}: {found:?}"
        );
    }
}

#[test]
fn pods() {
    let container =
        |patch: Value| json!({"spec": {"containers": [changed(json!({"name": "c", "image": "i"}), patch)]}});
    let c = |name: &str| format!("spec.containers[0].{name}");
    let good = changed(
        json!({"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        container(json!({
            "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "A", "value": "1"}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "readinessProbe": {"httpGet": {"port": "http"}}, "resources": {"limits": {"cpu": "1"},
                "requests": {"cpu": "500m"}},
        })),
    );
    let cases = [
        (json!({"metadata": {"name": null}}), "metadata.name".to_owned(), "Required"),
        (json!({"metadata": {"labels": {"a b": ""}}}), "metadata.labels".into(), "Invalid"),
        (json!({"spec": {"containers": []}}), "spec.containers".into(), "Required"),
        (json!({"spec": {"restartPolicy": "Sometimes"}}), "spec.restartPolicy".into(), "NotSupported"),
        (json!({"spec": {"dnsPolicy": "x"}}), "spec.dnsPolicy".into(), "NotSupported"),
        (json!({"spec": {"nodeSelector": {"a": "b c"}}}), "spec.nodeSelector".into(), "Invalid"),
        (json!({"spec": {"serviceAccountName": "A"}}), "spec.serviceAccountName".into(), "Invalid"),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}}),
            "spec.volumes[0].hostPath".into(),
            "Forbidden",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}}),
            "spec.volumes[1].name".into(),
            "Duplicate",
        ),
        (
            json!({"spec": {"tolerations": [{"operator": "Equal", "value": "x"}]}}),
            "spec.tolerations[0].operator".into(),
            "Invalid",
        ),
        (
            json!({"spec": {"tolerations": [{"key": "x", "effect": "Never"}]}}),
            "spec.tolerations[0].effect".into(),
            "NotSupported",
        ),
        (container(json!({"image": null})), c("image"), "Required"),
        (container(json!({"name": null})), c("name"), "Required"),
        (container(json!({"name": "C"})), c("name"), "Invalid"),
        (container(json!({"imagePullPolicy": "Now"})), c("imagePullPolicy"), "NotSupported"),
        (container(json!({"ports": [{"containerPort": 0}]})), c("ports[0].containerPort"), "Required"),
        (container(json!({"ports": [{"containerPort": 70000}]})), c("ports[0].containerPort"), "Invalid"),
        (container(json!({"ports": [{"containerPort": 1, "protocol": "IP"}]})), c("ports[0].protocol"), "NotSupported"),
        (container(json!({"env": [{"value": "1"}]})), c("env[0].name"), "Required"),
        (container(json!({"env": [{"name": "A", "valueFrom": {}}]})), c("env[0].valueFrom"), "Invalid"),
        (container(json!({"volumeMounts": [{"name": "w", "mountPath": "/"}]})), c("volumeMounts[0].name"), "NotFound"),
        (container(json!({"volumeMounts": [{"name": "v"}]})), c("volumeMounts[0].mountPath"), "Required"),
        (container(json!({"livenessProbe": {}})), c("livenessProbe"), "Required"),
        (container(json!({"livenessProbe": {"tcpSocket": {"port": 0}}})), c("livenessProbe.tcpSocket.port"), "Invalid"),
        (
            container(json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
            c("livenessProbe.successThreshold"),
            "Invalid",
        ),
        (
            container(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
            c("resources.requests"),
            "Invalid",
        ),
        (container(json!({"resources": {"limits": {"cpu": "-1"}}})), c("resources.limits[cpu]"), "Invalid"),
    ];
    let cases: Vec<(Value, &str, &str)> = cases.iter().map(|(p, f, c)| (p.clone(), f.as_str(), *c)).collect();
    each("v1", "Pod", &good, &cases);
    for (patch, allowed) in [
        (container(json!({"image": "other"})), true),
        (json!({"spec": {"tolerations": [{"key": "x", "operator": "Exists"}]}}), true),
        (json!({"metadata": {"labels": {"x": "y"}}}), true),
        (json!({"spec": {"hostname": "x"}}), false),
        (container(json!({"command": ["x"]})), false),
    ] {
        let old = changed(json!({"metadata": {"name": "p"}}), container(json!({})));
        let found = judged("v1", "Pod", changed(old.clone(), patch.clone()), Some(old));
        let want = if allowed { vec![] } else { vec![("spec".to_owned(), "FieldValueForbidden")] };
        assert_eq!(found, want, "{patch}");
    }
}

#[test]
fn workloads() {
    let cases = [
        (json!({"spec": {"selector": {"matchLabels": null}}}), "spec.selector", "Invalid"),
        (json!({"spec": {"selector": {"matchLabels": {"a": "x"}}}}), "spec.template.metadata.labels", "Invalid"),
        (json!({"spec": {"template": {"spec": {"containers": []}}}}), "spec.template.spec.containers", "Required"),
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            "spec.template.spec.restartPolicy",
            "NotSupported",
        ),
        (json!({"spec": {"minReadySeconds": -1}}), "spec.minReadySeconds", "Invalid"),
    ];
    for kind in ["Deployment", "DaemonSet", "ReplicaSet", "StatefulSet"] {
        each("apps/v1", kind, &deployment(), &cases);
        let mut other = deployment();
        other["spec"]["selector"]["matchLabels"]["c"] = json!("d");
        other["spec"]["template"]["metadata"]["labels"]["c"] = json!("d");
        let found = judged("apps/v1", kind, other, Some(deployment()));
        let (field, cause) = if kind == "StatefulSet" {
            ("spec", "FieldValueForbidden")
        } else {
            ("spec.selector", "FieldValueInvalid")
        };
        assert_eq!(found, [(field.to_owned(), cause)], "{kind}");
    }
    each(
        "apps/v1",
        "Deployment",
        &deployment(),
        &[
            (json!({"spec": {"replicas": -1}}), "spec.replicas", "Invalid"),
            (json!({"spec": {"strategy": {"type": "Gamble"}}}), "spec.strategy", "NotSupported"),
            (
                json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
                "spec.strategy.rollingUpdate",
                "Forbidden",
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
                "spec.strategy.rollingUpdate.maxUnavailable",
                "Invalid",
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "many"}}}}),
                "spec.strategy.rollingUpdate.maxSurge",
                "Invalid",
            ),
            (json!({"spec": {"minReadySeconds": 600}}), "spec.progressDeadlineSeconds", "Invalid"),
        ],
    );
    let mut stateful = deployment();
    stateful["spec"]["serviceName"] = json!("other");
    let found = judged("apps/v1", "StatefulSet", stateful, Some(deployment()));
    assert_eq!(found, [("spec".to_owned(), "FieldValueForbidden")]);
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    each(
        "batch/v1",
        "Job",
        &job,
        &[
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}),
                "spec.template.spec.restartPolicy",
                "Required",
            ),
            (json!({"spec": {"parallelism": -1}}), "spec.parallelism", "Invalid"),
        ],
    );
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    each(
        "policy/v1",
        "PodDisruptionBudget",
        &budget,
        &[
            (json!({"spec": {"maxUnavailable": 1}}), "spec", "Invalid"),
            (json!({"spec": {"minAvailable": -1}}), "spec.minAvailable", "Invalid"),
            (
                json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}),
                "spec.selector.matchExpressions[0].operator",
                "Invalid",
            ),
        ],
    );
}

#[test]
fn the_rest() {
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 443, "targetPort": "https"}]}});
    each(
        "v1",
        "Service",
        &service,
        &[
            (json!({"metadata": {"name": "1s"}}), "metadata.name", "Invalid"),
            (json!({"spec": {"ports": []}}), "spec.ports", "Required"),
            (json!({"spec": {"ports": [{"port": 0}]}}), "spec.ports[0].port", "Invalid"),
            (json!({"spec": {"ports": [{"port": 1, "targetPort": "no_name"}]}}), "spec.ports[0].targetPort", "Invalid"),
            (json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}), "spec.ports[0].name", "Required"),
            (
                json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}}),
                "spec.ports[1]",
                "Duplicate",
            ),
            (json!({"spec": {"type": "Magic"}}), "spec.type", "NotSupported"),
            (json!({"spec": {"type": "ExternalName"}}), "spec.externalName", "Required"),
        ],
    );
    each(
        "v1",
        "ConfigMap",
        &json!({"metadata": {"name": "c"}, "data": {"a.b": "1"}}),
        &[
            (json!({"metadata": {"name": "Bad_Name"}}), "metadata.name", "Invalid"),
            (json!({"data": {"a/b": "1"}}), "data[a/b]", "Invalid"),
            (json!({"binaryData": {"a.b": "MQ=="}}), "data[a.b]", "Invalid"),
        ],
    );
    let fixed = json!({"metadata": {"name": "c"}, "data": {"a": "1"}, "immutable": true});
    let found = judged("v1", "ConfigMap", changed(fixed.clone(), json!({"data": {"a": "2"}})), Some(fixed));
    assert_eq!(found, [("data".to_owned(), "FieldValueForbidden")]);
    let secret =
        json!({"metadata": {"name": "s"}, "data": {"tls.crt": "", "tls.key": ""}, "type": "kubernetes.io/tls"});
    each("v1", "Secret", &secret, &[(json!({"data": {"tls.key": null}}), "data[tls.key]", "Required")]);
    let found = judged("v1", "Secret", changed(secret.clone(), json!({"type": "Opaque"})), Some(secret));
    assert_eq!(found, [("type".to_owned(), "FieldValueInvalid")]);
    let rbac = "rbac.authorization.k8s.io/v1";
    let role =
        json!({"metadata": {"name": "a:b"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    each(
        rbac,
        "Role",
        &role,
        &[
            (json!({"metadata": {"name": "a/b"}}), "metadata.name", "Invalid"),
            (json!({"rules": [{"apiGroups": [""], "resources": ["pods"]}]}), "rules[0].verbs", "Required"),
            (json!({"rules": [{"verbs": ["get"], "resources": ["pods"]}]}), "rules[0].apiGroups", "Required"),
            (json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}), "rules[0].nonResourceURLs", "Invalid"),
        ],
    );
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
    each(
        rbac,
        "ClusterRoleBinding",
        &binding,
        &[
            (json!({"roleRef": {"kind": "Role"}}), "roleRef.kind", "NotSupported"),
            (json!({"roleRef": {"name": null}}), "roleRef.name", "Required"),
            (json!({"subjects": [{"kind": "Robot", "name": "r"}]}), "subjects[0].kind", "NotSupported"),
            (json!({"subjects": [{"kind": "ServiceAccount", "name": "r"}]}), "subjects[0].namespace", "Required"),
        ],
    );
    let hook = |patch: Value| {
        let good = json!({"name": "a.b.c", "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        json!({"metadata": {"name": "w"}, "webhooks": [changed(good, patch)]})
    };
    each(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        &hook(json!({})),
        &[
            (hook(json!({"name": "a"})), "webhooks[0].name", "Invalid"),
            (hook(json!({"sideEffects": null})), "webhooks[0].sideEffects", "Required"),
            (hook(json!({"sideEffects": "Some"})), "webhooks[0].sideEffects", "NotSupported"),
            (hook(json!({"timeoutSeconds": 31})), "webhooks[0].timeoutSeconds", "Invalid"),
            (hook(json!({"admissionReviewVersions": null})), "webhooks[0].admissionReviewVersions", "Required"),
            (hook(json!({"clientConfig": {"service": null}})), "webhooks[0].clientConfig", "Required"),
            (
                hook(json!({"clientConfig": {"service": {"name": null}}})),
                "webhooks[0].clientConfig.service.name",
                "Required",
            ),
            (hook(json!({"failurePolicy": "Maybe"})), "webhooks[0].failurePolicy", "NotSupported"),
            (hook(json!({"rules": [{"operations": ["*"]}]})), "webhooks[0].rules[0].resources", "Required"),
        ],
    );
    let api = json!({"metadata": {"name": "v1.g.io"}, "spec": {"group": "g.io", "version": "v1",
        "groupPriorityMinimum": 1000, "versionPriority": 15, "service": {"name": "s", "namespace": "n"}}});
    each(
        "apiregistration.k8s.io/v1",
        "APIService",
        &api,
        &[
            (json!({"metadata": {"name": "v2.g.io"}}), "metadata.name", "Invalid"),
            (json!({"spec": {"versionPriority": 0}}), "spec.versionPriority", "Invalid"),
        ],
    );
    let class = json!({"metadata": {"name": "p"}, "value": 1});
    each("scheduling.k8s.io/v1", "PriorityClass", &class, &[(json!({"value": 1_500_000_000}), "value", "Forbidden")]);
    let claim = json!({"metadata": {"name": "p"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    each(
        "v1",
        "PersistentVolumeClaim",
        &claim,
        &[
            (json!({"spec": {"accessModes": null}}), "spec.accessModes", "Required"),
            (json!({"spec": {"resources": null}}), "spec.resources[storage]", "Required"),
        ],
    );
    each(
        "coordination.k8s.io/v1",
        "Lease",
        &json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 15}}),
        &[(json!({"spec": {"leaseDurationSeconds": 0}}), "spec.leaseDurationSeconds", "Invalid")],
    );
    each(
        "v1",
        "Namespace",
        &json!({"metadata": {"name": "n"}}),
        &[(json!({"metadata": {"name": "a.b"}}), "metadata.name", "Invalid")],
    );
}

#[test]
fn slices() {
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
    each(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        &slice,
        &[
            (json!({"addressType": null}), "addressType", "Required"),
            (json!({"addressType": ""}), "addressType", "Required"),
            (json!({"endpoints": [{}]}), "endpoints[0].addresses", "Required"),
        ],
    );
}

#[test]
fn identity_does_not_change() {
    let old = json!({"metadata": {"name": "c", "uid": "1"}});
    let found = judged("v1", "ConfigMap", changed(old.clone(), json!({"metadata": {"uid": "2"}})), Some(old));
    assert_eq!(found, [("metadata.uid".to_owned(), "FieldValueInvalid")]);
}
