//! A cluster whose first nodes run pods as processes, so that the operator is what it is in a cluster, and whose others are
//! simulated by a second program.
//!
//! The operator is built as for its image: linked statically, whole and for size.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Bench, Kubectl};
use crate::nanokube::{self, Running};
use crate::{paths, release};

/// The program that is measured.
const OPERATOR: &str = "virt-operator";
/// Those that run beside it.
const OTHERS: [&str; 3] = ["virt-api", "virt-controller", "virt-handler"];
/// Nodes whose pods are processes.
pub(super) const NODES: u32 = 3;

/// The cluster while it runs.
pub(super) struct Processes {
    _server: Running,
    pub(super) kubeconfig: String,
    /// Its audit log.
    pub(super) log: PathBuf,
    images: PathBuf,
}

/// What a process of the operator holds or held, in megabytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) leads: bool,
    /// VmRSS.
    pub(super) now: f64,
    /// VmHWM.
    pub(super) most: f64,
    /// RssFile.
    pub(super) file: f64,
}

impl Processes {
    /// Builds, and starts the nodes whose pods are processes. All versions run the same programs.
    ///
    /// # Errors
    /// Something does not build or start.
    pub(super) fn start(bench: &Bench<'_>, versions: &[&str]) -> Result<Self> {
        let images = bench.scratch.join("images");
        let operator = release::build([OPERATOR])?;
        // What the others are built like changes nothing here, and these take a fraction of the time.
        let mut build = vec!["build", "--release"];
        build.extend(OTHERS.iter().flat_map(|name| ["--package", *name]));
        bench.command(&format!("cargo {}", build.join(" ")));
        ensure!(paths::cargo().args(&build).status()?.success(), "the build failed");
        let built = bench.nanokube.parent().context("a program is in a folder")?;
        for version in versions {
            let place = images.join(version);
            std::fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
            let copy = |name: &str, from: &Path| {
                std::fs::copy(from.join(name), place.join(name)).with_context(|| format!("copy {name}")).map(drop)
            };
            copy(OPERATOR, &operator)?;
            OTHERS.iter().try_for_each(|name| copy(name, built))?;
        }
        let text = |path: &Path| path.display().to_string();
        let log = bench.scratch.join("audit-process.log");
        let (dir, pods, audit) = (text(&images), text(&bench.scratch.join("pods")), text(&log));
        let more = ["--process", "--image-dir", &dir, "--pod-dir", &pods, "--audit-log", &audit];
        let (server, kubeconfig) = bench.up(NODES, &more)?;
        bench.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &NODES.to_string()])?;
        Ok(Self { _server: server, kubeconfig, log, images })
    }

    /// Simulated nodes join, up to `count`; they are gone when what is given is dropped.
    ///
    /// # Errors
    /// They do not join, or the suite does not come to them.
    pub(super) fn grow(&self, bench: &Bench<'_>, count: u32) -> Result<Running> {
        bench.heading(&format!("Simulated nodes join, up to {count}"));
        let (nodes, first, pace) = ((count - NODES).to_string(), (NODES + 1).to_string(), PER_SECOND.to_string());
        let arguments = [
            "nodes",
            "--kubeconfig",
            &self.kubeconfig,
            "--nodes",
            &nodes,
            "--first-node",
            &first,
            "--per-second",
            &pace,
        ];
        bench.command(&format!("nanokube {}", arguments.join(" ")));
        let joined = Running::start(&bench.nanokube, &arguments, &bench.scratch.join("nodes.log"))?;
        let kubectl = Kubectl { bench, kubeconfig: &self.kubeconfig };
        kubectl.wait("daemonset/virt-handler", &format!("jsonpath={{.status.numberAvailable}}={count}"))?;
        kubectl.wait("kubevirt/kubevirt", r#"jsonpath={.status.conditions[?(@.type=="Progressing")].status}=False"#)?;
        Ok(joined)
    }

    /// What the two processes of a version of the operator hold: the leader's first, then the standby's.
    ///
    /// # Errors
    /// There are not one of each.
    pub(super) fn memory(&self, bench: &Bench<'_>, version: &str) -> Result<[Held; 2]> {
        let leader = Kubectl { bench, kubeconfig: &self.kubeconfig }.lease_holder()?;
        let mut found = Vec::new();
        for pid in nanokube::processes_of(&self.images.join(version).join(OPERATOR))? {
            let leads = nanokube::environment(pid, "HOSTNAME")?.as_deref() == Some(leader.as_str());
            let field = |name: &str| nanokube::memory_of(pid, name);
            found.push(Held { leads, now: field("VmRSS")?, most: field("VmHWM")?, file: field("RssFile")? });
        }
        found.sort_by_key(|held| !held.leads);
        match found[..] {
            [leader, standby] if leader.leads && !standby.leads => Ok([leader, standby]),
            _ => bail!("one leader and one standby of {version} were expected, these ran: {found:?}"),
        }
    }
}

/// Nodes that join in a second. On two processors thousands of nodes that all start their pods leave no time for their heartbeats, are
/// taken for dead, and never come to rest.
const PER_SECOND: u32 = 20;

/// A minute after something is done memory is taken, as the goal says.
pub(super) const RESIDENT_AFTER: Duration = Duration::from_secs(60);
