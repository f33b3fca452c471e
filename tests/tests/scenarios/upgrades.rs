//! Changes of version that do not simply go on: undone by themselves or on request, paused, and what is recorded of them.

use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kubevirt_release::Kind;
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until};
use nanokube_cli::images::{Defect, Table};
use serde_json::{Value, json};

use crate::support::{install, operator, policy, settled};

/// The release that has a defect in these stories.
const BAD: &str = "v0.3.0";

/// Longer than everything that follows from a moment takes, probes and back-offs included.
pub(crate) const A_WHILE: Duration = Duration::from_secs(120);

fn broken(component: &str, defect: Defect) -> impl FnOnce(Table) -> Table {
    move |images| images.with_defect("localhost/kubevirt", component, BAD, defect)
}

/// v0.1.0 is installed and pinned; the operator is the one of another release.
pub(crate) async fn pinned(world: &World, next: &str) {
    install(world, "v0.1.0").await;
    world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
    world.apply(&operator(next)).await;
    world.kubevirt_until("served by the next operator", |kubevirt| kubevirt["status"]["operatorVersion"] == next).await;
    // Until every API server has heard that the old operator's webhooks are gone.
    quiet_for(A_WHILE).await;
    settled(world, "v0.1.0").await;
}

/// Waits until the plan of that number says what is asked.
pub(crate) async fn plan_until(world: &World, number: u32, what: &str, says: impl Fn(&Value) -> bool) -> Value {
    let name = format!("upgrade-{number}");
    until(&world.api(Kind::UpgradePlan, None), &name, what, |plan| says(&plan.data)).await.data
}

pub(crate) fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |plan| plan["status"]["state"] == state
}

pub(crate) async fn ask(world: &World, number: u32, request: Option<&str>) {
    let patch = Patch::Merge(json!({"spec": {"request": request}}));
    let plans = world.api(Kind::UpgradePlan, None);
    plans.patch(&format!("upgrade-{number}"), &PatchParams::default(), &patch).await.expect("a request");
}

/// Image tags of virt-handler's pods.
pub(crate) async fn handlers(world: &World) -> Vec<String> {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    let labelled = ListParams::default().labels("kubevirt.io=virt-handler");
    let pods = pods.list(&labelled).await.expect("pods").items;
    let tag = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str()?.rsplit(':').next().map(str::to_owned);
    let mut tags: Vec<String> = pods.iter().filter_map(|pod| tag(&pod.data)).collect();
    tags.sort();
    tags
}

/// How many pods of a component were made since request number `since`.
fn made(world: &World, since: usize, component: &str) -> usize {
    let is_one = |event: &&Value| {
        let object = &event["objectRef"];
        event["verb"] == "create"
            && object["resource"] == "pods"
            && object["subresource"].is_null()
            && object["name"].as_str().is_some_and(|name| name.starts_with(component))
    };
    world.requests()[since..].iter().filter(is_one).count()
}

async fn goes_back_by_itself(component: &'static str, defect: Defect, reason: &str, seed: u64) {
    let world = World::start_with(3, seed, broken(component, defect));
    pinned(&world, BAD).await;
    policy(&world, json!({"deadlineSeconds": 60, "imageGraceSeconds": 30})).await;
    let before = world.requests().len();
    world.patch_kubevirt(json!({"imageTag": BAD})).await;
    let plan = plan_until(&world, 1, "undone", is("RolledBack")).await;
    assert_eq!(plan["status"]["reason"], reason, "{plan:#}");
    assert_eq!(plan["status"]["rollback"]["reason"], reason);
    assert_eq!((&plan["spec"]["from"]["version"], &plan["spec"]["to"]["version"]), (&json!("v0.1.0"), &json!(BAD)));

    let kubevirt = world
        .kubevirt_until("held at the version before", |kubevirt| {
            condition_of(kubevirt, "Synchronized")["reason"] == "UpgradeRolledBack"
                && condition_of(kubevirt, "Progressing")["status"] == "False"
        })
        .await;
    assert_eq!(kubevirt["spec"]["imageTag"], BAD, "the spec is the user's");
    assert_eq!(kubevirt["status"]["observedKubeVirtVersion"], "v0.1.0");
    assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
    assert_eq!(condition_of(&kubevirt, "Degraded")["status"], "False");
    assert_eq!(handlers(&world).await, ["v0.1.0"; 3]);
    if component == "virt-handler" {
        // The one that failed, and the one that took its place again.
        assert_eq!(made(&world, before, "virt-handler-"), 2, "no second node got it");
        assert_eq!(made(&world, before, "virt-controller-"), 0);
    }

    let writes = world.requests().len();
    quiet_for(A_WHILE).await;
    assert_eq!(world.operator_writes(writes), Vec::<String>::new(), "it is not tried again");

    // What the user asks for next is followed.
    world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
    let kubevirt =
        world.kubevirt_until("in sync again", |kubevirt| condition_of(kubevirt, "Synchronized").is_null()).await;
    assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
}

