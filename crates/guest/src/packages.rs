//! Debian packages this crate's machinery calls.

use std::path::Path;
use std::process::Command;

use crate::rootfs::{self, MIRROR};
use crate::{Error, Result, create_dir, run};

/// A package, and a file by which its presence is known.
const NEEDED: &[(&str, &str)] = &[
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("libvirt-dev", "/usr/include/libvirt/libvirt.h"),
    ("libvirt-clients", "/usr/bin/virsh"),
    ("pkg-config", "/usr/bin/pkg-config"),
    ("syslinux", "/usr/bin/syslinux"),
    ("mtools", "/usr/bin/mcopy"),
    ("dosfstools", "/usr/sbin/mkfs.fat"),
    ("busybox-static", "/bin/busybox"),
    ("qemu-utils", "/usr/bin/qemu-img"),
    ("iproute2", "/sbin/ip"),
    ("util-linux", "/usr/bin/nsenter"),
];

/// Packages this machine lacks.
pub fn missing() -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

/// Installs what is missing when root.
///
/// # Errors
/// Otherwise, with the exact command to run.
pub fn ensure(root: bool) -> Result<Vec<&'static str>> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(missing);
    }
    if !root {
        let packages = missing.join(" ");
        return Err(Error::Other(format!(
            "packages are missing; run: sudo apt-get install --no-install-recommends {packages}"
        )));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))?;
    Ok(missing)
}

/// Asks Debian's mirror for something small, the way the package manager asks: with its proxies.
///
/// # Errors
/// When it does not answer, with the package manager's words.
pub fn ask_mirror(cache: &Path) -> Result<()> {
    create_dir(cache)?;
    let answer = cache.join("mirror-answers");
    let asked = run(Command::new("/usr/lib/apt/apt-helper")
        .args(["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20", "download-file"])
        .arg(format!("{MIRROR}/dists/{}/Release", rootfs::OLD.suite))
        .arg(&answer));
    let _ = std::fs::remove_file(&answer);
    asked.map(drop)
}
