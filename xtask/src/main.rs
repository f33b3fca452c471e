//! The project's own tasks: demo, test, release, bench, tidy. Contracts: README.md, "Commands".

#![allow(
    clippy::disallowed_methods,
    reason = "xtask runs on the machine of a person or of CI; nothing of it is simulated"
)]

mod audit;
mod bench;
mod demo;
mod guest;
mod helm;
mod nanokube;
mod oci;
mod paths;
mod release;
mod setup;
mod sim;
mod term;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the kubevirt-rs repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install a release, then a newer operator, then upgrade: the main job from start to end, on simulated nodes
    Demo(demo::Options),
    /// One real guest under libvirt, moved between the two releases' pairs and back
    Guest(guest::Options),
    /// Everything CI runs: format, lints, architecture, tests, release, demo
    Test(test::Options),
    /// Write a release: manifests, images, checksums
    Release(release::Options),
    /// Simulate installations under faults: every write, many seeds; see docs/testing.md
    Sim(sim::Options),
    /// Measure a part of the system against its goals
    Bench(bench::Options),
    /// Check the invariants of ARCHITECTURE.md
    Tidy {
        /// The tree to check
        #[arg(long, default_value_os_t = paths::root())]
        root: PathBuf,
    },
}

impl Task {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(options) => demo::run(&options),
            Self::Guest(options) => guest::run(&options),
            Self::Test(options) => test::run(&options),
            Self::Release(options) => release::run(&options),
            Self::Sim(options) => sim::run(&options),
            Self::Bench(options) => bench::run(&options),
            Self::Tidy { root } => tidy::run(&root),
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", term::red("error:"));
            ExitCode::FAILURE
        }
    }
}
