//! `virtctl upgrade`: what a change of version would do.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use kubevirt_upgrade::{Plan, Report, Step, StepState};
use serde_json::json;
use virt_operator::preview::{self, Error};

use crate::cluster::ClusterArgs;
use crate::table::table;
use crate::{NOT_POSSIBLE, Output};

#[derive(Subcommand, Debug)]
pub(crate) enum UpgradeCommand {
    /// Show what the operator would do for a version, without changing anything
    Plan(PlanArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The version, e.g. v0.2.0
    #[arg(long, value_name = "VERSION")]
    to: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(cluster: &ClusterArgs, command: &UpgradeCommand) -> anyhow::Result<ExitCode> {
    let UpgradeCommand::Plan(PlanArgs { to, output }) = command;
    let client = cluster.client().await?;
    match (preview::preview(&client, to).await, output) {
        (Ok((plan, report)), Output::Text) => crate::print(&text(&plan, &report))?,
        (Ok((plan, report)), Output::Json) => {
            crate::print(&format!("{:#}\n", json!({"plan": plan, "message": report.message()})))?;
        }
        (Err(error @ (Error::Refused { .. } | Error::NoCr | Error::NoOperator { .. })), output) => {
            match output {
                Output::Text => eprintln!("No plan for {to}: {error}"),
                Output::Json => {
                    let document = json!({"error": {"code": error.code(), "message": error.to_string()}});
                    crate::print(&format!("{document:#}\n"))?;
                }
            }
            return Ok(ExitCode::from(NOT_POSSIBLE));
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan as a table, then each object it would touch.
fn text(plan: &Plan, report: &Report) -> String {
    let from = plan.observed().map_or("nothing", |observed| observed.version.as_str());
    let mut lines = format!("{} from {from} to {}\n\n", plan.mode().code(), plan.target().version);
    let rows: Vec<[String; 5]> = plan.steps().iter().map(row).collect();
    lines.push_str(&table(["STEP", "NAME", "STATE", "WRITES", "DELETES"], &rows));
    let touched = plan.steps().iter().filter(|step| !step.apply.is_empty() || !step.delete.is_empty());
    for step in touched {
        lines.push_str(&format!("\n{}. {}\n", step.number, step.slot.title()));
        step.apply.iter().for_each(|key| lines.push_str(&format!("  write  {key}\n")));
        step.delete.iter().for_each(|key| lines.push_str(&format!("  delete {key}\n")));
    }
    lines.push_str(&format!("\n{}\n", report.message()));
    lines
}

fn row(step: &Step) -> [String; 5] {
    let state = match &step.state {
        StepState::Done => "done".to_owned(),
        StepState::Now => "begins at once".to_owned(),
        StepState::Waiting(reasons) => match reasons.as_slice() {
            [] => "waits".to_owned(),
            [first, ..] => first.to_string(),
        },
    };
    let count = |keys: usize| if keys == 0 { "-".to_owned() } else { keys.to_string() };
    [step.number.to_string(), step.slot.code().to_owned(), state, count(step.apply.len()), count(step.delete.len())]
}
