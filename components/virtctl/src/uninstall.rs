//! `virtctl uninstall`: what the removal of the suite would do.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use virt_operator::preview::{self, Error, Removal};
use virt_operator::reconcile::uninstall::Stage;

use crate::cluster::ClusterArgs;
use crate::table::table;
use crate::{NOT_POSSIBLE, Output};

#[derive(Subcommand, Debug)]
pub(crate) enum UninstallCommand {
    /// Show what deleting the KubeVirt object would remove, in order, and what would hold it up, without changing anything
    Plan(PlanArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(cluster: &ClusterArgs, command: &UninstallCommand) -> anyhow::Result<ExitCode> {
    let UninstallCommand::Plan(PlanArgs { output }) = command;
    let client = cluster.client().await?;
    match (preview::removal(&client).await, output) {
        (Ok(removal), output) => {
            match output {
                Output::Text => crate::print(&text(&removal))?,
                Output::Json => crate::print(&format!("{:#}\n", document(&removal)))?,
            }
            // A script that asks beforehand wants to know.
            Ok(ExitCode::from(if removal.blockers.is_empty() { 0 } else { NOT_POSSIBLE }))
        }
        (Err(error @ Error::NoCr), output) => {
            match output {
                Output::Text => eprintln!("Nothing to uninstall: {error}"),
                Output::Json => {
                    let document = json!({"error": {"code": error.code(), "message": error.to_string()}});
                    crate::print(&format!("{document:#}\n"))?;
                }
            }
            Ok(ExitCode::from(NOT_POSSIBLE))
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Steps as a table, then users' objects, then each object of the suite, then what would hold it up.
fn text(removal: &Removal) -> String {
    let Removal { cr, strategy, stages, instances, blockers } = removal;
    let mut lines = format!("deleting KubeVirt {cr} (strategy {strategy:?}) removes, in this order\n\n");
    let rows: Vec<[String; 4]> = stages.iter().enumerate().map(|(index, stage)| row(index + 1, stage)).collect();
    lines.push_str(&table(["STEP", "NAME", "REMOVES", "WHAT"], &rows));
    let users: Vec<[String; 2]> = instances
        .iter()
        .filter(|(_, of)| of.count > 0)
        .map(|(name, of)| [name.clone(), of.count.to_string()])
        .collect();
    if users.is_empty() {
        lines.push_str("\nno objects of users go with it\n");
    } else {
        lines.push_str("\nobjects of users that go with it\n");
        lines.push_str(&table(["RESOURCE", "COUNT"], &users));
    }
    for (index, stage) in stages.iter().enumerate() {
        lines.push_str(&format!("\n{}. {}\n", index + 1, stage.part.title()));
        stage.delete.iter().for_each(|key| lines.push_str(&format!("  delete {key}\n")));
        stage.nodes.iter().for_each(|name| lines.push_str(&format!("  clean  Node {name}\n")));
    }
    lines.push_str("\nwhat stays: the operator, the definition of KubeVirt, the namespace, the priority class\n");
    if blockers.is_empty() {
        lines.push_str("nothing holds it up\n");
    }
    for blocker in blockers {
        lines.push_str(&format!("held up by {}: {blocker}\n", blocker.code()));
    }
    lines
}

fn row(number: usize, stage: &Stage) -> [String; 4] {
    let count = stage.delete.len() + stage.nodes.len();
    [number.to_string(), stage.part.code().to_owned(), count.to_string(), stage.part.title().to_owned()]
}

fn document(removal: &Removal) -> Value {
    let Removal { cr, strategy, stages, instances, blockers } = removal;
    let steps: Vec<Value> = stages
        .iter()
        .enumerate()
        .map(|(index, stage)| {
            let keys = stage.delete.iter().map(ToString::to_string).collect::<Vec<_>>();
            json!({"number": index + 1, "name": stage.part, "title": stage.part.title(), "delete": keys, "nodes": stage.nodes})
        })
        .collect();
    let users: serde_json::Map<String, Value> =
        instances.iter().filter(|(_, of)| of.count > 0).map(|(name, of)| (name.clone(), of.count.into())).collect();
    let blockers: Vec<Value> = blockers
        .iter()
        .map(|blocker| json!({"code": blocker.code(), "message": blocker.to_string(), "detail": blocker}))
        .collect();
    json!({"kubevirt": cr, "strategy": format!("{strategy:?}"), "steps": steps, "userObjects": users, "blockers": blockers})
}

#[cfg(test)]
mod tests {
    use kubevirt_api::kubevirt::UninstallStrategy;
    use virt_operator::reconcile::uninstall::{Blocker, Instances};

    use super::*;

    #[test]
    fn what_goes_and_what_holds_it_up_is_said_both_ways() {
        let blocker = Blocker::WorkloadsExist { resource: "virtualmachines.kubevirt.io".to_owned(), count: 2 };
        let removal = Removal {
            cr: "kubevirt/kubevirt".to_owned(),
            strategy: UninstallStrategy::BlockUninstallIfWorkloadsExist,
            stages: Vec::new(),
            instances: [("virtualmachines.kubevirt.io".to_owned(), Instances { count: 2, held: Vec::new() })].into(),
            blockers: vec![blocker],
        };
        let text = text(&removal);
        assert!(text.contains("virtualmachines.kubevirt.io   2\n"), "{text}");
        assert!(text.contains("held up by WorkloadsExist: 2 virtualmachines.kubevirt.io exist"), "{text}");
        let document = document(&removal);
        assert_eq!(document["userObjects"]["virtualmachines.kubevirt.io"], 2);
        assert_eq!(document["blockers"][0]["detail"]["code"], "WorkloadsExist");
    }
}
