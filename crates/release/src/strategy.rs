//! The install-strategy protocol: the objects of a release in a ConfigMap, so that an operator can deploy another
//! release than its own.
//!
//! The text is compressed without a time stamp: equal objects make equal bytes.

pub mod provenance;

use std::io::{BufReader, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubevirt_api::names::{annotation, label};
use serde_json::Value;
use thiserror::Error;

use crate::config::DeploymentConfig;
use crate::kinds::Kind;
use crate::object::Object;
use crate::yaml::{self, YamlError};

/// The key of the ConfigMap's data.
pub const DATA_KEY: &str = "manifests";
/// Where the changes of `spec.customizeComponents` that were last made stand beside a kept strategy's objects.
pub const CUSTOMIZED_KEY: &str = "customizeComponents";
/// ConfigMaps get a generated name with this beginning.
pub const GENERATE_NAME: &str = "kubevirt-install-strategy-";
/// The value of the encoding annotation; without it the data is plain YAML.
pub const ENCODING: &str = "gzip+base64";

/// What a strategy is called as an artifact of a registry or of an OCI image layout.
pub const ARTIFACT_TYPE: &str = "application/vnd.kubevirt.install-strategy.v1";
/// The ConfigMap in such an artifact, its one layer: as YAML or as JSON.
pub const ARTIFACT_LAYERS: [&str; 2] =
    ["application/vnd.kubevirt.install-strategy.v1+yaml", "application/vnd.kubevirt.install-strategy.v1+json"];

/// Sixteen times what the strategies of today's suite unpack to; what is larger is not a strategy but an attack.
const LARGEST_TEXT: u64 = 64 << 20;

/// Every object of a release, and what that release is.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    pub version: String,
    pub registry: String,
    /// The deployment ID; empty in strategies written before there was one.
    pub id: String,
    pub objects: Vec<Object>,
}

#[derive(Debug, Error)]
pub enum StrategyError {
    #[error("the strategy's ConfigMap has no data `manifests`")]
    NoData,
    #[error("the strategy's encoding `{encoding}` is not known: this operator reads gzip+base64 and plain YAML")]
    UnknownEncoding { encoding: String },
    #[error("the strategy is not valid base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("the strategy is not valid gzip text: {0}")]
    Gzip(#[from] std::io::Error),
    #[error("the strategy unpacks to more than {LARGEST_TEXT} bytes")]
    TooLarge,
    #[error("the strategy's objects can't be read: {0}")]
    Objects(#[from] YamlError),
    #[error("the packed strategy can't be read: {0}")]
    Packed(#[from] serde_json::Error),
}

impl Strategy {
    /// The ConfigMap that hands this strategy to another operator. It has a generated name.
    pub fn encode(&self, namespace: &str) -> ConfigMap {
        let Self { version, registry, id, objects } = self;
        let annotations = [
            (annotation::STRATEGY_VERSION, version.as_str()),
            (annotation::STRATEGY_REGISTRY, registry.as_str()),
            (annotation::STRATEGY_IDENTIFIER, id.as_str()),
            (annotation::STRATEGY_ENCODING, ENCODING),
        ];
        let labels = [(label::MANAGED_BY, label::MANAGED_BY_OPERATOR), (label::INSTALL_STRATEGY, "")];
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        ConfigMap {
            metadata: ObjectMeta {
                generate_name: Some(GENERATE_NAME.into()),
                namespace: Some(namespace.into()),
                labels: Some(owned(&labels)),
                annotations: Some(owned(&annotations)),
                ..Default::default()
            },
            data: Some([(DATA_KEY.to_string(), pack(&yaml::to_yaml(objects)))].into()),
            ..Default::default()
        }
    }

    /// The objects in a compact form, to be kept in memory; [`Self::unpack`] is far cheaper than reading a ConfigMap.
    pub fn pack(&self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut encoder, &self.objects).expect("objects are plain data and memory takes them");
        encoder.finish().expect("writing to memory does not fail")
    }

    /// The strategy of a title and packed objects.
    ///
    /// # Errors
    /// The bytes do not come from [`Self::pack`].
    pub fn unpack(title: &Title, packed: &[u8]) -> Result<Self, StrategyError> {
        let values: Vec<Value> = serde_json::from_reader(BufReader::new(GzDecoder::new(packed)))?;
        let number =
            |(at, value)| Object::from_value(value).map_err(|error| YamlError::Object { number: at + 1, error });
        let objects = values.into_iter().enumerate().map(number).collect::<Result<_, _>>()?;
        let Title { version, registry, id, .. } = title.clone();
        Ok(Self { version, registry, id, objects })
    }

    /// Reads a strategy's ConfigMap.
    ///
    /// # Errors
    /// See [`StrategyError`].
    pub fn decode(config_map: &ConfigMap) -> Result<Self, StrategyError> {
        let data = config_map.data.as_ref().and_then(|d| d.get(DATA_KEY)).ok_or(StrategyError::NoData)?;
        let text = match annotation_of(config_map, annotation::STRATEGY_ENCODING) {
            "" => data.clone(),
            ENCODING => unpack(data)?,
            encoding => return Err(StrategyError::UnknownEncoding { encoding: encoding.into() }),
        };
        let text_of = |key| annotation_of(config_map, key).to_string();
        Ok(Self {
            version: text_of(annotation::STRATEGY_VERSION),
            registry: text_of(annotation::STRATEGY_REGISTRY),
            id: text_of(annotation::STRATEGY_IDENTIFIER),
            objects: yaml::from_yaml_mended(&text, add_missing_group)?,
        })
    }
}

/// What a ConfigMap says about the strategy in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Title {
    pub name: String,
    pub version: String,
    pub registry: String,
    /// Empty in strategies written before there was one.
    pub id: String,
    /// As the API server writes it: such texts are ordered like the times.
    pub created: String,
}

impl Title {
    /// Reads the metadata of a ConfigMap.
    pub fn of(config_map: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &config_map["metadata"];
        let annotation = |key: &str| text(&metadata["annotations"][key]);
        Self {
            name: text(&metadata["name"]),
            version: annotation(annotation::STRATEGY_VERSION),
            registry: annotation(annotation::STRATEGY_REGISTRY),
            id: annotation(annotation::STRATEGY_IDENTIFIER),
            created: text(&metadata["creationTimestamp"]),
        }
    }
}

/// How well a strategy fits what is asked for. The greater the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Of the version and registry, under an ID that nobody here knows: another operator computes another one.
    Version,
    /// As [`Self::Version`], from before there were IDs.
    Legacy,
    /// Under an ID by which the deployment is known: it is what runs.
    Known,
    /// Under the ID that follows from what is asked for.
    Own,
}

