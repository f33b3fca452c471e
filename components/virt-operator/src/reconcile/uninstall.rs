//! Taking everything away again (pure): what goes in which order, and what holds it up. It needs no strategy, only what is
//! there. The operator carries it out, `virtctl uninstall plan` shows it beforehand.

use std::collections::BTreeMap;
use std::fmt;

use kubevirt_api::kubevirt::UninstallStrategy;
use kubevirt_api::names::{finalizer, label};
use kubevirt_release::render::VALIDATOR;
use kubevirt_release::{Kind, ObjectKey, Phase};
use serde::Serialize;
use serde_json::Value;

use super::World;
use super::snapshot::is_stamped;
use crate::backends::{registers, services, unfit};
use crate::cache::{Live, text};

/// Who holds a definition until its objects are gone: the API server.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The parts of an uninstallation, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The CR is changed once more when everything is gone; by then nobody could answer for it.
    OwnWebhooks,
    /// Webhooks that nobody answers would refuse every change of users' objects, their going included.
    Unanswered,
    /// Users' objects with their definitions, while the components that clean up after them still run.
    Definitions,
    Registrations,
    Workloads,
    /// Once virt-handler is gone nobody puts them there again.
    Nodes,
    Configuration,
    Access,
}

impl Part {
    const ALL: [Self; 8] = [
        Self::OwnWebhooks,
        Self::Unanswered,
        Self::Definitions,
        Self::Registrations,
        Self::Workloads,
        Self::Nodes,
        Self::Configuration,
        Self::Access,
    ];

    /// The machine-readable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::OwnWebhooks => "own-webhooks",
            Self::Unanswered => "unanswered-registrations",
            Self::Definitions => "definitions",
            Self::Registrations => "registrations",
            Self::Workloads => "workloads",
            Self::Nodes => "node-labels",
            Self::Configuration => "leftover-configuration",
            Self::Access => "access",
        }
    }

    /// What is removed, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::OwnWebhooks => "the operator's own webhooks",
            Self::Unanswered => "webhooks and aggregated APIs that nobody answers",
            Self::Definitions => "custom resources with their definitions",
            Self::Registrations => "webhooks and aggregated APIs",
            Self::Workloads => "workloads",
            Self::Nodes => "labels of nodes",
            Self::Configuration => "services, certificates, configuration",
            Self::Access => "accounts and roles",
        }
    }

    /// The part an object goes in.
    fn of(key: &ObjectKey, live: &Value, world: &World) -> Self {
        match key.kind.phase() {
            _ if registers(key.kind) && key.name == VALIDATOR => Self::OwnWebhooks,
            Phase::Admission if is_unanswered(live, world) => Self::Unanswered,
            _ if key.kind == Kind::CustomResourceDefinition => Self::Definitions,
            Phase::Admission => Self::Registrations,
            Phase::Workloads => Self::Workloads,
            Phase::Access => Self::Access,
            _ => Self::Configuration,
        }
    }
}

impl Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

fn is_unanswered(registration: &Value, world: &World) -> bool {
    let Some(slices) = &world.endpoints else { return false };
    services(registration).iter().any(|service| unfit(service, slices, &world.mute).is_some())
}

/// Users' objects of one definition, as far as they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// How many there are.
    pub count: usize,
    /// Those that somebody holds.
    pub held: Vec<Held>,
}

/// An object with finalizers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `namespace/name`, or `name`.
    pub name: String,
    pub finalizers: Vec<String>,
    pub going: bool,
}

/// What holds an uninstallation up, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "PascalCase")]
pub enum Blocker {
    /// The strategy refuses the deletion while there are workloads.
    WorkloadsExist { resource: String, count: usize },
    /// A user's object has finalizers that somebody has to remove.
    InstanceHeld { resource: String, object: String, finalizers: Vec<String> },
    /// The API server is still deleting the objects of a definition.
    InstancesLeft { resource: String, count: usize },
    /// One of our objects has finalizers that are not ours.
    ObjectHeld { object: String, finalizers: Vec<String> },
    /// A pod of the suite has not ended.
    PodLeft { pod: String },
    /// Something was deleted and is still there.
    GoingObject { object: String },
}

