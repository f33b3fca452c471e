//! Which way a change of version goes (pure): what people ask and how the new version fares, in the planner's terms.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kubevirt_api::deprecated;
use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_api::upgrade::{PlanState, PointOfNoReturn, Request, UpgradePlan, UpgradePlanStatus};
use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_upgrade::preflight::{Before, Finding, preflight};
use kubevirt_upgrade::{Asked, Course, Decision, NoWayBack, Plan, Snapshot, decide, stands_still};
use serde_json::{Value, json};

use super::World;
use super::build::observed;
use super::snapshot::{identifier, is_stamped};
use super::validate::Target;
use crate::backends;
use crate::cache::text;
use crate::certificates::Unfit;
use crate::settings::Settings;
use crate::upgrades::{Change, status_of};

/// The change of version that a CR asks for.
pub(super) fn change<'a>(from: &'a str, target: &'a Target, cr: &KubeVirt, settings: &'a Settings) -> Change<'a> {
    Change {
        from,
        to: &target.id,
        generation: cr.metadata.generation.unwrap_or_default(),
        operator_version: settings.operator_version(),
    }
}

/// What a CR asks for, and where.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) cr: &'a KubeVirt,
    pub(super) target: &'a Target,
    pub(super) world: &'a World,
    pub(super) settings: &'a Settings,
}

