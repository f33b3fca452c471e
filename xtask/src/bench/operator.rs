//! The operator's figures: time, requests and quiet on simulated nodes of several numbers, memory as a process of its own.
//!
//! On simulated nodes everything runs in nanokube's process, so requests are counted in its audit log and memory says
//! nothing. Memory is taken where pods are processes: there the operator is what it is in a cluster, over HTTPS.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::chart::{Panel, svg};
use super::{Bench, Goal, Kubectl, Options, VERSION};
use crate::{nanokube, paths, release, term};

/// The sizes, as the issue names them; 3 is what the requests of the others are compared with.
const SIZES: [u32; 6] = [1, 3, 10, 100, 1000, 5000];
/// The sizes of the small version.
const SMALL: [u32; 3] = [1, 3, 10];
/// From available to rest: leases are renewed every few seconds, the last status of a roll-out is out after two.
const SETTLE: Duration = Duration::from_secs(10);
/// How long rest is watched: six renewals of the leader's lease.
const REST: Duration = Duration::from_secs(30);
/// When memory is taken, as the issue asks.
const RESIDENT_AFTER: Duration = Duration::from_secs(60);
/// The operator's requests for an installation on 3 nodes.
const REQUESTS: f64 = 250.0;
/// How many times that on any larger cluster.
const GROWTH: f64 = 1.1;
/// The leader renews every five seconds.
const RENEWALS: f64 = 12.0;
/// Megabytes of the leader and of the standby.
const LEADER: f64 = 15.0;
/// See [`LEADER`].
const STANDBY: f64 = 10.0;
/// Nodes whose pods are processes.
const PROCESS_NODES: u32 = 3;

/// Measures, draws, prints, and fails when a goal is missed.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(options: &Options) -> Result<()> {
    let mut bench = Bench::new(options)?;
    let sizes: &[u32] = if options.quick { &SMALL } else { &SIZES };
    let mut measured = BTreeMap::new();
    for nodes in sizes {
        if bench.wants(&format!("{nodes} nodes")) {
            let size = size(&mut bench, *nodes)?;
            measured.insert(*nodes, size);
        }
    }
    if let (Some(small), Some((nodes, large))) = (measured.get(&3), measured.last_key_value())
        && *nodes > 3
    {
        let name = format!("requests for an installation, {nodes} nodes over 3");
        bench.add(name, "simulated", large.requests / small.requests, "", Goal::AtMost(GROWTH));
    }
    if bench.wants("memory") {
        memory(&mut bench)?;
    }
    if !options.quick && options.only.is_none() {
        let path = paths::root().join("docs").join("operator-figures.svg");
        std::fs::write(&path, picture(&measured)).with_context(|| format!("write {}", path.display()))?;
    }
    bench.report()
}

/// What was measured at one size.
struct Size {
    seconds: f64,
    requests: f64,
}

fn picture(measured: &BTreeMap<u32, Size>) -> String {
    let of = |value: fn(&Size) -> f64| -> Vec<(f64, f64)> {
        measured.iter().map(|(nodes, size)| (f64::from(*nodes), value(size))).collect()
    };
    let (seconds, requests) = (of(|size| size.seconds), of(|size| size.requests));
    let panels = [
        Panel { title: "Seconds from the custom resource to available", points: &seconds, bound: None },
        Panel { title: "Requests for an installation", points: &requests, bound: Some((REQUESTS, "goal on 3 nodes")) },
    ];
    let caption = format!("simulated nodes; {} processors, load {}", super::processors(), super::load());
    svg(&panels, &caption)
}

/// The release's manifests.
fn manifests(bench: &Bench<'_>) -> Result<PathBuf> {
    let dist = bench.scratch.join("dist");
    release::write(&release::Options::manifests_only(VERSION, &dist))?;
    Ok(dist.join(VERSION))
}

