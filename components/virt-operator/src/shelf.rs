//! Install strategies in a directory, for clusters that cannot pull another version's operator: a release directory that is
//! mounted into the operator's pod, `VERSION/install-strategy.yaml` as `cargo xtask release` writes it, or
//! `VERSION/install-strategy.json` as `kubectl get configmap -o json` saves one.

use std::collections::BTreeSet;
use std::sync::Arc;

use kubevirt_release::strategy::GENERATE_NAME;
use kubevirt_release::{DeploymentConfig, Object, yaml};
use kubevirt_runtime::host::Files;

/// The names of the file, in the order in which they are looked for. JSON is YAML, too.
const FILES: [&str; 2] = ["install-strategy.yaml", "install-strategy.json"];

/// The directory, if there is one.
#[derive(Clone)]
pub struct Shelf {
    files: Arc<dyn Files>,
    dir: Option<String>,
}

impl Shelf {
    pub fn new(files: &Arc<dyn Files>, dir: Option<String>) -> Self {
        Self { files: Arc::clone(files), dir: dir.filter(|dir| !dir.is_empty()) }
    }

    /// The versions of which there seems to be one.
    pub fn versions(&self) -> BTreeSet<String> {
        let found = self.dir.as_deref().map(|dir| self.files.list(dir));
        found.and_then(Result::ok).into_iter().flatten().collect()
    }

    /// The ConfigMap with the strategy of a version, to be put into the cluster. What it holds is judged there, like any
    /// other's.
    pub fn strategy(&self, config: &DeploymentConfig) -> Option<Object> {
        let dir = self.dir.as_deref()?.trim_end_matches('/');
        let version = &config.kubevirt_version;
        FILES.iter().find_map(|name| {
            let path = format!("{dir}/{version}/{name}");
            let text = self.files.read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
            let found = yaml::from_yaml_mended(&text, |value| {
                // As a person saved it from a cluster, or as it was written for none.
                value["apiVersion"] = "v1".into();
                value["kind"] = "ConfigMap".into();
                let labels = value["metadata"]["labels"].clone();
                let annotations = value["metadata"]["annotations"].clone();
                value["metadata"] = serde_json::json!({
                    "name": format!("{GENERATE_NAME}{}", version.to_lowercase().replace(['_', ':'], "-")),
                    "namespace": config.namespace, "labels": labels, "annotations": annotations,
                });
            });
            match found.map(|objects| objects.into_iter().next()) {
                Ok(object) => object,
                Err(error) => {
                    tracing::warn!(path, %error, "no install strategy in the file");
                    None
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;

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
            let found = Shelf::new(&files(name), Some("/s/".into())).strategy(&config).expect("it is there");
            assert_eq!(found.key().to_string(), "ConfigMap kubevirt/kubevirt-install-strategy-v9");
            assert_eq!(Strategy::decode(&found.read::<ConfigMap>().expect("a ConfigMap")).expect("read"), strategy);
        }
        let none = |dir: Option<&str>, config: &DeploymentConfig| {
            Shelf::new(&files(FILES[0]), dir.map(str::to_owned)).strategy(config)
        };
        let shelf = Shelf::new(&files(FILES[0]), Some("/s".into()));
        assert_eq!(shelf.versions(), ["v9".to_owned()].into());
        assert_eq!(none(None, &config), None);
        assert_eq!(none(Some("/other"), &config), None);
        let other = DeploymentConfig { kubevirt_version: "v8".into(), ..config };
        assert_eq!(none(Some("/s"), &other), None);
    }
}
