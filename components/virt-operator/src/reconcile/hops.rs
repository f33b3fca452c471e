//! The first hop of a change that leaves versions out (pure): which of those in between can be had, and whether the change
//! has begun already.

use std::collections::BTreeSet;

use kubevirt_api::kubevirt::{KubeVirt, Reason};
use kubevirt_release::{DeploymentConfig, Kind};
use kubevirt_upgrade::hops::{hops, is_between, next, skips};

use super::World;
use super::build::observed;
use super::courses::Case;
use super::snapshot::is_stamped;
use super::validate::{Refusal, Target, asked_for};
use crate::cache::text;
use crate::settings::Settings;

/// The annotation that says of which version an object is, as a JSON pointer.
const VERSION: &str = "/metadata/annotations/kubevirt.io~1install-strategy-version";

/// The version to go through next on the way to what the CR asks for. `None` when that is to be brought about itself, or
/// not at all: no version is left out, none in between can be had, the last one cannot, or the change has gone beyond them.
pub(super) fn first(cr: &KubeVirt, world: &World, settings: &Settings) -> Option<Result<Target, Refusal>> {
    let running = observed(cr)?.version;
    let wanted = DeploymentConfig::resolve(&settings.own, &settings.env, &settings.namespace, &cr.spec).ok()?;
    if !skips(&running, &wanted.kubevirt_version) {
        return None;
    }
    let mut known = known(world, &wanted, settings);
    known.retain(|version| is_between(&running, version, &wanted.kubevirt_version));
    let begun = begun(world);
    if known.is_empty() || begun.contains(&wanted.kubevirt_version) {
        return None;
    }
    // Nobody sets out for what cannot be had: a version that was mistyped would move the suite.
    let last = asked_for(cr, world, settings).ok()?;
    // What was tried without them and undone is not tried in another way before somebody asks.
    if (Case { cr, target: &last, world, settings }).undone().is_some() {
        return None;
    }
    loop {
        // Whoever adds a better version does not turn round what has begun.
        let on_its_way = known.iter().find(|version| begun.contains(*version));
        let hop =
            on_its_way.map_or_else(|| next(&running, &wanted.kubevirt_version, &known), String::as_str).to_owned();
        if hop == wanted.kubevirt_version {
            return None;
        }
        let mut via = cr.clone();
        via.spec.image_tag = Some(hop.clone());
        via.spec.image_registry = Some(wanted.registry.clone());
        match asked_for(&via, world, settings) {
            Ok(target) => {
                let then = hops(&hop, &wanted.kubevirt_version, &known).into_iter().map(str::to_owned).collect();
                return Some(Ok(Target { then, ..target }));
            }
            // What cannot be had is left out, unless it only has to be brought from the shelf.
            Err(refusal) if refusal.reason == Reason::TargetUnavailable && !is_on_the_shelf(&hop, world, &wanted) => {
                known.remove(&hop);
            }
            Err(refusal) => return Some(Err(refusal)),
        }
    }
}

/// The versions of the registry that can be had.
fn known(world: &World, wanted: &DeploymentConfig, settings: &Settings) -> BTreeSet<String> {
    let stored = world.strategies.iter().map(|stored| &stored.title);
    let stored = stored.filter(|title| title.registry == wanted.registry).map(|title| title.version.clone());
    let own = (settings.own.registry == wanted.registry).then(|| settings.own.version.clone());
    stored.chain(own).chain(world.shelf.iter().cloned()).collect()
}

/// Whether a version lies on the shelf and was not brought into the cluster yet; what is there and does not fit is of no use.
fn is_on_the_shelf(version: &str, world: &World, wanted: &DeploymentConfig) -> bool {
    let is_it =
        |title: &kubevirt_release::strategy::Title| title.version == version && title.registry == wanted.registry;
    world.shelf.contains(version) && !world.strategies.iter().any(|stored| is_it(&stored.title))
}

/// The versions of which there are objects. Strategies are kept of any, what gets one is of none, and a definition that
/// only one version has stays for ever.
fn begun(world: &World) -> BTreeSet<String> {
    let parts = world.objects.iter().filter(|(key, live)| {
        let tells = !matches!(key.kind, Kind::ConfigMap | Kind::Secret | Kind::Job | Kind::CustomResourceDefinition);
        tells && is_stamped(live)
    });
    parts.filter_map(|(_, live)| text(live, VERSION)).map(str::to_owned).collect()
}
