//! The images of the new virt-handler come onto the nodes first, where the policy asks for it; and nothing of it stays.

use std::fmt::Write as _;

use expect_test::expect;
use jiff::SignedDuration;
use kubevirt_api::upgrade::{PlanState, Request};
use kubevirt_release::Kind;

use super::courses::Operator;
use super::world::{World, identity, key, puller};
use crate::{Absence, Mode, Share, Slot, StepState, Trouble, check, plan};

const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";

fn operator() -> Operator {
    let mut operator = Operator::new();
    operator.policy.pulls_images = true;
    operator
}

fn state(operator: &Operator) -> Option<PlanState> {
    operator.record.as_ref().map(|record| record.state)
}

fn is_there(world: &World) -> bool {
    world.objects.contains_key(&puller())
}

#[test]
fn they_are_on_every_node_before_the_first_virt_handler_is_replaced() {
    let mut operator = operator();
    let mut seen = String::new();
    for round in 0..60 {
        if state(&operator) == Some(PlanState::Succeeded) {
            break;
        }
        operator.pass();
        operator.world.roll(round);
        operator.world.later(5);
        let ready = operator.world.pods(Kind::DaemonSet, &puller().name).iter().filter(|(_, ready)| *ready).count();
        assert!(operator.new_handlers() == 0 || ready == 3 || !is_there(&operator.world), "{:#?}", operator.world);
        let line = format!("{ready} brought, {} replaced", operator.new_handlers());
        if !seen.ends_with(&format!("{line}\n")) {
            writeln!(seen, "{line}").expect("a string takes text");
        }
    }
    expect![[r#"
        0 brought, 0 replaced
        1 brought, 0 replaced
        2 brought, 0 replaced
        3 brought, 0 replaced
        3 brought, 1 replaced
        0 brought, 1 replaced
        0 brought, 2 replaced
        0 brought, 3 replaced
    "#]]
    .assert_eq(&seen);
    assert_eq!(state(&operator), Some(PlanState::Succeeded));
    assert!(!is_there(&operator.world));
}

#[test]
fn the_record_has_one_step_more_from_the_beginning_to_the_end() {
    let mut operator = operator();
    operator.tell(
        80,
        &expect![[r#"
            InProgress 1/11 crds
            InProgress 4/11 images
            InProgress 5/11 virt-handler
            InProgress 4/11 images
            InProgress 5/11 virt-handler
            InProgress 6/11 virt-controller
            InProgress 8/11 virt-api
            InProgress 9/11 admission
            InProgress 10/11 prune
            InProgress 11/11 rbac-shrink
            Succeeded -
        "#]],
    );
    let record = operator.record.expect("a record");
    let step = record.steps.iter().find(|step| step.name == "images").expect("a step");
    assert_eq!(step.touches, ["DaemonSet kubevirt/virt-handler-images"]);
    assert_eq!(step.pods, 0, "it replaces none");
}

#[test]
fn without_the_policys_wish_there_is_no_such_step() {
    let input = World::installed(OLD).input(NEW);
    let (update, _report) = plan(&input);
    assert!(update.steps().iter().all(|step| step.slot != Slot::Images));
    assert!(!input.desired.contains(&puller()));
}

#[test]
fn only_an_update_has_it() {
    for (from, to, mode) in [(OLD, OLD, Mode::Keep), (NEW, OLD, Mode::Rollback)] {
        let mut world = World::installed(from);
        world.pulls_images = true;
        let input = world.input(to);
        let (plan, _report) = plan(&input);
        assert_eq!(plan.mode(), mode);
        assert!(plan.steps().iter().all(|step| step.slot != Slot::Images) && !input.desired.contains(&puller()));
    }
    let mut empty = World::new();
    empty.pulls_images = true;
    assert!(!empty.input(OLD).desired.contains(&puller()));
}

#[test]
fn a_node_that_is_not_there_is_not_waited_for() {
    let mut operator = operator();
    // Nothing becomes ready there: no image, and no virt-handler.
    operator.world.absent_nodes.insert("node-2".to_owned(), Absence::Unreachable);
    operator.world.bad_nodes.insert("node-2".to_owned());
    operator.work(90);
    assert_eq!(state(&operator), Some(PlanState::Succeeded), "{:#?}", operator.record);
    let skipped = &operator.record.as_ref().expect("a record").skipped_nodes;
    assert_eq!(skipped.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["node-2"], "named once");
    assert!(!is_there(&operator.world));
}

#[test]
fn single_nodes_that_cannot_have_them_are_waited_for_until_the_deadline_and_undo_nothing() {
    let mut operator = operator();
    operator.policy.deadline = SignedDuration::from_secs(60);
    // Two failures of three nodes are a failure of the change.
    operator.policy.wave = Share::Percent(50);
    operator.world.bad_nodes.insert("node-2".to_owned());
    operator.work(20);
    assert_eq!((state(&operator), operator.new_handlers()), (Some(PlanState::InProgress), 0), "after 100 s");
    operator.work(8);
    assert_eq!(state(&operator), Some(PlanState::InProgress));
    assert!(operator.new_handlers() > 0 && !is_there(&operator.world), "after 140 s: {:#?}", operator.record);
}

#[test]
fn what_a_program_answers_holds_nothing_up() {
    let mut operator = operator();
    operator.world.pullers_fail = true;
    operator.work(80);
    assert_eq!(state(&operator), Some(PlanState::Succeeded), "{:#?}", operator.record);
}

#[test]
fn an_image_that_cannot_be_pulled_undoes_the_change_before_any_virt_handler_is_touched() {
    let mut operator = operator();
    operator.world.bad.insert(NEW.to_owned(), Some(Trouble::NoImage));
    operator.tell(
        120,
        &expect![[r#"
            InProgress 1/11 crds
            InProgress 4/11 images
            RollingBack 4/11 images ImageUnavailable
            RollingBack back 1/9 crds ImageUnavailable
            RollingBack back 9/9 prune ImageUnavailable
            RolledBack - ImageUnavailable
        "#]],
    );
    assert_eq!(operator.world.pods(Kind::DaemonSet, "virt-handler"), [(OLD, true); 3]);
    assert!(!is_there(&operator.world));
}

#[test]
fn whatever_is_asked_at_whatever_moment_nothing_of_it_stays() {
    for passes in 0..40 {
        for request in [Request::Abort, Request::Rollback] {
            let mut operator = operator();
            operator.work(passes);
            operator.request = Some(request);
            operator.work(80);
            assert!(!is_there(&operator.world), "{request:?} after {passes} passes: {:?}", state(&operator));
        }
        // The wish is taken back, in the middle and while the change stands still.
        for paused in [false, true] {
            let mut operator = operator();
            operator.work(passes);
            operator.policy.pulls_images = false;
            operator.policy.paused = paused;
            operator.work(if paused { 2 } else { 80 });
            assert!(!is_there(&operator.world), "after {passes} passes, paused: {paused}");
            if !paused {
                assert_eq!(state(&operator), Some(PlanState::Succeeded), "after {passes} passes");
            }
        }
    }
}

#[test]
fn a_pause_keeps_what_has_begun_and_begins_nothing() {
    let mut operator = operator();
    operator.policy.paused = true;
    operator.work(5);
    assert!(!is_there(&operator.world));
    operator.policy.paused = false;
    operator.work(3);
    assert!(is_there(&operator.world));
    operator.policy.paused = true;
    operator.work(20);
    assert!(is_there(&operator.world));
    // It is not made anew either.
    operator.world.forget(&puller());
    operator.work(5);
    assert!(!is_there(&operator.world));
}

#[test]
fn it_is_not_made_again_for_a_node_that_comes_back_late() {
    let mut operator = operator();
    operator.world.absent_nodes.insert("node-2".to_owned(), Absence::NotReady);
    operator.world.stuck_nodes.insert("node-2".to_owned());
    for round in 0..60 {
        operator.pass();
        operator.world.roll(round);
        operator.world.later(5);
        if operator.new_handlers() == 2 && !is_there(&operator.world) {
            break;
        }
    }
    assert_eq!(operator.new_handlers(), 2);
    operator.world.absent_nodes.clear();
    operator.world.stuck_nodes.clear();
    for round in 0..20 {
        operator.pass();
        assert!(!is_there(&operator.world));
        operator.world.roll(round);
    }
    assert_eq!(operator.new_handlers(), 3);
}

#[test]
fn another_version_in_the_middle_brings_its_own_images() {
    let mut operator = operator();
    operator.work(4);
    assert!(is_there(&operator.world));
    let mut world = operator.world;
    world.run_to_end("v0.3.0");
    assert_eq!(world.observed.as_deref(), Some("v0.3.0"));
    assert!(!is_there(&world));
}

#[test]
fn the_checker_refuses_a_virt_handler_that_does_not_wait_for_them() {
    let mut world = World::installed(OLD);
    world.pulls_images = true;
    let mut input = world.input(NEW);
    let (good, _report) = plan(&input);
    assert_eq!(check::check(&good, &input.desired), Ok(()));
    let mut early = good.clone();
    for step in early.steps_mut() {
        if matches!(step.slot, Slot::Crds | Slot::RbacOpen | Slot::Configuration) {
            step.apply.clear();
            step.state = StepState::Done;
        }
        if step.slot == Slot::Handler {
            step.state = StepState::Now;
        }
    }
    let found = check::check(&early, &input.desired).expect_err("it begins early");
    assert_eq!(found, [check::Violation::Early { step: Slot::Handler, open: Slot::Images }]);
    // In another direction it has no place.
    input.observed = Some(identity("v0.9.0"));
    let (back, _report) = plan(&input);
    assert_eq!(back.mode(), Mode::Rollback);
    let mut misplaced = back;
    let step = good.steps().iter().find(|step| step.slot == Slot::Images).expect("a step").clone();
    misplaced.steps_mut().push(crate::Step { number: 11, ..step });
    input.desired.insert(puller());
    let found = check::check(&misplaced, &input.desired).expect_err("it has no place");
    assert!(found.contains(&check::Violation::NoPlace { step: Slot::Images, mode: Mode::Rollback }), "{found:?}");
    assert!(input.desired.contains(&key(Kind::DaemonSet, "virt-handler")));
}
