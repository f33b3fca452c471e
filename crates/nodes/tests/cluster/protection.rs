//! A claim that a pod uses stays until the pod is gone, however soon it is deleted.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;

use crate::world::World;

/// How long a controller may take, in simulated time.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until_gone(claims: &Api<PersistentVolumeClaim>, name: &str, uid: &str) {
    let gone = await_condition(claims.clone(), name, conditions::is_deleted(uid));
    tokio::time::timeout(PATIENCE, gone).await.expect("it is let go").expect("a watch");
}

#[tokio::test(start_paused = true)]
async fn a_claim_in_use_goes_with_its_last_pod() {
    let world = World::start(1).await;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(world.client());
    let pods: Api<Pod> = Api::default_namespaced(world.client());
    let mut uids = Vec::new();
    for name in ["used", "unused"] {
        let claim = json!({"metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let made = claims.create(&PostParams::default(), &serde_json::from_value(claim).expect("a claim")).await;
        uids.push(made.expect("created").metadata.uid.expect("a uid"));
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}],
        "containers": [{"name": "c", "image": "idle:1"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("created");
    // Simulated nodes mount no claims, so it waits on its node; that it is there is use enough.
    world.until::<Pod>("p", |pod| nanokube_controllers::pods::node_name(pod).is_some()).await;
    for name in ["used", "unused"] {
        claims.delete(name, &Default::default()).await.expect("deleted");
    }
    until_gone(&claims, "unused", &uids[1]).await;
    let used = claims.get("used").await.expect("it is still there");
    assert!(used.metadata.deletion_timestamp.is_some(), "its deletion has begun");
    pods.delete("p", &Default::default()).await.expect("deleted");
    until_gone(&claims, "used", &uids[0]).await;
}
