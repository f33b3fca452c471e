//! What the machine must have, and how it gets it: Debian packages when root, else the exact command to type.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::term;

/// A program the work needs and the Debian package that brings it.
struct Need {
    program: &'static str,
    package: &'static str,
    for_what: &'static str,
}

const NEEDS: &[Need] = &[
    Need { program: "cc", package: "build-essential", for_what: "to build" },
    Need { program: "git", package: "git", for_what: "to list the files that tidy checks" },
];

/// Installs what is missing and checks the prerequisites of README.md.
///
/// # Errors
/// Something is missing and cannot be installed here; the message says what to type.
pub(crate) fn run() -> Result<()> {
    for Need { program, package, for_what } in NEEDS {
        need(program, package, for_what)?;
    }
    ensure!(
        on_path("kubectl"),
        "kubectl is not on the PATH. It is one of the two prerequisites (README.md): install version 1.30 or newer from \
         https://kubernetes.io/docs/tasks/tools/ and run this again"
    );
    Ok(())
}

/// Makes sure that a program is there: from its Debian package when root, else by telling what to type.
///
/// # Errors
/// It is missing and cannot be installed here.
pub(crate) fn need(program: &str, package: &str, for_what: &str) -> Result<()> {
    if on_path(program) {
        return Ok(());
    }
    let install = format!("apt-get install --yes --no-install-recommends {package}");
    term::note(&format!("{program} is missing ({for_what})"));
    if !is_root() || !on_path("apt-get") {
        bail!("please run: sudo apt-get update && sudo {install}");
    }
    for command in ["apt-get update", &install] {
        term::command(command);
        let mut words = command.split(' ');
        let status = Command::new(words.next().unwrap_or_default())
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("run {command}"))?;
        ensure!(status.success(), "{command} failed: {status}");
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    #[allow(clippy::disallowed_methods, reason = "xtask is a program for a person's machine, not a component")]
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|dir| Path::new(dir).join(program).is_file())
}

fn is_root() -> bool {
    let out = Command::new("id").arg("-u").output();
    out.is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}
