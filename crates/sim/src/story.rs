//! What the administrator does in a run, and how the cluster must look afterwards.

use std::time::Duration;

use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::{Kind, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::chronicle::Cue;
use crate::invariants::{NAMESPACE, certificates};
use crate::registry::REGISTRY;
use crate::state;
use crate::upgrade::renewal::Renewal;
use crate::upgrade::unread::Unread;
use crate::upgrade::{self, Undoing};
use crate::world::{TooLate, World};

/// How long a cluster may take after the last fault: longest are 30 s between failed passes, 15 s of a lease, 40 s until
/// a container that crashed twice is started again, and the roll-out itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A lease lives for 15 s.
const LEASE_RUNS_OUT: Duration = Duration::from_secs(20);

/// When the lease is given up another leads within its retry period of two seconds; one that is not runs for 15 s.
const HANDED_OVER: Duration = Duration::from_secs(8);

/// Longer than a new authority is published before it signs.
pub(crate) const PUBLISHED: Duration = Duration::from_secs(90);

/// Longer than the certificates of [`brief_certificates`] live.
const AWAY: Duration = Duration::from_secs(40 * 60);

/// Long enough for two more authorities and eight times the other certificates of [`brief_certificates`].
const ROTATING: Duration = Duration::from_secs(45 * 60);

/// One thing the administrator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Act {
    /// Applies the operator, then the custom resource.
    Install,
    /// Changes settings that concern several objects.
    Configure,
    /// Takes the change of settings back.
    Revert,
    /// Changes a setting that concerns one component.
    Edit,
    /// Kills every process of the operator.
    Restart,
    /// Asks the leading operator to stop, as a roll-out or a drained node does.
    HandOver,
    /// Lets certificates live for minutes, and the operator be away until they have expired.
    Expire,
    /// Lets certificates live for minutes for a while, under the operator's eyes.
    Rotate,
    /// Deletes the custom resource.
    Uninstall,
    /// Pins the version and installs a newer operator.
    NewOperator,
    /// Names the newer version.
    Upgrade,
    /// Names the newer version, and it is undone.
    Undo(Undoing),
    /// Mends what was the matter, and asks for the newer version again after the change to it was undone.
    Again,
    /// Names the newer version, and deletes the custom resource in the middle of the change.
    Leave(Cue),
    /// Lets certificates live for minutes, and names the newer version right before some are due.
    UpgradeAtRenewal(Renewal),
    /// Names the newer version while there is something that the newer operator cannot read, and mends that.
    UpgradeBeside(Unread),
}

/// The custom resource of every world. The common instance types are left out: with a fault at every write, 119 writes of
/// two kinds would be most of what is tried, and they are looked at elsewhere.
fn custom_resource() -> Object {
    let mut cr = cr_manifest(NAMESPACE);
    cr.value_mut()["spec"]["configuration"]["commonInstancetypesDeployment"] = json!({"enabled": false});
    cr
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Configure => "configure",
            Self::Revert => "revert",
            Self::Edit => "edit",
            Self::Restart => "restart",
            Self::HandOver => "hand over",
            Self::Expire => "expire",
            Self::Rotate => "rotate",
            Self::Uninstall => "uninstall",
            Self::NewOperator => "new operator",
            Self::Upgrade => "upgrade",
            Self::Undo(_) => "undo",
            Self::Again => "again",
            Self::Leave(_) => "leave in the middle",
            Self::UpgradeAtRenewal(_) => "upgrade at a renewal",
            Self::UpgradeBeside(_) => "upgrade beside unread",
        }
    }

    /// The act after which the cluster has to be as after this one.
    pub(crate) fn ends_as(self) -> Self {
        match self {
            Self::Again | Self::UpgradeAtRenewal(_) | Self::UpgradeBeside(_) => Self::Upgrade,
            other => other,
        }
    }

    /// Whether the administrator asks for one thing alone, so that nothing has to be written more than once.
    pub(crate) fn asks_once(self) -> bool {
        let twice = matches!(self, Self::Undo(_) | Self::Again | Self::Leave(_));
        !twice && !matches!(self, Self::UpgradeAtRenewal(_) | Self::UpgradeBeside(_))
    }
}

