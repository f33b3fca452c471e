//! Admission policies, through the front door.

use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use nanokube::{MemorySink, Nanokube, UserInfo};
use serde_json::{Value, json};

use super::{admin, cluster, create, namespaced, object, options, refusal};

const GROUP: &str = "admissionregistration.k8s.io/v1";

async fn policy(client: &Client, spec: Value) {
    let mut spec = spec;
    if spec["matchConstraints"].is_null() {
        spec["matchConstraints"] = json!({"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]},
        ]});
    }
    create(
        &cluster(client, GROUP, "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        json!({"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec}),
    )
    .await;
}

async fn bind(client: &Client, spec: Value) {
    let mut spec = spec;
    spec["policyName"] = json!("p");
    create(
        &cluster(client, GROUP, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        json!({"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": spec}),
    )
    .await;
}

fn maps(client: &Client) -> Api<DynamicObject> {
    namespaced(client, "v1", "ConfigMap", "configmaps")
}

async fn attempt(client: &Client, name: &str, data: Value) -> Result<(), (u16, String)> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    maps(client).create(&PostParams::default(), &object(map)).await.map(drop).map_err(refusal)
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_in_force_once_bound() {
    let client = admin();
    policy(
        &client,
        json!({
            "variables": [
                {"name": "size", "expression": "size(object.data)"},
                {"name": "twice", "expression": "variables.size * 2"},
            ],
            "matchConditions": [{"name": "not-free", "expression": "object.metadata.name != 'free'"}],
            "validations": [
                {"expression": "variables.twice <= 2", "messageExpression": "'twice is ' + string(variables.twice)"},
                {"expression": "namespaceObject.metadata.name == request.namespace", "reason": "Forbidden"},
            ],
        }),
    )
    .await;
    let large = json!({"a": "1", "b": "2"});
    attempt(&client, "before", large.clone()).await.unwrap();
    bind(&client, json!({"validationActions": ["Deny"]})).await;
    attempt(&client, "small", json!({"a": "1"})).await.unwrap();
    attempt(&client, "free", large.clone()).await.unwrap();
    let why = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: twice is 4";
    assert_eq!(attempt(&client, "large", large).await, Err((422, format!("configmaps \"large\" is forbidden: {why}"))));
}

#[tokio::test(start_paused = true)]
async fn a_failure_denies_or_is_ignored_as_the_policy_says() {
    for (policy_says, expected) in [
        ("Ignore", Ok(())),
        (
            "Fail",
            Err((
                422,
                "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: expression \
                 'object.nope == 1' resulted in error: no such key: nope"
                    .to_owned(),
            )),
        ),
    ] {
        let client = admin();
        policy(&client, json!({"failurePolicy": policy_says, "validations": [{"expression": "object.nope == 1"}]})).await;
        bind(&client, json!({"validationActions": ["Deny"]})).await;
        assert_eq!(attempt(&client, "x", json!({})).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn warnings_and_audit_do_not_refuse() {
    let audit = MemorySink::default();
    let client = Nanokube::new(options().with_audit(audit.clone())).client(UserInfo::admin());
    policy(
        &client,
        json!({
            "validations": [{"expression": "false", "message": "never"}],
            "auditAnnotations": [{"key": "name", "valueExpression": "object.metadata.name"}],
        }),
    )
    .await;
    bind(&client, json!({"validationActions": ["Warn", "Audit"]})).await;
    attempt(&client, "x", json!({})).await.unwrap();
    let event = audit.events().into_iter().find(|event| event["objectRef"]["name"] == "x").unwrap();
    assert_eq!(event["annotations"]["p/name"], "x");
    let recorded: Value = serde_json::from_str(
        event["annotations"]["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!(recorded[0]["message"], "never");
}

#[tokio::test(start_paused = true)]
async fn parameters_come_from_the_binding() {
    let client = admin();
    policy(
        &client,
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]},
            ], "objectSelector": {"matchLabels": {}}},
            "validations": [{"expression": "size(object.data) <= int(params.data.most)", "message": "too many"}],
        }),
    )
    .await;
    attempt(&client, "limits", json!({"most": "1"})).await.unwrap();
    let reference = json!({"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"});
    bind(&client, json!({"validationActions": ["Deny"], "paramRef": reference})).await;
    attempt(&client, "one", json!({"a": "1"})).await.unwrap();
    let (code, message) = attempt(&client, "two", json!({"a": "1", "b": "1"})).await.unwrap_err();
    assert!(code == 422 && message.ends_with("too many"), "{message}");
    maps(&client).delete("limits", &Default::default()).await.unwrap();
    let (code, message) = attempt(&client, "one-more", json!({"a": "1"})).await.unwrap_err();
    assert!(code == 422 && message.contains("no params found"), "{message}");
}
