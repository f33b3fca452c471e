//! The report: what happens now, what waits, and why, in words for people and codes for programs.

use std::fmt;

use serde::Serialize;

use crate::order::{Mode, Slot};
use crate::plan::{Plan, Step, StepState};
use crate::preflight::Finding;
use crate::reason::Reason;

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    number: usize,
    slot: Slot,
    applies: usize,
    deletes: usize,
    objects: usize,
    #[serde(flatten)]
    state: StepState,
}

/// Why the plan is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[must_use = "an unread report explains nothing"]
pub struct Report {
    mode: Mode,
    from: Option<String>,
    to: String,
    lines: Vec<Line>,
    /// The versions that follow, where this one only leads to another.
    then: Vec<String>,
    /// What speaks against the change.
    findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn of(plan: &Plan) -> Self {
        let lines = plan
            .steps()
            .iter()
            .map(|Step { number, slot, form: _, objects, apply, delete, pods: _, state }| Line {
                number: *number,
                slot: *slot,
                applies: apply.len(),
                deletes: delete.len(),
                objects: objects.len(),
                state: state.clone(),
            })
            .collect();
        Self {
            mode: plan.mode(),
            from: plan.observed().map(|observed| observed.version.clone()),
            to: plan.target().version.clone(),
            lines,
            then: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// The same report with what speaks against the change.
    pub fn with(self, findings: Vec<Finding>) -> Self {
        Self { findings, ..self }
    }

    /// The same report of a version that leads to others.
    pub fn leading_to(self, then: &[String]) -> Self {
        Self { then: then.to_vec(), ..self }
    }

    /// The versions that follow this one, in order; the last is the one that is wanted.
    pub fn then(&self) -> &[String] {
        &self.then
    }

    /// What speaks against the change.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The reasons of all waiting steps, the mere "after step n" left out: what really blocks.
    pub fn blockers(&self) -> impl Iterator<Item = (Slot, &Reason)> {
        self.lines.iter().flat_map(|line| {
            let reasons = match &line.state {
                StepState::Waiting(reasons) => reasons.as_slice(),
                StepState::Done | StepState::Now => &[],
            };
            reasons.iter().filter(|reason| !matches!(reason, Reason::After { .. })).map(|reason| (line.slot, reason))
        })
    }

    /// One sentence for a condition: where the plan stands and the first things it waits for.
    pub fn message(&self) -> String {
        /// How many blockers a condition's message names; the plan has them all.
        const NAMED: usize = 4;
        let doing = match (self.mode, &self.from) {
            (Mode::Install, _) => format!("installing {}", self.to),
            (Mode::Keep, _) => format!("bringing {} back to its wanted state", self.to),
            (Mode::Update, Some(from)) => format!("updating {from} to {}", self.to),
            (Mode::Rollback, Some(from)) if *from != self.to => format!("going back from {from} to {}", self.to),
            (Mode::Update | Mode::Rollback, _) => format!("changing the deployment of {}", self.to),
        };
        let Some(current) = self.lines.iter().find(|line| line.state != StepState::Done) else {
            return format!("{} is complete", self.to);
        };
        let mut text = format!("{doing}: step {} of {}, {}", current.number, self.lines.len(), current.slot.title());
        if let Some(wanted) = self.then.last() {
            text = format!("on the way to {wanted}, {text}");
        }
        let blockers: Vec<String> = self.blockers().map(|(_, reason)| reason.to_string()).collect();
        if !blockers.is_empty() {
            text.push_str("; ");
            text.push_str(&blockers[..blockers.len().min(NAMED)].join("; "));
            if blockers.len() > NAMED {
                text.push_str(&format!("; and {} more", blockers.len() - NAMED));
            }
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => writeln!(f, "{}: {from} -> {}", self.mode.code(), self.to)?,
            None => writeln!(f, "{}: {}", self.mode.code(), self.to)?,
        }
        for line in &self.lines {
            let (mark, rest) = match &line.state {
                StepState::Done => ("done", String::new()),
                StepState::Now => ("now", work(line)),
                StepState::Waiting(_) => ("waits", work(line)),
            };
            let text = format!("{:>3}. {:<5} {:<16} {}{rest}", line.number, mark, line.slot.code(), line.slot.title());
            writeln!(f, "{}", text.trim_end())?;
            if let StepState::Waiting(reasons) = &line.state {
                for reason in reasons {
                    writeln!(f, "       - {reason}")?;
                }
            }
        }
        for finding in &self.findings {
            writeln!(f, "  ! {finding}")?;
        }
        Ok(())
    }
}

fn work(line: &Line) -> String {
    match (line.applies, line.deletes) {
        (0, 0) => String::new(),
        (applies, 0) => format!(": writes {applies} of {}", line.objects),
        (0, deletes) => format!(": deletes {deletes}"),
        (applies, deletes) => format!(": writes {applies} of {}, deletes {deletes}", line.objects),
    }
}
