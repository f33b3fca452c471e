//! The `virt-api` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubevirt_runtime::process::run(virt_api::parse, virt_api::program())
}
