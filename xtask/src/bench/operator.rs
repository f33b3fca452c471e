//! The operator's figures: time, requests and quiet on simulated nodes of several numbers; memory and quiet as a process.
//!
//! On simulated nodes everything runs in nanokube's process, so requests are counted in its audit log and memory says
//! nothing. Where pods are processes the operator is what it is in a cluster; see [`process`].

mod asked;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::asked::{since, together};
use self::process::Process;
use super::chart::{Line, Panel, Scale, svg};
use super::{Bench, Goal, Kubectl, Options, VERSION};
use crate::nanokube::Running;
use crate::{paths, release};

/// The sizes, as the issue names them; 3 is what the requests of the others are compared with. Those of a line rest
/// beside each other.
const SIZES: [&[u32]; 3] = [&[1, 3, 10, 100], &[1000], &[5000]];
/// The sizes of the small version.
const SMALL: [&[u32]; 1] = [&[1, 3, 10]];
/// A cluster rests when the operator has written nothing but its lease for this long.
const SETTLE: Duration = Duration::from_secs(10);
/// How often that is looked at: the last figures of a long roll-out are told after a minute at the latest.
const LOOKS: u32 = 12;
/// How long rest is watched: six renewals of the leader's lease.
const REST: Duration = Duration::from_secs(30);
/// The operator's requests for an installation on 3 nodes.
const REQUESTS: f64 = 250.0;
/// How many times what 3 nodes took any larger cluster may take.
const GROWTH: f64 = 1.1;
/// The leader renews every five seconds.
const RENEWALS: f64 = 12.0;

/// Measures, draws, prints, and fails when a goal is missed.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(options: &Options) -> Result<()> {
    let mut bench = Bench::new(options)?;
    bench.build()?;
    let lines: &[&[u32]] = if options.quick { &SMALL } else { &SIZES };
    // It has to run for some minutes; meanwhile the small clusters are measured, which take next to no processor time.
    let process = if bench.wants(process::NAME) { Some(Process::start(&mut bench)?) } else { None };
    let mut measured = BTreeMap::new();
    let mut memory = Vec::new();
    let mut lines = lines.iter();
    if let Some(small) = lines.next() {
        sizes(&mut bench, small, &mut measured)?;
    }
    if let Some(process) = process {
        memory = process.measure(&mut bench, options.quick)?;
    }
    for large in lines {
        sizes(&mut bench, large, &mut measured)?;
    }
    compare(&mut bench, &measured);
    if !options.quick && options.only.is_none() {
        let path = paths::root().join("docs").join("operator-figures.svg");
        std::fs::write(&path, picture(&measured, &memory)).with_context(|| format!("write {}", path.display()))?;
    }
    bench.report()
}

/// What was measured at one size.
struct Size {
    seconds: f64,
    requests: f64,
}

/// Requests of each larger cluster against those on three nodes.
fn compare(bench: &mut Bench<'_>, measured: &BTreeMap<u32, Size>) {
    let Some(three) = measured.get(&3) else { return };
    for (nodes, size) in measured.range(4..) {
        let name = format!("{nodes} nodes: requests, times those on 3");
        bench.add(name, "simulated", size.requests / three.requests, "", Goal::AtMost(GROWTH));
    }
}

fn picture(measured: &BTreeMap<u32, Size>, memory: &[process::Memory]) -> String {
    let of = |value: fn(&Size) -> f64| -> Vec<(f64, f64)> {
        measured.iter().map(|(nodes, size)| (f64::from(*nodes), value(size))).collect()
    };
    let resident = |value: fn(&process::Memory) -> f64| -> Vec<(f64, f64)> {
        memory.iter().map(|at| (f64::from(at.nodes), value(at))).collect()
    };
    let most = measured.get(&3).map_or(REQUESTS, |three| three.requests * GROWTH);
    let panels = [
        Panel {
            title: "Time from the custom resource to available",
            label: "simulated nodes, everything in one process",
            axis: "seconds (logarithmic)",
            scale: Scale::Logarithmic,
            lines: vec![Line { name: "", points: of(|size| size.seconds) }],
            bounds: Vec::new(),
        },
        Panel {
            title: "The operator's requests for an installation",
            label: "simulated nodes; renewals of the lease left out",
            axis: "requests",
            scale: Scale::Linear,
            lines: vec![Line { name: "", points: of(|size| size.requests) }],
            bounds: vec![(REQUESTS, "goal on 3 nodes"), (most, "1.1 times what 3 nodes took")],
        },
        Panel {
            title: "The operator's memory (VmRSS)",
            label: "as a process, over HTTPS; nodes beyond 3 are simulated",
            axis: "megabytes",
            scale: Scale::Linear,
            lines: vec![
                Line { name: "leader", points: resident(|at| at.leader) },
                Line { name: "standby", points: resident(|at| at.standby) },
            ],
            bounds: vec![(process::LEADER, "goal of the leader"), (process::STANDBY, "goal of the standby")],
        },
    ];
    let caption =
        format!("release builds on one machine with {} processors, load {}", super::processors(), super::load());
    svg("virt-operator: what an installation costs", &panels, &caption)
}