impl Blocker {
    /// The machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::WorkloadsExist { .. } => "WorkloadsExist",
            Self::InstanceHeld { .. } => "InstanceHeld",
            Self::InstancesLeft { .. } => "InstancesLeft",
            Self::ObjectHeld { .. } => "ObjectHeld",
            Self::PodLeft { .. } => "PodLeft",
            Self::GoingObject { .. } => "GoingObject",
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkloadsExist { resource, count } => {
                write!(f, "{count} {resource} exist and the strategy is BlockUninstallIfWorkloadsExist")
            }
            Self::InstanceHeld { resource, object, finalizers } => {
                write!(f, "{resource} {object} is held by {}", finalizers.join(", "))
            }
            Self::InstancesLeft { resource, count } => write!(f, "{count} {resource} are being deleted"),
            Self::ObjectHeld { object, finalizers } => write!(f, "{object} is held by {}", finalizers.join(", ")),
            Self::PodLeft { pod } => write!(f, "Pod {pod} has not ended"),
            Self::GoingObject { object } => write!(f, "{object} is being deleted"),
        }
    }
}

/// A part that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub part: Part,
    /// Definitions that get the operator's finalizer before they are deleted: all stay served until the last object of any
    /// of them is gone.
    pub hold: Vec<ObjectKey>,
    /// What is still to be deleted.
    pub delete: Vec<ObjectKey>,
    /// Definitions whose objects are all gone: the operator's finalizer goes.
    pub release: Vec<ObjectKey>,
    /// Nodes with labels of the suite.
    pub nodes: Vec<String>,
    /// What was begun and is not finished.
    pub blockers: Vec<Blocker>,
    /// How much is left.
    pub left: usize,
}

/// Every part that is not finished, in order.
pub fn stages(world: &World) -> Vec<Stage> {
    let mut parts: BTreeMap<Part, BTreeMap<&ObjectKey, &Live>> = BTreeMap::new();
    for (key, live) in &world.objects {
        if is_stamped(live) || is_strategy(live) {
            parts.entry(Part::of(key, live, world)).or_default().insert(key, live);
        }
    }
    let stage = |part| stage_of(part, parts.get(&part).unwrap_or(&BTreeMap::new()), world);
    Part::ALL.into_iter().map(stage).filter(Stage::is_open).collect()
}

/// The first part that is not finished; `None` when nothing of ours is left.
pub(crate) fn stage(world: &World) -> Option<Stage> {
    stages(world).into_iter().next()
}

fn stage_of(part: Part, objects: &BTreeMap<&ObjectKey, &Live>, world: &World) -> Stage {
    let mut stage = Stage {
        part,
        hold: Vec::new(),
        delete: Vec::new(),
        release: Vec::new(),
        nodes: Vec::new(),
        blockers: Vec::new(),
        left: objects.len(),
    };
    let is_definition = part == Part::Definitions;
    let is_empty = |live: &Live| is_going(live) && !finalizers(live).contains(&CLEANUP);
    let all_empty = is_definition && objects.values().all(|live| is_empty(live));
    for (key, live) in objects {
        let (going, held) = (is_going(live), finalizers(live));
        if !going {
            stage.delete.push((*key).clone());
            if is_definition && !held.contains(&finalizer::CRD) {
                stage.hold.push((*key).clone());
            }
            continue;
        }
        if is_definition && !is_empty(live) {
            stage.blockers.extend(instances_left(&key.name, world));
        }
        if all_empty && held.contains(&finalizer::CRD) {
            stage.release.push((*key).clone());
        }
        let foreign: Vec<String> =
            held.iter().filter(|name| ![CLEANUP, finalizer::CRD].contains(*name)).map(ToString::to_string).collect();
        if !foreign.is_empty() {
            stage.blockers.push(Blocker::ObjectHeld { object: key.to_string(), finalizers: foreign });
        } else if !is_definition || all_empty {
            // An empty definition that stays for the others' sake waits for nobody itself.
            stage.blockers.push(Blocker::GoingObject { object: key.to_string() });
        }
    }
    match part {
        Part::Workloads => {
            // Until they have ended they need their accounts, roles and Secrets.
            let pods = world.pods.iter().filter(|(_, pod)| pod.labels.id.is_some()).map(|(name, _)| name.to_string());
            let pods: Vec<Blocker> = pods.map(|pod| Blocker::PodLeft { pod }).collect();
            stage.left += pods.len();
            stage.blockers.extend(pods);
        }
        Part::Nodes => {
            let labelled = world.nodes.iter().filter(|(_, facts)| facts.labelled);
            stage.nodes = labelled.map(|(name, _)| name.clone()).collect();
            stage.left += stage.nodes.len();
        }
        _ => {}
    }
    // A user's object that is held says more than the definition that waits for it.
    stage.blockers.sort_by_key(|blocker| !matches!(blocker, Blocker::InstanceHeld { .. } | Blocker::ObjectHeld { .. }));
    stage
}

