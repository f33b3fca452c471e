use std::time::Duration;

use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use kubevirt_release::{Kind, Object};
use serde_json::Value;

use super::support::{Cluster, NAMESPACE, REGISTRY, condition};

#[tokio::test(start_paused = true)]
async fn before_the_cr_exists_only_the_lease_is_written() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster
        .until("two operators are ready", async || {
            let pods = cluster.pods("virt-operator").await;
            (pods.len() == 2 && pods.iter().all(|(_, _, ready)| *ready)).then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.writes(), []);
    let leases = cluster.requests().into_iter().filter(|(_, target)| target == "leases/virt-operator");
    assert!(leases.count() > 0, "the leader renews its lease");
}

async fn install(nodes: u32, api: usize) -> Cluster {
    let cluster = Cluster::start(nodes);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    let cr = cluster.settled("v0.1.0").await;
    let status = &cr["status"];
    assert_eq!(status["phase"], "Deployed");
    assert_eq!(status["operatorVersion"], "v0.1.0");
    assert_eq!(status["observedDeploymentID"], status["targetDeploymentID"]);
    assert_eq!(status["observedGeneration"], cr["metadata"]["generation"]);
    assert_eq!(condition(&cr, "Created"), "True AllResourcesCreated");
    assert_eq!(condition(&cr, "Degraded"), "False AllComponentsReady");
    assert_eq!(cr["metadata"]["annotations"]["kubevirt.io/latest-observed-api-version"], "v1");
    assert_eq!(cr["metadata"]["finalizers"][0], "kubevirt.io/foregroundDeleteKubeVirt");
    let config: Value =
        serde_json::from_str(status["observedDeploymentConfig"].as_str().expect("a text")).expect("a config");
    assert_eq!((&config["namespace"], &config["kubeVirtVersion"]), (&NAMESPACE.into(), &"v0.1.0".into()));
    assert_eq!(cluster.pods("virt-api").await.len(), api);
    assert_eq!(cluster.pods("virt-controller").await.len(), 2);
    assert_eq!(cluster.pods("virt-handler").await.len(), usize::try_from(nodes).expect("a few"));
    assert_eq!(cluster.refused().iter().filter(|refusal| refusal.contains("Forbidden")).count(), 0);
    cluster
}

#[tokio::test(start_paused = true)]
async fn one_node_gets_one_api() {
    let cluster = install(1, 1).await;
    let budgets = cluster.names(Kind::PodDisruptionBudget, "").await;
    assert_eq!(budgets, ["virt-controller-pdb"]);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_get_two_apis_and_then_it_is_quiet() {
    let cluster = install(3, 2).await;
    // The strategy is kept once the installation is complete.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let strategies = cluster.names(Kind::ConfigMap, "kubevirt.io/install-strategy").await;
    assert_eq!(strategies.len(), 1);
    // Common instance types come when the suite is available; tests/scenarios/quiet.rs counts until then.
    let aside = ["leases/", "virtualmachineclusterinstancetypes/", "virtualmachineclusterpreferences/"];
    let counts = |target: &str| aside.iter().all(|aside| !target.starts_with(aside));
    let requests = cluster.requests().iter().filter(|(_, target)| counts(target)).count();
    println!("{requests} requests for an installation on 3 simulated nodes, beside the common instance types");
    assert!(requests <= 250, "{requests} requests for an installation");
    let written = cluster.writes();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(cluster.writes()[written.len()..], [], "ten quiet minutes");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_is_named_and_nothing_is_decided_without_it() {
    let cluster = Cluster::start(1);
    let mut manifest = operator_manifest(&ManifestOptions::new(REGISTRY, "v0.1.0"));
    let is_role = |object: &Object| object.kind() == Kind::Role && object.name() == "kubevirt-operator";
    let role = manifest.iter_mut().find(|object| is_role(object)).expect("the operator has a role");
    let whole = role.clone();
    let rules = role.value_mut()["rules"].as_array_mut().expect("rules");
    for rule in rules.iter_mut() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "daemonsets");
        }
    }
    rules.retain(|rule| rule["resources"].as_array().is_none_or(|resources| !resources.is_empty()));
    cluster.apply(&manifest).await;
    cluster.cr().await;
    let cr = cluster.cr_until("told", |cr| condition(cr, "Synchronized") == "False CacheNotSynced").await;
    let told = cr["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains("daemonsets") && told.contains("forbidden"), "{told}");
    assert_eq!(cluster.pods("virt-api").await, []);

    cluster.apply(&[whole]).await;
    cluster.settled("v0.1.0").await;
}
