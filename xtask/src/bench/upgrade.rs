//! Figures of a change of version: how virt-handler goes over the nodes, what the operator asks for that and how long its
//! planner takes, in simulated time; the operator's memory as a process of its own; see [`process`].

mod picture;
mod process;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use self::picture::{IDEAL, PLAN, REQUESTS, TOOK, Told};
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

/// What sizes are compared by.
struct Size {
    requests: f64,
    waves: f64,
}

/// Measures, draws, prints, and fails when a goal is missed.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(options: &Options) -> Result<()> {
    if !options.draw.is_empty() {
        let caption = format!("release builds; figures of {} runs of the command", options.draw.len());
        return draw(&Told::read(&options.draw)?, &caption);
    }
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
    if options.quick || !process::is_wanted(bench) {
        return Ok(());
    }
    process::measure(bench)?;
    if options.only.is_some() {
        return Ok(());
    }
    let caption =
        format!("release builds on one machine with {} processors, load {}", super::processors(), super::load());
    let told = bench.figures.iter().map(|figure| (figure.name.clone(), figure.value));
    draw(&told.collect(), &caption)
}

/// Writes the picture.
fn draw(told: &Told, caption: &str) -> Result<()> {
    let path = paths::root().join("docs").join("upgrade-figures.svg");
    std::fs::write(&path, told.draw(caption)?).with_context(|| format!("write {}", path.display()))
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
    let name = |what: &str| picture::name(nodes, what);
    let figures = [
        ("pods of virt-handler replaced", number("replaced")?, "", Goal::Exactly(f64::from(nodes))),
        ("commits at which unavailability was counted", number("commits")?, "", Goal::None),
        ("commits with more nodes unavailable than may be", exceeded, "", Goal::Exactly(0.0)),
        ("most nodes unavailable at once", number("most_unavailable")?, "", Goal::None),
        ("waves, ideally", number("waves")?, "", Goal::None),
        ("replacement of one pod, on average", number("replacement_seconds")?, "s", Goal::None),
        (IDEAL, number("ideal_seconds")?, "s", Goal::None),
        (TOOK, number("handlers_seconds")?, "s", Goal::None),
        ("the same, times the ideal", number("times_ideal")?, "", Goal::AtMost(WAVES)),
        ("time of the whole change", number("upgrade_seconds")?, "s", Goal::None),
        (REQUESTS, number("requests")?, "", Goal::None),
        ("reads among them", number("reads")?, "", Goal::None),
        ("writes of the status among them", number("statuses")?, "", Goal::None),
        ("watches opened meanwhile", number("watches")?, "", Goal::None),
        ("planner, median", number("plan_p50_ms")?, "ms", Goal::None),
        (PLAN, number("plan_p99_ms")?, "ms", Goal::Below(PLANNER)),
    ];
    for (what, value, unit, goal) in figures {
        // A plan is made by this machine, whatever time it is in the simulation.
        let label = if unit == "ms" { "in process" } else { "simulated" };
        bench.add(name(what), label, value, unit, goal);
    }
    Ok(Size { requests: number("requests")?, waves: number("waves")? })
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
