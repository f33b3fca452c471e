//! The second half of the demo: what somebody breaks is repaired, nothing is written when nothing changes, and what was
//! installed goes without a trace.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kubectl::Kubectl;
use super::server::Server;
use super::{check, suite};
use crate::{audit, term};

/// How long nobody touches anything. Short, because somebody watches; the tests wait for minutes.
const IDLE: Duration = Duration::from_secs(5);

/// One object that is broken, and how it looks when it is whole.
struct Damage {
    what: &'static str,
    breaks: &'static [&'static str],
    whole: &'static [&'static str],
}

const DAMAGES: [Damage; 3] = [
    Damage {
        what: "a role is deleted",
        breaks: &["delete", "clusterrole", "kubevirt-handler"],
        whole: &["clusterrole/kubevirt-handler", "--for=create"],
    },
    Damage {
        what: "a port is changed",
        breaks: &[
            "patch",
            "service",
            "virt-api",
            "-n",
            "kubevirt",
            "--type",
            "json",
            "-p",
            r#"[{"op":"replace","path":"/spec/ports/0/port","value":444}]"#,
        ],
        whole: &["service/virt-api", "--for=jsonpath={.spec.ports[0].port}=443"],
    },
    Damage {
        what: "a deployment is scaled to nothing",
        breaks: &["scale", "deployment/virt-controller", "-n", "kubevirt", "--replicas=0"],
        whole: &["deployment/virt-controller", "--for=jsonpath={.status.readyReplicas}=2"],
    },
];

/// Breaks three managed objects; gives how long the slowest repair took.
pub(super) fn repair(kubectl: &Kubectl) -> Result<Duration> {
    term::heading("Somebody breaks things");
    let mut slowest = Duration::ZERO;
    for Damage { what, breaks, whole } in DAMAGES {
        kubectl.show(breaks)?;
        let started = Instant::now();
        kubectl.wait(whole, what)?;
        let took = started.elapsed();
        slowest = slowest.max(took);
        check(true, &format!("{what}: whole again after {:.2} s", took.as_secs_f64()))?;
    }
    kubectl.wait(
        &["kubevirt/kubevirt", r#"--for=jsonpath={.status.conditions[?(@.type=="Progressing")].status}=False"#],
        "nothing progresses",
    )?;
    Ok(slowest)
}

/// Counts what the operator writes, its lease aside, while nobody touches anything.
pub(super) fn idle(server: &Server) -> Result<usize> {
    term::heading(&format!("Nobody touches anything for {} s", IDLE.as_secs()));
    let before = audit::read(&server.audit_log)?.len();
    std::thread::sleep(IDLE);
    let entries = audit::read(&server.audit_log)?;
    let writes = entries[before..].iter().filter(|entry| entry.by_operator() && entry.is_write());
    let writes = writes.filter(|entry| entry.object_ref.resource != "leases").count();
    check(writes == 0, &format!("the operator wrote nothing but its lease (other writes: {writes})"))?;
    Ok(writes)
}

/// Deletes the custom resource and looks for what is left.
pub(super) fn uninstall(kubectl: &Kubectl) -> Result<Duration> {
    const KINDS: &str = "all,configmap,secret,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,crd,pdb,\
                         validatingwebhookconfiguration,mutatingwebhookconfiguration,apiservice";
    const OURS: &str = "app.kubernetes.io/managed-by=virt-operator";
    term::heading("Uninstall: the custom resource is deleted");
    let started = Instant::now();
    kubectl.show(&["delete", "kubevirt", "kubevirt", "-n", "kubevirt", "--timeout=60s"])?;
    let took = started.elapsed();
    let left = kubectl.json(&["get", KINDS, "-A", "-l", OURS])?;
    let left: Vec<String> = left["items"]
        .as_array()
        .context("kubectl printed no list")?
        .iter()
        // Pods of workloads that are gone end in their own time.
        .filter(|object| object["metadata"]["deletionTimestamp"].is_null())
        .map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]))
        .collect();
    check(
        left.is_empty(),
        &format!("nothing of the suite is left after {:.1} s {}", took.as_secs_f64(), left.join(", ")),
    )?;
    let pods = suite(kubectl)?.len();
    term::note(&format!(
        "pods of the suite that are still ending: {pods}; the operator stays and waits for the next one"
    ));
    Ok(took)
}
