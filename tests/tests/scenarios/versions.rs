//! Naming versions: what is pinned stays, what is named is upgraded to in order, what cannot be had changes nothing.

use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until};
use serde_json::json;

use crate::support::{install, operator, says_why, settled};

/// Long enough for several periodic passes of the operator.
const A_WHILE: Duration = Duration::from_secs(60);

/// The custom resource of the design, in the old API version, naming a version that nobody can have.
fn v030() -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1alpha3",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {
            "imageTag": "v0.30",
            "certificateRotateStrategy": {},
            "configuration": {},
            "imagePullPolicy": "IfNotPresent",
        },
    }))
    .unwrap()
}

#[test]
fn an_unknown_version_on_a_fresh_cluster_changes_nothing_and_says_why() {
    simulate(async {
        let world = World::start(1, 1);
        world.apply(&operator("v0.1.0")).await;
        world.established("kubevirts.kubevirt.io").await;
        world.kubevirts("v1alpha3").create(&PostParams::default(), &v030()).await.expect("v1alpha3 is accepted");

        let stored = world.kubevirt_until("saying why", says_why).await;
        quiet_for(A_WHILE).await;
        assert_eq!(world.suite_pods().await, [""; 0]);
        let others: Vec<String> =
            world.operator_writes(0).into_iter().filter(|write| !write.contains("kubevirts")).collect();
        // An event tells people the same as the status, and a Job tries to get the version's strategy; nothing else may be
        // written.
        assert!(others.iter().all(|write| write.contains("events") || write.contains("jobs")), "{others:#?}");
        assert_eq!(stored["spec"]["imageTag"], "v0.30");

        let crds = world.api(kubevirt_release::Kind::CustomResourceDefinition, None);
        let crd = crds.get("kubevirts.kubevirt.io").await.unwrap();
        assert_eq!(crd.data["status"]["storedVersions"], json!(["v1"]));
        let as_v1 = world.kubevirts("v1").get("kubevirt").await.unwrap();
        assert_eq!(as_v1.types.unwrap().api_version, "kubevirt.io/v1");
    });
}

#[test]
fn an_unknown_version_leaves_an_installed_suite_as_it_is() {
    simulate(async {
        let world = World::start(3, 2);
        install(&world, "v0.1.0").await;
        let pods = world.suite_pods().await;
        world.patch_kubevirt(json!({"imageTag": "v0.30"})).await;
        let kubevirt = world.kubevirt_until("saying why", says_why).await;
        assert_eq!(condition_of(&kubevirt, "Available")["status"], "True", "what runs keeps running");
        assert_eq!(kubevirt["status"]["observedKubeVirtVersion"], "v0.1.0");
        quiet_for(A_WHILE).await;
        assert_eq!(world.suite_pods().await, pods);

        world.patch_kubevirt(json!({"imageTag": null})).await;
        let kubevirt =
            world.kubevirt_until("in sync again", |kubevirt| condition_of(kubevirt, "Synchronized").is_null()).await;
        assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
        assert_eq!(world.suite_pods().await, pods);
    });
}

#[test]
fn a_newer_operator_moves_nothing_while_the_old_version_is_pinned_then_upgrades_in_order() {
    simulate(async {
        let world = World::start(3, 3);
        install(&world, "v0.1.0").await;
        world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
        let pods = world.suite_pods().await;

        world.apply(&operator("v0.2.0")).await;
        world.kubevirt_until("served by v0.2.0", |kubevirt| kubevirt["status"]["operatorVersion"] == "v0.2.0").await;
        quiet_for(A_WHILE).await;
        assert_eq!(world.suite_pods().await, pods, "the pin holds every pod");

        let before = world.requests().len();
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        world
            .kubevirt_until("showing the signature of an upgrade", |kubevirt| {
                ["Available", "Progressing", "Degraded"]
                    .iter()
                    .all(|kind| condition_of(kubevirt, kind)["status"] == "True")
            })
            .await;
        settled(&world, "v0.2.0").await;
        assert_eq!(workloads(&world, before), ["virt-handler", "virt-controller", "virt-api"]);
        assert_finished_before_next(&world, before);

        let after = world.suite_pods().await;
        assert_eq!(after.len(), pods.len());
        assert!(after.iter().all(|pod| !pods.contains(pod)), "every pod of the suite was replaced");
    });
}

#[test]
fn without_a_pin_the_suite_follows_the_operator() {
    simulate(async {
        let world = World::start(1, 4);
        install(&world, "v0.1.0").await;
        world.apply(&operator("v0.2.0")).await;
        settled(&world, "v0.2.0").await;
        let deployments = world.api_of("apps", "v1", "Deployment", "deployments", Some(NAMESPACE));
        until(&deployments, "virt-api", "of the new version", |object| {
            object.data["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/kubevirt/virt-api:v0.2.0"
        })
        .await;
    });
}

/// The suite's workloads in the order in which the operator first wrote them since request number `since`.
fn workloads(world: &World, since: usize) -> Vec<String> {
    let mut order = Vec::new();
    for write in world.operator_writes(since) {
        let mut words = write.split(' ').skip(1);
        let (resource, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        if matches!(resource, "deployments" | "daemonsets") && !order.contains(&name) {
            order.push(name);
        }
    }
    order
}

/// In the audit log, no pod of a workload is still created after the operator has written the next workload.
fn assert_finished_before_next(world: &World, since: usize) {
    let order = ["virt-handler", "virt-controller", "virt-api"];
    let requests = &world.requests()[since..];
    let written = |name: &str| {
        requests.iter().position(|event| {
            let by_operator = event["user"]["username"] == kubevirt_tests::OPERATOR;
            let workload =
                ["deployments", "daemonsets"].iter().any(|resource| event["objectRef"]["resource"] == *resource);
            by_operator && workload && event["verb"] == "patch" && event["objectRef"]["name"] == name
        })
    };
    for pair in order.windows(2) {
        let next = written(pair[1]).expect("every workload is written");
        let late = requests[next..].iter().any(|event| {
            let creates = event["verb"] == "create" && event["objectRef"]["resource"] == "pods";
            let name = event["objectRef"]["name"].as_str().unwrap_or_default();
            creates && event["objectRef"]["subresource"].is_null() && name.starts_with(&format!("{}-", pair[0]))
        });
        assert!(!late, "a pod of {} was created after {} was written", pair[0], pair[1]);
    }
}
