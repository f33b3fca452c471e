//! What an administrator sets in the custom resource reaches the objects, lasts, and is taken back again.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::{Kind, Object};
use kubevirt_tests::{NAMESPACE, PATIENCE, World, condition_of, quiet_for, simulate, until, until_gone};
use serde_json::{Value, json};

use super::support::{install, operator, settled};

fn patches(list: &[Value]) -> Value {
    json!({"customizeComponents": {"patches": list}})
}

fn patch(kind: &str, name: &str, way: &str, change: &Value) -> Value {
    json!({"resourceType": kind, "resourceName": name, "type": way, "patch": change.to_string()})
}

/// Changes the spec and waits until the operator has brought it about.
async fn change(world: &World, spec: Value) -> Value {
    let generation = world.patch_kubevirt(spec).await.metadata.generation.expect("a generation");
    world
        .kubevirt_until("followed", |kubevirt| {
            kubevirt["status"]["observedGeneration"] == generation
                && condition_of(kubevirt, "Progressing")["status"] == "False"
                && condition_of(kubevirt, "InstancetypesReady")["status"] == "True"
        })
        .await
}

fn workloads(world: &World, kind: Kind) -> Api<DynamicObject> {
    world.api(kind, Some(NAMESPACE))
}

async fn get(world: &World, kind: Kind, name: &str) -> Value {
    let object = world.api(kind, Some(NAMESPACE)).get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::to_value(object).expect("plain data")
}

/// The components whose pods are not the same as before.
fn rolled(before: &[String], after: &[String]) -> BTreeSet<String> {
    let component = |pod: &String| pod.split('-').take(2).collect::<Vec<_>>().join("-");
    after.iter().filter(|pod| !before.contains(pod)).map(component).collect()
}

#[test]
fn a_patch_rolls_one_component_lasts_and_is_taken_back() {
    simulate(async {
        let world = World::start(3, 21);
        install(&world, "v0.1.0").await;
        let before = world.suite_pods().await;
        let annotated = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/key": "value"}}}}});
        let spec = patches(&[patch("deployment", "Virt-Controller", "strategic", &annotated)]);
        let kubevirt = change(&world, spec).await;
        let key = |object: &Value| object["spec"]["template"]["metadata"]["annotations"]["example.com/key"].clone();
        let controller = get(&world, Kind::Deployment, "virt-controller").await;
        assert_eq!(key(&controller), "value");
        let written_for = controller["metadata"]["annotations"]["kubevirt.io/generation"].as_str();
        let current = serde_json::to_value(world.kubevirts("v1").get("kubevirt").await.expect("the CR")).expect("data");
        assert_eq!(written_for, Some(current["metadata"]["generation"].to_string().as_str()));
        assert_eq!(current["metadata"]["generation"], 2, "nobody but the administrator changed it");
        assert!(controller["metadata"]["annotations"]["kubevirt.io/customizer-identifier"].is_string());
        assert_eq!(condition_of(&kubevirt, "Synchronized"), &Value::Null);
        let after = world.suite_pods().await;
        assert_eq!(rolled(&before, &after), ["virt-controller".to_owned()].into());

        // What the patch sets is the operator's now.
        let strike = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/key": "other"}}}}});
        let deployments = workloads(&world, Kind::Deployment);
        deployments.patch("virt-controller", &PatchParams::default(), &Patch::Merge(strike)).await.expect("an edit");
        until(&deployments, "virt-controller", "repaired", |object| key(&object.data) == "value").await;

        change(&world, json!({"customizeComponents": null})).await;
        assert_eq!(key(&get(&world, Kind::Deployment, "virt-controller").await), Value::Null);
    });
}

