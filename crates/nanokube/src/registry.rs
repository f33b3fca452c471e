//! Which resources are served right now: the built-in table and what custom resource definitions add at run time.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use apimachinery::schema::Schema;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::kinds::{BUILT_IN, GROUP_ORDER, Keeping, Kind, Sub};
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
/// Kinds whose version in the store is told as an older one: servers go on telling that one, so that clients that
/// compare see no migration.
const FIRST_STORED_AS: &[(&str, &str)] =
    &[("CustomResourceDefinition", "apiextensions.k8s.io/v1beta1"), ("HorizontalPodAutoscaler", "autoscaling/v1")];
/// Namespaces are never deleted as a collection.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

impl Resource {
    fn built_in(kind: &Kind) -> Self {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let (stored_group, stored_version) = match kind.keeping {
            Keeping::Events => ("", kind.version),
            Keeping::As(group, version) => (group, version),
            _ => (kind.group, kind.version),
        };
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
            stored_as: join_version(stored_group, stored_version),
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
        if !self.is_kept() {
            return None;
        }
        let stored_as = FIRST_STORED_AS.iter().find(|(kind, _)| *kind == self.kind && self.custom.is_none());
        let stored_as = stored_as.map_or(self.stored_as.as_str(), |(_, version)| *version);
        let version = if stored_as.contains('/') { stored_as.to_owned() } else { format!("/{stored_as}") };
        let digest = Sha256::digest(format!("{version}/{}", self.kind));
        Some(STANDARD.encode(&digest[..8]))
    }

    /// Whether there are objects in the store.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.keeping, Keeping::Own | Keeping::Events | Keeping::As(..))
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match self.keeping {
            Keeping::Review | Keeping::Binding => &["create"],
            Keeping::Health => &["get", "list"],
            Keeping::Own if self.custom.is_some() => CUSTOM_VERBS,
            Keeping::Own if self.is("", "namespaces") => NAMESPACE_VERBS,
            Keeping::Own | Keeping::Events | Keeping::As(..) => STORED_VERBS,
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
        let rank = |group: &str| GROUP_ORDER.iter().position(|known| *known == group).unwrap_or(GROUP_ORDER.len());
        let mut groups: BTreeMap<(usize, &str), Vec<&str>> = BTreeMap::new();
        for resource in self.iter().filter(|resource| !resource.group.is_empty()) {
            let versions = groups.entry((rank(&resource.group), &resource.group)).or_default();
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
    fn every_group_of_this_server_has_its_place() {
        let table = Registry::new().table();
        let groups: Vec<String> = table.groups().into_iter().map(|(group, _)| group).collect();
        assert_eq!(groups, GROUP_ORDER);
        let versions = table.groups().into_iter().find(|(group, _)| group == "autoscaling").unwrap().1;
        assert_eq!(versions, ["v2", "v1"]);
    }

    #[test]
    fn the_storage_hash_is_that_of_any_server() {
        let registry = Registry::new();
        let table = registry.table();
        let hash = |group: &str, version: &str, plural: &str| table.get(group, version, plural).unwrap().storage_hash();
        assert_eq!(hash("apps", "v1", "daemonsets").as_deref(), Some("dd7pWHUlMKQ="));
        assert_eq!(hash("", "v1", "configmaps").as_deref(), Some("qFsyl6wFWjQ="));
        // Both spellings of events are the same objects.
        assert_eq!(hash("events.k8s.io", "v1", "events"), hash("", "v1", "events"));
        assert_eq!(hash("apiextensions.k8s.io", "v1", "customresourcedefinitions").as_deref(), Some("jfWCUB31mvA="));
        assert_eq!(hash("autoscaling", "v2", "horizontalpodautoscalers").as_deref(), Some("oQlkt7f5j/A="));
        assert_eq!(hash("authorization.k8s.io", "v1", "subjectaccessreviews"), None);
    }
}
