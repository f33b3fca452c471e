//! The operator as a process of its own over HTTPS, while thousands of nodes join and change version: how much memory it
//! ever holds.
//!
//! Its pods and those of the control plane stay on nodes whose pods are processes; the others have nothing but a simulated
//! virt-handler.

use std::time::Instant;

use anyhow::Result;

use super::super::processes::{NODES, Processes};
use super::super::{Bench, Goal, Kubectl};
use super::picture;
use crate::release;

/// What `--only` calls it, with the number of nodes behind it.
const NAME: &str = "memory of the process";
/// Megabytes on the largest cluster.
pub(super) const MOST: f64 = 150.0;
const LARGEST: u32 = 5000;
const SIZES: [u32; 3] = [NODES, 1000, LARGEST];
const OLD: &str = "v0.1.0";
const NEW: &str = "v0.2.0";
/// What is said of a change that did not come to its end in time.
const UNENDED: &str = "operator's most memory until patience ended (VmHWM)";
/// A label of the nodes whose pods are processes.
const PROCESSES: &str = "bench.example.com/pods=processes";

fn name(nodes: u32) -> String {
    format!("{NAME}, {nodes} nodes")
}

pub(super) fn is_wanted(bench: &Bench<'_>) -> bool {
    SIZES.iter().any(|nodes| bench.wants(&name(*nodes)))
}

/// Measures at each size.
///
/// # Errors
/// Something does not build, start, or come to its end.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    bench.build()?;
    for nodes in SIZES {
        if bench.wants(&name(nodes)) {
            changed(bench, nodes)?;
        }
    }
    Ok(())
}

/// Installs, lets nodes join, and changes the version; takes the most memory that the leading operator ever held.
fn changed(bench: &mut Bench<'_>, nodes: u32) -> Result<()> {
    bench.heading(&format!("The operator as a process on a cluster of {nodes} nodes"));
    let cluster = Processes::start(bench, &[OLD, NEW])?;
    let dist = bench.scratch.join("dist-upgrade");
    for version in [OLD, NEW] {
        release::write(&release::Options::manifests_only(version, &dist))?;
    }
    let kubectl = Kubectl { bench, kubeconfig: &cluster.kubeconfig };
    kubectl.run(&["label", "nodes", "--all", PROCESSES])?;
    kubectl.apply(&dist.join(OLD).join("kubevirt-operator.yaml"))?;
    kubectl.wait("deployment/virt-operator", "condition=Available")?;
    kubectl.apply(&dist.join(OLD).join("kubevirt-cr.yaml"))?;
    is_settled(&kubectl, OLD)?;
    let (label, value) = PROCESSES.split_once('=').unwrap_or_default();
    // One virt-api for each ten nodes would be hundreds of processes on three nodes.
    let infra = format!(r#"{{"replicas":2,"nodePlacement":{{"nodeSelector":{{"{label}":"{value}"}}}}}}"#);
    patch(&kubectl, &format!(r#"{{"spec":{{"imageTag":"{OLD}","infra":{infra}}}}}"#))?;
    // The newer operator comes while there are no nodes on which its pods could not run.
    kubectl.apply(&dist.join(NEW).join("kubevirt-operator.yaml"))?;
    kubectl.run(&["rollout", "status", "-n", "kubevirt", "deployment/virt-operator"])?;
    kubectl.wait("kubevirt/kubevirt", &format!("jsonpath={{.status.operatorVersion}}={NEW}"))?;
    is_settled(&kubectl, OLD)?;
    let joined = if nodes > NODES { Some(cluster.grow(bench, nodes)?) } else { None };
    let [leader, _] = cluster.memory(bench, NEW)?;
    let name = |what: &str| picture::name(nodes, what);
    let goal = if nodes == LARGEST { Goal::Below(MOST) } else { Goal::None };
    bench.add(name(picture::JOINED), "process", leader.most, "MB", goal);
    let (kubectl, started) = (Kubectl { bench, kubeconfig: &cluster.kubeconfig }, Instant::now());
    patch(&kubectl, &format!(r#"{{"spec":{{"imageTag":"{NEW}"}}}}"#))?;
    let ended = is_settled(&kubectl, NEW);
    let took = started.elapsed().as_secs_f64();
    if ended.is_err()
        && let Ok([leader, _]) = cluster.memory(bench, NEW)
    {
        // What was seen until then is worth saying, but under another name.
        bench.add(name(UNENDED), "process", leader.most, "MB", Goal::None);
    }
    ended?;
    let [leader, _] = cluster.memory(bench, NEW)?;
    drop(joined);
    bench.add(name(picture::MEMORY), "process", leader.most, "MB", goal);
    bench.add(name("operator's memory afterwards (VmRSS)"), "process", leader.now, "MB", Goal::None);
    bench.add(name("time of the whole change on this machine"), "process", took, "s", Goal::None);
    Ok(())
}

fn patch(kubectl: &Kubectl<'_>, patch: &str) -> Result<()> {
    kubectl.run(&["patch", "-n", "kubevirt", "kubevirt/kubevirt", "--type", "merge", "-p", patch])
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
