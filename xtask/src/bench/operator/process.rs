//! The operator as a process of its own over HTTPS, twice: one leads, one stands by. Memory after a minute, then two
//! minutes of quiet on the clock, then the same with a thousand nodes.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::processes::{Held, NODES, Processes, RESIDENT_AFTER};
use super::asked::{self, since};
use super::{Bench, Goal, Kubectl, RENEWALS, VERSION, install, manifests};
use crate::term;

/// What `--only` calls it.
pub(super) const NAME: &str = "memory and quiet of the process";
/// With those that join later, which are simulated.
const MANY: u32 = 1000;
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
    cluster: Processes,
    installed: Instant,
}

impl Process {
    /// Starts it and installs the suite.
    ///
    /// # Errors
    /// Something does not build, start or become available.
    pub(super) fn start(bench: &mut Bench<'_>) -> Result<Self> {
        bench.heading(&format!("{NODES} nodes whose pods are processes"));
        let cluster = Processes::start(bench, &[VERSION])?;
        let manifests = manifests(bench)?;
        let took = install(&Kubectl { bench, kubeconfig: &cluster.kubeconfig }, &manifests)?;
        let installed = Instant::now();
        let name = format!("{NODES} nodes: custom resource to available");
        bench.add(name, "process", took.as_secs_f64(), "s", Goal::None);
        Ok(Self { cluster, installed })
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
        let joined = Instant::now();
        let nodes = self.cluster.grow(bench, MANY)?;
        let took = joined.elapsed().as_secs_f64();
        let name = format!("{MANY} nodes: from joining to the suite on all of them");
        bench.add(name, "process", took, "s", Goal::None);
        bench.sleep(RESIDENT_AFTER, "a minute after available");
        drop(nodes);
        let many = self.memory(bench, MANY, (Goal::None, Goal::None))?;
        let per_thousand = |few: f64, many: f64| (many - few) * 1000.0 / f64::from(MANY - NODES);
        let leader = per_thousand(few.leader, many.leader);
        bench.add("growth of the leader per 1000 nodes", "process", leader, "MB", Goal::None);
        let standby = per_thousand(few.standby, many.standby);
        bench.add("growth of the standby per 1000 nodes", "process", standby, "MB", Goal::None);
        if bench.talks() {
            term::note("megabytes of 1,000,000 bytes, of /proc/PID/status");
        }
        Ok(vec![few, many])
    }

    /// What both processes hold now and held at most.
    fn memory(&self, bench: &mut Bench<'_>, nodes: u32, goals: (Goal, Goal)) -> Result<Memory> {
        let [leader, standby] = self.cluster.memory(bench, VERSION)?;
        for (who, Held { leads: _, now, most, file }, goal) in
            [("leader", leader, goals.0), ("standby", standby, goals.1)]
        {
            let name = |what: &str| format!("{nodes} nodes: {what} of the {who}");
            bench.add(name("memory (VmRSS)"), "process", now, "MB", goal);
            bench.add(name("pages of its program among it (RssFile)"), "process", file, "MB", Goal::None);
            bench.add(name("most memory ever (VmHWM)"), "process", most, "MB", Goal::None);
        }
        Ok(Memory { nodes, leader: leader.now, standby: standby.now })
    }

    /// Two minutes in which nobody touches anything.
    fn quiet(&self, bench: &mut Bench<'_>) -> Result<()> {
        let Processes { log, kubeconfig, .. } = &self.cluster;
        let (_, end) = since(log, 0)?;
        bench.sleep(QUIET, "nobody touches anything");
        let (pods, _) = since(log, end)?;
        let leader = Kubectl { bench, kubeconfig }.lease_holder()?;
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
}
