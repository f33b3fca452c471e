//! Which suite is wanted: the deployment config, and the ID that tells two of them apart.
//!
//! It is resolved from the operator's own image, its environment and the CR; it never looks at a cluster.

use std::collections::BTreeMap;

use kubevirt_api::kubevirt::KubeVirtSpec;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use thiserror::Error;

use crate::image::{OwnImage, reference};

/// Variables of the operator's environment with this prefix are set in every pod of the suite, without the prefix.
pub const EXTRA_ENV_PREFIX: &str = "KV_IO_EXTRA_ENV_";

/// What has an image of its own in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    VirtOperator,
    VirtApi,
    VirtController,
    VirtHandler,
    VirtLauncher,
}

impl Component {
    pub const ALL: &'static [Self] =
        &[Self::VirtOperator, Self::VirtApi, Self::VirtController, Self::VirtHandler, Self::VirtLauncher];

    /// The image's name, without registry and prefix.
    pub fn image_name(self) -> &'static str {
        match self {
            Self::VirtOperator => "virt-operator",
            Self::VirtApi => "virt-api",
            Self::VirtController => "virt-controller",
            Self::VirtHandler => "virt-handler",
            Self::VirtLauncher => "virt-launcher",
        }
    }
}

/// The wanted suite. Its JSON form is `status.targetDeploymentConfig`, which other programs read: the keys are fixed.
///
/// The image fields are overrides; [`DeploymentConfig::image`] gives the image that is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_prefix: String,
    #[serde(rename = "kubeVirtVersion", skip_serializing_if = "String::is_empty")]
    pub kubevirt_version: String,
    /// The operator of the wanted version, which renders the strategy; no pod of the suite contains it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_operator_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_api_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_controller_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_handler_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_launcher_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_export_proxy_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_export_server_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_synchronization_controller_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_template_apiserver_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virt_template_controller_image: String,
    #[serde(rename = "GsImage", skip_serializing_if = "String::is_empty")]
    pub gs_image: String,
    #[serde(rename = "PrHelperImage", skip_serializing_if = "String::is_empty")]
    pub pr_helper_image: String,
    #[serde(rename = "SidecarShimImage", skip_serializing_if = "String::is_empty")]
    pub sidecar_shim_image: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_properties: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub passthrough_env_vars: BTreeMap<String, String>,
    /// The ID by which somebody else knows the same deployment: the operator of the existing suite computes another one.
    /// Empty when it follows from the rest.
    #[serde(skip)]
    pub given_id: String,
}

/// Why no suite can be derived from what was given.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("spec.imageTag `{tag}` is neither an image tag nor a sha256 digest")]
    InvalidTag { tag: String },
    #[error("spec.imageRegistry `{registry}` is not a registry path such as quay.io/kubevirt")]
    InvalidRegistry { registry: String },
    #[error(
        "the operator's image `{image}` does not name its registry: set spec.imageRegistry, or run the operator from \
         an image whose name ends in virt-operator"
    )]
    NoRegistry { image: String },
    #[error("spec.imagePullPolicy `{policy}` is not one of Always, IfNotPresent, Never")]
    InvalidPullPolicy { policy: String },
}

const PULL_POLICY: &str = "ImagePullPolicy";
const PULL_SECRETS: &str = "ImagePullSecrets";
const DEFAULT_PULL_POLICY: &str = "IfNotPresent";
/// The longest tag a registry accepts.
const LONGEST_TAG: usize = 128;

impl DeploymentConfig {
    /// The suite that the CR asks this operator for.
    ///
    /// Image overrides of the environment are images of the operator's own release: they count only while the CR
    /// names no other version and no other registry.
    ///
    /// # Errors
    /// A field of the spec that no image can be derived from.
    pub fn resolve(
        own: &OwnImage,
        env: &BTreeMap<String, String>,
        namespace: &str,
        spec: &KubeVirtSpec,
    ) -> Result<Self, ConfigError> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let (tag, registry) = (given(&spec.image_tag), given(&spec.image_registry));
        if let Some(tag) = tag.as_ref().filter(|tag| !is_tag(tag)) {
            return Err(ConfigError::InvalidTag { tag: tag.clone() });
        }
        if let Some(registry) = registry.as_ref().filter(|registry| !is_registry(registry)) {
            return Err(ConfigError::InvalidRegistry { registry: registry.clone() });
        }
        let policy = given(&spec.image_pull_policy).unwrap_or_else(|| DEFAULT_PULL_POLICY.into());
        if !["Always", "IfNotPresent", "Never"].contains(&policy.as_str()) {
            return Err(ConfigError::InvalidPullPolicy { policy });
        }