#[test]
fn a_virt_handler_that_crash_loops_stops_at_the_canary_and_is_undone() {
    simulate(goes_back_by_itself("virt-handler", Defect::Crashes, "CrashLoop", 1));
}

#[test]
fn a_virt_handler_whose_image_cannot_be_pulled_is_undone() {
    simulate(goes_back_by_itself("virt-handler", Defect::NoImage, "ImageUnavailable", 2));
}

#[test]
fn a_virt_controller_that_never_becomes_ready_is_undone_on_all_nodes() {
    simulate(goes_back_by_itself("virt-controller", Defect::NeverReady, "NotReadyInTime", 3));
}

#[test]
fn a_virt_api_that_crash_loops_is_undone_on_all_nodes() {
    simulate(goes_back_by_itself("virt-api", Defect::Crashes, "CrashLoop", 4));
}

#[test]
fn what_was_undone_is_tried_again_when_the_spec_changes() {
    simulate(async {
        let world = World::start_with(2, 5, broken("virt-handler", Defect::Crashes));
        pinned(&world, BAD).await;
        world.patch_kubevirt(json!({"imageTag": BAD})).await;
        plan_until(&world, 1, "undone", is("RolledBack")).await;
        world.patch_kubevirt(json!({"configuration": {"developerConfiguration": {"memoryOvercommit": 110}}})).await;
        plan_until(&world, 2, "undone again", is("RolledBack")).await;
        let plans = world.api(Kind::UpgradePlan, None).list(&ListParams::default()).await.expect("plans").items;
        assert_eq!(plans.len(), 2);
    });
}

#[test]
fn an_upgrade_that_works_is_recorded_and_an_installation_is_not() {
    simulate(async {
        let world = World::start(3, 6);
        pinned(&world, "v0.2.0").await;
        let plans = world.api(Kind::UpgradePlan, None);
        assert_eq!(plans.list(&ListParams::default()).await.expect("plans").items.len(), 0);
        let before = world.requests().len();
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        settled(&world, "v0.2.0").await;
        let plan = plan_until(&world, 1, "over", is("Succeeded")).await;
        let steps = plan["status"]["steps"].as_array().expect("steps");
        let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
        assert_eq!(&names[3..7], ["virt-handler", "virt-controller", "other-workloads", "virt-api"]);
        assert!(steps.iter().all(|step| step["state"] == "Done" && step["finished"].is_string()), "{plan:#}");
        assert_eq!(steps[3]["pods"], 3);
        let writes = world.operator_writes(before);
        let records = writes.iter().filter(|write| write.contains("upgradeplans")).count();
        assert!(records <= 12, "one per step: {writes:#?}");
    });
}

#[test]
fn a_paused_policy_holds_an_upgrade_before_its_first_write_and_keeps_everything_else() {
    simulate(async {
        let world = World::start(2, 7);
        pinned(&world, "v0.2.0").await;
        policy(&world, json!({"paused": true})).await;
        let pods = world.suite_pods().await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        plan_until(&world, 1, "paused", is("Paused")).await;
        let kubevirt = world
            .kubevirt_until("saying so", |kubevirt| condition_of(kubevirt, "Synchronized")["reason"] == "UpgradePaused")
            .await;
        assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
        quiet_for(A_WHILE).await;
        assert_eq!(world.suite_pods().await, pods);
        policy(&world, json!({"paused": false})).await;
        settled(&world, "v0.2.0").await;
        plan_until(&world, 1, "over", is("Succeeded")).await;
    });
}

#[test]
fn a_request_stops_the_nodes_in_the_middle_and_the_way_back_is_open() {
    simulate(async {
        let world = World::start(8, 8);
        pinned(&world, "v0.2.0").await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        plan_until(&world, 1, "at virt-handler", |plan| plan["status"]["step"] == "4/10 virt-handler").await;
        ask(&world, 1, Some("Pause")).await;
        plan_until(&world, 1, "paused", is("Paused")).await;
        let daemon_sets = world.api(Kind::DaemonSet, Some(NAMESPACE));
        until(&daemon_sets, "virt-handler", "left alone", |set| {
            set.data["spec"]["updateStrategy"]["type"] == "OnDelete"
        })
        .await;
        quiet_for(A_WHILE).await;
        let stopped = handlers(&world).await;
        assert_eq!(stopped.len(), 8);
        assert!(stopped.iter().any(|tag| tag == "v0.1.0"), "{stopped:?}");
        quiet_for(A_WHILE).await;
        assert_eq!(handlers(&world).await, stopped);

        ask(&world, 1, None).await;
        plan_until(&world, 1, "going on", is("InProgress")).await;
        ask(&world, 1, Some("Rollback")).await;
        let plan = plan_until(&world, 1, "undone", is("RolledBack")).await;
        assert_eq!(plan["status"]["reason"], "RollbackRequested");
        world
            .kubevirt_until("held", |kubevirt| condition_of(kubevirt, "Progressing")["reason"] == "UpgradeRolledBack")
            .await;
        assert_eq!(handlers(&world).await, ["v0.1.0"; 8]);
    });
}

