//! A version is left out: where its release is known, the operator goes through it.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::ListParams;
use kubevirt_release::Kind;
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until};
use serde_json::{Value, json};

use super::support::{install, operator, policy, says_why, settled};

/// Long enough for several periodic passes of the operator.
const A_WHILE: Duration = Duration::from_secs(180);

/// v0.1.0 runs and is pinned, the operator is that of v0.3.0.
async fn pinned(world: &World) {
    install(world, "v0.1.0").await;
    world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
    world.apply(&operator("v0.3.0")).await;
    world.kubevirt_until("served by v0.3.0", |kubevirt| kubevirt["status"]["operatorVersion"] == "v0.3.0").await;
    settled(world, "v0.1.0").await;
}

/// Has the strategy of v0.2.0 brought into the cluster, and nothing else.
async fn make_known(world: &World) {
    policy(world, json!({"paused": true})).await;
    world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
    let paused = |kubevirt: &Value| condition_of(kubevirt, "Synchronized")["reason"] == "UpgradePaused";
    world.kubevirt_until("paused before it began", paused).await;
    world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
    settled(world, "v0.1.0").await;
    policy(world, json!({"paused": false})).await;
}

/// The changes of version on record, as `from to state`, oldest first.
async fn history(world: &World) -> Vec<String> {
    let plans = world.api(Kind::UpgradePlan, None).list(&ListParams::default()).await.expect("a list").items;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |plan: &Value| {
        let versions = ["from", "to"].map(|end| text(&plan["spec"][end]["version"]));
        format!("{} {} {}", versions[0], versions[1], text(&plan["status"]["state"]))
    };
    plans.iter().map(|plan| line(&plan.data)).collect()
}

/// The suite's workloads as they were written since a request, those in a row taken together.
fn written(world: &World, since: usize) -> Vec<String> {
    let writes = world.operator_writes(since);
    let workloads = writes.iter().filter_map(|write| {
        let mut words = write.split(' ').skip(1);
        let is_workload = words.next().is_some_and(|plural| ["deployments", "daemonsets"].contains(&plural));
        words.next().filter(|_| is_workload).map(str::to_owned)
    });
    let mut order: Vec<String> = workloads.collect();
    order.dedup();
    order
}

/// The versions of the suite's images that pods are of.
async fn run(world: &World) -> BTreeSet<String> {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    let suite = ListParams::default().labels("kubevirt.io in (virt-api, virt-controller, virt-handler)");
    let images = pods.list(&suite).await.expect("pods").items.into_iter().filter_map(|pod| {
        let image = pod.data["spec"]["containers"][0]["image"].as_str()?.to_owned();
        image.rsplit(':').next().map(str::to_owned)
    });
    images.collect()
}

#[test]
fn a_version_in_between_that_is_known_is_gone_through_completely() {
    simulate(async {
        let world = World::start(3, 81);
        pinned(&world).await;
        make_known(&world).await;
        let since = world.requests().len();
        world.patch_kubevirt(json!({"imageTag": "v0.3.0"})).await;
        let leads = |kubevirt: &Value| {
            let message = condition_of(kubevirt, "Progressing")["message"].as_str().unwrap_or_default();
            message.starts_with("on the way to v0.3.0, updating v0.1.0 to v0.2.0")
        };
        world.kubevirt_until("saying where it leads", leads).await;
        world.kubevirt_until("complete", |kubevirt| kubevirt["status"]["observedKubeVirtVersion"] == "v0.2.0").await;
        assert_eq!(run(&world).await, ["v0.2.0".to_owned()].into(), "before the next hop begins");
        let kubevirt = settled(&world, "v0.3.0").await;
        assert_eq!(kubevirt["spec"]["imageTag"], "v0.3.0");
        let history = history(&world).await;
        let done = ["v0.1.0 v0.2.0 Succeeded", "v0.2.0 v0.3.0 Succeeded"];
        assert_eq!(history[history.len() - 2..], done, "{history:?}");
        assert_eq!(run(&world).await, ["v0.3.0".to_owned()].into());
        assert_eq!(written(&world, since), ["virt-handler", "virt-controller", "virt-api"].repeat(2));
        let last = format!("upgrade-{}", history.len());
        let plan = until(&world.api(Kind::UpgradePlan, None), &last, "there", |_| true).await.data;
        assert!(plan["status"]["findings"].as_array().is_none_or(Vec::is_empty), "nothing is left out: {plan:#}");
    });
}

#[test]
fn a_version_in_between_that_is_not_known_is_left_out_and_that_is_told() {
    simulate(async {
        let world = World::start(3, 82);
        pinned(&world).await;
        world.patch_kubevirt(json!({"imageTag": "v0.3.0"})).await;
        settled(&world, "v0.3.0").await;
        assert_eq!(history(&world).await, ["v0.1.0 v0.3.0 Succeeded"]);
        let plan = world.api(Kind::UpgradePlan, None).get("upgrade-1").await.expect("the plan").data;
        assert_eq!(plan["status"]["findings"][0]["code"], "VersionsSkipped", "{plan:#}");
        // Never through anything on the way back.
        world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
        settled(&world, "v0.1.0").await;
        assert_eq!(history(&world).await.last().map(String::as_str), Some("v0.3.0 v0.1.0 Succeeded"));
        assert_eq!(run(&world).await, ["v0.1.0".to_owned()].into());
    });
}

#[test]
fn nobody_sets_out_for_a_version_that_cannot_be_had() {
    simulate(async {
        let world = World::start(3, 83);
        pinned(&world).await;
        make_known(&world).await;
        let (pods, before) = (world.suite_pods().await, history(&world).await);
        world.patch_kubevirt(json!({"imageTag": "v0.30"})).await;
        world.kubevirt_until("saying why", says_why).await;
        quiet_for(A_WHILE).await;
        assert_eq!((world.suite_pods().await, history(&world).await), (pods, before));
    });
}
