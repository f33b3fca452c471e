use serde_json::{Value, json};

use super::drift;

const IGNORED: [&str; 1] = ["kubevirt.io/generation"];

fn seen(wanted: &Value, live: &Value) -> String {
    drift(wanted, live, &IGNORED).map_or_else(|| "nothing".to_owned(), |drift| drift.to_string())
}

#[test]
fn what_the_server_and_others_add_is_no_drift() {
    let wanted = json!({
        "metadata": {"name": "a", "labels": {"ours": ""}, "annotations": {"kubevirt.io/generation": "2"}},
        "spec": {
            "replicas": 2,
            "hostPID": false,
            "strategy": {},
            "template": {"metadata": {"creationTimestamp": null}},
            "ports": [{"port": 443, "targetPort": 8443}],
            "env": [{"name": "EMPTY", "value": ""}],
            "resources": {"requests": {"cpu": "0.5", "memory": 1024}, "limits": {"memory": "1Gi"}},
        },
        "status": {"replicas": 0},
    });
    let live = json!({
        "metadata": {
            "name": "a", "uid": "u", "generation": 3, "labels": {"ours": "", "theirs": "x"},
            "annotations": {"kubevirt.io/generation": "1", "deployment.kubernetes.io/revision": "1"},
        },
        "spec": {
            "replicas": 2,
            "template": {"metadata": {}},
            "ports": [{"port": 443, "targetPort": 8443, "protocol": "TCP"}],
            "env": [{"name": "EMPTY"}],
            "resources": {"requests": {"cpu": "500m", "memory": "1024"}, "limits": {"memory": "1024Mi"}},
        },
        "status": {"replicas": 2},
    });
    assert_eq!(seen(&wanted, &live), "nothing");
}

#[test]
fn what_was_edited_is_named() {
    let wanted = json!({"metadata": {"labels": {"a": "", "b": "1"}}, "spec": {"c": [{"name": "x", "image": "i:1"}]}});
    let with = |pointer: &str, value: Value| {
        let mut live = wanted.clone();
        *live.pointer_mut(pointer).expect("a field of the object") = value;
        seen(&wanted, &live)
    };
    assert_eq!(with("/spec/c/0/image", json!("i:2")), "spec.c[0].image has another value");
    assert_eq!(with("/spec/c/0", json!({"name": "x"})), "spec.c[0].image is missing");
    assert_eq!(with("/spec/c", json!([])), "spec.c has more or fewer elements");
    assert_eq!(with("/metadata/labels", json!({"b": "1"})), "metadata.labels.a is missing");
    assert_eq!(with("/metadata/labels/b", json!("2")), "metadata.labels.b has another value");
    assert_eq!(with("/spec/c/0/image", Value::Null), "spec.c[0].image has another value");
}

#[test]
fn a_field_we_set_once_and_no_longer_want_is_found_in_the_record() {
    let live = json!({
        "metadata": {
            "labels": {"keep": "", "gone": ""},
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:theirs": {}}}},
                {"manager": "virt-operator", "operation": "Apply", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:keep": {}, "f:gone": {}}},
                }},
            ],
        },
        "spec": {"theirs": 1},
    });
    assert_eq!(seen(&json!({"metadata": {"labels": {"keep": ""}}}), &live), "metadata.labels.gone is no longer wanted");
    assert_eq!(seen(&json!({"metadata": {"labels": {"keep": "", "gone": ""}}}), &live), "nothing");
}

