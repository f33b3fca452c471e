//! virtctl: the command line for KubeVirt.
//!
//! Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 what was asked for cannot be done in this cluster as it is;
//! 4 the change of version that was watched ended otherwise than hoped for: undone, aborted, superseded.

mod cluster;
mod table;
mod uninstall;
mod upgrade;
mod version;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

/// What was asked for cannot be done in this cluster as it is; nothing is broken.
const NOT_POSSIBLE: u8 = 3;

/// The change of version that was watched did not come about; nothing is broken.
const ENDED_OTHERWISE: u8 = 4;

/// Controls virtual machines and the KubeVirt installation
#[derive(Parser, Debug)]
#[command(name = "virtctl", version)]
struct Arguments {
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the version of this program and of the installation
    Version(version::VersionArgs),
    /// Plan a change of version, look at it, hold it, take it back
    #[command(subcommand)]
    Upgrade(upgrade::UpgradeCommand),
    /// Look at a removal beforehand
    #[command(subcommand)]
    Uninstall(uninstall::UninstallCommand),
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

fn main() -> ExitCode {
    let Arguments { cluster, command } = Arguments::parse();
    kubevirt_runtime::process::install_crypto();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Version(arguments) => version::run(&cluster, &arguments).await,
            Command::Upgrade(command) => upgrade::run(&cluster, &command).await,
            Command::Uninstall(command) => uninstall::run(&cluster, &command).await,
        }
    });
    done.unwrap_or_else(|error| failed(&error))
}

/// Writes to standard output. Whoever closes it early (`| head`) has seen enough; that is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the result"),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("virtctl: {error:#}");
    ExitCode::FAILURE
}
