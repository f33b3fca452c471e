//! Requests and answers, one by one: what a server says beside the rules of single kinds.

use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use nanokube::UserInfo;
use serde_json::{Value, json};

use crate::server;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

struct Answer {
    code: u16,
    warnings: Vec<String>,
    text: String,
    body: Value,
}

impl Answer {
    /// The fields that are at fault.
    fn fields(&self) -> Vec<&str> {
        let causes = self.body["details"]["causes"].as_array().into_iter().flatten();
        causes.filter_map(|cause| cause["field"].as_str()).collect()
    }
}

async fn ask_as(client: &Client, accept: &str, method: &str, path: &str, media: &str, body: &str) -> Answer {
    let request = http::Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", media).body(Body::from(body.as_bytes().to_vec())).unwrap();
    let answer = client.send(request).await.unwrap();
    let code = answer.status().as_u16();
    let warnings = answer.headers().get_all("warning").iter().map(|text| text.to_str().unwrap().to_owned()).collect();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { code, warnings, body: serde_json::from_str(&text).unwrap_or_default(), text }
}

async fn ask(client: &Client, method: &str, path: &str, media: &str, body: &str) -> Answer {
    ask_as(client, JSON, method, path, media, body).await
}

async fn made(client: &Client, path: &str, object: &Value) -> Value {
    let answer = ask(client, "POST", path, JSON, &object.to_string()).await;
    assert_eq!(answer.code, 201, "{path}: {}", answer.text);
    answer.body
}

fn definition(plural: &str, group: &str, kind: &str) -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true}}}}}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [version("v1", true)]}})
}

/// What the requests are about.
async fn world(client: &Client) {
    made(client, MAPS, &json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    made(client, DEPLOYMENTS, &json!({"metadata": {"name": "d"}, "spec": spec})).await;
    crate::default_account(client).await;
    for (name, node) in [("p", ""), ("bound", "n1")] {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        made(client, "/api/v1/namespaces/default/pods", &json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    made(client, DEFINITIONS, &definition("things", "example.com", "Thing")).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}});
    made(client, THINGS, &thing).await;
}

/// What is asked, and the code and the first field at fault of the answer.
type Case = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);

