//! Installed, kept and upgraded by this operator, as the audit log shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use kubevirt_release::extras::TYPES;
use kubevirt_release::{Kind, ObjectKey};
use serde_json::{Value, json};

use super::suite::{Suite, by_kind, cluster, real, small};
use crate::support::{Cluster, OPERATOR, condition};

const VERSION: &str = "kubevirt.io/install-strategy-version";
const ID: &str = "kubevirt.io/install-strategy-identifier";

#[tokio::test(start_paused = true)]
async fn a_suite_of_another_operator_is_installed_kept_and_upgraded() {
    tell(&small()).await;
}

#[tokio::test(start_paused = true)]
async fn the_real_suite_is_installed_kept_and_upgraded() {
    if let Some(suite) = real() {
        assert_eq!(suite.strategy(0).objects.len(), 214);
        tell(&suite).await;
    }
}

async fn tell(suite: &Suite) {
    let cluster = installed(suite).await;
    everything_is_there(&cluster, suite, 0).await;
    quiet(&cluster).await;
    repaired(&cluster, suite).await;
    quiet(&cluster).await;
    upgraded(&cluster, suite).await;
    everything_is_there(&cluster, suite, 1).await;
    quiet(&cluster).await;
}

async fn installed(suite: &Suite) -> Cluster {
    let cluster = cluster(suite).await;
    cluster.cr().await;
    cluster.patch_cr(suite.spec(0)).await;
    cluster.settled(suite.versions[0]).await;
    let cr = with_types(&cluster).await;
    let status = &cr["status"];
    assert_eq!(status["observedDeploymentID"], suite.id(0).as_str());
    assert_eq!(status["targetDeploymentID"], suite.id(0).as_str());
    assert_eq!(status["observedKubeVirtRegistry"], suite.registry);
    let config: Value =
        serde_json::from_str(status["observedDeploymentConfig"].as_str().expect("a text")).expect("a config");
    assert_eq!(config["id"], suite.id(0).as_str());
    assert_eq!(condition(&cr, "Synchronized"), "-");
    let keys = suite.keys(0);
    assert_eq!(keys.len(), suite.objects - suite.left_out);
    // What the operator made, as the audit log tells: every object once, and nothing that the cluster has no API for.
    let mut made = created(&cluster.events());
    for (kind, count) in by_kind(&keys) {
        assert_eq!(made.remove(kind.plural()), Some(count), "{kind}");
    }
    let budgets = made.remove("poddisruptionbudgets");
    assert_eq!(budgets, Some(suite.keys(0).iter().filter(|key| key.kind == Kind::Deployment).count()));
    made.remove("events");
    assert_eq!(made, BTreeMap::new(), "nothing else was made");
    cluster
}

/// Waits until the ready-made types are what they should be: they are written once the version is complete.
async fn with_types(cluster: &Cluster) -> Value {
    cluster
        .cr_until("the types are there", |cr| condition(cr, "InstancetypesReady") == "True InstancetypesDeployed")
        .await
}

/// How many objects the operator made, by resource.
fn created(events: &[Value]) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for event in events.iter().filter(|event| event["user"]["username"] == OPERATOR) {
        if event["responseStatus"]["code"] == 201 && event["objectRef"]["resource"] != "leases" {
            let resource = event["objectRef"]["resource"].as_str().unwrap_or_default().to_owned();
            *made.entry(resource).or_default() += 1;
        }
    }
    made
}

async fn get(cluster: &Cluster, key: &ObjectKey) -> Option<Value> {
    cluster.get(key.kind, &key.name).await
}

