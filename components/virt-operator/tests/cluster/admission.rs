use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kubevirt_release::Kind;
use serde_json::{Value, json};

use super::support::{Cluster, REGISTRY, condition};

const VALIDATOR: &str = "virt-operator-validator";

async fn installed() -> Cluster {
    let cluster = Cluster::start(2);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    cluster
}

impl Cluster {
    /// A change of the CR: the message of its refusal, if it is refused.
    async fn refusal(&self, spec: Value) -> Option<String> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let answer = self.api(Kind::KubeVirt).patch("kubevirt", &PatchParams::default(), &patch).await;
        answer.err().map(|error| error.to_string())
    }

    async fn instance(&self, name: &str) {
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": name},
            "spec": {"domain": {}}});
        let object = serde_json::from_value(object).expect("an object");
        let api = self.of("kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances", true);
        api.create(&PostParams::default(), &object).await.expect("the instance is stored");
    }

    /// The trusted authorities in every webhook of the operator.
    async fn trusted(&self) -> Option<Vec<String>> {
        let configuration = self.get(Kind::ValidatingWebhookConfiguration, VALIDATOR).await?;
        let webhooks = configuration["webhooks"].as_array().cloned()?;
        let bundle = |webhook: &Value| {
            let encoded = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned();
            String::from_utf8(BASE64.decode(encoded).unwrap_or_default()).unwrap_or_default()
        };
        Some(webhooks.iter().map(bundle).collect())
    }

    async fn published(&self) -> String {
        let map = self.get(Kind::ConfigMap, "kubevirt-ca").await.expect("the bundle is published");
        map["data"]["ca-bundle"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_the_custom_resource_hold_once_it_is_installed() {
    let cluster = installed().await;
    let second =
        json!({"apiVersion": "kubevirt.io/v1alpha3", "kind": "KubeVirt", "metadata": {"name": "second"}, "spec": {}});
    let second = serde_json::from_value(second).expect("an object");
    let api = cluster.of("kubevirt.io", "v1alpha3", "KubeVirt", "kubevirts", true);
    let refused = api.create(&PostParams::default(), &second).await.expect_err("there is one already").to_string();
    assert!(refused.contains("Kubevirt is already created"), "{refused}");

    let placed = |placement: Value| json!({"nodePlacement": placement});
    let toleration = placed(json!({"tolerations": [{"key": "a", "operator": "foo", "effect": "NoSchedule"}]}));
    for part in ["infra", "workloads"] {
        let refused = cluster.refusal(json!({ part: toleration })).await.expect("no such operator");
        let text = format!("spec.{part}.nodePlacement.tolerations.operator in body should be one of");
        assert!(refused.contains(&text), "{refused}");
        // No rule of ours: the API server is asked whether it would take such a workload.
        let contradiction = json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]});
        let refused = cluster.refusal(json!({ part: placed(contradiction) })).await.expect("a value that cannot be");
        assert!(refused.contains(&format!("spec.{part}.nodePlacement: ")), "{refused}");
        assert!(refused.contains("placement-validation-webhook"), "{refused}");
    }
    for kind in [Kind::Deployment, Kind::DaemonSet] {
        assert!(cluster.get(kind, "placement-validation-webhook").await.is_none(), "it was only rehearsed");
    }
    let refused = cluster.refusal(json!({"infra": {"replicas": 0}})).await.expect("none at all");
    assert!(refused.contains("infra replica count can't be 0"), "{refused}");
    assert_eq!(cluster.refusal(json!({"infra": {"replicas": 1}})).await, None);
    cluster.settled("v0.1.0").await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_waits_for_workloads_if_it_is_told_to() {
    let cluster = installed().await;
    assert_eq!(cluster.refusal(json!({"uninstallStrategy": "BlockUninstallIfWorkloadsExist"})).await, None);
    cluster.settled("v0.1.0").await;
    cluster.instance("guest").await;
    let delete = async || cluster.api(Kind::KubeVirt).delete("kubevirt", &DeleteParams::default()).await;
    let refused = delete().await.expect_err("a guest is left").to_string();
    assert!(refused.contains("there are still Virtual Machine Instances present"), "{refused}");
    let instances = cluster.of("kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances", true);
    instances.delete("guest", &DeleteParams::default()).await.expect("it goes");
    delete().await.expect("nothing is left");
    let gone = async || cluster.get(Kind::KubeVirt, "kubevirt").await.is_none().then_some(());
    cluster.until("the CR is gone", gone).await;
}

