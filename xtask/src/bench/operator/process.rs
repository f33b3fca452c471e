//! The operator as a process of its own over HTTPS, twice: one leads, one stands by. Memory after a minute, then two
//! minutes of quiet on the clock, then the same with a thousand nodes.
//!
//! The operator is built as for its image: linked statically, whole and for size.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::asked::{self, since};
use super::{Bench, Goal, Kubectl, RENEWALS, VERSION, install, manifests};
use crate::nanokube::{self, Running};
use crate::{paths, release, term};

/// What `--only` calls it.
pub(super) const NAME: &str = "memory and quiet of the process";
/// The program that is measured.
const OPERATOR: &str = "virt-operator";
/// Those that run beside it.
const OTHERS: [&str; 3] = ["virt-api", "virt-controller", "virt-handler"];
/// Nodes whose pods are processes.
const NODES: u32 = 3;
/// With those that join later, which are simulated.
const MANY: u32 = 1000;
/// When memory is taken, as the issue asks.
const RESIDENT_AFTER: Duration = Duration::from_secs(60);
/// How long nothing may be written, as the issue asks.
const QUIET: Duration = Duration::from_secs(120);
/// A watch is opened anew at most this often.
const WATCH: Duration = Duration::from_secs(300);
/// Megabytes of the leader and of the standby.
pub(super) const LEADER: f64 = 15.0;
/// See [`LEADER`].
pub(super) const STANDBY: f64 = 10.0;

/// Megabytes at a number of nodes.
pub(super) struct Memory {
    pub(super) nodes: u32,
    pub(super) leader: f64,
    pub(super) standby: f64,
}

/// The cluster while it waits.
pub(super) struct Process {
    server: Running,
    kubeconfig: String,
    log: PathBuf,
    /// The operator's program; its processes are found by it.
    program: PathBuf,
    installed: Instant,
}