/// Installs the suite; gives the time from the custom resource to available.
fn install(kubectl: &Kubectl<'_>, manifests: &Path) -> Result<Duration> {
    kubectl.apply(&manifests.join("kubevirt-operator.yaml"))?;
    kubectl.wait("deployment/virt-operator", "condition=Available")?;
    let applied = Instant::now();
    kubectl.apply(&manifests.join("kubevirt-cr.yaml"))?;
    kubectl.wait("kubevirt/kubevirt", "condition=Available")?;
    Ok(applied.elapsed())
}

fn size(bench: &mut Bench<'_>, nodes: u32) -> Result<Size> {
    let unit = if nodes == 1 { "node" } else { "nodes" };
    bench.heading(&format!("{nodes} simulated {unit}"));
    let log = bench.scratch.join("audit.log");
    let (server, kubeconfig) = bench.up(nodes, &["--audit-log", &log.display().to_string()])?;
    bench.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &nodes.to_string()])?;
    let manifests = manifests(bench)?;
    let kubectl = Kubectl { bench, kubeconfig: &kubeconfig };
    let before = server.processor()?;
    let took = install(&kubectl, &manifests)?;
    let worked = server.processor()? - before;
    let (asked, end) = Asked::from(&log, 0)?;
    bench.command(&format!("sleep {}   # until it rests", SETTLE.as_secs()));
    std::thread::sleep(SETTLE);
    let (_, end) = Asked::from(&log, end)?;
    bench.command(&format!("sleep {}   # at rest", REST.as_secs()));
    std::thread::sleep(REST);
    let (resting, _) = Asked::from(&log, end)?;
    drop(server);

    let per_minute = |count: u32| f64::from(count) * 60.0 / REST.as_secs_f64();
    let name = |what: &str| format!("{nodes} {unit}: {what}");
    let requests = f64::from(asked.all - asked.renewals);
    let goal = if nodes <= 3 { REQUESTS } else { REQUESTS * GROWTH };
    let seconds = took.as_secs_f64();
    bench.add(name("custom resource to available"), "simulated", seconds, "s", Goal::None);
    bench.add(name("processor time of the whole cluster for that"), "simulated", worked, "s", Goal::None);
    bench.add(name("operator's requests for the installation"), "simulated", requests, "", Goal::AtMost(goal));
    bench.add(name("renewals of its lease meanwhile"), "simulated", f64::from(asked.renewals), "", Goal::None);
    let writes = per_minute(resting.writes - resting.renewals);
    bench.add(name("writes per minute at rest, lease aside"), "simulated", writes, "", Goal::Exactly(0.0));
    let renewals = per_minute(resting.renewals);
    bench.add(name("renewals of its lease per minute at rest"), "simulated", renewals, "", Goal::AtMost(RENEWALS));
    let rest = per_minute(resting.all);
    bench.add(name("requests per minute at rest, all together"), "simulated", rest, "", Goal::None);
    Ok(Size { seconds, requests })
}

/// The operator's requests in a part of an audit log.
#[derive(Default)]
struct Asked {
    all: u32,
    writes: u32,
    /// Writes of the lease.
    renewals: u32,
}

impl Asked {
    /// Counts from a place in the log on; gives the place where it ended.
    fn from(log: &Path, start: u64) -> Result<(Self, u64)> {
        let mut file = std::fs::File::open(log).with_context(|| format!("open {}", log.display()))?;
        file.seek(SeekFrom::Start(start)).context("find the place in the audit log")?;
        let mut text = String::new();
        file.read_to_string(&mut text).context("read the audit log")?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let asked = Self::count(&text[..whole])?;
        Ok((asked, start + u64::try_from(whole).unwrap_or(0)))
    }

    fn count(text: &str) -> Result<Self> {
        const OPERATOR: &str = "system:serviceaccount:kubevirt:kubevirt-operator";
        let mut asked = Self::default();
        for line in text.lines().filter(|line| line.contains(OPERATOR)) {
            let event: Value = serde_json::from_str(line).context("a line of the audit log is JSON")?;
            if event["user"]["username"] != OPERATOR {
                continue;
            }
            let is_write = !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"));
            asked.all += 1;
            asked.writes += u32::from(is_write);
            asked.renewals += u32::from(is_write && event["objectRef"]["resource"] == "leases");
        }
        Ok(asked)
    }
}

