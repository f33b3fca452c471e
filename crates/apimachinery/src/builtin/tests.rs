use expect_test::expect;
use serde_json::json;

use super::*;

fn filled(api_version: &str, kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    default(api_version, kind, &mut object);
    object
}

/// What defaults added, as one line per field.
fn added(api_version: &str, kind: &str, object: Value) -> String {
    let mut before = object.clone();
    before["apiVersion"] = json!(api_version);
    before["kind"] = json!(kind);
    let after = filled(api_version, kind, object);
    let mut out = String::new();
    leaves("", Some(&before), &after, &mut out);
    out
}

fn leaves(path: &str, before: Option<&Value>, after: &Value, out: &mut String) {
    match after {
        Value::Object(map) if !map.is_empty() => {
            for (name, v) in map {
                leaves(&crate::field::child(path, name), before.and_then(|b| b.get(name)), v, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (i, v) in list.iter().enumerate() {
                leaves(&crate::field::index(path, i), before.and_then(|b| b.get(i)), v, out);
            }
        }
        v if before != Some(v) => *out += &format!("{path} = {v}\n"),
        _ => {}
    }
}

#[test]
fn every_kind_has_a_schema_with_metadata() {
    for (api_version, kind) in kinds() {
        let s = schema(api_version, kind).unwrap();
        for name in ["apiVersion", "kind", "metadata"] {
            assert!(s.properties.contains_key(name), "{api_version} {kind} {name}");
        }
        assert!(std::ptr::eq(s, schema(api_version, kind).unwrap()));
    }
    assert!(schema("v1", "Gadget").is_none() && schema("v2", "Pod").is_none());
}

/// A row of a table that names no field of a type in use would be a typing error nobody sees.
#[test]
fn every_row_of_the_tables_is_used() {
    let mut fields = std::collections::BTreeSet::new();
    let mut types = std::collections::BTreeSet::new();
    for (api_version, kind) in kinds() {
        let _ = schema(api_version, kind);
    }
    for (name, s) in TYPES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let short = name.rsplit('.').next().unwrap().to_owned();
        fields.extend(s.properties.keys().map(|f| (short.clone(), f.clone())));
        types.insert(short);
    }
    let known = |t: &str, f: &str| fields.contains(&(t.to_owned(), f.to_owned()));
    let rows = tables::LISTS
        .iter()
        .map(|(t, f, _)| (*t, *f))
        .chain(tables::ATOMIC_MAPS.iter().copied())
        .chain(tables::RETAIN.iter().copied())
        .chain(tables::ALWAYS_PRESENT.iter().copied())
        .chain(tables::NULL_LISTS.iter().copied())
        .chain(tables::NULL_TIMES.iter().copied())
        .chain(tables::MEANINGFUL_EMPTY.iter().copied())
        .chain(tables::ZERO_IS_ABSENT.iter().copied())
        .chain(tables::DEFAULTS.iter().map(|(t, f, _)| (*t, *f)))
        .chain(tables::ALWAYS_ZERO.iter().flat_map(|(t, all)| all.iter().map(|f| (*t, *f))));
    let unused: Vec<(&str, &str)> = rows.filter(|(t, f)| !known(t, f)).collect();
    assert!(unused.is_empty(), "{unused:?}");
    let unknown: Vec<&&str> = tables::ATOMIC_TYPES.iter().filter(|t| !types.contains(**t)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn defaults_of_a_pod() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{
        "name": "c", "image": "i:1",
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTPS"}},
        "resources": {"requests": {"cpu": "0.1", "memory": "0.5Gi"}, "limits": {"example.com/x": "1"}},
    }], "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}]}});
    expect![[r#"
        spec.containers[0].imagePullPolicy = "IfNotPresent"
        spec.containers[0].readinessProbe.failureThreshold = 3
        spec.containers[0].readinessProbe.periodSeconds = 10
        spec.containers[0].readinessProbe.successThreshold = 1
        spec.containers[0].readinessProbe.timeoutSeconds = 1
        spec.containers[0].resources.requests.cpu = "100m"
        spec.containers[0].resources.requests.example.com/x = "1"
        spec.containers[0].resources.requests.memory = "512Mi"
        spec.containers[0].terminationMessagePath = "/dev/termination-log"
        spec.containers[0].terminationMessagePolicy = "File"
        spec.dnsPolicy = "ClusterFirst"
        spec.enableServiceLinks = true
        spec.restartPolicy = "Always"
        spec.schedulerName = "default-scheduler"
        spec.securityContext = {}
        spec.terminationGracePeriodSeconds = 30
        spec.volumes[0].secret.defaultMode = 420
        status.phase = "Pending"
    "#]]
    .assert_eq(&added("v1", "Pod", pod));
}

#[test]
fn defaults_of_workloads() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let of = |api_version: &str, kind: &str, spec: Value| {
        let all = added(api_version, kind, json!({"metadata": {"name": "w"}, "spec": spec}));
        all.lines().filter(|l| !l.starts_with("spec.template")).map(|l| format!("{l}\n")).collect::<String>()
    };
    expect![[r#"
        spec.progressDeadlineSeconds = 600
        spec.replicas = 1
        spec.revisionHistoryLimit = 10
        spec.strategy.rollingUpdate.maxSurge = "25%"
        spec.strategy.rollingUpdate.maxUnavailable = "25%"
        spec.strategy.type = "RollingUpdate"
        status = {}
    "#]]
    .assert_eq(&of("apps/v1", "Deployment", spec.clone()));
    expect![[r#"
        metadata.annotations.deprecated.daemonset.template.generation = "1"
        spec.revisionHistoryLimit = 10
        spec.updateStrategy.rollingUpdate.maxSurge = 0
        spec.updateStrategy.rollingUpdate.maxUnavailable = 1
        spec.updateStrategy.type = "RollingUpdate"
        status.currentNumberScheduled = 0
        status.desiredNumberScheduled = 0
        status.numberMisscheduled = 0
        status.numberReady = 0
    "#]]
    .assert_eq(&of("apps/v1", "DaemonSet", spec.clone()));
    expect![[r#"
        spec.replicas = 1
        status.replicas = 0
    "#]]
    .assert_eq(&of("apps/v1", "ReplicaSet", spec));
    expect![[r#"
        spec.backoffLimit = 6
        spec.completionMode = "NonIndexed"
        spec.completions = 1
        spec.manualSelector = false
        spec.parallelism = 1
        spec.podReplacementPolicy = "TerminatingOrFailed"
        spec.suspend = false
        status = {}
    "#]]
    .assert_eq(&of("batch/v1", "Job", json!({"template": {"spec": {"restartPolicy": "Never"}}})));
    let pulled = filled("apps/v1", "Deployment", json!({"spec": {"template": template}}));
    assert_eq!(pulled.pointer("/spec/template/spec/containers/0/imagePullPolicy"), Some(&json!("Always")));
    assert_eq!(pulled.pointer("/spec/template/spec/enableServiceLinks"), None);
    let recreate = filled("apps/v1", "Deployment", json!({"spec": {"strategy": {"type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn defaults_of_the_rest() {
    let of = |api_version: &str, kind: &str, object: Value| added(api_version, kind, object);
    expect![[r#"
        spec.internalTrafficPolicy = "Cluster"
        spec.ports[0].protocol = "TCP"
        spec.ports[0].targetPort = 443
        spec.sessionAffinity = "None"
        spec.type = "ClusterIP"
        status.loadBalancer = {}
    "#]]
    .assert_eq(&of("v1", "Service", json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 443}]}})));
    expect![[r#"
        data.b = "Yg=="
        type = "Opaque"
    "#]]
    .assert_eq(&of(
        "v1",
        "Secret",
        json!({"metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": "b"}}),
    ));
    expect![[r#"
        metadata.labels.kubernetes.io/metadata.name = "n"
        spec = {}
        status.phase = "Active"
    "#]]
    .assert_eq(&of("v1", "Namespace", json!({"metadata": {"name": "n"}})));
    expect![[r#"
        spec = {}
        status.currentHealthy = 0
        status.desiredHealthy = 0
        status.disruptionsAllowed = 0
        status.expectedPods = 0
    "#]]
    .assert_eq(&of("policy/v1", "PodDisruptionBudget", json!({"metadata": {"name": "b"}})));
    expect![[r#"
        roleRef.apiGroup = "rbac.authorization.k8s.io"
        subjects[0].apiGroup = "rbac.authorization.k8s.io"
    "#]]
    .assert_eq(&of(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
    ));
    expect![[r#"
        webhooks[0].clientConfig.service.port = 443
        webhooks[0].failurePolicy = "Fail"
        webhooks[0].matchPolicy = "Equivalent"
        webhooks[0].namespaceSelector = {}
        webhooks[0].objectSelector = {}
        webhooks[0].rules[0].scope = "*"
        webhooks[0].sideEffects = ""
        webhooks[0].timeoutSeconds = 10
    "#]]
    .assert_eq(&of(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        json!({"metadata": {"name": "w"}, "webhooks": [
            {"name": "a.b.c", "clientConfig": {"service": {"name": "s", "namespace": "n"}},
                "rules": [{"operations": ["*"]}]}]}),
    ));
    expect![[r#"
        spec.conversion.strategy = "None"
        spec.group = ""
        spec.names.listKind = "ThingList"
        spec.names.singular = "thing"
        spec.scope = ""
        status.acceptedNames.kind = ""
        status.acceptedNames.plural = ""
    "#]]
    .assert_eq(&of(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        json!({"metadata": {"name": "x"}, "spec": {"names": {"kind": "Thing", "plural": "things"}}}),
    ));
}

#[test]
fn what_means_nothing_is_not_stored() {
    let pod = json!({"metadata": {"name": "p", "labels": {}, "annotations": null}, "spec": {
        "hostNetwork": false, "nodeName": "", "nodeSelector": {}, "tolerations": [],
        "containers": [{"name": "c", "image": "i:1", "tty": false, "command": [], "env": [{"name": "E", "value": ""}],
            "resources": null}],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }});
    let stored = filled("v1", "Pod", pod);
    assert_eq!(stored["metadata"], json!({"name": "p"}));
    for name in ["hostNetwork", "nodeName", "nodeSelector", "tolerations"] {
        assert!(stored["spec"].get(name).is_none(), "{name}");
    }
    let c = &stored["spec"]["containers"][0];
    assert!(c.get("tty").is_none() && c.get("command").is_none());
    assert_eq!((&c["env"], &c["resources"]), (&json!([{"name": "E"}]), &json!({})));
    assert_eq!(stored["spec"]["volumes"][0]["emptyDir"], json!({}));
    let condition = filled("v1", "Pod", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    assert_eq!(
        condition["status"]["conditions"][0],
        json!({"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null})
    );
    let map = filled("v1", "ConfigMap", json!({"data": {}}));
    assert_eq!(map, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}));
    let claim = filled("v1", "PersistentVolumeClaim", json!({"spec": {"storageClassName": ""}}));
    assert_eq!(claim["spec"]["storageClassName"], "");
}

#[test]
fn stored_form_is_stable() {
    let object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i",
            "ports": [{"containerPort": 1}]}]}}}});
    for (api_version, kind) in kinds() {
        let once = filled(api_version, kind, object.clone());
        assert_eq!(filled(api_version, kind, once.clone()), once, "{api_version} {kind}");
    }
}

#[test]
fn undecodable_values() {
    let pod = json!({"spec": {"containers": [{"name": 3, "resources": {"limits": {"cpu": "lots"}}}], "nodeName": null},
        "metadata": {"creationTimestamp": "yesterday"}});
    let found: Vec<String> = schema("v1", "Pod").unwrap().undecodable(&pod).into_iter().map(|e| e.field).collect();
    assert_eq!(
        found,
        ["metadata.creationTimestamp", "spec.containers[0].name", "spec.containers[0].resources.limits.cpu"]
    );
    let secret = json!({"data": {"a": "YQ==", "b": "%%"}});
    let found = schema("v1", "Secret").unwrap().undecodable(&secret);
    assert_eq!(found[0].field, "data.b");
}
