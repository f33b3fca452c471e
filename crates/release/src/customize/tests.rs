use kubevirt_api::kubevirt::KubeVirtSpec;
use serde_json::json;

use super::*;
use crate::config::DeploymentConfig;
use crate::desired::{Inputs, desired};
use crate::{certificates, render};

fn read(customize: Value) -> Result<Customizations, Vec<Refused>> {
    Customizations::read(Some(&serde_json::from_value(customize).unwrap()))
}

fn patch(kind: &str, name: &str, way: &str, change: Value) -> Value {
    json!({"resourceType": kind, "resourceName": name, "type": way, "patch": change.to_string()})
}

/// The objects of a CR of a spec.
fn made(spec: Value) -> Result<Vec<Object>, Vec<String>> {
    let spec: KubeVirtSpec = serde_json::from_value(spec).unwrap();
    let customizations = Customizations::read(spec.customize_components.as_ref()).map_err(|all| told(&all))?;
    let config = DeploymentConfig {
        namespace: "kubevirt".into(),
        registry: "localhost/kubevirt".into(),
        kubevirt_version: "v0.2.0".into(),
        ..Default::default()
    };
    let inputs =
        Inputs { spec: &spec, customizations: &customizations, generation: 7, nodes: 3, control_plane_nodes: 3 };
    desired(&render(&config), &inputs).map_err(|all| told(&all))
}

fn told(refused: &[Refused]) -> Vec<String> {
    refused.iter().map(|one| format!("{} {one}", one.why.code())).collect()
}

fn patched(patches: Vec<Value>) -> Result<Vec<Object>, Vec<String>> {
    made(json!({"customizeComponents": {"patches": patches}}))
}

fn named<'a>(objects: &'a [Object], kind: Kind, name: &str) -> &'a Object {
    objects.iter().find(|object| object.kind() == kind && object.name() == name).unwrap()
}

/// Keys of the objects in which two sets differ, the stamp of the customization aside.
fn different(a: &[Object], b: &[Object]) -> Vec<String> {
    let unstamped = |object: &Object| {
        let mut object = object.clone();
        if is_customizable(object.kind()) {
            object.set_annotation("kubevirt.io/customizer-identifier", "");
        }
        object
    };
    let differs = |one: &&Object| !b.iter().any(|other| unstamped(other) == unstamped(one));
    a.iter().filter(differs).map(|object| object.key().to_string()).collect()
}

#[test]
fn each_way_changes_the_object_that_is_named_and_no_other() {
    let plain = made(json!({})).unwrap();
    let annotated = json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}});
    let cases = [
        (patch("Deployment", "virt-controller", "strategic", annotated.clone()), "Deployment kubevirt/virt-controller"),
        (patch("dEPLOYMENT", "VIRT-controller", "merge", annotated), "Deployment kubevirt/virt-controller"),
        (
            patch(
                "DaemonSet",
                "virt-handler",
                "json",
                json!([{"op": "add", "path": "/spec/template/metadata/annotations/a", "value": "b"}]),
            ),
            "DaemonSet kubevirt/virt-handler",
        ),
        (
            patch("Service", "kubevirt-prometheus-metrics", "merge", json!({"metadata": {"labels": {"a": "b"}}})),
            "Service kubevirt/kubevirt-prometheus-metrics",
        ),
        (
            patch(
                "ValidatingWebhookConfiguration",
                "virt-api-validator",
                "json",
                json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]),
            ),
            "ValidatingWebhookConfiguration virt-api-validator",
        ),
        (
            patch("APIService", "v1.subresources.kubevirt.io", "strategic", json!({"spec": {"versionPriority": 16}})),
            "APIService v1.subresources.kubevirt.io",
        ),
    ];
    for (patch, expected) in cases {
        let changed = patched(vec![patch]).unwrap();
        assert_eq!(different(&changed, &plain), [expected]);
    }
}