#[test]
fn whoever_names_the_version_before_again_ends_a_change_and_an_abort_leaves_everything() {
    simulate(async {
        let world = World::start(6, 9);
        pinned(&world, "v0.2.0").await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        plan_until(&world, 1, "at virt-handler", |plan| plan["status"]["step"] == "4/10 virt-handler").await;
        ask(&world, 1, Some("Abort")).await;
        plan_until(&world, 1, "aborted", is("Aborted")).await;
        quiet_for(A_WHILE).await;
        let left = handlers(&world).await;
        quiet_for(A_WHILE).await;
        assert_eq!(handlers(&world).await, left);
        world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
        settled(&world, "v0.1.0").await;
        assert_eq!(handlers(&world).await, ["v0.1.0"; 6]);
    });
}

#[test]
fn a_policy_of_another_name_is_refused_with_the_right_one() {
    simulate(async {
        let world = World::start(1, 10);
        world.apply(&operator("v0.1.0")).await;
        world.established("upgradepolicies.upgrade.kubevirt.io").await;
        let policy = serde_json::from_value(json!({"apiVersion": "upgrade.kubevirt.io/v1alpha1",
            "kind": "UpgradePolicy", "metadata": {"name": "mine"}, "spec": {}}))
        .expect("an object");
        let refused = world.api(Kind::UpgradePolicy, None).create(&PostParams::default(), &policy).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("is named default")));
    });
}

#[test]
fn a_chosen_node_goes_first_and_waves_follow_with_a_pause() {
    simulate(async {
        let world = World::start(6, 11);
        pinned(&world, "v0.2.0").await;
        let nodes = world.api(Kind::Node, None);
        let all = nodes.list(&ListParams::default()).await.expect("nodes").items;
        let chosen = all.last().and_then(|node| node.metadata.name.clone()).expect("a node");
        let label = Patch::Merge(json!({"metadata": {"labels": {"canary": "yes"}}}));
        nodes.patch(&chosen, &PatchParams::default(), &label).await.expect("a label");
        policy(
            &world,
            json!({"canaryNodeSelector": {"canary": "yes"}, "soakSeconds": 60,
                "waves": {"maxUnavailable": 2, "pauseSeconds": 45}}),
        )
        .await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        plan_until(&world, 1, "soaking", |plan| {
            plan["status"]["steps"][3]["blockedBy"].as_array().is_some_and(|codes| codes.contains(&json!("Soaking")))
        })
        .await;
        let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
        let labelled = ListParams::default().labels("kubevirt.io=virt-handler");
        let new = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|i| i.ends_with("v0.2.0"));
        let there = pods.list(&labelled).await.expect("pods").items;
        let first: Vec<&Value> = there.iter().map(|pod| &pod.data).filter(|pod| new(pod)).collect();
        assert_eq!(first.len(), 1, "one node until it has lasted");
        assert_eq!(first[0]["spec"]["nodeName"], json!(chosen));
        plan_until(&world, 1, "over", is("Succeeded")).await;
        // When each further pod was made: two at a time, at least the pause apart.
        let times: Vec<jiff::Timestamp> = world
            .requests()
            .iter()
            .filter(|event| event["verb"] == "delete" && event["objectRef"]["resource"] == "pods")
            .filter(|event| event["user"]["username"] == kubevirt_tests::OPERATOR)
            .filter_map(|event| event["requestReceivedTimestamp"].as_str()?.parse().ok())
            .collect();
        assert_eq!(times.len(), 6, "one deletion per node");
        let apart = |a: usize, b: usize| times[b].duration_since(times[a]).as_secs();
        assert!(apart(0, 1) >= 60, "{times:?}");
        assert!(apart(1, 2) < 2 && apart(2, 3) >= 45 && apart(3, 4) < 2 && apart(4, 5) >= 45, "{times:?}");
        let daemon_sets = world.api(Kind::DaemonSet, Some(NAMESPACE));
        until(&daemon_sets, "virt-handler", "as usual again", |set| {
            set.data["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1
        })
        .await;
    });
}
