//! Role-based access control: every request is checked against the roles and bindings in the store.
//!
//! The rules are compiled once per change of any role or binding and then shared by all requests.

mod bootstrap;
mod grants;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use apimachinery::selector::FieldSelector;
use serde_json::{Value, json};

pub(crate) use bootstrap::{aggregate, bootstrap};
pub(crate) use grants::check_escalation;

use crate::core::Core;
use crate::identity::{MASTERS, UserInfo};
use crate::registry::resource_key;
use crate::request::{RequestInfo, ResourcePath};
use crate::status::{About, ApiError};
use crate::store::{ResourceKey, Revision};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do. Either `resource` or `path` is set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// `plural` or `plural/subresource`.
    pub resource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
}

/// One policy rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

impl Rule {
    pub(crate) fn from_value(value: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            value[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    fn allows(&self, asked: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|entry| entry == "*" || entry == wanted);
        if !has(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.path.is_empty() {
            return self.paths.iter().any(|path| match path.strip_suffix('*') {
                Some(prefix) => asked.path.starts_with(prefix),
                None => asked.path == path,
            });
        }
        let any_sub = || {
            let (_, sub) = asked.resource.split_once('/')?;
            Some(self.resources.iter().any(|resource| resource.strip_prefix("*/") == Some(sub)))
        };
        has(&self.groups, asked.group)
            && (has(&self.resources, asked.resource) || any_sub().unwrap_or(false))
            && (self.names.is_empty() || self.names.iter().any(|name| name == asked.name))
    }

    fn to_value(&self) -> Value {
        let mut value = json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                value[field] = json!(list);
            }
        }
        value
    }
}

/// A binding with its role's rules.
#[derive(Debug)]
struct Grant {
    subjects: Vec<Subject>,
    rules: Arc<Vec<Rule>>,
    /// For the reason of an access review.
    binding: String,
    role: String,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    Account(String, String),
}

impl Subject {
    fn from_value(value: &Value, binding_namespace: &str) -> Option<Self> {
        let name = value["name"].as_str()?.to_owned();
        match value["kind"].as_str()? {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let namespace = value["namespace"].as_str().unwrap_or(binding_namespace).to_owned();
                Some(Self::Account(namespace, name))
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => user.name == *name,
            Self::Group(group) => user.is_member(group),
            Self::Account(namespace, name) => user.as_service_account() == Some((namespace, name)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::User(name) => format!("User \"{name}\""),
            Self::Group(name) => format!("Group \"{name}\""),
            Self::Account(namespace, name) => format!("ServiceAccount \"{name}/{namespace}\""),
        }
    }
}

#[derive(Debug, Default)]
struct Compiled {
    revisions: [Revision; 4],
    cluster: Vec<Grant>,
    namespaced: BTreeMap<String, Vec<Grant>>,
}

/// The authorizer.
pub(crate) struct Authz {
    compiled: RwLock<Arc<Compiled>>,
}

fn keys() -> [ResourceKey; 4] {
    ["clusterroles", "clusterrolebindings", "roles", "rolebindings"].map(|plural| resource_key(GROUP, plural))
}

impl Authz {
    pub(crate) fn new() -> Self {
        Self { compiled: RwLock::default() }
    }

    fn current(&self, core: &Core) -> Arc<Compiled> {
        let revisions = keys().map(|key| core.store.last_change(&key));
        let compiled = self.compiled.read().unwrap_or_else(PoisonError::into_inner).clone();
        if compiled.revisions == revisions {
            return compiled;
        }
        let fresh = Arc::new(compile(core, revisions));
        *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }

    /// Whether the user may; the reason names the binding.
    ///
    /// # Errors
    /// Nothing allows it.
    pub(crate) fn allows(&self, core: &Core, user: &UserInfo, asked: &Attributes<'_>) -> Result<String, ()> {
        if user.is_member(MASTERS) {
            return Ok(String::new());
        }
        let compiled = self.current(core);
        let found = compiled.grants(asked.namespace).find_map(|grant| {
            let subject = grant.subjects.iter().find(|subject| subject.is(user))?;
            let allowed = grant.rules.iter().any(|rule| rule.allows(asked));
            allowed.then(|| format!("RBAC: allowed by {} of {} to {}", grant.binding, grant.role, subject.text()))
        });
        found.ok_or(())
    }