#[test]
fn a_star_stands_for_every_name_or_every_kind() {
    let plain = made(json!({})).unwrap();
    let marked = json!({"metadata": {"annotations": {"a": "b"}}});
    let deployments = patched(vec![patch("Deployment", "*", "merge", marked.clone())]).unwrap();
    assert_eq!(
        different(&deployments, &plain),
        ["Deployment kubevirt/virt-api", "Deployment kubevirt/virt-controller"]
    );
    let all = patched(vec![patch("*", "*", "merge", marked)]).unwrap();
    for object in &all {
        assert_eq!(object.annotation("a").is_some(), is_customizable(object.kind()), "{}", object.key());
    }
}

#[test]
fn doing_it_again_gives_the_same() {
    let removal = patch(
        "Deployment",
        "virt-api",
        "json",
        json!([
            {"op": "remove", "path": "/spec/template/spec/containers/0/resources"},
            {"op": "add", "path": "/spec/template/spec/containers/0/env", "value": [{"name": "A", "value": "b"}]},
            {"op": "add", "path": "/spec/template/spec/tolerations/-", "value": {"key": "k", "operator": "Exists"}},
        ]),
    );
    let first = patched(vec![removal.clone()]).unwrap();
    let second = patched(vec![removal]).unwrap();
    assert_eq!(first, second);
    let api = named(&first, Kind::Deployment, "virt-api");
    assert_eq!(api.at("/spec/template/spec/containers/0/resources"), None);
    assert_eq!(api.at("/spec/template/spec/tolerations/1/key"), Some(&json!("k")), "before placement adds its own");
}

#[test]
fn lists_merge_by_name_in_a_strategic_patch() {
    let limits = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "virt-handler", "resources": {"limits": {"memory": "1Gi"}}}]}}}});
    let objects = patched(vec![patch("DaemonSet", "virt-handler", "strategic", limits)]).unwrap();
    let handler = named(&objects, Kind::DaemonSet, "virt-handler").at("/spec/template/spec/containers").unwrap();
    assert_eq!(handler.as_array().unwrap().len(), 1);
    assert_eq!(handler[0]["resources"]["limits"], json!({"memory": "1Gi"}));
    assert!(handler[0]["image"].is_string(), "the rest of the container stays");
}

#[test]
fn a_changed_number_of_pods_feeds_the_budget() {
    let replicas = |number: u32| {
        let change = json!([{"op": "replace", "path": "/spec/replicas", "value": number}]);
        let objects = patched(vec![patch("Deployment", "virt-api", "json", change)]).unwrap();
        assert_eq!(named(&objects, Kind::Deployment, "virt-api").at("/spec/replicas"), Some(&json!(number)));
        let budget = objects.iter().find(|object| object.name() == "virt-api-pdb");
        budget.map(|budget| budget.at("/spec/minAvailable").unwrap().as_u64().unwrap())
    };
    assert_eq!([1, 2, 5].map(replicas), [None, Some(1), Some(4)]);
    let change = json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]);
    let patches = json!({"patches": [patch("Deployment", "virt-api", "json", change)]});
    let objects = made(json!({"infra": {"replicas": 3}, "customizeComponents": patches})).unwrap();
    assert_eq!(
        named(&objects, Kind::Deployment, "virt-api").at("/spec/replicas"),
        Some(&json!(3)),
        "of all Deployments"
    );
}