#[test]
fn a_service_a_webhook_and_a_secret_can_be_patched_and_a_removal_works_every_time() {
    simulate(async {
        let world = World::start(1, 22);
        install(&world, "v0.2.0").await;
        let pods = world.suite_pods().await;
        let label = json!({"metadata": {"labels": {"example.com/label": "on"}}});
        let secret = patch("Secret", "kubevirt-virt-api-certs", "merge", &label);
        change(
            &world,
            patches(&[
                patch("Service", "virt-api", "merge", &label),
                patch(
                    "ValidatingWebhookConfiguration",
                    "virt-api-validator",
                    "json",
                    &json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]),
                ),
                secret.clone(),
            ]),
        )
        .await;
        assert_eq!(world.suite_pods().await, pods, "no pod is made of these");
        let marked = |object: &Value| object["metadata"]["labels"]["example.com/label"] == "on";
        assert!(marked(&get(&world, Kind::Service, "virt-api").await));
        assert!(marked(&get(&world, Kind::Secret, "kubevirt-virt-api-certs").await));
        let webhook = get(&world, Kind::ValidatingWebhookConfiguration, "virt-api-validator").await;
        assert_eq!(webhook["webhooks"][0]["failurePolicy"], "Ignore");
        assert_ne!(webhook["webhooks"][0]["clientConfig"]["caBundle"], Value::Null);

        let resources = "/spec/template/spec/containers/0/resources";
        let removal = patch("Deployment", "virt-api", "json", &json!([{"op": "remove", "path": resources}]));
        change(&world, patches(&[secret, removal])).await;
        let api = get(&world, Kind::Deployment, "virt-api").await;
        assert_eq!(api.pointer(&format!("{resources}/requests")), None);
        assert!(!marked(&get(&world, Kind::Service, "virt-api").await));
        let deployments = workloads(&world, Kind::Deployment);
        deployments.delete("virt-api", &DeleteParams::default()).await.expect("a deletion");
        let uid = api["metadata"]["uid"].clone();
        let again =
            until(&deployments, "virt-api", "made again", |object| object.metadata.uid.as_deref() != uid.as_str());
        let again = again.await;
        assert_eq!(again.data.pointer(&format!("{resources}/requests")), None);
    });
}

#[test]
fn what_cannot_be_done_is_refused_by_name_and_what_runs_stays() {
    simulate(async {
        let world = World::start(1, 23);
        install(&world, "v0.1.0").await;
        let annotated = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/key": "value"}}}}});
        let good = patch("Deployment", "virt-controller", "merge", &annotated);
        change(&world, patches(std::slice::from_ref(&good))).await;
        let (pods, controller) = (world.suite_pods().await, get(&world, Kind::Deployment, "virt-controller").await);
        let impossible = json!([{"op": "remove", "path": "/spec/nothing"}]);
        let broken = json!({"spec": patches(&[good, patch("DaemonSet", "virt-handler", "json", &impossible)])});
        let kubevirts = world.kubevirts("v1");
        let store = async || kubevirts.patch("kubevirt", &PatchParams::default(), &Patch::Merge(&broken)).await;
        let told = "spec.customizeComponents.patches[1] (DaemonSet virt-handler) to DaemonSet kubevirt/virt-handler cannot be \
                    applied: operation 0 of the patch: /spec/nothing does not exist";
        let refused = store().await.expect_err("the webhook refuses it").to_string();
        assert!(refused.contains(told), "{refused}");

        // Past the webhook.
        let webhooks = world.api(Kind::ValidatingWebhookConfiguration, None);
        webhooks.delete("virt-operator-validator", &DeleteParams::default()).await.expect("a deletion");
        store().await.expect("nobody judges it");
        let kubevirt = world
            .kubevirt_until("refused", |kubevirt| {
                condition_of(kubevirt, "Synchronized")["reason"] == "CustomizationRefused"
            })
            .await;
        assert_eq!(condition_of(&kubevirt, "Synchronized")["message"], told);
        assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
        until(&webhooks, "virt-operator-validator", "back", |_| true).await;
        // Everything else is kept in order meanwhile.
        let services = workloads(&world, Kind::Service);
        let old = services.get("virt-api").await.expect("the service").metadata.uid;
        services.delete("virt-api", &DeleteParams::default()).await.expect("a deletion");
        until(&services, "virt-api", "made again", |object| object.metadata.uid != old).await;
        assert_eq!(world.suite_pods().await, pods);
        let kept = get(&world, Kind::Deployment, "virt-controller").await;
        assert_eq!(kept["metadata"]["generation"], controller["metadata"]["generation"]);

        // So is what was changed before, as it was last changed.
        let deployments = workloads(&world, Kind::Deployment);
        let strike =
            json!({"spec": {"replicas": 5, "template": {"metadata": {"annotations": {"example.com/key": "other"}}}}});
        deployments.patch("virt-controller", &PatchParams::default(), &Patch::Merge(strike)).await.expect("an edit");
        until(&deployments, "virt-controller", "repaired", |live| {
            live.data["spec"]["template"]["metadata"]["annotations"]["example.com/key"] == "value"
                && live.data["spec"]["replicas"] == controller["spec"]["replicas"]
        })
        .await;
        deployments.delete("virt-controller", &DeleteParams::default()).await.expect("a deletion");
        until(&deployments, "virt-controller", "made again with the change", |live| {
            live.metadata.uid.as_deref() != controller["metadata"]["uid"].as_str()
                && live.data["spec"]["template"]["metadata"]["annotations"]["example.com/key"] == "value"
        })
        .await;

        let kubevirt = change(&world, json!({"customizeComponents": null})).await;
        assert_eq!(condition_of(&kubevirt, "Synchronized"), &Value::Null);
    });
}

