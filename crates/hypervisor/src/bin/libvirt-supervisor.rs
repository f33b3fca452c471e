//! `libvirt-supervisor PRIVATE [PROGRAMS]`: the first process of a pod that runs libvirt.

use std::io::Write;
use std::path::PathBuf;

use kubevirt_hypervisor::supervisor::{Settings, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> std::process::ExitCode {
    #[allow(clippy::disallowed_methods, reason = "main is where the command line enters")]
    let mut arguments = std::env::args().skip(1);
    let Some(private) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: libvirt-supervisor PRIVATE [PROGRAMS]");
        return std::process::ExitCode::from(2);
    };
    let programs = arguments.next().map_or_else(|| PathBuf::from("/usr/sbin"), PathBuf::from);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("libvirt-supervisor: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        // Orphans come to us even where another process is the first of the namespace.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let stop = CancellationToken::new();
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            let stop = stop.clone();
            tokio::spawn(async move {
                terminate.recv().await;
                stop.cancel();
            });
        }
        run(Settings { private, programs }, stop, |report| {
            let line = serde_json::to_string(&report).expect("a report is plain data");
            // Whoever reads may have gone; the daemons have to go on all the same.
            let _ = writeln!(std::io::stdout(), "{line}");
        })
        .await
    });
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("libvirt-supervisor: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
