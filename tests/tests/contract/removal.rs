//! Removing the suite, and installing it again.

use std::time::Duration;

use kube::api::{DeleteParams, PostParams};
use kubevirt_release::Kind;
use kubevirt_tests::NAMESPACE;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE, Suite};

static CLUSTER: Fixture = Fixture::new(1);

const READY_AGAIN: Duration = Duration::from_secs(300);

async fn instance(suite: &Suite, name: &str) {
    let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"domain": {}}});
    let object = serde_json::from_value(object).expect("an object");
    suite.instances().create(&PostParams::default(), &object).await.expect("the instance is stored");
}

#[test]
fn t3146_the_suite_goes_with_its_machines_and_comes_back() {
    CLUSTER.test(async |suite| {
        instance(suite, "guest").await;
        suite.delete(Kind::KubeVirt, "kubevirt").await.expect("nothing holds it back");
        suite.until_gone(Kind::KubeVirt, "kubevirt", READY_AGAIN).await;
        for name in ["virt-api", "virt-controller"] {
            assert_eq!(suite.get(Kind::Deployment, name).await, None);
        }
        // What the suite registered would keep a namespace from going.
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "passing-by"}});
        suite.create(namespace).await.expect("namespaces can be made");
        suite.delete(Kind::Namespace, "passing-by").await.expect("and deleted");
        suite.until_gone(Kind::Namespace, "passing-by", PATIENCE).await;
        suite.install_cr().await;
        let again = tokio::time::timeout(READY_AGAIN, suite.stable()).await;
        assert!(again.is_ok(), "not ready again within {READY_AGAIN:?}");
    });
}

#[test]
fn t3683_a_removal_is_refused_while_there_are_machines() {
    CLUSTER.test(async |suite| {
        let strategy = json!({"uninstallStrategy": "BlockUninstallIfWorkloadsExist"});
        suite.configure(strategy).await.expect("a strategy of the contract");
        suite.stable().await;
        instance(suite, "guest").await;
        let refused = suite.delete(Kind::KubeVirt, "kubevirt").await.expect_err("a guest is there").to_string();
        assert!(refused.contains("there are still Virtual Machine Instances present"), "{refused}");
        assert!(suite.kubevirt().await["metadata"].get("deletionTimestamp").is_none());
        suite.instances().delete("guest", &DeleteParams::default()).await.expect("it goes");
        suite.configure(json!({"uninstallStrategy": null})).await.expect("it is taken back");
    });
}

#[test]
fn single_replica_new_cr_is_served_and_left_alone() {
    const UNCHANGED: Duration = Duration::from_secs(30);
    const LIMIT: Duration = Duration::from_secs(120);
    CLUSTER.test(async |suite| {
        suite.delete(Kind::KubeVirt, "kubevirt").await.expect("nothing holds it back");
        suite.until_gone(Kind::KubeVirt, "kubevirt", READY_AGAIN).await;
        let single = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": NAMESPACE}, "spec": {"infra": {"replicas": 1}}});
        suite.create(single).await.expect("there is none yet");
        let has_finalizer = |cr: &Value| {
            let names = cr["metadata"]["finalizers"].as_array();
            names.into_iter().flatten().any(|name| name == "kubevirt.io/foregroundDeleteKubeVirt")
        };
        let cr = suite.until(Kind::KubeVirt, "kubevirt", "followed", PATIENCE, has_finalizer).await;
        let generation = cr["metadata"]["generation"].clone();
        let is_same = |cr: &Value| cr["metadata"]["generation"] == generation;
        suite.keeps(Kind::KubeVirt, "kubevirt", UNCHANGED, is_same).await;
        suite.stable().await;
        let counts = |replicas: u64| move |workload: &Value| workload["spec"]["replicas"] == replicas;
        suite.until(Kind::Deployment, "virt-controller", "one", LIMIT, counts(1)).await;
        suite.configure(json!({"infra": null})).await.expect("it is taken back");
        suite.until(Kind::Deployment, "virt-controller", "two", LIMIT, counts(2)).await;
    });
}