/// The release's manifests.
fn manifests(bench: &Bench<'_>) -> Result<PathBuf> {
    let dist = bench.scratch.join("dist");
    release::write(&release::Options::manifests_only(VERSION, &dist))?;
    Ok(dist.join(VERSION))
}

/// Installs the suite; gives the time from the custom resource to available.
fn install(kubectl: &Kubectl<'_>, manifests: &Path) -> Result<Duration> {
    kubectl.apply(&manifests.join("kubevirt-operator.yaml"))?;
    kubectl.wait("deployment/virt-operator", "condition=Available")?;
    let applied = Instant::now();
    kubectl.apply(&manifests.join("kubevirt-cr.yaml"))?;
    kubectl.wait("kubevirt/kubevirt", "condition=Available")?;
    Ok(applied.elapsed())
}

/// A cluster on which the suite is installed.
struct Installed {
    nodes: u32,
    /// Kept running.
    _server: Running,
    log: PathBuf,
    /// Where its audit log ended when it came to rest.
    end: u64,
}

/// Installs on clusters of some sizes, one after the other, and then watches all of them rest.
fn sizes(bench: &mut Bench<'_>, sizes: &[u32], measured: &mut BTreeMap<u32, Size>) -> Result<()> {
    let mut clusters = Vec::new();
    for nodes in sizes {
        if bench.wants(&named(*nodes)) {
            let (cluster, size) = size(bench, *nodes)?;
            clusters.push(cluster);
            measured.insert(*nodes, size);
        }
    }
    if clusters.is_empty() {
        return Ok(());
    }
    for _ in 0..LOOKS {
        bench.sleep(SETTLE, "until they rest");
        let mut written = 0;
        for cluster in &mut clusters {
            let (pods, end) = since(&cluster.log, cluster.end)?;
            cluster.end = end;
            let asked = together(&pods);
            written += asked.writes - asked.renewals;
        }
        if written == 0 {
            break;
        }
    }
    bench.sleep(REST, "at rest");
    for cluster in &clusters {
        rest(bench, cluster)?;
    }
    Ok(())
}

fn named(nodes: u32) -> String {
    format!("{nodes} {}", if nodes == 1 { "node" } else { "nodes" })
}

fn size(bench: &mut Bench<'_>, nodes: u32) -> Result<(Installed, Size)> {
    bench.heading(&format!("{} simulated", named(nodes)));
    let log = bench.scratch.join(format!("audit-{nodes}.log"));
    let (server, kubeconfig) = bench.up(nodes, &["--audit-log", &log.display().to_string()])?;
    bench.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &nodes.to_string()])?;
    let manifests = manifests(bench)?;
    let kubectl = Kubectl { bench, kubeconfig: &kubeconfig };
    let before = server.processor()?;
    let took = install(&kubectl, &manifests)?;
    let worked = server.processor()? - before;
    let (pods, end) = since(&log, 0)?;
    let asked = together(&pods);

    let name = |what: &str| format!("{}: {what}", named(nodes));
    let requests = f64::from(asked.all - asked.renewals - asked.lease_reads);
    // On more nodes they are held against those on three.
    let goal = if nodes <= 3 { Goal::AtMost(REQUESTS) } else { Goal::None };
    let seconds = took.as_secs_f64();
    bench.add(name("custom resource to available"), "simulated", seconds, "s", Goal::None);
    bench.add(name("processor time of the whole cluster for that"), "simulated", worked, "s", Goal::None);
    bench.add(name("operator's requests for the installation"), "simulated", requests, "", goal);
    bench.add(name("writes of the status among them"), "simulated", f64::from(asked.statuses), "", Goal::None);
    Ok((Installed { nodes, _server: server, log, end }, Size { seconds, requests }))
}

fn rest(bench: &mut Bench<'_>, cluster: &Installed) -> Result<()> {
    let resting = together(&since(&cluster.log, cluster.end)?.0);
    let per_minute = |count: u32| f64::from(count) * 60.0 / REST.as_secs_f64();
    let name = |what: &str| format!("{}: {what}", named(cluster.nodes));
    let writes = per_minute(resting.writes - resting.renewals);
    bench.add(name("writes per minute at rest, lease aside"), "simulated", writes, "", Goal::Exactly(0.0));
    let renewals = per_minute(resting.renewals);
    bench.add(name("renewals of the lease per minute at rest"), "simulated", renewals, "", Goal::AtMost(RENEWALS));
    let reads = per_minute(resting.all - resting.writes);
    bench.add(name("reads and watches per minute at rest"), "simulated", reads, "", Goal::None);
    Ok(())
}
