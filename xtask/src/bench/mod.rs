//! Measures what the programs promise: `cargo xtask bench nanokube`. Figures come from a release build on this machine;
//! each is printed with its goal, and all of them as one line of JSON.

mod nanokube;

use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The embedded API server: writes per second, watch latency, time until ready, memory
    Nanokube(nanokube::Options),
}

/// Runs the measurements.
///
/// # Errors
/// Something does not build or start, or a goal is missed.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Nanokube(options) => nanokube::run(options),
    }
}