/// Why an act could not be done or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the administrator's request was refused: {0}")]
    Refused(#[from] kube::Error),
    #[error(transparent)]
    TooLate(#[from] TooLate),
    #[error("an object could not be put into storage: {0}")]
    NotStored(#[from] nanokube::ImportError),
}

/// Settings that change replicas and budgets, a component's command line, placement, labels of everything, the lifetime of
/// certificates, and objects of several kinds by patches.
fn settings() -> Value {
    let patch = |kind: &str, name: &str, way: &str, change: Value| {
        let text = change.to_string();
        json!({"resourceType": kind, "resourceName": name, "type": way, "patch": text})
    };
    let annotated = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/sim": "patched"}}}}});
    let labelled = json!({"metadata": {"labels": {"example.com/sim": "patched"}}});
    let removal = json!([{"op": "remove", "path": "/spec/template/spec/containers/0/resources"}]);
    json!({"spec": {
        "customizeComponents": {
            "patches": [
                patch("Deployment", "virt-controller", "strategic", annotated),
                patch("Deployment", "virt-api", "json", removal),
                patch("Service", "*", "merge", labelled.clone()),
                patch("Secret", "kubevirt-virt-handler-certs", "merge", labelled),
            ],
            "flags": {"handler": {"log-format": "json"}},
        },
        "infra": {"replicas": 3},
        "workloads": {"nodePlacement": {"tolerations": [{"key": "storage", "operator": "Exists"}]}},
        "productName": "simulated",
        "productVersion": "1.0",
        "certificateRotateStrategy": {"selfSigned": {
            "server": {"duration": "12h", "renewBefore": "6h"},
        }},
        "configuration": {"virtualMachineInstancesPerNode": 20, "roleAggregationStrategy": "Manual",
            "developerConfiguration": {"featureGates": ["OptOutRoleAggregation"]}},
    }})
}

fn one_setting() -> Value {
    json!({"spec": {"customizeComponents": {"flags": {"handler": {"log-format": "json"}}}}})
}

fn no_settings() -> Value {
    json!({"spec": {
        "infra": null, "workloads": null, "productName": null, "productVersion": null, "customizeComponents": null,
        "certificateRotateStrategy": {"selfSigned": null},
        "configuration": {"virtualMachineInstancesPerNode": null, "roleAggregationStrategy": null,
            "developerConfiguration": null},
    }})
}

pub(crate) fn usual_certificates() -> Value {
    json!({"spec": {"certificateRotateStrategy": {"selfSigned": null}}})
}

pub(crate) fn brief_certificates() -> Value {
    json!({"spec": {"certificateRotateStrategy": {"selfSigned": {
        "ca": {"duration": "30m", "renewBefore": "10m"}, "server": {"duration": "10m", "renewBefore": "5m"},
    }}}})
}

/// No certificate of the suite has expired.
fn are_certificates_valid(world: &World) -> Result<(), String> {
    let now = world.clock.now();
    let expired: Vec<String> = certificates(&world.cluster.api)
        .into_iter()
        .filter(|(_, pem)| pem.parse_x509().is_ok_and(|one| one.validity.not_after.timestamp() < now.as_second()))
        .map(|(secret, _)| secret)
        .collect();
    if expired.is_empty() { Ok(()) } else { Err(format!("expired: {}", expired.join(", "))) }
}

impl Act {
    /// What the administrator asks for.
    pub(crate) async fn begin(self, world: &World) -> Result<(), Error> {
        world.referee.note(&format!("ACT {}", self.name()));
        match self {
            Self::Install => {
                world.apply(&operator_manifest(&ManifestOptions::new(REGISTRY, "v0.1.0"))).await?;
                world.remember();
                world.apply(&[custom_resource()]).await?;
            }
            Self::Configure => world.merge(Kind::KubeVirt, "kubevirt", &settings()).await?,
            Self::Revert => world.merge(Kind::KubeVirt, "kubevirt", &no_settings()).await?,
            Self::Edit => world.merge(Kind::KubeVirt, "kubevirt", &one_setting()).await?,
            Self::HandOver => {
                let leader = world.leader();
                world.delete_pod(&leader).await?;
                let is_another = |world: &World| {
                    let now = world.leader();
                    if now.is_empty() || now == leader { Err(format!("{now:?} holds it")) } else { Ok(()) }
                };
                world
                    .until("led by another operator, to which the lease was given up", HANDED_OVER, is_another)
                    .await?;
            }
            Self::Restart => {
                for host in world.lives.hosts() {
                    world.lives.kill(&host);
                }
                // Nothing of a dead leader is seen but that its lease runs out.
                sleep(LEASE_RUNS_OUT).await;
            }
            Self::Expire => {
                world.merge(Kind::KubeVirt, "kubevirt", &brief_certificates()).await?;
                Self::Configure.end(world, PATIENCE).await?;
                // A new authority signs once it has been published for a minute.
                sleep(PUBLISHED).await;
                let scale = |replicas: u32| json!({"spec": {"replicas": replicas}});
                world.merge(Kind::Deployment, "virt-operator", &scale(0)).await?;
                sleep(AWAY).await;
                world.referee.note_fault("F16", "certificates have expired while the operator was away");
                world.merge(Kind::Deployment, "virt-operator", &scale(2)).await?;
            }
            Self::Rotate => {
                world.merge(Kind::KubeVirt, "kubevirt", &brief_certificates()).await?;
                sleep(ROTATING).await;
                world.referee.note_fault("F16", "authorities and certificates have been rotated");
                world.merge(Kind::KubeVirt, "kubevirt", &usual_certificates()).await?;
                sleep(PUBLISHED).await;
            }
            Self::Uninstall => world.delete(Kind::KubeVirt, "kubevirt").await?,
            Self::NewOperator => upgrade::new_operator(world).await?,
            Self::Upgrade => upgrade::begin(world).await?,
            Self::Undo(why) => upgrade::undo(why, world).await?,
            Self::Again => upgrade::again(world).await?,
            Self::Leave(cue) => upgrade::leave(cue, world).await?,
            Self::UpgradeAtRenewal(what) => upgrade::renewal::begin(what, world).await?,
            Self::UpgradeBeside(what) => upgrade::unread::begin(what, world).await?,
        }
        Ok(())
    }

    /// Whether the cluster is as the administrator asked for; what is missing otherwise.
    pub(crate) fn is_done(self, world: &World) -> Result<(), String> {
        match self {
            Self::Install | Self::Configure | Self::Revert | Self::Edit | Self::Restart | Self::HandOver => {
                is_settled(world)
            }
            Self::Expire | Self::Rotate => is_settled(world).and_then(|()| are_certificates_valid(world)),
            Self::Uninstall | Self::Leave(_) => is_gone(world),
            Self::NewOperator => upgrade::is_served(world),
            Self::Upgrade | Self::Again | Self::UpgradeBeside(_) => upgrade::is_upgraded(world),
            Self::UpgradeAtRenewal(_) => upgrade::is_upgraded(world).and_then(|()| are_certificates_valid(world)),
            Self::Undo(why) => upgrade::is_undone(why, world),
        }
    }

    /// Waits until it is done; gives how long it took.
    pub(crate) async fn end(self, world: &World, within: Duration) -> Result<Duration, Error> {
        Ok(world.until(&format!("done: {}", self.name()), within, |world| self.is_done(world)).await?)
    }
}

/// The custom resource says that everything is in place, for its newest generation, and the pods agree.
pub(crate) fn is_settled(world: &World) -> Result<(), String> {
    let cr = world.kubevirt().ok_or("there is no custom resource")?;
    let condition = |kind: &str| {
        let conditions = cr.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned();
        found.unwrap_or_default()
    };
    let expect = |what: &str, holds: bool| {
        if holds { Ok(()) } else { Err(format!("{what}; status: {}", cr["status"]["conditions"])) }
    };
    expect("not available", condition("Available")["status"] == "True")?;
    expect("progressing", condition("Progressing")["status"] == "False")?;
    expect("degraded", condition("Degraded")["status"] == "False")?;
    expect("not synchronized", condition("Synchronized").is_null())?;
    expect("an older generation", cr["status"]["observedGeneration"] == cr["metadata"]["generation"])?;
    expect("another version", cr["status"]["observedDeploymentID"] == cr["status"]["targetDeploymentID"])?;
    let unready = state::unready(&world.cluster.api);
    if unready.is_empty() { Ok(()) } else { Err(format!("not ready: {}", unready.join(", "))) }
}

/// Nothing of the suite is left, and neither is the custom resource.
fn is_gone(world: &World) -> Result<(), String> {
    if let Some(cr) = world.kubevirt() {
        return Err(format!("the custom resource is still there: {}", cr["status"]["conditions"]));
    }
    let left = state::names(&world.cluster.api);
    if left.is_empty() { Ok(()) } else { Err(format!("left: {}", left.join(", "))) }
}
