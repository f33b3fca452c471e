//! Step 2 (pure): which CR is followed, what it asks for, and whether that can be done.

use std::sync::Arc;

use kubevirt_api::kubevirt::{KubeVirt, KubeVirtStatus, Reason};
use kubevirt_api::names::finalizer;
use kubevirt_release::customize::{Customizations, Refused};
use kubevirt_release::strategy::{self, Strategy, Title, provenance};
use kubevirt_release::{CertificateSpec, DeploymentConfig, certificates, desired, render};
use serde::Deserialize;
use serde_json::Value;

use super::World;
use super::build::{customize_list, inputs};
use super::courses::Case;
use super::hops;
use crate::admission::rules;
use crate::cache::{Live, text};
use crate::kept::Trial;
use crate::settings::Settings;
use crate::strategies::Stored;

/// What this pass is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Validated {
    /// The CR that is followed.
    pub(crate) followed: Option<Followed>,
    /// CRs that are not, and why.
    pub(crate) ignored: Vec<(Live, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) cr: KubeVirt,
    pub(crate) live: Live,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Install(Box<Target>),
    /// The spec can't be followed. What runs is kept as it was last complete, if that is still known.
    Refused {
        refusal: Refusal,
        kept: Option<Box<Target>>,
    },
    /// The change that the spec asks for did not work, or was taken back: the version before it is brought back and held.
    Undone {
        refusal: Refusal,
        kept: Box<Target>,
    },
    Uninstall,
}

/// The version to be brought about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) config: DeploymentConfig,
    pub(crate) id: String,
    pub(crate) strategy: Strategy,
    /// The changes to its objects. None: those of the CR are refused, and what runs stays as it was last changed.
    pub(crate) customizations: Option<Customizations>,
    /// The objects of the version that was last complete, as far as they are known; they tell what old pods may do.
    pub(crate) observed_strategy: Option<Strategy>,
    /// The target is this operator's own release.
    pub(crate) is_own: bool,
    /// The version that was last complete can be had again.
    pub(crate) knows_observed: bool,
    /// The UpgradePlan whose change is undone by bringing this about.
    pub(crate) returns: Option<String>,
    /// The versions that follow, where this one only leads to the one that is asked for.
    pub(crate) then: Vec<String>,
}

impl Target {
    /// The certificates of its parts.
    pub(crate) fn certificates(&self, namespace: &str) -> Vec<CertificateSpec> {
        certificates::of(&self.strategy.objects, namespace)
    }
}

/// Why a spec is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// What was asked for, as far as it is known.
    pub(crate) config: Option<Box<DeploymentConfig>>,
}

/// Looks at the CRs and at what the one that is followed asks for.
pub(crate) fn validate(world: &World, settings: &Settings) -> Validated {
    let mut own: Vec<&Live> = Vec::new();
    let mut ignored = Vec::new();
    for cr in &world.crs {
        if text(cr, "/metadata/namespace") == Some(settings.namespace.as_str()) {
            own.push(cr);
        } else {
            let message = format!(
                "This operator installs into its own namespace only: move this object to namespace {}",
                settings.namespace
            );
            ignored.push((Live::clone(cr), message));
        }
    }
    // The one that has been served before comes first, then the older one.
    own.sort_by_key(|cr| (!is_served(cr), text(cr, "/metadata/creationTimestamp"), text(cr, "/metadata/name")));
    let mut own = own.into_iter();
    let first = own.next();
    for extra in own {
        let served = first.and_then(|cr| text(cr, "/metadata/name")).unwrap_or_default();
        ignored
            .push((Live::clone(extra), format!("Kubevirt is already created: {served} is followed, this one is not")));
    }
    let followed = first.and_then(|live| follow(live, world, settings, &mut ignored));
    Validated { followed, ignored }
}

fn is_served(cr: &Live) -> bool {
    let finalizers = cr.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.into_iter().flatten().any(|name| name.as_str() == Some(finalizer::KUBEVIRT))
}

fn follow(live: &Live, world: &World, settings: &Settings, ignored: &mut Vec<(Live, String)>) -> Option<Followed> {
    let (cr, unread) = match KubeVirt::deserialize(live.as_ref()) {
        Ok(cr) => (cr, None),
        Err(error) => {
            let message = format!("This object cannot be read: {error}");
            let Some(cr) = without_spec(live) else {
                ignored.push((Live::clone(live), message));
                return None;
            };
            (cr, Some(message))
        }
    };
    let wanted = if cr.metadata.deletion_timestamp.is_some() {
        Wanted::Uninstall
    } else if let Some(message) = unread {
        // How many replicas, and where: nobody knows what is to be kept.
        let refusal = Refusal { reason: Reason::InvalidSpec, message, config: None };
        Wanted::Refused { refusal, kept: None }
    } else {
        match target(&cr, world, settings) {
            Ok(target) => undone(&cr, target, world, settings),
            Err(refusal) => Wanted::Refused { refusal, kept: kept(&cr, world, settings).map(Box::new) },
        }
    };
    Some(Followed { cr, live: Live::clone(live), wanted })
}

