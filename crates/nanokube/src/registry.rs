//! Which resources are served right now: the built-in table and what custom resource definitions add at run time.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use apimachinery::schema::Schema;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::kinds::{BUILT_IN, Keeping, Kind, Sub};
use crate::schemas;
use crate::store::ResourceKey;

/// A served resource in one version.
#[derive(Debug)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub subresources: Vec<Sub>,
    pub selectors: Vec<String>,
    pub generation: bool,
    pub shows_deleted: bool,
    pub keeping: Keeping,
    /// Where the objects are; all versions of a resource share it.
    pub key: ResourceKey,
    /// `apiVersion` of what is in the store.
    pub stored_as: String,
    /// What the objects look like, when known; see [`Resource::schema`].
    pub(crate) rules: OnceLock<Option<Rules>>,
    /// Set for custom resources.
    pub custom: Option<Custom>,
}

/// A schema: one of the built-in tables, or a definition's own.
#[derive(Clone, Debug)]
pub(crate) enum Rules {
    BuiltIn(&'static Schema),
    Own(Arc<Schema>),
}

impl std::ops::Deref for Rules {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            Self::BuiltIn(schema) => schema,
            Self::Own(schema) => schema,
        }
    }
}

/// What only custom resources have.
#[derive(Debug, Default)]
pub(crate) struct Custom {
    /// The definition's name.
    pub definition: String,
    pub columns: Vec<CustomColumn>,
    pub scale: Option<CustomScale>,
    /// The schema as its author wrote it, descriptions included, for OpenAPI documents.
    pub openapi: Value,
    /// The `Warning` header's text when the version is deprecated.
    pub deprecation: Option<String>,
}

/// One of `additionalPrinterColumns`.
#[derive(Clone, Debug)]
pub(crate) struct CustomColumn {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: String,
}

/// `subresources.scale` of a custom resource.
#[derive(Clone, Debug)]
pub(crate) struct CustomScale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// The verbs of a resource that is kept in the store, as discovery lists them.
pub(crate) const STORED_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// The same in the order in which custom resources list them.
const CUSTOM_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Namespaces are never deleted as a collection.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

impl Resource {
    fn built_in(kind: &Kind) -> Self {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let stored_group = if kind.keeping == Keeping::Events { "" } else { kind.group };
        Self {
            group: kind.group.to_owned(),
            version: kind.version.to_owned(),
            plural: kind.plural.to_owned(),
            singular: kind.singular.to_owned(),
            kind: kind.kind.to_owned(),
            list_kind: format!("{}List", kind.kind),
            short_names: owned(kind.short_names),
            categories: owned(kind.categories),
            namespaced: kind.namespaced,
            subresources: kind.subresources.to_vec(),
            selectors: owned(kind.selectors),
            generation: kind.generation,
            shows_deleted: kind.shows_deleted,
            keeping: kind.keeping,
            key: resource_key(stored_group, kind.plural),
            stored_as: join_version(stored_group, kind.version),
            rules: OnceLock::new(),
            custom: None,
        }
    }

    /// What the objects look like, when known. Schemas of built-in kinds are made when first asked for.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        let made = self.rules.get_or_init(|| schemas::built_in(&self.api_version(), &self.kind).map(Rules::BuiltIn));
        made.as_deref()
    }

    /// `group/version`, or the bare version in the core group.
    pub(crate) fn api_version(&self) -> String {
        join_version(&self.group, &self.version)
    }

    pub(crate) fn has(&self, sub: Sub) -> bool {
        self.subresources.contains(&sub)
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// Tells clients which version is stored, without telling which: equal for equal group, version and kind.
    pub(crate) fn storage_hash(&self) -> Option<String> {
        if self.keeping == Keeping::Review {
            return None;
        }
        let version =
            if self.stored_as.contains('/') { self.stored_as.clone() } else { format!("/{}", self.stored_as) };
        let digest = Sha256::digest(format!("{version}/{}", self.kind));
        Some(STANDARD.encode(&digest[..8]))
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match self.keeping {
            Keeping::Review => &["create"],
            Keeping::Own if self.custom.is_some() => CUSTOM_VERBS,
            Keeping::Own | Keeping::Events if self.is("", "namespaces") => NAMESPACE_VERBS,
            Keeping::Own | Keeping::Events => STORED_VERBS,
        }
    }
}

/// `group/version`, or the bare version in the core group.
pub(crate) fn join_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The store's key of a resource.
pub(crate) fn resource_key(group: &str, plural: &str) -> ResourceKey {
    if group.is_empty() { plural.into() } else { format!("{plural}.{group}").into() }
}

/// What is served; replaced as a whole when a definition changes.
#[derive(Clone, Default)]
pub(crate) struct Table {
    by_path: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Table {
    fn with_built_ins() -> Self {
        let mut table = Self::default();
        for kind in BUILT_IN {
            table.insert(Resource::built_in(kind));
        }
        table
    }

    fn insert(&mut self, resource: Resource) {
        let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.by_path.insert(key, Arc::new(resource));
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// All resources, ordered by group, version, plural.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_path.values()
    }

    pub(crate) fn serves(&self, group: &str, version: &str) -> bool {
        self.iter().any(|resource| resource.group == group && resource.version == version)
    }

    /// Group names: built-in groups in a fixed order, then custom ones by name; each with its versions, preferred first.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
        for resource in self.iter().filter(|resource| !resource.group.is_empty()) {
            let versions = groups.entry((resource.custom.is_some(), &resource.group)).or_default();
            if !versions.contains(&resource.version.as_str()) {
                versions.push(&resource.version);
            }
        }
        groups
            .into_iter()
            .map(|((_, group), mut versions)| {
                versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
                (group.to_owned(), versions.into_iter().map(str::to_owned).collect())
            })
            .collect()
    }
}

/// Orders versions as discovery does: stable before beta before alpha, higher numbers first, anything else last.
fn version_rank(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let odd = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return odd };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return odd };
    let tail = &rest[digits..];
    let (stage, minor) = if tail.is_empty() {
        (3, "0")
    } else if let Some(minor) = tail.strip_prefix("beta") {
        (2, minor)
    } else if let Some(minor) = tail.strip_prefix("alpha") {
        (1, minor)
    } else {
        return odd;
    };
    (stage, major, minor.parse().unwrap_or(0), std::cmp::Reverse(String::new()))
}

/// The table that is in force, shared by all requests.
pub(crate) struct Registry {
    current: RwLock<Arc<Table>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { current: RwLock::new(Arc::new(Table::with_built_ins())) }
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what a definition serves.
    pub(crate) fn set_custom(&self, definition: &str, resources: Vec<Resource>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&current);
        table
            .by_path
            .retain(|_, resource| resource.custom.as_ref().is_none_or(|custom| custom.definition != definition));
        for resource in resources {
            table.insert(resource);
        }
        *current = Arc::new(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storage_hash_is_that_of_any_server() {
        let registry = Registry::new();
        let table = registry.table();
        let hash = |group: &str, version: &str, plural: &str| table.get(group, version, plural).unwrap().storage_hash();
        assert_eq!(hash("apps", "v1", "daemonsets").as_deref(), Some("dd7pWHUlMKQ="));
        assert_eq!(hash("", "v1", "configmaps").as_deref(), Some("qFsyl6wFWjQ="));
        // Both spellings of events are the same objects.
        assert_eq!(hash("events.k8s.io", "v1", "events"), hash("", "v1", "events"));
        assert_eq!(hash("authorization.k8s.io", "v1", "subjectaccessreviews"), None);
    }
}