/// The operator as a process, twice: one leads, one stands by.
fn memory(bench: &mut Bench<'_>) -> Result<()> {
    bench.heading(&format!("Memory: {PROCESS_NODES} nodes whose pods are processes"));
    let programs = ["virt-operator", "virt-api", "virt-controller", "virt-handler"];
    let mut build = vec!["build", "--release"];
    build.extend(programs.iter().flat_map(|name| ["--package", *name]));
    bench.command(&format!("cargo {}", build.join(" ")));
    ensure!(paths::cargo().args(&build).status()?.success(), "the build failed");
    let images = bench.scratch.join("images");
    let place = images.join(VERSION);
    std::fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
    for name in programs {
        let built = bench.nanokube.with_file_name(name);
        std::fs::copy(&built, place.join(name)).with_context(|| format!("copy {}", built.display()))?;
    }
    let pods = bench.scratch.join("pods").display().to_string();
    let images = images.display().to_string();
    let (server, kubeconfig) = bench.up(PROCESS_NODES, &["--process", "--image-dir", &images, "--pod-dir", &pods])?;
    bench.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &PROCESS_NODES.to_string()])?;
    let manifests = manifests(bench)?;
    let kubectl = Kubectl { bench, kubeconfig: &kubeconfig };
    let took = install(&kubectl, &manifests)?;
    bench.command(&format!("sleep {}", RESIDENT_AFTER.as_secs()));
    std::thread::sleep(RESIDENT_AFTER);
    let leader = Kubectl { bench, kubeconfig: &kubeconfig }.lease_holder()?;
    let running = nanokube::processes_of(&place.join("virt-operator"))?;
    let mut found = Vec::new();
    for pid in running {
        let leads = nanokube::environment(pid, "HOSTNAME")?.as_deref() == Some(leader.as_str());
        found.push((leads, nanokube::memory_of(pid, "VmRSS")?, nanokube::memory_of(pid, "VmHWM")?));
    }
    drop(server);
    let one = |leads: bool| found.iter().find(|it| it.0 == leads).map(|it| (it.1, it.2));
    let (Some(leader), Some(standby)) = (one(true), one(false)) else {
        bail!("one leader and one standby were expected, these ran (leads, now, most): {found:?}");
    };
    let name = |what: &str| format!("{PROCESS_NODES} nodes: {what}");
    bench.add(name("custom resource to available"), "process", took.as_secs_f64(), "s", Goal::None);
    bench.add(name("memory of the leader"), "process", leader.0, "MB", Goal::AtMost(LEADER));
    bench.add(name("most memory of the leader ever"), "process", leader.1, "MB", Goal::None);
    bench.add(name("memory of the standby"), "process", standby.0, "MB", Goal::AtMost(STANDBY));
    bench.add(name("most memory of the standby ever"), "process", standby.1, "MB", Goal::None);
    if bench.talks() {
        term::note("megabytes of 1,000,000 bytes, of /proc/PID/status");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Asked;

    #[test]
    fn requests_are_counted_by_who_asked_and_what_for() {
        let line = |user: &str, verb: &str, resource: &str| {
            format!(r#"{{"user":{{"username":"{user}"}},"verb":"{verb}","objectRef":{{"resource":"{resource}"}}}}"#)
        };
        let operator = "system:serviceaccount:kubevirt:kubevirt-operator";
        let text = [
            line(operator, "update", "leases"),
            line(operator, "get", "leases"),
            line(operator, "patch", "services"),
            line("kubernetes-admin", "patch", "services"),
            line("kubernetes-admin", "create", operator),
        ];
        let asked = Asked::count(&text.join("\n")).expect("it parses");
        assert_eq!((asked.all, asked.writes, asked.renewals), (3, 2, 1));
    }
}
