use std::collections::BTreeSet;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kubevirt_release::Kind;
use serde_json::{Value, json};
use virt_operator::preview::removal;

use super::support::{Cluster, NAMESPACE};

const PLURALS: [(&str, &str); 2] =
    [("VirtualMachine", "virtualmachines"), ("VirtualMachineInstance", "virtualmachineinstances")];

async fn installed() -> Cluster {
    let cluster = Cluster::start(2);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    cluster
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object")
}

impl Cluster {
    fn users(&self, kind: usize) -> kube::Api<DynamicObject> {
        let (kind, plural) = PLURALS[kind];
        self.of("kubevirt.io", "v1", kind, plural, true)
    }

    /// A user's object that somebody holds.
    async fn held(&self, kind: usize, name: &str) {
        let value = json!({"apiVersion": "kubevirt.io/v1", "kind": PLURALS[kind].0,
            "metadata": {"name": name, "finalizers": ["example.com/backup"]}, "spec": {}});
        self.users(kind).create(&PostParams::default(), &object(value)).await.expect("it is stored");
    }

    async fn let_go(&self, kind: usize, name: &str) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.users(kind).patch(name, &PatchParams::default(), &patch).await.map(drop)
    }

    async fn remove(&self) {
        self.api(Kind::KubeVirt).delete("kubevirt", &DeleteParams::default()).await.expect("the deletion is accepted");
    }

    async fn removed(&self) {
        self.until("the CR is gone", async || self.get(Kind::KubeVirt, "kubevirt").await.is_none().then_some(())).await;
    }

    /// Waits until the CR says why it is not gone yet.
    async fn waits_for(&self, what: &str) -> Value {
        self.cr_until(&format!("waiting for {what}"), |cr| {
            let conditions = cr["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| {
                condition["type"] == "Progressing" && condition["message"].as_str().is_some_and(|m| m.contains(what))
            })
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_somebody_holds_holds_up_the_removal_with_its_name_while_everything_still_runs() {
    let cluster = installed().await;
    cluster.held(0, "till").await;
    cluster.remove().await;
    let cr = cluster.waits_for("virtualmachines.kubevirt.io kubevirt/till is held by example.com/backup").await;
    assert_eq!(cr["status"]["phase"], "Deleting");
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    for name in ["virt-api", "virt-controller"] {
        assert!(cluster.get(Kind::Deployment, name).await.is_some(), "{name} still cleans up after users' objects");
    }
    let name = "virtualmachineinstances.kubevirt.io";
    let empty =
        cluster.get(Kind::CustomResourceDefinition, name).await.expect("all are served until the last is empty");
    assert_eq!(empty["metadata"]["finalizers"], json!(["kubevirt.io/virtOperatorFinalizer"]));
    cluster.let_go(0, "till").await.expect("it goes");
    cluster.removed().await;
    assert!(cluster.refused().iter().all(|refusal| !refusal.contains("Forbidden")), "{:?}", cluster.refused());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_nobody_answers_does_not_hold_up_the_removal() {
    let cluster = installed().await;
    cluster.held(1, "guest").await;
    cluster.remove().await;
    cluster.waits_for("kubevirt/guest is held by").await;
    cluster.let_go(1, "guest").await.expect_err("this virt-api answers nonsense");
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    cluster.api(Kind::Deployment).patch("virt-api", &PatchParams::default(), &none).await.expect("it is scaled");
    cluster
        .until("the webhook is gone", async || {
            cluster.get(Kind::ValidatingWebhookConfiguration, "virt-api-validator").await.is_none().then_some(())
        })
        .await;
    cluster.let_go(1, "guest").await.expect("nobody is asked");
    cluster.removed().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_but_what_the_administrator_applied() {
    let cluster = installed().await;
    let nodes = cluster.of("", "v1", "Node", "nodes", false);
    let ours = json!({"metadata": {
        "labels": {"kubevirt.io/schedulable": "true", "cpu-model.node.kubevirt.io/Penryn": "true", "example.com/rack": "7"},
        "annotations": {"kubevirt.io/heartbeat": "now"},
    }});
    for node in nodes.list(&Default::default()).await.expect("nodes").items {
        let name = node.metadata.name.unwrap_or_default();
        nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&ours)).await.expect("labels");
    }
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kubevirt-install-strategy-old", "labels": {"kubevirt.io/install-strategy": ""}}});
    cluster.api(Kind::ConfigMap).create(&PostParams::default(), &object(foreign)).await.expect("it is stored");
    let wiped = Patch::Merge(json!({"metadata": {"labels": null}}));
    cluster.settled("v0.1.0").await;

    let planned = removal(&cluster.client).await.expect("it can be planned");
    assert_eq!(planned.blockers, []);
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for key in planned.stages.iter().flat_map(|stage| &stage.delete) {
        expected.insert(format!("{}/{}", key.kind.plural(), key.name));
    }
    let before = cluster.writes().len();
    cluster.remove().await;
    // What lost its label right then is no longer shown by any watch.
    cluster.api(Kind::Secret).patch("kubevirt-ca", &PatchParams::default(), &wiped).await.ok();
    cluster.removed().await;

    let deleted: BTreeSet<String> =
        cluster.writes()[before..].iter().filter(|(verb, _)| verb == "delete").map(|(_, what)| what.clone()).collect();
    assert_eq!(deleted, expected, "what was planned is what went");
    for node in nodes.list(&Default::default()).await.expect("nodes").items {
        let (labels, annotations) =
            (node.metadata.labels.unwrap_or_default(), node.metadata.annotations.unwrap_or_default());
        assert!(labels.keys().chain(annotations.keys()).all(|key| !key.contains("kubevirt.io/")), "{labels:?}");
        assert_eq!(labels.get("example.com/rack").map(String::as_str), Some("7"));
    }
    let namespace = cluster.get(Kind::Namespace, NAMESPACE).await.expect("the namespace stays");
    assert!(namespace["metadata"]["labels"].get("openshift.io/cluster-monitoring").is_none());
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    for (kind, name) in [
        (Kind::CustomResourceDefinition, "kubevirts.kubevirt.io"),
        (Kind::PriorityClass, "kubevirt-cluster-critical"),
        (Kind::Deployment, "virt-operator"),
    ] {
        assert!(cluster.get(kind, name).await.is_some(), "{kind} {name} stays");
    }
    for kind in [Kind::ConfigMap, Kind::Secret, Kind::Job] {
        assert_eq!(cluster.names(kind, "kubevirt.io/install-strategy").await, Vec::<String>::new());
    }
    assert_eq!(cluster.names(Kind::Secret, "").await, Vec::<String>::new());
    assert!(cluster.refused().iter().all(|refusal| !refusal.contains("Forbidden")), "{:?}", cluster.refused());
}

#[tokio::test(start_paused = true)]
async fn the_plan_says_beforehand_how_many_would_go_and_what_would_hold_it_up() {
    let cluster = installed().await;
    cluster.held(0, "till").await;
    cluster.patch_cr(json!({"spec": {"uninstallStrategy": "BlockUninstallIfWorkloadsExist"}})).await;
    let writes = cluster.all_writes().len();
    let planned = removal(&cluster.client).await.expect("it can be planned");
    let codes: Vec<&str> = planned.blockers.iter().map(|blocker| blocker.code()).collect();
    assert_eq!(codes, ["WorkloadsExist", "InstanceHeld"]);
    assert_eq!(planned.instances["virtualmachines.kubevirt.io"].count, 1);
    let parts: Vec<&str> = planned.stages.iter().map(|stage| stage.part.code()).collect();
    assert_eq!(
        parts,
        ["own-webhooks", "definitions", "registrations", "workloads", "leftover-configuration", "access"]
    );
    let by_admin = cluster.all_writes().split_off(writes);
    assert!(by_admin.iter().all(|(user, _, _)| user != "kubernetes-admin"), "{by_admin:?}");
}
