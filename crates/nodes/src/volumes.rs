//! A pod's volumes: what must exist before its containers start, and the files its containers then read. Contents are
//! read from the cache at each access, so a changed Secret is seen by a running process.

use std::io;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};
use kubevirt_runtime::host::Files;
use nanokube_controllers::cache::Name;
use tokio::sync::watch;

use crate::environment::{Sources, field};
use crate::fleet::Fleet;

/// Where a pod's service-account credentials are.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The ConfigMap with the cluster's certificate authority.
const ROOT_CA: &str = "kube-root-ca.crt";

/// Why a volume cannot be mounted.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unmountable {
    #[error("secret {0:?} not found")]
    Secret(String),
    #[error("configmap {0:?} not found")]
    ConfigMap(String),
    #[error("references non-existent {kind} key: {key}")]
    Key { kind: &'static str, key: String },
    #[error("volumes of this type are not supported by simulated nodes")]
    Type,
    #[error("failed to fetch token: {0}")]
    Token(String),
}

/// Secrets and ConfigMaps of one namespace, as they are now.
pub(crate) struct NamespaceSources<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) namespace: &'a str,
}

impl Sources for NamespaceSources<'_> {
    fn secret(&self, name: &str) -> Option<Secret> {
        self.fleet.read(|objects| objects.secrets.get(&Name::new(self.namespace, name)).map(|it| Secret::clone(it)))
    }

    fn config_map(&self, name: &str) -> Option<ConfigMap> {
        self.fleet
            .read(|objects| objects.config_maps.get(&Name::new(self.namespace, name)).map(|it| ConfigMap::clone(it)))
    }
}

fn check_items<T>(
    items: Option<&Vec<KeyToPath>>,
    kind: &'static str,
    found: impl Fn(&str) -> Option<T>,
) -> Result<(), Unmountable> {
    match items.into_iter().flatten().find(|item| found(&item.key).is_none()) {
        Some(item) => Err(Unmountable::Key { kind, key: item.key.clone() }),
        None => Ok(()),
    }
}

fn check_secret(
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    optional: Option<bool>,
    sources: &dyn Sources,
) -> Result<(), Unmountable> {
    match sources.secret(name) {
        None if optional == Some(true) => Ok(()),
        None => Err(Unmountable::Secret(name.to_owned())),
        Some(_) if optional == Some(true) => Ok(()),
        Some(secret) => check_items(items, "secret", |key| secret_value(&secret, key)),
    }
}

fn check_config_map(
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    optional: Option<bool>,
    sources: &dyn Sources,
) -> Result<(), Unmountable> {
    match sources.config_map(name) {
        None if optional == Some(true) => Ok(()),
        None => Err(Unmountable::ConfigMap(name.to_owned())),
        Some(_) if optional == Some(true) => Ok(()),
        Some(map) => check_items(items, "config", |key| config_value(&map, key)),
    }
}

/// Whether a volume can be mounted now.
pub(crate) fn check(volume: &Volume, sources: &dyn Sources) -> Result<(), Unmountable> {
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        return check_secret(name, source.items.as_ref(), source.optional, sources);
    }
    if let Some(source) = &volume.config_map {
        return check_config_map(&source.name, source.items.as_ref(), source.optional, sources);
    }
    if let Some(source) = &volume.projected {
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.secret {
                check_secret(&part.name, part.items.as_ref(), part.optional, sources)?;
            }
            if let Some(part) = &part.config_map {
                check_config_map(&part.name, part.items.as_ref(), part.optional, sources)?;
            }
        }
        return Ok(());
    }
    if volume.empty_dir.is_some() || volume.host_path.is_some() || volume.downward_api.is_some() {
        return Ok(());
    }
    // The API reads a volume without a source as an empty directory.
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == bare { Ok(()) } else { Err(Unmountable::Type) }
}

fn secret_value(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    secret.data.as_ref()?.get(key).map(|value| value.0.clone())
}

fn config_value(map: &ConfigMap, key: &str) -> Option<Vec<u8>> {
    let text = map.data.as_ref().and_then(|data| data.get(key)).map(|text| text.clone().into_bytes());
    text.or_else(|| map.binary_data.as_ref()?.get(key).map(|value| value.0.clone()))
}

