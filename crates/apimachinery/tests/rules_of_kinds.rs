//! What is wrong with objects of built-in kinds: for each spoilt object every cause, in the order in which clients read
//! them; and what is filled in.

use apimachinery::builtin::{default, validate, validate_part};
use serde_json::{Value, json};

/// A good object of each kind.
fn good(kind: &str) -> (&'static str, &'static str, Value) {
    let template = |restart: &str| {
        json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i:1"}]}})
    };
    let selector = json!({"matchLabels": {"a": "b"}});
    let (api_version, proper, rest) = match kind {
        "pod" => (
            "v1",
            "Pod",
            json!({"spec": {"containers": [{"name": "c", "image": "i:1"}], "volumes": [{"name": "v"}],
                "initContainers": [{"name": "i", "image": "i:1"}]}}),
        ),
        "deployment" => {
            ("apps/v1", "Deployment", json!({"spec": {"selector": selector, "template": template("Always")}}))
        }
        "daemonset" => {
            ("apps/v1", "DaemonSet", json!({"spec": {"selector": selector, "template": template("Always")}}))
        }
        "statefulset" => {
            ("apps/v1", "StatefulSet", json!({"spec": {"selector": selector, "template": template("Always")}}))
        }
        "job" => (
            "batch/v1",
            "Job",
            json!({"spec": {"manualSelector": true, "selector": selector, "template": template("Never")}}),
        ),
        "cronjob" => (
            "batch/v1",
            "CronJob",
            json!({"spec": {"schedule": "*/5 * * * *", "timeZone": "Europe/Berlin",
                "jobTemplate": {"spec": {"template": template("Never")}}}}),
        ),
        "budget" => ("policy/v1", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "selector": selector}})),
        "autoscaler" => (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "behavior": {}}}),
        ),
        "service" => ("v1", "Service", json!({"spec": {"ports": [{"port": 80}]}})),
        "endpoints" => {
            ("v1", "Endpoints", json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}))
        }
        "slice" => ("discovery.k8s.io/v1", "EndpointSlice", json!({"addressType": "IPv4"})),
        "ingress" => (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
        ),
        "ingressclass" => ("networking.k8s.io/v1", "IngressClass", json!({"spec": {"controller": "example.com/c"}})),
        "networkpolicy" => (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}}),
        ),
        "secret" => ("v1", "Secret", json!({"data": {"a": "MQ=="}})),
        "configmap" => ("v1", "ConfigMap", json!({"data": {"a": "1"}})),
        "event" => ("v1", "Event", json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"}})),
        "newevent" => (
            "events.k8s.io/v1",
            "Event",
            json!({"regarding": {"namespace": "n"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Go",
                "reason": "Why", "type": "Normal", "reportingController": "example.com/c", "reportingInstance": "i"}),
        ),
        "quota" => ("v1", "ResourceQuota", json!({"spec": {"hard": {"pods": "1", "count/things.example.com": "2"}}})),
        "limits" => ("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}})),
        "priorityclass" => ("scheduling.k8s.io/v1", "PriorityClass", json!({"value": 5})),
        "claim" => (
            "v1",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        "volume" => (
            "v1",
            "PersistentVolume",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"}}}),
        ),
        "storageclass" => ("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "example.com/p"})),
        "clusterrole" => ("rbac.authorization.k8s.io/v1", "ClusterRole", json!({})),
        "webhook" => (
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            json!({"webhooks": [{"name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://example.com/x"}, "rules": [{"apiGroups": [""], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["pods"]}]}]}),
        ),
        "policy" => (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            json!({"spec": {"validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}}}),
        ),
        "policybinding" => (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        ),
        other => panic!("no object of {other}"),
    };
    let mut object = rest;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(proper);
    object["metadata"] = json!({"name": "x", "namespace": "n"});
    (api_version, proper, object)
}

/// Puts a value at a JSON pointer; missing objects on the way are made.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/");
        at = match at {
            Value::Array(list) => &mut list[part.parse::<usize>().unwrap()],
            other => &mut other[part.as_str()],
        };
    }
    *at = value;
}

fn filled(kind: &str, mut object: Value) -> Value {
    let (api_version, proper, _) = good(kind);
    default(api_version, proper, &mut object);
    object
}

fn said(errors: &[apimachinery::FieldError]) -> String {
    let texts: Vec<String> = errors
        .iter()
        .map(|e| format!("{} {}", e.cause.as_str().strip_prefix("FieldValue").unwrap(), e.field))
        .collect();
    texts.join("; ")
}

/// Kind, where the mistake is, the mistake, and everything that is said of it.
type Row = (&'static str, &'static str, Value, &'static str);

fn check(rows: Vec<Row>, changes: bool) {
    let mut wrong = Vec::new();
    for (kind, pointer, mistake, want) in rows {
        let (api_version, proper, object) = good(kind);
        let old = filled(kind, object.clone());
        assert_eq!(said(&validate(api_version, proper, &old, None)), "", "the good {kind}");
        let mut new = if changes { old.clone() } else { object };
        set(&mut new, pointer, mistake.clone());
        let found = validate(api_version, proper, &filled(kind, new), changes.then_some(&old));
        if said(&found) != want {
            wrong.push(format!("{kind} {pointer} {mistake}:\n  want {want}\n  have {}", said(&found)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[rustfmt::skip]
#[test]
fn pods() {
    check(vec![
        ("pod", "/spec/containers/0/securityContext", json!({"privileged": true, "allowPrivilegeEscalation": false}), "Invalid spec.containers[0].securityContext"),
        ("pod", "/spec/containers/0/securityContext", json!({"runAsUser": -1, "runAsGroup": -2}), "Invalid spec.containers[0].securityContext.runAsUser; Invalid spec.containers[0].securityContext.runAsGroup"),
        ("pod", "/spec/securityContext", json!({"fsGroup": -1, "seccompProfile": {"type": "Localhost"}}), "Invalid spec.securityContext.fsGroup; Required spec.securityContext.seccompProfile.localhostProfile"),
        ("pod", "/spec/initContainers/0/name", json!("c"), "Duplicate spec.initContainers[0].name"),
        ("pod", "/spec/initContainers/0/readinessProbe", json!({"tcpSocket": {"port": 1}}), "Forbidden spec.initContainers[0].readinessProbe"),
        ("pod", "/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}]), "Forbidden spec.ephemeralContainers"),
        ("pod", "/spec/activeDeadlineSeconds", json!(0), "Invalid spec.activeDeadlineSeconds"),
        ("pod", "/spec/dnsPolicy", json!("None"), "Required spec.dnsConfig"),
        ("pod", "/spec/dnsConfig", json!({"nameservers": ["x"]}), "Invalid spec.dnsConfig.nameservers[0]"),
        ("pod", "/spec/containers/0/env", json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]), "Invalid spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"),
        ("pod", "/spec/containers/0/env", json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]), "NotSupported spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"),
        ("pod", "/spec/containers/0/env", json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "cpu"}}}]), "NotSupported spec.containers[0].env[0].valueFrom.resourceFieldRef.resource"),
        ("pod", "/spec/containers/0/env", json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "", "key": "a/b"}}}]), "Required spec.containers[0].env[0].valueFrom.secretKeyRef.name; Invalid spec.containers[0].env[0].valueFrom.secretKeyRef.key"),
        ("pod", "/spec/containers/0/envFrom", json!([{}]), "Invalid spec.containers[0].envFrom"),
        ("pod", "/spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]), "Duplicate spec.containers[0].ports[1].hostPort"),
        ("pod", "/spec/containers/0/volumeMounts", json!([{"mountPath": "/v"}]), "Required spec.containers[0].volumeMounts[0].name; NotFound spec.containers[0].volumeMounts[0].name"),
        ("pod", "/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPath": "../x"}]), "Invalid spec.containers[0].volumeMounts[0].subPath"),
        ("pod", "/spec/containers/0/resources", json!({"limits": {"foo": "1"}}), "Invalid spec.containers[0].resources.limits[foo]; Invalid spec.containers[0].resources.limits[foo]; Invalid spec.containers[0].resources.requests[foo]; Invalid spec.containers[0].resources.requests[foo]"),
        ("pod", "/spec/containers/0/resources", json!({"requests": {"example.com/x": "1"}}), "Required spec.containers[0].resources.limits"),
        ("pod", "/spec/containers/0/lifecycle", json!({"preStop": {}}), "Required spec.containers[0].lifecycle.preStop"),
        ("pod", "/spec/volumes", json!([{"name": "v", "secret": {}}, {"name": "w", "configMap": {"name": "c", "defaultMode": 512}}, {"name": "x", "persistentVolumeClaim": {"claimName": ""}}]), "Required spec.volumes[0].secret.secretName; Invalid spec.volumes[1].configMap.defaultMode; Required spec.volumes[2].persistentVolumeClaim.claimName"),
        ("pod", "/spec/volumes", json!([{"name": "v", "hostPath": {"path": "", "type": "Door"}}]), "Required spec.volumes[0].hostPath.path; NotSupported spec.volumes[0].hostPath.type"),
        ("pod", "/spec/schedulingGates", json!([{"name": "a"}, {"name": "a"}]), "Duplicate spec.schedulingGates[1]"),
        ("pod", "/spec/tolerations", json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 3}]), "Invalid spec.tolerations[0].effect"),
        ("pod", "/spec/affinity", json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a b"}]}}), "Invalid spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey"),
        ("pod", "/spec/affinity", json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}), "Required spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"),
        ("pod", "/spec/affinity", json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}}), "Invalid spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight; Required spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values"),
        ("pod", "/spec/hostAliases", json!([{"ip": "x", "hostnames": ["A_"]}]), "Invalid spec.hostAliases[0].ip; Invalid spec.hostAliases[0].hostnames[0]"),
        ("pod", "/spec/preemptionPolicy", json!("Ask"), "NotSupported spec.preemptionPolicy"),
    ], false);
    let mut shared = good("pod").2;
    shared["spec"]["shareProcessNamespace"] = json!(true);
    shared["spec"]["hostPID"] = json!(true);
    assert_eq!(said(&validate("v1", "Pod", &filled("pod", shared), None)), "Invalid spec.securityContext.shareProcessNamespace");
    check(vec![
        ("pod", "/spec/nodeName", json!("n1"), "Forbidden spec"),
        ("pod", "/spec/terminationGracePeriodSeconds", json!(5), "Forbidden spec"),
        ("pod", "/spec/containers/0/image", json!("i:2"), ""),
        ("pod", "/spec/containers", json!([{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]), "Forbidden spec.containers"),
        ("pod", "/spec/schedulingGates", json!([{"name": "g"}]), "Forbidden spec.schedulingGates[0]"),
        ("pod", "/spec/activeDeadlineSeconds", json!(9), ""),
    ], true);
    let mut old = filled("pod", good("pod").2);
    old["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    old["spec"]["activeDeadlineSeconds"] = json!(9);
    let mut new = old.clone();
    new["spec"]["tolerations"] = json!([]);
    new["spec"]["activeDeadlineSeconds"] = Value::Null;
    assert_eq!(said(&validate("v1", "Pod", &new, Some(&old))), "Invalid spec.activeDeadlineSeconds; Forbidden spec.tolerations");
    let mut looked = old.clone();
    looked["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]);
    assert_eq!(said(&validate_part("Pod", "ephemeralcontainers", &looked, &old)), "Forbidden spec.ephemeralContainers[0].ports");
    assert_eq!(said(&validate_part("Pod", "ephemeralcontainers", &old, &looked)), "Forbidden spec.ephemeralContainers");
}

#[rustfmt::skip]
#[test]
fn workloads() {
    check(vec![
        ("deployment", "/spec/selector", Value::Null, "Required spec.selector; Invalid spec.template.metadata.labels"),
        ("statefulset", "/spec/selector", Value::Null, "Required spec.selector; Invalid spec.template.metadata.labels"),
        ("daemonset", "/spec/selector", Value::Null, "Invalid spec.template.metadata.labels"),
        ("deployment", "/spec/strategy", json!({"type": "Hope"}), "NotSupported spec.strategy"),
        ("deployment", "/spec/template/spec/restartPolicy", json!("Never"), "NotSupported spec.template.spec.restartPolicy"),
        ("deployment", "/spec/template/spec/activeDeadlineSeconds", json!(5), "Forbidden spec.template.spec.activeDeadlineSeconds"),
        ("deployment", "/spec/template/metadata/annotations", json!({"a b": "c"}), "Invalid spec.template.metadata.annotations"),
        ("daemonset", "/spec/updateStrategy", json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}), "Invalid spec.updateStrategy.rollingUpdate.maxSurge"),
        ("daemonset", "/spec/updateStrategy", json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}), "Required spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ("statefulset", "/spec/podManagementPolicy", json!("Chaos"), "Invalid spec.podManagementPolicy"),
        ("statefulset", "/spec/updateStrategy", json!({"type": "Chaos"}), "Invalid spec.updateStrategy"),
        ("job", "/spec/completionMode", json!("Sorted"), "NotSupported spec.completionMode"),
        ("job", "/spec/backoffLimitPerIndex", json!(1), "Invalid spec.backoffLimitPerIndex"),
        ("job", "/spec/podReplacementPolicy", json!("Never"), "NotSupported spec.podReplacementPolicy"),
        ("job", "/spec/template/spec/restartPolicy", json!("Always"), "Required spec.template.spec.restartPolicy"),
        ("job", "/spec/podFailurePolicy", json!({"rules": [{"action": "Cry"}]}), "NotSupported spec.podFailurePolicy.rules[0].action; Required spec.podFailurePolicy.rules[0]"),
        ("job", "/spec/podFailurePolicy", json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 0]}}]}), "Invalid spec.podFailurePolicy.rules[0].onExitCodes.values[1]; Invalid spec.podFailurePolicy.rules[0].onExitCodes.values"),
        ("cronjob", "/spec/schedule", json!("61 * * * *"), "Invalid spec.schedule"),
        ("cronjob", "/spec/timeZone", json!("Mars/Base"), "Invalid spec.timeZone"),
        ("cronjob", "/spec/timeZone", json!(""), "Invalid spec.timeZone"),
        ("cronjob", "/metadata/name", json!("x".repeat(53)), "Invalid metadata.name"),
        ("cronjob", "/spec/jobTemplate/spec/template/spec/restartPolicy", json!("Always"), "Required spec.jobTemplate.spec.template.spec.restartPolicy"),
        ("budget", "/spec/unhealthyPodEvictionPolicy", json!("Maybe"), "NotSupported spec.unhealthyPodEvictionPolicy"),
        ("budget", "/spec/selector", json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), "Required spec.selector.matchExpressions[0].values"),
        ("autoscaler", "/spec/maxReplicas", Value::Null, "Invalid spec.maxReplicas; Invalid spec.maxReplicas"),
        ("autoscaler", "/spec/scaleTargetRef", json!({}), "Required spec.scaleTargetRef.kind; Required spec.scaleTargetRef.name"),
        ("autoscaler", "/spec/metrics", json!([{"type": "Resource"}]), "Required spec.metrics[0].resource"),
        ("autoscaler", "/spec/metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]), "Required spec.metrics[0].resource.target.averageUtilization"),
        ("autoscaler", "/spec/behavior", json!({"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 2000}]}}), "Invalid spec.behavior.scaleUp.policies[0].value; Invalid spec.behavior.scaleUp.policies[0].periodSeconds"),
    ], false);
    check(vec![
        ("statefulset", "/spec/serviceName", json!("s"), "Forbidden spec"),
        ("job", "/spec/completions", json!(5), "Invalid spec.completions"),
        ("job", "/spec/template/spec/containers/0/image", json!("j"), "Invalid spec.template"),
        ("job", "/spec/parallelism", json!(5), ""),
    ], true);
    let mut indexed = good("job").2;
    indexed["spec"]["completionMode"] = json!("Indexed");
    indexed["spec"]["parallelism"] = json!(2);
    assert_eq!(said(&validate("batch/v1", "Job", &filled("job", indexed), None)), "Required spec.completions");
    let mut own = good("job").2;
    own["metadata"]["uid"] = json!("u");
    own["spec"]["manualSelector"] = Value::Null;
    let labels = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "x", "controller-uid": "u", "job-name": "x", "a": "b"});
    own["spec"]["template"]["metadata"]["labels"] = labels;
    assert_eq!(said(&validate("batch/v1", "Job", &filled("job", own), None)), "Invalid spec.selector");
    let old = filled("deployment", good("deployment").2);
    let mut new = old.clone();
    new["status"] = json!({"replicas": 1, "readyReplicas": 2, "unavailableReplicas": -1});
    assert_eq!(said(&validate_part("Deployment", "status", &new, &old)), "Invalid status.unavailableReplicas; Invalid status.readyReplicas");
}

