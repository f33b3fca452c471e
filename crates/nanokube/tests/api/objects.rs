use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use nanokube::UserInfo;
use serde_json::json;

use crate::{admin, code, config_map, config_maps, create, namespaced, object, server};

#[tokio::test(start_paused = true)]
async fn an_object_lives() {
    let api = config_maps(&admin());
    let made = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    assert_eq!(made.metadata.creation_timestamp.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    let mut stale = made.clone();
    stale.data["data"]["a"] = json!("2");
    let second = api.replace("a", &PostParams::default(), &stale).await.unwrap();
    assert_ne!(second.metadata.resource_version, made.metadata.resource_version);
    assert_eq!(code(api.replace("a", &PostParams::default(), &stale).await.unwrap_err()), 409);
    let same = api.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.metadata.resource_version, second.metadata.resource_version, "a write without change is none");
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(api.get("a").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_a_deletion() {
    let api = config_maps(&admin());
    let mut held = config_map("a", json!({}));
    held.metadata.finalizers = Some(vec!["example.com/x".to_owned()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let begun = api.get("a").await.unwrap();
    assert!(begun.metadata.deletion_timestamp.is_some());
    let add = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}}));
    assert_eq!(code(api.patch("a", &PatchParams::default(), &add).await.unwrap_err()), 422);
    let remove = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("a", &PatchParams::default(), &remove).await.unwrap();
    assert_eq!(code(api.get("a").await.unwrap_err()), 404);
    api.create(&PostParams::default(), &config_map("b", json!({}))).await.unwrap();
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    api.delete("b", &foreground).await.unwrap();
    assert_eq!(api.get("b").await.unwrap().metadata.finalizers.unwrap(), ["foregroundDeletion"]);
}

#[tokio::test(start_paused = true)]
async fn pages_are_one_snapshot() {
    let api = config_maps(&admin());
    for index in 0..5 {
        api.create(&PostParams::default(), &config_map(&format!("c{index}"), json!({}))).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    api.delete("c3", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &config_map("c9", json!({}))).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let rest = api.list(&ListParams::default().continue_token(&token)).await.unwrap();
    let names: Vec<_> = rest.items.iter().map(|item| item.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["c2", "c3", "c4"], "the second page is as old as the first");
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
}

#[tokio::test(start_paused = true)]
async fn appliers_share_an_object_and_collide_on_a_field() {
    let api = config_maps(&admin());
    let config =
        |a: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": a}});
    api.patch("s", &PatchParams::apply("one"), &Patch::Apply(config("1"))).await.unwrap();
    let refused = api.patch("s", &PatchParams::apply("two"), &Patch::Apply(config("2"))).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("not an answer") };
    let cause = &status.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.a"));
    let forced = api.patch("s", &PatchParams::apply("two").force(), &Patch::Apply(config("2"))).await.unwrap();
    assert_eq!(forced.data["data"]["a"], "2");
    let again = api.patch("s", &PatchParams::apply("two"), &Patch::Apply(config("2"))).await.unwrap();
    assert_eq!(again.metadata.resource_version, forced.metadata.resource_version);
}

