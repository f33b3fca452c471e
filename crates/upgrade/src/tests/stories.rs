//! Whole changes of version, written down as they happen.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kubevirt_release::Kind;

use super::world::{World, due, identity, key};
use crate::{Mode, StepState, check, plan};

/// Tells a change of version as a story: a paragraph whenever something else is due or waited for.
fn tell(world: &mut World, target: &str, expected: &Expect) {
    let mut story = String::new();
    let mut last = String::new();
    for round in 0..200 {
        let (plan, report) = plan(&world.input(target));
        let message = report.message();
        let mut line = message.replace("; ", "\n  ");
        if plan.now().count() > 0 {
            write!(line, "\n  NOW {}", due(&plan).join(", ")).expect("a string takes text");
        }
        if line != last {
            writeln!(story, "{line}").expect("a string takes text");
            last = line;
        }
        if world.pass(target) {
            break;
        }
        world.roll(round);
    }
    expected.assert_eq(&story);
}

#[test]
fn an_installation_goes_in_parallel() {
    let mut world = World::new();
    let (plan, report) = plan(&world.input("v0.1.0"));
    assert_eq!(plan.mode(), Mode::Install);
    expect![[r#"
        install: v0.1.0
          1. now   crds             custom resource definitions: writes 2 of 2
          2. now   rbac-shrink      roles of the target version only: writes 1 of 1
          3. now   configuration    accounts, services, certificates, budgets: writes 4 of 4
          4. now   admission        webhooks and aggregated APIs: writes 1 of 1
          5. now   virt-handler     virt-handler on every node: writes 1 of 1
          6. now   virt-controller  virt-controller: writes 1 of 1
          7. done  other-workloads  other workloads
          8. now   virt-api         virt-api: writes 1 of 1
          9. done  prune            objects no version needs any more
    "#]]
    .assert_eq(&report.to_string());
    tell(
        &mut world,
        "v0.1.0",
        &expect![[r#"
            installing v0.1.0: step 1 of 9, custom resource definitions
              NOW crds, rbac-shrink, configuration, admission, virt-handler, virt-controller, virt-api
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-0 is not ready: ContainersNotReady
              Deployment kubevirt/virt-controller: 0 of 2 pods updated
              Deployment kubevirt/virt-api: 0 of 2 pods updated
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-0 is not ready: ContainersNotReady
              Deployment kubevirt/virt-controller: 0 of 2 pods updated
              Deployment kubevirt/virt-api: 1 of 2 pods updated
              and 1 more
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-0 is not ready: ContainersNotReady
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-0 is not ready: ContainersNotReady
              and 2 more
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-0 is not ready: ContainersNotReady
              Deployment kubevirt/virt-api: 1 of 2 pods updated
              and 1 more
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-0 is not ready: ContainersNotReady
              Deployment kubevirt/virt-api: 1 of 2 pods updated
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              Deployment kubevirt/virt-api: 1 of 2 pods updated
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-1 is not ready: ContainersNotReady
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              Deployment kubevirt/virt-api: 1 of 2 pods updated
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-1 is not ready: ContainersNotReady
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              Deployment kubevirt/virt-api: 1 of 2 pods ready
              and 1 more
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-1 is not ready: ContainersNotReady
              Deployment kubevirt/virt-controller: 1 of 2 pods ready
              pod virt-controller-1 is not ready: ContainersNotReady
              and 2 more
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              Deployment kubevirt/virt-controller: 1 of 2 pods ready
              pod virt-controller-1 is not ready: ContainersNotReady
              Deployment kubevirt/virt-api: 1 of 2 pods ready
              and 1 more
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              Deployment kubevirt/virt-controller: 1 of 2 pods ready
              pod virt-controller-1 is not ready: ContainersNotReady
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
            installing v0.1.0: step 5 of 9, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes ready
              pod virt-handler-2 is not ready: ContainersNotReady
            v0.1.0 is complete
        "#]],
    );
}

#[test]
fn an_update_goes_from_the_nodes_to_the_door() {
    let mut world = World::installed("v0.1.0");
    tell(
        &mut world,
        "v0.2.0",
        &expect![[r#"
            updating v0.1.0 to v0.2.0: step 1 of 10, custom resource definitions
              NOW crds, rbac-open, configuration
            updating v0.1.0 to v0.2.0: step 4 of 10, virt-handler on every node
              NOW virt-handler
            updating v0.1.0 to v0.2.0: step 4 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-0 is not ready: ContainersNotReady
              pod virt-handler-1 of another version still runs
              pod virt-handler-2 of another version still runs
            updating v0.1.0 to v0.2.0: step 4 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-1 of another version still runs
              pod virt-handler-2 of another version still runs
            updating v0.1.0 to v0.2.0: step 4 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-1 is not ready: ContainersNotReady
              pod virt-handler-2 of another version still runs
            updating v0.1.0 to v0.2.0: step 4 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-2 of another version still runs
            updating v0.1.0 to v0.2.0: step 4 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes ready
              pod virt-handler-2 is not ready: ContainersNotReady
            updating v0.1.0 to v0.2.0: step 5 of 10, virt-controller
              NOW virt-controller
            updating v0.1.0 to v0.2.0: step 5 of 10, virt-controller
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-0 is not ready: ContainersNotReady
              pod virt-controller-1 of another version still runs
            updating v0.1.0 to v0.2.0: step 5 of 10, virt-controller
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-1 of another version still runs
            updating v0.1.0 to v0.2.0: step 5 of 10, virt-controller
              Deployment kubevirt/virt-controller: 1 of 2 pods ready
              pod virt-controller-1 is not ready: ContainersNotReady
            updating v0.1.0 to v0.2.0: step 7 of 10, virt-api
              NOW virt-api
            updating v0.1.0 to v0.2.0: step 7 of 10, virt-api
              Deployment kubevirt/virt-api: 1 of 2 pods updated
              pod virt-api-0 is not ready: ContainersNotReady
              pod virt-api-1 of another version still runs
            updating v0.1.0 to v0.2.0: step 7 of 10, virt-api
              Deployment kubevirt/virt-api: 1 of 2 pods updated
              pod virt-api-1 of another version still runs
            updating v0.1.0 to v0.2.0: step 7 of 10, virt-api
              Deployment kubevirt/virt-api: 1 of 2 pods ready
              pod virt-api-1 is not ready: ContainersNotReady
            updating v0.1.0 to v0.2.0: step 8 of 10, webhooks and aggregated APIs
              NOW admission
            updating v0.1.0 to v0.2.0: step 9 of 10, objects no version needs any more
              NOW prune
            updating v0.1.0 to v0.2.0: step 10 of 10, roles of the target version only
              NOW rbac-shrink
            v0.2.0 is complete
        "#]],
    );
}

#[test]
fn going_back_closes_the_door_first() {
    let mut world = World::installed("v0.2.0");
    tell(
        &mut world,
        "v0.1.0",
        &expect![[r#"
            going back from v0.2.0 to v0.1.0: step 1 of 10, custom resource definitions
              NOW crds, rbac-open, configuration
            going back from v0.2.0 to v0.1.0: step 4 of 10, webhooks and aggregated APIs
              NOW admission
            going back from v0.2.0 to v0.1.0: step 5 of 10, virt-api
              NOW virt-api
            going back from v0.2.0 to v0.1.0: step 5 of 10, virt-api
              Deployment kubevirt/virt-api: 1 of 2 pods updated
              pod virt-api-0 is not ready: ContainersNotReady
              pod virt-api-1 of another version still runs
            going back from v0.2.0 to v0.1.0: step 5 of 10, virt-api
              Deployment kubevirt/virt-api: 1 of 2 pods updated
              pod virt-api-1 of another version still runs
            going back from v0.2.0 to v0.1.0: step 5 of 10, virt-api
              Deployment kubevirt/virt-api: 1 of 2 pods ready
              pod virt-api-1 is not ready: ContainersNotReady
            going back from v0.2.0 to v0.1.0: step 6 of 10, virt-controller
              NOW virt-controller
            going back from v0.2.0 to v0.1.0: step 6 of 10, virt-controller
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-0 is not ready: ContainersNotReady
              pod virt-controller-1 of another version still runs
            going back from v0.2.0 to v0.1.0: step 6 of 10, virt-controller
              Deployment kubevirt/virt-controller: 1 of 2 pods updated
              pod virt-controller-1 of another version still runs
            going back from v0.2.0 to v0.1.0: step 6 of 10, virt-controller
              Deployment kubevirt/virt-controller: 1 of 2 pods ready
              pod virt-controller-1 is not ready: ContainersNotReady
            going back from v0.2.0 to v0.1.0: step 8 of 10, virt-handler on every node
              NOW virt-handler
            going back from v0.2.0 to v0.1.0: step 8 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-0 is not ready: ContainersNotReady
              pod virt-handler-1 of another version still runs
              pod virt-handler-2 of another version still runs
            going back from v0.2.0 to v0.1.0: step 8 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 1 of 3 nodes updated
              pod virt-handler-1 of another version still runs
              pod virt-handler-2 of another version still runs
            going back from v0.2.0 to v0.1.0: step 8 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-1 is not ready: ContainersNotReady
              pod virt-handler-2 of another version still runs
            going back from v0.2.0 to v0.1.0: step 8 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes updated
              pod virt-handler-2 of another version still runs
            going back from v0.2.0 to v0.1.0: step 8 of 10, virt-handler on every node
              DaemonSet kubevirt/virt-handler: 2 of 3 nodes ready
              pod virt-handler-2 is not ready: ContainersNotReady
            going back from v0.2.0 to v0.1.0: step 9 of 10, objects no version needs any more
              NOW prune
            going back from v0.2.0 to v0.1.0: step 10 of 10, roles of the target version only
              NOW rbac-shrink
            v0.1.0 is complete
        "#]],
    );
}

#[test]
fn the_report_names_the_pod_that_holds_everything_up() {
    let mut world = World::installed("v0.1.0");
    world.not_ready_reason = "container virt-handler: secret \"kubevirt-virt-handler-certs\" not found".to_owned();
    world.pass("v0.2.0");
    world.roll(0);
    let (_, report) = plan(&world.input("v0.2.0"));
    expect![[r#"
        update: v0.1.0 -> v0.2.0
          1. done  crds             custom resource definitions
          2. done  rbac-open        roles of old and new version together
          3. done  configuration    accounts, services, certificates, budgets
          4. now   virt-handler     virt-handler on every node: writes 1 of 1
          5. waits virt-controller  virt-controller: writes 1 of 1
               - after step 4 (virt-handler)
          6. done  other-workloads  other workloads
          7. waits virt-api         virt-api: writes 1 of 1
               - after step 4 (virt-handler)
          8. waits admission        webhooks and aggregated APIs: writes 1 of 1
               - after step 4 (virt-handler)
          9. waits prune            objects no version needs any more: deletes 1
               - after step 4 (virt-handler)
         10. waits rbac-shrink      roles of the target version only: writes 1 of 1
               - after step 4 (virt-handler)
    "#]]
    .assert_eq(&report.to_string());
}

#[test]
fn a_lost_object_is_put_back_without_waiting_for_anything() {
    let mut world = World::installed("v0.1.0");
    world.forget(&key(Kind::Service, "virt-api"));
    world.forget(&key(Kind::Deployment, "virt-api"));
    let (plan, _) = plan(&world.input("v0.1.0"));
    assert_eq!(plan.mode(), Mode::Keep);
    assert_eq!(due(&plan), ["configuration", "virt-api"]);
}

#[test]
fn turning_round_halfway_takes_the_way_back() {
    let mut world = World::installed("v0.1.0");
    for round in 0..4 {
        world.pass("v0.2.0");
        world.roll(round);
    }
    let (plan, _) = plan(&world.input("v0.1.0"));
    assert_eq!(plan.mode(), Mode::Rollback, "the target is the observed version, but new pods run");
    world.run_to_end("v0.1.0");
}

#[test]
fn an_unknown_order_of_versions_counts_as_an_update() {
    let mut world = World::installed("v0.1.0");
    assert_eq!(plan(&world.input("devel")).0.mode(), Mode::Update);
    world.run_to_end("devel");
}

#[test]
fn definitions_with_users_objects_are_never_deleted() {
    let mut world = World::installed("v0.1.0");
    world.run_to_end("v0.2.0");
    let (plan, _) = plan(&world.input("v0.2.0"));
    assert_eq!(plan.kept(), [key(Kind::CustomResourceDefinition, "v0.1.0.kubevirt.io")]);
    assert!(world.objects.contains_key(&key(Kind::CustomResourceDefinition, "v0.1.0.kubevirt.io")));
}

#[test]
fn a_definition_that_is_not_established_holds_the_workloads_of_an_update_up() {
    let world = World::installed("v0.1.0");
    let mut input = world.input("v0.2.0");
    let crd = key(Kind::CustomResourceDefinition, "virtualmachines.kubevirt.io");
    let existing = input.snapshot.objects.get_mut(&crd).expect("installed");
    existing.same = true;
    existing.not_serving = Some("names not accepted".to_owned());
    let second = key(Kind::CustomResourceDefinition, "v0.2.0.kubevirt.io");
    input.snapshot.objects.insert(second, crate::Existing { same: true, ..Default::default() });
    let (plan, report) = plan(&input);
    let codes: Vec<_> = report.blockers().map(|(slot, reason)| (slot.code(), reason.code())).collect();
    assert_eq!(codes, [("crds", "NotServing")]);
    assert_eq!(due(&plan), ["rbac-open", "configuration"]);
}

#[test]
fn an_object_that_is_being_deleted_is_not_written() {
    let world = World::installed("v0.1.0");
    let mut input = world.input("v0.1.0");
    input.snapshot.objects.get_mut(&key(Kind::Service, "virt-api")).expect("installed").deleting = true;
    let (plan, report) = plan(&input);
    assert_eq!(plan.now().count(), 0);
    assert_eq!(report.blockers().map(|(_, reason)| reason.code()).collect::<Vec<_>>(), ["BeingDeleted"]);
}

#[test]
fn the_checker_bites() {
    let world = World::installed("v0.1.0");
    let input = world.input("v0.2.0");
    let broken = |change: fn(&mut Vec<crate::Step>)| {
        let (mut plan, _report) = plan(&input);
        change(plan.steps_mut());
        let violations = check::check(&plan, &input.desired).expect_err("the checker must see this");
        violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        step virt-api begins while step virt-handler is not finished
        step virt-api begins while step virt-controller is not finished"#]]
    .assert_eq(&broken(|steps| steps[6].state = StepState::Now));
    expect![[r#"
        step virt-api is numbered 7, its place is 4
        step virt-handler is numbered 4, its place is 7"#]]
    .assert_eq(&broken(|steps| steps.swap(3, 6)));
    expect![[r#"
        step configuration deletes Deployment kubevirt/virt-api, which the target version has
        step configuration deletes objects; only prune may, and images what it made itself"#]]
    .assert_eq(&broken(|steps| {
        let key = steps[6].objects[0].clone();
        steps[2].delete.push(key);
    }));
    expect!["Deployment kubevirt/virt-api appears 0 times in its final form, it must appear once"].assert_eq(&broken(
        |steps| {
            steps[6].objects.clear();
            steps[6].apply.clear();
            steps[6].state = StepState::Done;
        },
    ));
    expect!["step crds is called done but has something to do"]
        .assert_eq(&broken(|steps| steps[0].state = StepState::Done));
    expect!["step prune waits for nothing"].assert_eq(&broken(|steps| steps[8].state = StepState::Waiting(Vec::new())));
}

#[test]
fn a_plan_reads_as_json() {
    let world = World::installed("v0.1.0");
    let (plan, _) = plan(&world.input("v0.2.0"));
    let json = serde_json::to_value(&plan).expect("a plan is data");
    assert_eq!(json["mode"], "update");
    assert_eq!(json["target"]["version"], identity("v0.2.0").version);
    assert_eq!(json["steps"][3]["slot"], "virt-handler");
    assert_eq!(json["steps"][3]["state"], "waiting");
    assert_eq!(json["steps"][3]["reasons"][0]["code"], "After");
}

#[test]
fn a_registration_waits_for_its_backend_and_is_kept_in_sync_afterwards() {
    let mut world = World::new();
    let mut input = world.input("v0.1.0");
    let webhook = input.desired.iter().find(|key| crate::order::slot_of(key) == crate::Slot::Admission).cloned();
    let webhook = webhook.expect("the world has one");
    input.snapshot.no_backend.insert(webhook.clone(), "service virt-api has no ready endpoint".to_owned());
    let (first, report) = plan(&input);
    let step = first.steps().iter().find(|step| step.slot == crate::Slot::Admission).expect("a step");
    assert_eq!(step.apply, []);
    let reason =
        crate::Reason::NoBackend { object: webhook.clone(), why: "service virt-api has no ready endpoint".into() };
    assert_eq!(step.state, StepState::Waiting(vec![reason.clone()]));
    assert_eq!(reason.code(), "NoBackend");
    assert!(
        report.message().contains("is not registered yet: service virt-api has no ready endpoint"),
        "{}",
        report.message()
    );
    assert_eq!(check::check(&first, &input.desired), Ok(()));

    // Once it is registered, a backend that is away for a while is no reason to leave a wrong bundle in it.
    for round in 0..20 {
        world.pass("v0.1.0");
        world.roll(round);
    }
    let mut input = world.input("v0.1.0");
    input.snapshot.no_backend.insert(webhook.clone(), "away".to_owned());
    input.snapshot.objects.get_mut(&webhook).expect("it was written").same = false;
    let (next, _) = plan(&input);
    assert!(next.now().any(|step| step.apply.contains(&webhook)));
}
