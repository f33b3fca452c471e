//! Somebody who never stops asking virt-api while the version changes is always answered, however slowly endpoints follow
//! their pods; and is not, when virt-api is denied the time to drain. U4 (the control plane's half: webhooks and aggregated
//! API answer in each mixture of versions) and U5.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Request;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use kubevirt_tests::{NAMESPACE, World, quiet_for, simulate, until};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{install, operator, settled};

/// How slow endpoints may be.
const LAG: Duration = Duration::from_secs(5);
/// How slow they are: a seed draws a part of it for virt-api's Service; and as slow as they may be.
const LAGS: [(u64, RangeInclusive<Duration>); 3] =
    [(1, Duration::ZERO..=LAG), (2, Duration::ZERO..=LAG), (3, LAG..=LAG)];
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks through the aggregated API and through the webhooks in turn, and gives why questions failed.
async fn ask(world: &World, failed: &mut Vec<String>) {
    let version = "/apis/subresources.kubevirt.io/v1/version";
    let machines = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances?dryRun=All";
    let machine = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "asked-for"},
        "spec": {"domain": {"devices": {}, "resources": {"requests": {"memory": "64Mi"}}}}});
    let questions = [
        Request::get(version).body(Vec::new()),
        Request::post(machines).header("content-type", "application/json").body(machine.to_string().into_bytes()),
    ];
    for question in questions {
        let question = question.expect("a request");
        let what = format!("{} {}", question.method(), question.uri().path());
        if let Err(error) = world.client.request::<Value>(question).await {
            failed.push(format!("{what}: {error}"));
        }
    }
}

/// Every so many rounds it is seen which versions run: several times in each step, which takes seconds.
const LOOK: u32 = 8;

/// The versions of which pods of virt-handler, virt-controller and virt-api run.
type Mixture = [BTreeSet<String>; 3];

async fn mixture(world: &World) -> Mixture {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE)).list(&Default::default()).await.expect("pods");
    ["virt-handler", "virt-controller", "virt-api"].map(|component| {
        let ours = pods.items.iter().filter(|pod| pod.labels().get("kubevirt.io").is_some_and(|of| of == component));
        let image = |pod: &DynamicObject| pod.data["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
        ours.filter_map(image).filter_map(|image| Some(image.rsplit_once(':')?.1.to_owned())).collect()
    })
}

/// How somebody fared who asked all the time.
struct Asked {
    rounds: u32,
    /// Why questions failed.
    failed: Vec<String>,
    /// In which mixtures they were asked.
    mixtures: BTreeSet<Mixture>,
}

/// Changes the version while somebody asks.
async fn change(world: &World) -> Asked {
    world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
    world.apply(&operator("v0.2.0")).await;
    let is_new = |kubevirt: &Value| kubevirt["status"]["operatorVersion"] == "v0.2.0";
    world.kubevirt_until("served by the new operator", is_new).await;
    settled(world, "v0.1.0").await;
    world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
    let (mut rounds, mut failed, mut mixtures) = (0, Vec::new(), BTreeSet::new());
    let asking = async {
        loop {
            if rounds % LOOK == 0 {
                mixtures.insert(mixture(world).await);
            }
            ask(world, &mut failed).await;
            rounds += 1;
            sleep(PAUSE).await;
        }
    };
    let changed = async {
        settled(world, "v0.2.0").await;
        // Until the last of the old pods has gone, and nobody is sent to it any more.
        quiet_for(LAG * 4).await;
    };
    tokio::select! {
        () = asking => unreachable!("it never ends"),
        () = changed => {}
    }
    Asked { rounds, failed, mixtures }
}

