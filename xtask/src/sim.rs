//! Builds the simulator in release and hands it the command line.

use anyhow::{Result, bail};

use crate::{paths, term};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What the simulator understands; `--help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the simulator.
///
/// # Errors
/// It could not be built, or a run was not good.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = paths::cargo();
    command.args(["run", "--quiet", "--release", "--locked", "-p", "kubevirt-sim", "--"]).args(&options.arguments);
    term::command(&format!("sim {}", options.arguments.join(" ")));
    let status = command.status()?;
    if !status.success() {
        bail!("the simulation: {status}");
    }
    Ok(())
}
