//! What an installation looks like.

use std::time::Duration;

use kubevirt_release::Kind;
use kubevirt_tests::{NAMESPACE, condition_of};
use serde_json::{Value, json};

use crate::fixture::Fixture;

static CLUSTER: Fixture = Fixture::new(3);

const SUITE: &str = "app.kubernetes.io/managed-by=virt-operator";

#[test]
fn t1746_the_conditions_created_and_available_become_true() {
    const LIMIT: Duration = Duration::from_secs(300);
    CLUSTER.test(async |suite| {
        for kind in ["Created", "Available"] {
            let holds = |cr: &Value| condition_of(cr, kind)["status"] == "True";
            suite.until(Kind::KubeVirt, "kubevirt", kind, LIMIT, holds).await;
        }
    });
}

#[test]
fn t3152_a_second_custom_resource_is_refused() {
    CLUSTER.test(async |suite| {
        for namespace in [NAMESPACE, "default"] {
            let second = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
                "metadata": {"name": "second", "namespace": namespace}, "spec": {}});
            let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(
                suite.client.clone(),
                namespace,
                &kube::core::ApiResource::from_gvk_with_plural(
                    &kube::core::GroupVersionKind::gvk("kubevirt.io", "v1", "KubeVirt"),
                    "kubevirts",
                ),
            );
            let second = serde_json::from_value(second).expect("an object");
            let refused = api.create(&Default::default(), &second).await.expect_err("there is one already").to_string();
            assert!(refused.contains("Kubevirt is already created"), "{refused}");
        }
    });
}

#[test]
fn t4612_no_definition_has_an_owner() {
    CLUSTER.test(async |suite| {
        let definition = suite.get(Kind::CustomResourceDefinition, "virtualmachineinstances.kubevirt.io").await;
        assert_eq!(definition.expect("it is installed")["metadata"].get("ownerReferences"), None);
    });
}

#[test]
fn t4616_the_namespace_is_labelled_for_monitoring() {
    CLUSTER.test(async |suite| {
        let is_labelled =
            |namespace: &Value| namespace["metadata"]["labels"]["openshift.io/cluster-monitoring"] == "true";
        let limit = Duration::from_secs(60);
        suite.until(Kind::Namespace, NAMESPACE, "labelled", limit, is_labelled).await;
        let wiped = json!({"metadata": {"labels": {"openshift.io/cluster-monitoring": null}}});
        suite.merge(Kind::Namespace, NAMESPACE, wiped).await.expect("the edit is accepted");
        let namespace = suite.until(Kind::Namespace, NAMESPACE, "labelled again", limit, is_labelled).await;
        let labels = &namespace["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged", "the others stay");
    });
}

#[test]
fn t8235_every_pod_asks_for_linux() {
    CLUSTER.test(async |suite| {
        let pods = suite.pods(SUITE).await;
        assert!(pods.len() >= 5, "{:?}", pods.keys());
        for (name, pod) in &pods {
            assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/os"], "linux", "{name}");
        }
    });
}

#[test]
fn external_ca_blank_the_drop_box_is_there_and_empty() {
    const LIMIT: Duration = Duration::from_secs(60);
    CLUSTER.test(async |suite| {
        let is_blank = |map: &Value| map["data"]["ca-bundle"] == "";
        suite.until(Kind::ConfigMap, "kubevirt-external-ca", "blank", LIMIT, is_blank).await;
    });
}

#[test]
fn image_pull_secrets_absent_nothing_names_one() {
    CLUSTER.test(async |suite| {
        for (kind, name) in
            [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")]
        {
            let workload = suite.get(kind, name).await.expect("it is installed");
            let pod = &workload["spec"]["template"]["spec"];
            assert!(pod["imagePullSecrets"].as_array().is_none_or(Vec::is_empty), "{name}: {pod}");
            assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1), "{name}");
        }
    });
}
