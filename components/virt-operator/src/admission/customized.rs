//! The objects that a changed `spec.customizeComponents` changes, as the operator would make them: whether each change can
//! be made is decided here (pure), whether a server takes the result is rehearsed by [`super::lookup`].

use kubevirt_api::kubevirt::{KubeVirt, KubeVirtSpec};
use kubevirt_release::customize::{Customizations, Refused};
use kubevirt_release::desired::{Inputs, Unsupported};
use kubevirt_release::{DeploymentConfig, Object, ObjectKey, certificates, desired, render};
use kubevirt_runtime::admission::Review;
use serde::Deserialize;

use crate::settings::Settings;

/// A cluster of an ordinary size: how many pods there are and where they run is no matter of the changes.
const NODES: usize = 3;

/// What a request changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Customized {
    /// The changed objects; Secrets aside, whose content nobody has here.
    pub objects: Vec<Object>,
    /// What is asked for and has no effect.
    pub warnings: Vec<String>,
}

/// What a request that changes `spec.customizeComponents` would do. `None`: it leaves it alone, or asks for a version whose
/// objects only the cluster has; then reconcile refuses what cannot be done.
///
/// # Errors
/// The changes that cannot be made.
pub fn customized(review: &Review, settings: &Settings) -> Result<Option<Customized>, Vec<Refused>> {
    let read = |object| KubeVirt::deserialize(object).ok().map(|cr| cr.spec);
    let Some(new) = read(&review.object) else { return Ok(None) };
    let old = read(&review.old_object).unwrap_or_default();
    let is_going = review.object.pointer("/metadata/deletionTimestamp").is_some_and(serde_json::Value::is_string);
    if is_going || new.customize_components.is_none() || new.customize_components == old.customize_components {
        return Ok(None);
    }
    let resolve =
        |spec: &KubeVirtSpec| DeploymentConfig::resolve(&settings.own, &settings.env, &settings.namespace, spec).ok();
    let followed = KubeVirtSpec { image_tag: None, image_registry: None, ..new.clone() };
    let Some(config) = resolve(&new).filter(|config| resolve(&followed).is_some_and(|own| own.id() == config.id()))
    else {
        return Ok(None);
    };
    let customizations = Customizations::read(new.customize_components.as_ref())?;
    let inputs =
        Inputs { spec: &new, customizations: &customizations, generation: 0, nodes: NODES, control_plane_nodes: NODES };
    let mut objects = desired(&render(&config), &inputs)?;
    let secrets = certificates::blanks(certificates::all(&settings.namespace), &settings.namespace);
    let keys: Vec<ObjectKey> = objects.iter().chain(&secrets).map(Object::key).collect();
    for mut secret in secrets {
        customizations.apply(&mut secret).map_err(|refused| vec![refused])?;
    }
    objects.retain(|object| customizations.concerns(&object.key()));
    let places = customizations.without_object(&keys).cloned();
    let warnings = places.map(|place| Unsupported::NothingToCustomize { place }.to_string()).collect();
    Ok(Some(Customized { objects, warnings }))
}
