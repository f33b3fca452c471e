//! How virt-handler goes over more nodes than one wave takes, watched at every commit.

use std::sync::Arc;
use std::time::Duration;

use kube::api::DeleteParams;
use kubevirt_tests::rolling::{Rolled, Rolling};
use kubevirt_tests::{NAMESPACE, World, quiet_for, simulate};
use serde_json::json;

use crate::support::{install, operator, settled};

/// Two nodes at a time, so that it takes the first and ten waves more.
const NODES: u32 = 20;

/// Until every API server has heard that the old operator's webhooks are gone.
const A_WHILE: Duration = Duration::from_secs(120);

/// Plays a change of version; at the seventh node somebody may delete pods of virt-handler that nobody has replaced yet.
fn play(nodes: u32, deletes: usize) -> Rolled {
    let rolling = Arc::new(Rolling::default());
    let watched = Arc::clone(&rolling);
    simulate(async move {
        let world = World::start_watched(nodes, 1, &watched);
        install(&world, "v0.1.0").await;
        world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
        world.apply(&operator("v0.2.0")).await;
        let is_new = |kubevirt: &serde_json::Value| kubevirt["status"]["operatorVersion"] == "v0.2.0";
        world.kubevirt_until("served by the new operator", is_new).await;
        quiet_for(A_WHILE).await;
        watched.begin("v0.2.0");
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        if deletes > 0 {
            watched.reaches(7).await;
            let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
            let handlers = kube::api::ListParams::default().labels("kubevirt.io=virt-handler");
            for pod in pods.list(&handlers).await.expect("pods").items.iter().rev().take(deletes) {
                let name = pod.metadata.name.as_deref().expect("a name");
                pods.delete(name, &DeleteParams::default()).await.expect("it is deleted");
            }
        }
        settled(&world, "v0.2.0").await;
    });
    rolling.end()
}

#[test]
fn at_no_commit_are_more_nodes_without_virt_handler_than_may_be_and_waves_follow_each_other_at_once() {
    let (few, many) = (play(3, 0), play(NODES, 0));
    println!("simulated: {few:?}\nsimulated: {many:?}");
    for rolled in [&few, &many] {
        assert_eq!(rolled.exceeded, Vec::<String>::new());
        assert_eq!(rolled.replaced, rolled.nodes);
        assert!(rolled.commits > u64::from(rolled.nodes) * 4, "{} commits were looked at", rolled.commits);
        let (took, ideal) = (rolled.took.as_secs_f64(), rolled.ideal().as_secs_f64());
        assert!(took <= ideal * 1.2, "{} nodes took {took} s, {ideal} s are ideal", rolled.nodes);
    }
    assert_eq!((few.most_unavailable, many.most_unavailable), (1, 2), "as many as may be, or it would take longer");
    let more_waves = kubevirt_tests::rolling::ideal_waves(NODES) - kubevirt_tests::rolling::ideal_waves(3);
    let (few, many) = (few.asked.requests, many.asked.requests);
    assert!(many <= few + more_waves, "{many} requests on {NODES} nodes, {few} on three");
}

#[test]
fn somebody_who_deletes_virt_handlers_meanwhile_is_noticed() {
    let rolled = play(NODES, 4);
    assert!(!rolled.exceeded.is_empty(), "{rolled:?}");
}
