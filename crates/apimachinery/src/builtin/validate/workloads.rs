//! Rules of the kinds that keep pods running: templates that fit their selectors, selectors that never change.

use serde_json::{Value, json};

use super::at::{At, Found};
use super::{pods, selectors};

/// The selector is there, can be read, and means the pods of the template.
fn selector_and_template(spec: &At<'_>, found: &mut Found) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if selector.given() {
        selectors::label_selector(&selector, found);
        if selectors::says_nothing(selector.value) {
            selector.invalid("empty selector is invalid for this kind", found);
        }
    } else {
        selector.required("", found);
    }
    let labels = template.get("metadata").get("labels");
    let chosen = selectors::chosen(selector.value, labels.value);
    if !chosen.readable {
        selector.invalid("invalid label selector", found);
        return;
    }
    if !chosen.fits && !selectors::says_nothing(selector.value) {
        labels.invalid("`selector` does not match template `labels`", found);
    }
    pods::template(&template, found);
    pods::lasting(&template, found);
}

fn counts(spec: &At<'_>, names: &[&str], found: &mut Found) {
    for name in names {
        spec.get(name).not_negative(found);
    }
}

pub(super) fn deployment(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    counts(&spec, &["replicas"], found);
    selector_and_template(&spec, found);
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.given() => {
            rolling.forbidden("may not be specified when strategy `type` is 'Recreate'", found);
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (missing, more) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            missing.amount_or_percent(found);
            more.amount_or_percent(found);
            if missing.none_at_all() && more.none_at_all() {
                missing.invalid("may not be 0 when `maxSurge` is 0", found);
            }
            missing.at_most_all(found);
        }
        _ => strategy.not_supported(&["Recreate", "RollingUpdate"], found),
    }
    counts(&spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], found);
    let (deadline, least) = (spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds"));
    if deadline.number().is_some_and(|deadline| deadline <= least.number().unwrap_or(0)) {
        deadline.invalid("must be greater than minReadySeconds", found);
    }
    if let Some(old) = old {
        spec.get("selector").immutable(&old["spec"]["selector"], found);
    }
}

pub(super) fn replica_set(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    counts(&spec, &["replicas", "minReadySeconds"], found);
    selector_and_template(&spec, found);
    if let Some(old) = old {
        spec.get("selector").immutable(&old["spec"]["selector"], found);
    }
}

pub(super) fn daemon_set(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    selectors::label_selector(&selector, found);
    let labels = template.get("metadata").get("labels");
    let chosen = selectors::chosen(selector.value, labels.value);
    if chosen.readable && !chosen.fits {
        labels.invalid("`selector` does not match template `labels`", found);
    }
    if selectors::says_nothing(selector.value) {
        selector.invalid("empty selector is invalid for daemonset", found);
    }
    pods::template(&template, found);
    pods::lasting(&template, found);
    counts(&spec, &["minReadySeconds"], found);
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (missing, more) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            missing.amount_or_percent(found);
            more.amount_or_percent(found);
            missing.at_most_all(found);
            more.at_most_all(found);
            // A pod is either ended before its successor comes or after.
            match (missing.none_at_all(), more.none_at_all()) {
                (false, false) => more.invalid("may not be set when maxUnavailable is non-zero", found),
                (true, true) => missing.required("cannot be 0 when maxSurge is 0", found),
                _ => {}
            }
        }
        _ => strategy.not_supported(&["RollingUpdate", "OnDelete"], found),
    }
    counts(&spec, &["revisionHistoryLimit"], found);
    if let Some(old) = old {
        selector.immutable(&old["spec"]["selector"], found);
    }
}

pub(super) fn stateful_set(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (management, strategy) = (spec.get("podManagementPolicy"), spec.get("updateStrategy"));
    if !matches!(management.text(), "OrderedReady" | "Parallel") {
        management.invalid("must be 'OrderedReady' or 'Parallel'", found);
    }
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" if rolling.given() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'", found),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").not_negative(found);
            let missing = rolling.get("maxUnavailable");
            if missing.given() {
                missing.amount_or_percent(found);
                if missing.none_at_all() {
                    missing.invalid("cannot be 0", found);
                }
                missing.at_most_all(found);
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'", found),
    }
    for when in ["whenDeleted", "whenScaled"] {
        spec.get("persistentVolumeClaimRetentionPolicy").get(when).one_of(&["Delete", "Retain"], found);
    }
    counts(&spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], found);
    spec.get("ordinals").get("start").not_negative(found);
    selector_and_template(&spec, found);
    if let Some(old) = old {
        stateful_change(&spec, &old["spec"], found);
    }
}

/// Of a stateful set's specification only few fields may change.
fn stateful_change(new: &At<'_>, old: &Value, found: &mut Found) {
    const CHANGES: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let rest = |spec: &Value| {
        let mut spec = spec.clone();
        for name in CHANGES {
            spec.as_object_mut().map(|map| map.remove(name));
        }
        spec
    };
    if rest(new.value) != rest(old) {
        new.forbidden(&format!("of a stateful set that exists only {} may change", CHANGES.join(", ")), found);
    }
}

pub(super) fn replication_controller(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    counts(&spec, &["minReadySeconds"], found);
    let selector = spec.get("selector");
    if selector.empty() {
        selector.required("", found);
    }
    counts(&spec, &["replicas"], found);
    let template = spec.get("template");
    if !template.given() {
        template.required("", found);
        return;
    }
    let labels = template.get("metadata").get("labels");
    if !selector.empty() && !selectors::equal_labels(selector.value.as_object(), labels.value) {
        labels.invalid("`selector` does not match template `labels`", found);
    }
    pods::template(&template, found);
    pods::lasting(&template, found);
}

/// What a controller reports: counts that are not negative, and parts that are not more than the whole.
pub(super) fn status(kind: &str, new: &Value, found: &mut Found) {
    let status = At::root(new).get("status");
    let (counted, parts): (&[&str], &[(&str, &str)]) = match kind {
        "Deployment" => (
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
            ],
            &[
                ("updatedReplicas", "replicas"),
                ("readyReplicas", "replicas"),
                ("availableReplicas", "replicas"),
                ("availableReplicas", "readyReplicas"),
            ],
        ),
        "ReplicaSet" | "ReplicationController" => (
            &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
            &[
                ("fullyLabeledReplicas", "replicas"),
                ("readyReplicas", "replicas"),
                ("availableReplicas", "replicas"),
                ("availableReplicas", "readyReplicas"),
            ],
        ),
        "StatefulSet" => (
            &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            &[
                ("readyReplicas", "replicas"),
                ("currentReplicas", "replicas"),
                ("updatedReplicas", "replicas"),
                ("availableReplicas", "replicas"),
                ("availableReplicas", "readyReplicas"),
            ],
        ),
        "DaemonSet" => (
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ],
            &[],
        ),
        "Job" => (&["active", "succeeded", "failed", "ready"], &[]),
        _ => return,
    };
    counts(&status, counted, found);
    for (part, whole) in parts {
        let (part, most) = (status.get(part), status.get(whole).number().unwrap_or(0));
        if part.number().unwrap_or(0) > most {
            part.invalid_as(&json!(part.number()), &format!("cannot be greater than status.{whole}"), found);
        }
    }
}
