//! Rules of definitions in CEL, through the front door.

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{admin, cluster, create, namespaced, object};

fn definition(rules: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.io"},
        "spec": {
            "group": "example.io", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
                    "size": {"type": "integer", "default": 1}, "limit": {"type": "integer"},
                }}},
            }}}],
        },
    })
}

fn definitions(client: &Client) -> Api<DynamicObject> {
    cluster(client, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
}

fn status(error: kube::Error) -> (u16, String) {
    let kube::Error::Api(status) = error else { panic!("not an answer of the server: {error}") };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes = causes.map(|cause| format!("{} {}: {}", cause.reason, cause.field, cause.message));
    (status.code, causes.collect::<Vec<_>>().join("; "))
}

#[tokio::test(start_paused = true)]
async fn rules_judge_new_and_changed_objects_after_defaults() {
    let client = admin();
    let rules = json!([
        {"rule": "self.size <= self.limit", "message": "too big"},
        {"rule": "self.limit >= oldSelf.limit", "message": "the limit must not shrink", "fieldPath": ".limit"},
    ]);
    create(&definitions(&client), definition(rules)).await;
    let boxes = namespaced(&client, "example.io/v1", "Box", "boxes");
    let new = |limit: i64| json!({"apiVersion": "example.io/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"limit": limit}});
    let refused = boxes.create(&PostParams::default(), &object(new(0))).await.unwrap_err();
    assert_eq!(status(refused), (422, "FieldValueInvalid spec: Invalid value: too big".to_owned()));
    create(&boxes, new(5)).await;
    let patch = |limit: i64| Patch::Merge(json!({"spec": {"limit": limit}}));
    let refused = boxes.patch("b", &PatchParams::default(), &patch(4)).await.unwrap_err();
    assert_eq!(
        status(refused),
        (422, "FieldValueInvalid spec.limit: Invalid value: the limit must not shrink".to_owned())
    );
    let changed = boxes.patch("b", &PatchParams::default(), &patch(6)).await.unwrap();
    assert_eq!(changed.data["spec"], json!({"size": 1, "limit": 6}));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_does_not_compile_keeps_its_definition_out() {
    let client = admin();
    let rules = json!([{"rule": "self.sise <= self.limit"}]);
    let refused = definitions(&client).create(&PostParams::default(), &object(definition(rules))).await.unwrap_err();
    let (code, causes) = status(refused);
    assert_eq!(code, 422);
    let field = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    assert!(causes.starts_with(&format!("FieldValueInvalid {field}: ")), "{causes}");
    assert!(causes.ends_with("undefined field 'sise'"), "{causes}");
}
