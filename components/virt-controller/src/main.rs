//! The `virt-controller` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubevirt_runtime::process::run(virt_controller::parse, virt_controller::program())
}
