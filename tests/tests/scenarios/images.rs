//! With slow registries: the images of the new virt-handler are on the nodes before the first old one goes, where the policy
//! asks for it; what cannot be pulled touches nothing; and of what brought them nothing stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::ListParams;
use kubevirt_release::{Kind, images};
use kubevirt_tests::rolling::{Rolled, Rolling};
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until, until_gone};
use nanokube_cli::images::Defect;
use serde_json::{Value, json};
use virt_operator::preview::preview;

use crate::support::{policy, settled};
use crate::upgrades::{A_WHILE, ask, handlers, is, pinned, plan_until};

/// What an image of some hundred megabytes takes over a slow line; a restart without it takes about two seconds.
const PULL: Duration = Duration::from_secs(30);

/// A third of that: whoever is without virt-handler for less did not wait for an image.
const RESTART: Duration = Duration::from_secs(10);

fn world(seed: u64, watcher: &Arc<Rolling>) -> World {
    World::start_pulling(3, seed, PULL, watcher, |images| images)
}

/// Everything that the operator manages, as far as it does not differ from one installation to the next by chance.
pub(crate) async fn managed(world: &World) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=virt-operator");
    let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::KubeVirt && !kind.is_optional());
    for kind in kinds {
        let listed = world.api(*kind, None).list(&ours).await.unwrap_or_else(|error| panic!("list {kind}: {error}"));
        for object in listed.items {
            let mut value = object.data.clone();
            if let Some(fields) = value.as_object_mut() {
                fields.retain(|field, _| !["status", "data", "webhooks"].contains(&field.as_str()));
            }
            if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
                let drawn = ["clusterIP", "clusterIPs", "caBundle", "conversion"];
                spec.retain(|field, _| !drawn.contains(&field.as_str()));
            }
            let told = json!({"labels": object.labels(), "annotations": object.annotations(), "rest": value});
            // The names of kept strategies and the annotations of secrets depend on content, which is drawn.
            let told = if *kind == Kind::Secret { Value::Null } else { told };
            all.insert(format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any()), told);
        }
    }
    all
}

/// What is left of what brings images: the DaemonSet, its pods, its revisions.
async fn left(world: &World) -> Vec<String> {
    let labelled = ListParams::default().labels(&format!("kubevirt.io={}", images::NAME));
    let mut left = Vec::new();
    for (group, kind, plural) in [
        ("apps", "DaemonSet", "daemonsets"),
        ("", "Pod", "pods"),
        ("apps", "ControllerRevision", "controllerrevisions"),
    ] {
        let found = world.api_of(group, "v1", kind, plural, Some(NAMESPACE)).list(&labelled).await.expect("a list");
        left.extend(found.items.iter().map(|object| format!("{kind} {}", object.name_any())));
    }
    left
}

async fn is_there(world: &World) {
    until(&world.api(Kind::DaemonSet, Some(NAMESPACE)), images::NAME, "made", |_| true).await;
}

async fn is_gone(world: &World) {
    until_gone(&world.api(Kind::DaemonSet, Some(NAMESPACE)), images::NAME).await;
}

/// How many steps about images `virtctl upgrade plan` would show.
async fn previewed(world: &World) -> usize {
    let plan = preview(&world.client, "v0.2.0").await.expect("it can be planned").plan;
    plan.steps().iter().filter(|step| step.slot.code() == "images").count()
}

/// `name uid` of virt-handler's pods.
async fn handler_pods(world: &World) -> Vec<String> {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE));
    let pods = pods.list(&ListParams::default().labels("kubevirt.io=virt-handler")).await.expect("pods").items;
    let mut pods: Vec<String> =
        pods.iter().map(|pod| format!("{} {}", pod.name_any(), pod.uid().unwrap_or_default())).collect();
    pods.sort();
    pods
}

