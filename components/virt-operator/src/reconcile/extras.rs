//! What stands beside the suite (pure): objects for Prometheus and ready-made types. What there should be, what there is,
//! and what the conditions say about it. No component needs it, so it never holds up a version, nor does its failure.

use std::collections::BTreeSet;

use kubevirt_api::kubevirt::{ConditionType, ConditionUpdate, KubeVirtSpec, Reason};
use kubevirt_apply::differs;
use kubevirt_release::desired::{monitoring, own_types, product_labels};
use kubevirt_release::extras::monitoring::{account, monitor, namespaces};
use kubevirt_release::extras::{TYPES, is_extra, types};
use kubevirt_release::{Inputs, Kind, Object, ObjectKey};

use super::World;
use super::snapshot::is_stamped;
use super::validate::Target;
use crate::catalogue::Entries;
use crate::settings::Settings;

/// The parts that stand or fall for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Monitoring,
    Types,
}

impl Part {
    fn condition(self) -> ConditionType {
        match self {
            Self::Monitoring => ConditionType::MonitoringReady,
            Self::Types => ConditionType::InstancetypesReady,
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// An object of a kind that is followed as a whole.
    Apply(Object),
    /// A ready-made type that is not there, or not known to be.
    Create(Object),
    /// A ready-made type that is not exactly as it should be, at the resource version it was seen at.
    Replace(Object, String),
    Delete(ObjectKey),
    /// Every ready-made type of a kind.
    DeleteAll(Kind),
}

/// How a part stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) part: Part,
    pub(crate) changes: Vec<Change>,
    /// Why the part is not there although nothing is left to be written.
    absent: Option<(Reason, String)>,
    /// It is not to be there.
    disabled: bool,
}

impl Standing {
    fn new(part: Part, changes: Vec<Change>) -> Self {
        Self { part, changes, absent: None, disabled: false }
    }

    /// What the part's condition says; `trouble` is how the last attempt to write something failed.
    pub(crate) fn condition(&self, trouble: Option<&str>) -> ConditionUpdate {
        let kind = self.part.condition();
        if let (Some(trouble), false) = (trouble, self.changes.is_empty()) {
            let reason = match self.part {
                Part::Monitoring => Reason::MonitoringRefused,
                Part::Types => Reason::InstancetypesRefused,
            };
            return ConditionUpdate::new(kind, false, reason, trouble);
        }
        if let Some((reason, message)) = &self.absent {
            return ConditionUpdate::new(kind, false, *reason, message);
        }
        if !self.changes.is_empty() {
            let reason = match self.part {
                Part::Monitoring => Reason::MonitoringPending,
                Part::Types => Reason::InstancetypesPending,
            };
            return ConditionUpdate::new(kind, false, reason, "Written after the suite's own objects");
        }
        match (self.part, self.disabled) {
            (Part::Monitoring, _) => {
                ConditionUpdate::new(kind, true, Reason::MonitoringDeployed, "Prometheus has what it needs")
            }
            (Part::Types, false) => ConditionUpdate::new(
                kind,
                true,
                Reason::InstancetypesDeployed,
                "Every common instance type and preference is in place",
            ),
            (Part::Types, true) => ConditionUpdate::new(
                kind,
                true,
                Reason::InstancetypesDisabled,
                "spec.configuration.commonInstancetypesDeployment leaves them out",
            ),
        }
    }
}

/// The name of the account that Prometheus has, while anybody would make use of knowing where it is.
pub(crate) fn asked_account<'a>(spec: &'a KubeVirtSpec, unserved: &BTreeSet<Kind>) -> Option<&'a str> {
    let is_served = [Kind::ServiceMonitor, Kind::PrometheusRule].iter().any(|kind| !unserved.contains(kind));
    is_served.then(|| account(spec))
}

/// How each part stands. A part of which something is not known yet is left out. `accounts` are the namespaces with an
/// account of Prometheus' name.
pub(crate) fn standings(
    target: &Target,
    inputs: &Inputs<'_>,
    world: &World,
    accounts: Option<&BTreeSet<String>>,
    settings: &Settings,
) -> Vec<Standing> {
    let monitoring = monitoring_standing(target, inputs, world, accounts, settings);
    monitoring.into_iter().chain(types_standing(target, inputs, world)).collect()
}