impl<'a> Case<'a> {
    /// The recorded change of version, if one is asked for.
    fn recorded(self) -> Option<&'a Arc<UpgradePlan>> {
        let Self { cr, target, world, settings } = self;
        let from = observed(cr).filter(|from| from.id != target.id)?;
        world.upgrades.of(change(&from.id, target, cr, settings))
    }

    /// How far the recorded change is.
    pub(super) fn record(self) -> Option<&'a UpgradePlanStatus> {
        self.recorded()?.status.as_ref()
    }

    /// When the change under way was put on record, by the server's clock. That is before anything of it is written.
    pub(super) fn began(self) -> Option<Timestamp> {
        self.recorded()?.metadata.creation_timestamp.as_ref().map(|at| at.0)
    }

    /// The recorded change that was undone, or is being undone, if that holds for what the CR asks now.
    pub(super) fn undone(self) -> Option<&'a UpgradePlan> {
        let plan = self.recorded()?;
        matches!(status_of(plan).state, PlanState::RollingBack | PlanState::RolledBack).then_some(plan.as_ref())
    }

    /// What is asked of the change that is under way.
    pub(super) fn request(self) -> Option<Request> {
        match &self.target.returns {
            Some(name) => self.world.upgrades.plans.get(name)?.spec.request,
            None => self.recorded()?.spec.request,
        }
    }

    /// Keeps DaemonSets that have begun to change from going on by themselves while people want the change to stand still.
    pub(super) fn stop_nodes(self, finals: &mut BTreeMap<ObjectKey, Object>) {
        let Self { cr, target, world, settings: _ } = self;
        let changes = target.returns.is_some() || observed(cr).is_some_and(|from| from.id != target.id);
        if !changes || stands_still(&world.upgrades.policy, self.request()).is_none() {
            return;
        }
        for (key, object) in finals.iter_mut().filter(|(key, _)| key.kind == Kind::DaemonSet) {
            let has_begun = world.objects.get(key).and_then(|live| identifier(live)) == Some(target.id.as_str());
            if has_begun {
                object.value_mut()["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            }
        }
    }

    /// What speaks against the change that is asked for; nothing speaks against a repair, or against the way back.
    pub(super) fn findings(
        self,
        finals: &BTreeMap<ObjectKey, Object>,
        transitional: &BTreeMap<ObjectKey, Object>,
        renewed: &[(&'static str, Unfit)],
    ) -> Vec<Finding> {
        let Self { cr, target, world, settings } = self;
        let Some(from) = observed(cr).filter(|from| from.id != target.id && target.returns.is_none()) else {
            return Vec::new();
        };
        let first = |(key, object)| {
            let live = world.objects.get(key);
            // What has its final form already is not written in another one first.
            let is_final = live.is_some_and(|live| identifier(live) == Some(target.id.as_str()));
            let written: &Object = transitional.get(key).filter(|_| !is_final).unwrap_or(object);
            (key, written.value(), live.map(AsRef::as_ref))
        };
        let objects = finals.iter().map(first).collect();
        preflight(&Before {
            from: &from.version,
            to: &target.config.kubevirt_version,
            objects,
            rights: world.before.rights.as_deref().map(|rights| (settings.namespace.as_str(), rights)),
            missing_secrets: &world.before.missing_secrets,
            unanswered: unanswered(world),
            absent_nodes: &world.absent,
            unfit: renewed.iter().map(|(secret, why)| (*secret, why.to_string())).collect(),
            deprecated: deprecated::fields(&cr.spec).into_iter().chain(deprecated::listed_gates(&cr.spec)).collect(),
            unread: &world.upgrades.unread,
        })
    }

    /// Decides which way a plan goes now. Where nothing can be recorded, everything simply goes on.
    pub(super) fn course(
        self,
        plan: &Plan,
        snapshot: &Snapshot,
        point: Option<&(PointOfNoReturn, bool)>,
        findings: &[Finding],
        now: Timestamp,
    ) -> Decision {
        let Self { cr: _, target, world, settings: _ } = self;
        if !world.upgrades.served {
            return Decision { course: Course::Forward, due: None };
        }
        let is_passed = point.filter(|(_, passed)| *passed).map(|(point, _)| NoWayBack::PointOfNoReturn(point.clone()));
        let no_way_back = is_passed.or_else(|| (!target.knows_observed).then_some(NoWayBack::Unknown));
        let asked = Asked {
            policy: &world.upgrades.policy,
            request: self.request(),
            record: self.record(),
            no_way_back,
            blocked: findings.iter().find(|finding| finding.blocks()),
            refused: world.refused.as_ref(),
            returning: target.returns.is_some(),
            now,
        };
        decide(plan, snapshot, &asked)
    }
}

/// Registrations of the suite that nobody answers, and why.
fn unanswered(world: &World) -> BTreeMap<ObjectKey, String> {
    let Some(slices) = &world.endpoints else { return BTreeMap::new() };
    let ours = world.objects.iter().filter(|(key, live)| backends::registers(key.kind) && is_stamped(live));
    ours.filter_map(|(key, live)| {
        let why = backends::services(live).iter().find_map(|service| backends::unfit(service, slices, &world.mute))?;
        Some((key.clone(), why))
    })
    .collect()
}

/// From where on the version before could not read what is stored, and whether that is behind us: a definition whose new
/// storage version the version before does not serve.
pub(super) fn point_of_no_return(
    old: &BTreeMap<ObjectKey, Object>,
    new: &BTreeMap<ObjectKey, Object>,
    world: &World,
) -> Option<(PointOfNoReturn, bool)> {
    let versions = |definition: &Value, is: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
        let named = versions.into_iter().flatten().filter(|version| is(version));
        named.filter_map(|version| text(version, "/name").map(str::to_owned)).collect()
    };
    let yes = |version: &Value, field: &str| version.get(field).and_then(Value::as_bool) == Some(true);
    let definitions = new.iter().filter(|(key, _)| key.kind == Kind::CustomResourceDefinition);
    definitions
        .filter_map(|(key, definition)| {
            let before = old.get(key)?;
            let stored = versions(definition.value(), &|version| yes(version, "storage")).into_iter().next()?;
            if versions(before.value(), &|_| true).contains(&stored) {
                return None;
            }
            let live = world.objects.get(key).and_then(|live| live.pointer("/status/storedVersions"));
            let is_passed = live.and_then(Value::as_array).is_some_and(|all| all.iter().any(|v| v == stored.as_str()));
            let why = format!("objects of {} are stored in version {stored}, which the version before lacks", key.name);
            Some((PointOfNoReturn { step: "crds".to_owned(), why }, is_passed))
        })
        .max_by_key(|(_, passed)| *passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(versions: Value, stored: Option<&[&str]>) -> (ObjectKey, Value) {
        let value = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.kubevirt.io"}, "spec": {"versions": versions},
            "status": {"storedVersions": stored}});
        (ObjectKey::new(Kind::CustomResourceDefinition, None, "things.kubevirt.io"), value)
    }

    #[test]
    fn a_storage_version_that_the_version_before_lacks_bars_the_way_back_once_it_is_used() {
        let one = json!([{"name": "v1", "served": true, "storage": true}]);
        let two =
            json!([{"name": "v1", "served": true, "storage": false}, {"name": "v2", "served": true, "storage": true}]);
        let objects = |versions: &Value| -> BTreeMap<ObjectKey, Object> {
            let (key, value) = definition(versions.clone(), None);
            [(key, Object::from_value(value).expect("a definition"))].into()
        };
        let world = |stored: &[&str]| {
            let (key, value) = definition(one.clone(), Some(stored));
            World { objects: [(key, Arc::new(value))].into(), ..World::default() }
        };
        let passed = |old: &Value, new: &Value, stored: &[&str]| {
            point_of_no_return(&objects(old), &objects(new), &world(stored)).map(|(_, passed)| passed)
        };
        assert_eq!(passed(&one, &one, &["v1"]), None);
        assert_eq!(passed(&two, &one, &["v2"]), None, "what the version before stored it can read");
        assert_eq!(passed(&one, &two, &["v1"]), Some(false));
        assert_eq!(passed(&one, &two, &["v1", "v2"]), Some(true));
    }
}