impl Process {
    /// Starts it and installs the suite.
    ///
    /// # Errors
    /// Something does not build, start or become available.
    pub(super) fn start(bench: &mut Bench<'_>) -> Result<Self> {
        bench.heading(&format!("{NODES} nodes whose pods are processes"));
        let images = bench.scratch.join("images");
        let place = images.join(VERSION);
        std::fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
        let copy = |name: &str, from: &Path| {
            std::fs::copy(from.join(name), place.join(name)).with_context(|| format!("copy {name}")).map(drop)
        };
        copy(OPERATOR, &release::build([OPERATOR])?)?;
        // What the others are built like changes nothing here, and these take a fraction of the time.
        let mut build = vec!["build", "--release"];
        build.extend(OTHERS.iter().flat_map(|name| ["--package", *name]));
        bench.command(&format!("cargo {}", build.join(" ")));
        ensure!(paths::cargo().args(&build).status()?.success(), "the build failed");
        let built = bench.nanokube.parent().context("a program is in a folder")?;
        for name in OTHERS {
            copy(name, built)?;
        }
        let text = |path: &Path| path.display().to_string();
        let log = bench.scratch.join("audit-process.log");
        let (images, pods, audit) = (text(&images), text(&bench.scratch.join("pods")), text(&log));
        let more = ["--process", "--image-dir", &images, "--pod-dir", &pods, "--audit-log", &audit];
        let (server, kubeconfig) = bench.up(NODES, &more)?;
        bench.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &NODES.to_string()])?;
        let manifests = manifests(bench)?;
        let took = install(&Kubectl { bench, kubeconfig: &kubeconfig }, &manifests)?;
        let installed = Instant::now();
        let name = format!("{NODES} nodes: custom resource to available");
        bench.add(name, "process", took.as_secs_f64(), "s", Goal::None);
        Ok(Self { server, kubeconfig, log, program: place.join(OPERATOR), installed })
    }

    /// Waits for the rest of the time and measures.
    ///
    /// # Errors
    /// A process has gone, or something cannot be read.
    pub(super) fn measure(self, bench: &mut Bench<'_>, quick: bool) -> Result<Vec<Memory>> {
        bench.heading("The operator as a process, at rest");
        bench.sleep(RESIDENT_AFTER.saturating_sub(self.installed.elapsed()), "a minute after available");
        let few = self.memory(bench, NODES, (Goal::AtMost(LEADER), Goal::AtMost(STANDBY)))?;
        self.quiet(bench)?;
        if quick {
            return Ok(vec![few]);
        }
        self.grow(bench)?;
        let many = self.memory(bench, MANY, (Goal::None, Goal::None))?;
        let per_thousand = |few: f64, many: f64| (many - few) * 1000.0 / f64::from(MANY - NODES);
        let leader = per_thousand(few.leader, many.leader);
        bench.add("growth of the leader per 1000 nodes", "process", leader, "MB", Goal::None);
        let standby = per_thousand(few.standby, many.standby);
        bench.add("growth of the standby per 1000 nodes", "process", standby, "MB", Goal::None);
        if bench.talks() {
            term::note("megabytes of 1,000,000 bytes, of /proc/PID/status");
        }
        drop(self.server);
        Ok(vec![few, many])
    }

    /// What both processes hold now and held at most.
    fn memory(&self, bench: &mut Bench<'_>, nodes: u32, goals: (Goal, Goal)) -> Result<Memory> {
        let leader = Kubectl { bench, kubeconfig: &self.kubeconfig }.lease_holder()?;
        let fields = ["VmRSS", "VmHWM", "RssFile"];
        let mut found = Vec::new();
        for pid in nanokube::processes_of(&self.program)? {
            let leads = nanokube::environment(pid, "HOSTNAME")?.as_deref() == Some(leader.as_str());
            let mut values = [0.0; 3];
            for (value, field) in values.iter_mut().zip(fields) {
                *value = nanokube::memory_of(pid, field)?;
            }
            found.push((leads, values));
        }
        let one = |leads: bool| found.iter().find(|it| it.0 == leads).map(|it| it.1);
        let (Some(leader), Some(standby), 2) = (one(true), one(false), found.len()) else {
            bail!("one leader and one standby were expected, these ran (leads, {fields:?}): {found:?}");
        };
        for (who, [now, most, file], goal) in [("leader", leader, goals.0), ("standby", standby, goals.1)] {
            let name = |what: &str| format!("{nodes} nodes: {what} of the {who}");
            bench.add(name("memory (VmRSS)"), "process", now, "MB", goal);
            bench.add(name("pages of its program among it (RssFile)"), "process", file, "MB", Goal::None);
            bench.add(name("most memory ever (VmHWM)"), "process", most, "MB", Goal::None);
        }
        Ok(Memory { nodes, leader: leader[0], standby: standby[0] })
    }

    /// Two minutes in which nobody touches anything.
    fn quiet(&self, bench: &mut Bench<'_>) -> Result<()> {
        let (_, end) = since(&self.log, 0)?;
        bench.sleep(QUIET, "nobody touches anything");
        let (pods, _) = since(&self.log, end)?;
        let leader = Kubectl { bench, kubeconfig: &self.kubeconfig }.lease_holder()?;
        let of = |leads: bool| {
            asked::together(
                &pods
                    .iter()
                    .filter(|(pod, _)| (**pod == leader) == leads)
                    .map(|(p, a)| (p.clone(), a.clone()))
                    .collect(),
            )
        };
        let (leads, stands) = (of(true), of(false));
        let minutes = QUIET.as_secs_f64() / 60.0;
        let name = |what: &str| format!("{NODES} nodes: {what} in {} s at rest", QUIET.as_secs());
        let count = f64::from;
        let writes = leads.writes - leads.renewals + stands.writes - stands.renewals;
        bench.add(name("writes, the lease aside,"), "process", count(writes), "", Goal::Exactly(0.0));
        bench.add(
            name("renewals by the leader"),
            "process",
            count(leads.renewals),
            "",
            Goal::AtMost(RENEWALS * minutes),
        );
        bench.add(name("renewals by the standby"), "process", count(stands.renewals), "", Goal::Exactly(0.0));
        // One may happen to be due; a second one would be too soon.
        let most = (QUIET.as_secs_f64() / WATCH.as_secs_f64()).ceil();
        let opened = leads.watches.values().chain(stands.watches.values()).max().copied().unwrap_or(0);
        bench.add(name("most openings of one watch"), "process", count(opened), "", Goal::AtMost(most));
        let all = leads.all + stands.all - leads.renewals - stands.renewals;
        bench.add(name("requests, the lease aside,"), "process", count(all), "", Goal::None);
        Ok(())
    }

    /// Simulated nodes join, and the suite comes to them.
    fn grow(&self, bench: &mut Bench<'_>) -> Result<()> {
        bench.heading(&format!("Simulated nodes join, up to {MANY}"));
        let (more, first) = ((MANY - NODES).to_string(), (NODES + 1).to_string());
        let arguments = ["nodes", "--kubeconfig", &self.kubeconfig, "--nodes", &more, "--first-node", &first];
        bench.command(&format!("nanokube {}", arguments.join(" ")));
        let joined = Instant::now();
        let nodes = Running::start(&bench.nanokube, &arguments, &bench.scratch.join("nodes.log"))?;
        let kubectl = Kubectl { bench, kubeconfig: &self.kubeconfig };
        kubectl.wait("daemonset/virt-handler", &format!("jsonpath={{.status.numberAvailable}}={MANY}"))?;
        kubectl.wait("kubevirt/kubevirt", r#"jsonpath={.status.conditions[?(@.type=="Progressing")].status}=False"#)?;
        let took = joined.elapsed().as_secs_f64();
        let name = format!("{MANY} nodes: from joining to the suite on all of them");
        bench.add(name, "process", took, "s", Goal::None);
        bench.sleep(RESIDENT_AFTER, "a minute after available");
        drop(nodes);
        Ok(())
    }
}
