//! F18: something in storage that the newer operator cannot read, as a release of the future or a slip of the hand in a
//! backup leaves it. What does not depend on it goes on; what does stands still and says so, until it is mended.

use std::time::Duration;

use kubevirt_api::names::{annotation, label};
use kubevirt_release::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{begin as ask, condition, of_another, plan};
use crate::invariants::text;
use crate::story::{Error, PATIENCE};
use crate::world::{VERSIONS, World};

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unread {
    /// A record of a change, in a state that only a later release knows.
    Plan,
    /// The policy: a switch has become a choice.
    Policy,
    /// The record of what the older release consists of.
    Strategy,
    /// The custom resource: a length of time in words.
    Resource,
}

/// Several times what a change takes: what has not begun by then does not begin.
const STANDS_STILL: Duration = Duration::from_secs(60);

/// The state of a record that no release of today knows.
const UNKNOWN: &str = "Hibernating";

/// Plants it, names the newer version, looks at what becomes of that, and mends it.
pub(crate) async fn begin(what: Unread, world: &World) -> Result<(), Error> {
    world.referee.note_fault("F18", &format!("cannot be read: {what:?}"));
    match what {
        Unread::Plan => beside_a_plan(world).await,
        Unread::Policy => beside_a_policy(world).await,
        Unread::Strategy => beside_a_strategy(world).await,
        Unread::Resource => as_a_resource(world).await,
    }
}

/// The change has a record of its own, which names the other one; the other one is left alone.
async fn beside_a_plan(world: &World) -> Result<(), Error> {
    const STRANGE: &str = "upgrade-1";
    let cr = world.kubevirt().unwrap_or_default();
    let id = text(&cr, "/status/observedDeploymentID");
    let strange = json!({
        "apiVersion": Kind::UpgradePlan.api_version(), "kind": Kind::UpgradePlan.name(), "metadata": {"name": STRANGE},
        "spec": {"from": {"version": VERSIONS[0], "deploymentID": id}, "to": {}},
        "status": {"state": UNKNOWN, "steps": []},
    });
    world.store(&strange)?;
    ask(world).await?;
    let is_told = |world: &World| {
        let plan = plan(world).filter(|plan| text(plan, "/metadata/name") != STRANGE).ok_or("no record of its own")?;
        let findings = plan.pointer("/status/findings").and_then(Value::as_array).into_iter().flatten();
        let names_it = |finding: &&Value| {
            finding["code"] == "RecordUnread" && text(finding, "/message").contains(&format!("UpgradePlan {STRANGE}"))
        };
        if findings.filter(names_it).count() == 0 {
            return Err(format!("no finding names {STRANGE}: {}", plan["status"]["findings"]));
        }
        match text(&plan, "/status/state") {
            "Succeeded" => Ok(()),
            state => Err(format!("the record says {state}")),
        }
    };
    world.until("done beside a record of the future", PATIENCE, is_told).await?;
    let kind = Kind::UpgradePlan;
    let is_left_alone = |world: &World| {
        let found = world.cluster.api.stored(kind.group(), kind.plural(), "", STRANGE);
        let state = found.map(|plan| text(&plan, "/status/state").to_owned());
        if state.as_deref() == Some(UNKNOWN) { Ok(()) } else { Err(format!("{STRANGE} says {state:?}")) }
    };
    world.until("left alone", Duration::ZERO, is_left_alone).await?;
    Ok(world.delete(Kind::UpgradePlan, STRANGE).await?)
}

/// Nothing moves, and the conditions name what has to be mended.
async fn stands_still(names: &str, world: &World) -> Result<(), Error> {
    let is_told = |world: &World| {
        let message = condition(world, "Synchronized", "/message");
        if message.contains(names) { Ok(()) } else { Err(format!("Synchronized says {message:?}")) }
    };
    world.until(&format!("told of {names}"), PATIENCE, is_told).await?;
    sleep(STANDS_STILL).await;
    let has_not_begun = |world: &World| {
        let begun = of_another(world, VERSIONS[0]);
        if begun.is_empty() { Ok(()) } else { Err(format!("begun: {}", begun.join(", "))) }
    };
    world.until(&format!("still for {names}"), Duration::ZERO, has_not_begun).await?;
    Ok(())
}

async fn beside_a_policy(world: &World) -> Result<(), Error> {
    const POLICY: &str = "default";
    let strange = json!({
        "apiVersion": Kind::UpgradePolicy.api_version(), "kind": Kind::UpgradePolicy.name(),
        "metadata": {"name": POLICY}, "spec": {"automaticRollback": "WhenAsked"},
    });
    world.store(&strange)?;
    ask(world).await?;
    stands_still("UpgradePolicy", world).await?;
    Ok(world.delete(Kind::UpgradePolicy, POLICY).await?)
}

/// The way forward does not need it; the change comes to its end before it is mended.
async fn beside_a_strategy(world: &World) -> Result<(), Error> {
    let is_it = |map: &Value| {
        map["metadata"]["labels"][label::INSTALL_STRATEGY] == ""
            && map["metadata"]["annotations"][annotation::STRATEGY_VERSION] == VERSIONS[0]
    };
    let maps = world.cluster.api.stored_all("", "configmaps");
    let whole = maps.iter().find(|map| is_it(map)).map(|map| Value::clone(map)).unwrap_or_default();
    let mut broken = whole.clone();
    broken["data"] = json!({"manifests": "!"});
    ask(world).await?;
    world.store(&broken)?;
    let is_done = |world: &World| match plan(world) {
        Some(plan) if text(&plan, "/status/state") == "Succeeded" => Ok(()),
        plan => Err(format!("the record says {}", plan.unwrap_or_default()["status"])),
    };
    world.until("done without the older strategy", PATIENCE, is_done).await?;
    Ok(world.store(&whole)?)
}

async fn as_a_resource(world: &World) -> Result<(), Error> {
    let mut strange = world.kubevirt().unwrap_or_default();
    strange["spec"]["imageTag"] = json!(VERSIONS[1]);
    // The definition only says that it is a text.
    strange["spec"]["workloadUpdateStrategy"] = json!({"batchEvictionInterval": "a fortnight"});
    let generation = strange["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
    strange["metadata"]["generation"] = json!(generation);
    world.store(&strange)?;
    stands_still("cannot be read", world).await?;
    Ok(world.merge(Kind::KubeVirt, "kubevirt", &json!({"spec": {"workloadUpdateStrategy": null}})).await?)
}
