//! The `nanokube` programs as child processes that end with the demo: the server, and where asked for the nodes beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::back::{BAD, BROKEN_IMAGE};
use super::{NEW, NEXT, OLD, Options};
use crate::nanokube::Running;
use crate::{paths, release, term};

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
        let images = scratch.join("images").display().to_string();
        if options.process {
            lay_out(Path::new(&images))?;
        }
        let from: &[&str] = if options.process { &["--image-dir", &images] } else { &[] };
        let (nodes, seed) = (options.nodes.to_string(), options.seed.to_string());
        let own = if options.remote_nodes { "0" } else { nodes.as_str() };
        let files = [kubeconfig.display().to_string(), audit_log.display().to_string()];
        let further = [from, &["--release", BAD, "--release", NEXT, "--crashing-image", BROKEN_IMAGE]].concat();
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

/// The programs of the images of each release. Those of the first one are of another build than those that take their
/// place, as they are in a cluster: two builds run side by side while the version changes.
fn lay_out(images: &Path) -> Result<()> {
    let (first, later) = programs()?;
    for (version, programs) in [(OLD, &first), (NEW, &later), (BAD, &later), (NEXT, &later)] {
        let place = images.join(version);
        std::fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
        for component in release::PROGRAMS {
            let link = place.join(component);
            std::os::unix::fs::symlink(programs.join(component), &link)
                .with_context(|| format!("link {}", link.display()))?;
        }
    }
    Ok(())
}

/// Builds what process nodes run: the programs of the debug build, and those that images hold; gives where they lie.
///
/// # Errors
/// A build fails.
pub(crate) fn programs() -> Result<(PathBuf, PathBuf)> {
    // Together with the programs that are built already: other packages in one command would mean other features of what they
    // all depend on, and a build of its own of each.
    let packages = ["nanokube-cli", "virtctl"].into_iter().chain(release::PROGRAMS.iter().copied());
    let arguments: Vec<&str> = packages.flat_map(|package| ["--package", package]).collect();
    term::command(&format!("cargo build {}", arguments.join(" ")));
    let status = paths::cargo().arg("build").args(&arguments).status()?;
    ensure!(status.success(), "the build of the components failed");
    Ok((paths::target()?.join("debug"), release::programs()?))
}
