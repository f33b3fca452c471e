//! Worlds in which the version changes: what the administrator asks for, and how the cluster must look then. The runs
//! themselves are in [`jobs`].
//!
//! Where each check on a change of version of the catalogue (U1 to U13) is shown is in docs/testing.md. Here: U1 (the run
//! without trouble), U2 (`undo@K`, `missing`, `crashing`, then [`again`]), U3 (S9), U7 (S11), U11 (`missing`, `crashing`), U13
//! (`leave@K`, `uninstall`).

pub mod jobs;
pub(crate) mod renewal;
pub(crate) mod unread;

pub use jobs::{exhaustive, mischief, seeded, special, turned, unhit};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kubevirt_release::Kind;
use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::chronicle::Cue;
use crate::invariants::{NAMESPACE, text};
use crate::registry::{REGISTRY, Sickness};
use crate::releases;
use crate::run::Outcome;
use crate::state;
use crate::story::{Act, Error, PATIENCE, is_settled};
use crate::world::{VERSIONS, World};

/// The story that every run of a sweep begins with.
pub const STORY: [Act; 3] = [Act::Install, Act::NewOperator, Act::Upgrade];

/// The components, in the order of a change.
const COMPONENTS: [&str; 3] = ["virt-handler", "virt-controller", "virt-api"];

/// Longer than a pass, in which no time goes by but where the server is slow.
const PASS: Duration = Duration::from_secs(1);

/// Why a change is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Undoing {
    /// The administrator asks for the way back at this moment.
    Asked(Cue),
    /// The new image of this component, in the order of a change, is of no use.
    Sick(usize, Sickness),
}