/// The key that a path inside a volume stands for.
fn key_of<'a>(items: Option<&'a Vec<KeyToPath>>, path: &'a str) -> Option<&'a str> {
    match items {
        None => Some(path),
        Some(items) if items.is_empty() => Some(path),
        Some(items) => items.iter().find(|item| item.path == path).map(|item| item.key.as_str()),
    }
}

/// The files that one container sees.
pub(crate) struct PodFiles {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) pod: watch::Receiver<Arc<Pod>>,
    pub(crate) namespace: String,
    pub(crate) container: Container,
    /// The service account's token, once it was asked for.
    pub(crate) token: Arc<OnceLock<String>>,
}

impl Files for PodFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{path}: no such file or directory"));
        self.find(path).ok_or_else(missing)
    }
}

/// The rest of `path` below `dir`.
fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(dir.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/').map(|rest| rest.trim_start_matches('/')) }
}

impl PodFiles {
    fn find(&self, path: &str) -> Option<Vec<u8>> {
        let mounts = self.container.volume_mounts.iter().flatten();
        let mount = mounts
            .filter_map(|mount| Some((mount, below(path, &mount.mount_path)?)))
            .max_by_key(|(mount, _)| mount.mount_path.len());
        let Some((mount, rest)) = mount else { return self.credential(below(path, CREDENTIALS)?) };
        let inside = match mount.sub_path.as_deref().filter(|sub| !sub.is_empty()) {
            Some(sub) if rest.is_empty() => sub.to_owned(),
            Some(sub) => format!("{sub}/{rest}"),
            None => rest.to_owned(),
        };
        let pod = self.pod.borrow().clone();
        let volume = pod.spec.as_ref()?.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
        self.in_volume(volume, &inside)
    }

    fn sources(&self) -> NamespaceSources<'_> {
        NamespaceSources { fleet: &self.fleet, namespace: &self.namespace }
    }

    pub(crate) fn in_volume(&self, volume: &Volume, path: &str) -> Option<Vec<u8>> {
        let sources = self.sources();
        if let Some(source) = &volume.secret {
            let secret = sources.secret(source.secret_name.as_deref()?)?;
            return secret_value(&secret, key_of(source.items.as_ref(), path)?);
        }
        if let Some(source) = &volume.config_map {
            let map = sources.config_map(&source.name)?;
            return config_value(&map, key_of(source.items.as_ref(), path)?);
        }
        if let Some(source) = &volume.downward_api {
            return self.downward(source.items.as_deref()?, path);
        }
        let parts = volume.projected.as_ref()?.sources.as_deref()?;
        // Of two sources with the same path the later one wins, as on a real node.
        parts.iter().rev().find_map(|part| self.projected(part, path))
    }

    fn projected(&self, part: &VolumeProjection, path: &str) -> Option<Vec<u8>> {
        let sources = self.sources();
        if let Some(part) = &part.secret {
            return secret_value(&sources.secret(&part.name)?, key_of(part.items.as_ref(), path)?);
        }
        if let Some(part) = &part.config_map {
            return config_value(&sources.config_map(&part.name)?, key_of(part.items.as_ref(), path)?);
        }
        if let Some(part) = &part.downward_api {
            return self.downward(part.items.as_deref()?, path);
        }
        let token = part.service_account_token.as_ref()?;
        if token.path == path { self.credential("token") } else { None }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], path: &str) -> Option<Vec<u8>> {
        let item = items.iter().find(|item| item.path == path)?;
        field(&self.pod.borrow(), item.field_ref.as_ref()?).ok().map(String::into_bytes)
    }

    fn credential(&self, name: &str) -> Option<Vec<u8>> {
        match name {
            "token" => self.token.get().map(|token| token.clone().into_bytes()),
            "namespace" => Some(self.namespace.clone().into_bytes()),
            "ca.crt" => config_value(&self.sources().config_map(ROOT_CA)?, "ca.crt"),
            _ => None,
        }
    }
}
