//! The operator's figures: time, requests and quiet on simulated nodes of several numbers; memory and quiet as a process.
//!
//! Simulated nodes are in simulated time, see `operator-figures` in `tests`. Where pods are processes the operator is what it
//! is in a cluster; see [`process`].

mod asked;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::process::Process;
use super::chart::{Line, Panel, Scale, svg};
use super::{Bench, Goal, Kubectl, Options, VERSION};
use crate::{paths, release};

/// The sizes, as the issue names them; 3 is what the requests of the others are compared with.
const SIZES: &[u32] = &[1, 3, 10, 100, 1000, 5000];
/// The sizes of the small version.
const SMALL: &[u32] = &[1, 3, 10];
/// The operator's requests for an installation on 3 nodes.
const REQUESTS: f64 = 250.0;
/// How many times what 3 nodes took any larger cluster may take.
const GROWTH: f64 = 1.1;
/// From so many nodes on they are measured when nothing else is.
const MANY: u32 = 100;
/// The leader renews every five seconds.
const RENEWALS: f64 = 12.0;

/// Measures, draws, prints, and fails when a goal is missed.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(options: &Options) -> Result<()> {
    let mut bench = Bench::new(options)?;
    let measured = measure(&mut bench, options);
    bench.end(measured)
}

fn measure(bench: &mut Bench<'_>, options: &Options) -> Result<()> {
    bench.build()?;
    let program = bench.player("operator-figures")?;
    // It has to run for some minutes; meanwhile the small clusters are measured.
    let process = if bench.wants(process::NAME) { Some(Process::start(bench)?) } else { None };
    let (few, many): (Vec<u32>, Vec<u32>) =
        if options.quick { SMALL } else { SIZES }.iter().partition(|nodes| **nodes < MANY);
    let mut measured = BTreeMap::new();
    sizes(bench, &program, &few, &mut measured)?;
    let memory = process.map(|process| process.measure(bench, options.quick)).transpose()?.unwrap_or_default();
    sizes(bench, &program, &many, &mut measured)?;
    compare(bench, &measured);
    if !options.quick && options.only.is_none() {
        let path = paths::root().join("docs").join("operator-figures.svg");
        std::fs::write(&path, picture(&measured, &memory)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
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
            label: "simulated nodes and time",
            axis: "seconds (logarithmic)",
            scale: Scale::Logarithmic,
            lines: vec![Line { name: "", points: of(|size| size.seconds) }],
            bounds: Vec::new(),
        },
        Panel {
            title: "The operator's requests for an installation",
            label: "simulated nodes and time; those about leases left out",
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

fn sizes(bench: &mut Bench<'_>, program: &Path, sizes: &[u32], measured: &mut BTreeMap<u32, Size>) -> Result<()> {
    for nodes in sizes {
        if bench.wants(&named(*nodes)) {
            measured.insert(*nodes, size(bench, program, *nodes)?);
        }
    }
    Ok(())
}

fn named(nodes: u32) -> String {
    format!("{nodes} {}", if nodes == 1 { "node" } else { "nodes" })
}

fn size(bench: &mut Bench<'_>, program: &Path, nodes: u32) -> Result<Size> {
    bench.heading(&format!("{} simulated", named(nodes)));
    let count = nodes.to_string();
    let began = Instant::now();
    let told = bench.told_by(program, &["--nodes", &count])?;
    let played = began.elapsed().as_secs_f64();
    let number = |name: &str| told[name].as_f64().with_context(|| format!("no figure {name}"));
    let (seconds, requests) = (number("seconds")?, number("requests")?);
    let per_minute = |count: f64| -> Result<f64> { Ok(count * 60.0 / number("rest_seconds")?) };
    // On more nodes they are held against those on three.
    let goal = if nodes <= 3 { Goal::AtMost(REQUESTS) } else { Goal::None };
    let name = |what: &str| format!("{}: {what}", named(nodes));
    bench.add(name("custom resource to available"), "simulated", seconds, "s", Goal::None);
    bench.add(name("operator's requests for the installation"), "simulated", requests, "", goal);
    bench.add(name("writes of the status among them"), "simulated", number("statuses")?, "", Goal::None);
    let writes = per_minute(number("rest_writes")?)?;
    bench.add(name("writes per minute at rest, lease aside"), "simulated", writes, "", Goal::Exactly(0.0));
    let renewals = per_minute(number("rest_renewals")?)?;
    bench.add(name("renewals of the lease per minute at rest"), "simulated", renewals, "", Goal::AtMost(RENEWALS));
    let reads = per_minute(number("rest_reads")?)?;
    bench.add(name("reads and watches per minute at rest"), "simulated", reads, "", Goal::None);
    bench.add(name("time this machine took to play it"), "in process", played, "s", Goal::None);
    Ok(Size { seconds, requests })
}
