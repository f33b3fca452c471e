//! The virt-operator binary.

use std::process::ExitCode;

use kubevirt_runtime::{cli, process};
use virt_operator::settings::Arguments;

/// A pass makes and frees trees of small pieces. What glibc's allocator keeps of them, between those that stay, is a tenth of
/// what a leader holds at rest; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // So that what a pass has freed goes back also when nothing happens after it. Where that cannot be had it goes later.
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
    process::run(|args| cli::parse::<Arguments>(args).map(Arguments::start), virt_operator::program())
}