/// A change from v0.1.0 to v0.2.0: how long nodes were without virt-handler, what is managed afterwards, and the steps on
/// record.
fn change(pull_images: bool) -> (Rolled, BTreeMap<String, Value>, Vec<String>) {
    let rolling = Arc::new(Rolling::default());
    let (mut all, mut steps) = (BTreeMap::new(), Vec::new());
    simulate(async {
        let world = world(1, &rolling);
        pinned(&world, "v0.2.0").await;
        policy(&world, json!({"pullImages": pull_images})).await;
        rolling.begin("v0.2.0");
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        if pull_images {
            is_there(&world).await;
        }
        let plan = plan_until(&world, 1, "over", is("Succeeded")).await;
        settled(&world, "v0.2.0").await;
        quiet_for(A_WHILE).await;
        assert_eq!(handlers(&world).await, ["v0.2.0"; 3]);
        assert_eq!(left(&world).await, Vec::<String>::new());
        let told = plan["status"]["steps"].as_array().into_iter().flatten();
        steps = told.map(|step| step["name"].as_str().unwrap_or_default().to_owned()).collect();
        all = managed(&world).await;
    });
    (rolling.end(), all, steps)
}

#[test]
fn a_node_is_without_virt_handler_for_a_restart_instead_of_a_pull_and_nothing_of_it_stays() {
    let (with, managed_with, steps_with) = change(true);
    let (without, managed_without, steps_without) = change(false);
    println!("simulated: with {with:?}\nsimulated: without {without:?}");
    assert!(with.longest < RESTART, "{:?} with the images there", with.longest);
    assert!(without.longest >= PULL, "{:?} without: it shows that the other one says something", without.longest);
    assert_eq!((with.replaced, without.replaced), (3, 3));
    for rolled in [&with, &without] {
        assert_eq!(rolled.exceeded, Vec::<String>::new());
    }
    assert!(managed_with.len() > 50, "{} objects", managed_with.len());
    for (key, wanted) in &managed_without {
        assert_eq!(managed_with.get(key), Some(wanted), "{key}");
    }
    assert_eq!(managed_with.len(), managed_without.len());
    assert_eq!(steps_with.iter().filter(|step| *step == "images").count(), 1);
    assert!(!steps_without.contains(&"images".to_owned()), "{steps_without:?}");
}

#[test]
fn an_image_that_cannot_be_pulled_undoes_the_change_and_no_virt_handler_was_touched() {
    simulate(async {
        let rolling = Arc::new(Rolling::default());
        let broken = |images: nanokube_cli::images::Table| {
            images.with_defect("localhost/kubevirt", "virt-handler", "v0.3.0", Defect::NoImage)
        };
        let world = World::start_pulling(3, 2, Duration::from_secs(1), &rolling, broken);
        pinned(&world, "v0.3.0").await;
        policy(&world, json!({"pullImages": true, "imageGraceSeconds": 30})).await;
        let before = handler_pods(&world).await;
        assert_eq!(before.len(), 3);
        rolling.begin("v0.3.0");
        world.patch_kubevirt(json!({"imageTag": "v0.3.0"})).await;
        let plan = plan_until(&world, 1, "undone", is("RolledBack")).await;
        assert_eq!(plan["status"]["rollback"]["reason"], "ImageUnavailable", "{plan:#}");
        let message = plan["status"]["rollback"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("virt-handler:v0.3.0"), "it names the image: {message}");
        let kubevirt = world
            .kubevirt_until("held", |kubevirt| {
                condition_of(kubevirt, "Synchronized")["reason"] == "UpgradeRolledBack"
                    && condition_of(kubevirt, "Progressing")["status"] == "False"
            })
            .await;
        assert_eq!(condition_of(&kubevirt, "Available")["status"], "True");
        quiet_for(A_WHILE).await;
        assert_eq!(handler_pods(&world).await, before, "the same pods");
        assert_eq!(rolling.end().most_unavailable, 0, "at no commit was a node without virt-handler");
        assert_eq!(left(&world).await, Vec::<String>::new());
    });
}

