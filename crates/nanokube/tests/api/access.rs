use kube::api::{Api, DynamicObject, ListParams, PostParams};
use nanokube::{MemorySink, Nanokube, UserInfo};
use serde_json::{Value, json};

use crate::{code, config_map, config_maps, create, namespaced, object, options, resource, server};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

async fn grant(server: &Nanokube, rules: Value) {
    let client = server.client(UserInfo::admin());
    create(
        &namespaced(&client, RBAC, "Role", "roles"),
        json!({"metadata": {"name": "r"}, "apiVersion": RBAC, "kind": "Role", "rules": rules}),
    )
    .await;
    create(
        &namespaced(&client, RBAC, "RoleBinding", "rolebindings"),
        json!({"metadata": {"name": "r"}, "apiVersion": RBAC, "kind": "RoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}]}),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_may_what_no_rule_allows() {
    let server = server();
    let bot = server.client(UserInfo::service_account("default", "bot"));
    assert_eq!(code(config_maps(&bot).list(&ListParams::default()).await.unwrap_err()), 403);
    grant(&server, json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])).await;
    config_maps(&bot).list(&ListParams::default()).await.unwrap();
    assert_eq!(code(config_maps(&bot).get("a").await.unwrap_err()), 403);
    let elsewhere: Api<DynamicObject> =
        Api::namespaced_with(bot, "kube-system", &resource("v1", "ConfigMap", "configmaps"));
    assert_eq!(code(elsewhere.list(&ListParams::default()).await.unwrap_err()), 403);
}

#[tokio::test(start_paused = true)]
async fn nobody_grants_what_he_does_not_hold() {
    let server = server();
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]);
    grant(&server, rules).await;
    let bot = server.client(UserInfo::service_account("default", "bot"));
    let roles = namespaced(&bot, RBAC, "Role", "roles");
    let role = |name: &str, resource: &str| {
        object(json!({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]}))
    };
    roles.create(&PostParams::default(), &role("own", "configmaps")).await.unwrap();
    assert_eq!(code(roles.create(&PostParams::default(), &role("more", "secrets")).await.unwrap_err()), 403);
    let binding = object(json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": []}));
    let bindings = namespaced(&bot, RBAC, "RoleBinding", "rolebindings");
    assert_eq!(code(bindings.create(&PostParams::default(), &binding).await.unwrap_err()), 403);
}

#[tokio::test(start_paused = true)]
async fn labelled_roles_join_view_edit_and_admin() {
    let client = server().client(UserInfo::admin());
    let roles: Api<DynamicObject> = Api::all_with(client, &resource(RBAC, "ClusterRole", "clusterroles"));
    create(
        &roles,
        json!({"apiVersion": RBAC, "kind": "ClusterRole",
            "metadata": {"name": "extra", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"apiGroups": ["acme.io"], "resources": ["gadgets"], "verbs": ["get"]}]}),
    )
    .await;
    for name in ["view", "edit", "admin"] {
        let rules = roles.get(name).await.unwrap().data["rules"].clone();
        assert!(rules.as_array().unwrap().iter().any(|rule| rule["apiGroups"] == json!(["acme.io"])), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_its_account_until_it_expires() {
    let server = server();
    let client = server.client(UserInfo::admin());
    let accounts = namespaced(&client, "v1", "ServiceAccount", "serviceaccounts");
    create(&accounts, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}})).await;
    grant(&server, json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])).await;
    let request = http::Request::post("/api/v1/namespaces/default/serviceaccounts/bot/token")
        .header("content-type", "application/json")
        .body(br#"{"spec":{"expirationSeconds":600}}"#.to_vec())
        .unwrap();
    let answer: Value = client.request(request).await.unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    let bot = server.client_with_token(token);
    config_maps(&bot).list(&ListParams::default()).await.unwrap();
    assert_eq!(code(config_maps(&bot).get("a").await.unwrap_err()), 403);
    let forged = server.client_with_token(&format!("{}x", &token[..token.len() - 1]));
    assert_eq!(code(config_maps(&forged).list(&ListParams::default()).await.unwrap_err()), 401);
    tokio::time::advance(std::time::Duration::from_secs(601)).await;
    assert_eq!(code(config_maps(&bot).list(&ListParams::default()).await.unwrap_err()), 401);
}

#[tokio::test(start_paused = true)]
async fn impersonation_needs_its_own_rule() {
    let server = server();
    let list = || {
        http::Request::get("/api/v1/namespaces/default/configmaps")
            .header("impersonate-user", "joe")
            .body(Vec::new())
            .unwrap()
    };
    let admin = server.client(UserInfo::admin());
    assert_eq!(code(admin.request::<Value>(list()).await.unwrap_err()), 403, "joe may not list");
    let bot = server.client(UserInfo::service_account("default", "bot"));
    let kube::Error::Api(status) = bot.request::<Value>(list()).await.unwrap_err() else { panic!("not an answer") };
    assert!(status.message.contains("cannot impersonate"), "{}", status.message);
}