/// A CR without its spec: it can be told why nothing is done, and it can be deleted.
fn without_spec(live: &Live) -> Option<KubeVirt> {
    let mut rest = Value::clone(live);
    rest.as_object_mut()?.insert("spec".to_owned(), Value::Object(serde_json::Map::new()));
    KubeVirt::deserialize(&rest).ok()
}

/// Whether the target is to be brought about, or was tried in vain.
fn undone(cr: &KubeVirt, target: Target, world: &World, settings: &Settings) -> Wanted {
    let Some(plan) = (Case { cr, target: &target, world, settings }).undone() else {
        return Wanted::Install(Box::new(target));
    };
    let Some(kept) = kept(cr, world, settings) else { return Wanted::Install(Box::new(target)) };
    let name = plan.metadata.name.clone().unwrap_or_default();
    let (from, to) = (&kept.config.kubevirt_version, &target.config.kubevirt_version);
    let why = plan.status.as_ref().and_then(|status| status.rollback.as_ref());
    let why = why.map(|rollback| format!("{}: {}", rollback.reason, rollback.message)).unwrap_or_default();
    let message = format!(
        "The change from {from} to {to} was undone ({why}). {from} is held; {to} is tried again when the spec or the \
         operator changes. UpgradePlan {name} has the details"
    );
    let refusal = Refusal { reason: Reason::UpgradeRolledBack, message, config: Some(Box::new(target.config.clone())) };
    Wanted::Undone { refusal, kept: Box::new(Target { returns: Some(name), ..kept }) }
}

/// What is to be brought about now: what the CR asks for, or a version on the way there.
pub(crate) fn target(cr: &KubeVirt, world: &World, settings: &Settings) -> Result<Target, Refusal> {
    hops::first(cr, world, settings).unwrap_or_else(|| asked_for(cr, world, settings))
}

/// What the CR asks for.
pub(super) fn asked_for(cr: &KubeVirt, world: &World, settings: &Settings) -> Result<Target, Refusal> {
    let not_customized = |refused: Vec<Refused>, config| Refusal {
        reason: Reason::CustomizationRefused,
        message: customize_list(&refused),
        config,
    };
    Customizations::read(cr.spec.customize_components.as_ref()).map_err(|refused| not_customized(refused, None))?;
    // The first CR is older than the webhook that would have refused it.
    let faults: Vec<String> = rules::faults(&cr.spec, None).iter().map(ToString::to_string).collect();
    if !faults.is_empty() {
        return Err(Refusal { reason: Reason::InvalidSpec, message: faults.join("; "), config: None });
    }
    let config = DeploymentConfig::resolve(&settings.own, &settings.env, &settings.namespace, &cr.spec)
        .map_err(|error| Refusal { reason: Reason::InvalidSpec, message: error.to_string(), config: None })?;
    let own = DeploymentConfig::resolve(&settings.own, &settings.env, &settings.namespace, &follow_own(cr)).ok();
    let own_id = own.map(|own| own.id());
    let is_own = own_id.as_ref() == Some(&config.id());
    let status = cr.status.clone().unwrap_or_default();
    let mut strategy = if is_own {
        render(&config)
    } else {
        stored(&world.strategies, &config, &known_ids(&status, &config), settings)?
    };
    // What is deployed is stamped with the ID under which its strategy was made: pods that have it are not made anew.
    if strategy.id.is_empty() {
        strategy.id = config.id();
    }
    let config = config.known_as(&strategy.id);
    let id = config.id();
    let observed_strategy = observed_strategy(&world.strategies, &status, &id);
    let customizations = customizations(cr, &strategy, world, &settings.namespace, is_own.then_some(&config))
        .map_err(|refused| not_customized(refused, Some(Box::new(config.clone()))))?;
    let observed_id = status.observed_deployment_id.as_deref().unwrap_or_default();
    let knows_observed = observed_strategy.is_some() || own_id.is_some_and(|own| own == observed_id);
    Ok(Target {
        config,
        id,
        strategy,
        customizations: Some(customizations),
        observed_strategy,
        is_own,
        knows_observed,
        returns: None,
        then: Vec::new(),
    })
}