#[test]
fn a_program_that_fails_holds_nothing_up() {
    simulate(async {
        let rolling = Arc::new(Rolling::default());
        let broken = |images: nanokube_cli::images::Table| {
            images.with_defect("localhost/kubevirt", "virt-handler", "v0.3.0", Defect::Crashes)
        };
        let world = World::start_pulling(3, 6, Duration::from_secs(1), &rolling, broken);
        pinned(&world, "v0.3.0").await;
        policy(&world, json!({"pullImages": true})).await;
        world.patch_kubevirt(json!({"imageTag": "v0.3.0"})).await;
        let plan = plan_until(&world, 1, "undone", is("RolledBack")).await;
        // It was asked for its version in vain, and noticed where it is noticed without that.
        assert_eq!(plan["status"]["rollback"]["reason"], "CrashLoop", "{plan:#}");
        let message = plan["status"]["rollback"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("virt-handler-") && !message.contains(images::NAME), "{message}");
        let steps = plan["status"]["steps"].as_array().expect("steps");
        let of = |name: &str| steps.iter().find(|step| step["name"] == name).map(|step| step["state"].clone());
        assert_eq!((of("images"), of("virt-handler")), (Some(json!("Done")), Some(json!("InProgress"))));
        quiet_for(A_WHILE).await;
        assert_eq!(left(&world).await, Vec::<String>::new());
        assert_eq!(handlers(&world).await, ["v0.1.0"; 3]);
    });
}

#[test]
fn it_goes_when_the_change_is_aborted() {
    simulate(async {
        let world = world(3, &Arc::default());
        pinned(&world, "v0.2.0").await;
        policy(&world, json!({"pullImages": true})).await;
        let before = handler_pods(&world).await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        is_there(&world).await;
        ask(&world, 1, Some("Abort")).await;
        is_gone(&world).await;
        plan_until(&world, 1, "aborted", is("Aborted")).await;
        quiet_for(A_WHILE).await;
        assert_eq!(left(&world).await, Vec::<String>::new());
        assert_eq!(handler_pods(&world).await, before);
    });
}

#[test]
fn it_goes_when_the_policy_does_not_want_it_any_more_and_the_change_goes_on() {
    simulate(async {
        let world = world(4, &Arc::default());
        pinned(&world, "v0.2.0").await;
        policy(&world, json!({"pullImages": true})).await;
        assert_eq!(previewed(&world).await, 1, "it is shown beforehand");
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        is_there(&world).await;
        // It stays while people think, and goes also then.
        policy(&world, json!({"pullImages": true, "paused": true})).await;
        plan_until(&world, 1, "paused", is("Paused")).await;
        quiet_for(A_WHILE).await;
        assert_eq!(left(&world).await.iter().filter(|it| it.starts_with("Pod")).count(), 3);
        assert_eq!(handlers(&world).await, ["v0.1.0"; 3]);
        policy(&world, json!({"paused": true})).await;
        is_gone(&world).await;
        assert_eq!(previewed(&world).await, 0);
        policy(&world, json!({})).await;
        let plan = plan_until(&world, 1, "over", is("Succeeded")).await;
        settled(&world, "v0.2.0").await;
        let steps = plan["status"]["steps"].as_array().expect("steps");
        assert!(steps.iter().all(|step| step["name"] != "images"), "{steps:#?}");
        quiet_for(A_WHILE).await;
        assert_eq!(left(&world).await, Vec::<String>::new());
        assert_eq!(handlers(&world).await, ["v0.2.0"; 3]);
    });
}

#[test]
fn another_version_in_the_middle_takes_its_place() {
    simulate(async {
        let world = world(5, &Arc::default());
        pinned(&world, "v0.2.0").await;
        policy(&world, json!({"pullImages": true})).await;
        let before = handler_pods(&world).await;
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        is_there(&world).await;
        world.patch_kubevirt(json!({"imageTag": "v0.1.0"})).await;
        is_gone(&world).await;
        plan_until(&world, 1, "superseded", is("Superseded")).await;
        settled(&world, "v0.1.0").await;
        assert_eq!(handler_pods(&world).await, before);
        quiet_for(A_WHILE).await;
        assert_eq!(left(&world).await, Vec::<String>::new());
    });
}
