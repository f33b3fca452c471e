use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use nanokube::UserInfo;
use serde_json::json;

use crate::{code, create, namespaced, object, resource, server};

fn definition() -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "required": ["max"], "properties": {
                            "max": {"type": "integer"}, "count": {"type": "integer", "default": 1}}},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}},
                {"name": "v1alpha1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_definition_serves_until_it_is_deleted() {
    let client = server().client(UserInfo::admin());
    let definitions: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
    );
    let things = namespaced(&client, "example.com/v1", "Thing", "things");
    assert_eq!(code(things.get("t").await.unwrap_err()), 404);
    create(&definitions, definition()).await;
    let settled = definitions.get("things.example.com").await.unwrap();
    let conditions: Vec<_> = settled.data["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["type"].clone(), c["status"].clone()))
        .collect();
    assert_eq!(conditions, [(json!("NamesAccepted"), json!("True")), (json!("Established"), json!("True"))]);
    assert_eq!(settled.data["spec"]["names"]["listKind"], "ThingList");

    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"},
        "spec": {"max": 3, "junk": 1}, "status": {"up": true}});
    let made = create(&things, thing).await;
    assert_eq!(made.data, json!({"spec": {"max": 3, "count": 1}}), "pruned, defaulted, without status");
    let wrong =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "u"}, "spec": {"max": "x"}});
    let refused = things.create(&PostParams::default(), &object(wrong)).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("not an answer") };
    assert_eq!(status.details.unwrap().causes[0].field, "spec.max");

    let old = namespaced(&client, "example.com/v1alpha1", "Thing", "things").get("t").await.unwrap();
    assert_eq!(old.types.unwrap().api_version, "example.com/v1alpha1");
    let up = Patch::Merge(json!({"status": {"up": true}, "spec": {"max": 9}}));
    let after = things.patch_status("t", &PatchParams::default(), &up).await.unwrap();
    assert_eq!((&after.data["spec"]["max"], &after.data["status"]["up"]), (&json!(3), &json!(true)));

    let hold = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/x"]}}));
    things.patch("t", &PatchParams::default(), &hold).await.unwrap();
    definitions.delete("things.example.com", &DeleteParams::default()).await.unwrap();
    assert!(definitions.get("things.example.com").await.is_ok(), "an object is left");
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    things.patch("t", &PatchParams::default(), &release).await.unwrap();
    assert_eq!(code(definitions.get("things.example.com").await.unwrap_err()), 404);
    assert_eq!(code(things.get("t").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn an_object_is_stored_in_the_storage_version_at_its_next_write_even_unchanged() {
    let client = server().client(UserInfo::admin());
    let definitions: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
    );
    let things = namespaced(&client, "example.com/v1", "Thing", "things");
    create(&definitions, definition()).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"max": 3}});
    let made = create(&things, thing).await;
    let parameters = PatchParams::default();
    let unchanged = Patch::Merge(json!({"metadata": {"resourceVersion": made.metadata.resource_version}}));
    let same = things.patch("t", &parameters, &unchanged).await.expect("it is as it was seen");
    assert_eq!(same, made, "nothing is written where nothing changes");

    let storage = Patch::Json::<()>(
        serde_json::from_value(json!([
            {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
            {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
        ]))
        .expect("a JSON patch"),
    );
    let changed = definitions.patch("things.example.com", &parameters, &storage).await.expect("a change");
    assert_eq!(changed.data["status"]["storedVersions"], json!(["v1", "v1alpha1"]));
    let stored = things.patch("t", &parameters, &unchanged).await.expect("it is as it was seen");
    assert_ne!(stored.metadata.resource_version, made.metadata.resource_version, "it is stored in the new version");
    assert_eq!((&stored.data, &stored.metadata.generation), (&made.data, &made.metadata.generation));
    assert_eq!(stored.metadata.managed_fields, made.metadata.managed_fields, "nobody has changed anything");
    assert_eq!(code(things.patch("t", &parameters, &unchanged).await.unwrap_err()), 409, "it is another version now");
    let again = Patch::Merge(json!({}));
    assert_eq!(things.patch("t", &parameters, &again).await.expect("it is there"), stored, "once is enough");

    let record = Patch::Merge(json!({"status": {"storedVersions": ["v1alpha1"]}}));
    let shorter = definitions.patch_status("things.example.com", &parameters, &record).await;
    assert_eq!(shorter.expect("no object is left in v1").data["status"]["storedVersions"], json!(["v1alpha1"]));
}

#[tokio::test(start_paused = true)]
async fn a_bad_definition_is_refused() {
    let client = server().client(UserInfo::admin());
    let definitions: Api<DynamicObject> = Api::all_with(
        client,
        &resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
    );
    let mut wrong_name = definition();
    wrong_name["metadata"]["name"] = json!("other.example.com");
    let mut two_storages = definition();
    two_storages["spec"]["versions"][1]["storage"] = json!(true);
    let mut no_type = definition();
    no_type["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = json!(null);
    for (case, field) in [
        (wrong_name, "metadata.name"),
        (two_storages, "spec.versions"),
        (no_type, "spec.versions[0].schema.openAPIV3Schema.properties[spec].type"),
    ] {
        let refused = definitions.create(&PostParams::default(), &object(case)).await.unwrap_err();
        let kube::Error::Api(status) = refused else { panic!("not an answer") };
        assert_eq!((status.code, status.details.unwrap().causes[0].field.as_str()), (422, field));
    }
}