async fn everything_is_there(cluster: &Cluster, suite: &Suite, at: usize) {
    for key in suite.keys(at) {
        let live = get(cluster, &key).await.unwrap_or_else(|| panic!("{key} is missing"));
        let metadata = &live["metadata"];
        assert_eq!(metadata["annotations"][VERSION], suite.versions[at], "{key}");
        assert_eq!(metadata["annotations"][ID], suite.id(at).as_str(), "{key}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "virt-operator", "{key}");
    }
    let gone = suite.keys(1 - at).into_iter().filter(|key| !suite.keys(at).contains(key));
    for key in gone {
        assert_eq!(get(cluster, &key).await, None, "{key} is of another version");
    }
    assert_eq!(cluster.get(Kind::MutatingWebhookConfiguration, "virt-launcher-pod-mutator").await, None);
}

/// Several periodic passes without a write.
async fn quiet(cluster: &Cluster) {
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = cluster.writes().len();
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(cluster.writes()[before..], [], "nothing changed, so nothing is written");
}

/// Every object that loses its stamp gets it back, and one of each kind that is deleted is made again.
async fn repaired(cluster: &Cluster, suite: &Suite) {
    let keys = suite.keys(0);
    let unstamp = json!({"metadata": {"annotations": {VERSION: "v0"}}});
    for key in &keys {
        let parameters = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
        cluster.api(key.kind).patch(&key.name, &parameters, &Patch::Merge(&unstamp)).await.expect("an edit");
    }
    for key in &keys {
        cluster
            .until(&format!("{key} is repaired"), async || {
                let live = get(cluster, key).await?;
                (live["metadata"]["annotations"][VERSION] == suite.versions[0]).then_some(())
            })
            .await;
    }
    let mut last = None;
    for key in keys.iter().filter(|key| last.replace(key.kind) != Some(key.kind)) {
        // With a definition go the objects of its kind; they are made again too.
        let uid = get(cluster, key).await.expect("it is there")["metadata"]["uid"].clone();
        cluster.api(key.kind).delete(&key.name, &DeleteParams::default()).await.expect("a deletion");
        cluster
            .until(&format!("{key} is made again"), async || {
                let live = get(cluster, key).await?;
                (live["metadata"]["uid"] != uid && live["metadata"]["annotations"][VERSION] == suite.versions[0])
                    .then_some(())
            })
            .await;
    }
    cluster.settled(suite.versions[0]).await;
    with_types(cluster).await;
}

/// Names the CR the newer version and looks at the order of what was written.
async fn upgraded(cluster: &Cluster, suite: &Suite) {
    let before = cluster.events().len();
    cluster.patch_cr(suite.spec(1)).await;
    cluster.cr_until("the upgrade shows", |cr| condition(cr, "Degraded") == "True UpdateInProgress").await;
    cluster.settled(suite.versions[1]).await;
    for key in suite.keys(1).iter().filter(|key| TYPES.contains(&key.kind)) {
        cluster
            .until(&format!("{key} is of the new version"), async || {
                (get(cluster, key).await?["metadata"]["annotations"][VERSION] == suite.versions[1]).then_some(())
            })
            .await;
    }
    let cr = with_types(cluster).await;
    assert_eq!(cr["status"]["observedDeploymentID"], suite.id(1).as_str());

    let events = cluster.events().split_off(before);
    let writes: Vec<(usize, String, String)> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| event["user"]["username"] == OPERATOR)
        .filter(|(_, event)| !matches!(event["verb"].as_str(), Some("get" | "list" | "watch")))
        .map(|(at, event)| {
            let text = |field: &str| event["objectRef"][field].as_str().unwrap_or_default().to_owned();
            (at, format!("{} {}", event["verb"].as_str().unwrap_or_default(), text("resource")), text("name"))
        })
        .collect();
    let of = |what: &[&str]| {
        let found = writes
            .iter()
            .filter(|(_, write, name)| what.iter().any(|what| *what == write || *what == format!("{write} {name}")));
        found.map(|(at, _, _)| *at).collect::<Vec<usize>>()
    };
    let roles = ["patch clusterroles", "patch clusterrolebindings", "patch roles", "patch rolebindings"];
    let order: [(&str, Vec<usize>); 9] = [
        ("definitions", of(&["patch customresourcedefinitions"])),
        ("configuration", of(&["patch serviceaccounts", "patch services", "patch secrets"])),
        ("virt-handler", of(&["patch daemonsets virt-handler"])),
        ("virt-controller", of(&["patch deployments virt-controller"])),
        ("others", of(&["patch deployments virt-exportproxy", "patch deployments virt-synchronization-controller"])),
        ("virt-api", of(&["patch deployments virt-api"])),
        ("registrations", of(&["patch validatingwebhookconfigurations", "patch apiservices"])),
        ("pruned", of(&["delete services virt-console"])),
        ("types", of(&["patch virtualmachineclusterinstancetypes", "patch virtualmachineclusterpreferences"])),
    ];
    let written: Vec<&(&str, Vec<usize>)> = order.iter().filter(|(_, places)| !places.is_empty()).collect();
    assert!(written.len() >= 8, "{order:?}");
    for pair in written.windows(2) {
        let ((before, first), (after, then)) = (pair[0], pair[1]);
        assert!(first.iter().max() < then.iter().min(), "{after} is written before {before} is: {first:?} {then:?}");
    }
    let handler = *order[2].1.iter().min().expect("virt-handler is written");
    assert!(of(&roles).iter().any(|at| *at < handler), "roles are widened before a new pod runs");
    pods_follow(&events, &["virt-handler", "virt-controller", "virt-api"]);
    if suite.keys(1) != suite.keys(0) {
        shrunk(&writes, cluster, *order[7].1.last().expect("something is pruned")).await;
    }
    let pods = cluster.of("", "v1", "Pod", "pods", true).list(&Default::default()).await.expect("pods").items;
    let suite_pods: Vec<_> = pods
        .iter()
        .filter(|pod| pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ID)))
        .collect();
    let deployments = suite.keys(1).iter().filter(|key| key.kind == Kind::Deployment).count();
    assert_eq!(suite_pods.len(), 2 * deployments + 3);
    for pod in suite_pods {
        assert_eq!(pod.metadata.annotations.as_ref().expect("annotations")[ID], suite.id(1));
    }
}