/// The place of a strategy among those that may be what is asked for, `None` for any other: how well it fits, then how
/// new it is; equally old ones are told apart by name. `known` are IDs by which the same version and registry was
/// deployed before.
pub fn rank<'a>(title: &'a Title, config: &DeploymentConfig, known: &[&str]) -> Option<(Fit, &'a str, &'a str)> {
    let Title { name, version, registry, id, created } = title;
    let is_version = *version == config.kubevirt_version && *registry == config.registry;
    let fit = match id.as_str() {
        "" if is_version => Fit::Legacy,
        "" => return None,
        id if id == config.own_id() => Fit::Own,
        id if known.contains(&id) => Fit::Known,
        _ if is_version => Fit::Version,
        _ => return None,
    };
    Some((fit, created, name))
}

/// Releases of the existing suite write some kinds as `apiVersion: v1`, without their group.
fn add_missing_group(value: &mut Value) {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
    let (version, name) = (text("apiVersion"), text("kind"));
    let meant = Kind::ALL.iter().find(|kind| kind.name() == name && kind.version() == version);
    if let Some(kind) = meant {
        value["apiVersion"] = kind.api_version().into();
    }
}

fn annotation_of<'a>(config_map: &'a ConfigMap, key: &str) -> &'a str {
    config_map.metadata.annotations.as_ref().and_then(|a| a.get(key)).map_or("", String::as_str)
}

fn pack(text: &str) -> String {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).expect("writing to memory does not fail");
    BASE64.encode(encoder.finish().expect("writing to memory does not fail"))
}

fn unpack(data: &str) -> Result<String, StrategyError> {
    let packed = BASE64.decode(data.trim())?;
    let mut text = String::new();
    let read = GzDecoder::new(packed.as_slice()).take(LARGEST_TEXT + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST_TEXT {
        return Err(StrategyError::TooLarge);
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
