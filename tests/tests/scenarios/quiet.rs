//! When nothing changes, nothing is written, and hardly anything is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use kubevirt_release::operator_manifest::cr_manifest;
use kubevirt_tests::{NAMESPACE, OPERATOR, World, condition_of, quiet_for, simulate};
use serde_json::Value;

use crate::support::{install, is_available, operator, settled};

/// Ten minutes, as the issue asks.
const A_LONG_TIME: Duration = Duration::from_secs(600);

/// So many pods that one status for each of them would be seen among the requests of an installation.
const MANY: u32 = 60;

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The operator's requests since number `since`, by pod and what was asked.
fn asked(world: &World, since: usize) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut asked: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for event in world.requests().iter().skip(since).filter(|event| text(event, "/user/username") == OPERATOR) {
        let pod = text(event, "/user/extra/authentication.kubernetes.io~1pod-name/0").to_owned();
        let what = format!("{} {}", text(event, "/verb"), text(event, "/objectRef/resource"));
        *asked.entry(pod).or_default().entry(what).or_default() += 1;
    }
    asked
}

#[test]
fn for_ten_minutes_the_leader_writes_its_lease_and_the_standby_nothing() {
    simulate(async {
        let world = World::start(3, 1);
        install(&world, "v0.1.0").await;
        quiet_for(Duration::from_secs(60)).await;
        let since = world.requests().len();
        quiet_for(A_LONG_TIME).await;
        let asked = asked(&world, since);
        let renewals = |requests: &BTreeMap<String, usize>| requests.get("update leases").copied().unwrap_or(0);
        let leaders: Vec<_> = asked.values().filter(|requests| renewals(requests) > 0).collect();
        assert_eq!(leaders.len(), 1, "{asked:#?}");
        for (pod, requests) in &asked {
            for (what, count) in requests {
                let most = match what.as_str() {
                    "update leases" => 120,
                    // A watch lives for longer than ten minutes, or five of one and five of the next would look alike.
                    what if what.starts_with("watch ") => 1,
                    _ => 0,
                };
                assert!(*count <= most, "{pod}: {count} times {what}\n{asked:#?}");
            }
        }
        println!("simulated: in ten minutes at rest: {asked:#?}");
    });
}

/// Installs a release and waits until it is available. What stands beside it comes afterwards.
async fn available(world: &World, version: &str) {
    world.apply(&operator(version)).await;
    world.apply(&[cr_manifest(NAMESPACE)]).await;
    world.kubevirt_until("available", |kubevirt| is_available(kubevirt, version)).await;
}

#[test]
fn an_installation_on_three_nodes_takes_at_most_250_requests() {
    /// The common instance types and preferences are one request each; what else follows is a few conditions.
    const BESIDE: usize = 119 + 15;
    simulate(async {
        let world = World::start(3, 1);
        available(&world, "v0.1.0").await;
        let requests = asked(&world, 0);
        let until_available: usize = requests.values().flat_map(BTreeMap::values).sum();
        assert!(until_available <= 250, "{until_available}: {requests:#?}");
        settled(&world, "v0.1.0").await;
        let requests = asked(&world, 0);
        let total: usize = requests.values().flat_map(BTreeMap::values).sum();
        println!(
            "simulated: {until_available} requests until the suite is available, {total} with the common instance types"
        );
        assert!(total <= until_available + BESIDE, "{total} after {until_available}: {requests:#?}");
    });
}

/// Lease renewals and watches that are opened anew go with time, all else with the installation.
#[test]
fn an_installation_on_many_nodes_takes_hardly_more_requests_than_on_three() {
    fn total(nodes: u32) -> usize {
        let mut total = 0;
        simulate(async {
            let world = World::start(nodes, 1);
            available(&world, "v0.1.0").await;
            let requests = asked(&world, 0);
            let all = requests.values().flatten().filter(|(what, _)| !what.ends_with(" leases"));
            total = all.map(|(_, count)| count).sum();
        });
        total
    }
    let (few, many) = (total(3), total(MANY));
    println!("simulated: an installation took {few} requests of the operator on 3 nodes, {many} on {MANY}");
    assert!(many * 10 <= few * 11, "{many} on {MANY} nodes, {few} on three");
}

#[test]
fn an_edit_that_concerns_one_component_takes_at_most_ten_requests_and_rolls_that_component_alone() {
    simulate(async {
        let world = World::start(3, 1);
        install(&world, "v0.1.0").await;
        quiet_for(Duration::from_secs(60)).await;
        let (pods, since) = (world.suite_pods().await, world.requests().len());
        world.patch_kubevirt(serde_json::json!({"configuration": {"virtualMachineInstancesPerNode": 10}})).await;
        world
            .kubevirt_until("observed", |kubevirt| {
                kubevirt["status"]["observedGeneration"] == 2
                    && condition_of(kubevirt, "Progressing")["status"] == "False"
            })
            .await;
        let total: usize = asked(&world, since).values().flat_map(BTreeMap::values).sum();
        assert!(total <= 10, "{total}: {:#?}", asked(&world, since));
        let others =
            |pods: Vec<String>| pods.into_iter().filter(|pod| !pod.starts_with("virt-handler-")).collect::<Vec<_>>();
        let after = world.suite_pods().await;
        assert_eq!(others(after.clone()), others(pods.clone()));
        assert!(after.iter().filter(|pod| pod.starts_with("virt-handler-")).all(|pod| !pods.contains(pod)));
    });
}