#[test]
fn a_first_custom_resource_that_cannot_be_followed_installs_nothing() {
    simulate(async {
        let world = World::start(1, 24);
        world.apply(&operator("v0.1.0")).await;
        let mut cr = cr_manifest(NAMESPACE);
        cr.value_mut()["spec"] = patches(&[patch("Deployment", "virt-api", "merge", &json!({"spec": {"replica": 3}}))]);
        world.apply(&[cr]).await;
        let kubevirt = world
            .kubevirt_until("refused", |kubevirt| {
                condition_of(kubevirt, "Synchronized")["reason"] == "CustomizationRefused"
            })
            .await;
        let message = condition_of(&kubevirt, "Synchronized")["message"].as_str().unwrap_or_default();
        assert!(message.ends_with("the result is not a valid object: spec.replica: unknown field"), "{message}");
        assert_eq!(world.suite_pods().await, [""; 0]);
        world.patch_kubevirt(json!({"customizeComponents": null})).await;
        settled(&world, "v0.1.0").await;
    });
}

#[test]
fn pull_secrets_reach_the_workloads_and_the_handler_holds_the_launcher_image() {
    simulate(async {
        let world = World::start(1, 25);
        install(&world, "v0.1.0").await;
        let found = async |world: &World| {
            let mut found = Vec::new();
            let all = [
                (Kind::Deployment, "virt-api"),
                (Kind::Deployment, "virt-controller"),
                (Kind::DaemonSet, "virt-handler"),
            ];
            for (kind, name) in all {
                let pod = get(world, kind, name).await["spec"]["template"]["spec"].clone();
                let secrets = pod["imagePullSecrets"].as_array().cloned().unwrap_or_default();
                let names = |list: &Value| -> Vec<String> {
                    let all = list.as_array().into_iter().flatten();
                    all.filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
                };
                found.push((names(&json!(secrets)).join(","), names(&pod["containers"]).join(",")));
            }
            found
        };
        let expect = |secrets: &str, handler: &str| {
            [("virt-api", "virt-api"), ("virt-controller", "virt-controller"), ("virt-handler", handler)]
                .map(|(_, containers)| (secrets.to_owned(), containers.to_owned()))
                .to_vec()
        };
        assert_eq!(found(&world).await, expect("", "virt-handler"));
        change(&world, json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}]})).await;
        assert_eq!(found(&world).await, expect("a,b", "virt-handler,virt-launcher-image-holder"));
        change(&world, json!({"imagePullSecrets": null})).await;
        assert_eq!(found(&world).await, expect("", "virt-handler"));
    });
}

