//! `--dump-install-strategy`: the one thing a Job with the operator's image does. It is no operator and holds no lease.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use kubevirt_api::names::label;
use kubevirt_release::config::ConfigError;
use kubevirt_release::{DeploymentConfig, render};
use kubevirt_runtime::host::Host;

use crate::settings::Settings;

/// Why no strategy was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("TARGET_DEPLOYMENT_CONFIG is not a deployment config: {0}")]
    Asked(#[source] serde_json::Error),
    #[error("this operator's own image and environment name no release: {0}")]
    Own(#[from] ConfigError),
    #[error("the strategy was not written: {0}")]
    Write(#[from] kube::Error),
}

/// Writes the strategy that another operator asked this release for, and ends. That operator names what it wants in the
/// environment; without it, the strategy is that of a CR that asks for nothing in particular.
pub(crate) async fn install_strategy(host: &Host, settings: &Settings) -> Result<(), Error> {
    let config = match settings.env.get("TARGET_DEPLOYMENT_CONFIG") {
        Some(text) => DeploymentConfig::from_json(text).map_err(Error::Asked)?,
        None => DeploymentConfig::resolve(&settings.own, &settings.env, &settings.namespace, &Default::default())?,
    };
    let strategy = render(&config);
    let maps: Api<ConfigMap> = Api::namespaced(host.client.clone(), &settings.namespace);
    let wanted = strategy.encode(&settings.namespace);
    let selector = ListParams::default().labels(label::INSTALL_STRATEGY);
    let is_same = |map: &ConfigMap| map.metadata.annotations == wanted.metadata.annotations && map.data == wanted.data;
    // Whoever is run again must not leave a second one.
    if let Some(map) = maps.list(&selector).await?.items.into_iter().find(is_same) {
        tracing::info!(id = strategy.id, config_map = map.metadata.name, "the install strategy is there already");
        return Ok(());
    }
    let stored = maps.create(&PostParams::default(), &wanted).await?;
    let name = stored.metadata.name.unwrap_or_default();
    tracing::info!(version = strategy.version, id = strategy.id, config_map = name, "wrote the install strategy");
    Ok(())
}
