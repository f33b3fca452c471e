//! Rules of what decides how many pods there are, which go first and which may not go: autoscalers, budgets, classes.

use serde_json::Value;

use super::at::{At, Found};
use super::selectors;
use crate::names;

/// An autoscaler looks back at most an hour.
const WINDOW_MAX: i64 = 3600;
/// A policy of scaling counts over at most half an hour.
const PERIOD_MAX: i64 = 1800;

pub(super) fn autoscaler(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if least.number().is_some_and(|n| n < 1) {
        least.invalid("must be greater than or equal to 1", found);
    }
    // A number that is not there is zero here.
    let count = most.number().unwrap_or(0);
    if count < 1 {
        most.invalid_as(&count.into(), "must be greater than 0", found);
    }
    if least.number().is_some_and(|least| count < least) {
        most.invalid_as(&count.into(), "must be greater than or equal to `minReplicas`", found);
    }
    object_reference(&spec.get("scaleTargetRef"), found);
    for metric in spec.get("metrics").items() {
        one_metric(&metric, found);
    }
    let behavior = spec.get("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(&behavior.get(direction), found);
    }
}

fn object_reference(at: &At<'_>, found: &mut Found) {
    at.get("kind").must_be_named(names::path_segment, found);
    at.get("name").must_be_named(names::path_segment, found);
}

fn one_metric(at: &At<'_>, found: &mut Found) {
    const TYPES: [(&str, &str); 5] = [
        ("ContainerResource", "containerResource"),
        ("External", "external"),
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
    ];
    let kind = at.get("type");
    if kind.empty() {
        kind.required("must specify a metric source type", found);
    }
    kind.one_of(&TYPES.map(|(name, _)| name), found);
    let expected = TYPES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    for (_, name) in TYPES {
        let source = at.get(name);
        if !source.given() {
            continue;
        }
        match name {
            "resource" | "containerResource" => {
                source.get("name").must_be_given(found);
                if name == "containerResource" {
                    source.get("container").must_be_given(found);
                }
                let target = source.get("target");
                metric_target(&target, found);
                let (share, amount) = (target.get("averageUtilization"), target.get("averageValue"));
                match (share.given(), amount.given()) {
                    (false, false) => share.required("must set a target amount or a target utilization", found),
                    (true, true) => amount.forbidden("an amount and a utilization exclude each other", found),
                    _ => {}
                }
            }
            _ => {
                if name == "object" {
                    object_reference(&source.get("describedObject"), found);
                }
                source.get("metric").get("name").must_be_named(names::path_segment, found);
                metric_target(&source.get("target"), found);
            }
        }
    }
    let Some(expected) = expected else { return };
    if !at.get(expected).given() {
        at.get(expected).required("must populate information for the given metric source", found);
    }
    for (_, name) in TYPES.iter().filter(|(_, name)| *name != expected && at.get(name).given()) {
        at.get(name).forbidden("must populate the given metric source only", found);
    }
}

fn metric_target(at: &At<'_>, found: &mut Found) {
    let kind = at.get("type");
    if kind.empty() {
        kind.required("must specify a metric target type", found);
    } else if !["AverageValue", "Utilization", "Value"].contains(&kind.text()) {
        kind.invalid("must be either Utilization, Value, or AverageValue", found);
    }
    for name in ["value", "averageValue"] {
        let amount = at.get(name);
        if amount.amount().is_some_and(|amount| amount.milli() <= 0) {
            amount.invalid("must be positive", found);
        }
    }
    if at.get("averageUtilization").number().is_some_and(|n| n < 1) {
        at.get("averageUtilization").invalid("must be greater than 0", found);
    }
}

fn scaling_rules(at: &At<'_>, found: &mut Found) {
    if !at.given() {
        return;
    }
    let window = at.get("stabilizationWindowSeconds");
    window.not_negative(found);
    if window.number().is_some_and(|n| n > WINDOW_MAX) {
        window.invalid(&format!("must be less than or equal to {WINDOW_MAX}"), found);
    }
    at.get("selectPolicy").one_of(&["Disabled", "Max", "Min"], found);
    let policies = at.get("policies");
    if policies.empty() {
        policies.required("must specify at least one Policy", found);
    }
    for policy in policies.items() {
        policy.get("type").one_of(&["Percent", "Pods"], found);
        policy.get("value").positive(found);
        let period = policy.get("periodSeconds");
        period.positive(found);
        if period.number().is_some_and(|n| n > PERIOD_MAX) {
            period.invalid(&format!("must be less than or equal to {PERIOD_MAX}"), found);
        }
    }
}

pub(super) fn budget(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if least.given() && most.given() {
        spec.invalid("minAvailable and maxUnavailable cannot be both set", found);
    }
    for count in [least, most] {
        count.amount_or_percent(found);
        count.at_most_all(found);
    }
    selectors::label_selector(&spec.get("selector"), found);
    spec.get("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"], found);
}

/// The highest value a user's priority class may have; what is above belongs to the system.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The classes of the system, and their values.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) fn priority_class(new: &Value, old: Option<&Value>, found: &mut Found) {
    let root = At::root(new);
    let (name, value) = (root.get("metadata").get("name"), root.get("value"));
    if name.text().starts_with(SYSTEM_PREFIX) {
        if !SYSTEM_CLASSES.contains(&(name.text(), value.number().unwrap_or(0))) {
            name.forbidden(&format!("names with '{SYSTEM_PREFIX}' belong to the system"), found);
        }
    } else if value.number().is_some_and(|n| n > USER_PRIORITY_MAX) {
        value.forbidden(&format!("priorities above {USER_PRIORITY_MAX} belong to the system"), found);
    }
    root.get("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], found);
    let Some(old) = old else { return };
    if new["value"] != old["value"] {
        value.forbidden("may not be changed in an update", found);
    }
    root.get("preemptionPolicy").immutable(&old["preemptionPolicy"], found);
}

pub(super) fn runtime_class(new: &Value, old: Option<&Value>, found: &mut Found) {
    let root = At::root(new);
    let handler = root.get("handler");
    for why in names::dns_label(handler.text()) {
        handler.invalid_as(&handler.text().into(), &why, found);
    }
    if let Some(old) = old {
        handler.immutable(&old["handler"], found);
    }
    for (name, amount) in root.get("overhead").get("podFixed").entries() {
        super::resources::amount(&amount, name, found);
    }
    let scheduling = root.get("scheduling");
    scheduling.get("nodeSelector").labels(found);
    selectors::tolerations(&scheduling.get("tolerations"), found);
}
