//! The command `sim`: sweeps, single runs with their trace, and the table of what was checked.

#![allow(
    clippy::disallowed_methods,
    reason = "this measures how long the machine takes; simulated time is inside the runs"
)]

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use kubevirt_sim::sweep::{self, Finished, Job, Part, Summary, percentile};
use kubevirt_sim::{Act, Outcome, series, upgrade};
use serde_json::json;

/// A third of what a run costs is taking memory and giving it back, which the system's allocator does more slowly.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Simulates installations under faults: the real operator, a simulated cluster, simulated time.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// How many seeds to draw faults from.
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only runs whose name begins so: "crash", "crash@17", "seed 12", "delete@Settled".
    #[arg(long)]
    only: Vec<String>,
    /// Print the trace of every run.
    #[arg(long)]
    trace: bool,
    /// Fail when the runs take longer than so many seconds of the machine's time.
    #[arg(long)]
    within: Option<u64>,
    /// Only this part of all runs, spread over all of them: "2/4" is the second of four. The parts together are all runs.
    #[arg(long)]
    part: Option<Part>,
    /// Play all trouble in runs of its own, whatever runs could share or stand for.
    #[arg(long)]
    apart: bool,
    /// Play each run from its beginning, not from where it parts from the others: the same runs, more slowly.
    #[arg(long)]
    from_scratch: bool,
    /// Worlds in which the version changes, instead of those in which settings do.
    #[arg(long)]
    upgrade: bool,
    /// Leave out what goes through every write.
    #[arg(long)]
    no_exhaustive: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kubevirt_runtime::process::install_crypto();
    let began = Instant::now();
    let story: &[Act] = if arguments.upgrade { &upgrade::STORY } else { &sweep::STORY };
    let reference = sweep::reference(story, arguments.trace);
    if !reference.is_good() {
        reference.findings.lines.iter().for_each(|line| println!("{line}"));
        println!("the run without trouble is not good:");
        complain(&reference);
        return ExitCode::FAILURE;
    }
    let acts: Vec<String> = reference.done.iter().map(|d| format!("{:?} after {} writes", d.act, d.writes)).collect();
    println!("reference: {} ({:.1} s)", acts.join(", "), began.elapsed().as_secs_f64());

    let apart = apart(&arguments, &reference);
    let in_series = series::joined(apart.clone(), story, &reference);
    // Asked for by name, all trouble can be had on its own.
    let mut jobs = match (arguments.apart, arguments.only.is_empty()) {
        (true, _) => apart.clone(),
        (false, true) => in_series,
        (false, false) => apart.iter().cloned().chain(in_series.into_iter().filter(Job::is_series)).collect(),
    };
    let mut all = jobs.len();
    if let Some(part) = arguments.part {
        jobs = sweep::sample(jobs, part);
        println!("part {part}: {} of {all} runs", jobs.len());
    }
    let jobs = match sweep::select(jobs, &arguments.only) {
        Ok(jobs) => jobs,
        Err(unknown) => {
            println!("{unknown}");
            return ExitCode::FAILURE;
        }
    };
    let mut total = jobs.len();
    let mut finished = match play(jobs, &reference, &arguments, began) {
        Ok(finished) => finished,
        Err(error) => return cannot(&error),
    };
    // The parts of a sweep are not known to each other.
    let is_whole =
        arguments.part.is_none() && arguments.only.is_empty() && !arguments.apart && !arguments.no_exhaustive;
    if is_whole && finished.len() == total {
        let missed = series::missed(&apart, &reference, &finished);
        println!("{} writes were struck by no run of a series and are struck in runs of their own", missed.len());
        (all, total) = (all + missed.len(), total + missed.len());
        match play(missed, &reference, &arguments, began) {
            Ok(more) => finished.extend(more),
            Err(error) => return cannot(&error),
        }
    }
    let summary = Summary::of(&finished, began);
    if arguments.upgrade {
        print_turned(&reference, &finished);
    }
    print(&summary, &finished, all);
    if finished.len() < total {
        println!("{} of {total} runs were not played, because so many had failed", total - finished.len());
        return ExitCode::FAILURE;
    }
    // U2: a table that shows rollbacks at some steps only is no proof.
    let unhit = if arguments.upgrade && is_whole { upgrade::unhit(&reference, &finished) } else { Vec::new() };
    if !unhit.is_empty() {
        println!("no change turned back at {}, although each was under way at some moment", unhit.join(", "));
        return ExitCode::FAILURE;
    }
    let limit = arguments.within.map(std::time::Duration::from_secs);
    if let Some(limit) = limit.filter(|limit| summary.wall > *limit) {
        println!("the runs took longer than the {} s they may take", limit.as_secs());
        return ExitCode::FAILURE;
    }
    if summary.good == summary.worlds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every run there is, none of which shares its trouble.