        let version = tag.unwrap_or_else(|| own.version.clone());
        let registry = registry.unwrap_or_else(|| own.registry.clone());
        let own_release = version == own.version && registry == own.registry;
        let from_env = |key: &str| match env.get(key) {
            Some(image) if own_release => image.clone(),
            _ => String::new(),
        };
        let virt_operator_image = if own_release {
            own.image.clone()
        } else {
            reference(&registry, &format!("{}virt-operator", own.prefix), &version)
        };
        let config = Self {
            namespace: namespace.into(),
            registry,
            image_prefix: own.prefix.clone(),
            kubevirt_version: version,
            virt_operator_image,
            virt_api_image: from_env("VIRT_API_IMAGE"),
            virt_controller_image: from_env("VIRT_CONTROLLER_IMAGE"),
            virt_handler_image: from_env("VIRT_HANDLER_IMAGE"),
            virt_launcher_image: from_env("VIRT_LAUNCHER_IMAGE"),
            virt_export_proxy_image: from_env("VIRT_EXPORTPROXY_IMAGE"),
            virt_export_server_image: from_env("VIRT_EXPORTSERVER_IMAGE"),
            virt_synchronization_controller_image: from_env("VIRT_SYNCHRONIZATIONCONTROLLER_IMAGE"),
            virt_template_apiserver_image: from_env("VIRT_TEMPLATE_APISERVER_IMAGE"),
            virt_template_controller_image: from_env("VIRT_TEMPLATE_CONTROLLER_IMAGE"),
            gs_image: from_env("GS_IMAGE"),
            pr_helper_image: from_env("PR_HELPER_IMAGE"),
            sidecar_shim_image: from_env("SIDECAR_SHIM_IMAGE"),
            additional_properties: additional_properties(spec, &policy),
            passthrough_env_vars: env
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(EXTRA_ENV_PREFIX)?.to_string(), value.clone())))
                .filter(|(key, _)| !key.is_empty())
                .collect(),
            given_id: String::new(),
        };
        let unnamed = Component::ALL.iter().any(|c| config.override_of(*c).is_empty());
        if config.registry.is_empty() && unnamed {
            return Err(ConfigError::NoRegistry { image: own.image.clone() });
        }
        Ok(config)
    }

    /// The image of a component: its override, or what registry, prefix and version make.
    pub fn image(&self, component: Component) -> String {
        match self.override_of(component) {
            "" => reference(
                &self.registry,
                &format!("{}{}", self.image_prefix, component.image_name()),
                &self.kubevirt_version,
            ),
            image => image.into(),
        }
    }

    fn override_of(&self, component: Component) -> &str {
        match component {
            Component::VirtOperator => &self.virt_operator_image,
            Component::VirtApi => &self.virt_api_image,
            Component::VirtController => &self.virt_controller_image,
            Component::VirtHandler => &self.virt_handler_image,
            Component::VirtLauncher => &self.virt_launcher_image,
        }
    }

    pub fn image_pull_policy(&self) -> &str {
        self.additional_properties.get(PULL_POLICY).map_or(DEFAULT_PULL_POLICY, String::as_str)
    }

    /// The names of the Secrets images are pulled with, each once, in the order given.
    pub fn image_pull_secrets(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Reference {
            #[serde(default)]
            name: String,
        }
        let text = self.additional_properties.get(PULL_SECRETS).map_or("null", String::as_str);
        let references: Option<Vec<Reference>> = serde_json::from_str(text).unwrap_or_default();
        let mut names: Vec<String> = vec![];
        for Reference { name } in references.unwrap_or_default() {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The deployment ID: the one that was given, else the one that follows from what is deployed.
    pub fn id(&self) -> String {
        if self.given_id.is_empty() { self.own_id() } else { self.given_id.clone() }
    }

    /// The same deployment under the ID by which somebody else knows it.
    #[must_use]
    pub fn known_as(mut self, id: &str) -> Self {
        self.given_id = if id == self.own_id() { String::new() } else { id.to_owned() };
        self
    }

    /// SHA-1 in hexadecimal over what every pod of the suite is made from, and nothing else.
    ///
    /// What concerns one component only (placement, replicas, monitoring, uninstall) is left out on purpose: it must
    /// not roll the others.
    pub fn own_id(&self) -> String {
        let mut hash = Sha1::new();
        let mut add = |key: &str, value: &str| {
            // Lengths keep two neighbouring values from being read as another pair.
            hash.update(format!("{}:{key}={}:{value};", key.len(), value.len()));
        };
        add("Namespace", &self.namespace);
        add("Registry", &self.registry);
        add("ImagePrefix", &self.image_prefix);
        add("KubeVirtVersion", &self.kubevirt_version);
        for component in Component::ALL.iter().filter(|c| **c != Component::VirtOperator) {
            add(component.image_name(), &self.image(*component));
        }
        for (key, image) in [
            ("VirtExportProxyImage", &self.virt_export_proxy_image),
            ("VirtExportServerImage", &self.virt_export_server_image),
            ("VirtSynchronizationControllerImage", &self.virt_synchronization_controller_image),
            ("VirtTemplateApiserverImage", &self.virt_template_apiserver_image),
            ("VirtTemplateControllerImage", &self.virt_template_controller_image),
            ("GsImage", &self.gs_image),
            ("PrHelperImage", &self.pr_helper_image),
            ("SidecarShimImage", &self.sidecar_shim_image),
        ] {
            add(key, image);
        }
        add(PULL_POLICY, self.image_pull_policy());
        self.image_pull_secrets().iter().for_each(|name| add(PULL_SECRETS, name));
        self.passthrough_env_vars.iter().for_each(|(key, value)| add(key, value));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The JSON text of the config with its ID, as it stands in the CR's status.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("a config is plain data");
        value["id"] = self.id().into();
        value.to_string()
    }

    /// Reads a config, with the ID in it: who wrote it may compute another one than this operator does, and looks for the
    /// one he knows.
    ///
    /// # Errors
    /// The text is not a deployment config.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Known {
            #[serde(default)]
            id: String,
        }
        let config: Self = serde_json::from_str(text)?;
        let Known { id } = serde_json::from_str(text)?;
        Ok(config.known_as(&id))
    }
}

