use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kubevirt_api::names::annotation;
use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use kubevirt_release::{Kind, Object, Strategy};
use kubevirt_upgrade::Mode;
use serde_json::{Value, json};
use virt_operator::preview::{Change, Preview, preview};

use super::support::{Cluster, REGISTRY, condition, tag};

const SUITE: [&str; 3] = ["virt-api", "virt-controller", "virt-handler"];

async fn suite(cluster: &Cluster) -> Vec<(String, String, bool)> {
    let mut pods = Vec::new();
    for component in SUITE {
        pods.extend(cluster.pods(component).await);
    }
    pods
}

/// The operator's writes of workloads, in order, each once.
fn workloads(writes: &[(String, String)]) -> Vec<&str> {
    let mut order: Vec<&str> = Vec::new();
    for (_, target) in writes {
        if let Some(name) = target.strip_prefix("deployments/").or_else(|| target.strip_prefix("daemonsets/"))
            && !order.contains(&name)
        {
            order.push(name);
        }
    }
    order
}

/// An installation of v0.1.0, pinned, with the operator of v0.2.0.
async fn pinned() -> Cluster {
    let cluster = Cluster::start(3);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    cluster.patch_cr(tag("v0.1.0")).await;
    cluster
        .until("the strategy is kept", async || {
            (!cluster.names(Kind::ConfigMap, "kubevirt.io/install-strategy").await.is_empty()).then_some(())
        })
        .await;
    let before = suite(&cluster).await;
    let writes = cluster.writes().len();
    cluster.operator("v0.2.0").await;
    cluster.cr_until("the new operator reports", |cr| cr["status"]["operatorVersion"] == "v0.2.0").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let cr = cluster.settled("v0.1.0").await;
    assert_eq!(condition(&cr, "Synchronized"), "-");
    assert_eq!(suite(&cluster).await, before, "a new operator moves no pod of a pinned suite");
    assert_eq!(workloads(&cluster.writes()[writes..]), Vec::<&str>::new());
    cluster
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_goes_in_order_and_shows_its_signature() {
    let cluster = pinned().await;
    let writes = cluster.writes().len();
    cluster.patch_cr(tag("v0.2.0")).await;
    let updating =
        cluster.cr_until("the upgrade shows", |cr| condition(cr, "Degraded") == "True UpdateInProgress").await;
    assert_eq!(condition(&updating, "Available"), "True UpdateInProgress");
    assert_eq!(condition(&updating, "Progressing"), "True UpdateInProgress");
    assert_eq!(updating["status"]["phase"], "Deployed");
    assert_eq!(updating["status"]["observedKubeVirtVersion"], "v0.1.0");
    cluster.settled("v0.2.0").await;
    assert_eq!(workloads(&cluster.writes()[writes..]), ["virt-handler", "virt-controller", "virt-api"]);
    let pods = suite(&cluster).await;
    assert!(pods.iter().all(|(_, image, ready)| image.ends_with(":v0.2.0") && *ready), "{pods:?}");
    let events = cluster.of("", "v1", "Event", "events", true).list(&Default::default()).await.expect("events").items;
    let reasons: Vec<&str> = events.iter().filter_map(|event| event.data["reason"].as_str()).collect();
    for wanted in ["InstallationStarted", "InstallationFinished", "UpgradeStarted", "UpgradeFinished"] {
        assert!(reasons.contains(&wanted), "{wanted} is not among {reasons:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn going_back_goes_the_other_way() {
    let cluster = pinned().await;
    cluster.patch_cr(tag("v0.2.0")).await;
    cluster.settled("v0.2.0").await;
    let writes = cluster.writes().len();
    cluster.patch_cr(tag("v0.1.0")).await;
    cluster.settled("v0.1.0").await;
    assert_eq!(workloads(&cluster.writes()[writes..]), ["virt-api", "virt-controller", "virt-handler"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_pin_the_suite_follows_the_operator() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    cluster.operator("v0.2.0").await;
    cluster.settled("v0.2.0").await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_cannot_be_had_changes_nothing_and_says_why() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (before, writes) = (suite(&cluster).await, cluster.writes().len());
    cluster.patch_cr(tag("v0.30")).await;
    let cr =
        cluster.cr_until("the refusal shows", |cr| condition(cr, "Synchronized") == "False TargetUnavailable").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(condition(&cr, "Available"), "True AllComponentsReady", "what runs keeps running");
    assert_eq!(condition(&cr, "Progressing"), "False TargetUnavailable");
    let conditions = cr["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let message = conditions.iter().find(|c| c["type"] == "Synchronized").and_then(|c| c["message"].as_str());
    assert!(message.is_some_and(|message| message.contains("v0.30") && message.contains("strategy")), "{message:?}");
    assert_eq!(suite(&cluster).await, before);
    // What tells of it, and what tries to get the version's strategy.
    let is_beside = |target: &str| ["kubevirts/", "events/", "jobs/"].iter().any(|kind| target.starts_with(kind));
    assert!(cluster.writes()[writes..].iter().all(|(_, target)| is_beside(target)), "{:?}", cluster.writes());
    cluster.patch_cr(serde_json::json!({"spec": {"imageTag": Value::Null}})).await;
    cluster.settled("v0.1.0").await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_repaired_while_the_version_asked_for_cannot_be_had() {
    let cluster = Cluster::start(1);
    cluster.operator("v0.1.0").await;
    cluster.cr().await;
    cluster.settled("v0.1.0").await;
    cluster.patch_cr(tag("v0.30")).await;
    cluster.cr_until("the refusal shows", |cr| condition(cr, "Synchronized") == "False TargetUnavailable").await;
    cluster.api(Kind::Deployment).delete("virt-api", &DeleteParams::default()).await.expect("the deletion is accepted");
    cluster.api(Kind::Secret).delete("kubevirt-virt-api-certs", &DeleteParams::default()).await.expect("deleted");
    cluster.cr_until("the outage shows", |cr| condition(cr, "Available") == "False DeploymentInProgress").await;
    let cr = cluster.cr_until("the repair shows", |cr| condition(cr, "Available") == "True AllComponentsReady").await;
    assert_eq!(condition(&cr, "Synchronized"), "False TargetUnavailable");
    let pods = suite(&cluster).await;
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|(_, image, ready)| image.ends_with(":v0.1.0") && *ready), "{pods:?}");
    cluster.get(Kind::Secret, "kubevirt-virt-api-certs").await.expect("the certificate was issued again");
}

#[tokio::test(start_paused = true)]
async fn a_plan_can_be_looked_at_without_changing_anything() {
    let cluster = pinned().await;
    let writes = cluster.all_writes();
    let planned = preview(&cluster.client, "v0.2.0").await.expect("the operator's own version can be planned");
    let Preview { plan, report, changes } = planned;
    assert_eq!(plan.mode(), Mode::Update);
    assert!(report.message().starts_with("updating v0.1.0 to v0.2.0"), "{}", report.message());
    let written: Vec<&str> = plan
        .steps()
        .iter()
        .filter(|step| step.slot.is_workload() && !step.apply.is_empty())
        .map(|step| step.slot.code())
        .collect();
    assert_eq!(written, ["virt-handler", "virt-controller", "virt-api"]);
    let handler = changes.iter().find(|it| it.object.kind == Kind::DaemonSet).expect("virt-handler is written");
    let image = handler
        .differences
        .iter()
        .find(|it| it.path == "spec.template.spec.containers[0].image")
        .expect("its image changes");
    let ends =
        |value: &Option<Value>, tag: &str| value.as_ref().and_then(Value::as_str).is_some_and(|it| it.ends_with(tag));
    assert!(ends(&image.from, ":v0.1.0") && ends(&image.to, ":v0.2.0"), "{image:?}");
    let of_nothing: Vec<_> = changes.iter().filter(|it| it.differences.is_empty()).collect();
    assert!(of_nothing.is_empty(), "written without a reason: {of_nothing:?}");
    let same = preview(&cluster.client, "v0.1.0").await.expect("what runs can be planned");
    assert!(same.plan.is_done() && same.changes.is_empty(), "{same:#?}");
    let refused = preview(&cluster.client, "v0.30").await.expect_err("nobody has v0.30");
    assert_eq!(refused.code(), "TargetUnavailable");
    let by_admin = cluster.all_writes().split_off(writes.len());
    assert!(by_admin.iter().all(|(user, _, _)| user != "kubernetes-admin"), "{by_admin:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_in_the_middle_is_succeeded_and_the_order_holds() {
    let cluster = pinned().await;
    let writes = cluster.writes().len();
    cluster.patch_cr(tag("v0.2.0")).await;
    let lease = cluster.of("coordination.k8s.io", "v1", "Lease", "leases", true);
    for component in ["virt-handler", "virt-controller"] {
        cluster
            .until(&format!("a new {component} runs"), async || {
                let pods = cluster.pods(component).await;
                pods.iter().any(|(_, image, _)| image.ends_with(":v0.2.0")).then_some(())
            })
            .await;
        let held = lease.get("virt-operator").await.expect("there is a lease");
        let leader = held.data["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        cluster.of("", "v1", "Pod", "pods", true).delete(&leader, &at_once).await.expect("the leader can be killed");
    }
    cluster.settled("v0.2.0").await;
    assert_eq!(workloads(&cluster.writes()[writes..]), ["virt-handler", "virt-controller", "virt-api"]);
}

/// Changes an object of the kept strategy of a version.
async fn change_kept(cluster: &Cluster, version: &str, kind: Kind, name: &str, change: impl Fn(&mut Value)) {
    let maps = cluster.names(Kind::ConfigMap, "kubevirt.io/install-strategy").await;
    for map in maps {
        let live = cluster.get(Kind::ConfigMap, &map).await.expect("a strategy");
        if live["metadata"]["annotations"][annotation::STRATEGY_VERSION] != version {
            continue;
        }
        let mut strategy = Strategy::decode(&serde_json::from_value(live).expect("a ConfigMap")).expect("a strategy");
        let is_it = |object: &&mut Object| object.kind() == kind && object.name() == name;
        change(strategy.objects.iter_mut().find(is_it).expect("the object").value_mut());
        let patch = Patch::Merge(json!({"data": strategy.encode("kubevirt").data}));
        cluster.api(Kind::ConfigMap).patch(&map, &PatchParams::default(), &patch).await.expect("patched");
    }
}

/// Takes the status subresource of a definition out of the kept strategy of a version.
async fn strip_status(cluster: &Cluster, version: &str, definition: &str) {
    change_kept(cluster, version, Kind::CustomResourceDefinition, definition, |object| {
        for version in object["spec"]["versions"].as_array_mut().expect("versions") {
            version.as_object_mut().expect("a version").remove("subresources").expect("it has a status subresource");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_right_that_the_operator_may_not_give_stops_a_change_before_its_first_write_until_it_may() {
    const ROLE: &str = "kubevirt.io:view";
    let cluster = pinned().await;
    change_kept(&cluster, "v0.1.0", Kind::ClusterRole, ROLE, |role| role["rules"] = json!([])).await;
    cluster
        .until("the older version's role is narrow", async || {
            let live = cluster.get(Kind::ClusterRole, ROLE).await.expect("the role");
            live["rules"].as_array().is_none_or(Vec::is_empty).then_some(())
        })
        .await;
    cluster.settled("v0.1.0").await;
    let manifest = operator_manifest(&ManifestOptions::new(REGISTRY, "v0.2.0"));
    let is_own = |object: &&Object| object.kind() == Kind::ClusterRole && object.name() == "kubevirt-operator";
    let whole = manifest.into_iter().find(|object| is_own(&object)).expect("the operator has a role");
    let mut narrow = whole.clone();
    let fills = |rule: &Value| rule["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("escalate")));
    narrow.value_mut()["rules"].as_array_mut().expect("rules").retain(|rule| !fills(rule));
    cluster.apply(&[narrow]).await;

    let Preview { report, .. } = preview(&cluster.client, "v0.2.0").await.expect("it can be planned");
    let told: Vec<String> = report.findings().iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].starts_with(&format!("ClusterRole {ROLE} grants")), "{told:?}");

    let (writes, refused) = (cluster.writes().len(), cluster.refused().len());
    cluster.patch_cr(tag("v0.2.0")).await;
    cluster.cr_until("it is blocked", |cr| condition(cr, "Synchronized") == "False UpgradeBlocked").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let plan = cluster.get(Kind::UpgradePlan, "upgrade-1").await.expect("the plan");
    let status = &plan["status"];
    assert_eq!((&status["state"], &status["reason"]), (&json!("Blocked"), &json!("PreflightFailed")), "{status:#}");
    assert_eq!(status["findings"][0]["code"], "PermissionMissing", "{status:#}");
    assert_eq!(status["findings"][0]["blocks"], true);
    // Certificates are looked after whatever is held.
    let beside = ["kubevirts/", "events/", "upgradeplans/", "configmaps/", "secrets/"];
    let is_beside = |target: &str| beside.iter().any(|kind| target.starts_with(kind));
    let written = cluster.writes().split_off(writes);
    assert!(written.iter().all(|(_, target)| is_beside(target)), "{written:?}");
    assert_eq!(cluster.refused().split_off(refused), [""; 0], "nothing was tried in vain");

    cluster.apply(&[whole]).await;
    cluster.settled("v0.2.0").await;
    let live = cluster.get(Kind::ClusterRole, ROLE).await.expect("the role");
    assert!(!live["rules"].as_array().expect("rules").is_empty(), "it has its rules again");
}

#[tokio::test(start_paused = true)]
async fn a_status_subresource_is_given_once_nothing_of_the_older_version_runs() {
    const DEFINITION: &str = "migrationpolicies.migrations.kubevirt.io";
    let cluster = pinned().await;
    let has_status = async || {
        let live = cluster.get(Kind::CustomResourceDefinition, DEFINITION).await.expect("the definition");
        live["spec"]["versions"][0]["subresources"]["status"].is_object()
    };
    strip_status(&cluster, "v0.1.0", DEFINITION).await;
    cluster.until("the older version has no such subresource", async || (!has_status().await).then_some(())).await;
    cluster.settled("v0.1.0").await;
    let Preview { changes, .. } = preview(&cluster.client, "v0.2.0").await.expect("it can be planned");
    let is_it = |change: &&Change| change.step.is_none() && change.object.name == DEFINITION;
    let told = &changes.iter().find(is_it).expect("it is said beforehand").differences;
    assert!(told.iter().any(|it| it.path == "spec.versions[0].subresources"), "{told:?}");
    let writes = cluster.writes().len();
    cluster.patch_cr(tag("v0.2.0")).await;
    let is_old = |(_, image, _): &(String, String, bool)| image.ends_with(":v0.1.0");
    cluster
        .until("the subresource is there", async || {
            let given = has_status().await;
            // Asked afterwards: what ran when it was given may have ended since, but nothing old starts again.
            let old = cluster.pods("virt-controller").await.iter().any(is_old);
            assert!(!given || !old, "it was given while the older virt-controller runs");
            given.then_some(())
        })
        .await;
    cluster.settled("v0.2.0").await;
    let writes = &cluster.writes()[writes..];
    assert_eq!(workloads(writes), ["virt-handler", "virt-controller", "virt-api"]);
    let last = |target: &str| writes.iter().rposition(|(_, written)| written == target).expect("it was written");
    assert!(last("deployments/virt-api") < last(&format!("customresourcedefinitions/{DEFINITION}")), "{writes:?}");
    assert!(has_status().await);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_no_runtime_would_take_stops_a_change_and_a_missing_pull_secret_is_told() {
    let cluster = pinned().await;
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "r.io/virt:v 2"}]);
    let patches = json!([{"resourceType": "Deployment", "resourceName": "virt-controller", "type": "json",
        "patch": image.to_string()}]);
    let spec = json!({"imageTag": "v0.2.0", "imagePullSecrets": [{"name": "pull"}],
        "customizeComponents": {"patches": patches}});
    cluster.patch_cr(json!({ "spec": spec })).await;
    cluster.cr_until("it is blocked", |cr| condition(cr, "Synchronized") == "False UpgradeBlocked").await;
    let told = async || {
        let plan = cluster.get(Kind::UpgradePlan, "upgrade-1").await.expect("the plan");
        let findings = plan["status"]["findings"].as_array().cloned().unwrap_or_default();
        findings.iter().map(|finding| finding["code"].as_str().expect("a code").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["ImageReferenceInvalid", "PullSecretMissing"]);
    let secret = json!({"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "e30="}});
    let secret = serde_json::from_value(secret).expect("a Secret");
    cluster.api(Kind::Secret).create(&PostParams::default(), &secret).await.expect("made");
    cluster.until("it is not told any more", async || (told().await == ["ImageReferenceInvalid"]).then_some(())).await;
    assert!(suite(&cluster).await.iter().all(|(_, image, _)| image.ends_with(":v0.1.0")));
    cluster.patch_cr(json!({"spec": {"customizeComponents": null}})).await;
    cluster.settled("v0.2.0").await;
    assert_eq!(told().await, [""; 0], "all was mended before it began");
}
