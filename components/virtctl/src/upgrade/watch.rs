//! `virtctl upgrade watch`: a change of version until its end, as a view that is drawn anew on a terminal and as lines
//! elsewhere.

use std::io::IsTerminal as _;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kubevirt_api::upgrade::{PlanState, UpgradePlan};

use super::{expected, show};
use crate::{ENDED_OTHERWISE, Output};

/// Moves to the upper left corner and clears what is below: the view stays where it is.
const REDRAW: &str = "\u{1b}[H\u{1b}[2J";

/// The plan is written once per step, and what is expected changes with each pod: a view is drawn anew this often, for two
/// small reads each.
const REFRESH: Duration = Duration::from_secs(5);

/// Follows a plan until it is over.
pub(super) async fn run(client: &Client, plan: UpgradePlan, output: Output) -> anyhow::Result<ExitCode> {
    let name = plan.metadata.name.clone().unwrap_or_default();
    let api: Api<UpgradePlan> = Api::all(client.clone());
    let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut states = pin!(watcher(api, named).default_backoff().applied_objects());
    let is_live = output == Output::Text && std::io::stdout().is_terminal();
    let mut told = String::new();
    let mut plan = plan;
    loop {
        match output {
            Output::Text if is_live => {
                let text = show::text(&plan, expected(client, &plan).await);
                crate::print(&format!("{REDRAW}{text}"))?;
            }
            Output::Text => {
                let line = show::headline(&plan);
                if line != told {
                    let expected = expected(client, &plan).await.map(|expected| format!("; {expected}"));
                    crate::print(&format!("{line}{}\n", expected.unwrap_or_default()))?;
                    told = line;
                }
            }
            Output::Json => {
                let line = serde_json::to_string(&plan)?;
                if line != told {
                    crate::print(&format!("{}\n", show::document(&plan, expected(client, &plan).await)?))?;
                    told = line;
                }
            }
        }
        match plan.status.as_ref().map(|status| status.state).unwrap_or_default() {
            PlanState::Succeeded => return Ok(ExitCode::SUCCESS),
            state if state.is_over() => return Ok(ExitCode::from(ENDED_OTHERWISE)),
            _ => {}
        }
        tokio::select! {
            next = states.try_next() => {
                plan = next?.with_context(|| format!("the watch of {name} ended"))?;
            }
            () = tokio::time::sleep(REFRESH), if is_live => {}
        }
    }
}
