//! What the older version registered trusts the right authority before its step comes, and nothing else is written early.

use kubevirt_release::{Kind, ObjectKey};

use super::world::World;
use crate::{Course, Existing, Input, PausedBy, Plan, Reason, Slot, StepState, check, plan};

const NEW: &str = "v0.2.0";

fn policy() -> ObjectKey {
    ObjectKey::new(Kind::ValidatingAdmissionPolicy, None, "node-restriction")
}

fn api() -> ObjectKey {
    ObjectKey::new(Kind::APIService, None, "v1.subresources.kubevirt.io")
}

/// A change whose releases have an admission policy, too, while the API server trusts a wrong authority.
fn input() -> Input {
    let mut input = World::installed("v0.1.0").input(NEW);
    input.desired.insert(policy());
    let old = Existing { id: Some("id-v0.1.0".to_owned()), ..Existing::default() };
    input.snapshot.objects.insert(policy(), old);
    input.snapshot.objects.get_mut(&api()).expect("it is there").same_transitional = false;
    input
}

fn open(plan: &Plan) -> &crate::Step {
    plan.steps().iter().find(|step| step.slot == Slot::RbacOpen).expect("a step")
}

#[test]
fn whom_the_api_server_trusts_is_put_right_at_once_and_policies_wait_for_their_step() {
    let input = input();
    let (plan, _report) = plan(&input);
    assert_eq!(check::check(&plan, &input.desired), Ok(()));
    assert!(open(&plan).apply.contains(&api()) && !open(&plan).objects.contains(&policy()));
    let admission = plan.steps().iter().find(|step| step.slot == Slot::Admission).expect("a step");
    assert!(admission.apply.contains(&policy()) && matches!(admission.state, StepState::Waiting(_)));
}

#[test]
fn it_goes_on_while_a_change_is_held_and_roles_do_not() {
    let input = input();
    let held = Course::Held(Reason::Paused { by: PausedBy::Request });
    let plan = plan(&input).0.on(&held, &input.snapshot);
    assert_eq!(open(&plan).apply, [api()]);
    assert_eq!(check::check(&plan, &input.desired), Ok(()));
}

#[test]
fn one_that_is_being_deleted_holds_up_its_own_step_alone() {
    let mut input = input();
    input.snapshot.objects.get_mut(&api()).expect("it is there").deleting = true;
    let (plan, _report) = plan(&input);
    assert!(open(&plan).apply.iter().all(|key| key.kind == Kind::ClusterRole), "{:?}", open(&plan));
    assert_eq!(open(&plan).state, StepState::Now);
}

#[test]
fn the_checker_knows_what_has_such_a_form() {
    let input = input();
    let (mut plan, _report) = plan(&input);
    let step = plan.steps_mut().iter_mut().find(|step| step.slot == Slot::RbacOpen).expect("a step");
    step.objects.push(policy());
    let found = check::check(&plan, &input.desired).expect_err("it has none");
    assert_eq!(found, [check::Violation::NoSuchForm { step: Slot::RbacOpen, object: policy() }]);
}
