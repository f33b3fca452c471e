//! Rules of what selects: labels, nodes, neighbours, taints.

use serde_json::{Map, Value, json};

use super::at::{At, Found};
use crate::names;
use crate::selector::LabelSelector;

/// What is wrong with a label selector, field by field.
pub(super) fn label_selector(at: &At<'_>, found: &mut Found) {
    at.get("matchLabels").labels(found);
    for requirement in at.get("matchExpressions").items() {
        let values = requirement.get("values");
        match requirement.get("operator").text() {
            "In" | "NotIn" if values.empty() => values.required("In and NotIn need values", found),
            "Exists" | "DoesNotExist" if !values.empty() => {
                values.forbidden("Exists and DoesNotExist have no values", found);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => requirement.get("operator").invalid("not a valid selector operator", found),
        }
        key(&requirement.get("key"), found);
        for value in values.items() {
            value.named(names::label_value, found);
        }
    }
}

/// A key of labels; an empty one is none.
fn key(at: &At<'_>, found: &mut Found) {
    for why in names::label_key(at.text()) {
        at.invalid_as(&json!(at.text()), &why, found);
    }
}

/// The selector of an object that makes pods: it can be read, and it means something. Whether it matches the labels of
/// the template is said in `fits`.
pub(super) struct Chosen {
    pub(super) readable: bool,
    pub(super) fits: bool,
}

/// Asks a selector about labels. No selector selects nothing, an empty one everything.
pub(super) fn chosen(selector: &Value, labels: &Value) -> Chosen {
    if selector.is_null() {
        return Chosen { readable: true, fits: false };
    }
    match LabelSelector::from_json(selector) {
        Ok(readable) => Chosen { readable: true, fits: readable.matches(labels.as_object()) },
        Err(_) => Chosen { readable: false, fits: false },
    }
}

/// Whether a selector is there and says nothing.
pub(super) fn says_nothing(selector: &Value) -> bool {
    let empty = |name: &str| match &selector[name] {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    !selector.is_null() && empty("matchLabels") && empty("matchExpressions")
}

pub(super) fn affinity(at: &At<'_>, found: &mut Found) {
    let nodes = at.get("nodeAffinity");
    let required = nodes.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.given() {
        node_selector(&required, found);
    }
    for preferred in nodes.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&preferred, found);
        node_selector_term(&preferred.get("preference"), found);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = at.get(name);
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_affinity_term(&term, found);
        }
        for preferred in pods.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&preferred, found);
            pod_affinity_term(&preferred.get("podAffinityTerm"), found);
        }
    }
}

fn weight(at: &At<'_>, found: &mut Found) {
    let weight = at.get("weight");
    if !weight.number().is_some_and(|n| (1..=100).contains(&n)) {
        weight.invalid("must be in the range 1-100", found);
    }
}

pub(super) fn node_selector(at: &At<'_>, found: &mut Found) {
    let terms = at.get("nodeSelectorTerms");
    if terms.empty() {
        terms.required("at least one term", found);
    }
    for term in terms.items() {
        node_selector_term(&term, found);
    }
}

fn node_selector_term(at: &At<'_>, found: &mut Found) {
    for requirement in at.get("matchExpressions").items() {
        node_requirement(&requirement, found);
        key(&requirement.get("key"), found);
    }
    for requirement in at.get("matchFields").items() {
        if requirement.get("key").text() != "metadata.name" {
            requirement.get("key").invalid("not a valid field selector key", found);
        }
        let operator = requirement.get("operator");
        if !matches!(operator.text(), "In" | "NotIn") {
            operator.invalid("not a valid selector operator", found);
        } else if requirement.get("values").items().count() != 1 {
            requirement.get("values").required("exactly one value", found);
        }
    }
}

fn node_requirement(at: &At<'_>, found: &mut Found) {
    let values = at.get("values");
    match at.get("operator").text() {
        "In" | "NotIn" if values.empty() => values.required("In and NotIn need values", found),
        "Exists" | "DoesNotExist" if !values.empty() => {
            values.forbidden("Exists and DoesNotExist have no values", found);
        }
        "Gt" | "Lt" if values.items().count() != 1 => values.required("Lt and Gt compare with one value", found),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => at.get("operator").invalid("not a valid selector operator", found),
    }
}

fn pod_affinity_term(at: &At<'_>, found: &mut Found) {
    label_selector(&at.get("labelSelector"), found);
    label_selector(&at.get("namespaceSelector"), found);
    for namespace in at.get("namespaces").items() {
        namespace.named(names::dns_label, found);
    }
    topology_key(&at.get("topologyKey"), found);
}

/// Neighbours are told apart by a label of their nodes.
fn topology_key(at: &At<'_>, found: &mut Found) {
    if at.empty() {
        at.required("can not be empty", found);
    }
    // An empty key is no label either, and both are said of pods' neighbours.
    key(at, found);
}

pub(super) fn tolerations(at: &At<'_>, found: &mut Found) {
    for toleration in at.items() {
        let (operator, value, effect) = (toleration.get("operator"), toleration.get("value"), toleration.get("effect"));
        toleration.get("key").named(names::label_key, found);
        if toleration.get("key").empty() && operator.text() != "Exists" {
            let why = "must be Exists without a key: it then tolerates every taint";
            operator.invalid_as(&json!(operator.text()), why, found);
        }
        if toleration.get("tolerationSeconds").given() && effect.text() != "NoExecute" {
            effect.invalid_as(&json!(effect.text()), "must be 'NoExecute' when `tolerationSeconds` is set", found);
        }
        match operator.text() {
            "" | "Equal" => {
                for why in names::label_value(value.text()) {
                    operator.invalid_as(value.value, &why, found);
                }
            }
            "Exists" if !value.empty() => operator.invalid_as(toleration.value, "Exists takes no value", found),
            "Exists" => {}
            _ => operator.not_supported(&["Equal", "Exists"], found),
        }
        if !effect.empty() {
            effect.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], found);
        }
    }
}

pub(super) fn topology_spread(at: &At<'_>, found: &mut Found) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for constraint in at.items() {
        let (skew, when) = (constraint.get("maxSkew"), constraint.get("whenUnsatisfiable"));
        if skew.number().is_none_or(|n| n <= 0) {
            skew.invalid("must be greater than zero", found);
        }
        let topology = constraint.get("topologyKey");
        if topology.empty() {
            topology.required("can not be empty", found);
        } else {
            key(&topology, found);
        }
        if when.empty() || !["DoNotSchedule", "ScheduleAnyway"].contains(&when.text()) {
            when.not_supported(&["DoNotSchedule", "ScheduleAnyway"], found);
        }
        let pair = (topology.text(), when.text());
        if seen.contains(&pair) {
            let path = constraint.get("{topologyKey, whenUnsatisfiable}");
            path.duplicate_as(&json!(format!("{{{}, {}}}", pair.0, pair.1)), found);
        }
        seen.push(pair);
        let least = constraint.get("minDomains");
        least.positive(found);
        if least.given() && when.text() != "DoNotSchedule" {
            least.invalid("can only be used with `whenUnsatisfiable` DoNotSchedule", found);
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(policy).one_of(&["Honor", "Ignore"], found);
        }
        label_selector(&constraint.get("labelSelector"), found);
    }
}

/// Labels a selector of equalities asks for.
pub(super) fn equal_labels(selector: Option<&Map<String, Value>>, labels: &Value) -> bool {
    selector.is_none_or(|selector| selector.iter().all(|(key, value)| labels[key] == *value))
}
