//! Makes the plan. One row of the order after another; a row is finished, has something to write, or waits.

use std::collections::BTreeSet;

use kubevirt_release::version::{self, Direction};
use kubevirt_release::{Kind, ObjectKey};

use crate::images;
use crate::input::{Identity, Input, Pod, Snapshot};
use crate::order::{self, Begins, Mode, Slot};
use crate::plan::{Form, Plan, Step, StepState};
use crate::reason::Reason;
use crate::report::Report;
use crate::rollout;

/// The plan for a target version on what exists, and the report that says why whatever waits does wait.
#[must_use = "an unread report explains nothing"]
pub fn plan(input: &Input) -> (Plan, Report) {
    let Input { observed, target, desired, snapshot, releases: _, closes, pulls_images: _, images_overdue: _ } = input;
    let mode = mode(input);
    let obsolete: Vec<&ObjectKey> = snapshot.objects.keys().filter(|key| !desired.contains(*key)).collect();
    let (kept, obsolete): (Vec<&ObjectKey>, Vec<&ObjectKey>) =
        obsolete.into_iter().partition(|key| order::is_kept(key));
    // Where there is a step for it, what prepared the nodes goes as soon as it is not needed; else with everything else.
    let has_images = mode == Mode::Update && (input.pulls_images || images::exists(snapshot));
    let (pullers, prune): (Vec<&ObjectKey>, Vec<&ObjectKey>) =
        obsolete.into_iter().partition(|key| has_images && order::slot_of(key) == Slot::Images);

    let mut steps: Vec<Step> = Vec::new();
    let is_there = |slot: Slot| match slot {
        Slot::Gate => *closes,
        Slot::Images => has_images,
        _ => true,
    };
    let rows = order::rows(mode).iter().filter(|(slot, _)| is_there(*slot));
    for (index, (slot, begins)) in rows.enumerate() {
        let number = index + 1;
        let step = match slot {
            Slot::Prune => delete_step(number, Slot::Prune, &prune, snapshot),
            Slot::Images if !pullers.is_empty() => delete_step(number, Slot::Images, &pullers, snapshot),
            Slot::RbacOpen => rbac_open_step(number, input),
            slot => write_step(number, *slot, Form::Final, input),
        };
        let open = steps.iter().find(|earlier| *begins == Begins::Afterwards && !earlier.is_done());
        let step = hold_back(step, open);
        steps.push(step);
    }
    let kept = kept.into_iter().cloned().collect();
    let plan = Plan::new(mode, observed.clone(), target.clone(), steps, kept);
    let report = Report::of(&plan);
    (plan, report)
}

/// Which way the suite moves. While anything of another version is left, the order of a change of version holds, even
/// when the target is (again) the version that was last complete.
pub(crate) fn mode(input: &Input) -> Mode {
    let Input { observed, target, desired, snapshot, releases, closes: _, pulls_images: _, images_overdue: _ } = input;
    let Some(observed) = observed.as_ref().filter(|observed| !observed.version.is_empty()) else {
        return Mode::Install;
    };
    if observed.id == target.id && !runs_another(target, desired, snapshot) {
        return Mode::Keep;
    }
    match version::direction(&observed.version, &target.version, releases) {
        Direction::Upgrade => Mode::Update,
        Direction::Same | Direction::Downgrade => Mode::Rollback,
    }
}

/// Whether a wanted workload of the suite, or a pod of one, is of another version than the target.
fn runs_another(target: &Identity, desired: &BTreeSet<ObjectKey>, snapshot: &Snapshot) -> bool {
    let is_other = |id: Option<&str>| id.is_some_and(|id| id != target.id);
    let is_of_suite = |key: &ObjectKey| desired.contains(key) && order::slot_of(key).is_workload();
    snapshot.workloads.iter().filter(|(key, _)| is_of_suite(key)).any(|(key, workload)| {
        snapshot.objects.get(key).is_some_and(|existing| is_other(existing.id.as_deref()))
            || rollout::runs_old(workload, |pod| is_other(pod.id.as_deref()), &snapshot.absent_nodes)
    })
}

/// Roles and bindings in their wider form, for as long as pods of the old version run or may still be started.
/// Afterwards there is nothing to open; were it otherwise, opening and shrinking would take turns for ever.
fn rbac_open_step(number: usize, input: &Input) -> Step {
    let Input { observed: _, target, desired, snapshot, releases: _, closes: _, pulls_images: _, images_overdue: _ } =
        input;
    let is_workload = |key: &ObjectKey| order::slot_of(key).is_workload();
    let may_start_old = desired
        .iter()
        .filter(|key| is_workload(key))
        .any(|key| !snapshot.objects.get(key).is_some_and(|existing| existing.same));
    let obsolete = snapshot.objects.keys().any(|key| is_workload(key) && !desired.contains(key));
    // What is on a node that is not there is replaced at once when the node is back; waiting for it with the old rights
    // would be waiting for the node.
    let is_old = |pod: &Pod| pod.id.as_deref() != Some(target.id.as_str());
    // Nor have the pods that only prepare the nodes any rights.
    let mut workloads = snapshot.workloads.iter().filter(|(key, _)| is_workload(key));
    let old_pod = workloads.any(|(_, workload)| rollout::runs_old(workload, is_old, &snapshot.absent_nodes));
    let mut step = write_step(number, Slot::RbacOpen, Form::Transitional, input);
    if !may_start_old && !obsolete && !old_pod {
        // What is registered is to be trusted as long as its own step has not come; that may be held.
        step.apply.retain(order::is_registration);
        step.state = if step.apply.is_empty() { StepState::Done } else { StepState::Now };
    }
    step
}

