//! `virtctl upgrade watch`: a change of version until its end, as a view that is drawn anew on a terminal and as lines
//! elsewhere.

use std::io::IsTerminal as _;
use std::pin::pin;
use std::process::ExitCode;

use futures::TryStreamExt as _;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kubevirt_api::upgrade::{PlanState, UpgradePlan};

use super::show;
use crate::{ENDED_OTHERWISE, Output};

/// Moves to the upper left corner and clears what is below: the view stays where it is.
const REDRAW: &str = "\u{1b}[H\u{1b}[2J";

/// Follows a plan until it is over.
pub(super) async fn run(client: &Client, plan: UpgradePlan, output: Output) -> anyhow::Result<ExitCode> {
    let name = plan.metadata.name.clone().unwrap_or_default();
    let api: Api<UpgradePlan> = Api::all(client.clone());
    let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut states = pin!(watcher(api, named).default_backoff().applied_objects());
    let is_live = output == Output::Text && std::io::stdout().is_terminal();
    let mut told = String::new();
    let mut seen = Some(plan);
    loop {
        let Some(plan) = seen.take() else {
            seen = states.try_next().await?;
            anyhow::ensure!(seen.is_some(), "the watch of {name} ended");
            continue;
        };
        match output {
            Output::Text if is_live => crate::print(&format!("{REDRAW}{}", show::text(&plan)))?,
            Output::Text => {
                let line = show::headline(&plan);
                if line != told {
                    crate::print(&format!("{line}\n"))?;
                    told = line;
                }
            }
            Output::Json => {
                let line = serde_json::to_string(&plan)?;
                if line != told {
                    crate::print(&format!("{line}\n"))?;
                    told = line;
                }
            }
        }
        match plan.status.as_ref().map(|status| status.state).unwrap_or_default() {
            PlanState::Succeeded => return Ok(ExitCode::SUCCESS),
            state if state.is_over() => return Ok(ExitCode::from(ENDED_OTHERWISE)),
            _ => {}
        }
    }
}
