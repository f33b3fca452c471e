//! Webhooks over TLS on the network of simulated pods.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kubevirt_runtime::net::memory::{MemoryNet, Verdict};
use kubevirt_runtime::serve::{Response, json as answer_json};
use nanokube::{MemorySink, Nanokube, UserInfo};
use serde_json::{Value, json};

use super::backend::{API_SERVER, Backend, Seen, expose};
use super::{cluster, create, namespaced, object, options, refusal};

struct Setup {
    network: Arc<MemoryNet>,
    client: Client,
    audit: MemorySink,
}

fn setup() -> Setup {
    let network = MemoryNet::new();
    let audit = MemorySink::default();
    let api = Nanokube::new(options().with_net(network.host(API_SERVER)).with_audit(audit.clone()));
    Setup { network, client: api.client(UserInfo::admin()), audit }
}

fn maps(client: &Client) -> Api<DynamicObject> {
    namespaced(client, "v1", "ConfigMap", "configmaps")
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn validating(client: &Client) -> Api<DynamicObject> {
    cluster(
        client,
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    )
}

fn mutating(client: &Client) -> Api<DynamicObject> {
    cluster(client, "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
}

fn hook(name: &str, bundle: &str, more: Value) -> Value {
    let mut hook = json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/judge"}, "caBundle": bundle},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        hook[field] = value.clone();
    }
    hook
}

fn configuration(kind: &str, name: &str, hooks: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": hooks,
    })
}

async fn install(client: &Client, hooks: &[Value]) {
    create(&validating(client), configuration("ValidatingWebhookConfiguration", "v", hooks)).await;
}

fn reply(seen: &Seen, mut response: Value) -> Response {
    response["uid"] = seen.body["request"]["uid"].clone();
    answer_json(
        StatusCode::OK,
        &json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

/// Refuses objects whose name begins with `bad`, and warns about all.
fn judge(seen: &Seen) -> Response {
    let name = seen.body["request"]["name"].as_str().unwrap_or_default();
    if name.starts_with("bad") {
        return reply(
            seen,
            json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "bad name"}}),
        );
    }
    reply(seen, json!({"allowed": true, "warnings": ["seen"], "auditAnnotations": {"verdict": "fine"}}))
}

#[tokio::test(start_paused = true)]
async fn a_validating_webhook_lets_pass_or_refuses() {
    let Setup { network, client, audit } = setup();
    let backend = Backend::start(&network, "hook.default.svc", judge).await;
    expose(&client, "hook", true).await;
    install(&client, &[hook("h.example.io", &backend.bundle, json!({}))]).await;

    create(&maps(&client), map("good")).await;
    let seen = backend.seen();
    let [asked] = seen.as_slice() else { panic!("asked once: {seen:?}") };
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/judge?timeout=10s"));
    assert_eq!(asked.headers["host"], "hook.default.svc:443");
    let request = &asked.body["request"];
    assert_eq!(
        (&request["operation"], &request["resource"], &request["kind"], &request["oldObject"], &request["dryRun"]),
        (
            &json!("CREATE"),
            &json!({"group": "", "version": "v1", "resource": "configmaps"}),
            &json!({"group": "", "version": "v1", "kind": "ConfigMap"}),
            &Value::Null,
            &json!(false)
        )
    );
    assert_eq!(request["object"]["data"], json!({"a": "1"}));
    assert_eq!(request["userInfo"]["username"], "kubernetes-admin");
    let event = audit.events().into_iter().find(|event| event["objectRef"]["name"] == "good").unwrap();
    assert_eq!(event["annotations"], json!({"h.example.io/verdict": "fine"}));

    let refused = maps(&client).create(&PostParams::default(), &object(map("bad"))).await.unwrap_err();
    let text = "admission webhook \"h.example.io\" denied the request: bad name";
    assert_eq!(refusal(refused), (403, text.to_owned()));
    assert!(maps(&client).get_opt("bad").await.unwrap().is_none());

    backend.seen();
    let patch = Patch::Merge(json!({"data": {"a": "2"}}));
    maps(&client).patch("good", &PatchParams::default(), &patch).await.unwrap();
    maps(&client).delete("good", &DeleteParams::default()).await.unwrap();
    let asked: Vec<_> = backend
        .seen()
        .iter()
        .map(|seen| {
            let request = &seen.body["request"];
            (
                request["operation"].clone(),
                request["oldObject"]["data"]["a"].clone(),
                request["object"]["data"]["a"].clone(),
            )
        })
        .collect();
    assert_eq!(asked, [(json!("UPDATE"), json!("1"), json!("2")), (json!("DELETE"), json!("2"), Value::Null)]);
}