/// A step that writes the objects of a slot in a form, as if nothing came before it.
fn write_step(number: usize, slot: Slot, form: Form, input: &Input) -> Step {
    // Roles and bindings have two steps; both are found under the slot of their final form.
    let home = if slot == Slot::RbacOpen { Slot::RbacShrink } else { slot };
    let mut step = Step {
        number,
        slot,
        form,
        objects: Vec::new(),
        apply: Vec::new(),
        delete: Vec::new(),
        pods: 0,
        state: StepState::Done,
    };
    let mut reasons = Vec::new();
    // Registrations have their own step near the end, but whom the API server trusts when it calls what is registered already
    // changes when an authority does.
    let is_registered = |key: &ObjectKey| {
        order::is_registration(key)
            && input.snapshot.objects.contains_key(key)
            && !input.snapshot.is_of(key, &input.target.id)
    };
    let belongs = |key: &&ObjectKey| order::slot_of(key) == home || (form == Form::Transitional && is_registered(key));
    for key in input.desired.iter().filter(belongs) {
        step.objects.push(key.clone());
        if let Some(workload) = input.snapshot.workloads.get(key).filter(|_| slot.is_workload()) {
            step.pods += workload.pods.iter().filter(|pod| pod.id.as_deref() != Some(input.target.id.as_str())).count();
        }
        let Some(existing) = input.snapshot.objects.get(key) else {
            match input.snapshot.no_backend.get(key) {
                Some(why) => reasons.push(Reason::NoBackend { object: key.clone(), why: why.clone() }),
                None => step.apply.push(key.clone()),
            }
            continue;
        };
        if existing.deleting {
            // Writing into an object that is going away would be lost with it. What was registered is waited for in its own step.
            if order::slot_of(key) == home {
                reasons.push(Reason::BeingDeleted { object: key.clone() });
            }
            continue;
        }
        let same = match form {
            Form::Final => existing.same,
            Form::Transitional => existing.same_transitional,
        };
        if !same {
            step.apply.push(key.clone());
            continue;
        }
        if let Some(why) = &existing.not_serving {
            reasons.push(Reason::NotServing { object: key.clone(), why: why.clone() });
        }
        if slot.rolls() {
            match input.snapshot.workloads.get(key) {
                Some(workload) => {
                    let workload = images::counted(slot, workload);
                    reasons.extend(rollout::missing(key, &workload, &input.target.id, &input.snapshot.absent_nodes));
                }
                None => reasons.push(Reason::NotObserved { object: key.clone() }),
            }
        }
    }
    if slot == Slot::Images && input.images_overdue {
        reasons.clear();
    }
    step.objects.sort_by_key(rank);
    step.apply.sort_by_key(rank);
    if !step.apply.is_empty() {
        step.state = StepState::Now;
    } else if !reasons.is_empty() {
        step.state = StepState::Waiting(reasons);
    }
    step
}

/// Within a step, what others refer to is written first.
fn rank(key: &ObjectKey) -> (u8, ObjectKey) {
    // Kinds are ordered by what builds on what; only budgets, which pods obey, stand behind the pods in that order.
    (u8::from(key.kind == Kind::PodDisruptionBudget), key.clone())
}

/// A step that deletes.
fn delete_step(number: usize, slot: Slot, obsolete: &[&ObjectKey], snapshot: &Snapshot) -> Step {
    let is_going = |key: &ObjectKey| snapshot.objects.get(key).is_some_and(|existing| existing.deleting);
    let mut delete: Vec<ObjectKey> = obsolete.iter().filter(|key| !is_going(key)).map(|key| (*key).clone()).collect();
    // Callers go before what they call: registrations, then workloads, then accounts and configuration, then roles.
    delete.sort_by_key(|key| {
        let place = match order::slot_of(key) {
            Slot::Admission => 0,
            Slot::Api | Slot::Others | Slot::Controller | Slot::Handler | Slot::Images => 1,
            Slot::RbacShrink => 3,
            _ => 2,
        };
        (place, key.clone())
    });
    let going: Vec<Reason> =
        obsolete.iter().filter(|key| is_going(key)).map(|key| Reason::StillThere { object: (*key).clone() }).collect();
    let state = match (delete.is_empty(), going.is_empty()) {
        (false, _) => StepState::Now,
        (true, false) => StepState::Waiting(going),
        (true, true) => StepState::Done,
    };
    Step { number, slot, form: Form::Final, objects: Vec::new(), apply: Vec::new(), delete, pods: 0, state }
}

/// Makes a step wait when an earlier one that it comes after is open.
fn hold_back(mut step: Step, open: Option<&Step>) -> Step {
    let Some(open) = open else {
        return step;
    };
    let after = Reason::After { number: open.number, slot: open.slot };
    step.state = match step.state {
        // A later step may happen to be finished (nothing to do in it); an open earlier one does not undo that.
        StepState::Done => StepState::Done,
        StepState::Now => StepState::Waiting(vec![after]),
        StepState::Waiting(mut reasons) => {
            reasons.insert(0, after);
            StepState::Waiting(reasons)
        }
    };
    step
}
