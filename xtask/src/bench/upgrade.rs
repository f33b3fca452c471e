//! Figures of a change of version: how virt-handler goes over the nodes, what the operator asks for that and how long its
//! planner takes, in simulated time; the operator's memory as a process of its own; see [`process`].

mod process;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::chart::{Line, Panel, Scale, svg};
use super::{Bench, Goal, Options};
use crate::{paths, term};

/// The sizes; requests on the others are compared with those on 3.
const SIZES: &[u32] = &[3, 100, 1000, 5000];
/// The sizes of the small version.
const SMALL: &[u32] = &[3, 100];
/// How often the planner is asked at each of 13 moments of a roll-out.
const PLANS: &str = "20";
/// Milliseconds that 99 of 100 plans stay below.
const PLANNER: f64 = 50.0;
/// How many times what ideal waves take the waves may take.
const WAVES: f64 = 1.2;

/// What was measured at one size.
struct Size {
    took: f64,
    ideal: f64,
    requests: f64,
    waves: f64,
    plan: f64,
}

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
    let program = bench.player("upgrade-figures")?;
    let mut measured = BTreeMap::new();
    for nodes in if options.quick { SMALL } else { SIZES } {
        if bench.wants(&format!("{nodes} nodes")) {
            measured.insert(*nodes, size(bench, &program, *nodes)?);
        }
    }
    compare(bench, &measured);
    let mut memory = None;
    if !options.quick && process::is_wanted(bench) {
        memory = Some(process::measure(bench)?);
    }
    if let Some(memory) = memory.filter(|_| !options.quick && options.only.is_none()) {
        let path = paths::root().join("docs").join("upgrade-figures.svg");
        std::fs::write(&path, picture(&measured, &memory)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn size(bench: &mut Bench<'_>, program: &Path, nodes: u32) -> Result<Size> {
    bench.heading(&format!("{nodes} simulated nodes change version"));
    let count = nodes.to_string();
    let told = bench.told_by(program, &["--nodes", &count, "--plans", PLANS])?;
    let number = |name: &str| told[name].as_f64().with_context(|| format!("no figure {name}"));
    let exceeded = told["exceeded"].as_array().context("no list of what exceeded")?;
    if bench.talks() {
        exceeded.iter().for_each(|what| term::note(&what.to_string()));
    }
    let exceeded = f64::from(u32::try_from(exceeded.len()).unwrap_or(u32::MAX));
    let name = |what: &str| format!("{nodes} nodes: {what}");
    let figures = [
        ("pods of virt-handler replaced", number("replaced")?, "", Goal::Exactly(f64::from(nodes))),
        ("commits at which unavailability was counted", number("commits")?, "", Goal::None),
        ("commits with more nodes unavailable than may be", exceeded, "", Goal::Exactly(0.0)),
        ("most nodes unavailable at once", number("most_unavailable")?, "", Goal::None),
        ("waves, ideally", number("waves")?, "", Goal::None),
        ("replacement of one pod, on average", number("replacement_seconds")?, "s", Goal::None),
        ("ideal time of virt-handler's roll-out", number("ideal_seconds")?, "s", Goal::None),
        ("time of virt-handler's roll-out", number("handlers_seconds")?, "s", Goal::None),
        ("the same, times the ideal", number("times_ideal")?, "", Goal::AtMost(WAVES)),
        ("time of the whole change", number("upgrade_seconds")?, "s", Goal::None),
        ("operator's requests for it", number("requests")?, "", Goal::None),
        ("reads among them", number("reads")?, "", Goal::None),
        ("writes of the status among them", number("statuses")?, "", Goal::None),
        ("watches opened meanwhile", number("watches")?, "", Goal::None),
        ("planner, median", number("plan_p50_ms")?, "ms", Goal::None),
        ("planner, 99 of 100", number("plan_p99_ms")?, "ms", Goal::Below(PLANNER)),
    ];
    for (what, value, unit, goal) in figures {
        // A plan is made by this machine, whatever time it is in the simulation.
        let label = if unit == "ms" { "in process" } else { "simulated" };
        bench.add(name(what), label, value, unit, goal);
    }
    Ok(Size {
        took: number("handlers_seconds")?,
        ideal: number("ideal_seconds")?,
        requests: number("requests")?,
        waves: number("waves")?,
        plan: number("plan_p99_ms")?,
    })
}

/// Requests of each larger cluster against those on three nodes: one more for each further wave.
fn compare(bench: &mut Bench<'_>, measured: &BTreeMap<u32, Size>) {
    let Some(three) = measured.get(&3) else { return };
    for (nodes, size) in measured.range(4..) {
        let name = format!("{nodes} nodes: requests more than on 3");
        let more = size.requests - three.requests;
        bench.add(name, "simulated", more, "", Goal::AtMost(size.waves - three.waves));
    }
}

fn picture(measured: &BTreeMap<u32, Size>, memory: &process::Memory) -> String {
    let of = |value: fn(&Size) -> f64| -> Vec<(f64, f64)> {
        measured.iter().map(|(nodes, size)| (f64::from(*nodes), value(size))).collect()
    };
    let label = "simulated nodes and time";
    let panels = [
        Panel {
            title: "Time of virt-handler's roll-out",
            label,
            axis: "seconds",
            scale: Scale::Linear,
            lines: vec![
                Line { name: "taken", points: of(|size| size.took) },
                Line { name: "ideal", points: of(|size| size.ideal) },
            ],
            bounds: Vec::new(),
        },
        Panel {
            title: "The operator's requests for a change of version",
            label,
            axis: "requests",
            scale: Scale::Linear,
            lines: vec![Line { name: "", points: of(|size| size.requests) }],
            bounds: Vec::new(),
        },
        Panel {
            title: "The planner, 99 of 100 plans",
            label: "time of this machine, at 13 moments of a roll-out",
            axis: "milliseconds",
            scale: Scale::Linear,
            lines: vec![Line { name: "", points: of(|size| size.plan) }],
            bounds: vec![(PLANNER, "goal")],
        },
        Panel {
            title: "The operator's memory, most ever (VmHWM)",
            label: "as a process, over HTTPS; the nodes are simulated",
            axis: "megabytes",
            scale: Scale::Linear,
            lines: vec![Line { name: "", points: memory.points() }],
            bounds: vec![(process::MOST, "goal on 5,000 nodes")],
        },
    ];
    let caption =
        format!("release builds on one machine with {} processors, load {}", super::processors(), super::load());
    svg("virt-operator: what a change of version costs", &panels, &caption)
}