/// No pod of a workload is made any more once the next one is written.
fn pods_follow(events: &[Value], order: &[&str]) {
    let written = |name: &str| {
        events.iter().position(|event| {
            event["user"]["username"] == OPERATOR
                && event["verb"] == "patch"
                && matches!(event["objectRef"]["resource"].as_str(), Some("deployments" | "daemonsets"))
                && event["objectRef"]["name"] == name
        })
    };
    for pair in order.windows(2) {
        let next = written(pair[1]).expect("every workload is written");
        let late = events[next..].iter().any(|event| {
            event["verb"] == "create"
                && event["objectRef"]["resource"] == "pods"
                && event["objectRef"]["subresource"].is_null()
                && event["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with(&format!("{}-", pair[0])))
        });
        assert!(!late, "a pod of {} was created after {} was written", pair[0], pair[1]);
    }
}

/// A role that differs between the versions is written twice: widened at first, narrowed at the end.
async fn shrunk(writes: &[(usize, String, String)], cluster: &Cluster, pruned: usize) {
    let role: Vec<usize> = writes
        .iter()
        .filter(|(_, write, name)| write == "patch clusterroles" && name == "kubevirt-controller")
        .map(|(at, _, _)| *at)
        .collect();
    assert_eq!(role.len(), 2, "{role:?}");
    assert!(role[0] < pruned && pruned < role[1], "narrowed when nothing old is left: {role:?}, pruned at {pruned}");
    let live = cluster.get(Kind::ClusterRole, "kubevirt-controller").await.expect("the role");
    let resources: Vec<&Value> =
        live["rules"].as_array().into_iter().flatten().map(|rule| &rule["resources"][0]).collect();
    assert_eq!(resources, ["kubevirts", "pods", "services"]);
}
