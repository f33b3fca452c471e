//! Step 3 (pure, but for the keys of new certificates): the wanted objects, and the plan that brings them about.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_api::names::annotation;
use kubevirt_api::upgrade::PointOfNoReturn;
use kubevirt_release::customize::{Customizations, Refused};
use kubevirt_release::desired::{CONTROL_PLANE, ENOUGH, fit_kept};
use kubevirt_release::extras::is_extra;
use kubevirt_release::images::puller;
use kubevirt_release::object::ObjectError;
use kubevirt_release::{DeploymentConfig, Inputs, Kind, Object, ObjectKey, Strategy, desired, namespace};
use kubevirt_upgrade::check::Violation;
use kubevirt_upgrade::{
    Course, Decision, Existing, Form, Identity, Input, Plan, Report, Snapshot, check, images, rbac,
};
use serde_json::Value;

use super::courses::{Case, point_of_no_return};
use super::over_nodes::{OverNodes, over_nodes};
use super::snapshot::{existing, identifier, snapshot, workload, workloads};
use super::status::Ended;
use super::validate::Target;
use super::{World, gate, held, registrations, rollout, secrets, statuses};
use crate::backends::registers;
use crate::cache::Live;
use crate::certificates::Unfit;
use crate::settings::Settings;

/// Everything the next step needs.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) plan: Plan,
    pub(crate) report: Report,
    finals: BTreeMap<ObjectKey, Object>,
    transitional: BTreeMap<ObjectKey, Object>,
    /// Objects of which something is withheld at first, whole. See [`statuses`].
    pub(crate) later: BTreeMap<ObjectKey, Object>,
    /// When a certificate is due.
    pub(crate) due: Option<Timestamp>,
    pub(crate) renewed: Vec<(&'static str, Unfit)>,
    /// What somebody changes on its way in, and at which field.
    pub(crate) contested: Vec<String>,
    /// Which way the change of version goes.
    pub(crate) decision: Decision,
    pub(crate) over_nodes: OverNodes,
    pub(crate) snapshot: Snapshot,
    pub(crate) point_of_no_return: Option<PointOfNoReturn>,
}

impl Built {
    /// How the pass ends if nothing of it fails.
    pub(crate) fn ended<'a>(&'a self, config: &'a DeploymentConfig) -> Ended<'a> {
        let held = match &self.decision.course {
            Course::Held(reason) => Some(reason),
            Course::Forward | Course::Back(_) => None,
        };
        Ended::Planned { config, plan: &self.plan, report: &self.report, contested: &self.contested, held }
    }

    /// Whether this change of version is to be undone; then nothing more of it is carried out.
    pub(crate) fn goes_back(&self) -> bool {
        matches!(self.decision.course, Course::Back(_))
    }

