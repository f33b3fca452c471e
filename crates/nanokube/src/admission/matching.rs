//! Which requests a webhook or policy is asked about: rules, scope, selectors, and versions that mean the same resource.
//! Pure.

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use crate::registry::{Resource, Table};

/// What a request does, as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }

    /// The kind of the request's options.
    pub(crate) fn options_kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Delete => "DeleteOptions",
        }
    }
}

/// What rules look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub operation: Operation,
    pub resource: &'a Resource,
    pub subresource: &'a str,
    /// Empty for what has no namespace; a namespace itself counts as without.
    pub namespace: &'a str,
    pub name: &'a str,
    /// `null` on deletion.
    pub object: &'a Value,
    /// `null` on creation.
    pub old: &'a Value,
    /// The namespace the object is in, `null` where it has none.
    pub namespace_object: &'a Value,
}

/// The criteria of a webhook, of a policy's `matchConstraints` or of a binding's `matchResources`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Criteria<'c> {
    pub rules: &'c [Value],
    pub excluded: &'c [Value],
    /// Rules name exactly the version that is spoken; otherwise any version of the same resource will do.
    pub exact: bool,
    pub namespaces: &'c Value,
    pub objects: &'c Value,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl<'c> Criteria<'c> {
    /// As a webhook says them.
    pub(crate) fn of_webhook(hook: &'c Value) -> Self {
        Self { rules: list(&hook["rules"]), ..Self::shared(hook) }
    }

    /// As a policy or a binding says them.
    pub(crate) fn of_policy(constraints: &'c Value) -> Self {
        Self {
            rules: list(&constraints["resourceRules"]),
            excluded: list(&constraints["excludeResourceRules"]),
            ..Self::shared(constraints)
        }
    }

    fn shared(value: &'c Value) -> Self {
        Self {
            rules: &[],
            excluded: &[],
            exact: value["matchPolicy"] == "Exact",
            namespaces: &value["namespaceSelector"],
            objects: &value["objectSelector"],
        }
    }

    /// The version in which the request is meant, if it is: the one that is spoken, or another of the same resource.
    pub(crate) fn meant<'t>(&self, subject: &Subject<'t>, table: &'t Table) -> Option<&'t Resource> {
        if !self.selected(subject) || self.named(self.excluded, subject, table).is_some() {
            return None;
        }
        self.named(self.rules, subject, table)
    }

    /// Whether the selectors let the request through.
    pub(crate) fn selected(&self, subject: &Subject<'_>) -> bool {
        in_namespaces(self.namespaces, subject) && has_labels(self.objects, subject)
    }

    fn named<'t>(&self, rules: &[Value], subject: &Subject<'t>, table: &'t Table) -> Option<&'t Resource> {
        let covers = |resource: &Resource| rules.iter().any(|rule| covers(rule, resource, subject));
        if covers(subject.resource) {
            return Some(subject.resource);
        }
        if self.exact {
            return None;
        }
        let same = table
            .iter()
            .filter(|other| other.key == subject.resource.key && other.api_version() != subject.resource.api_version());
        same.map(AsRef::as_ref).find(|other| covers(other))
    }
}

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array().into_iter().flatten().any(|entry| entry == "*" || entry == wanted)
}

fn covers(rule: &Value, resource: &Resource, subject: &Subject<'_>) -> bool {
    let scope = match rule["scope"].as_str().unwrap_or("*") {
        "Namespaced" => !subject.namespace.is_empty(),
        "Cluster" => subject.namespace.is_empty(),
        _ => true,
    };
    let names = rule["resourceNames"].as_array();
    scope
        && has(&rule["operations"], subject.operation.as_str())
        && has(&rule["apiGroups"], &resource.group)
        && has(&rule["apiVersions"], &resource.version)
        && names.is_none_or(|names| names.is_empty() || names.iter().any(|name| name == subject.name))
        && list(&rule["resources"]).iter().filter_map(Value::as_str).any(|entry| {
            let (plural, sub) = entry.split_once('/').unwrap_or((entry, ""));
            (plural == "*" || plural == resource.plural) && (sub == "*" || sub == subject.subresource)
        })
}

/// An absent selector selects everything here.
fn selector(value: &Value) -> Option<LabelSelector> {
    if value.is_null() { Some(LabelSelector::default()) } else { LabelSelector::from_json(value).ok() }
}

fn in_namespaces(value: &Value, subject: &Subject<'_>) -> bool {
    let Some(selector) = selector(value) else { return false };
    if selector.is_empty() {
        return true;
    }
    if subject.resource.is("", "namespaces") {
        let own = if subject.object.is_null() { subject.old } else { subject.object };
        return selector.matches_object(own);
    }
    // What is in no namespace is not kept out by labels of namespaces.
    subject.namespace.is_empty() || selector.matches_object(subject.namespace_object)
}

fn has_labels(value: &Value, subject: &Subject<'_>) -> bool {
    let Some(selector) = selector(value) else { return false };
    let matches = |object: &Value| !object.is_null() && selector.matches_object(object);
    selector.is_empty() || matches(subject.object) || matches(subject.old)
}

#[cfg(test)]
mod tests;
