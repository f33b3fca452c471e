//! The operator as a process of its own that leads a cluster of simulated nodes over HTTPS, while it installs and changes
//! the version: how much memory it ever holds.
//!
//! The cluster's own pods of the operator stand by and answer its webhooks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kubevirt_release::Kind;
use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use serde_json::Value;

use super::super::{Bench, Goal, Kubectl};
use crate::{nanokube, paths, release, term};

/// What `--only` calls it.
pub(super) const NAME: &str = "memory of the process";
/// Megabytes on the largest cluster.
pub(super) const MOST: f64 = 150.0;
const SIZES: &[u32] = &[3, 5000];
const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";
const OPERATOR: &str = "virt-operator";
/// Among the loopback addresses of this machine; process nodes take theirs from others.
const ADDRESS: &str = "127.254.0.1";
/// How long the process may take to lead: the lease of the one before is given up, and it starts in a second.
const LEADS: Duration = Duration::from_secs(60);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_secs(1);

/// The most memory that was ever held, by the number of nodes.
pub(super) struct Memory(BTreeMap<u32, f64>);

impl Memory {
    pub(super) fn points(&self) -> Vec<(f64, f64)> {
        self.0.iter().map(|(nodes, megabytes)| (f64::from(*nodes), *megabytes)).collect()
    }
}

/// Measures at each size.
///
/// # Errors
/// Something does not build, start, or come to its end.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Memory> {
    bench.build()?;
    let build = ["build", "--release", "--package", OPERATOR];
    bench.command(&format!("cargo {}", build.join(" ")));
    ensure!(paths::cargo().args(build).status()?.success(), "the build failed");
    let mut most = BTreeMap::new();
    for nodes in SIZES {
        most.insert(*nodes, changed(bench, *nodes)?);
    }
    Ok(Memory(most))
}

/// Installs, and changes the version; gives the most memory that the operator of the new version held.
fn changed(bench: &mut Bench<'_>, nodes: u32) -> Result<f64> {
    bench.heading(&format!("The operator as a process that leads {nodes} simulated nodes"));
    let (_server, kubeconfig) = bench.up(nodes, &[])?;
    bench.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &nodes.to_string()])?;
    let dist = bench.scratch.join("dist-upgrade");
    let old = leads(bench, &kubeconfig, &dist, OLD)?;
    let kubectl = Kubectl { bench, kubeconfig: &kubeconfig };
    kubectl.apply(&dist.join(OLD).join("kubevirt-cr.yaml"))?;
    is_settled(&kubectl, OLD)?;
    tag(&kubectl, OLD)?;
    let installed = old.memory("VmHWM")?;
    kubectl.run(&["scale", "-n", "kubevirt", "deployment/virt-operator", "--replicas=0"])?;
    drop(old);
    let new = leads(bench, &kubeconfig, &dist, NEW)?;
    is_settled(&kubectl, OLD)?;
    let started = Instant::now();
    tag(&kubectl, NEW)?;
    is_settled(&kubectl, NEW)?;
    let took = started.elapsed().as_secs_f64();
    let (now, most) = (new.memory("VmRSS")?, new.memory("VmHWM")?);
    let leader = kubectl.lease_holder()?;
    ensure!(leader == new.name, "{leader} came to lead meanwhile, so {} was not the one to measure", new.name);
    let name = |what: &str| format!("{nodes} nodes: {what}");
    let goal = if nodes == 5000 { Goal::Below(MOST) } else { Goal::None };
    bench.add(name("operator's most memory while it installs (VmHWM)"), "process", installed, "MB", goal);
    bench.add(name("operator's most memory while it changes version (VmHWM)"), "process", most, "MB", goal);
    bench.add(name("operator's memory afterwards (VmRSS)"), "process", now, "MB", Goal::None);
    bench.add(name("time of the whole change on this machine"), "process", took, "s", Goal::None);
    Ok(most.max(installed))
}