    /// An object in the form a step writes.
    pub(crate) fn object(&self, key: &ObjectKey, form: Form) -> Option<&Object> {
        match form {
            Form::Final => self.finals.get(key),
            Form::Transitional => self.transitional.get(key).or_else(|| self.finals.get(key)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("certificates could not be issued: {0}")]
    Certificates(#[from] crate::certificates::Error),
    #[error("a role could not be widened for both versions: {0}")]
    Role(#[from] ObjectError),
    #[error("{}", customize_list(.0))]
    Customization(Vec<Refused>),
    #[error("the plan is not carried out because it breaks its own rules: {}", list(.0))]
    Plan(Vec<Violation>),
}

/// All that is wrong with the changes the CR asks for.
pub(crate) fn customize_list(refused: &[Refused]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is to be done for `target` in `world`.
///
/// # Errors
/// No certificate could be made, or the plan contradicts the order that the checker knows.
pub(crate) fn build(
    cr: &KubeVirt,
    target: &Target,
    world: &World,
    settings: &Settings,
    now: Timestamp,
) -> Result<Built, Error> {
    let customizations = customizations(target);
    let inputs = inputs(cr, world, &target.id, &customizations);
    let mut finals = wanted(target, &inputs, world)?;
    let secrets::Issued { objects, due, renewed } = secrets::issue(
        &settings.namespace,
        target.certificates(&settings.namespace),
        &world.objects,
        cr.spec.certificate_lifetimes(),
        &stamps(&target.strategy, inputs.generation),
        now,
    )?;
    // The namespace is not the operator's: it gets its label and nothing else.
    let namespace = namespace::monitored(&settings.namespace);
    finals.insert(namespace.key(), namespace);
    for mut object in objects.into_iter().chain(kept_strategy(target, world, settings)) {
        // One that is left as it lies in the cluster in this round is not ours to fit.
        if object.at("/metadata/uid").is_none() {
            fit_kept(&mut object, &inputs).map_err(|refused| Error::Customization(vec![refused]))?;
            if target.customizations.is_none() {
                held::metadata(&mut object, world);
            }
        }
        finals.insert(object.key(), object);
    }

    registrations::trust(&mut finals, &settings.namespace);
    let case = Case { cr, target, world, settings };
    let planned = plan(case, finals, &renewed, now)?;
    Ok(Built { due, renewed, ..planned })
}

/// The plan alone, without the certificates and what else the operator keeps beside the objects of a version: what an
/// administrator may ask for who may not read secrets.
///
/// # Errors
/// As for [`build`].
pub(crate) fn preview(cr: &KubeVirt, target: &Target, world: &World, settings: &Settings) -> Result<Built, Error> {
    let customizations = customizations(target);
    let mut finals = wanted(target, &inputs(cr, world, &target.id, &customizations), world)?;
    registrations::keep_trust(&mut finals, world);
    let case = Case { cr, target, world, settings };
    // Without a history nothing is decided by the clock.
    plan(case, finals, &[], Timestamp::MIN)
}

/// The changes that are made to the target's objects.
fn customizations(target: &Target) -> Customizations {
    target.customizations.clone().unwrap_or_else(Customizations::none)
}

/// The objects of the version. Where the CR's changes are refused, what runs stays as it was last changed.
fn wanted(target: &Target, inputs: &Inputs<'_>, world: &World) -> Result<BTreeMap<ObjectKey, Object>, Error> {
    let mut finals = by_key(desired(&target.strategy, inputs).map_err(Error::Customization)?);
    if target.customizations.is_none() {
        held::objects(&mut finals, world);
    }
    // What a cluster does not serve it cannot be given; it is written when it is served.
    finals.retain(|key, _| !world.unserved.contains(&key.kind));
    Ok(finals)
}

fn plan(
    case: Case<'_>,
    mut finals: BTreeMap<ObjectKey, Object>,
    renewed: &[(&'static str, Unfit)],
    now: Timestamp,
) -> Result<Built, Error> {
    let Case { cr, target, world, settings: _ } = case;
    let workloads = workloads(world);
    rollout::pace(&mut finals, cr, &target.id, world, &workloads);
    case.stop_nodes(&mut finals);
    let over_nodes = over_nodes(case, &mut finals, &workloads, now);
    // Of the old version only roles are of interest, which nothing customizes.
    let none = Customizations::none();
    let inputs = inputs(cr, world, &target.id, &none);
    let old = target.observed_strategy.as_ref().and_then(|strategy| desired(strategy, &inputs).ok());
    let old = old.map(by_key).unwrap_or_default();
    let mut transitional = transitional(&finals, &old, world)?;
    let trusted = registrations::trusted_meanwhile(&finals, world, &target.id);
    transitional.extend(trusted.into_iter().map(|object| (object.key(), object)));
    let mut snapshot = snapshot(world, &finals, &transitional, workloads);
    // What another version registered is as it should be until its step comes, unless it is among those.
    let waits = |key: &ObjectKey, existing: &Existing| {
        registers(key.kind) && existing.id.as_deref() != Some(&target.id) && !transitional.contains_key(key)
    };
    for (_, existing) in snapshot.objects.iter_mut().filter(|(key, existing)| waits(key, existing)) {
        existing.same_transitional = true;
    }
    // Strategies of other versions are the way back to them; Jobs that get one are no part of any version.
    let is_beside = |key: &ObjectKey| is_strategy(key) || is_extra(key) || key.kind == Kind::Job;
    snapshot.objects.retain(|key, _| finals.contains_key(key) || !is_beside(key));
    let mut input = Input {
        observed: observed(cr),
        target: Identity { version: target.config.kubevirt_version.clone(), id: target.id.clone() },
        desired: finals.keys().cloned().collect(),
        snapshot,
        releases: Vec::new(),
        closes: false,
        pulls_images: images::asked_for(&world.upgrades.policy, case.request(), target.returns.is_some()),
        images_overdue: images::overdue(&world.upgrades.policy, case.record(), now),
    };
    if images::wanted(&input) {
        add_images(&mut input, &mut finals, case);
    }
    close_new_kinds(&mut input, &mut finals, &old, case);
    let contested = world.contests.iter().filter_map(|(key, contest)| {
        let (wanted, live) = (finals.get(key)?, world.objects.get(key)?);
        contest.goes_on(wanted, live).then(|| format!("{key} at {}", contest.path))
    });
    let contested = contested.collect();
    let (mut plan, _) = kubevirt_upgrade::plan(&input);
    let withheld = statuses::withheld(&plan, &finals, world);
    let whole = |object: &Object| Some((object.key(), finals.get(&object.key())?.clone()));
    let later = withheld.iter().filter_map(whole).collect();
    if !withheld.is_empty() {
        for object in withheld {
            let key = object.key();
            if let Some(live) = world.objects.get(&key) {
                input.snapshot.objects.insert(key.clone(), existing(&key, live, world, Some(&object), None));
            }
            finals.insert(key, object);
        }
        (plan, _) = kubevirt_upgrade::plan(&input);
    }
    let point = point_of_no_return(&old, &finals, world);
    let findings = case.findings(&finals, &transitional, renewed);
    let decision = case.course(&plan, &input.snapshot, point.as_ref(), &findings, now);
    let plan = plan.on(&decision.course, &input.snapshot).waiting_on_nodes(over_nodes.reason.as_ref());
    check::check(&plan, &input.desired).map_err(Error::Plan)?;
    let report = plan.report().leading_to(&target.then).with(findings);
    let Input { snapshot, .. } = input;
    let point_of_no_return = point.map(|(point, _)| point);
    Ok(Built {
        plan,
        report,
        finals,
        transitional,
        later,
        due: None,
        renewed: Vec::new(),
        contested,
        decision,
        over_nodes,
        snapshot,
        point_of_no_return,
    })
}

/// Adds what brings the images of the wanted virt-handler onto the nodes.
fn add_images(input: &mut Input, finals: &mut BTreeMap<ObjectKey, Object>, case: Case<'_>) {
    let Case { cr: _, target: _, world, settings } = case;
    let handler = finals.iter().find(|(key, _)| images::is_handler(key)).map(|(_, handler)| handler);
    let Some(puller) = handler.and_then(|handler| puller(handler, &settings.own.image)) else { return };
    let key = puller.key();
    if let Some(live) = world.objects.get(&key) {
        input.snapshot.objects.insert(key.clone(), existing(&key, live, world, Some(&puller), None));
        // Whoever took its stamp away hid it from the snapshot.
        if !input.snapshot.workloads.contains_key(&key) {
            input.snapshot.workloads.extend(workload(&key, live, &world.pods).map(|found| (key.clone(), found)));
        }
    }
    input.desired.insert(key.clone());
    finals.insert(key, puller);
}

/// Adds what keeps the kinds closed that the version brings.
fn close_new_kinds(
    input: &mut Input,
    finals: &mut BTreeMap<ObjectKey, Object>,
    old: &BTreeMap<ObjectKey, Object>,
    case: Case<'_>,
) {
    let definitions = gate::new_definitions(finals, old, case.world, case.began());
    let Some(registration) = gate::registration(finals, &definitions) else { return };
    input.closes = true;
    if !kubevirt_upgrade::gate::wanted(input) {
        return;
    }
    let key = registration.key();
    if let Some(live) = case.world.objects.get(&key) {
        let existing = existing(&key, live, case.world, Some(&registration), None);
        input.snapshot.objects.insert(key.clone(), existing);
    }
    input.desired.insert(key.clone());
    finals.insert(key, registration);
}

fn by_key(objects: Vec<Object>) -> BTreeMap<ObjectKey, Object> {
    objects.into_iter().map(|object| (object.key(), object)).collect()
}

/// What the CR and the cluster add to the strategy of a deployment.
pub(crate) fn inputs<'a>(cr: &'a KubeVirt, world: &World, id: &str, customizations: &'a Customizations) -> Inputs<'a> {
    let nodes = &world.nodes;
    let schedulable = nodes.values().filter(|node| node.schedulable).count();
    let control_plane_nodes = nodes.values().filter(|node| node.control_plane).count();
    // What runs stays where it is until the version changes: that there are fewer such nodes now, or that another operator
    // insists on one where this one would only wish, is no reason to make every pod anew.
    let insists = control_plane_nodes > 0 && world.objects.iter().any(|(key, live)| insists(key, live, id));
    Inputs {
        spec: &cr.spec,
        customizations,
        generation: cr.metadata.generation.unwrap_or_default(),
        nodes: if schedulable == 0 { nodes.len() } else { schedulable },
        control_plane_nodes: if insists { control_plane_nodes.max(ENOUGH) } else { control_plane_nodes },
    }
}

/// Whether a Deployment of a deployment ID wants its pods on control-plane nodes and nowhere else.
fn insists(key: &ObjectKey, live: &Live, id: &str) -> bool {
    let terms =
        "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let is_control_plane = |term: &Value| {
        let expressions = term["matchExpressions"].as_array().into_iter().flatten();
        expressions.into_iter().any(|expression| expression["key"] == CONTROL_PLANE)
    };
    key.kind == Kind::Deployment
        && identifier(live) == Some(id)
        && live.pointer(terms).and_then(Value::as_array).is_some_and(|terms| terms.iter().any(is_control_plane))
}

/// The annotations every managed object carries.
fn stamps(strategy: &Strategy, generation: i64) -> BTreeMap<String, String> {
    [
        (annotation::STRATEGY_VERSION, strategy.version.clone()),
        (annotation::STRATEGY_REGISTRY, strategy.registry.clone()),
        (annotation::STRATEGY_IDENTIFIER, strategy.id.clone()),
        (annotation::GENERATION, generation.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The version that was last complete, as the status says.
pub(crate) fn observed(cr: &KubeVirt) -> Option<Identity> {
    let status = cr.status.as_ref()?;
    let version = status.observed_kube_virt_version.clone().filter(|version| !version.is_empty())?;
    Some(Identity { version, id: status.observed_deployment_id.clone().unwrap_or_default() })
}

/// The strategy of this operator's own release is kept in the cluster, so that the operator of a later release can go on
/// keeping it for as long as the CR names it. It is written before the workloads: what runs can always be kept.
fn kept_strategy(target: &Target, world: &World, settings: &Settings) -> Option<Object> {
    /// Enough of the ID to tell the strategies of a cluster apart.
    const SHORT_ID: usize = 10;
    if !target.is_own {
        return None;
    }
    let mut map = world.kept.packed(&target.config, &target.strategy, &settings.namespace);
    let short = target.id.get(..SHORT_ID).unwrap_or(&target.id);
    map.metadata.name = Some(format!("{}{short}", kubevirt_release::strategy::GENERATE_NAME));
    map.metadata.generate_name = None;
    // Beside it, how its objects were last changed: what is refused later does not keep them from being repaired.
    let given = target.customizations.as_ref().map(Customizations::given).filter(|given| !given.is_empty());
    if let (Some(given), Some(data)) = (given, &mut map.data) {
        data.insert(kubevirt_release::strategy::CUSTOMIZED_KEY.to_owned(), given.to_owned());
    }
    Some(Object::of(&map))
}

fn is_strategy(key: &ObjectKey) -> bool {
    key.kind == Kind::ConfigMap && key.name.starts_with(kubevirt_release::strategy::GENERATE_NAME)
}

/// Roles and bindings in the form that serves the old and the new version.
fn transitional(
    finals: &BTreeMap<ObjectKey, Object>,
    old: &BTreeMap<ObjectKey, Object>,
    world: &World,
) -> Result<BTreeMap<ObjectKey, Object>, ObjectError> {
    let is_access = |key: &ObjectKey| {
        matches!(key.kind, Kind::ClusterRole | Kind::ClusterRoleBinding | Kind::Role | Kind::RoleBinding)
    };
    let mut wider = BTreeMap::new();
    for (key, new) in finals.iter().filter(|(key, _)| is_access(key)) {
        // Where the old version's own manifest is not known, what is live is what its pods use.
        let base = old.get(key).map(Object::value).or_else(|| world.objects.get(key).map(AsRef::as_ref));
        let Some(base) = base else { continue };
        wider.insert(key.clone(), Object::from_value(rbac::transitional(base, new.value()))?);
    }
    Ok(wider)
}
