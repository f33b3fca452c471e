//! Worlds in which the version changes: every blow at every write from the newer operator on, the way back asked for at
//! moments all over the change, and releases of which one component is of no use.

use std::time::Duration;

use kubevirt_release::Kind;
use kubevirt_release::operator_manifest::{ManifestOptions, operator_manifest};
use nanokube::{FaultPlan, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::course::Point;
use crate::invariants::{NAMESPACE, OPERATOR, text};
use crate::registry::{REGISTRY, Sickness};
use crate::releases;
use crate::run::{Outcome, Script, run};
use crate::state;
use crate::story::{Act, Error, PATIENCE, is_settled};
use crate::sweep::{Job, SEED, blows};
use crate::world::{Trouble, VERSIONS, World};

/// The story that every run of a sweep begins with.
pub const STORY: [Act; 3] = [Act::Install, Act::NewOperator, Act::Upgrade];

/// Faults of one drawn plan, and about as many requests of each kind as installation and change have.
const FAULTS_PER_PLAN: u32 = 8;
const HORIZON: u32 = 160;

/// The components, in the order of a change.
const COMPONENTS: [&str; 3] = ["virt-handler", "virt-controller", "virt-api"];

/// In what the moments are counted at which the way back is asked for.
const TENTH: Duration = Duration::from_millis(100);

/// Why a change is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Undoing {
    /// The administrator asks for the way back so many tenths of a second after the change was asked for.
    Asked(u32),
    /// The new image of this component, in the order of a change, is of no use.
    Sick(usize, Sickness),
}

/// The change of version that the world has a record of.
fn plan(world: &World) -> Option<Value> {
    let kind = Kind::UpgradePlan;
    let plans = world.cluster.api.stored_all(kind.group(), kind.plural());
    plans.into_iter().next().map(|plan| Value::clone(&plan))
}

fn is_over(plan: &Value) -> bool {
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
        Undoing::Asked(tenths) => {
            begin(world).await?;
            sleep(TENTH * tenths).await;
            let is_recorded = |world: &World| plan(world).map(drop).ok_or_else(|| "no record".to_owned());
            world.until("recorded", PATIENCE, is_recorded).await?;
            let Some(plan) = plan(world).filter(|plan| !is_over(plan)) else { return Ok(()) };
            let ask = json!({"spec": {"request": "Rollback"}});
            world.referee.note(&format!("the way back is asked for at {}", text(&plan, "/status/step")));
            Ok(world.merge(Kind::UpgradePlan, text(&plan, "/metadata/name"), &ask).await?)
        }
    }
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

/// The old version runs, the record and the conditions say why, and the wish is still what the administrator wrote. A
/// change that was over before the way back was asked for is as good as any other.
pub(crate) fn is_undone(why: Undoing, world: &World) -> Result<(), String> {
    let plan = plan(world).ok_or("there is no record of the change")?;
    if matches!(why, Undoing::Asked(_)) && text(&plan, "/spec/request").is_empty() {
        return is_upgraded(world);
    }
    if text(&plan, "/status/state") != "RolledBack" {
        return Err(format!("the record says {}", plan["status"]));
    }
    let cr = world.kubevirt().ok_or("there is no custom resource")?;
    let condition = |kind: &str, field: &str| {
        let conditions = cr.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
        found.map(|condition| text(condition, field).to_owned()).unwrap_or_default()
    };
    let wanted = [
        ("Synchronized", "/reason", "UpgradeRolledBack"),
        ("Available", "/status", "True"),
        ("Progressing", "/status", "False"),
        ("Degraded", "/status", "False"),
    ];
    for (kind, field, value) in wanted {
        let found = condition(kind, field);
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
    let kept = |key: &str| key.contains("kubevirt-install-strategy-");
    let without = |of: &state::EndState| {
        of.iter().filter(|(key, _)| !kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    state::differences(&without(&before.managed), &without(&undone.managed), 5)
}

/// What a change without trouble looks like.
pub fn reference() -> Outcome {
    run(&Script::undisturbed(SEED, &STORY))
}

/// Every run of a sweep but those drawn from seeds. What is written in one pass is written at one instant, so the way back
/// is asked for at every other tenth of a second that the change takes.
pub fn exhaustive(reference: &Outcome) -> Vec<Job> {
    let writes = |act: Act| reference.done.iter().find(|done| done.act == act).map_or(0, |done| done.writes);
    let first = writes(Act::Install) + 1;
    let mut jobs = blows(reference, &STORY, first);
    let took = reference.done.iter().find(|done| done.act == Act::Upgrade).map_or(Duration::ZERO, |done| done.took);
    let tenths = u32::try_from(took.as_millis() / TENTH.as_millis()).unwrap_or_default();
    let asked = (0..=tenths).step_by(2).map(|at| (format!("undo@{at}"), "asked", Undoing::Asked(at)));
    let sick = COMPONENTS.iter().enumerate().flat_map(|(place, component)| {
        [("missing", Sickness::Missing), ("crashing", Sickness::Crashes)]
            .map(|(name, sickness)| (format!("{name} {component}"), "F17", Undoing::Sick(place, sickness)))
    });
    jobs.extend(asked.chain(sick).map(|(name, class, why)| Job {
        name,
        class,
        script: Script::undisturbed(SEED, &[Act::Install, Act::NewOperator, Act::Undo(why)]),
        parts: Some(Point::Ended(Act::NewOperator)),
    }));
    jobs
}

/// Changes under faults drawn from `count` seeds, beginning with `first`.
pub fn seeded(first: u64, count: u64) -> Vec<Job> {
    let scope = Scope { users: vec![OPERATOR.to_owned()], faults: FAULTS_PER_PLAN, horizon: HORIZON };
    let jobs = (first..first + count).map(|seed| {
        let trouble = Trouble { plan: Some(FaultPlan::draw(seed, scope.clone())), ..Trouble::default() };
        let script = Script { trouble, ..Script::undisturbed(seed, &STORY) };
        Job { name: format!("seed {seed}"), class: "F2-F8", script, parts: None }
    });
    jobs.collect()
}