fn monitoring_standing(
    target: &Target,
    inputs: &Inputs<'_>,
    world: &World,
    accounts: Option<&BTreeSet<String>>,
    settings: &Settings,
) -> Option<Standing> {
    let spec = inputs.spec;
    if asked_account(spec, &world.unserved).is_none() {
        let message = "The cluster serves no monitoring.coreos.com: there is no Prometheus operator";
        let absent = Some((Reason::MonitoringNotServed, message.to_owned()));
        return Some(Standing { absent, ..Standing::new(Part::Monitoring, removed(world, &[])) });
    }
    let Some(monitor) = monitor(spec, accounts?) else {
        let message = format!("No ServiceAccount {} in namespace {}", account(spec), namespaces(spec).join(" or "));
        let absent = Some((Reason::MonitorAccountMissing, message));
        return Some(Standing { absent, ..Standing::new(Part::Monitoring, removed(world, &[])) });
    };
    let mut wanted = monitoring(&target.strategy, inputs, &settings.namespace, &monitor, &settings.runbooks);
    wanted.retain(|object| !world.unserved.contains(&object.kind()));
    let is_due = |object: &&Object| {
        let Some(live) = world.objects.get(&object.key()) else { return true };
        let contest = world.contests.get(&object.key());
        differs(object, live).is_some() && !contest.is_some_and(|contest| contest.goes_on(object, live))
    };
    let mut changes: Vec<Change> = wanted.iter().filter(is_due).cloned().map(Change::Apply).collect();
    changes.extend(removed(world, &wanted));
    Some(Standing::new(Part::Monitoring, changes))
}

/// Objects for Prometheus that are there and not wanted.
fn removed(world: &World, wanted: &[Object]) -> Vec<Change> {
    let is_wanted = |key: &ObjectKey| wanted.iter().any(|object| object.key() == *key);
    let is_going = |live: &serde_json::Value| live.pointer("/metadata/deletionTimestamp").is_some();
    let left = world
        .objects
        .iter()
        .filter(|(key, live)| is_extra(key) && is_stamped(live) && !is_wanted(key) && !is_going(live));
    left.map(|(key, _)| Change::Delete(key.clone())).collect()
}

fn types_standing(target: &Target, inputs: &Inputs<'_>, world: &World) -> Option<Standing> {
    let spec = inputs.spec;
    let deployment = spec.configuration.as_ref().and_then(|c| c.common_instancetypes_deployment.as_ref());
    let disabled = deployment.and_then(|deployment| deployment.enabled) == Some(false);
    let labels = product_labels(spec);
    let mut changes = Vec::new();
    for kind in TYPES {
        // Their definitions are the suite's own, and come with it.
        let Some(entries) = world.types.get(&kind) else {
            let message = "Their definitions are not served yet".to_owned();
            let absent = Some((Reason::InstancetypesPending, message));
            let is_known = world.unserved.contains(&kind);
            return is_known.then(|| Standing { absent, ..Standing::new(Part::Types, Vec::new()) });
        };
        if disabled {
            let is_left = entries.values().any(|entry| !entry.going);
            changes.extend(is_left.then_some(Change::DeleteAll(kind)));
        } else {
            let wanted = own_types(&target.strategy, inputs, kind).unwrap_or_else(|| types(kind, &labels));
            changes.extend(type_changes(kind, wanted, entries));
        }
    }
    Some(Standing { disabled, ..Standing::new(Part::Types, changes) })
}

fn type_changes(kind: Kind, wanted: Vec<Object>, entries: &Entries) -> Vec<Change> {
    let names: BTreeSet<&str> = wanted.iter().map(Object::name).collect();
    let unknown = entries.iter().filter(|(name, entry)| !names.contains(name.as_str()) && !entry.going);
    let mut changes: Vec<Change> = unknown.map(|(name, _)| Change::Delete(ObjectKey::new(kind, None, name))).collect();
    for object in wanted {
        match entries.get(object.name()) {
            // It is on its way out; it is made again when it is gone.
            Some(entry) if entry.going => {}
            Some(entry) if entry.is(object.value()) => {}
            Some(entry) => changes.push(Change::Replace(object, entry.version())),
            None => changes.push(Change::Create(object)),
        }
    }
    changes
}