fn apart(arguments: &Arguments, reference: &Outcome) -> Vec<Job> {
    let exhaustive = |jobs: fn(&Outcome) -> Vec<Job>| if arguments.no_exhaustive { vec![] } else { jobs(reference) };
    let (first, count) = (arguments.seed, arguments.seeds);
    if arguments.upgrade {
        let written = [exhaustive(upgrade::exhaustive), exhaustive(upgrade::mischief)].concat();
        return [written, upgrade::special(reference), upgrade::seeded(first, count)].concat();
    }
    let written = [exhaustive(sweep::exhaustive), exhaustive(sweep::mischief)].concat();
    [written, sweep::special(), sweep::seeded(first, count)].concat()
}

fn cannot(error: &io::Error) -> ExitCode {
    println!("the machine does not let runs be played: {error}");
    ExitCode::FAILURE
}

/// Plays runs and tells of those that failed.
fn play(mut jobs: Vec<Job>, reference: &Outcome, arguments: &Arguments, began: Instant) -> io::Result<Vec<Finished>> {
    let (total, trace) = (jobs.len(), arguments.trace);
    for job in &mut jobs {
        job.script.keeps_lines = trace;
    }
    sweep::run_all(&jobs, reference, arguments.from_scratch, move |count, one| {
        if !one.outcome.is_good() {
            println!("[{count}/{total}] {} FAILED", one.job.name);
            if one.job.is_series() {
                println!("    each of its blows on its own: --only {}", one.job.alone());
            }
            complain(&one.outcome);
        } else if count % 100 == 0 {
            println!("[{count}/{total}] {:.0} s", began.elapsed().as_secs_f64());
        }
        if trace {
            one.outcome.findings.lines.iter().for_each(|line| println!("{} | {line}", one.job.name));
        }
    })
}

fn complain(outcome: &Outcome) {
    for struck in &outcome.findings.struck {
        println!("    struck  {struck}");
    }
    for complaint in outcome.complaints() {
        println!("    {:<4} {:>8.3} s  {}", complaint.id, complaint.at.as_secs_f64(), complaint.what);
    }
}

/// U2: how often the way back was taken at each step.
fn print_turned(reference: &Outcome, finished: &[Finished]) {
    println!("\nturned back while this step was under way, and then came to its end again");
    for (step, count) in upgrade::turned(reference, finished) {
        println!("  {step:<22}  {count:>8}");
    }
}

fn print(summary: &Summary, finished: &[Finished], all: usize) {
    println!("\nworlds, simulated         {:>8}   (of {all} that there are)", summary.worlds);
    for (class, count) in &summary.by_class {
        println!("  {class:<22}  {count:>8}");
    }
    println!("faults that struck");
    for (class, count) in &summary.struck {
        println!("  {class:<22}  {count:>8}");
    }
    println!("transitions checked");
    for (id, states) in kubevirt_sim::statements() {
        println!("  {id:<22}  {:>8}   {states}", summary.checked.get(id).unwrap_or(&0));
    }
    println!("time to converge          {:>8} {:>8}   (simulated)", "p50", "p99");
    for (act, times) in &summary.converged {
        let at = |percent| format!("{:.1} s", percentile(times, percent).as_secs_f64());
        println!("  {act:<22}  {:>8} {:>8}", at(50), at(99));
    }
    let at = |percent| format!("{:.1} s", percentile(&summary.repaired, percent).as_secs_f64());
    println!("  {:<22}  {:>8} {:>8}", "repair of one object", at(50), at(99));
    println!("wall time                 {:>7.1} s", summary.wall.as_secs_f64());
    let failed: Vec<&str> =
        finished.iter().filter(|one| !one.outcome.is_good()).map(|one| one.job.name.as_str()).collect();
    println!(
        "{} passed, {} failed{}{}",
        summary.good,
        failed.len(),
        if failed.is_empty() { "" } else { ": " },
        failed.join(", ")
    );
    let line = json!({
        "worlds": summary.worlds, "of": all, "passed": summary.good, "failed": failed, "checked": summary.checked,
        "struck": summary.struck, "wall_seconds": (summary.wall.as_secs_f64() * 10.0).round() / 10.0,
    });
    println!("{line}");
}