fn tag(kubectl: &Kubectl<'_>, version: &str) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"imageTag":"{version}"}}}}"#);
    kubectl.run(&["patch", "-n", "kubevirt", "kubevirt/kubevirt", "--type", "merge", "-p", &patch])
}

/// A version runs, and nothing of it is under way.
fn is_settled(kubectl: &Kubectl<'_>, version: &str) -> Result<()> {
    kubectl.wait("kubevirt/kubevirt", &format!("jsonpath={{.status.observedKubeVirtVersion}}={version}"))?;
    for (condition, status) in [("Available", "True"), ("Progressing", "False")] {
        let path = format!(r#"jsonpath={{.status.conditions[?(@.type=="{condition}")].status}}={status}"#);
        kubectl.wait("kubevirt/kubevirt", &path)?;
    }
    Ok(())
}

/// An operator that runs beside the cluster; it is killed when it is dropped.
struct Outside {
    name: String,
    child: Child,
}

impl Outside {
    fn memory(&self, field: &str) -> Result<f64> {
        nanokube::memory_of(self.child.id(), field)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Installs a version's operator such that the process leads and its pods stand by.
fn leads(bench: &Bench<'_>, kubeconfig: &str, dist: &Path, version: &str) -> Result<Outside> {
    release::write(&release::Options::manifests_only(version, dist))?;
    let manifest = dist.join(version).join("kubevirt-operator.yaml");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    ensure!(text.matches("replicas: 2").count() == 1, "the operator's manifest asks for two pods");
    std::fs::write(&manifest, text.replace("replicas: 2", "replicas: 0")).context("write the manifest")?;
    let kubectl = Kubectl { bench, kubeconfig };
    kubectl.apply(&manifest)?;
    let outside = start(bench, kubeconfig, version)?;
    let began = Instant::now();
    // Whoever led before may have left an entry.
    while kubectl.lease_holder().unwrap_or_default() != outside.name {
        if began.elapsed() > LEADS {
            bail!("the operator's process does not lead after {} s", LEADS.as_secs());
        }
        bench.sleep(LOOK, "until the process leads");
    }
    kubectl.run(&["scale", "-n", "kubevirt", "deployment/virt-operator", "--replicas=2"])?;
    kubectl.wait("deployment/virt-operator", "condition=Available")?;
    Ok(outside)
}

/// Starts the program as a process node would, with the environment that the manifest gives it.
fn start(bench: &Bench<'_>, kubeconfig: &str, version: &str) -> Result<Outside> {
    let objects = operator_manifest(&ManifestOptions::new("localhost/kubevirt", version));
    let deployment = objects.iter().find(|object| object.kind() == Kind::Deployment);
    let container = deployment.and_then(|it| it.at("/spec/template/spec/containers/0")).context("no container")?;
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    let root = bench.scratch.join(format!("outside-{version}"));
    let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
    std::fs::create_dir_all(&account).with_context(|| format!("create {}", account.display()))?;
    std::fs::write(account.join("namespace"), "kubevirt").context("write the namespace")?;
    let name = format!("outside-{version}");
    let log = std::fs::File::create(bench.scratch.join(format!("{name}.log"))).context("create the log")?;
    let program: PathBuf = bench.nanokube.with_file_name(OPERATOR);
    let mut command = Command::new(&program);
    command.args(texts(&container["args"])).args(["--kubeconfig", kubeconfig]);
    for variable in container["env"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
            command.env(name, value);
        }
    }
    command.env("HOSTNAME", &name).env("PROCESS_NODE_ROOT", &root).env("PROCESS_NODE_ADDRESS", ADDRESS);
    let errors = log.try_clone().context("the log twice")?;
    let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    let child = child.with_context(|| format!("start {}", program.display()))?;
    if bench.talks() {
        term::note(&format!("{} runs beside the cluster as {name}", program.display()));
    }
    Ok(Outside { name, child })
}
