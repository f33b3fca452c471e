//! A real guest for tests, and the machinery around it: root file systems of the two releases, a tiny bootable disk, seed
//! images, and a laboratory of two pods on one network between which the guest is moved.
//!
//! Nothing in here ships. It needs a Debian machine and, for pods, root.

pub mod disk;
pub mod lab;
pub mod packages;
pub mod rootfs;
pub mod seed;
#[cfg(feature = "libvirt")]
pub mod stage;

use std::path::Path;
use std::process::Command;

/// Why something could not be built or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("`{command}` failed: {output}")]
    Command { command: String, output: String },
    #[error("{0}")]
    Other(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names what was being done when it failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let output = command.output().doing(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        let output = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        return Err(Error::Command { command: line, output });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).doing(|| format!("cannot write {}", path.display()))
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).doing(|| format!("cannot create {}", path.display()))
}