/// The version that was last complete, for a CR whose spec can't be followed: a mistyped tag must not end the repair of
/// what runs, nor the renewal of its certificates.
fn kept(cr: &KubeVirt, world: &World, settings: &Settings) -> Option<Target> {
    let status = cr.status.as_ref()?;
    let id = status.observed_deployment_id.clone().filter(|id| !id.is_empty())?;
    let config = DeploymentConfig::from_json(status.observed_deployment_config.as_deref()?).ok()?;
    let own = DeploymentConfig::resolve(&settings.own, &settings.env, &settings.namespace, &follow_own(cr)).ok();
    let is_own = own.is_some_and(|own| own.id() == id) && config.own_id() == id;
    let config = config.known_as(&id);
    let strategy = if is_own {
        render(&config)
    } else {
        let found = stored(&world.strategies, &config, &[&id], settings).ok()?;
        // One from before there were IDs is of the version and registry, which is as much as can be known.
        if found.id.is_empty() { Strategy { id: id.clone(), ..found } } else { Some(found).filter(|s| s.id == id)? }
    };
    let customizations = customizations(cr, &strategy, world, &settings.namespace, is_own.then_some(&config)).ok();
    let customizations = customizations.or_else(|| last_made(cr, &strategy, world, settings, is_own));
    Some(Target {
        config,
        id,
        strategy,
        customizations,
        observed_strategy: None,
        is_own,
        knows_observed: true,
        returns: None,
        then: Vec::new(),
    })
}

/// The changes a CR asks for, if each of them can be made to every object it is meant for. `own` is what the strategy was
/// rendered from, if it was: then it need not be tried out twice.
fn customizations(
    cr: &KubeVirt,
    strategy: &Strategy,
    world: &World,
    namespace: &str,
    own: Option<&DeploymentConfig>,
) -> Result<Customizations, Vec<Refused>> {
    let found = Customizations::read(cr.spec.customize_components.as_ref())?;
    if cr.spec.customize_components.is_none() {
        return Ok(found);
    }
    let trial = own.map(|config| Trial::of(config, namespace, &inputs(cr, world, &strategy.id, &found)));
    if !trial.as_ref().is_some_and(|trial| world.kept.succeeded(trial)) {
        try_out(&found, cr, strategy, world, namespace)?;
        trial.into_iter().for_each(|trial| world.kept.remember(trial));
    }
    Ok(found.tried())
}

fn try_out(
    changes: &Customizations,
    cr: &KubeVirt,
    strategy: &Strategy,
    world: &World,
    namespace: &str,
) -> Result<(), Vec<Refused>> {
    desired(strategy, &inputs(cr, world, &strategy.id, changes))?;
    for mut secret in certificates::blanks(certificates::of(&strategy.objects, namespace), namespace) {
        changes.apply(&mut secret).map_err(|refused| vec![refused])?;
    }
    Ok(())
}

/// The changes that were made before those that are refused now, as this operator's own kept strategy tells. Beside
/// another version's strategy nobody writes them down.
fn last_made(
    cr: &KubeVirt,
    strategy: &Strategy,
    world: &World,
    settings: &Settings,
    is_own: bool,
) -> Option<Customizations> {
    let kept = world.strategies.iter().filter(|stored| is_own && stored.title.id == strategy.id);
    let kept = kept.max_by_key(|stored| (&stored.title.created, &stored.title.name))?;
    let given = kept.data(strategy::CUSTOMIZED_KEY);
    let made = given.map_or_else(|| Some(Customizations::none()), Customizations::recall)?;
    try_out(&made, cr, strategy, world, &settings.namespace).is_ok().then(|| made.tried())
}

/// The spec of a CR that follows the operator's own version.
fn follow_own(cr: &KubeVirt) -> kubevirt_api::kubevirt::KubeVirtSpec {
    let mut spec = cr.spec.clone();
    spec.image_tag = None;
    spec.image_registry = None;
    spec
}

/// IDs by which a version of a registry was deployed before, as the status tells: what runs is stamped with them.
fn known_ids<'a>(status: &'a KubeVirtStatus, config: &DeploymentConfig) -> Vec<&'a str> {
    let KubeVirtStatus {
        observed_kube_virt_version,
        observed_kube_virt_registry,
        observed_deployment_id,
        target_kube_virt_version,
        target_kube_virt_registry,
        target_deployment_id,
        ..
    } = status;
    let is_it = |version: &Option<String>, registry: &Option<String>| {
        version.as_ref() == Some(&config.kubevirt_version) && registry.as_ref() == Some(&config.registry)
    };
    let observed = observed_deployment_id.as_deref();
    let target = target_deployment_id.as_deref();
    let observed = observed.filter(|_| is_it(observed_kube_virt_version, observed_kube_virt_registry));
    let target = target.filter(|_| is_it(target_kube_virt_version, target_kube_virt_registry));
    observed.into_iter().chain(target).filter(|id| !id.is_empty()).collect()
}

