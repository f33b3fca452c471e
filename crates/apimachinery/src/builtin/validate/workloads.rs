//! Rules of the kinds that make pods: templates that fit their selectors, selectors that never change.

use serde_json::{Map, Value, json};

use super::{immutable, not_negative, one_of, pods, text};
use crate::field::{self, FieldError};
use crate::names;
use crate::selector::LabelSelector;

pub(super) fn workload(kind: &str, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    for count in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(&field::child("spec", count), &spec[count], errors);
    }
    selector_and_template(spec, errors);
    if kind == "Deployment" && spec["progressDeadlineSeconds"].as_i64() <= spec["minReadySeconds"].as_i64() {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &spec["progressDeadlineSeconds"], why));
    }
    let restart = &spec["template"]["spec"]["restartPolicy"];
    if ["OnFailure", "Never"].iter().any(|p| restart == p) {
        let allowed = [json!("Always")];
        errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", restart, &allowed));
    }
    match kind {
        "Deployment" => {
            strategy("spec.strategy", &spec["strategy"], &["Recreate", "RollingUpdate"], "Recreate", errors);
        }
        "DaemonSet" => {
            strategy(
                "spec.updateStrategy",
                &spec["updateStrategy"],
                &["RollingUpdate", "OnDelete"],
                "OnDelete",
                errors,
            );
        }
        "StatefulSet" => {
            one_of("spec.updateStrategy.type", &spec["updateStrategy"]["type"], &["OnDelete", "RollingUpdate"], errors);
            one_of("spec.podManagementPolicy", &spec["podManagementPolicy"], &["OrderedReady", "Parallel"], errors);
        }
        _ => {}
    }
    if let Some(old) = old {
        immutable("spec.selector", &spec["selector"], &old["spec"]["selector"], errors);
        if kind == "StatefulSet" {
            stateful_change(spec, &old["spec"], errors);
        }
    }
}

/// Of a stateful set's specification only few fields may change.
fn stateful_change(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let rest = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(map) = spec.as_object_mut() {
            for name in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "selector",
            ] {
                map.remove(name);
            }
        }
        spec
    };
    if rest(new) != rest(old) {
        let why = "of a stateful set that exists only replicas, ordinals, template, updateStrategy, minReadySeconds, \
                   revisionHistoryLimit and persistentVolumeClaimRetentionPolicy may change";
        errors.push(FieldError::forbidden("spec", why));
    }
}

/// The selector is there, can be read, and means the pods of the template.
fn selector_and_template(spec: &Value, errors: &mut Vec<FieldError>) {
    let selector = &spec["selector"];
    let empty = selector.as_object().is_none_or(Map::is_empty);
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else if empty {
        errors.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for this kind"));
    }
    let readable = label_selector("spec.selector", selector, errors);
    let labels = &spec["template"]["metadata"]["labels"];
    if !empty
        && let Some(selector) = readable
        && !selector.matches(labels.as_object())
    {
        let shown = if labels.is_null() { &Value::Null } else { labels };
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", shown, why));
    }
    pods::template("spec.template", &spec["template"], errors);
}

fn label_selector(path: &str, selector: &Value, errors: &mut Vec<FieldError>) -> Option<LabelSelector> {
    match LabelSelector::from_json(selector) {
        Ok(s) => Some(s),
        Err(e) => {
            errors.push(FieldError::invalid(path, selector, &e.to_string()));
            None
        }
    }
}

/// A rolling update moves something, and other strategies have no parameters.
fn strategy(path: &str, strategy: &Value, allowed: &[&str], plain: &str, errors: &mut Vec<FieldError>) {
    one_of(&field::child(path, "type"), &strategy["type"], allowed, errors);
    let path = field::child(path, "rollingUpdate");
    let rolling = &strategy["rollingUpdate"];
    if text(strategy, "type") == plain && !rolling.is_null() {
        errors.push(FieldError::forbidden(&path, &format!("may not be specified when strategy `type` is '{plain}'")));
        return;
    }
    if rolling.is_null() {
        return;
    }
    for name in ["maxUnavailable", "maxSurge"] {
        amount_or_percent(&field::child(&path, name), &rolling[name], errors);
    }
    at_most_all(&field::child(&path, "maxUnavailable"), &rolling["maxUnavailable"], errors);
    let none = |v: &Value| v == 0 || v == "0%";
    if none(&rolling["maxUnavailable"]) && none(&rolling["maxSurge"]) {
        let why = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(field::child(&path, "maxUnavailable"), &rolling["maxUnavailable"], why));
    }
}

/// More than all cannot be available or missing.
fn at_most_all(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|number| number.parse::<u32>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, value, "must not be greater than 100%"));
    }
}

fn amount_or_percent(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if let Some(text) = value.as_str() {
        let percent = text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok());
        if percent.is_none() {
            errors.push(FieldError::invalid(path, value, "must be a number or a percentage such as 25%"));
        }
    } else {
        not_negative(path, value, errors);
    }
}

pub(super) fn job(path: &str, spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let at = |name: &str| field::child(path, name);
    for count in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        not_negative(&at(count), &spec[count], errors);
    }
    pods::template(&at("template"), &spec["template"], errors);
    if text(&spec["template"]["spec"], "restartPolicy") == "Always" {
        let allowed = [json!("OnFailure"), json!("Never")];
        let path = field::child(&at("template"), "spec.restartPolicy");
        errors.push(FieldError::required(path, &format!("valid values: {}, {}", allowed[0], allowed[1])));
    }
    if let Some(old) = old {
        // The server fills in selector and labels on creation; from then on they stand.
        for name in ["selector", "template", "completionMode"] {
            immutable(&at(name), &spec[name], &old[name], errors);
        }
    }
}

pub(super) fn cron_job(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    if text(spec, "schedule").is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    }
    let schedule = text(spec, "schedule");
    let given = schedule.split_whitespace().count();
    if !schedule.is_empty() && given != 5 && !schedule.starts_with('@') {
        let why = format!("must have five fields (minute, hour, day, month, weekday), has {given}");
        errors.push(FieldError::invalid("spec.schedule", &spec["schedule"], &why));
    }
    one_of("spec.concurrencyPolicy", &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"], errors);
    job("spec.jobTemplate.spec", &spec["jobTemplate"]["spec"], None, errors);
}

pub(super) fn budget(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = &new["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        errors.push(FieldError::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for name in ["minAvailable", "maxUnavailable"] {
        amount_or_percent(&field::child("spec", name), &spec[name], errors);
        at_most_all(&field::child("spec", name), &spec[name], errors);
    }
    label_selector("spec.selector", &spec["selector"], errors);
    errors.extend(names::labels("spec.selector", &spec["selector"]["matchLabels"]));
}