const CASES: &[Case] = &[
    // Deletions.
    ("DELETE", "/api/v1/namespaces/default", JSON, "", 403, ""),
    ("DELETE", "/api/v1/namespaces/kube-system", JSON, "", 403, ""),
    ("DELETE", "/api/v1/namespaces/kube-public", JSON, "", 403, ""),
    ("DELETE", "/api/v1/namespaces/default/configmaps/m", JSON, "{\"kind\": \"Pod\", \"apiVersion\": \"v1\"}", 400, ""),
    // What only a node could answer.
    ("POST", "/api/v1/namespaces/default/pods/none/exec?command=ls", JSON, "", 404, ""),
    ("POST", "/api/v1/namespaces/default/pods/p/exec?command=ls", JSON, "", 400, ""),
    ("POST", "/api/v1/namespaces/default/pods/bound/exec?command=ls", JSON, "", 501, ""),
    // Methods and paths.
    ("PUT", MAPS, JSON, "{}", 405, ""),
    ("PATCH", MAPS, MERGE, "{}", 405, ""),
    ("POST", "/api/v1/namespaces/default/configmaps/m", JSON, "{}", 405, ""),
    ("GET", "/livez/ping", JSON, "", 200, ""),
    ("GET", "/readyz/informer-sync", JSON, "", 200, ""),
    ("GET", "/livez/informer-sync", JSON, "", 404, ""),
    ("GET", "/healthz/poststarthook/rbac/bootstrap-roles", JSON, "", 200, ""),
    ("GET", "/livez/nonsense", JSON, "", 404, ""),
    // Bodies and their forms.
    ("POST", MAPS, APPLY, "{\"metadata\": {\"name\": \"x\"}}", 415, ""),
    ("POST", DEPLOYMENTS, JSON, "{\"metadata\": {\"name\": \"x\"}, \"spec\": {\"replicas\": 3000000000}}", 400, ""),
    (
        "PUT",
        "/apis/example.com/v1/namespaces/default/things/none",
        JSON,
        "{\"apiVersion\": \"example.com/v1\", \"kind\": \"Thing\", \"metadata\": {\"name\": \"none\"}}",
        404,
        "",
    ),
    (
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        JSON,
        "{\"metadata\": {\"name\": \"x\"}, \"spec\": {\"renewTime\": \"2026-01-01T00:00:00Z\"}}",
        400,
        "",
    ),
    (
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        JSON,
        "{\"metadata\": {\"name\": \"x\"}, \"spec\": {\"renewTime\": \"2026-01-01T00:00:00.000001Z\"}}",
        201,
        "",
    ),
    // Options of writes.
    ("PATCH", "/api/v1/namespaces/default/configmaps/m?force=true", MERGE, "{}", 422, "force"),
    ("PATCH", "/apis/apps/v1/namespaces/default/deployments/d/scale?force=false", MERGE, "{}", 422, "force"),
    ("PATCH", "/api/v1/namespaces/default/configmaps/m?fieldManager=a%0Ab", MERGE, "{}", 422, "fieldManager"),
    // Patches.
    ("PATCH", "/api/v1/namespaces/default/configmaps/m", PATCH, "{\"op\": \"remove\"}", 400, ""),
    ("PATCH", "/api/v1/namespaces/default/configmaps/m", PATCH, "[1]", 400, ""),
    ("PATCH", "/api/v1/namespaces/default/configmaps/m", PATCH, "[{\"op\": \"jump\", \"path\": \"/a\"}]", 422, ""),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/m",
        MERGE,
        "{\"metadata\": {\"uid\": \"x\"}}",
        422,
        "metadata.uid",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/m",
        MERGE,
        "{\"metadata\": {\"deletionTimestamp\": \"2026-01-01T00:00:00Z\"}}",
        422,
        "metadata.deletionTimestamp",
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d",
        MERGE,
        "{\"spec\": {\"replicas\": 3000000000}}",
        422,
        "patch",
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d/scale",
        MERGE,
        "{\"spec\": {\"replicas\": 3000000000}}",
        422,
        "patch",
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d",
        STRATEGIC,
        "{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"image\": \"x\"}]}}}}",
        500,
        "",
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d",
        STRATEGIC,
        "{\"spec\": {\"$patch\": \"explode\"}}",
        500,
        "",
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d",
        STRATEGIC,
        "{\"spec\": {\"strategy\": {\"$retainKeys\": \"type\", \"type\": \"Recreate\"}}}",
        400,
        "",
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d",
        STRATEGIC,
        "{\"spec\": {\"strategy\": {\"$retainKeys\": [\"rollingUpdate\"], \"type\": \"Recreate\"}}}",
        400,
        "",
    ),
    // Applies are typed first; what cannot be typed is an error without a reason.
    ("PATCH", "/api/v1/namespaces/default/configmaps/m?fieldManager=f", APPLY, "{\"apiVersion\": \"v1\"}", 500, ""),
    ("PATCH", "/api/v1/namespaces/default/configmaps/m?fieldManager=f", APPLY, "{\"kind\": \"ConfigMap\"}", 400, ""),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/m?fieldManager=f",
        APPLY,
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"m\"}, \"dataa\": {}}",
        500,
        "",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/m?fieldManager=f&fieldValidation=Ignore",
        APPLY,
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"m\"}, \"data\": {\"a\": 1}}",
        500,
        "",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/new?fieldManager=f",
        APPLY,
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"new\", \"uid\": \"x\"}}",
        409,
        "",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/m?fieldManager=f",
        APPLY,
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"m\", \"uid\": \"x\"}}",
        422,
        "metadata.uid",
    ),
    // Definitions.
    (
        "PATCH",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com",
        MERGE,
        "{\"spec\": {\"scope\": \"Cluster\"}}",
        422,
        "spec.scope",
    ),
    (
        "PATCH",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com",
        PATCH,
        "[{\"op\": \"replace\", \"path\": \"/spec/versions/0/name\", \"value\": \"v2\"}]",
        422,
        "status.storedVersions[0]",
    ),
    (
        "PATCH",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com",
        MERGE,
        "{\"spec\": {\"names\": {\"kind\": \"Other\"}}}",
        422,
        "spec.names.kind",
    ),
    (
        "PATCH",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com",
        MERGE,
        "{\"spec\": {\"preserveUnknownFields\": true}}",
        422,
        "spec.preserveUnknownFields",
    ),
    (
        "POST",
        THINGS,
        JSON,
        "{\"apiVersion\": \"example.com/v1\", \"kind\": \"Thing\", \"metadata\": {\"name\": \"e\"}, \"spec\": {\"template\": {}}}",
        422,
        "spec.template.apiVersion",
    ),
    (
        "POST",
        THINGS,
        JSON,
        "{\"apiVersion\": \"example.com/v1\", \"kind\": \"Thing\", \"metadata\": {\"name\": \"e\"}, \"spec\": {\"template\": \
         {\"apiVersion\": \"v1\", \"kind\": \"\"}}}",
        422,
        "spec.template.kind",
    ),
    // Services.
    (
        "POST",
        "/api/v1/namespaces/default/services",
        JSON,
        "{\"metadata\": {\"name\": \"n\"}, \"spec\": {\"type\": \"NodePort\", \"ports\": [{\"port\": 80, \"nodePort\": 80}]}}",
        422,
        "spec.ports[0].nodePort",
    ),
];

