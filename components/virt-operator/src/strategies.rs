//! The install strategies in the cluster. A large one unpacks to megabytes of objects; what stays in memory is packed, and
//! a ConfigMap is read once, however many passes look at it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kubevirt_api::names::label;
use kubevirt_release::strategy::{StrategyError, Title};
use kubevirt_release::{Kind, ObjectKey, Strategy};
use serde::Deserialize;
use serde_json::Value;

use crate::cache::{Live, Objects, text};

/// A strategy in the cluster.
#[derive(Debug)]
pub struct Stored {
    pub title: Title,
    config_map: Live,
    packed: OnceLock<Box<[u8]>>,
}

/// All of them.
pub type Strategies = Vec<Arc<Stored>>;

impl Stored {
    pub fn new(config_map: &Live) -> Self {
        Self { title: Title::of(config_map), config_map: Live::clone(config_map), packed: OnceLock::new() }
    }

    /// Its objects.
    ///
    /// # Errors
    /// The ConfigMap holds no strategy.
    pub fn read(&self) -> Result<Strategy, StrategyError> {
        if let Some(packed) = self.packed.get() {
            return Strategy::unpack(&self.title, packed);
        }
        let strategy = Strategy::decode(&ConfigMap::deserialize(self.config_map.as_ref())?)?;
        // Packed the same by whoever comes first.
        let _ = self.packed.set(strategy.pack().into());
        Ok(strategy)
    }

    /// What stands beside the objects, by its key.
    pub fn data(&self, key: &str) -> Option<&str> {
        self.config_map.get("data")?.get(key)?.as_str()
    }

    fn is_of(&self, config_map: &Value) -> bool {
        let same = |pointer: &str| text(&self.config_map, pointer) == text(config_map, pointer);
        same("/metadata/uid") && same("/metadata/resourceVersion")
    }
}

/// Strategies that were looked at before, so that they need not be read again.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<ObjectKey, Arc<Stored>>>);

impl Memory {
    /// The strategies among the objects of a cluster.
    pub fn of(&self, objects: &Objects) -> Strategies {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for (key, object) in objects.iter().filter(|(key, object)| is_strategy(key, object)) {
            let stored = match known.get(key) {
                Some(stored) if stored.is_of(object) => Arc::clone(stored),
                _ => Arc::new(Stored::new(object)),
            };
            found.insert(key.clone(), stored);
        }
        known.clone_from(&found);
        found.into_values().collect()
    }
}

fn is_strategy(key: &ObjectKey, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    key.kind == Kind::ConfigMap && labels.is_some_and(|labels| labels.contains_key(label::INSTALL_STRATEGY))
}

#[cfg(test)]
mod tests {
    use kubevirt_release::{DeploymentConfig, render};

    use super::*;

    fn objects(name: &str, version: &str) -> Objects {
        let strategy = render(&DeploymentConfig { registry: "r".into(), ..DeploymentConfig::default() });
        let mut map = serde_json::to_value(strategy.encode("kubevirt")).expect("data");
        map["metadata"]["name"] = name.into();
        map["metadata"]["uid"] = name.into();
        map["metadata"]["resourceVersion"] = version.into();
        [(ObjectKey::new(Kind::ConfigMap, Some("kubevirt"), name), Live::new(map))].into()
    }

    #[test]
    fn a_config_map_is_read_once_and_again_when_it_has_changed() {
        let memory = Memory::default();
        let first = memory.of(&objects("a", "1"));
        let whole = first[0].read().expect("a strategy");
        assert_eq!(first[0].read().expect("the packed one"), whole);
        assert!(Arc::ptr_eq(&first[0], &memory.of(&objects("a", "1"))[0]));
        assert!(!Arc::ptr_eq(&first[0], &memory.of(&objects("a", "2"))[0]));
        assert!(memory.of(&Objects::new()).is_empty());
        assert!(memory.0.lock().expect("not poisoned").is_empty(), "what is gone is forgotten");
    }
}