#[test]
fn whoever_asks_meanwhile_is_always_answered_however_slow_endpoints_are() {
    for (seed, lag) in LAGS {
        simulate(async {
            let world = World::start_lagging(3, seed, lag);
            install(&world, "v0.1.0").await;
            let Asked { rounds, failed, mixtures } = change(&world).await;
            assert!(rounds > 100, "{rounds} rounds are not a change of version");
            assert_eq!(failed, Vec::<String>::new(), "seed {seed}, {rounds} rounds");
            // The neighbours of the order beside each other, in which somebody was answered too.
            let (old, new) = ("v0.1.0", "v0.2.0");
            let mixed = |place: usize, version: &str, other: usize, than: &str| {
                mixtures.iter().any(|mixture| mixture[place].contains(version) && mixture[other].contains(than))
            };
            assert!(mixed(0, new, 1, old), "a new virt-handler beside an old virt-controller: {mixtures:?}");
            assert!(mixed(1, new, 2, old), "a new virt-controller beside an old virt-api: {mixtures:?}");
            assert!(mixed(2, new, 2, old), "virt-api of both versions: {mixtures:?}");
            assert!(!mixed(1, new, 0, old) && !mixed(2, new, 1, old), "against the order: {mixtures:?}");
        });
    }
}

/// Whoever changes the custom resource while the operator's pods are replaced gets through, however slow endpoints are: a
/// pod that is asked to stop leaves the lease at once, its webhooks only when nobody is sent there any more.
#[test]
fn the_custom_resource_can_be_changed_while_the_operator_is_replaced() {
    for (seed, lag) in LAGS {
        simulate(async {
            let world = World::start_lagging(3, seed, lag);
            install(&world, "v0.1.0").await;
            world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
            world.apply(&operator("v0.2.0")).await;
            let deployments = world.api_of("apps", "v1", "Deployment", "deployments", Some(NAMESPACE));
            let (mut rounds, mut failed) = (0, Vec::new());
            let asking = async {
                loop {
                    let patch = Patch::Merge(json!({"spec": {"infra": {"replicas": 1 + rounds % 2}}}));
                    let params = PatchParams { dry_run: true, ..PatchParams::default() };
                    if let Err(error) = world.kubevirts("v1").patch("kubevirt", &params, &patch).await {
                        failed.push(error.to_string());
                    }
                    rounds += 1;
                    sleep(PAUSE).await;
                }
            };
            let replaced = async {
                let all_new = |object: &DynamicObject| {
                    let status = &object.data["status"];
                    status["updatedReplicas"] == 2 && status["replicas"] == 2 && status["availableReplicas"] == 2
                };
                until(&deployments, "virt-operator", "replaced", all_new).await;
                // Until the last of the old pods has gone, and nobody is sent to it any more.
                quiet_for(LAG * 4).await;
            };
            tokio::select! {
                () = asking => unreachable!("it never ends"),
                () = replaced => {}
            }
            assert!(rounds > 100, "{rounds} rounds are not a replacement");
            assert_eq!(failed, Vec::<String>::new(), "seed {seed}, {rounds} rounds");
        });
    }
}

/// The same without the drain: a pod of virt-api gets no time to end, and whoever is still sent there hears nothing.
#[test]
fn whoever_asks_a_virt_api_that_may_not_drain_is_left_without_an_answer() {
    let mut unanswered = Vec::new();
    for (seed, lag) in LAGS {
        simulate(async {
            let world = World::start_lagging(3, seed, lag);
            install(&world, "v0.1.0").await;
            let at_once = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 0}}}}).to_string();
            let patch = json!({"resourceType": "Deployment", "resourceName": "virt-api", "type": "strategic", "patch": at_once});
            world.patch_kubevirt(json!({"customizeComponents": {"patches": [patch]}})).await;
            world.kubevirt_until("observed", |kubevirt| kubevirt["status"]["observedGeneration"] == 2).await;
            settled(&world, "v0.1.0").await;
            let api = world.api(kubevirt_release::Kind::Deployment, Some(NAMESPACE)).get("virt-api").await;
            let grace = &api.expect("virt-api").data["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
            assert_eq!(*grace, 0, "the pods may not drain");
            unanswered.push(change(&world).await.failed.len());
        });
    }
    println!("simulated: questions without an answer, by seed: {unanswered:?}");
    assert!(unanswered.iter().all(|count| *count > 0), "{unanswered:?}: the probe sees nothing");
}
