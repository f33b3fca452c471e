//! Two-step installation: apply the operator, apply the custom resource, the suite appears.

use std::time::Duration;

use kubevirt_release::operator_manifest::cr_manifest;
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until};
use serde_json::json;

use crate::support::{install, operator};

/// Long enough for several periodic passes, lease renewals and probes.
const A_WHILE: Duration = Duration::from_secs(60);

#[test]
fn without_a_custom_resource_the_operator_writes_only_its_lease() {
    simulate(async {
        let world = World::start(1, 1);
        world.apply(&operator("v0.1.0")).await;
        let deployments = world.api_of("apps", "v1", "Deployment", "deployments", Some(NAMESPACE));
        until(&deployments, "virt-operator", "available with two pods", |object| {
            object.data["status"]["availableReplicas"] == 2
        })
        .await;
        quiet_for(A_WHILE).await;
        assert_eq!(world.operator_writes(0), [""; 0]);
        let leases = world.requests().iter().filter(|event| event["objectRef"]["resource"] == "leases").count();
        assert!(leases > 0, "the operator never asked for its lease");
        assert_eq!(world.suite_pods().await, [""; 0]);
    });
}

/// Nodes, then pods of virt-api, virt-controller and virt-handler.
fn sizes(nodes: u32, expected: (usize, usize, usize)) {
    simulate(async {
        let world = World::start(nodes, 1);
        install(&world, "v0.1.0").await;
        let found =
            (world.count("virt-api").await, world.count("virt-controller").await, world.count("virt-handler").await);
        assert_eq!(found, expected, "{:#?}", world.suite_pods().await);
    });
}

#[test]
fn one_node_gets_one_api_two_controllers_one_handler() {
    sizes(1, (1, 2, 1));
}

#[test]
fn three_nodes_get_two_apis_two_controllers_three_handlers() {
    sizes(3, (2, 2, 3));
}

#[test]
fn an_installed_suite_is_left_alone() {
    simulate(async {
        let world = World::start(3, 2);
        install(&world, "v0.1.0").await;
        let (pods, requests) = (world.suite_pods().await, world.requests().len());
        quiet_for(A_WHILE).await;
        assert_eq!(world.operator_writes(requests), [""; 0]);
        assert_eq!(world.suite_pods().await, pods);
    });
}

#[test]
fn status_tells_what_is_installed() {
    simulate(async {
        let world = World::start(1, 3);
        let status = install(&world, "v0.1.0").await["status"].clone();
        assert_eq!(status["phase"], "Deployed");
        assert_eq!(status["operatorVersion"], "v0.1.0");
        for field in ["observedKubeVirtVersion", "targetKubeVirtVersion"] {
            assert_eq!(status[field], "v0.1.0", "{field}");
        }
        assert_eq!(status["observedDeploymentID"], status["targetDeploymentID"]);
        assert_eq!(condition_of(&json!({ "status": status }), "Progressing")["status"], "False");
    });
}

#[test]
fn the_same_seed_gives_the_same_requests() {
    let trace = |seed| {
        let mut lines = Vec::new();
        simulate(async {
            let world = World::start(3, seed);
            install(&world, "v0.1.0").await;
            lines = world
                .requests()
                .iter()
                .map(|event| format!("{} {} {}", event["user"]["username"], event["verb"], event["requestURI"]))
                .collect();
        });
        lines
    };
    assert_eq!(trace(7), trace(7));
}

#[test]
fn the_released_custom_resource_never_pins_a_version() {
    let cr = cr_manifest(NAMESPACE);
    assert_eq!(cr.at("/spec/imageTag"), None);
    assert_eq!(cr.at("/spec/imageRegistry"), None);
}
