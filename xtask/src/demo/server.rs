//! The `nanokube` programs as child processes that end with the demo: the server, and where asked for the nodes beside it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::back::{BAD, BROKEN_IMAGE};
use super::{NEXT, Options};
use crate::nanokube::Running;
use crate::{paths, term};

pub(super) struct Server {
    /// Held for their end, in the order in which they are stopped.
    _programs: Vec<Running>,
    pub(super) kubeconfig: PathBuf,
    pub(super) audit_log: PathBuf,
}

impl Server {
    /// Starts `nanokube up`, and `nanokube nodes` if the nodes are to be a program of their own; returns when they are
    /// ready.
    pub(super) fn start(scratch: &Path, options: &Options) -> Result<Self> {
        let (kubeconfig, audit_log) = (scratch.join("kubeconfig"), scratch.join("audit.log"));
        let kind = if options.process { "--process" } else { "--simulated" };
        if options.process {
            build_components()?;
        }
        let (nodes, seed) = (options.nodes.to_string(), options.seed.to_string());
        let own = if options.remote_nodes { "0" } else { nodes.as_str() };
        let files = [kubeconfig.display().to_string(), audit_log.display().to_string()];
        let further = ["--release", BAD, "--release", NEXT, "--crashing-image", BROKEN_IMAGE];
        let up = ["up", kind, "--nodes", own, "--seed", &seed, "--kubeconfig", &files[0], "--audit-log", &files[1]];
        let mut programs = vec![start(&[&up[..], &further].concat(), &scratch.join("nanokube.log"))?];
        if options.remote_nodes {
            let join = ["nodes", kind, "--nodes", &nodes, "--seed", &seed, "--kubeconfig", &files[0]];
            programs.insert(0, start(&[&join[..], &further].concat(), &scratch.join("nodes.log"))?);
        }
        Ok(Self { _programs: programs, kubeconfig, audit_log })
    }
}

/// Starts `nanokube` as this checkout has built it.
fn start(arguments: &[&str], log: &Path) -> Result<Running> {
    let program = paths::target()?.join("debug").join("nanokube");
    term::command(&format!("nanokube {}", arguments.join(" ")));
    let running = Running::start(&program, arguments, log)?;
    term::output(&running.said);
    Ok(running)
}

/// The programs of the images, which lie beside `nanokube`.
fn build_components() -> Result<()> {
    let packages = ["virt-operator", "virt-api", "virt-controller", "virt-handler"];
    let arguments: Vec<&str> = packages.iter().flat_map(|package| ["--package", package]).collect();
    term::command(&format!("cargo build {}", arguments.join(" ")));
    let status = paths::cargo().arg("build").args(&arguments).status()?;
    ensure!(status.success(), "the build of the components failed");
    Ok(())
}