/// Records are numbered; the number is in their name.
fn number(plan: &Value) -> u64 {
    text(plan, "/metadata/name").rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The newest change of version that the world has a record of.
fn plan(world: &World) -> Option<Value> {
    let kind = Kind::UpgradePlan;
    let plans = world.cluster.api.stored_all(kind.group(), kind.plural());
    plans.into_iter().max_by_key(|plan| number(plan)).map(|plan| Value::clone(&plan))
}

/// Whether nothing more will come of what is recorded.
pub(crate) fn is_over(plan: &Value) -> bool {
    matches!(text(plan, "/status/state"), "Succeeded" | "RolledBack" | "Aborted" | "Superseded")
}

fn tag(version: &str) -> Value {
    json!({"spec": {"imageTag": version}})
}

/// Pins the version that runs, and applies the manifest of the newer operator.
pub(crate) async fn new_operator(world: &World) -> Result<(), Error> {
    world.merge(Kind::KubeVirt, "kubevirt", &tag(VERSIONS[0])).await?;
    world.until("pinned", PATIENCE, is_settled).await?;
    world.apply(&operator_manifest(&ManifestOptions::new(REGISTRY, VERSIONS[1]))).await?;
    releases::part(world).await
}

pub(crate) async fn begin(world: &World) -> Result<(), Error> {
    Ok(world.merge(Kind::KubeVirt, "kubevirt", &tag(VERSIONS[1])).await?)
}

/// Asks for the change, and brings about why it is undone.
pub(crate) async fn undo(why: Undoing, world: &World) -> Result<(), Error> {
    match why {
        Undoing::Sick(component, sickness) => {
            world.registry.set(COMPONENTS[component], VERSIONS[1], Some(sickness));
            begin(world).await
        }
        Undoing::Asked(cue) => {
            let asked = world.ready(cue);
            begin(world).await?;
            world.cue(cue, asked).await?;
            // What is finished at this moment can't be undone any more, although nobody has said so yet.
            let is_complete = of_another(world, VERSIONS[1]).is_empty() && releases::is_of(world, false).is_ok();
            world.is_too_late.store(is_complete, Ordering::Relaxed);
            let is_recorded = |world: &World| plan(world).map(drop).ok_or_else(|| "no record".to_owned());
            world.until("recorded", PATIENCE, is_recorded).await?;
            if let Some(plan) = plan(world).filter(|plan| !is_over(plan)) {
                let ask = json!({"spec": {"request": "Rollback"}});
                world.referee.note(&format!("the way back is asked for at {}", text(&plan, "/status/step")));
                world.merge(Kind::UpgradePlan, text(&plan, "/metadata/name"), &ask).await?;
            }
            // Whoever looks at this very instant sees a pass that is half done.
            sleep(PASS).await;
            Ok(())
        }
    }
}

/// Mends what was the matter with the newer release, and asks for it again: by another spec, and then the one that was
/// undone.
pub(crate) async fn again(world: &World) -> Result<(), Error> {
    for component in COMPONENTS {
        world.registry.set(component, VERSIONS[1], None);
    }
    if plan(world).is_some_and(|plan| text(&plan, "/status/state") == "RolledBack") {
        world.merge(Kind::KubeVirt, "kubevirt", &tag(VERSIONS[0])).await?;
        world.until("content with the version before", PATIENCE, is_served).await?;
        begin(world).await?;
        let is_tried = |world: &World| match plan(world) {
            Some(plan) if text(&plan, "/status/state") != "RolledBack" => Ok(()),
            _ => Err("no other record".to_owned()),
        };
        world.until("tried again", PATIENCE, is_tried).await?;
    }
    Ok(())
}

/// Asks for the change, and has the suite removed in the middle of it.
pub(crate) async fn leave(cue: Cue, world: &World) -> Result<(), Error> {
    let asked = world.ready(cue);
    begin(world).await?;
    world.cue(cue, asked).await?;
    let step = plan(world).map(|plan| text(&plan, "/status/step").to_owned()).unwrap_or_default();
    world.referee.note(&format!("the suite is removed at {step}"));
    Ok(world.delete(Kind::KubeVirt, "kubevirt").await?)
}

/// The pods of the suite that are not of a version.
fn of_another(world: &World, version: &str) -> Vec<String> {
    let pods = world.cluster.api.stored_all("", "pods");
    let ours = pods.iter().filter(|pod| {
        text(pod, "/metadata/namespace") == NAMESPACE && COMPONENTS.contains(&text(pod, "/metadata/labels/kubevirt.io"))
    });
    let version_of = |pod: &Value| text(pod, "/metadata/annotations/kubevirt.io~1install-strategy-version").to_owned();
    ours.filter(|pod| version_of(pod) != version).map(|pod| text(pod, "/metadata/name").to_owned()).collect()
}

/// All pods of the suite are of a version, and the status says so.
fn runs(world: &World, version: &str) -> Result<(), String> {
    let cr = world.kubevirt().ok_or("there is no custom resource")?;
    let observed = text(&cr, "/status/observedKubeVirtVersion");
    if observed != version {
        return Err(format!("{observed} is observed, not {version}"));
    }
    let others = of_another(world, version);
    if !others.is_empty() {
        return Err(format!("not of {version}: {}", others.join(", ")));
    }
    releases::is_of(world, version == VERSIONS[0])
}

pub(crate) fn is_led_by_the_newer(world: &World) -> Result<(), String> {
    let cr = world.kubevirt().ok_or("there is no custom resource")?;
    if text(&cr, "/status/operatorVersion") != VERSIONS[1] {
        return Err(format!("served by {}", text(&cr, "/status/operatorVersion")));
    }
    Ok(())
}

/// The newer operator serves, and the version that was pinned runs.
pub(crate) fn is_served(world: &World) -> Result<(), String> {
    is_led_by_the_newer(world)?;
    runs(world, VERSIONS[0]).and_then(|()| is_settled(world))
}

pub(crate) fn is_upgraded(world: &World) -> Result<(), String> {
    let plan = plan(world).ok_or("there is no record of the change")?;
    if text(&plan, "/status/state") != "Succeeded" {
        return Err(format!("the record says {}", plan["status"]));
    }
    runs(world, VERSIONS[1]).and_then(|()| is_settled(world))
}

/// What a condition of the custom resource says, as a text; empty when there is none.
fn condition(world: &World, kind: &str, field: &str) -> String {
    let cr = world.kubevirt().unwrap_or_default();
    let conditions = cr.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.map(|condition| text(condition, field).to_owned()).unwrap_or_default()
}

/// The old version runs, the record and the conditions say why, and the wish is still what the administrator wrote. A
/// change that was over before the way back was asked for is as good as any other.
pub(crate) fn is_undone(why: Undoing, world: &World) -> Result<(), String> {
    let plan = plan(world).ok_or("there is no record of the change")?;
    let is_too_late = text(&plan, "/spec/request").is_empty() || world.is_too_late.load(Ordering::Relaxed);
    if matches!(why, Undoing::Asked(_)) && is_too_late && text(&plan, "/status/state") == "Succeeded" {
        return is_upgraded(world);
    }
    if text(&plan, "/status/state") != "RolledBack" {
        return Err(format!("the record says {}", plan["status"]));
    }
    let cr = world.kubevirt().ok_or("there is no custom resource")?;
    let wanted = [
        ("Synchronized", "/reason", "UpgradeRolledBack"),
        ("Available", "/status", "True"),
        ("Progressing", "/status", "False"),
        ("Degraded", "/status", "False"),
    ];
    for (kind, field, value) in wanted {
        let found = condition(world, kind, field);
        if found != value {
            return Err(format!("{kind} says {found:?}, not {value}"));
        }
    }
    if text(&cr, "/spec/imageTag") != VERSIONS[1] {
        return Err("the custom resource is not what its administrator wrote".to_owned());
    }
    runs(world, VERSIONS[0])?;
    let unready = state::unready(&world.cluster.api);
    if unready.is_empty() { Ok(()) } else { Err(format!("not ready: {}", unready.join(", "))) }
}

/// O5: what was undone left nothing behind but what is kept for the way to and fro, and the record.
pub(crate) fn left_behind(outcome: &Outcome) -> Vec<String> {
    let Some(before) = outcome.done.iter().find(|done| done.act == Act::NewOperator) else { return Vec::new() };
    let is_newer = |status: &Value| text(status, "/observedKubeVirtVersion") == VERSIONS[1];
    let undone = outcome.done.iter().find(|done| matches!(done.act, Act::Undo(_)));
    let undone = undone.filter(|done| !done.told.values().any(is_newer));
    let Some(undone) = undone else { return Vec::new() };
    let kept = |key: &str| key.contains("kubevirt-install-strategy-") || key.ends_with(releases::NEW_DEFINITION);
    let without = |of: &state::EndState| {
        of.iter().filter(|(key, _)| !kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    state::differences(&without(&before.managed), &without(&undone.managed), 5)
}
