//! Install strategies in a directory, for clusters that cannot pull another version's operator: a release directory that is
//! mounted into the operator's pod, `VERSION/install-strategy.yaml` as `cargo xtask release` writes it, or
//! `VERSION/install-strategy.json` as `kubectl get configmap -o json` saves one; or an OCI image layout ([`crate::layout`]).

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kubevirt_release::strategy::GENERATE_NAME;
use kubevirt_release::yaml::YamlError;
use kubevirt_release::{DeploymentConfig, Object, yaml};
use kubevirt_runtime::host::Files;

use crate::layout::{Layout, LayoutError};

/// The names of the file, in the order in which they are looked for. JSON is YAML, too.
const FILES: [&str; 2] = ["install-strategy.yaml", "install-strategy.json"];

/// Why a strategy that lies there is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error("{file} cannot be read: {source}")]
    Unreadable { file: String, source: io::Error },
    #[error("{file} holds no install strategy: {source}")]
    NoStrategy { file: String, source: Box<YamlError> },
    #[error("{file} is not text")]
    NoText { file: String },
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The directory, if there is one.
#[derive(Clone)]
pub struct Shelf {
    files: Arc<dyn Files>,
    dir: Option<String>,
    /// What a layout's index said last, and which versions that were.
    known: Arc<Mutex<Option<Known>>>,
}

/// It is asked several times in each pass, and has not changed.
#[derive(Clone)]
struct Known {
    index: Vec<u8>,
    versions: BTreeSet<String>,
}

impl Shelf {
    pub fn new(files: &Arc<dyn Files>, dir: Option<String>) -> Self {
        let dir = dir.map(|dir| dir.trim_end_matches('/').to_owned());
        Self { files: Arc::clone(files), dir: dir.filter(|dir| !dir.is_empty()), known: Arc::default() }
    }

    /// The versions of which there seems to be one.
    pub fn versions(&self) -> BTreeSet<String> {
        let Some(dir) = self.dir.as_deref() else { return BTreeSet::new() };
        let of_layout = match Layout::find(self.files.as_ref(), dir) {
            Ok(None) => return self.files.list(dir).into_iter().flatten().collect(),
            Ok(Some(layout)) => self.of_layout(&layout),
            Err(error) => Err(error),
        };
        of_layout.unwrap_or_else(|error| {
            tracing::warn!(dir, %error, "which strategies there are cannot be told");
            BTreeSet::new()
        })
    }

    fn of_layout(&self, layout: &Layout<'_>) -> Result<BTreeSet<String>, LayoutError> {
        let index = layout.index_text()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Known { versions, .. }) = known.as_ref().filter(|known| known.index == index) {
            return Ok(versions.clone());
        }
        let versions = BTreeSet::from_iter(layout.versions()?);
        *known = Some(Known { index, versions: versions.clone() });
        Ok(versions)
    }

    /// The ConfigMap with the strategy of a version, to be put into the cluster. What it holds is judged there, like any
    /// other's.
    ///
    /// # Errors
    /// There is one, and it cannot be read.
    pub fn strategy(&self, config: &DeploymentConfig) -> Result<Option<Object>, ShelfError> {
        let Some(dir) = self.dir.as_deref() else { return Ok(None) };
        let version = &config.kubevirt_version;
        if let Some(layout) = Layout::find(self.files.as_ref(), dir)? {
            let text = layout.strategy(version)?;
            return text
                .map_or(Ok(None), |text| config_map(&format!("the layout's strategy of {version}"), &text, config));
        }
        for name in FILES {
            let file = format!("{dir}/{version}/{name}");
            let text = match self.files.read(&file) {
                Ok(bytes) => String::from_utf8(bytes).map_err(|_| ShelfError::NoText { file: file.clone() })?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(ShelfError::Unreadable { file, source }),
            };
            return config_map(&file, &text, config);
        }
        Ok(None)
    }
}

fn config_map(file: &str, text: &str, config: &DeploymentConfig) -> Result<Option<Object>, ShelfError> {
    let found = yaml::from_yaml_mended(text, |value| {
        if !value.is_object() {
            return;
        }
        // As a person saved it from a cluster, or as it was written for none.
        value["apiVersion"] = "v1".into();
        value["kind"] = "ConfigMap".into();
        let labels = value["metadata"]["labels"].clone();
        let annotations = value["metadata"]["annotations"].clone();
        value["metadata"] = serde_json::json!({
            "name": format!("{GENERATE_NAME}{}", config.kubevirt_version.to_lowercase().replace(['_', ':'], "-")),
            "namespace": config.namespace, "labels": labels, "annotations": annotations,
        });
    });
    let objects = found.map_err(|source| ShelfError::NoStrategy { file: file.to_owned(), source: source.into() })?;
    Ok(objects.into_iter().next())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kubevirt_release::{Strategy, render};

    use super::*;

    struct Disk(BTreeMap<String, String>);

    impl Files for Disk {
        fn read(&self, path: &str) -> io::Result<Vec<u8>> {
            self.0.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn list(&self, dir: &str) -> io::Result<Vec<String>> {
            let below = self.0.keys().filter_map(|path| path.strip_prefix(dir)?.strip_prefix('/')?.split('/').next());
            Ok(below.map(str::to_owned).collect())
        }
    }

    #[test]
    fn a_strategy_is_found_by_its_version_and_has_a_name_and_a_place() {
        let config = DeploymentConfig {
            namespace: "kubevirt".into(),
            registry: "r".into(),
            kubevirt_version: "v9".into(),
            ..DeploymentConfig::default()
        };
        let strategy = render(&config);
        let text = yaml::to_yaml(&[serde_json::to_value(strategy.encode("elsewhere")).expect("data")]);
        let files = |name: &str| -> Arc<dyn Files> { Arc::new(Disk([(format!("/s/v9/{name}"), text.clone())].into())) };
        for name in FILES {
            let found =
                Shelf::new(&files(name), Some("/s/".into())).strategy(&config).expect("readable").expect("it is there");
            assert_eq!(found.key().to_string(), "ConfigMap kubevirt/kubevirt-install-strategy-v9");
            assert_eq!(Strategy::decode(&found.read::<ConfigMap>().expect("a ConfigMap")).expect("read"), strategy);
        }
        let none = |dir: Option<&str>, config: &DeploymentConfig| {
            Shelf::new(&files(FILES[0]), dir.map(str::to_owned)).strategy(config).expect("nothing is there")
        };
        let shelf = Shelf::new(&files(FILES[0]), Some("/s".into()));
        assert_eq!(shelf.versions(), ["v9".to_owned()].into());
        assert_eq!(none(None, &config), None);
        assert_eq!(none(Some("/other"), &config), None);
        let other = DeploymentConfig { kubevirt_version: "v8".into(), ..config };
        assert_eq!(none(Some("/s"), &other), None);
    }

    #[test]
    fn a_file_that_is_there_and_of_no_use_is_named() {
        let files: Arc<dyn Files> =
            Arc::new(Disk([("/s/v9/install-strategy.json".to_owned(), "just a word".to_owned())].into()));
        let config = DeploymentConfig { kubevirt_version: "v9".into(), ..DeploymentConfig::default() };
        let error = Shelf::new(&files, Some("/s".into())).strategy(&config).expect_err("it is no object").to_string();
        assert!(error.starts_with("/s/v9/install-strategy.json holds no install strategy"), "{error}");
    }
}