#[tokio::test(start_paused = true)]
async fn status_and_generation_are_separate() {
    let api = namespaced(&admin(), "apps/v1", "Deployment", "deployments");
    let made = create(
        &api,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "status": {"replicas": 5},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        }),
    )
    .await;
    assert_eq!(made.data["status"], json!({}), "a new object has no status");
    assert_eq!(made.data["spec"]["replicas"], 1, "defaults are filled in");
    let both = json!({"spec": {"replicas": 9}, "status": {"replicas": 3}});
    let after = api.patch_status("d", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!((&after.data["spec"]["replicas"], &after.data["status"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(after.metadata.generation, Some(1));
    let after = api.patch("d", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!((&after.data["spec"]["replicas"], after.metadata.generation), (&json!(9), Some(2)));
    let scaled =
        api.patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(4));
    assert_eq!(api.get("d").await.unwrap().metadata.generation, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once_ends_gracefully_and_its_budget_is_asked() {
    let client = admin();
    let pods = namespaced(&client, "v1", "Pod", "pods");
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}})
    };
    let refused = pods.create(&PostParams::default(), &object(pod("p"))).await.unwrap_err();
    assert_eq!(code(refused), 403, "the namespace has no account yet");
    crate::default_account(&client).await;
    create(&pods, pod("p")).await;
    let bind = |node: &str| {
        let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
        http::Request::post("/api/v1/namespaces/default/pods/p/binding")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).unwrap())
            .unwrap()
    };
    client.request::<serde_json::Value>(bind("n1")).await.unwrap();
    assert_eq!(code(client.request::<serde_json::Value>(bind("n2")).await.unwrap_err()), 409);
    assert_eq!(pods.get("p").await.unwrap().data["spec"]["nodeName"], "n1");
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Strategic(running)).await.unwrap();
    let budgets = namespaced(&client, "policy/v1", "PodDisruptionBudget", "poddisruptionbudgets");
    create(
        &budgets,
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"x": "y"}}}}),
    )
    .await;
    let evict = || {
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
        http::Request::post("/api/v1/namespaces/default/pods/p/eviction")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).unwrap())
            .unwrap()
    };
    assert_eq!(code(client.request::<serde_json::Value>(evict()).await.unwrap_err()), 429);
    let open = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    budgets.patch_status("b", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    client.request::<serde_json::Value>(evict()).await.unwrap();
    let ending = pods.get("p").await.unwrap();
    let conditions = ending.data["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    assert_eq!(
        ending.metadata.deletion_timestamp.unwrap().0.to_string(),
        "2026-01-01T00:00:31Z",
        "after the wait for the account"
    );
    assert_eq!(budgets.get("b").await.unwrap().data["status"]["disruptionsAllowed"], 0, "the disruption is spent");
    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    assert_eq!(code(pods.get("p").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_takes_nothing_new() {
    let server = server();
    let client = server.client(UserInfo::admin());
    let namespaces: kube::Api<kube::api::DynamicObject> =
        kube::Api::all_with(client.clone(), &crate::resource("v1", "Namespace", "namespaces"));
    create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})).await;
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    assert_eq!(namespaces.get("n").await.unwrap().data["status"]["phase"], "Terminating");
    let inside = kube::Api::namespaced_with(client.clone(), "n", &crate::resource("v1", "ConfigMap", "configmaps"));
    assert_eq!(code(inside.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err()), 403);
    let missing = kube::Api::namespaced_with(client, "missing", &crate::resource("v1", "ConfigMap", "configmaps"));
    assert_eq!(code(missing.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err()), 404);
    let mut empty = namespaces.get("n").await.unwrap();
    empty.data["spec"]["finalizers"] = json!([]);
    namespaces.replace_subresource("finalize", "n", &PostParams::default(), &empty).await.unwrap();
    assert_eq!(code(namespaces.get("n").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn both_event_apis_show_one_event() {
    let client = admin();
    let core = namespaced(&client, "v1", "Event", "events");
    let other = namespaced(&client, "events.k8s.io/v1", "Event", "events");
    create(
        &core,
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Why", "message": "text",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "source": {"component": "me"}}),
    )
    .await;
    let seen = other.get("e").await.unwrap();
    assert_eq!((&seen.data["note"], &seen.data["regarding"]["name"]), (&json!("text"), &json!("p")));
    let found = core.list(&ListParams::default().fields("involvedObject.name=p,reason=Why")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(other.list(&ListParams::default().fields("regarding.name=q")).await.unwrap().items.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let server = server();
    let api = config_maps(&server.client(UserInfo::admin()));
    let before = server.revision();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let shown =
        api.create(&dry, &object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))).await;
    assert!(shown.unwrap().metadata.uid.is_some());
    assert_eq!(server.revision(), before);
}

/// A request to the API and what it answers: status, warnings, body.
async fn send(
    client: &kube::Client,
    request: (&str, &str, &str, &str),
) -> Result<serde_json::Value, kube::core::Status> {
    let (method, path, media, body) = request;
    let request = http::Request::builder().method(method).uri(path).header("content-type", media);
    match client.request(request.body(body.as_bytes().to_vec()).unwrap()).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(*status),
        Err(other) => panic!("not an answer: {other}"),
    }
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

#[tokio::test(start_paused = true)]
async fn values_of_the_wrong_type_are_the_fault_of_body_or_patch() {
    let client = admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let refused = send(&client, ("POST", maps, JSON, r#"{"metadata": {"name": "a"}, "data": {"a": 1}}"#)).await;
    assert_eq!(refused.unwrap_err().code, 400);
    let secret =
        ("POST", "/api/v1/namespaces/default/secrets", JSON, r#"{"metadata": {"name": "a"}, "data": {"a": "%"}}"#);
    assert_eq!(send(&client, secret).await.unwrap_err().code, 400);
    config_maps(&client).create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let one = "/api/v1/namespaces/default/configmaps/a";
    for (query, patch) in [("", r#"{"data": 5}"#), ("?fieldValidation=Strict", r#"{"dat": {}}"#)] {
        let status = send(&client, ("PATCH", &format!("{one}{query}"), MERGE, patch)).await.unwrap_err();
        let cause = status.details.clone().unwrap().causes[0].clone();
        assert_eq!((status.code, cause.field.as_str()), (422, "patch"), "{patch}");
    }
    let twice = r#"{"metadata": {"name": "b"}, "data": {"a": "1", "a": "2"}}"#;
    let strict = send(&client, ("POST", &format!("{maps}?fieldValidation=Strict"), JSON, twice)).await.unwrap_err();
    assert!(strict.code == 400 && strict.message.contains("duplicate field \"data.a\""), "{}", strict.message);
    assert_eq!(send(&client, ("POST", maps, JSON, twice)).await.unwrap()["data"]["a"], "2");
}

#[tokio::test(start_paused = true)]
async fn replicas_are_applied_through_scale_and_owned_there() {
    let client = admin();
    let sets = namespaced(&client, "apps/v1", "ReplicaSet", "replicasets");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    create(&sets, set).await;
    let path = "/apis/apps/v1/namespaces/default/replicasets/r/scale?fieldManager=scaler";
    let scale =
        r#"{"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "r"}, "spec": {"replicas": 3}}"#;
    let apply = "application/apply-patch+yaml";
    let conflict = send(&client, ("PATCH", path, apply, scale)).await.unwrap_err();
    assert_eq!((conflict.code, conflict.details.unwrap().causes[0].field.as_str()), (409, ".spec.replicas"));
    let forced = send(&client, ("PATCH", &format!("{path}&force=true"), apply, scale)).await.unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    let owners = sets.get("r").await.unwrap().metadata.managed_fields.unwrap();
    let owner = owners.iter().find(|owner| owner.manager.as_deref() == Some("scaler")).unwrap();
    assert_eq!((owner.subresource.as_deref(), owner.operation.as_deref()), (Some("scale"), Some("Apply")));
}

#[tokio::test(start_paused = true)]
async fn some_kinds_are_created_by_their_first_update() {
    let client = admin();
    let lease = (
        "PUT",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases/l",
        JSON,
        r#"{"metadata": {"name": "l"}, "spec": {}}"#,
    );
    assert!(send(&client, lease).await.unwrap()["metadata"]["uid"].is_string());
    let map = ("PUT", "/api/v1/namespaces/default/configmaps/c", JSON, r#"{"metadata": {"name": "c"}}"#);
    assert_eq!(send(&client, map).await.unwrap_err().code, 404);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_yaml_gets_yaml() {
    let client = admin();
    config_maps(&client).create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let request = http::Request::get("/api/v1/namespaces/default/configmaps/a").header("accept", "application/yaml");
    let text = client.request_text(request.body(Vec::new()).unwrap()).await.unwrap();
    assert!(text.contains("kind: ConfigMap\n") && text.contains("  name: a\n"), "{text}");
}
