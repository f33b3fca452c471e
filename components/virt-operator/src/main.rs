//! The virt-operator binary.

use std::process::ExitCode;

use kubevirt_runtime::{cli, process};
use virt_operator::settings::Arguments;

fn main() -> ExitCode {
    process::run(|args| cli::parse::<Arguments>(args).map(|arguments| arguments.process), virt_operator::program())
}
