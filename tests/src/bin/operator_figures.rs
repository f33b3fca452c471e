//! What `cargo xtask bench operator` asks: an installation on simulated nodes under paused time, every request of the
//! operator counted, and then rest.
//!
//! All of it is simulated time, so it does not matter how fast the machine is. Prints one JSON object.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Parser;
use kube::api::DynamicObject;
use kubevirt_release::Kind;
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_tests::{NAMESPACE, OPERATOR, World, condition, condition_of, quiet_for, simulate, until};
use nanokube::{After, Call, Faults};
use serde_json::{Value, json};
use tokio::time::Instant;

/// As the programs have it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const VERSION: &str = "v0.1.0";
/// The last figures of a roll-out are told after a minute at the latest.
const SETTLE: Duration = Duration::from_secs(65);
/// How long rest is watched: twelve renewals of the leader's lease.
const REST: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(about = "Plays an installation in simulated time")]
struct Cli {
    /// How many nodes there are
    #[arg(long)]
    nodes: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The operator's requests.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Neither a lease's nor a watch.
    reads: u32,
    watches: u32,
    /// Those of the lease left out.
    writes: u32,
    /// Writes of the custom resource's status among them.
    statuses: u32,
    /// Writes of the lease.
    renewals: u32,
}

impl Asked {
    fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            watches: self.watches - before.watches,
            writes: self.writes - before.writes,
            statuses: self.statuses - before.statuses,
            renewals: self.renewals - before.renewals,
        }
    }
}

#[derive(Default)]
struct Counter(Mutex<Asked>);

impl Counter {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        // Numbers are whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults for Counter {
    fn after(&self, call: Call<'_>, _: u16) -> After {
        if call.user.name == OPERATOR {
            let resource = call.request.resource.as_ref();
            let is_lease = resource.is_some_and(|path| path.plural == "leases");
            let is_status = resource.is_some_and(|path| path.plural == "kubevirts" && path.subresource == "status");
            let mut asked = self.lock();
            match (call.request.is_write(), is_lease) {
                (true, true) => asked.renewals += 1,
                (true, false) => {
                    asked.writes += 1;
                    asked.statuses += u32::from(is_status);
                }
                (false, true) => {}
                (false, false) if call.request.verb == "watch" => asked.watches += 1,
                (false, false) => asked.reads += 1,
            }
        }
        After::Reply
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    kubevirt_runtime::process::install_crypto();
    let mut told = Err(anyhow!("nothing was played"));
    simulate(async { told = Ok(play(&cli).await) });
    println!("{}", told?);
    Ok(())
}

fn is(kubevirt: &Value, kind: &str, status: &str) -> bool {
    condition_of(kubevirt, kind)["status"] == status
}

async fn play(cli: &Cli) -> Value {
    let counter = Arc::new(Counter::default());
    let world = World::start_under(cli.nodes, cli.seed, Arc::clone(&counter) as Arc<dyn Faults>);
    world.apply(&operator_manifest(&ManifestOptions::new("localhost/kubevirt", VERSION))).await;
    let serves = |operator: &DynamicObject| condition(operator, "Available")["status"] == "True";
    until(&world.api(Kind::Deployment, Some(NAMESPACE)), "virt-operator", "available", serves).await;
    let began = Instant::now();
    world.apply(&[cr_manifest(NAMESPACE)]).await;
    let is_available = |kubevirt: &Value| {
        kubevirt["status"]["observedKubeVirtVersion"] == VERSION && is(kubevirt, "Available", "True")
    };
    world.kubevirt_until("available", is_available).await;
    let (took, installed) = (began.elapsed(), *counter.lock());
    let is_settled =
        |kubevirt: &Value| is(kubevirt, "Progressing", "False") && is(kubevirt, "InstancetypesReady", "True");
    world.kubevirt_until("settled", is_settled).await;
    quiet_for(SETTLE).await;
    let before = *counter.lock();
    quiet_for(REST).await;
    let rest = counter.lock().since(before);
    let Asked { reads, watches, writes, statuses, renewals: _ } = installed;
    json!({
        "nodes": cli.nodes,
        "seconds": took.as_secs_f64(),
        "requests": reads + watches + writes,
        "statuses": statuses,
        "rest_seconds": REST.as_secs(),
        "rest_writes": rest.writes,
        "rest_renewals": rest.renewals,
        "rest_reads": rest.reads + rest.watches,
    })
}
