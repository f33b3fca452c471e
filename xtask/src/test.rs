//! Everything CI runs, stage by stage, with the time each took and what was skipped.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;

use crate::{Cli, guest, helm, paths, setup, term};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only the stages whose name contains this
    #[arg(long)]
    only: Option<String>,
}

struct Stage {
    name: &'static str,
    what: &'static str,
    /// Why this machine cannot run it.
    lacks: fn() -> Option<String>,
    run: fn() -> Result<()>,
}

/// For stages that every machine can run.
const NOTHING: fn() -> Option<String> = || None;

const STAGES: &[Stage] = &[
    Stage { name: "setup", what: "the machine has what the work needs", lacks: NOTHING, run: setup::run },
    Stage { name: "format", what: "cargo fmt --check", lacks: NOTHING, run: || cargo(&["fmt", "--all", "--check"]) },
    Stage {
        name: "lints",
        what: "cargo clippy, warnings are errors",
        lacks: NOTHING,
        run: || cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    },
    Stage {
        name: "tests",
        what: "cargo test --workspace (tidy among them)",
        lacks: NOTHING,
        run: || cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]),
    },
    Stage {
        name: "helm",
        what: "the real Helm installs, upgrades, rolls back and removes a chart on nanokube",
        lacks: helm::unavailable,
        // The features of the stage before, so that nothing is built anew.
        run: || cargo(&["test", "--workspace", "--locked", "--test", "helm", "--", "--ignored"]),
    },
    Stage {
        name: "release",
        what: "a whole release, images included, and its checksums",
        lacks: NOTHING,
        run: release,
    },
    Stage {
        name: "bench",
        what: "nanokube's throughput, latency, start and memory, and a change of version, against their goals",
        lacks: NOTHING,
        run: bench,
    },
    Stage {
        name: "simulation",
        what: "the operator under faults and third parties, installed, configured, upgraded, undone and uninstalled",
        lacks: NOTHING,
        run: simulation,
    },
    Stage {
        name: "demo",
        what: "install, upgrade, undo a bad release, repair and uninstall with kubectl, under three minutes",
        lacks: NOTHING,
        run: || demo(&[]),
    },
    Stage {
        name: "nodes-apart",
        what: "the same with nodes in a program of their own, which reach the server over HTTPS",
        lacks: NOTHING,
        run: || demo(&["--remote-nodes"]),
    },
    Stage {
        name: "processes",
        what: "the same with pods that are processes of two builds; an upgrade may take 3 s beyond what its pods need",
        lacks: NOTHING,
        run: || {
            // Before the clock runs.
            crate::demo::programs()?;
            demo(&["--process", "--hold-to-goal"])
        },
    },
    Stage {
        name: "guest",
        what: "a real guest under libvirt, moved between the releases' pairs; every case of the suite",
        lacks: guest::unavailable,
        run: real_guest,
    },
];

/// Runs the stages in order and stops at none: the last lines say everything.
///
/// # Errors
/// At least one stage failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (mut rows, mut passed, mut failed, mut skipped) = (Vec::new(), 0, 0, 0);
    for Stage { name, what, lacks, run } in STAGES {
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            skipped += 1;
            rows.push(vec![(*name).to_owned(), "skipped".into(), "-".into(), "not asked for (--only)".into()]);
            continue;
        }
        if let Some(why) = lacks() {
            skipped += 1;
            rows.push(vec![(*name).to_owned(), "SKIPPED".into(), "-".into(), why]);
            continue;
        }
        term::heading(&format!("{name}: {what}"));
        let started = Instant::now();
        let outcome = run();
        let took = format!("{:.0} s", started.elapsed().as_secs_f64());
        let (verdict, detail) = match &outcome {
            Ok(()) => ("passed", (*what).to_owned()),
            Err(error) => ("FAILED", format!("{error:#}")),
        };
        if outcome.is_ok() {
            passed += 1;
        } else {
            failed += 1;
        }
        rows.push(vec![(*name).to_owned(), verdict.to_owned(), took, detail]);
    }
    term::heading("Result");
    term::table(&["STAGE", "VERDICT", "TIME", "WHAT"], &rows);
    if skipped == 0 {
        println!("  nothing was skipped");
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} of {} stages failed", STAGES.len());
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    finish(paths::cargo().args(args), &format!("cargo {}", args.join(" ")))
}

