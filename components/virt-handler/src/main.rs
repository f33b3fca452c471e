//! The `virt-handler` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubevirt_runtime::process::run(virt_handler::parse, virt_handler::program())
}
