//! Kinds that a release brings: nobody makes an object of one before virt-api of that release serves, and nothing else is
//! closed meanwhile.

use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kubevirt_release::{Kind, gate};
use kubevirt_tests::{NAMESPACE, World, simulate, until, until_gone};
use nanokube_cli::images::{Defect, Table};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{ask_for, change_strategy, install, object, policy, settled};
use crate::upgrades::{is, plan_until};

/// The release that brings a kind.
const NEXT: &str = "v0.3.0";
const DEFINITION: &str = "gadgets.kubevirt.io";

/// How often somebody tries; far below what a step takes.
const TRY_AGAIN: Duration = Duration::from_millis(50);

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": DEFINITION},
        "spec": {"group": "kubevirt.io", "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

/// v0.1.0 is installed; a release that brings a kind is asked for and may begin.
async fn asked_for(world: &World) {
    install(world, "v0.1.0").await;
    ask_for(world, NEXT).await;
    change_strategy(world, NEXT, |strategy| strategy.objects.push(object(definition()))).await;
}

async fn make(world: &World, kind: &str, plural: &str, name: &str) -> Result<DynamicObject, kube::Error> {
    let api = world.api_of("kubevirt.io", "v1", kind, plural, Some(NAMESPACE));
    let one = json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}}});
    api.create(&PostParams::default(), &serde_json::from_value(one).expect("an object")).await
}

/// Image tags of virt-api's pods, those that are ending included.
async fn answering(world: &World) -> Vec<String> {
    let pods = world.api_of("", "v1", "Pod", "pods", Some(NAMESPACE)).list(&Default::default()).await.expect("pods");
    let pods = pods.items.iter().map(|pod| &pod.data["spec"]["containers"][0]["image"]);
    let tags = pods.filter_map(|image| image.as_str()?.split_once("/virt-api:").map(|(_, tag)| tag.to_owned()));
    tags.collect()
}

fn gates(world: &World) -> Api<DynamicObject> {
    world.api(Kind::ValidatingWebhookConfiguration, None)
}

async fn is_gone(world: &World) {
    until_gone(&gates(world), gate::NAME).await;
}

#[test]
fn a_kind_that_a_release_brings_is_closed_until_its_virt_api_serves() {
    simulate(async {
        let world = World::start(3, 1);
        asked_for(&world).await;
        policy(&world, json!({})).await;
        world.established(DEFINITION).await;
        let mut refused = 0;
        let mut number = 0;
        let first = loop {
            number += 1;
            // What there was before is open all the time.
            make(&world, "VirtualMachine", "virtualmachines", &format!("vm-{number}")).await.expect("it is made");
            match make(&world, "Gadget", "gadgets", &format!("gadget-{number}")).await {
                Ok(_) => break answering(&world).await,
                Err(kube::Error::Api(status)) => {
                    assert_eq!(status.code, 503, "{status:?}");
                    assert!(status.message.contains("gadgets.kubevirt.io comes with the version"), "{status:?}");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
            sleep(TRY_AGAIN).await;
        };
        println!("simulated: refused {refused} times");
        assert!(refused > 20, "refused {refused} times: it was open before virt-handler went over the nodes");
        assert_eq!(first, [NEXT; 2], "what answers when it opens");
        settled(&world, NEXT).await;
        is_gone(&world).await;
        let plan = plan_until(&world, 1, "over", is("Succeeded")).await;
        assert_eq!(plan["status"]["steps"][0]["name"], "gate", "{plan:#}");
    });
}

#[test]
fn whoever_takes_the_gate_away_does_not_open_it_for_long() {
    simulate(async {
        let world = World::start(3, 2);
        asked_for(&world).await;
        policy(&world, json!({})).await;
        world.established(DEFINITION).await;
        gates(&world).delete(gate::NAME, &DeleteParams::default()).await.expect("it is there");
        let again = until(&gates(&world), gate::NAME, "closed again", |_| true).await;
        assert_eq!(gate::closed(&again.data).collect::<Vec<_>>(), [DEFINITION]);
        settled(&world, NEXT).await;
        is_gone(&world).await;
    });
}

#[test]
fn a_change_that_is_undone_leaves_no_gate_and_the_next_one_goes_through() {
    let broken = |images: Table| images.with_defect("localhost/kubevirt", "virt-controller", NEXT, Defect::Crashes);
    simulate(async {
        let world = World::start_with(3, 3, broken);
        asked_for(&world).await;
        policy(&world, json!({"deadlineSeconds": 60})).await;
        until(&gates(&world), gate::NAME, "closed", |_| true).await;
        plan_until(&world, 1, "undone", is("RolledBack")).await;
        is_gone(&world).await;
        // Its objects would be lost with it, so the definition stays, and it is as open as any.
        make(&world, "Gadget", "gadgets", "kept").await.expect("nobody closes it any more");
        world.patch_kubevirt(json!({"imageTag": "v0.2.0"})).await;
        settled(&world, "v0.2.0").await;
        make(&world, "Gadget", "gadgets", "later").await.expect("it was there before this change");
    });
}
