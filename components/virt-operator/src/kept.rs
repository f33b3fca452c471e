//! What passes need not do again while their inputs are the same: packing the own release's strategy for the cluster, and
//! trying the CR's changes out on its objects.
//!
//! What is remembered is known by everything it was made from. It is lost with the process, and then made anew.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kubevirt_api::kubevirt::KubeVirtSpec;
use kubevirt_release::{DeploymentConfig, Inputs, Strategy};

/// The last of each. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Last>>);

#[derive(Debug, Default)]
struct Last {
    packed: Option<Packed>,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Packed {
    config: DeploymentConfig,
    namespace: String,
    map: ConfigMap,
}

/// What changes were tried out on, apart from the objects that follow from the configuration. The changes are the spec's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trial {
    config: DeploymentConfig,
    namespace: String,
    spec: KubeVirtSpec,
    generation: i64,
    nodes: usize,
    control_plane_nodes: usize,
}

impl Trial {
    pub(crate) fn of(config: &DeploymentConfig, namespace: &str, inputs: &Inputs<'_>) -> Self {
        let Inputs { spec, customizations: _, generation, nodes, control_plane_nodes } = *inputs;
        let (config, namespace, spec) = (config.clone(), namespace.to_owned(), spec.clone());
        Self { config, namespace, spec, generation, nodes, control_plane_nodes }
    }
}

impl Kept {
    /// The ConfigMap of the own release's strategy, which is rendered from `config` alone.
    pub(crate) fn packed(&self, config: &DeploymentConfig, strategy: &Strategy, namespace: &str) -> ConfigMap {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = last.packed.as_ref().filter(|last| last.config == *config && last.namespace == namespace)
        {
            return packed.map.clone();
        }
        let map = strategy.encode(namespace);
        last.packed = Some(Packed { config: config.clone(), namespace: namespace.to_owned(), map: map.clone() });
        map
    }

    /// Whether it was this trial that succeeded last.
    pub(crate) fn succeeded(&self, trial: &Trial) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trial.as_ref() == Some(trial)
    }

    /// Takes note of a trial that succeeded.
    pub(crate) fn remember(&self, trial: Trial) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trial = Some(trial);
    }
}

#[cfg(test)]
mod tests {
    use kubevirt_release::customize::Customizations;
    use kubevirt_release::render;

    use super::*;

    fn config(version: &str) -> DeploymentConfig {
        let (registry, kubevirt_version) = ("r".to_owned(), version.to_owned());
        DeploymentConfig { registry, kubevirt_version, ..DeploymentConfig::default() }
    }

    #[test]
    fn a_strategy_is_packed_anew_when_what_it_was_made_from_is_another() {
        let kept = Kept::default();
        for (version, namespace) in [("v1", "a"), ("v1", "a"), ("v2", "a"), ("v2", "b"), ("v1", "a")] {
            let config = config(version);
            let strategy = render(&config);
            assert_eq!(kept.packed(&config, &strategy, namespace), strategy.encode(namespace), "{version} {namespace}");
        }
        let nothing = Strategy { objects: Vec::new(), ..render(&config("v1")) };
        let map = kept.packed(&config("v1"), &nothing, "a");
        assert_eq!(map, render(&config("v1")).encode("a"), "the second time nothing is packed");
    }

    #[test]
    fn a_trial_is_another_one_when_anything_differs() {
        let (kept, none) = (Kept::default(), Customizations::none());
        let (spec, other) =
            (KubeVirtSpec::default(), KubeVirtSpec { product_name: Some("p".into()), ..Default::default() });
        let inputs = Inputs { spec: &spec, customizations: &none, generation: 1, nodes: 1, control_plane_nodes: 1 };
        let trial =
            |config: &str, namespace, inputs: &Inputs<'_>| Trial::of(&super::tests::config(config), namespace, inputs);
        kept.remember(trial("v1", "a", &inputs));
        assert!(kept.succeeded(&trial("v1", "a", &inputs)));
        let others = [
            trial("v2", "a", &inputs),
            trial("v1", "b", &inputs),
            trial("v1", "a", &Inputs { spec: &other, ..inputs }),
            trial("v1", "a", &Inputs { generation: 2, ..inputs }),
            trial("v1", "a", &Inputs { nodes: 2, ..inputs }),
            trial("v1", "a", &Inputs { control_plane_nodes: 2, ..inputs }),
        ];
        assert!(others.iter().all(|other| !kept.succeeded(other)));
    }
}
