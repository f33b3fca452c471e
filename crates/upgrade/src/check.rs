//! Verifies a finished plan against rules that do not come from the planner. Whoever carries out a plan asks first.

use std::collections::{BTreeMap, BTreeSet};

use kubevirt_release::ObjectKey;

use crate::order::{Mode, Slot, is_registration, slot_of};
use crate::plan::{Form, Plan, Step, StepState};

/// What must be finished before what; the file is written by hand.
const ORACLE: &str = include_str!("../tests/upgrade-dag.toml");

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("step {after} comes before step {before}, which it depends on")]
    Order { before: String, after: String },
    #[error("step {step} begins while step {open} is not finished")]
    Early { step: Slot, open: Slot },
    #[error("step {step} deletes objects; only {} may, and {} what it made itself", Slot::Prune, Slot::Images)]
    DeletesEarly { step: Slot },
    #[error("step {step} has no place in the order of mode {}", mode.code())]
    NoPlace { step: Slot, mode: Mode },
    #[error("{object} appears {times} times in its final form, it must appear once")]
    Appearances { object: ObjectKey, times: usize },
    #[error("step {step} writes {object}, which the target version does not have")]
    NotDesired { step: Slot, object: ObjectKey },
    #[error("step {step} deletes {object}, which the target version has")]
    DeletesDesired { step: Slot, object: ObjectKey },
    #[error("step {step} writes {object}, which is not among the step's objects")]
    ForeignWrite { step: Slot, object: ObjectKey },
    #[error("step {step} writes {object} in a transitional form, and there is none of it")]
    NoSuchForm { step: Slot, object: ObjectKey },
    #[error("step {step} is called done but has something to do")]
    FalselyDone { step: Slot },
    #[error("step {step} waits for nothing")]
    WaitsForNothing { step: Slot },
    #[error("step {step} is numbered {number}, its place is {place}")]
    Number { step: Slot, number: usize, place: usize },
    #[error("line {line} of the order's statement cannot be read: {text}")]
    Statement { line: usize, text: String },
}

/// `after -> before` pairs of one mode.
pub(crate) fn edges(mode: Mode) -> Result<Vec<(String, String)>, Violation> {
    section(mode.code())
}

/// Steps that are not in every plan of their mode.
const OPTIONAL: [Slot; 2] = [Slot::Gate, Slot::Images];

/// What one of them adds.
fn edges_with(slot: Slot, mode: Mode) -> Result<Vec<(String, String)>, Violation> {
    section(&format!("{}+{slot}", mode.code()))
}

fn section(wanted: &str) -> Result<Vec<(String, String)>, Violation> {
    let mut section = String::new();
    let mut edges = Vec::new();
    for (index, line) in ORACLE.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let unreadable = || Violation::Statement { line: index + 1, text: line.to_owned() };
        let (after, before) = line.split_once('=').ok_or_else(unreadable)?;
        let before: Vec<String> = serde_json::from_str(before.trim()).map_err(|_| unreadable())?;
        if section == wanted {
            edges.extend(before.into_iter().map(|before| (after.trim().to_owned(), before)));
        }
    }
    Ok(edges)
}

/// All violations of a plan that is meant to bring about `desired`.
///
/// # Errors
/// Every rule the plan breaks.
pub fn check(plan: &Plan, desired: &BTreeSet<ObjectKey>) -> Result<(), Vec<Violation>> {
    let mut found = Vec::new();
    match edges(plan.mode()) {
        Ok(edges) => check_order(plan.steps(), &edges, &mut found),
        Err(unreadable) => found.push(unreadable),
    }
    for slot in OPTIONAL.into_iter().filter(|slot| plan.steps().iter().any(|step| step.slot == *slot)) {
        match edges_with(slot, plan.mode()) {
            Ok(edges) if edges.is_empty() => {
                found.push(Violation::NoPlace { step: slot, mode: plan.mode() });
            }
            Ok(edges) => check_order(plan.steps(), &edges, &mut found),
            Err(unreadable) => found.push(unreadable),
        }
    }
    check_objects(plan.steps(), desired, &mut found);
    check_states(plan.steps(), &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn check_order(steps: &[Step], edges: &[(String, String)], found: &mut Vec<Violation>) {
    let place: BTreeMap<&str, &Step> = steps.iter().map(|step| (step.slot.code(), step)).collect();
    for (after, before) in edges {
        let (Some(later), Some(earlier)) = (place.get(after.as_str()), place.get(before.as_str())) else {
            found.push(Violation::Order { before: before.clone(), after: after.clone() });
            continue;
        };
        if later.number <= earlier.number {
            found.push(Violation::Order { before: before.clone(), after: after.clone() });
        }
        if later.state == StepState::Now && !earlier.is_done() {
            found.push(Violation::Early { step: later.slot, open: earlier.slot });
        }
    }
}

fn check_objects(steps: &[Step], desired: &BTreeSet<ObjectKey>, found: &mut Vec<Violation>) {
    let mut times: BTreeMap<&ObjectKey, usize> = desired.iter().map(|key| (key, 0)).collect();
    for step in steps {
        for object in &step.objects {
            match times.get_mut(object) {
                Some(count) if step.form == Form::Final => *count += 1,
                Some(_) => {}
                None => found.push(Violation::NotDesired { step: step.slot, object: object.clone() }),
            }
        }
        let has_form = |object: &ObjectKey| slot_of(object) == Slot::RbacShrink || is_registration(object);
        if step.form == Form::Transitional {
            let without = step.objects.iter().filter(|object| !has_form(object));
            found.extend(without.map(|object| Violation::NoSuchForm { step: step.slot, object: object.clone() }));
        }
        for object in step.apply.iter().filter(|object| !step.objects.contains(object)) {
            found.push(Violation::ForeignWrite { step: step.slot, object: object.clone() });
        }
        for object in step.delete.iter().filter(|object| desired.contains(*object)) {
            found.push(Violation::DeletesDesired { step: step.slot, object: object.clone() });
        }
        let may_delete = match step.slot {
            Slot::Prune => true,
            Slot::Images => step.delete.iter().all(|object| slot_of(object) == Slot::Images),
            _ => step.delete.is_empty(),
        };
        if !may_delete {
            found.push(Violation::DeletesEarly { step: step.slot });
        }
    }
    for (object, times) in times.into_iter().filter(|(_, times)| *times != 1) {
        found.push(Violation::Appearances { object: object.clone(), times });
    }
}

fn check_states(steps: &[Step], found: &mut Vec<Violation>) {
    for (index, step) in steps.iter().enumerate() {
        if step.number != index + 1 {
            found.push(Violation::Number { step: step.slot, number: step.number, place: index + 1 });
        }
        match &step.state {
            StepState::Done if !step.apply.is_empty() || !step.delete.is_empty() => {
                found.push(Violation::FalselyDone { step: step.slot });
            }
            StepState::Waiting(reasons) if reasons.is_empty() => {
                found.push(Violation::WaitsForNothing { step: step.slot });
            }
            StepState::Done | StepState::Now | StepState::Waiting(_) => {}
        }
    }
}