/// The fields of the spec that the operator of another version needs to render its strategy.
fn additional_properties(spec: &KubeVirtSpec, policy: &str) -> BTreeMap<String, String> {
    let secrets = serde_json::to_string(&spec.image_pull_secrets).expect("names are plain data");
    let mut properties: BTreeMap<String, String> = [
        (PULL_POLICY, &Some(policy.to_string())),
        (PULL_SECRETS, &Some(secrets)),
        ("MonitorNamespace", &spec.monitor_namespace),
        ("ServiceMonitorNamespace", &spec.service_monitor_namespace),
        ("MonitorAccount", &spec.monitor_account),
        ("UninstallStrategy", &spec.uninstall_strategy),
        ("ProductVersion", &spec.product_version),
        ("ProductName", &spec.product_name),
        ("ProductComponent", &spec.product_component),
        ("SynchronizationPort", &spec.synchronization_port),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_string(), value.clone().filter(|v| !v.is_empty())?)))
    .collect();
    let network = spec.configuration.as_ref().and_then(|c| c.migrations.as_ref()).and_then(|m| m.network.clone());
    if let Some(network) = network {
        properties.insert("MigrationNetwork".into(), network);
    }
    properties
}

fn is_tag(text: &str) -> bool {
    let tag = text.strip_prefix("sha256:").unwrap_or(text);
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= LONGEST_TAG && tag.starts_with(word) && tag.chars().all(|c| word(c) || ".-".contains(c))
}

fn is_registry(text: &str) -> bool {
    !text.starts_with('/')
        && !text.ends_with('/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:[]".contains(c))
}

#[cfg(test)]
mod tests;