fn finish(command: &mut Command, shown: &str) -> Result<()> {
    term::command(shown);
    let status = command.status()?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Does what a person would ask of this program, in this process: why a task failed belongs in the last lines of the run.
fn xtask(args: &[&str]) -> Result<()> {
    let shown = format!("cargo xtask {}", args.join(" "));
    term::command(&shown);
    let asked = Cli::try_parse_from([&["xtask"], args].concat()).with_context(|| format!("understand {shown}"))?;
    asked.task.run().with_context(|| shown)
}

fn release() -> Result<()> {
    let out = paths::target()?.join("test-release");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let place = out.to_string_lossy().into_owned();
    xtask(&["release", "--version", "v0.1.0", "--out", &place])?;
    xtask(&["release", "--version", "v0.2.0", "--out", &place])?;
    finish(
        Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(out.join("v0.2.0")),
        "sha256sum --check SHA256SUMS",
    )?;
    let latest = std::fs::read_to_string(Path::new(&place).join("latest"))?;
    if latest.trim() != "v0.2.0" {
        bail!("`latest` says {latest:?}, not v0.2.0");
    }
    Ok(())
}

/// Every fault at every write, every object and 40 seeds, the same each time: a change is told apart from a run that nobody has
/// played before. Then the worlds in which the version changes.
fn simulation() -> Result<()> {
    /// Five minutes are the goal, which each table's wall time is held against. A machine whose processors others use, too,
    /// gets twice that before the stage fails: slowness of the machine is no fault of a change.
    const WITHIN: &str = "600";
    let common = ["sim", "--seeds", "40", "--within", WITHIN];
    xtask(&common)?;
    xtask(&[&common[..], &["--upgrade"]].concat())
}

/// The small version. The release build has just compiled nearly all of what it needs.
fn bench() -> Result<()> {
    xtask(&["bench", "nanokube", "--quick"])?;
    xtask(&["bench", "upgrade", "--quick"])
}

fn real_guest() -> Result<()> {
    /// The issue's own limit, without the build.
    const LIMIT_SECONDS: u64 = 360;
    xtask(&["guest", "--build-only", "--required"])?;
    // What it says about libvirt's and QEMU's words is compiled with the library only, which now is there.
    // So is the workspace's only unsafe code.
    const LIBVIRT: [&str; 3] =
        ["--package=kubevirt-hypervisor", "--package=kubevirt-guest", "--features=kubevirt-guest/libvirt"];
    cargo(&[&["clippy", "--quiet", "--all-targets"][..], &LIBVIRT, &["--", "--deny", "warnings"]].concat())?;
    cargo(&[&["test", "--quiet", "--lib"][..], &LIBVIRT, &["libvirt::"]].concat())?;
    let started = Instant::now();
    xtask(&["guest", "--required"])?;
    let took = started.elapsed().as_secs();
    if took >= LIMIT_SECONDS {
        bail!("the guest stage took {took} s; it must stay below {LIMIT_SECONDS} s");
    }
    Ok(())
}

fn demo(options: &[&str]) -> Result<()> {
    /// Without the build. It takes some 80 s on an idle machine, three changes of version of 15 to 20 s among them.
    const LIMIT_SECONDS: u64 = 180;
    // Built beforehand, so that the clock measures the demo and not the compiler.
    cargo(&["build", "--package", "nanokube-cli", "--package", "virtctl"])?;
    let started = Instant::now();
    xtask(&[&["demo"], options].concat())?;
    let took = started.elapsed().as_secs();
    if took >= LIMIT_SECONDS {
        bail!("the demo took {took} s; it must stay below {LIMIT_SECONDS} s");
    }
    Ok(())
}