#[test]
fn flags_become_the_command_and_the_arguments_stay() {
    let plain = made(json!({})).unwrap();
    let objects = made(json!({
        "customizeComponents": {"flags": {
            "api": {"V": "5", "Log-Format": "JSON", "a-switch": "", "b-switch": "True", "c-switch": "false"},
            "handler": {"v": "9"},
        }},
        "configuration": {"virtualMachineInstancesPerNode": 10},
    }))
    .unwrap();
    let words = |objects: &[Object], kind, name, list: &str| {
        let pointer = format!("/spec/template/spec/containers/0/{list}");
        named(objects, kind, name).at(&pointer).unwrap().to_string()
    };
    assert_eq!(
        words(&objects, Kind::Deployment, "virt-api", "command"),
        r#"["virt-api","--a-switch","--b-switch=true","--c-switch=false","--log-format","json","--v","5"]"#
    );
    assert_eq!(
        words(&objects, Kind::DaemonSet, "virt-handler", "command"),
        r#"["virt-handler","--v","9","--max-devices","10"]"#
    );
    for (kind, name) in [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller")] {
        assert_eq!(words(&objects, kind, name, "args"), words(&plain, kind, name, "args"));
    }
    assert_eq!(words(&objects, Kind::Deployment, "virt-controller", "command"), r#"["virt-controller"]"#);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_name_of_the_change() {
    let good = patch("Deployment", "virt-api", "merge", json!({"metadata": {"labels": {"a": "b"}}}));
    let container = |change: Value| json!({"spec": {"template": {"spec": {"containers": [change]}}}});
    let at = "spec.customizeComponents.patches[1] (Deployment virt-api)";
    let to = format!("{at} to Deployment kubevirt/virt-api cannot be applied");
    let cases = [
        (
            "pony",
            json!({}),
            format!(r#"UnknownPatchType {at} cannot be applied: its type "pony" is none of json, merge, strategic"#),
        ),
        ("merge", json!([]), format!("PatchMalformed {at} cannot be applied: a patch of type merge must be an object")),
        (
            "strategic",
            json!("x"),
            format!("PatchMalformed {at} cannot be applied: a patch of type strategic must be an object"),
        ),
        (
            "json",
            json!({}),
            format!("PatchMalformed {at} cannot be applied: a patch of type json must be a list of operations"),
        ),
        (
            "json",
            json!([{"op": "remove", "path": "/spec/nothing"}]),
            format!("PatchNotApplicable {to}: operation 0 of the patch: /spec/nothing does not exist"),
        ),
        (
            "json",
            json!([{"op": "test", "path": "/spec/replicas", "value": 77}]),
            format!("PatchNotApplicable {to}: operation 0 of the patch: /spec/replicas does not have the tested value"),
        ),
        (
            "strategic",
            container(json!({"image": "x"})),
            format!(
                r#"PatchNotApplicable {to}: spec.template.spec.containers: an item of the patch lacks the merge key "name""#
            ),
        ),
        (
            "merge",
            json!({"metadata": {"name": "x"}}),
            format!("PatchReserved {to}: metadata.name is the operator's and cannot be changed"),
        ),
        (
            "merge",
            json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
            format!(
                "PatchReserved {to}: metadata.labels.app.kubernetes.io/managed-by is the operator's and cannot be changed"
            ),
        ),
        (
            "json",
            json!([{"op": "replace", "path": "/spec/selector", "value": {}}]),
            format!("PatchReserved {to}: spec.selector is the operator's and cannot be changed"),
        ),
        (
            "merge",
            json!({"spec": {"pony": 1}}),
            format!("PatchedInvalid {to}: the result is not a valid object: spec.pony: unknown field"),
        ),
        (
            "merge",
            json!({"spec": {"replicas": "many"}}),
            format!(
                "PatchedInvalid {to}: the result is not a valid object: spec.replicas: Invalid value: \"many\": must be of type integer"
            ),
        ),
    ];
    for (way, change, expected) in cases {
        assert_eq!(patched(vec![good.clone(), patch("Deployment", "virt-api", way, change)]), Err(vec![expected]));
    }
    let text = json!({"resourceType": "*", "resourceName": "*", "type": "json", "patch": "{no json"});
    let refused = patched(vec![text]).unwrap_err();
    assert!(
        refused[0].starts_with("PatchNotJson spec.customizeComponents.patches[0] (* *) cannot be applied: "),
        "{refused:?}"
    );
}

#[test]
fn the_change_that_broke_an_object_is_blamed_and_one_that_was_mended_is_not() {
    let image = |op: &str| {
        let operation = match op {
            "remove" => json!({"op": op, "path": "/spec/template/spec/containers/0/name"}),
            _ => json!({"op": op, "path": "/spec/template/spec/containers/0/name", "value": "virt-api"}),
        };
        patch("Deployment", "virt-api", "json", json!([operation]))
    };
    let harmless = patch("Deployment", "*", "merge", json!({"metadata": {"labels": {"a": "b"}}}));
    assert!(patched(vec![image("remove"), harmless.clone(), image("add")]).is_ok());
    let refused = patched(vec![harmless.clone(), image("remove"), harmless]).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("patches[1]"), "{refused:?}");
    assert!(refused[0].contains("containers[0].name"), "{refused:?}");
}

#[test]
fn a_change_that_fails_everywhere_is_told_once() {
    let refused = patched(vec![patch("*", "*", "json", json!([{"op": "remove", "path": "/nowhere"}]))]).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
}

#[test]
fn of_a_secret_only_the_metadata_is_shown() {
    let secret = |change: Value| {
        let customizations = read(json!({"patches": [patch("Secret", "*", "merge", change)]})).unwrap();
        let mut secret = certificates::blanks(certificates::all("kubevirt"), "kubevirt").remove(0);
        secret.value_mut()["data"] = json!({"tls.key": "c2VjcmV0"});
        customizations.apply(&mut secret).map(|()| secret).map_err(|refused| refused.to_string())
    };
    let changed = secret(json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    assert_eq!((changed.label("a"), changed.at("/data/tls.key")), (Some("b"), Some(&json!("c2VjcmV0"))));
    let refused = secret(json!({"data": {"tls.key": "c3Rvcm4="}})).unwrap_err();
    assert!(refused.contains("data is the operator's"), "{refused}");
}

#[test]
fn the_identifier_tells_sets_of_changes_apart_and_not_their_order() {
    let of = |customize: Value| read(customize).unwrap().identifier().to_owned();
    let (a, b) =
        (patch("*", "*", "merge", json!({})), patch("*", "*", "merge", json!({"metadata": {"labels": {"a": "b"}}})));
    assert_eq!(of(json!({"patches": [a, b]})), of(json!({"patches": [b, a]})));
    assert_ne!(of(json!({"patches": [a]})), of(json!({"patches": [b]})));
    assert_eq!(of(json!({})), Customizations::none().identifier());
    // SHA-1 of `{}`.
    assert_eq!(of(json!({})), "bf21a9e8fbc5a3846fb05b4fa0859e0917b2202f");
    let objects = patched(vec![b]).unwrap();
    let stamps: std::collections::BTreeSet<_> =
        objects.iter().filter_map(|object| object.annotation("kubevirt.io/customizer-identifier")).collect();
    assert_eq!(stamps.len(), 1);
}

#[test]
fn a_job_is_changed_like_any_other_object() {
    let change = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
    let changes =
        read(json!({"patches": [patch("Job", "virt-operator-install-strategy", "strategic", change)]})).unwrap();
    let mut job = Object::from_value(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "virt-operator-install-strategy", "namespace": "kubevirt"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}))
    .unwrap();
    changes.apply(&mut job).unwrap();
    assert_eq!(job.at("/spec/template/metadata/labels/a"), Some(&json!("b")));
}

#[test]
fn changes_are_remembered_as_they_were_given() {
    let given = json!({"patches": [patch("Service", "virt-api", "merge", json!({"metadata": {"labels": {"a": "b"}}}))],
        "flags": {"api": {"v": "5"}}});
    let changes = read(given).unwrap();
    assert_eq!(Customizations::recall(changes.given()), Some(changes));
    assert_eq!(Customizations::none().given(), "");
    assert_eq!(read(json!({"patches": []})).unwrap().given(), "");
    assert_eq!(Customizations::recall("no changes"), None);
}
