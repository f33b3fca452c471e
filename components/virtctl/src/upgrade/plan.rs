//! `virtctl upgrade plan`: what the operator would do for a version.

use std::process::ExitCode;

use clap::Args;
use kube::Client;
use kubevirt_upgrade::{Step, StepState};
use serde_json::{Value, json};
use virt_operator::preview::{self, Change, Difference, Error, Preview};

use super::{Picture, picture};
use crate::NOT_POSSIBLE;
use crate::table::table;

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The version, e.g. v0.2.0
    #[arg(long, value_name = "VERSION")]
    to: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Picture::Text)]
    output: Picture,
}

pub(super) async fn run(client: &Client, PlanArgs { to, output }: &PlanArgs) -> anyhow::Result<ExitCode> {
    match (preview::preview(client, to).await, output) {
        (Ok(preview), Picture::Text) => crate::print(&text(&preview))?,
        (Ok(Preview { plan, report, changes }), Picture::Json) => {
            let document = json!({"plan": plan, "message": report.message(), "findings": report.findings(),
                "then": report.then(), "changes": changes});
            crate::print(&format!("{document:#}\n"))?;
        }
        (Ok(Preview { plan, .. }), Picture::Svg) => crate::print(&picture::flow(&plan))?,
        (Err(error @ (Error::Refused { .. } | Error::NoCr | Error::NoOperator { .. })), output) => {
            if *output == Picture::Json {
                let document = json!({"error": {"code": error.code(), "message": error.to_string()}});
                crate::print(&format!("{document:#}\n"))?;
            } else {
                eprintln!("No plan for {to}: {error}");
            }
            return Ok(ExitCode::from(NOT_POSSIBLE));
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan as a table, then each object it would touch, and what would change in it.
fn text(Preview { plan, report, changes }: &Preview) -> String {
    let from = plan.observed().map_or("nothing", |observed| observed.version.as_str());
    let then: String = report.then().iter().map(|version| format!(", then to {version}")).collect();
    let mut lines = format!("{} from {from} to {}{then}\n\n", plan.mode().code(), plan.target().version);
    let rows: Vec<[String; 6]> = plan.steps().iter().map(row).collect();
    lines.push_str(&table(["STEP", "NAME", "STATE", "WRITES", "DELETES", "PODS"], &rows));
    let touched = plan.steps().iter().filter(|step| !step.apply.is_empty() || !step.delete.is_empty());
    for step in touched {
        lines.push_str(&format!("\n{}. {}\n", step.number, step.slot.title()));
        for key in &step.apply {
            match changes.iter().find(|change| change.step == Some(step.number) && change.object == *key) {
                Some(change) => lines.push_str(&written(change)),
                None => lines.push_str(&format!("  create {key}\n")),
            }
        }
        step.delete.iter().for_each(|key| lines.push_str(&format!("  delete {key}\n")));
    }
    let later: String = changes.iter().filter(|change| change.step.is_none()).map(written).collect();
    if !later.is_empty() {
        lines.push_str(&format!("\nOnce nothing of the older version runs\n{later}"));
    }
    for finding in report.findings() {
        let weight = if finding.blocks() { "BLOCKS" } else { "note" };
        lines.push_str(&format!("\n{weight} {}: {finding}\n", finding.code()));
    }
    lines.push_str(&format!("\n{}\n", report.message()));
    lines
}

/// An object, and each place that changes. Of which version it is stands in every object; that is told only where nothing
/// else changes.
fn written(Change { step: _, object, differences }: &Change) -> String {
    const OF_WHICH: &str = "metadata.annotations.kubevirt.io/install-strategy-";
    let place = |Difference { path, from, to }: &Difference| {
        format!("           {path}: {} -> {}\n", short(from.as_ref()), short(to.as_ref()))
    };
    let said: String = differences.iter().filter(|it| !it.path.starts_with(OF_WHICH)).map(place).collect();
    let said = if said.is_empty() { "           of which version it is, nothing else\n".to_owned() } else { said };
    format!("  write  {object}\n{said}")
}

/// A value on a line with others; `-o json` has it whole.
fn short(value: Option<&Value>) -> String {
    /// An image with its registry still fits.
    const LONGEST: usize = 72;
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn row(step: &Step) -> [String; 6] {
    let state = match &step.state {
        StepState::Done => "done".to_owned(),
        StepState::Now => "begins at once".to_owned(),
        StepState::Waiting(reasons) => match reasons.as_slice() {
            [] => "waits".to_owned(),
            [first, ..] => first.to_string(),
        },
    };
    let count = |keys: usize| if keys == 0 { "-".to_owned() } else { keys.to_string() };
    let (writes, deletes) = (count(step.apply.len()), count(step.delete.len()));
    [step.number.to_string(), step.slot.code().to_owned(), state, writes, deletes, count(step.pods)]
}
