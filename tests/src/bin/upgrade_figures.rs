//! What `cargo xtask bench upgrade` asks: a change of version on simulated nodes under paused time, watched at every
//! commit, and how long the planner takes for it at moments all over the roll-out.
//!
//! Everything but the planner is measured in simulated time, so it does not matter how fast the machine is. Prints one
//! JSON object, and before that on standard error how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser;
use kube::api::{Patch, PatchParams};
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::{Kind, Object};
use kubevirt_tests::rolling::{Rolled, Rolling, ideal_waves};
use kubevirt_tests::{NAMESPACE, World, condition_of, quiet_for, simulate, until};
use serde_json::{Value, json};
use virt_operator::preview;
use virt_operator::settings::Settings;
use virt_operator::watches;

/// As the programs have it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";
/// After a failure of the server a person asks again, a few times.
const TRIES: u32 = 10;
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// Another program on this machine can only slow a plan down: the fastest of so many counts as one.
const ROUNDS: u32 = 3;

#[derive(Parser)]
#[command(about = "Plays a change of version in simulated time")]
struct Cli {
    /// How many nodes there are
    #[arg(long)]
    nodes: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often the planner is asked at each moment; 0 asks it never
    #[arg(long, default_value_t = 0)]
    plans: u32,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    kubevirt_runtime::process::install_crypto();
    let mut outcome = Err(anyhow!("nothing was played"));
    simulate(async { outcome = play(&cli).await });
    println!("{}", outcome?);
    Ok(())
}

fn operator(version: &str) -> Vec<Object> {
    operator_manifest(&ManifestOptions::new("localhost/kubevirt", version))
}

fn is_settled(kubevirt: &Value, version: &str) -> bool {
    kubevirt["status"]["observedKubeVirtVersion"] == version
        && condition_of(kubevirt, "Available")["status"] == "True"
        && condition_of(kubevirt, "Progressing")["status"] == "False"
}

async fn play(cli: &Cli) -> Result<Value> {
    let rolling = Arc::new(Rolling::default());
    let world = World::start_watched(cli.nodes, cli.seed, &rolling);
    world.apply(&operator(OLD)).await;
    world.apply(&[cr_manifest(NAMESPACE)]).await;
    let beside = |kubevirt: &Value| condition_of(kubevirt, "InstancetypesReady")["status"] == "True";
    world.kubevirt_until("installed", |kubevirt| is_settled(kubevirt, OLD) && beside(kubevirt)).await;
    eprintln!("{OLD} runs on {} nodes", cli.nodes);
    world.patch_kubevirt(json!({"imageTag": OLD})).await;
    world.apply(&operator(NEW)).await;
    world.kubevirt_until("served by the new operator", |kubevirt| kubevirt["status"]["operatorVersion"] == NEW).await;
    world.kubevirt_until("at rest", |kubevirt| is_settled(kubevirt, OLD)).await;
    eprintln!("the operator of {NEW} serves");

    let mut plans = Vec::new();
    rolling.begin(NEW);
    let began = tokio::time::Instant::now();
    ask(&world).await?;
    if cli.plans > 0 {
        // Before anything has moved, at the first pod, and then at every tenth of the nodes.
        let tenths = (1..=10).map(|tenth| cli.nodes * tenth / 10);
        for moment in [0, 1].into_iter().chain(tenths) {
            rolling.reaches(moment).await;
            plan(&world, cli.plans, &mut plans).await?;
            eprintln!("{moment} nodes have it; the slowest plan so far: {:?}", plans.iter().max());
        }
    }
    let is_over = |plan: &kube::api::DynamicObject| plan.data["status"]["state"] == "Succeeded";
    let record = until(&world.api(Kind::UpgradePlan, None), "upgrade-1", "over", is_over).await;
    world.kubevirt_until("upgraded", |kubevirt| is_settled(kubevirt, NEW)).await;
    let took = began.elapsed();
    eprintln!("{NEW} runs");
    if cli.plans > 0 {
        plan(&world, cli.plans, &mut plans).await?;
    }
    let rolled = rolling.end();
    ensure!(rolled.nodes == cli.nodes, "{} of {} nodes had virt-handler to begin with", rolled.nodes, cli.nodes);
    Ok(told(&rolled, took, plans, &record.data))
}

/// Names the new version. A webhook that was called at an operator that has just gone fails the request; a person asks again.
async fn ask(world: &World) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"imageTag": NEW}}));
    for _ in 0..TRIES {
        match world.kubevirts("v1").patch("kubevirt", &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code >= 500 => quiet_for(ASK_AGAIN).await,
            answer => return Ok(answer.map(drop)?),
        }
    }
    Err(anyhow!("the new version could not be asked for"))
}

/// Reads the cluster as it is at this moment, and plans so many times what is still to be done.
async fn plan(world: &World, times: u32, plans: &mut Vec<Duration>) -> Result<()> {
    let seen = watches::look(&world.client, NAMESPACE, &[Kind::Secret]).await?;
    let settings = settings()?;
    for _ in 0..times {
        let mut fastest = Duration::MAX;
        for _ in 0..ROUNDS {
            let seen = seen.clone();
            #[allow(clippy::disallowed_methods, reason = "this measures how long the machine takes")]
            let began = Instant::now();
            let planned = preview::plan(seen, &settings, NEW)?;
            fastest = fastest.min(began.elapsed());
            ensure!(!planned.0.steps().is_empty(), "a plan without steps is no plan");
        }
        plans.push(fastest);
    }
    Ok(())
}

/// What the new operator was started with.
fn settings() -> Result<Settings> {
    let deployment = operator(NEW).into_iter().find(|object| object.kind() == Kind::Deployment);
    let deployment = deployment.context("the operator is a Deployment")?;
    let environment = deployment.at("/spec/template/spec/containers/0/env").and_then(Value::as_array);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pairs = environment.into_iter().flatten().filter_map(|it| Some((text(&it["name"])?, text(&it["value"])?)));
    Ok(Settings::new(NAMESPACE.to_owned(), pairs.collect())?)
}

fn told(rolled: &Rolled, took: Duration, mut plans: Vec<Duration>, record: &Value) -> Value {
    plans.sort();
    let milliseconds = |percent: usize| {
        let last = plans.len().checked_sub(1)?;
        Some(plans[last * percent / 100].as_secs_f64() * 1000.0)
    };
    let ideal = rolled.ideal();
    json!({
        "nodes": rolled.nodes,
        "replaced": rolled.replaced,
        "commits": rolled.commits,
        "most_unavailable": rolled.most_unavailable,
        "exceeded": rolled.exceeded,
        "waves": ideal_waves(rolled.nodes),
        "handlers_seconds": rolled.took.as_secs_f64(),
        "ideal_seconds": ideal.as_secs_f64(),
        "times_ideal": rolled.took.as_secs_f64() / ideal.as_secs_f64(),
        "replacement_seconds": rolled.others.as_secs_f64(),
        "upgrade_seconds": took.as_secs_f64(),
        "requests": rolled.asked.requests,
        "reads": rolled.asked.reads,
        "statuses": rolled.asked.statuses,
        "watches": rolled.asked.watches,
        "plans": plans.len(),
        "plan_p50_ms": milliseconds(50),
        "plan_p99_ms": milliseconds(99),
        "plan_max_ms": milliseconds(100),
        "steps": record["status"]["steps"].as_array().map(Vec::len),
    })
}
