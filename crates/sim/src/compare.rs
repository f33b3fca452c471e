//! What two runs are compared by: one under trouble with one without (O1, O2), and settings and versions that came and went
//! with what was before (O5).

use serde_json::Value;

use crate::run::{Done, Outcome};
use crate::state::{self, EndState};
use crate::story::Act;
use crate::upgrade;

/// What was told, without the generation, which counts how often somebody changed his mind.
fn without_generation(done: &Done) -> EndState {
    let mut told = done.told.clone();
    told.values_mut().filter_map(Value::as_object_mut).for_each(|status| drop(status.remove("observedGeneration")));
    told
}

impl Outcome {
    /// O1: at the end of each act the cluster is as after a run without trouble.
    ///
    /// How often something was written is compared only if nobody else wrote (`is_undisturbed`).
    pub fn compare(&mut self, reference: &Self, is_undisturbed: bool) {
        let mut differing = Vec::new();
        for own in &self.done {
            let Some(wanted) = reference.done.iter().find(|wanted| wanted.act == own.act.ends_as()) else { continue };
            let mut lines = state::differences(&wanted.managed, &own.managed, 5);
            lines.extend(if wanted.act == own.act {
                state::differences(&wanted.told, &own.told, 5)
            } else {
                state::differences(&without_generation(wanted), &without_generation(own), 5)
            });
            if !lines.is_empty() {
                let what = format!(
                    "after {} the cluster differs from an undisturbed run: {}",
                    own.act.name(),
                    lines.join("; ")
                );
                differing.push(what);
            }
        }
        differing.into_iter().for_each(|what| self.object("O1", what));
        self.compare_reverted();
        let left = upgrade::left_behind(self);
        if !left.is_empty() {
            self.object("O5", format!("a change that was undone left something behind: {}", left.join("; ")));
        }
        if is_undisturbed {
            self.compare_writes(reference);
        }
    }

    /// O5: settings that were changed and changed back leave nothing behind.
    fn compare_reverted(&mut self) {
        let of = |act: Act| self.done.iter().find(|done| done.act == act);
        let (Some(installed), Some(reverted)) = (of(Act::Install), of(Act::Revert)) else { return };
        let mut lines = state::differences(&installed.managed, &reverted.managed, 5);
        lines.extend(state::differences(&without_generation(installed), &without_generation(reverted), 5));
        if !lines.is_empty() {
            self.object("O5", format!("settings left something behind: {}", lines.join("; ")));
        }
    }

    /// O2: an object is made and removed as often as without trouble, and not rewritten over and over.
    fn compare_writes(&mut self, reference: &Self) {
        /// A write is repeated when its answer was lost or its writer died; more than that is fighting.
        const MORE_UPDATES: u32 = 3;
        let mut objections = Vec::new();
        for own in &self.done {
            let Some(wanted) = reference.done.iter().find(|wanted| wanted.act == own.act) else { continue };
            let mut object = |what: String| objections.push(format!("after {}: {what}", own.act.name()));
            let same =
                [("made", &own.tally.made, &wanted.tally.made), ("removed", &own.tally.removed, &wanted.tally.removed)];
            for (verb, own, wanted) in same {
                // Events are told again; that is no harm.
                for (key, count) in own.iter().filter(|(key, _)| !key.starts_with("events")) {
                    let usual = wanted.get(key).copied().unwrap_or(0);
                    if *count > usual {
                        object(format!("{key} was {verb} {count} times, without trouble {usual} times"));
                    }
                }
            }
            for (key, count) in &own.tally.updated {
                let usual = wanted.tally.updated.get(key).copied().unwrap_or(0);
                if *count > usual * 2 + MORE_UPDATES && !key.starts_with("leases") && !key.starts_with("events") {
                    object(format!("{key} was written {count} times, without trouble {usual} times"));
                }
            }
        }
        objections.into_iter().for_each(|what| self.object("O2", what));
    }
}
