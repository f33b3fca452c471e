use kube::api::{DeleteParams, Patch, PatchParams};
use kubevirt_release::Kind;
use serde_json::json;

use super::support::{Cluster, condition};

async fn installed() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn what_was_edited_or_deleted_is_repaired_and_others_labels_stay() {
    let cluster = installed().await;
    let edit = json!({
        "metadata": {"labels": {"example.com/team": "blue"}},
        "spec": {"template": {"spec": {"containers": [{"name": "virt-controller", "env": [{"name": "X", "value": "1"}]}]}}},
    });
    cluster
        .api(Kind::Deployment)
        .patch("virt-controller", &PatchParams::default(), &Patch::Strategic(edit))
        .await
        .expect("the edit is accepted");
    cluster.api(Kind::Service).delete("virt-api", &DeleteParams::default()).await.expect("the deletion is accepted");
    cluster.api(Kind::Secret).delete("kubevirt-virt-api-certs", &DeleteParams::default()).await.expect("deleted");
    cluster
        .until("all is as it was", async || {
            let controller = cluster.get(Kind::Deployment, "virt-controller").await?;
            assert_eq!(controller["metadata"]["labels"]["example.com/team"], "blue");
            let variables = controller["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned();
            cluster.get(Kind::Service, "virt-api").await?;
            cluster.get(Kind::Secret, "kubevirt-virt-api-certs").await?;
            variables.into_iter().flatten().all(|variable| variable["name"] != "X").then_some(())
        })
        .await;
    cluster.settled("v0.1.0").await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_cr_that_changes_nothing_writes_no_object() {
    let cluster = installed().await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let before = cluster.writes().len();
    cluster.patch_cr(json!({"spec": {"configuration": {"evictionStrategy": "LiveMigrate"}}})).await;
    cluster
        .cr_until("the edit is observed", |cr| cr["status"]["observedGeneration"] == cr["metadata"]["generation"])
        .await;
    let writes = &cluster.writes()[before..];
    assert!(writes.iter().all(|(_, target)| target == "kubevirts/kubevirt/status"), "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_cr_that_was_there_before_the_webhook_is_told_so_and_the_first_keeps_being_served() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.cr_until("it is followed", |cr| cr["metadata"]["finalizers"][0].is_string()).await;
    let second = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
        "metadata": {"name": "another", "namespace": "kubevirt"}, "spec": {"imageTag": "v9.9.9"},
    });
    cluster
        .api(Kind::KubeVirt)
        .patch("another", &PatchParams::apply("admin"), &Patch::Apply(second))
        .await
        .expect("nothing refuses it yet");
    cluster.settled("v0.1.0").await;
    cluster
        .until("the second one is told", async || {
            let another = cluster.get(Kind::KubeVirt, "another").await?;
            (condition(&another, "Synchronized") == "False ExistingDeployment").then_some(())
        })
        .await;
    let first = cluster.settled("v0.1.0").await;
    assert_eq!(condition(&first, "Synchronized"), "-");
}

#[tokio::test(start_paused = true)]
async fn deleting_the_cr_leaves_nothing_of_the_suite() {
    let cluster = installed().await;
    cluster.api(Kind::KubeVirt).delete("kubevirt", &DeleteParams::default()).await.expect("the deletion is accepted");
    cluster
        .until("the CR is gone", async || match cluster.get(Kind::KubeVirt, "kubevirt").await {
            None => Some(()),
            Some(_) => None,
        })
        .await;
    for kind in Kind::ALL
        .iter()
        .filter(|kind| matches!(kind.group(), "" | "apps" | "policy") || kind.group().ends_with(".k8s.io"))
    {
        let left = cluster.names(*kind, "app.kubernetes.io/managed-by=virt-operator").await;
        assert_eq!(left, Vec::<String>::new(), "{kind}");
    }
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
}