#[test]
fn list_elements_in_the_record_are_found_by_their_keys() {
    let record = json!({"f:spec": {
        "f:ports": {"k:{\"port\":443,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}}},
        "f:finalizers": {"v:\"a\"": {}},
    }});
    let live = |ports: Value| {
        json!({
            "metadata": {"managedFields": [{"manager": "virt-operator", "operation": "Apply", "fieldsV1": record}]},
            "spec": {"ports": ports, "finalizers": ["a"]},
        })
    };
    let port = json!({"port": 443, "name": "https"});
    let wanted = json!({"spec": {"ports": [port], "finalizers": ["a"]}});
    assert_eq!(seen(&wanted, &live(json!([port]))), "nothing");
    let unnamed = json!({"spec": {"ports": [{"port": 443}], "finalizers": ["a"]}});
    assert_eq!(seen(&unnamed, &live(json!([port]))), "spec.ports[0].name is no longer wanted");
}

#[test]
fn the_status_we_might_own_is_nobodys_business_here() {
    let live = json!({
        "metadata": {"managedFields": [{
            "manager": "virt-operator", "operation": "Apply", "subresource": "status",
            "fieldsV1": {"f:status": {"f:phase": {}}},
        }]},
        "status": {"phase": "Deployed"},
    });
    assert_eq!(seen(&json!({"metadata": {}}), &live), "nothing");
}

#[test]
fn what_was_put_into_a_pod_template_beside_what_we_want_is_drift() {
    let wanted = json!({"spec": {"template": {"spec": {"containers": [{"name": "x"}]}}}});
    let with = |container: Value, pod: Value| {
        let mut live = wanted.clone();
        live["spec"]["template"]["spec"]["containers"][0]["env"] = container;
        live["spec"]["template"]["spec"]["volumes"] = pod;
        seen(&wanted, &live)
    };
    assert_eq!(with(json!([]), json!([])), "nothing");
    let variable = json!([{"name": "X", "value": "1"}]);
    assert_eq!(with(variable, json!([])), "spec.template.spec.containers[0].env has more or fewer elements");
    assert_eq!(with(json!([]), json!([{"name": "v"}])), "spec.template.spec.volumes has more or fewer elements");
}

/// Nobody's record says that they were ours when somebody has made the object anew.
#[test]
fn fields_of_an_older_template_of_ours_that_somebody_put_back_are_drift() {
    let wanted = json!({"spec": {"template": {"spec": {"containers": [{"name": "x"}]}}}});
    let with = |resources: Value, affinity: Value| {
        let mut live = wanted.clone();
        live["spec"]["template"]["spec"]["containers"][0]["resources"] = resources;
        live["spec"]["template"]["spec"]["affinity"] = affinity;
        seen(&wanted, &live)
    };
    assert_eq!(with(json!({}), json!({})), "nothing", "what the server writes for nothing");
    let some = json!({"requests": {"cpu": "1"}});
    assert_eq!(with(some, json!({})), "spec.template.spec.containers[0].resources has more or fewer elements");
    let some = json!({"nodeAffinity": {}});
    assert_eq!(with(json!({}), some), "spec.template.spec.affinity has more or fewer elements");
}

#[test]
fn a_place_is_also_a_json_pointer() {
    let found = drift(&json!({"metadata": {"labels": {"a/b": "1"}}}), &json!({"metadata": {"labels": {}}}), &IGNORED);
    assert_eq!(found.expect("a drift").pointer, "/metadata/labels/a~1b");
}

#[test]
fn what_was_put_into_a_map_that_is_ours_as_a_whole_is_drift() {
    let budget = json!({"spec": {"selector": {"matchLabels": {"app": "a"}}}});
    let mut edited = budget.clone();
    edited["spec"]["selector"]["matchLabels"]["more"] = json!("b");
    assert_eq!(seen(&budget, &edited), "spec.selector.matchLabels.more has more or fewer elements");
    let service = json!({"spec": {"selector": {"app": "a"}}});
    let mut edited = service.clone();
    edited["spec"]["selector"]["more"] = json!("b");
    assert_eq!(seen(&service, &edited), "spec.selector.more has more or fewer elements");
    let pods = json!({"spec": {"template": {"spec": {"nodeSelector": {"os": "linux"}}}}});
    let mut edited = pods.clone();
    edited["spec"]["template"]["spec"]["nodeSelector"]["nowhere"] = json!("x");
    assert_eq!(seen(&pods, &edited), "spec.template.spec.nodeSelector.nowhere has more or fewer elements");
}

#[test]
fn what_was_put_into_a_version_of_a_definition_is_drift() {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}});
    let wanted = json!({"spec": {"group": "a", "versions": [{"name": "v1", "served": true, "schema": schema}]}});
    let mut edited = wanted.clone();
    edited["spec"]["conversion"] = json!({"strategy": "None"});
    assert_eq!(seen(&wanted, &edited), "nothing", "the server adds beside the versions");
    let mut edited = wanted.clone();
    edited["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    assert_eq!(seen(&wanted, &edited), "spec.versions[0].subresources is no longer wanted");
    assert_eq!(seen(&edited, &wanted), "spec.versions[0].subresources is missing");
    let mut other = edited.clone();
    other["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".a"}});
    assert_eq!(seen(&edited, &other), "spec.versions[0].subresources.status is missing");
    let mut edited = wanted.clone();
    edited["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["more"] = json!({"type": "string"});
    let place = "spec.versions[0].schema.openAPIV3Schema.properties.more";
    assert_eq!(seen(&wanted, &edited), format!("{place} is no longer wanted"));
    let mut edited = wanted.clone();
    edited["spec"]["versions"][0]["deprecated"] = json!(false);
    assert_eq!(seen(&wanted, &edited), "nothing", "it says nothing");
    let mut bound = wanted.clone();
    bound["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["minimum"] = json!(0);
    assert_eq!(seen(&bound, &wanted), "spec.versions[0].schema.openAPIV3Schema.minimum is missing");
    assert_eq!(seen(&wanted, &bound), "spec.versions[0].schema.openAPIV3Schema.minimum is no longer wanted");
}

#[test]
fn what_we_manage_nobody_else_owns() {
    let wanted = json!({"metadata": {"labels": {"a": "1"}}});
    let mut live = wanted.clone();
    live["metadata"]["labels"]["theirs"] = json!("2");
    assert_eq!(seen(&wanted, &live), "nothing");
    live["metadata"]["ownerReferences"] = json!([{"uid": "x"}]);
    assert_eq!(seen(&wanted, &live), "metadata.ownerReferences has more or fewer elements");
}
