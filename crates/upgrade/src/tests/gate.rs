//! Kinds that a version brings stay closed until its virt-api serves.

use kubevirt_release::Kind;

use super::world::{World, due, gate, key};
use crate::{Mode, Slot, StepState, check, plan};

const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";

fn closing() -> World {
    let mut world = World::installed(OLD);
    world.closes = true;
    world
}

/// A world in which the change is as far as that everything is written and virt-api rolls.
fn rolling_api() -> World {
    let mut world = closing();
    for round in 0..200 {
        if world.pods(Kind::Deployment, "virt-api").iter().any(|(version, _)| *version == NEW) {
            return world;
        }
        world.pass(NEW);
        world.roll(round);
    }
    panic!("virt-api never rolls");
}

#[test]
fn the_gate_is_closed_before_the_definitions_are_written_and_goes_when_virt_api_is_new() {
    let mut world = closing();
    let (first, _report) = plan(&world.input(NEW));
    assert_eq!(due(&first), ["gate", "rbac-open", "configuration"]);
    assert_eq!(first.steps()[0].apply, [gate()]);
    world.pass(NEW);
    assert_eq!(due(&plan(&world.input(NEW)).0), ["crds"]);

    let mut world = rolling_api();
    assert!(world.objects.contains_key(&gate()), "an old virt-api still answers");
    world.run_to_end(NEW);
    assert!(!world.objects.contains_key(&gate()));
}

#[test]
fn one_that_somebody_takes_away_is_closed_again_as_long_as_an_old_virt_api_answers() {
    let mut world = rolling_api();
    world.forget(&gate());
    assert_eq!(due(&plan(&world.input(NEW)).0), ["gate"]);
}

#[test]
fn what_is_open_stays_open_whatever_pods_do_afterwards() {
    let mut world = rolling_api();
    while world.objects.contains_key(&gate()) {
        world.pass(NEW);
        world.roll(0);
    }
    // A virt-handler of the new version comes anew and is not ready yet.
    world.restart(Kind::DaemonSet, "virt-handler", 0);
    let (plan, _report) = plan(&world.input(NEW));
    assert!(!plan.is_done());
    assert_eq!(plan.steps()[0].state, StepState::Done);
    assert!(!world.input(NEW).desired.contains(&gate()));
}

#[test]
fn it_is_taken_away_on_the_way_back_and_no_other_direction_closes_anything() {
    let mut world = rolling_api();
    assert!(world.objects.contains_key(&gate()));
    let (back, _report) = plan(&world.input(OLD));
    assert_eq!(back.mode(), Mode::Rollback);
    assert!(back.steps().iter().all(|step| step.slot != Slot::Gate));
    world.run_to_end(OLD);
    assert!(!world.objects.contains_key(&gate()));

    let mut empty = World::new();
    empty.closes = true;
    assert!(!empty.input(OLD).desired.contains(&gate()), "an installation");
    let mut kept = closing();
    kept.forget(&key(Kind::CustomResourceDefinition, "v0.1.0.kubevirt.io"));
    assert!(!kept.input(OLD).desired.contains(&gate()), "a repair");
}

#[test]
fn the_checker_knows_that_definitions_come_after_it() {
    let world = closing();
    let input = world.input(NEW);
    let (mut early, _report) = plan(&input);
    assert_eq!(check::check(&early, &input.desired), Ok(()));
    early.steps_mut()[1].state = StepState::Now;
    let found = check::check(&early, &input.desired).expect_err("it begins early");
    assert_eq!(found, [check::Violation::Early { step: Slot::Crds, open: Slot::Gate }]);
}