#[tokio::test(start_paused = true)]
async fn a_mutating_webhook_changes_the_object_before_it_is_judged() {
    let Setup { network, client, .. } = setup();
    let backend = Backend::start(&network, "hook.default.svc", |seen| {
        if seen.path.starts_with("/label") {
            let patch = STANDARD.encode(r#"[{"op":"add","path":"/metadata/labels","value":{"by":"hook"}}]"#);
            return reply(seen, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}));
        }
        reply(seen, json!({"allowed": true}))
    })
    .await;
    expose(&client, "hook", true).await;
    let at = |path: &str| {
        json!({"reinvocationPolicy": "IfNeeded", "clientConfig": {
            "service": {"namespace": "default", "name": "hook", "path": path}, "caBundle": backend.bundle,
        }})
    };
    let hooks = [hook("a.example.io", "", at("/look")), hook("b.example.io", "", at("/label"))];
    create(&mutating(&client), configuration("MutatingWebhookConfiguration", "m", &hooks)).await;
    install(&client, &[hook("h.example.io", &backend.bundle, json!({}))]).await;

    let made = create(&maps(&client), map("x")).await;
    assert_eq!(made.metadata.labels.unwrap()["by"], "hook");
    let order: Vec<String> = backend
        .seen()
        .iter()
        .map(|seen| {
            format!(
                "{} {}",
                &seen.path[..seen.path.find('?').unwrap()],
                seen.body["request"]["object"]["metadata"]["labels"]
            )
        })
        .collect();
    // The first hook sees the object again because the second changed it; the validating one sees the result.
    assert_eq!(order, ["/look null", "/label null", "/look {\"by\":\"hook\"}", "/judge {\"by\":\"hook\"}"]);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_webhook_from_answering_is_told_or_ignored() {
    let Setup { network, client, .. } = setup();
    let backend = Backend::start(&network, "other.default.svc", judge).await;
    let attempt = |name: &'static str| {
        let api = maps(&client);
        async move { api.create(&PostParams::default(), &object(map(name))).await.map_err(refusal) }
    };
    let failed = |why: &str| {
        let url = "https://hook.default.svc:443/judge?timeout=2s";
        (
            500,
            format!(
                "Internal error occurred: failed calling webhook \"h.example.io\": failed to call webhook: Post \"{url}\": {why}"
            ),
        )
    };
    install(&client, &[hook("h.example.io", &backend.bundle, json!({"timeoutSeconds": 2}))]).await;
    assert_eq!(attempt("a").await.unwrap_err(), failed("service \"hook\" not found"));
    expose(&client, "hook", false).await;
    assert_eq!(attempt("a").await.unwrap_err(), failed("no endpoints available for service \"hook\""));
    let ready = json!({"endpoints": [{"addresses": ["10.0.0.2"], "conditions": {"ready": true}}]});
    let slices = namespaced(&client, "discovery.k8s.io/v1", "EndpointSlice", "endpointslices");
    slices.patch("hook", &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    // The certificate is for another name.
    assert_eq!(
        attempt("a").await.unwrap_err(),
        failed("tls: failed to verify certificate: x509: certificate is not valid for hook.default.svc")
    );
    let bundle =
        |text: &str| Patch::Merge(json!({"webhooks": [hook("h.example.io", text, json!({"timeoutSeconds": 2}))]}));
    validating(&client).patch("v", &PatchParams::default(), &bundle("")).await.unwrap();
    assert_eq!(
        attempt("a").await.unwrap_err(),
        failed("tls: failed to verify certificate: x509: certificate signed by unknown authority")
    );
    network.set_rule(|_, _| Verdict::Refuse);
    assert_eq!(attempt("a").await.unwrap_err(), failed("dial tcp 10.0.0.2:8443: connect: connection refused"));
    network.set_rule(|_, _| Verdict::Swallow);
    let before = tokio::time::Instant::now();
    assert_eq!(attempt("a").await.unwrap_err(), failed("context deadline exceeded"));
    assert_eq!(before.elapsed().as_secs(), 2, "the webhook's own time");

    let ignoring = hook("h.example.io", "", json!({"timeoutSeconds": 2, "failurePolicy": "Ignore"}));
    let patch = Patch::Merge(json!({"webhooks": [ignoring]}));
    validating(&client).patch("v", &PatchParams::default(), &patch).await.unwrap();
    attempt("a").await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn conditions_selectors_versions_and_dry_run_decide_who_is_asked() {
    let Setup { network, client, .. } = setup();
    let backend = Backend::start(&network, "hook.default.svc", judge).await;
    expose(&client, "hook", true).await;
    let picky = json!({
        "matchConditions": [{"name": "not-mine", "expression": "!object.metadata.name.startsWith('mine')"}],
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "sideEffects": "NoneOnDryRun",
    });
    install(&client, &[hook("h.example.io", &backend.bundle, picky)]).await;
    create(&maps(&client), map("mine")).await;
    let mut labelled = map("labelled");
    labelled["metadata"]["labels"] = json!({"skip": "yes"});
    create(&maps(&client), labelled).await;
    assert!(backend.seen().is_empty());
    create(&maps(&client), map("yours")).await;
    assert_eq!(backend.seen().len(), 1);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps(&client).create(&dry, &object(map("dry"))).await.unwrap();
    let seen = backend.seen();
    assert_eq!((seen.len(), &seen[0].body["request"]["dryRun"]), (1, &json!(true)));
    assert!(maps(&client).get_opt("dry").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_for_one_version_is_asked_about_all_unless_it_wants_that_one_only() {
    let Setup { network, client, .. } = setup();
    let backend = Backend::start(&network, "hook.default.svc", judge).await;
    expose(&client, "hook", true).await;
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    create(
        &cluster(&client, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "boxes.example.io"},
            "spec": {"group": "example.io", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
                     "versions": [version("v1", true), version("v2", false)]},
        }),
    )
    .await;
    let rules =
        json!([{"apiGroups": ["example.io"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["boxes"]}]);
    let hooks = [
        hook("any.example.io", &backend.bundle, json!({"rules": rules})),
        hook("exact.example.io", &backend.bundle, json!({"rules": rules, "matchPolicy": "Exact"})),
    ];
    install(&client, &hooks).await;
    let boxes = namespaced(&client, "example.io/v2", "Box", "boxes");
    create(&boxes, json!({"apiVersion": "example.io/v2", "kind": "Box", "metadata": {"name": "b"}})).await;
    let seen = backend.seen();
    let [asked] = seen.as_slice() else { panic!("one of the two is asked: {seen:?}") };
    let request = &asked.body["request"];
    let versions = [&request["kind"], &request["requestKind"], &request["resource"], &request["requestResource"]];
    assert_eq!(versions.map(|value| value["version"].as_str().unwrap()), ["v1", "v2", "v1", "v2"]);
    assert_eq!(request["object"]["apiVersion"], "example.io/v1");
}