/// Why a definition's objects are not gone, as far as it is known.
fn instances_left(definition: &str, world: &World) -> Vec<Blocker> {
    let Some(Instances { count, held }) = world.instances.get(definition).filter(|found| found.count > 0) else {
        return Vec::new();
    };
    let resource = definition.to_owned();
    let mut blockers: Vec<Blocker> =
        held.iter().filter(|held| held.going).map(|held| held_by(definition, held)).collect();
    if blockers.is_empty() {
        blockers.push(Blocker::InstancesLeft { resource, count: *count });
    }
    blockers
}

fn held_by(resource: &str, held: &Held) -> Blocker {
    let Held { name, finalizers, going: _ } = held;
    Blocker::InstanceHeld { resource: resource.to_owned(), object: name.clone(), finalizers: finalizers.clone() }
}

/// What would hold up an uninstallation that has not begun: what nobody of the suite takes away.
pub fn obstacles(cr: &Value, strategy: UninstallStrategy, world: &World) -> Vec<Blocker> {
    const WORKLOADS: [&str; 3] = [
        "virtualmachineinstances.kubevirt.io",
        "virtualmachines.kubevirt.io",
        "virtualmachineinstancereplicasets.kubevirt.io",
    ];
    let is_foreign = |name: &String| {
        let family = name.split_once('/').map_or("", |(family, _)| family);
        let is_old = ["foregroundDeleteVirtualMachine", finalizer::KUBEVIRT_OLD, "orphan", "foregroundDeletion"];
        family != "kubevirt.io" && !family.ends_with(".kubevirt.io") && !is_old.contains(&name.as_str())
    };
    let mut found = Vec::new();
    if strategy == UninstallStrategy::BlockUninstallIfWorkloadsExist {
        let existing = WORKLOADS.iter().filter_map(|resource| Some((*resource, world.instances.get(*resource)?.count)));
        let existing = existing.filter(|(_, count)| *count > 0);
        found
            .extend(existing.map(|(resource, count)| Blocker::WorkloadsExist { resource: resource.to_owned(), count }));
    }
    for (definition, Instances { count: _, held }) in &world.instances {
        for held in held {
            let finalizers: Vec<String> = held.finalizers.iter().filter(|name| is_foreign(name)).cloned().collect();
            if !finalizers.is_empty() {
                found.push(held_by(definition, &Held { finalizers, ..held.clone() }));
            }
        }
    }
    let ours =
        world.objects.iter().filter(|(_, live)| is_stamped(live)).map(|(key, live)| (key.to_string(), live.as_ref()));
    let name = text(cr, "/metadata/name").unwrap_or_default();
    for (object, live) in ours.chain([(format!("KubeVirt {name}"), cr)]) {
        let finalizers: Vec<String> = finalizers(live)
            .into_iter()
            .map(str::to_owned)
            .filter(|name| is_foreign(name) && name != CLEANUP)
            .collect();
        if !finalizers.is_empty() {
            found.push(Blocker::ObjectHeld { object, finalizers });
        }
    }
    found
}

impl Stage {
    fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Whether there is something to do now.
    pub(crate) fn is_due(&self) -> bool {
        !(self.hold.is_empty() && self.delete.is_empty() && self.release.is_empty() && self.nodes.is_empty())
    }

    /// One sentence for a condition.
    pub fn message(&self) -> String {
        /// How many blockers a sentence names.
        const NAMED: usize = 3;
        let number = Part::ALL.iter().position(|part| *part == self.part).map_or(0, |at| at + 1);
        let progress =
            format!("Removing {} (step {number} of {}): {} left", self.part.title(), Part::ALL.len(), self.left);
        let named: Vec<String> = self.blockers.iter().take(NAMED).map(ToString::to_string).collect();
        if named.is_empty() {
            return progress;
        }
        let more = self.blockers.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!("{progress}; waiting: {}{more}", named.join(", "))
    }
}

fn is_going(live: &Value) -> bool {
    text(live, "/metadata/deletionTimestamp").is_some()
}

/// Whether an object belongs to the install-strategy protocol, whoever wrote it.
fn is_strategy(live: &Value) -> bool {
    live.pointer("/metadata/labels").is_some_and(|labels| labels.get(label::INSTALL_STRATEGY).is_some())
}

/// The finalizers of an object.
pub(crate) fn finalizers(live: &Value) -> Vec<&str> {
    let names = live.pointer("/metadata/finalizers").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The change that puts the operator's finalizer on a definition, or takes it off.
pub(crate) fn finalizer_change(live: &Value, keep: bool) -> Value {
    let mut names: Vec<&str> = finalizers(live).into_iter().filter(|name| *name != finalizer::CRD).collect();
    if keep {
        names.push(finalizer::CRD);
    }
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    serde_json::json!({"metadata": {"resourceVersion": version, "finalizers": names}})
}

#[cfg(test)]
mod tests;