#[tokio::test(start_paused = true)]
async fn the_webhooks_trust_what_is_published_and_are_repaired() {
    let cluster = installed().await;
    let published = cluster.published().await;
    assert!(published.contains("BEGIN CERTIFICATE"));
    assert_eq!(cluster.trusted().await, Some(vec![published.clone(); 3]));

    let api = cluster.api(Kind::ValidatingWebhookConfiguration);
    let broken = Patch::Json::<()>(
        serde_json::from_value(json!([
            {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "bm90aGluZw=="},
            {"op": "remove", "path": "/webhooks/1"},
        ]))
        .expect("a patch"),
    );
    api.patch(VALIDATOR, &PatchParams::default(), &broken).await.expect("the edit is accepted");
    let whole = async || (cluster.trusted().await? == vec![published.clone(); 3]).then_some(());
    cluster.until("the edit is undone", whole).await;
    api.delete(VALIDATOR, &DeleteParams::default()).await.expect("the deletion is accepted");
    cluster.until("it is there again", whole).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_serves_without_a_restart() {
    let cluster = installed().await;
    let pods = cluster.pods("virt-operator").await;
    let serial = async || {
        let secret = cluster.get(Kind::Secret, "kubevirt-operator-certs").await?;
        secret["data"]["tls.crt"].as_str().map(str::to_owned)
    };
    let old = serial().await;
    // A new authority: what the API server trusts and what both replicas show change together.
    for name in ["kubevirt-ca", "kubevirt-operator-certs"] {
        cluster.api(Kind::Secret).delete(name, &DeleteParams::default()).await.expect("the deletion is accepted");
    }
    let renewed = async || {
        let new = serial().await?;
        let trusted = cluster.trusted().await?;
        (Some(new) != old && trusted == vec![cluster.published().await; 3]).then_some(())
    };
    cluster.until("another certificate is trusted", renewed).await;
    for replicas in 1..8 {
        assert_eq!(cluster.refusal(json!({"infra": {"replicas": replicas}})).await, None);
    }
    assert_eq!(cluster.pods("virt-operator").await, pods);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_registered_before_it_would_answer() {
    let cluster = installed().await;
    let uri = |event: &Value| event["requestURI"].as_str().unwrap_or_default().to_owned();
    let events = cluster.events();
    let first = |what: &dyn Fn(&Value) -> bool| events.iter().position(what).expect("it was written");
    let registered =
        |name: &'static str| first(&move |event| event["verb"] == "patch" && event["objectRef"]["name"] == name);
    let endpoints = |service: &'static str| {
        first(&move |event| {
            let is_write = matches!(event["verb"].as_str(), Some("create" | "update" | "patch"));
            is_write && uri(event).contains("/endpointslices") && named(event, service)
        })
    };
    assert!(endpoints("virt-api") < registered("virt-api-validator"));
    assert!(endpoints("virt-api") < registered("v1.subresources.kubevirt.io"));
    assert!(endpoints("kubevirt-operator-webhook") < registered(VALIDATOR));
    let certificate =
        first(&|event| event["objectRef"]["name"] == "kubevirt-operator-certs" && event["verb"] == "patch");
    assert!(certificate < registered(VALIDATOR));
}

/// Whether a request is about a slice of a service; their names begin with the service's.
fn named(event: &Value, service: &str) -> bool {
    event["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with(service))
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_would_not_answer_keeps_the_webhooks_unregistered_and_is_named() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    // Ready, selected by the Service, and nobody listens on its port.
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "impostor", "labels": {"kubevirt.io": "virt-operator"}},
        "spec": {"serviceAccountName": "kubevirt-operator", "containers": [{
            "name": "idle", "image": format!("{REGISTRY}/virt-launcher:v0.1.0"),
            "ports": [{"name": "webhooks", "containerPort": 8444}]}]}});
    let pods = cluster.of("", "v1", "Pod", "pods", true);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("it is stored");
    cluster
        .until("it is ready", async || {
            cluster.pods("virt-operator").await.iter().find(|pod| pod.0 == "impostor" && pod.2).map(drop)
        })
        .await;
    cluster.cr().await;
    let said = "is not registered yet: service kubevirt-operator-webhook: ";
    cluster
        .cr_until("it is named", |cr| {
            let conditions = cr["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let message =
                |c: &Value| c["message"].as_str().is_some_and(|m| m.contains(said) && m.contains("cannot be reached"));
            conditions.iter().any(message)
        })
        .await;
    assert!(cluster.get(Kind::ValidatingWebhookConfiguration, VALIDATOR).await.is_none());
    pods.delete("impostor", &DeleteParams::default()).await.expect("it goes");
    cluster.settled("v0.1.0").await;
    assert!(cluster.get(Kind::ValidatingWebhookConfiguration, VALIDATOR).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_first_custom_resource_is_judged_before_it_is_acted_upon() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    let first = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt"},
        "spec": {"infra": {"replicas": 0}}});
    let first = serde_json::from_value(first).expect("an object");
    cluster
        .until("it is stored, as no webhook is there yet", async || {
            cluster.api(Kind::KubeVirt).create(&PostParams::default(), &first).await.ok()
        })
        .await;
    let cr = cluster.cr_until("it is refused", |cr| condition(cr, "Synchronized") == "False InvalidSpec").await;
    assert!(cr["status"]["conditions"].to_string().contains("infra replica count can't be 0"), "{cr:#}");
    assert_eq!(
        cluster.names(Kind::Deployment, "app.kubernetes.io/managed-by=virt-operator").await,
        Vec::<String>::new()
    );
    cluster.patch_cr(json!({"spec": {"infra": null}})).await;
    cluster.settled("v0.1.0").await;
}
