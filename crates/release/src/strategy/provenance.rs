//! Whether a strategy is the one that was asked for. Annotations only claim it: an operator that was pulled under another
//! version's name writes its own objects under that name. What the objects say about images, namespace and pulling decides.

use serde_json::Value;
use thiserror::Error;

use crate::certificates;
use crate::config::DeploymentConfig;
use crate::image::reference;
use crate::kinds::Kind;
use crate::object::Object;

use super::Strategy;

/// The workloads every release has, which are also the names of their images.
const CORE: [(Kind, &str); 3] =
    [(Kind::Deployment, "virt-api"), (Kind::Deployment, "virt-controller"), (Kind::DaemonSet, "virt-handler")];

/// Why a strategy is not the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    #[error("it is marked as {version} from {registry}")]
    Marked { version: String, registry: String },
    #[error("{object} is missing in it")]
    Missing { object: &'static str },
    #[error("its {object} is in namespace {namespace}, not in {wanted}")]
    Namespace { object: String, namespace: String, wanted: String },
    #[error("its {object} runs {image}, not {wanted}")]
    Image { object: String, image: String, wanted: String },
    #[error("its {object} pulls images with {found}, not with {wanted}")]
    Pulling { object: String, found: String, wanted: String },
    #[error("its {object} lacks the variable {variable}")]
    Environment { object: String, variable: String },
    #[error("it needs {objects}, of which this operator knows nothing")]
    Unknown { objects: String },
}

/// Compares what a strategy contains with what was asked for.
///
/// # Errors
/// The first difference.
pub fn check(strategy: &Strategy, config: &DeploymentConfig) -> Result<(), Mismatch> {
    let Strategy { version, registry, id: _, objects } = strategy;
    if *version != config.kubevirt_version || *registry != config.registry {
        return Err(Mismatch::Marked { version: version.clone(), registry: registry.clone() });
    }
    for (kind, name) in CORE {
        let workload = objects.iter().find(|object| object.kind() == kind && object.name() == name);
        workload.map_or(Err(Mismatch::Missing { object: name }), |workload| check_workload(workload, name, config))?;
    }
    let unknown = certificates::not_known(objects, &config.namespace);
    if !unknown.is_empty() {
        let objects = unknown.iter().map(|object| object.key().to_string()).collect::<Vec<_>>().join(", ");
        return Err(Mismatch::Unknown { objects });
    }
    Ok(())
}

fn check_workload(workload: &Object, name: &str, config: &DeploymentConfig) -> Result<(), Mismatch> {
    let object = name.to_owned();
    let namespace = workload.namespace().unwrap_or_default();
    if namespace != config.namespace {
        let (namespace, wanted) = (namespace.to_owned(), config.namespace.clone());
        return Err(Mismatch::Namespace { object, namespace, wanted });
    }
    let spec = workload.at("/spec/template/spec").unwrap_or(&Value::Null);
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let container = containers.iter().find(|container| container["name"] == name).unwrap_or(&Value::Null);
    let image = container["image"].as_str().unwrap_or_default();
    if !is_image(image, name, config) {
        let wanted = wanted_image(name, config);
        return Err(Mismatch::Image { object, image: image.to_owned(), wanted });
    }
    let policy = container["imagePullPolicy"].as_str().unwrap_or_default();
    let secrets: Vec<&str> = spec["imagePullSecrets"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|secret| secret["name"].as_str())
        .collect();
    let found = pulling(policy, &secrets);
    let wanted_secrets = config.image_pull_secrets();
    let wanted = pulling(config.image_pull_policy(), &wanted_secrets.iter().map(String::as_str).collect::<Vec<_>>());
    if found != wanted {
        return Err(Mismatch::Pulling { object, found, wanted });
    }
    let env = container["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_set = |(name, value): &(&String, &String)| {
        env.iter().any(|variable| variable["name"] == **name && variable["value"] == **value)
    };
    match config.passthrough_env_vars.iter().find(|pair| !is_set(pair)) {
        Some((variable, _)) => Err(Mismatch::Environment { object, variable: variable.clone() }),
        None => Ok(()),
    }
}

fn wanted_image(name: &str, config: &DeploymentConfig) -> String {
    reference(&config.registry, &format!("{}{name}", config.image_prefix), &config.kubevirt_version)
}

/// Whether an image is what was asked for: of the registry, and of the version or by a digest, which says more than a tag.
fn is_image(image: &str, name: &str, config: &DeploymentConfig) -> bool {
    let by_digest = format!("{}/{}{name}@sha256:", config.registry, config.image_prefix);
    let overridden = match name {
        "virt-api" => &config.virt_api_image,
        "virt-controller" => &config.virt_controller_image,
        _ => &config.virt_handler_image,
    };
    if overridden.is_empty() {
        image == wanted_image(name, config) || image.starts_with(&by_digest)
    } else {
        image == overridden
    }
}

fn pulling(policy: &str, secrets: &[&str]) -> String {
    match secrets {
        [] => policy.to_owned(),
        secrets => format!("{policy} and {}", secrets.join(", ")),
    }
}