#[tokio::test(start_paused = true)]
async fn every_request_leaves_one_audit_line() {
    let audit = MemorySink::default();
    let server = Nanokube::new(options().with_audit(audit.clone()));
    let api = config_maps(&server.client(UserInfo::admin()));
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}});
    let made = api.create(&PostParams::default(), &object(generated)).await.unwrap();
    assert_eq!(code(api.get("none").await.unwrap_err()), 404);
    let watch = api.watch(&Default::default(), &server.revision().to_string()).await.unwrap();
    drop(watch);
    let anonymous = server.client_with_token("");
    assert_eq!(
        code(config_maps(&anonymous).create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap_err()),
        403
    );
    let lines: Vec<(Value, Value, Value, Value)> = audit
        .events()
        .iter()
        .map(|event| {
            let object = &event["objectRef"];
            (
                event["verb"].clone(),
                object["name"].clone(),
                event["responseStatus"]["code"].clone(),
                event["stage"].clone(),
            )
        })
        .collect();
    let done = json!("ResponseComplete");
    assert_eq!(
        lines,
        [
            (json!("create"), json!(made.metadata.name), json!(201), done.clone()),
            (json!("get"), json!("none"), json!(404), done.clone()),
            (json!("watch"), Value::Null, json!(200), json!("ResponseStarted")),
            (json!("create"), Value::Null, json!(403), done),
        ]
    );
    let first = &audit.events()[0];
    assert_eq!(first["user"]["username"], "kubernetes-admin");
    assert_eq!(first["objectRef"]["resource"], "configmaps");
    assert_eq!(first["requestReceivedTimestamp"], "2026-01-01T00:00:00.000000Z");
}

async fn rules_of_bot(server: &Nanokube, rules: Value) {
    let client = server.client(UserInfo::admin());
    let roles = namespaced(&client, RBAC, "Role", "roles");
    let patch = kube::api::Patch::Merge(json!({"rules": rules}));
    roles.patch("r", &kube::api::PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn escalate_and_bind_are_verbs_of_their_own() {
    let server = server();
    let on = |verbs: Value| json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings", "clusterroles"], "verbs": verbs}]);
    grant(&server, on(json!(["create", "update"]))).await;
    let bot = server.client(UserInfo::service_account("default", "bot"));
    let roles = namespaced(&bot, RBAC, "Role", "roles");
    let bindings = namespaced(&bot, RBAC, "RoleBinding", "rolebindings");
    let role = object(json!({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": "more"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}));
    let binding = object(json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}]}));
    let post = PostParams::default();
    let kube::Error::Api(status) = roles.create(&post, &role).await.unwrap_err() else { panic!("not an answer") };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert!(status.message.contains("attempting to grant RBAC permissions not currently held"), "{}", status.message);
    assert_eq!(code(bindings.create(&post, &binding).await.unwrap_err()), 403);

    let mut by_name = on(json!(["create", "update", "patch"]));
    let escalates = json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["more"], "verbs": ["escalate"]});
    by_name.as_array_mut().unwrap().push(escalates);
    rules_of_bot(&server, by_name).await;
    assert_eq!(code(roles.create(&post, &role).await.unwrap_err()), 403, "the path of a creation names no object");
    let apply = kube::api::PatchParams::apply("test");
    roles.patch("more", &apply, &kube::api::Patch::Apply(&role)).await.unwrap();
    let admin = namespaced(&server.client(UserInfo::admin()), RBAC, "Role", "roles");
    admin.delete("more", &kube::api::DeleteParams::default()).await.unwrap();

    rules_of_bot(&server, on(json!(["create", "update", "escalate"]))).await;
    roles.create(&post, &role).await.unwrap();
    assert_eq!(code(bindings.create(&post, &binding).await.unwrap_err()), 403, "escalate is not bind");

    rules_of_bot(&server, on(json!(["create", "update", "bind"]))).await;
    let mut wider = role.clone();
    wider.data["rules"][0]["verbs"] = json!(["*"]);
    assert_eq!(code(roles.replace("more", &post, &wider).await.unwrap_err()), 403, "bind is not escalate");
    bindings.create(&post, &binding).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_apply_would_create_needs_create_beside_patch() {
    let server = server();
    grant(&server, json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}])).await;
    let bot = config_maps(&server.client(UserInfo::service_account("default", "bot")));
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}});
    let apply = || {
        let (api, config) = (bot.clone(), config.clone());
        async move { api.patch("a", &kube::api::PatchParams::apply("bot"), &kube::api::Patch::Apply(config)).await }
    };
    let kube::Error::Api(status) = apply().await.unwrap_err() else { panic!("not an answer") };
    assert_eq!(status.code, 403);
    assert!(status.message.contains("cannot create resource \"configmaps\""), "{}", status.message);
    rules_of_bot(&server, json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "create"]}]))
        .await;
    apply().await.unwrap();
    rules_of_bot(&server, json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}])).await;
    apply().await.unwrap();
}