#[rustfmt::skip]
#[test]
fn networks() {
    check(vec![
        ("service", "/spec/externalIPs", json!(["x"]), "Invalid spec.externalIPs[0]"),
        ("service", "/spec/ports/0/nodePort", json!(30000), "Forbidden spec.ports[0].nodePort"),
        ("service", "/spec/sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 5}}), "Forbidden spec.sessionAffinityConfig"),
        ("service", "/spec/loadBalancerClass", json!("a"), "Forbidden spec.loadBalancerClass"),
        ("service", "/spec/externalTrafficPolicy", json!("Local"), "Invalid spec.externalTrafficPolicy"),
        ("service", "/spec/internalTrafficPolicy", json!("Near"), "NotSupported spec.internalTrafficPolicy"),
        ("service", "/spec/trafficDistribution", json!("Near"), "NotSupported spec.trafficDistribution"),
        ("endpoints", "/subsets/0/addresses/0/ip", json!("127.0.0.1"), "Invalid subsets[0].addresses[0].ip"),
        ("endpoints", "/subsets/0/addresses/0/ip", json!("127.64.1.2"), ""),
        ("endpoints", "/subsets", json!([{}]), "Required subsets[0]"),
        ("slice", "/addressType", json!("Carrier"), "NotSupported addressType"),
        ("slice", "/endpoints", json!([{"addresses": ["10.1.2.3"]}, {"addresses": ["x"]}]), "Invalid endpoints[1].addresses[0]"),
        ("slice", "/ports", json!([{"name": "a", "port": 1}, {"name": "a", "port": 0}]), "Duplicate ports[1].name; Invalid ports[1].port"),
        ("ingress", "/spec/ingressClassName", json!("A_"), "Invalid spec.ingressClassName"),
        ("ingress", "/spec/rules/0/host", json!("10.1.2.3"), "Invalid spec.rules[0].host"),
        ("ingress", "/spec/rules/0/http/paths/0/path", json!("x"), "Invalid spec.rules[0].http.paths[0].path"),
        ("ingress", "/spec/rules/0/http/paths/0/path", json!("/a//b"), "Invalid spec.rules[0].http.paths[0].path"),
        ("ingress", "/spec/rules/0/http/paths/0/pathType", Value::Null, "Required spec.rules[0].http.paths[0].pathType"),
        ("ingress", "/spec/rules/0/http/paths/0/backend", json!({}), "Invalid spec.rules[0].http.paths[0].backend"),
        ("ingress", "/spec/rules/0/http/paths/0/backend/service/port", json!({}), "Required spec.rules[0].http.paths[0].backend"),
        ("ingress", "/spec/tls", json!([{"hosts": ["A_"]}]), "Invalid spec.tls[0].hosts[0]"),
        ("ingress", "/spec", json!({}), "Invalid spec"),
        ("ingressclass", "/spec/controller", json!("nodomain"), "Invalid spec.controller"),
        ("ingressclass", "/spec/parameters", json!({"kind": "K", "name": "n", "scope": "Namespace"}), "Required spec.parameters.namespace"),
        ("networkpolicy", "/spec/ingress/0/from/0/ipBlock/cidr", json!("10.0.0.0/40"), "Invalid spec.ingress[0].from[0].ipBlock.cidr"),
        ("networkpolicy", "/spec/ingress/0/from/0/ipBlock/except", json!(["10.1.0.0/16", "11.0.0.0/16", "10.0.0.0/8"]), "Invalid spec.ingress[0].from[0].ipBlock.except[1]; Invalid spec.ingress[0].from[0].ipBlock.except[2]"),
        ("networkpolicy", "/spec/ingress/0/from/0/podSelector", json!({}), "Forbidden spec.ingress[0].from[0]"),
        ("networkpolicy", "/spec/ingress/0/ports/0", json!({"port": 80, "endPort": 79, "protocol": "X"}), "NotSupported spec.ingress[0].ports[0].protocol; Invalid spec.ingress[0].ports[0].endPort"),
        ("networkpolicy", "/spec/policyTypes", json!(["Sideways"]), "NotSupported spec.policyTypes[0]"),
    ], false);
    check(vec![("ingressclass", "/spec/controller", json!("example.com/d"), "Invalid spec.controller")], true);
}

#[rustfmt::skip]
#[test]
fn data_and_storage() {
    check(vec![
        ("secret", "/type", json!("kubernetes.io/tls"), "Required data[tls.crt]; Required data[tls.key]"),
        ("secret", "/type", json!("kubernetes.io/basic-auth"), "Required data[username]; Required data[password]"),
        ("secret", "/type", json!("kubernetes.io/ssh-auth"), "Required data[ssh-privatekey]"),
        ("secret", "/type", json!("kubernetes.io/dockercfg"), "Required data[.dockercfg]"),
        ("secret", "/type", json!("kubernetes.io/service-account-token"), "Required metadata.annotations[kubernetes.io/service-account.name]"),
        ("configmap", "/binaryData", json!({"a": "MQ=="}), "Invalid data[a]"),
        ("configmap", "/data", json!({"..a": "1"}), "Invalid data[..a]"),
        ("event", "/involvedObject/namespace", json!("other"), "Invalid involvedObject.namespace"),
        ("event", "/involvedObject/namespace", Value::Null, "Invalid involvedObject.namespace"),
        ("newevent", "/eventTime", Value::Null, "Required eventTime"),
        ("newevent", "/action", json!(""), "Required action"),
        ("newevent", "/type", json!("Strange"), "Invalid type"),
        ("quota", "/spec/hard", json!({"foo": "1"}), "Invalid spec.hard[foo]; Invalid spec.hard[foo]"),
        ("quota", "/spec/hard", json!({"pods": "-1"}), "Invalid spec.hard[pods]"),
        ("quota", "/spec/scopes", json!(["Sometimes"]), "Invalid spec.scopes"),
        ("limits", "/spec/limits/0/min", json!({"cpu": "2"}), "Invalid spec.limits[0].min[cpu]; Invalid spec.limits[0].defaultRequest[cpu]; Invalid spec.limits[0].default[cpu]"),
        ("limits", "/spec/limits", json!([{"type": "Pod", "default": {"cpu": "1"}}]), "Forbidden spec.limits[0].default"),
        ("limits", "/spec/limits", json!([{"type": "Pod"}, {"type": "Pod"}]), "Duplicate spec.limits[1].type"),
        ("limits", "/spec/limits", json!([{"type": "Thing"}]), "Invalid spec.limits[0].type"),
        ("priorityclass", "/metadata/name", json!("system-mine"), "Forbidden metadata.name"),
        ("priorityclass", "/value", json!(1_500_000_000), "Forbidden value"),
        ("claim", "/spec/accessModes", json!(["ReadSometimes"]), "NotSupported spec.accessModes"),
        ("claim", "/spec/accessModes", json!(["ReadWriteOncePod", "ReadWriteOnce"]), "Forbidden spec.accessModes"),
        ("claim", "/spec/volumeMode", json!("Tape"), "NotSupported spec.volumeMode"),
        ("claim", "/spec/resources/requests/storage", json!("0"), "Invalid spec.resources[storage]"),
        ("claim", "/spec", json!({"accessModes": ["X"], "volumeMode": "Tape"}), "NotSupported spec.accessModes; Required spec.resources[storage]; NotSupported spec.volumeMode"),
        ("volume", "/spec/capacity", Value::Null, "Required spec.capacity; NotSupported spec.capacity"),
        ("volume", "/spec/accessModes", json!(["X"]), "NotSupported spec.accessModes"),
        ("volume", "/spec/hostPath", Value::Null, "Required spec"),
        ("volume", "/spec/volumeMode", json!("Tape"), "NotSupported spec.volumeMode"),
        ("storageclass", "/volumeBindingMode", json!("Later"), "NotSupported volumeBindingMode"),
    ], false);
    check(vec![
        ("claim", "/spec/resources/requests/storage", json!("2Gi"), "Forbidden spec"),
        ("claim", "/spec/resources/requests/storage", json!("1Mi"), "Forbidden spec; Forbidden spec.resources.requests.storage"),
        ("volume", "/spec/hostPath/path", json!("/w"), "Forbidden spec.persistentvolumesource"),
        ("volume", "/spec/persistentVolumeReclaimPolicy", json!("Delete"), ""),
        ("storageclass", "/volumeBindingMode", json!("WaitForFirstConsumer"), "Invalid volumeBindingMode"),
        ("storageclass", "/parameters", json!({"a": "b"}), "Forbidden parameters"),
        ("priorityclass", "/value", json!(6), "Forbidden value"),
        ("quota", "/spec/scopes", json!(["BestEffort"]), "Invalid spec.scopes; Invalid spec.scopes"),
    ], true);
}

#[rustfmt::skip]
#[test]
fn extensions() {
    check(vec![
        ("clusterrole", "/aggregationRule", json!({}), "Required aggregationRule.clusterRoleSelectors"),
        ("webhook", "/webhooks/0/clientConfig/url", json!("http://example.com"), "Invalid webhooks[0].clientConfig.url"),
        ("webhook", "/webhooks/0/rules/0/operations", json!(["BUY"]), "NotSupported webhooks[0].rules[0].operations[0]"),
        ("webhook", "/webhooks/0/rules/0/operations", json!(["*", "CREATE"]), "Invalid webhooks[0].rules[0].operations"),
        ("webhook", "/webhooks/0/rules/0/scope", json!("Wide"), "NotSupported webhooks[0].rules[0].scope"),
        ("webhook", "/webhooks/0/admissionReviewVersions", json!(["v2"]), "Invalid webhooks[0].admissionReviewVersions"),
        ("webhook", "/webhooks/0/reinvocationPolicy", json!("Often"), "NotSupported webhooks[0].reinvocationPolicy"),
        ("webhook", "/webhooks/0/namespaceSelector", json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}), "Invalid webhooks[0].namespaceSelector.matchExpressions[0].operator"),
        ("webhook", "/webhooks/0/matchConditions", json!([{"name": "", "expression": ""}]), "Required webhooks[0].matchConditions[0].expression; Required webhooks[0].matchConditions[0].name"),
        ("policy", "/spec/failurePolicy", json!("Shrug"), "NotSupported spec.failurePolicy"),
        ("policy", "/spec/matchConstraints", Value::Null, "Required spec.matchConstraints"),
        ("policy", "/spec/validations", Value::Null, "Required spec.validations; Required spec.auditAnnotations"),
        ("policy", "/spec/validations/0/reason", json!("Mood"), "NotSupported spec.validations[0].reason"),
        ("policy", "/spec/validations/0/expression", json!(" "), "Required spec.validations[0].expression"),
        ("policybinding", "/spec/policyName", Value::Null, "Required spec.policyName"),
        ("policybinding", "/spec/validationActions", Value::Null, "Required spec.validationActions"),
        ("policybinding", "/spec/validationActions", json!(["Deny", "Warn", "Deny"]), "Duplicate spec.validationActions[2]; Invalid spec.validationActions"),
        ("policybinding", "/spec/paramRef", json!({"parameterNotFoundAction": "Deny"}), "Required spec.paramRef"),
    ], false);
}