    /// Checks a request.
    ///
    /// # Errors
    /// 403 with the words clients match.
    pub(crate) fn check(&self, core: &Core, user: &UserInfo, info: &RequestInfo) -> Result<(), ApiError> {
        let Some(path) = &info.resource else {
            let verb = info.method.to_lowercase();
            let asked = Attributes { verb: &verb, path: &info.path, ..Attributes::default() };
            return self.allows(core, user, &asked).map(drop).map_err(|()| {
                let why = format!("User \"{}\" cannot {verb} path \"{}\"", user.name, info.path);
                ApiError::forbidden(About { group: "", what: "", name: "" }, &why)
            });
        };
        let resource = if path.subresource.is_empty() {
            path.plural.clone()
        } else {
            format!("{}/{}", path.plural, path.subresource)
        };
        // A list or watch of one object by its name is a request about that object: rules with resourceNames allow it.
        let fields = info.query.get("fieldSelector").and_then(|text| text.parse::<FieldSelector>().ok());
        let selected = fields.as_ref().and_then(|fields| fields.exact("metadata.name"));
        let collection = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
        let name = selected.filter(|_| collection).unwrap_or(&path.name);
        let asked = Attributes {
            verb: &info.verb,
            group: &path.group,
            resource: &resource,
            namespace: &path.namespace,
            name,
            path: "",
        };
        self.allows(core, user, &asked).map(drop).map_err(|()| refusal(user, path, &asked))
    }

    /// Checks whether the user may do something else with the resource of a request than the request says.
    ///
    /// # Errors
    /// 403 with the words clients match.
    pub(crate) fn check_verb(
        &self,
        core: &Core,
        user: &UserInfo,
        path: &ResourcePath,
        verb: &str,
    ) -> Result<(), ApiError> {
        let asked = Attributes {
            verb,
            group: &path.group,
            resource: &path.plural,
            namespace: &path.namespace,
            name: &path.name,
            path: "",
        };
        self.allows(core, user, &asked).map(drop).map_err(|()| refusal(user, path, &asked))
    }

    /// All rules of a user in a namespace.
    pub(crate) fn rules_of(&self, core: &Core, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if user.is_member(MASTERS) {
            let all = || vec!["*".to_owned()];
            return vec![
                Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() },
                Rule { verbs: all(), paths: all(), ..Rule::default() },
            ];
        }
        let compiled = self.current(core);
        let grants = compiled.grants(namespace).filter(|grant| grant.subjects.iter().any(|subject| subject.is(user)));
        grants.flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    /// The status of a rules review.
    pub(crate) fn rules(&self, core: &Core, user: &UserInfo, namespace: &str) -> Value {
        let rules = self.rules_of(core, user, namespace);
        let (paths, resources): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| !rule.paths.is_empty());
        json!({
            "resourceRules": resources.iter().map(|rule| rule.to_value()).collect::<Vec<_>>(),
            "nonResourceRules": paths.iter().map(|rule| rule.to_value()).collect::<Vec<_>>(),
            "incomplete": false,
        })
    }
}

fn refusal(user: &UserInfo, path: &ResourcePath, asked: &Attributes<'_>) -> ApiError {
    let scope = if path.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", path.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
        user.name, asked.verb, asked.resource, path.group
    );
    ApiError::forbidden(About { group: &path.group, what: &path.plural, name: &path.name }, &why)
}

impl Compiled {
    fn grants(&self, namespace: &str) -> impl Iterator<Item = &Grant> {
        self.cluster.iter().chain(self.namespaced.get(namespace).into_iter().flatten())
    }
}

fn rules_in(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().map(Rule::from_value).collect()
}

fn compile(core: &Core, revisions: [Revision; 4]) -> Compiled {
    let [cluster_roles, cluster_bindings, roles, bindings] = keys();
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let mut known: BTreeMap<(String, String), Arc<Vec<Rule>>> = BTreeMap::new();
    for key in [cluster_roles, roles] {
        for role in core.store.objects(&key, "") {
            let metadata = &role.value["metadata"];
            let place = (text(metadata, "namespace"), text(metadata, "name"));
            known.insert(place, Arc::new(rules_in(&role.value)));
        }
    }
    let mut compiled = Compiled { revisions, ..Compiled::default() };
    for key in [cluster_bindings, bindings] {
        for binding in core.store.objects(&key, "") {
            let binding = &binding.value;
            let namespace = text(&binding["metadata"], "namespace");
            let name = text(&binding["metadata"], "name");
            let (kind, role) = (text(&binding["roleRef"], "kind"), text(&binding["roleRef"], "name"));
            let home = if kind == "Role" { namespace.clone() } else { String::new() };
            let Some(rules) = known.get(&(home, role.clone())) else { continue };
            let subjects = binding["subjects"].as_array().into_iter().flatten();
            let shown = if namespace.is_empty() {
                format!("ClusterRoleBinding \"{name}\"")
            } else {
                format!("RoleBinding \"{name}/{namespace}\"")
            };
            let grant = Grant {
                subjects: subjects.filter_map(|subject| Subject::from_value(subject, &namespace)).collect(),
                rules: rules.clone(),
                binding: shown,
                role: format!("{kind} \"{role}\""),
            };
            if namespace.is_empty() {
                compiled.cluster.push(grant);
            } else {
                compiled.namespaced.entry(namespace).or_default().push(grant);
            }
        }
    }
    compiled
}