#[test]
fn replicas_three_one_two_with_their_budgets() {
    simulate(async {
        let world = World::start(3, 26);
        install(&world, "v0.1.0").await;
        for (replicas, budget) in [(3, Some(2)), (1, None), (2, Some(1))] {
            change(&world, json!({"infra": {"replicas": replicas}})).await;
            for name in ["virt-api", "virt-controller"] {
                until(&workloads(&world, Kind::Deployment), name, "scaled", |object| {
                    object.data["status"]["readyReplicas"] == replicas && object.data["status"]["replicas"] == replicas
                })
                .await;
                let counted = async {
                    while world.count(name).await != replicas {
                        quiet_for(Duration::from_secs(1)).await;
                    }
                };
                assert!(
                    tokio::time::timeout(PATIENCE, counted).await.is_ok(),
                    "{name}: {:?}",
                    world.suite_pods().await
                );
                let found = workloads(&world, Kind::PodDisruptionBudget).get_opt(&format!("{name}-pdb")).await;
                let found = found.expect("an answer").map(|budget| budget.data["spec"]["minAvailable"].clone());
                assert_eq!(found, budget.map(Value::from), "{name} of {replicas}");
            }
        }
    });
}

#[test]
fn two_pods_of_a_component_are_not_both_on_the_one_control_plane_node() {
    simulate(async {
        let world = World::start(3, 31);
        install(&world, "v0.1.0").await;
        let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
        for name in ["virt-operator", "virt-api", "virt-controller"] {
            let own = kube::api::ListParams::default().labels(&format!("kubevirt.io={name}"));
            let found = pods.list(&own).await.expect("pods").items;
            let nodes: BTreeSet<String> = found.iter().map(|pod| pod.data["spec"]["nodeName"].to_string()).collect();
            assert_eq!((found.len(), nodes.len()), (2, 2), "{name}: {nodes:?}");
        }
    });
}

#[test]
fn placement_reaches_the_pods_and_old_ones_run_until_new_ones_do() {
    simulate(async {
        let world = World::start(3, 27);
        install(&world, "v0.1.0").await;
        let before = world.suite_pods().await;
        let somewhere = json!({"nodePlacement": {"nodeSelector": {"example.com/nowhere": "true"}}});
        world.patch_kubevirt(json!({"infra": somewhere, "workloads": somewhere})).await;
        for (kind, name) in [(Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")] {
            let selector = |object: &DynamicObject| object.data["spec"]["template"]["spec"]["nodeSelector"].clone();
            let placed = json!({"kubernetes.io/os": "linux", "example.com/nowhere": "true"});
            until(&workloads(&world, kind), name, "placed", |object| selector(object) == placed).await;
        }
        let now = world.suite_pods().await;
        let of = |pods: &[String], name: &str| pods.iter().filter(|pod| pod.starts_with(name)).cloned().collect();
        let (old, new): (BTreeSet<String>, BTreeSet<String>) =
            (of(&before, "virt-controller"), of(&now, "virt-controller"));
        assert!(new.intersection(&old).count() > 0, "one of the old pods runs on: {now:?}");
        change(&world, json!({"infra": null, "workloads": null})).await;
        for (kind, name) in
            [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")]
        {
            let selector = get(&world, kind, name).await["spec"]["template"]["spec"]["nodeSelector"].clone();
            assert_eq!(selector, json!({"kubernetes.io/os": "linux"}), "{name}");
        }
    });
}

/// Every managed object with its labels.
async fn labels(world: &World) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt) {
        // A kind that the cluster does not serve has no objects.
        let Ok(objects) = world.api(*kind, None).list(&Default::default()).await else { continue };
        for object in objects {
            let labels = json!(object.metadata.labels);
            if labels["app.kubernetes.io/managed-by"] == "virt-operator" {
                found.push((format!("{kind} {}", object.metadata.name.unwrap_or_default()), labels));
            }
        }
    }
    found
}

