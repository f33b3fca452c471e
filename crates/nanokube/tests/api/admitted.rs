//! What the server adds to objects, or refuses, because of other objects and of what they were before.

use kube::Client;
use nanokube::UserInfo;
use serde_json::{Value, json};

use crate::server;

/// Sends a request; the answer's code and body, be it good or bad.
async fn send(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content);
    match client.request::<Value>(request.body(body.to_string().into_bytes()).unwrap()).await {
        Ok(value) => (200, value),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
            let fields: Vec<String> = causes.into_iter().map(|cause| cause.field).collect();
            (status.code, json!(fields))
        }
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

async fn made(client: &Client, path: &str, body: Value) -> Value {
    let (code, value) = send(client, "POST", path, &body).await;
    assert_eq!(code, 200, "{path} {body}: {value}");
    value
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PRIORITIES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    pod["spec"] = apimachinery::patch::merge(&pod["spec"], &spec);
    pod
}

#[tokio::test(start_paused = true)]
async fn pods_take_from_their_classes() {
    let client = server().client(UserInfo::admin());
    crate::default_account(&client).await;
    for (spec, code) in [
        (json!({"runtimeClassName": "missing"}), 403),
        (json!({"priority": 7}), 403),
        (json!({"priorityClassName": "missing"}), 403),
        (json!({"overhead": {"cpu": "1"}}), 403),
        (json!({"priority": 0}), 200),
    ] {
        assert_eq!(send(&client, "POST", PODS, &pod("a", spec.clone())).await.0, code, "{spec}");
    }
    let class = json!({"metadata": {"name": "deep"}, "handler": "h", "overhead": {"podFixed": {"cpu": "1"}},
        "scheduling": {"nodeSelector": {"deep": "yes"}, "tolerations": [{"key": "deep", "operator": "Exists"}]}});
    made(&client, "/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let spec = made(&client, PODS, pod("b", json!({"runtimeClassName": "deep"}))).await["spec"].clone();
    assert_eq!((&spec["overhead"]["cpu"], &spec["nodeSelector"]["deep"]), (&json!("1"), &json!("yes")));
    assert!(spec["tolerations"].as_array().unwrap().iter().any(|toleration| toleration["key"] == "deep"));
    made(&client, PRIORITIES, json!({"metadata": {"name": "one"}, "value": 5, "globalDefault": true})).await;
    let second = json!({"metadata": {"name": "two"}, "value": 6, "globalDefault": true});
    assert_eq!(send(&client, "POST", PRIORITIES, &second).await.0, 403);
    let gated = made(&client, PODS, pod("c", json!({"schedulingGates": [{"name": "g"}]}))).await;
    assert_eq!(gated["spec"]["priority"], 5);
    assert_eq!(gated["status"]["conditions"][0]["reason"], "SchedulingGated");
    let node = send(&client, "PATCH", &format!("{PODS}/a"), &json!({"spec": {"nodeName": "n"}})).await;
    assert_eq!(node, (422, json!(["spec"])));
}

#[tokio::test(start_paused = true)]
async fn containers_for_a_look_have_their_own_endpoint() {
    let client = server().client(UserInfo::admin());
    crate::default_account(&client).await;
    made(&client, PODS, pod("a", json!({}))).await;
    let look = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    assert_eq!(send(&client, "PATCH", &format!("{PODS}/a"), &look).await, (422, json!(["spec"])));
    let (code, pod) = send(&client, "PATCH", &format!("{PODS}/a/ephemeralcontainers"), &look).await;
    assert_eq!((code, &pod["spec"]["ephemeralContainers"][0]["name"]), (200, &json!("e")));
    let none = json!({"spec": {"ephemeralContainers": null}});
    let (code, fields) = send(&client, "PATCH", &format!("{PODS}/a/ephemeralcontainers"), &none).await;
    assert_eq!((code, fields), (422, json!(["spec.ephemeralContainers"])));
}

#[tokio::test(start_paused = true)]
async fn claims_and_volumes_are_held_and_have_a_class() {
    let client = server().client(UserInfo::admin());
    let claim = |name: &str, class: Value| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let plain = made(&client, CLAIMS, claim("a", Value::Null)).await;
    assert_eq!(plain["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert_eq!(plain["spec"].get("storageClassName"), None);
    for (name, is_default) in [("quick", "true"), ("slow", "false")] {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": is_default});
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "example.com/p"});
        made(&client, "/apis/storage.k8s.io/v1/storageclasses", class).await;
    }
    assert_eq!(made(&client, CLAIMS, claim("b", Value::Null)).await["spec"]["storageClassName"], "quick");
    assert_eq!(made(&client, CLAIMS, claim("c", json!(""))).await["spec"]["storageClassName"], "");
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"}}});
    let volume = made(&client, "/api/v1/persistentvolumes", volume).await;
    assert_eq!(volume["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
    assert_eq!(volume["status"]["phase"], "Pending");
}

#[tokio::test(start_paused = true)]
async fn services_leave_behind_what_their_type_no_longer_needs() {
    let client = server().client(UserInfo::admin());
    let service = |name: &str, spec: Value| {
        let mut service =
            json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        service["spec"] = apimachinery::patch::merge(&service["spec"], &spec);
        service
    };
    let outside = service("a", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}));
    let outside = made(&client, SERVICES, outside).await;
    assert!(outside["spec"]["healthCheckNodePort"].as_u64().is_some_and(|port| port >= 30000), "{outside}");
    assert!(outside["spec"]["ports"][0]["nodePort"].is_u64());
    let (code, inside) =
        send(&client, "PATCH", &format!("{SERVICES}/a"), &json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(code, 200, "{inside}");
    for gone in ["healthCheckNodePort", "externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
        assert_eq!(inside["spec"].get(gone), None, "{gone}");
    }
    assert_eq!(inside["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(inside["spec"]["clusterIP"], outside["spec"]["clusterIP"]);
    let (code, named) = send(
        &client,
        "PATCH",
        &format!("{SERVICES}/a"),
        &json!({"spec": {"type": "ExternalName", "externalName": "e.x"}}),
    )
    .await;
    assert_eq!((code, named["spec"].get("clusterIP")), (200, None), "{named}");
    let bare = service("b", json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}));
    assert_eq!(made(&client, SERVICES, bare).await["spec"]["ports"][0].get("nodePort"), None);
    let both = service("c", json!({"ipFamilyPolicy": "RequireDualStack"}));
    assert_eq!(send(&client, "POST", SERVICES, &both).await, (422, json!(["spec.ipFamilyPolicy"])));
    let free = service("d", json!({"clusterIP": "None", "selector": null}));
    assert_eq!(made(&client, SERVICES, free).await["spec"]["ipFamilyPolicy"], "RequireDualStack");
}

#[tokio::test(start_paused = true)]
async fn jobs_have_the_selector_the_server_makes() {
    let client = server().client(UserInfo::admin());
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str, spec: Value| {
        let template = json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        let mut job = json!({"metadata": {"name": name}, "spec": {"template": template}});
        job["spec"] = apimachinery::patch::merge(&job["spec"], &spec);
        job
    };
    let plain = made(&client, jobs, job("a", json!({}))).await;
    assert_eq!(plain["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(plain["spec"]["template"]["metadata"]["labels"]["job-name"], "a");
    let own = json!({"selector": {"matchLabels": {"a": "b"}}});
    assert_eq!(send(&client, "POST", jobs, &job("b", own.clone())).await, (422, json!(["spec.selector"])));
    let mut manual = own;
    manual["manualSelector"] = json!(true);
    assert_eq!(made(&client, jobs, job("c", manual)).await["spec"]["selector"], json!({"matchLabels": {"a": "b"}}));
}

#[tokio::test(start_paused = true)]
async fn old_endpoints_warn_of_their_end() {
    let client = server().client(UserInfo::admin());
    let request = http::Request::get("/api/v1/namespaces/default/endpoints");
    let answer = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    let warning = answer.headers().get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("EndpointSlice"), "{warning}");
}

#[tokio::test(start_paused = true)]
async fn limit_ranges_fill_in_and_refuse() {
    let client = server().client(UserInfo::admin());
    crate::default_account(&client).await;
    let limits = json!([{"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "200m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
    made(&client, "/api/v1/namespaces/default/limitranges", range).await;
    let filled = made(&client, PODS, pod("a", json!({}))).await;
    let resources = &filled["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"limits": {"cpu": "1"}, "requests": {"cpu": "200m"}}));
    assert_eq!(filled["status"]["qosClass"], "Burstable");
    let greedy = json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]);
    assert_eq!(send(&client, "POST", PODS, &pod("b", json!({"containers": greedy}))).await.0, 403);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    assert_eq!(send(&client, "POST", CLAIMS, &claim).await.0, 403);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_says_what_its_pods_may_do() {
    let client = server().client(UserInfo::admin());
    let labels = |more: Value| json!({"metadata": {"name": "careful", "labels": more}});
    let wrong = labels(json!({"pod-security.kubernetes.io/enforce": "very"}));
    let (code, fields) = send(&client, "POST", "/api/v1/namespaces", &wrong).await;
    assert_eq!((code, fields), (422, json!(["metadata.labels[pod-security.kubernetes.io/enforce]"])));
    let levels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    made(&client, "/api/v1/namespaces", labels(levels)).await;
    let account = json!({"metadata": {"name": "default"}});
    made(&client, "/api/v1/namespaces/careful/serviceaccounts", account).await;

    const CAREFUL: &str = "/api/v1/namespaces/careful/pods";
    let (code, _) = send(&client, "POST", CAREFUL, &pod("a", json!({"hostNetwork": true}))).await;
    assert_eq!(code, 403);
    let privileged = json!({"containers": [{"name": "c", "image": "i:1", "securityContext": {"privileged": true}}]});
    assert_eq!(send(&client, "POST", CAREFUL, &pod("a", privileged)).await.0, 403);
    assert_eq!(send(&client, "POST", CAREFUL, &pod("a", json!({}))).await.0, 200);

    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let workload =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let request = http::Request::post("/apis/apps/v1/namespaces/careful/deployments");
    let request = request.header("content-type", "application/json").body(workload.to_string().into_bytes().into());
    let answer = client.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 201, "whoever makes pods is told, and not refused");
    let told = answer.headers()["warning"].to_str().unwrap();
    assert!(told.contains("would violate PodSecurity \\\"restricted:latest\\\""), "{told}");
}