#[tokio::test(start_paused = true)]
async fn each_has_its_code_and_its_field() {
    let client = server().client(UserInfo::admin());
    world(&client).await;
    let mut wrong = Vec::new();
    for (method, path, media, body, code, field) in CASES {
        let answer = ask(&client, method, path, media, body).await;
        let named = answer.fields().first().copied().unwrap_or_default().to_owned();
        if (answer.code, named.as_str()) != (*code, *field) {
            wrong.push(format!(
                "{method} {path} {body}: {} {named:?}, not {code} {field:?}: {}",
                answer.code, answer.text
            ));
        }
        if *code == 500 && !answer.body["reason"].is_null() {
            wrong.push(format!("{method} {path} {body}: a reason, {}", answer.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn reviews_name_everything_that_is_wrong() {
    let client = server().client(UserInfo::admin());
    let both = json!({"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/", "verb": "get"}});
    let with_user = |mut spec: Value| {
        spec["user"] = json!("joe");
        spec
    };
    let (local, own, any) = ("localsubjectaccessreviews", "selfsubjectaccessreviews", "subjectaccessreviews");
    let cases: Vec<(&str, Value, u16, Vec<&str>)> = vec![
        (own, json!({}), 422, vec!["spec.resourceAttributes"]),
        (own, both.clone(), 422, vec!["spec.nonResourceAttributes"]),
        (any, json!({}), 422, vec!["spec.resourceAttributes", "spec.user"]),
        (any, with_user(both), 422, vec!["spec.nonResourceAttributes"]),
        (any, with_user(json!({"nonResourceAttributes": {"path": "/", "verb": "get"}})), 201, vec![]),
        (
            local,
            with_user(json!({"resourceAttributes": {"namespace": "other"}})),
            422,
            vec!["spec.resourceAttributes.namespace"],
        ),
        (local, with_user(json!({"nonResourceAttributes": {"path": "/"}})), 422, vec!["spec.nonResourceAttributes"]),
    ];
    for (plural, spec, code, fields) in cases {
        let (place, metadata) = if plural == local {
            (format!("{REVIEWS}/namespaces/default/{plural}"), json!({"namespace": "default"}))
        } else {
            (format!("{REVIEWS}/{plural}"), json!({}))
        };
        let answer = ask(&client, "POST", &place, JSON, &json!({"metadata": metadata, "spec": spec}).to_string()).await;
        assert_eq!((answer.code, answer.fields()), (code, fields), "{plural} {spec}: {}", answer.text);
    }
    let answer = ask(&client, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", JSON, "{\"spec\": {}}").await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (400, Some("BadRequest")));
}

#[tokio::test(start_paused = true)]
async fn groups_of_the_project_say_where_they_were_approved() {
    let client = server().client(UserInfo::admin());
    let field = "metadata.annotations[api-approved.kubernetes.io]";
    let cases = [
        ("gizmos", "", 422, "Missing"),
        ("gizmos", "somewhere", 422, "Invalid"),
        ("gizmos", "https://example.com/1", 201, "True"),
        ("gears", "unapproved, for a test", 201, "False"),
    ];
    for (plural, said, code, state) in cases {
        let kind = plural.to_uppercase();
        let mut definition = definition(plural, "test.k8s.io", &kind);
        if !said.is_empty() {
            definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": said});
        }
        let answer = ask(&client, "POST", DEFINITIONS, JSON, &definition.to_string()).await;
        assert_eq!(answer.code, code, "{said}: {}", answer.text);
        if code == 422 {
            assert_eq!(answer.fields(), [field]);
            continue;
        }
        let live = ask(&client, "GET", &format!("{DEFINITIONS}/{plural}.test.k8s.io"), JSON, "").await.body;
        let conditions = live["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|it| it["type"] == "KubernetesAPIApprovalPolicyConformant").unwrap();
        assert_eq!(found["status"], state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_knows_its_own_service_and_priorities() {
    let client = server().client(UserInfo::admin());
    let service = ask(&client, "GET", "/api/v1/namespaces/default/services/kubernetes", JSON, "").await.body;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
        assert_eq!(ask(&client, "GET", &format!("{classes}/{name}"), JSON, "").await.body["value"], value);
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let shown = ask_as(&client, table, "GET", classes, JSON, "").await.body;
    let names: Vec<&str> =
        shown["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"]);
    let storage = "/apis/storage.k8s.io/v1/storageclasses";
    let mark = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    made(&client, storage, &json!({"metadata": {"name": "fast"}, "provisioner": "p"})).await;
    made(&client, storage, &json!({"metadata": {"name": "slow", "annotations": mark}, "provisioner": "p"})).await;
    let shown = ask_as(&client, table, "GET", storage, JSON, "").await.body;
    let names: Vec<&Value> = shown["rows"].as_array().unwrap().iter().map(|row| &row["cells"][0]).collect();
    assert_eq!(names, ["fast", "slow (default)"]);
    let claim = json!({"metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = made(&client, "/api/v1/namespaces/default/persistentvolumeclaims", &claim).await;
    assert_eq!(claim["spec"]["storageClassName"], "slow");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
}

#[tokio::test(start_paused = true)]
async fn dependents_of_old_kinds_stay_unless_said_otherwise() {
    let client = server().client(UserInfo::admin());
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let path = "/apis/batch/v1/namespaces/default/jobs";
    for (name, body, warned, held) in
        [("quiet", json!({"propagationPolicy": "Background"}), false, false), ("default", json!({}), true, true)]
    {
        made(&client, path, &json!({"metadata": {"name": name}, "spec": {"template": template}})).await;
        let answer = ask(&client, "DELETE", &format!("{path}/{name}"), JSON, &body.to_string()).await;
        let (text, live) = (answer.warnings.join(" "), &answer.body["metadata"]["finalizers"]);
        assert_eq!(text.contains("preserved by default"), warned, "{text}");
        assert_eq!(*live == json!(["orphan"]), held, "{}", answer.text);
    }
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let mut template = template;
    template["spec"]["restartPolicy"] = json!("Always");
    made(&client, path, &json!({"metadata": {"name": "r"}, "spec": {"replicas": 0, "template": template}})).await;
    let answer = ask(&client, "DELETE", &format!("{path}/r"), JSON, "").await;
    assert_eq!(answer.body["metadata"]["finalizers"], json!(["orphan"]), "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn a_node_port_is_nobody_elses_and_goes_with_the_type() {
    let client = server().client(UserInfo::admin());
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, port: u16| {
        let ports = json!([{"name": "a", "port": 80, "nodePort": port}, {"name": "b", "port": 81}]);
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}})
    };
    let first = made(&client, path, &service("first", 30080)).await;
    let second = first["spec"]["ports"][1]["nodePort"].as_u64().unwrap();
    assert!((30000..32768).contains(&second) && second != 30080);
    let taken = ask(&client, "POST", path, JSON, &service("second", 30080).to_string()).await;
    assert_eq!((taken.code, taken.fields()), (422, vec!["spec.ports[0].nodePort"]));
    // Known again by its name, whatever its place.
    let ports = json!({"spec": {"ports": [{"name": "b", "port": 81}, {"name": "a", "port": 80}]}});
    let moved = ask(&client, "PATCH", &format!("{path}/first"), MERGE, &ports.to_string()).await.body;
    assert_eq!(moved["spec"]["ports"][0]["nodePort"], second);
    let inside = ask(&client, "PATCH", &format!("{path}/first"), MERGE, "{\"spec\": {\"type\": \"ClusterIP\"}}").await;
    assert_eq!((inside.code, &inside.body["spec"]["ports"][0]["nodePort"]), (200, &Value::Null), "{}", inside.text);
    made(&client, path, &service("second", 30080)).await;
}

#[tokio::test(start_paused = true)]
async fn old_paths_watch_checks_are_listed_and_old_kinds_warn() {
    let client = server().client(UserInfo::admin());
    made(&client, MAPS, &json!({"metadata": {"name": "m"}})).await;
    for path in ["configmaps", "namespaces/default/configmaps", "namespaces/default/configmaps/m"] {
        let answer = ask(&client, "GET", &format!("/api/v1/watch/{path}?timeoutSeconds=1"), JSON, "").await;
        let first: Value = serde_json::from_str(answer.text.lines().next().unwrap_or_default()).unwrap();
        assert_eq!((&first["type"], &first["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("m")), "{path}");
    }
    let listed = ask(&client, "GET", "/readyz?verbose&exclude=log", JSON, "").await.text;
    assert!(
        listed.starts_with("[+]ping ok\n[+]log excluded: ok\n") && listed.ends_with("\nreadyz check passed\n"),
        "{listed}"
    );
    let warned = ask(&client, "GET", "/api/v1/namespaces/default/endpoints", JSON, "").await.warnings;
    assert!(warned.len() == 1 && warned[0].contains("deprecated in v1.33+"), "{warned:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_document_repeats_is_a_matter_of_strictness() {
    let client = server().client(UserInfo::admin());
    let text = |name: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  a: one\n  a: two\n")
    };
    let post = |level: &str, name: &str| {
        let (client, path, text) = (client.clone(), format!("{MAPS}?fieldValidation={level}"), text(name));
        async move { ask(&client, "POST", &path, YAML, &text).await }
    };
    let warned = post("Warn", "w").await;
    assert_eq!((warned.code, &warned.body["data"]["a"]), (201, &json!("two")), "{}", warned.text);
    assert!(warned.warnings.len() == 1 && warned.warnings[0].contains("duplicate"), "{:?}", warned.warnings);
    assert_eq!(post("Ignore", "i").await.warnings.len(), 0);
    assert_eq!(post("Strict", "s").await.code, 400);
}
