use std::sync::Arc;

use kubevirt_api::names::annotation;
use serde_json::json;

use super::*;
use crate::cache::NodeFacts;
use crate::pods::{Labels, PodFacts};

fn live(name: &str, going: bool, finalizers: &[&str]) -> Value {
    let mut live = json!({"metadata": {"name": name, "finalizers": finalizers,
        "annotations": {annotation::STRATEGY_IDENTIFIER: "id"}}});
    if going {
        live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    live
}

fn world(objects: &[(Kind, &str, bool)]) -> World {
    let mut world = World::default();
    for (kind, name, going) in objects {
        put(&mut world, *kind, live(name, *going, &[]));
    }
    world
}

fn put(world: &mut World, kind: Kind, live: Value) {
    let key = ObjectKey::new(kind, Some("kubevirt"), text(&live, "/metadata/name").expect("a name"));
    world.objects.insert(key, Arc::new(live));
}

#[test]
fn users_objects_go_before_the_components_that_clean_up_after_them() {
    let mut world = world(&[
        (Kind::ValidatingWebhookConfiguration, VALIDATOR, false),
        (Kind::CustomResourceDefinition, "vms", false),
        (Kind::APIService, "v1.subresources", false),
        (Kind::Deployment, "virt-api", false),
        (Kind::Secret, "kubevirt-ca", false),
        (Kind::ClusterRole, "kubevirt-handler", false),
    ]);
    world.nodes.insert("node-1".to_owned(), NodeFacts { schedulable: true, control_plane: false, labelled: true });
    let parts: Vec<&str> = stages(&world).iter().map(|stage| stage.part.code()).collect();
    assert_eq!(
        parts,
        [
            "own-webhooks",
            "definitions",
            "registrations",
            "workloads",
            "node-labels",
            "leftover-configuration",
            "access"
        ]
    );
    assert_eq!(stage(&world).map(|stage| stage.part), Some(Part::OwnWebhooks));
}

#[test]
fn a_webhook_that_nobody_answers_goes_before_the_objects_it_would_refuse_to_let_go() {
    let mut world = world(&[(Kind::CustomResourceDefinition, "vms", false)]);
    let mut webhook = live("virt-api-validator", false, &[]);
    webhook["webhooks"] = json!([{"clientConfig": {"service": {"name": "virt-api"}}}]);
    put(&mut world, Kind::ValidatingWebhookConfiguration, webhook);
    let first = |world: &World| stage(world).map(|stage| stage.part);
    assert_eq!(first(&world), Some(Part::Definitions), "nothing is known of it");
    world.endpoints = Some(Default::default());
    assert_eq!(first(&world), Some(Part::Unanswered));
}

#[test]
fn definitions_are_held_until_the_last_object_of_any_of_them_is_gone() {
    let kind = Kind::CustomResourceDefinition;
    let mut world = world(&[(kind, "a", false), (kind, "b", false)]);
    let begun = stage(&world).expect("two definitions");
    assert_eq!((begun.hold.len(), begun.delete.len(), begun.release.len()), (2, 2, 0));
    put(&mut world, kind, live("a", true, &[finalizer::CRD]));
    put(&mut world, kind, live("b", true, &[finalizer::CRD, CLEANUP]));
    let waiting = stage(&world).expect("two definitions");
    assert!(!waiting.is_due(), "{waiting:?}");
    assert_eq!(waiting.blockers, [], "an empty definition holds nothing up");
    put(&mut world, kind, live("b", true, &[finalizer::CRD]));
    assert_eq!(stage(&world).expect("two definitions").release.len(), 2);
}

#[test]
fn a_users_object_that_somebody_holds_is_named() {
    let mut world = World::default();
    put(&mut world, Kind::CustomResourceDefinition, live("vms", true, &[finalizer::CRD, CLEANUP]));
    let held = Held { name: "shop/till".to_owned(), finalizers: vec!["example.com/backup".to_owned()], going: true };
    world.instances.insert("vms".to_owned(), Instances { count: 2, held: vec![held] });
    let stage = stage(&world).expect("a definition");
    assert_eq!(stage.blockers.iter().map(Blocker::code).collect::<Vec<_>>(), ["InstanceHeld"]);
    assert_eq!(
        stage.message(),
        "Removing custom resources with their definitions (step 3 of 8): 1 left; waiting: vms shop/till is held by \
         example.com/backup"
    );
    world.instances.insert("vms".to_owned(), Instances { count: 2, held: Vec::new() });
    let waiting = super::stage(&world).expect("a definition").message();
    assert!(waiting.ends_with("waiting: 2 vms are being deleted"), "{waiting}");
}

#[test]
fn what_is_on_its_way_out_is_waited_for_and_named() {
    let stage = stage(&world(&[(Kind::Deployment, "virt-api", true)])).expect("something is left");
    assert_eq!(stage.delete, []);
    assert!(stage.message().ends_with("1 left; waiting: Deployment kubevirt/virt-api is being deleted"));
}

#[test]
fn what_nobody_stamped_is_not_ours_but_strategies_are() {
    let mut world = World::default();
    put(&mut world, Kind::Service, json!({"metadata": {"name": "x", "labels": {"app.kubernetes.io/managed-by": "x"}}}));
    assert_eq!(stage(&world), None);
    put(&mut world, Kind::Job, json!({"metadata": {"name": "job", "labels": {label::INSTALL_STRATEGY: ""}}}));
    assert_eq!(stage(&world).map(|stage| stage.delete.len()), Some(1));
}

#[test]
fn accounts_and_roles_stay_until_the_last_pod_of_the_suite_is_gone() {
    let mut world = world(&[(Kind::ServiceAccount, "kubevirt-handler", false)]);
    let pod = |id: Option<&str>| PodFacts {
        labels: Arc::new(Labels { id: id.map(Into::into), ..Labels::default() }),
        ..PodFacts::default()
    };
    Arc::make_mut(&mut world.pods).insert("virt-operator-1".into(), pod(None));
    assert_eq!(stage(&world).expect("the account is left").part, Part::Access);
    Arc::make_mut(&mut world.pods).insert("virt-handler-1".into(), pod(Some("id")));
    let stage = stage(&world).expect("a pod is left");
    assert_eq!((stage.part, stage.delete.len()), (Part::Workloads, 0));
    assert!(stage.message().ends_with("waiting: Pod virt-handler-1 has not ended"));
}

#[test]
fn beforehand_only_what_nobody_of_the_suite_takes_away_is_an_obstacle() {
    let mut world = World::default();
    let held = |name: &str, finalizer: &str| Held {
        name: name.to_owned(),
        finalizers: vec![finalizer.to_owned()],
        going: false,
    };
    let held =
        vec![held("shop/a", "kubevirt.io/virtualMachineControllerFinalize"), held("shop/b", "example.com/backup")];
    let name = "virtualmachines.kubevirt.io";
    world.instances.insert(name.to_owned(), Instances { count: 2, held });
    let cr = json!({"metadata": {"name": "kubevirt", "finalizers": ["kubevirt.io/foregroundDeleteKubeVirt", "example.com/x"]}});
    let codes = |strategy| {
        let found = obstacles(&cr, strategy, &world);
        found.iter().map(|blocker| (blocker.code(), blocker.to_string())).collect::<Vec<_>>()
    };
    let always = vec![
        ("InstanceHeld", "virtualmachines.kubevirt.io shop/b is held by example.com/backup".to_owned()),
        ("ObjectHeld", "KubeVirt kubevirt is held by example.com/x".to_owned()),
    ];
    assert_eq!(codes(UninstallStrategy::RemoveWorkloads), always);
    let refused = codes(UninstallStrategy::BlockUninstallIfWorkloadsExist);
    assert_eq!(refused[0].0, "WorkloadsExist");
    assert_eq!(refused[1..], always);
}