/// Kind, what is set, and what must then be there.
#[rustfmt::skip]
#[test]
fn what_is_filled_in() {
    let quarter = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    for (kind, pointer, given, at, want) in [
        ("pod", "/spec/volumes", json!([{"name": "v"}]), "/spec/volumes/0", json!({"name": "v", "emptyDir": {}})),
        ("pod", "/spec/volumes", json!([{"name": "v", "image": {"reference": "a:1"}}]), "/spec/volumes/0/image/pullPolicy", json!("IfNotPresent")),
        ("pod", "/spec/containers/0/env", json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]), "/spec/containers/0/env/0/valueFrom/resourceFieldRef/divisor", json!("0")),
        ("job", "/spec/podFailurePolicy", json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "T"}]}]}), "/spec/podFailurePolicy/rules/0/onPodConditions/0/status", json!("True")),
        ("job", "/spec/podFailurePolicy", json!({"rules": []}), "/spec/podReplacementPolicy", json!("Failed")),
        ("job", "/spec/suspend", Value::Null, "/metadata/labels", json!({"a": "b"})),
        ("cronjob", "/spec/suspend", Value::Null, "/spec/jobTemplate/spec/backoffLimit", Value::Null),
        ("autoscaler", "/spec/behavior", json!({}), "/spec/behavior/scaleDown", json!({"selectPolicy": "Max", "policies": [quarter]})),
        ("autoscaler", "/spec/behavior", json!({"scaleUp": {"selectPolicy": "Min"}}), "/spec/behavior/scaleUp", json!({"selectPolicy": "Min", "stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, quarter]})),
        ("service", "/spec/externalIPs", json!(["1.2.3.4"]), "/spec/externalTrafficPolicy", json!("Cluster")),
        ("slice", "/ports", json!([{"port": 80}]), "", json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "x", "namespace": "n"}, "addressType": "IPv4", "endpoints": null, "ports": [{"name": "", "port": 80, "protocol": "TCP"}]})),
        ("slice", "/endpoints", json!([{"addresses": ["10.1.2.3"]}]), "/endpoints/0/conditions", json!({})),
        ("networkpolicy", "/spec/egress", json!([]), "/spec/podSelector", json!({})),
        ("event", "/count", json!(0), "", json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "x", "namespace": "n"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"}, "source": {}, "eventTime": null, "firstTimestamp": null, "lastTimestamp": null, "reportingComponent": "", "reportingInstance": ""})),
        ("pod", "/status", json!({"containerStatuses": [{"name": "c", "image": "i", "ready": true}]}), "/status/containerStatuses/0", json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {}, "lastState": {}})),
        ("clusterrole", "/metadata/labels", Value::Null, "/rules", Value::Null),
        ("priorityclass", "/value", Value::Null, "/value", json!(0)),
        ("claim", "/spec/dataSource", json!({"kind": "PersistentVolumeClaim", "name": "c"}), "/spec/dataSourceRef/name", json!("c")),
    ] {
        let mut object = good(kind).2;
        set(&mut object, pointer, given);
        let found = filled(kind, object);
        assert_eq!(found.pointer(at).unwrap_or(&Value::Null), &want, "{kind} {pointer}");
    }
}
