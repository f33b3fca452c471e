//! The part of the demo in which a release does not work: its virt-handler ends as soon as it starts. The change stops at
//! the first node and is undone by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::kubectl::Kubectl;
use super::{NEW, check, publish};
use crate::term;

/// The release that does not work.
pub(super) const BAD: &str = "v0.2.1";

/// What of it does not work: the server is told to give this image a program that ends at once.
pub(super) const BROKEN_IMAGE: &str = "localhost/kubevirt/virt-handler:v0.2.1";

/// The change to the bad release is the second one in the cluster.
const PLAN: &str = "upgradeplan/upgrade-2";

/// Asks for the bad release; gives how long it took until everything was as before.
pub(super) fn undone(kubectl: &Kubectl, dist: &Path) -> Result<Duration> {
    publish(dist, BAD)?;
    term::heading(&format!("A release that does not work: in {BAD} virt-handler ends as soon as it starts"));
    kubectl.apply(&dist.join(BAD).join("kubevirt-operator.yaml"))?;
    kubectl.rollout("deployment/virt-operator")?;
    kubectl.wait_for_version("operatorVersion", BAD, "the operator of the bad release takes over")?;
    let started = Instant::now();
    kubectl.patch_tag(BAD)?;
    kubectl.wait(&[PLAN, "--for=create"], "the change is on record")?;
    kubectl.wait(&[PLAN, "--for=jsonpath={.status.state}=RolledBack"], "the change is undone by itself")?;
    let took = started.elapsed();
    kubectl.show(&["get", "upgradeplans"])?;
    kubectl.show(&[
        "get",
        "kubevirt",
        "kubevirt",
        "-n",
        "kubevirt",
        "-o",
        "jsonpath={.status.conditions[?(@.type==\"Synchronized\")].message}{\"\\n\"}",
    ])?;
    let versions = kubectl.suite_versions()?;
    let all_old = !versions.is_empty() && versions.values().all(|version| version == NEW);
    check(
        all_old,
        &format!("{} pods of the suite, all at {NEW} again after {:.1} s", versions.len(), took.as_secs_f64()),
    )?;
    let cr = kubectl.json(&["get", "kubevirt", "kubevirt", "-n", "kubevirt"])?;
    check(cr["spec"]["imageTag"] == BAD, "spec.imageTag is still what the user wrote")?;
    let conditions = cr["status"]["conditions"].as_array();
    let available = conditions.into_iter().flatten().find(|condition| condition["type"] == "Available");
    check(available.map(|condition| &condition["status"]) == Some(&Value::from("True")), "the suite is available")?;
    kubectl.patch_tag(NEW)?;
    kubectl.wait(&["kubevirt/kubevirt", "--for=jsonpath={.spec.imageTag}=v0.2.0"], "the old version is named again")?;
    Ok(took)
}