/// The strategy of a deployment among those in the cluster: the best that holds what it says.
fn stored(
    strategies: &[Arc<Stored>],
    config: &DeploymentConfig,
    known: &[&str],
    settings: &Settings,
) -> Result<Strategy, Refusal> {
    let (version, registry) = (&config.kubevirt_version, &config.registry);
    let mut ranked: Vec<_> =
        strategies.iter().filter_map(|stored| Some((strategy::rank(&stored.title, config, known)?, stored))).collect();
    ranked.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut unfit = Vec::new();
    for (_, stored) in ranked {
        let why = match stored.read() {
            Err(error) => error.to_string(),
            Ok(strategy) => match provenance::check(&strategy, config) {
                Err(mismatch) => mismatch.to_string(),
                Ok(()) => return Ok(strategy),
            },
        };
        unfit.push(format!("ConfigMap {}: {why}", stored.title.name));
    }
    let own = settings.operator_version();
    let message = if unfit.is_empty() {
        format!(
            "Version {version} from {registry} cannot be deployed: this operator is {own} and no install strategy for \
             {version} is in the cluster. Nothing was changed. Set spec.imageTag to {own} or remove it, or install the \
             operator of {version}"
        )
    } else {
        format!(
            "Version {version} from {registry} cannot be deployed: what is in the cluster as its install strategy cannot be \
             used: {}. Nothing was changed. Delete what is named and install the operator of {version}",
            unfit.join("; ")
        )
    };
    Err(Refusal { reason: Reason::TargetUnavailable, message, config: Some(Box::new(config.clone())) })
}

fn observed_strategy(strategies: &[Arc<Stored>], status: &KubeVirtStatus, target: &str) -> Option<Strategy> {
    let id = status.observed_deployment_id.as_deref().filter(|id| !id.is_empty() && *id != target)?;
    let (version, registry) = (
        status.observed_kube_virt_version.as_deref().unwrap_or_default(),
        status.observed_kube_virt_registry.as_deref().unwrap_or_default(),
    );
    let is_it = |stored: &&Arc<Stored>| {
        let Title { version: its_version, registry: its_registry, id: its_id, .. } = &stored.title;
        its_id == id || (its_id.is_empty() && its_version == version && its_registry == registry)
    };
    let newest = strategies.iter().filter(is_it).max_by_key(|stored| {
        let Title { id, created, name, .. } = &stored.title;
        (!id.is_empty(), created, name)
    });
    match newest.map(|stored| stored.read()) {
        Some(Ok(strategy)) => Some(strategy),
        // Without it the live roles are the record of what old pods may do.
        Some(Err(error)) => {
            tracing::warn!(version, %error, "the install strategy of the observed version cannot be read");
            None
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kubevirt_release::OwnImage;
    use serde_json::json;

    use super::*;

    /// What becomes of a CR whose spec has a length of time that is none, deleted or not.
    fn unreadable(deleted: bool) -> Validated {
        let settings = Settings {
            namespace: "kubevirt".to_owned(),
            env: BTreeMap::new(),
            own: OwnImage::parse("registry.example/suite/virt-operator:v0.2.0", None),
            runbooks: Default::default(),
            architecture: "amd64",
        };
        let mut cr = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": "kubevirt", "uid": "u"},
            "spec": {"workloadUpdateStrategy": {"batchEvictionInterval": "a fortnight"}},
            "status": {"observedDeploymentID": "x"},
        });
        if deleted {
            cr["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        validate(&World { crs: vec![Live::new(cr)], ..World::default() }, &settings)
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_refused_with_a_reason_and_can_be_deleted() {
        let Validated { followed, ignored } = unreadable(false);
        assert!(ignored.is_empty(), "nobody is told of what is ignored and cannot be read");
        let Some(Wanted::Refused { refusal, kept: None }) = followed.map(|followed| followed.wanted) else {
            panic!("it is refused, and nothing is kept by a guess");
        };
        assert_eq!(refusal.reason, Reason::InvalidSpec);
        assert!(refusal.message.starts_with("This object cannot be read"), "{}", refusal.message);
        let deleted = unreadable(true).followed.map(|followed| followed.wanted);
        assert!(matches!(deleted, Some(Wanted::Uninstall)));
    }
}