#[test]
fn product_labels_stand_on_every_object_and_roles_are_aggregated_as_asked() {
    simulate(async {
        let world = World::start(1, 28);
        install(&world, "v0.1.0").await;
        let products = json!({"productName": "stack", "productVersion": "2.5", "productComponent": "compute"});
        change(&world, products).await;
        let all = labels(&world).await;
        assert!(all.iter().any(|(name, _)| name == "Secret kubevirt-ca"), "{all:?}");
        for (name, labels) in &all {
            assert_eq!(labels["app.kubernetes.io/part-of"], "stack", "{name}");
            assert_eq!(labels["app.kubernetes.io/version"], "2.5", "{name}");
            assert_eq!(labels["app.kubernetes.io/component"], "compute", "{name}");
        }
        let aggregated = async |role: &str| {
            let labels =
                get(&world, Kind::ClusterRole, &format!("kubevirt.io:{role}")).await["metadata"]["labels"].clone();
            labels[format!("rbac.authorization.k8s.io/aggregate-to-{role}")].clone()
        };
        let manual = json!({"configuration": {"roleAggregationStrategy": "Manual",
            "developerConfiguration": {"featureGates": ["OptOutRoleAggregation"]}}});
        for (spec, expected) in
            [(manual, "false"), (json!({"configuration": {"roleAggregationStrategy": "AggregateToDefault"}}), "true")]
        {
            change(&world, spec).await;
            for role in ["admin", "edit", "view"] {
                assert_eq!(aggregated(role).await, expected, "{role}");
            }
        }
    });
}

#[test]
fn the_namespace_may_have_any_name() {
    const ELSEWHERE: &str = "virtualization";
    simulate(async {
        let world = World::start(3, 29);
        let options =
            ManifestOptions { namespace: ELSEWHERE.to_owned(), ..ManifestOptions::new("localhost/kubevirt", "v0.1.0") };
        world.apply(&operator_manifest(&options)).await;
        world.apply(&[cr_manifest(ELSEWHERE)]).await;
        let kubevirts = world.api(Kind::KubeVirt, Some(ELSEWHERE));
        until(&kubevirts, "kubevirt", "installed", |object| {
            condition_of(&object.data, "Available")["status"] == "True"
                && condition_of(&object.data, "Progressing")["status"] == "False"
        })
        .await;
        let mut count = 0;
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt) {
            let Ok(objects) = world.api(*kind, None).list(&Default::default()).await else { continue };
            for object in objects.items {
                let value = serde_json::to_value(&object).expect("plain data");
                if value["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "virt-operator" {
                    count += 1;
                    let name = format!("{kind} {}", object.metadata.name.unwrap_or_default());
                    assert!(!value.to_string().contains("\"namespace\":\"kubevirt\""), "{name}: {value}");
                    assert!(!value.to_string().contains(".kubevirt.svc"), "{name}: {value}");
                }
            }
        }
        assert!(count > 50, "{count}");
        let namespaces = world.api(Kind::Namespace, None);
        assert!(namespaces.get_opt(NAMESPACE).await.expect("an answer").is_none());

        // Admission, repair and removal go by the same name.
        let edit = json!({"spec": {"infra": {"replicas": 0}}});
        let refused = kubevirts.patch("kubevirt", &PatchParams::default(), &Patch::Merge(edit)).await;
        assert!(refused.expect_err("the webhook is registered there").to_string().contains("replica count can't be 0"));
        let deployments = world.api(Kind::Deployment, Some(ELSEWHERE));
        deployments.delete("virt-controller", &DeleteParams::default()).await.expect("a deletion");
        until(&deployments, "virt-controller", "ready again", |object| object.data["status"]["readyReplicas"] == 2)
            .await;
        kubevirts.delete("kubevirt", &DeleteParams::default()).await.expect("a deletion");
        until_gone(&kubevirts, "kubevirt").await;
        assert!(labels(&world).await.is_empty(), "{:?}", labels(&world).await);
    });
}

#[test]
fn a_patch_that_changes_nothing_writes_no_object() {
    simulate(async {
        let world = World::start(1, 30);
        install(&world, "v0.1.0").await;
        let same: Object = Object::from_value(get(&world, Kind::Deployment, "virt-api").await).expect("an object");
        let since = world.requests().len();
        let replicas = same.at("/spec/replicas").expect("a number").clone();
        change(&world, patches(&[patch("Deployment", "virt-api", "merge", &json!({"spec": {"replicas": replicas}}))]))
            .await;
        let is_object =
            |write: &String| !write.contains("kubevirts/status") && !write.contains("kubevirt-install-strategy-");
        let writes: Vec<_> = world.operator_writes(since).into_iter().filter(is_object).collect();
        assert_eq!(
            writes, ["patch deployments virt-api"; 0],
            "neither its rehearsal nor its record is a write of an object"
        );
    });
}
