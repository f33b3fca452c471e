//! `virtctl upgrade`: what a change of version would do, how one goes, and what is asked of it.

mod ask;
mod picture;
mod plan;
mod show;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use kube::Client;
use kube::api::{Api, ListParams};
use kubevirt_api::upgrade::{PlanState, Request, UpgradePlan};
use kubevirt_runtime::clock::Clock;
use kubevirt_upgrade::estimate::Estimate;
use virt_operator::outlook::outlook;

use crate::cluster::ClusterArgs;
use crate::{NOT_POSSIBLE, Output};

#[derive(Subcommand, Debug)]
pub(crate) enum UpgradeCommand {
    /// Show what the operator would do for a version, without changing anything
    Plan(plan::PlanArgs),
    /// Show how a change of version goes, or went
    Status(StatusArgs),
    /// Follow a change of version to its end
    Watch(WatchArgs),
    /// Hold the change that is under way
    Pause(AskArgs),
    /// Let a paused change go on
    Resume(AskArgs),
    /// Go back to the version before
    Rollback(AskArgs),
    /// End the change where it is
    Abort(AskArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The UpgradePlan; without it, the newest
    name: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Picture::Text)]
    output: Picture,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The UpgradePlan; without it, the newest
    name: Option<String>,
    /// How to print it: one JSON document per change, or text
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct AskArgs {
    /// How to print what was asked
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How something is printed that can also be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Picture {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// A picture
    Svg,
}

pub(crate) async fn run(cluster: &ClusterArgs, command: &UpgradeCommand) -> anyhow::Result<ExitCode> {
    let client = cluster.client().await?;
    match command {
        UpgradeCommand::Plan(arguments) => plan::run(&client, arguments).await,
        UpgradeCommand::Status(StatusArgs { name, output }) => match find(&client, name.as_deref()).await? {
            Ok(plan) => show::print(&plan, expected(&client, &plan).await, *output).map(|()| ExitCode::SUCCESS),
            Err(refusal) => refusal.print(*output == Picture::Json),
        },
        UpgradeCommand::Watch(WatchArgs { name, output }) => match find(&client, name.as_deref()).await? {
            Ok(plan) => watch::run(&client, plan, *output).await,
            Err(refusal) => refusal.print(*output == Output::Json),
        },
        UpgradeCommand::Pause(arguments) => ask(&client, Some(Request::Pause), arguments.output).await,
        UpgradeCommand::Resume(arguments) => ask(&client, None, arguments.output).await,
        UpgradeCommand::Rollback(arguments) => ask(&client, Some(Request::Rollback), arguments.output).await,
        UpgradeCommand::Abort(arguments) => ask(&client, Some(Request::Abort), arguments.output).await,
    }
}

/// Why something cannot be asked or shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no plan at all, or none of that name.
    NoUpgrade { name: Option<String> },
    /// The newest plan is over.
    NotUnderWay { name: String, state: PlanState },
}

impl Refusal {
    /// The machine-readable name.
    fn code(&self) -> &'static str {
        match self {
            Self::NoUpgrade { .. } => "NoUpgrade",
            Self::NotUnderWay { .. } => "NotUnderWay",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NoUpgrade { name: None } => "there has been no change of version in this cluster".to_owned(),
            Self::NoUpgrade { name: Some(name) } => format!("there is no UpgradePlan {name}"),
            Self::NotUnderWay { name, state } => format!(
                "no change of version is under way: the newest, {name}, is {}. To hold the next one beforehand, set \
                 spec.paused in the UpgradePolicy named default",
                state.as_str()
            ),
        }
    }

    fn print(&self, json: bool) -> anyhow::Result<ExitCode> {
        if json {
            let document = serde_json::json!({"error": {"code": self.code(), "message": self.message()}});
            crate::print(&format!("{document:#}\n"))?;
        } else {
            eprintln!("{}", self.message());
        }
        Ok(ExitCode::from(NOT_POSSIBLE))
    }
}

/// A plan by its name, or the newest.
async fn find(client: &Client, name: Option<&str>) -> anyhow::Result<Result<UpgradePlan, Refusal>> {
    let api: Api<UpgradePlan> = Api::all(client.clone());
    let found = match name {
        Some(name) => api.get_opt(name).await?,
        None => match api.list(&ListParams::default()).await {
            Ok(all) => all.items.into_iter().max_by_key(virt_operator::upgrades::number),
            // Without the definition there has been none.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(found.ok_or_else(|| Refusal::NoUpgrade { name: name.map(str::to_owned) }))
}

/// When the change will be over. Who may not read what that takes is told the rest.
async fn expected(client: &Client, plan: &UpgradePlan) -> Option<Estimate> {
    outlook(client, plan, Clock::System.now()).await.ok().flatten()
}

async fn ask(client: &Client, request: Option<Request>, output: Output) -> anyhow::Result<ExitCode> {
    let plan = match find(client, None).await? {
        Ok(plan) => plan,
        Err(refusal) => return refusal.print(output == Output::Json),
    };
    let name = plan.metadata.name.clone().unwrap_or_default();
    let state = plan.status.as_ref().map(|status| status.state).unwrap_or_default();
    if state.is_over() {
        return Refusal::NotUnderWay { name, state }.print(output == Output::Json);
    }
    ask::ask(client, &name, request).await?;
    let word = match request {
        Some(Request::Pause) => "pause",
        Some(Request::Rollback) => "rollback",
        Some(Request::Abort) => "abort",
        None => "resume",
    };
    match output {
        Output::Text => crate::print(&format!("{word} asked of {name}; virtctl upgrade watch shows what follows\n"))?,
        Output::Json => crate::print(&format!("{:#}\n", serde_json::json!({"plan": name, "asked": word})))?,
    }
    Ok(ExitCode::SUCCESS)
}
