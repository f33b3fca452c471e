//! Rules of jobs and of what starts them by the clock.

use serde_json::{Value, json};

use super::at::{At, Found};
use super::{pods, schedule, selectors};
use crate::names;

/// A name of a cron job leaves room for the eleven characters its jobs add to it.
const CRON_NAME_MAX: usize = 52;
/// The longest name of a controller that takes over jobs.
const MANAGER_MAX: usize = 63;
/// An exit code policy lists at most this many codes, as the API defines.
const CODES_MAX: usize = 255;

pub(super) fn job(new: &Value, old: Option<&Value>, found: &mut Found) {
    let spec = At::root(new).get("spec");
    generated_selector(new, found);
    job_spec(&spec, found);
    let (selector, labels) = (spec.get("selector"), spec.get("template").get("metadata").get("labels"));
    if selector.given() {
        selectors::label_selector(&selector, found);
    } else if new["metadata"]["uid"].is_string() {
        selector.required("", found);
    }
    // A job on its way to a server has no selector yet: the server makes it of the uid it gives.
    let chosen = selectors::chosen(selector.value, labels.value);
    if selector.given() && chosen.readable && !chosen.fits {
        labels.invalid("`selector` does not match template `labels`", found);
    }
    let Some(old) = old else { return };
    let old = &old["spec"];
    if spec.get("completionMode").value != "Indexed" {
        spec.get("completions").immutable(&old["completions"], found);
    }
    selector.immutable(&old["selector"], found);
    // A job that waits may still be told where its pods go.
    let free = old["suspend"] == true;
    if template(&spec.value["template"], free) != template(&old["template"], free) {
        spec.get("template").invalid("field is immutable", found);
    }
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy"] {
        spec.get(name).immutable(&old[name], found);
    }
}

fn template(template: &Value, free: bool) -> Value {
    let mut template = template.clone();
    if free {
        for (parent, names) in [
            ("/metadata", &["labels", "annotations"] as &[&str]),
            ("/spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"]),
        ] {
            let Some(map) = template.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
            for name in names {
                map.remove(*name);
            }
        }
    }
    template
}

/// Unless the user brings a selector and says so, it is the one the server makes of the job's uid.
fn generated_selector(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    let (selector, labels) = (spec.get("selector"), spec.get("template").get("metadata").get("labels"));
    let uid = &new["metadata"]["uid"];
    if spec.get("manualSelector").value == true || !selector.given() || !uid.is_string() {
        return;
    }
    let name = &new["metadata"]["name"];
    let wanted = json!({
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        "controller-uid": uid, "job-name": name,
    });
    for (key, value) in wanted.as_object().into_iter().flatten() {
        let label = labels.key(key);
        let why = format!("must be '{}'", value.as_str().unwrap_or_default());
        if label.empty() {
            label.required(&why, found);
        } else if label.value != value {
            label.invalid(&why, found);
        }
    }
    let chosen = selectors::chosen(selector.value, &wanted);
    if chosen.readable && !chosen.fits {
        selector.invalid("`selector` not auto-generated", found);
    }
}

fn job_spec(spec: &At<'_>, found: &mut Found) {
    for count in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(count).not_negative(found);
    }
    manager(&spec.get("managedBy"), found);
    let mode = spec.get("completionMode");
    let indexed = mode.text() == "Indexed";
    mode.one_of(&["NonIndexed", "Indexed"], found);
    if indexed && !spec.get("completions").given() {
        spec.get("completions").required("a job of mode Indexed says how many", found);
    }
    let (per_index, most_failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if !indexed {
        for given in [&per_index, &most_failed].into_iter().filter(|at| at.given()) {
            given.invalid("requires completion mode Indexed", found);
        }
    } else if most_failed.given() && !per_index.given() {
        per_index.required("when maxFailedIndexes is specified", found);
    }
    let policy = spec.get("podFailurePolicy");
    failure_policy(spec, &policy, found);
    if spec.get("successPolicy").given() {
        if indexed {
            success_policy(&spec.get("successPolicy"), found);
        } else {
            spec.get("successPolicy").invalid("requires completion mode Indexed", found);
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    let allowed: &[&str] = if policy.given() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    replacement.one_of(allowed, found);
    pods::template(&spec.get("template"), found);
    let restart = spec.get("template").get("spec").get("restartPolicy");
    match restart.text() {
        "" | "Always" => restart.required("valid values: \"OnFailure\", \"Never\"", found),
        "OnFailure" if policy.given() => {
            restart.invalid("only \"Never\" is supported when podFailurePolicy is specified", found);
        }
        "OnFailure" | "Never" => {}
        _ => restart.not_supported(&["OnFailure", "Never"], found),
    }
}

fn manager(at: &At<'_>, found: &mut Found) {
    if !at.given() {
        return;
    }
    domain_path(at, found);
    if at.text().len() > MANAGER_MAX {
        found.push(crate::field::FieldError::too_long(&at.path, MANAGER_MAX));
    }
}

/// A name such as `example.com/foo`.
pub(super) fn domain_path(at: &At<'_>, found: &mut Found) {
    if at.empty() {
        at.required("", found);
        return;
    }
    let Some((domain, path)) = at.text().split_once('/') else {
        at.invalid("must be a path under a domain, such as example.com/foo", found);
        return;
    };
    for why in names::dns_subdomain(domain) {
        at.invalid(&why, found);
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if path.is_empty() || !path.bytes().all(good) {
        at.invalid("must have a path of URL characters after the domain", found);
    }
}

fn failure_policy(spec: &At<'_>, policy: &At<'_>, found: &mut Found) {
    for rule in policy.get("rules").items() {
        let action = rule.get("action");
        action.must_be_one_of(&["Count", "FailIndex", "FailJob", "Ignore"], found);
        if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").given() {
            action.invalid("requires the backoffLimitPerIndex to be set", found);
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        match (codes.given(), conditions.empty()) {
            (true, false) => rule.invalid("onExitCodes and onPodConditions exclude each other", found),
            (false, true) => rule.required("one of onExitCodes and onPodConditions is required", found),
            _ => {}
        }
        if codes.given() {
            exit_codes(spec, &codes, found);
        }
        for condition in conditions.items() {
            let kind = condition.get("type");
            for why in names::label_key(kind.text()) {
                kind.invalid_as(&json!(kind.text()), &why, found);
            }
            condition.get("status").must_be_one_of(&["False", "True", "Unknown"], found);
        }
    }
}

fn exit_codes(spec: &At<'_>, at: &At<'_>, found: &mut Found) {
    let (operator, container, values) = (at.get("operator"), at.get("containerName"), at.get("values"));
    operator.must_be_one_of(&["In", "NotIn"], found);
    let pod = spec.get("template").get("spec");
    let known = |list: &str| pod.get(list).items().any(|c| c.get("name").value == container.value);
    if container.given() && !known("containers") && !known("initContainers") {
        container.invalid("must be one of the container or initContainer names in the pod template", found);
    }
    let count = values.items().count();
    if count == 0 {
        values.invalid("at least one value is required", found);
    } else if count > CODES_MAX {
        found.push(crate::field::FieldError::too_many(&values.path, count, CODES_MAX));
    }
    let mut seen = Vec::new();
    for value in values.items() {
        if operator.text() == "In" && value.number() == Some(0) {
            value.invalid("must not be 0 for the In operator", found);
        }
        if seen.contains(&value.number()) {
            value.duplicate(found);
        }
        seen.push(value.number());
    }
    if !seen.is_sorted() {
        values.invalid("must be ordered", found);
    }
}

fn success_policy(at: &At<'_>, found: &mut Found) {
    let rules = at.get("rules");
    if rules.empty() {
        rules.required("at least one rule", found);
    }
    for rule in rules.items() {
        let (indexes, count) = (rule.get("succeededIndexes"), rule.get("succeededCount"));
        if !indexes.given() && !count.given() {
            rule.required("at least one of succeededCount and succeededIndexes", found);
        }
        count.not_negative(found);
    }
}

pub(super) fn cron_job(new: &Value, old: Option<&Value>, found: &mut Found) {
    let name = At::root(new).get("metadata").get("name");
    if name.text().len() > CRON_NAME_MAX {
        name.invalid(&format!("must be no more than {CRON_NAME_MAX} characters"), found);
    }
    let spec = At::root(new).get("spec");
    let (schedule, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if schedule.empty() {
        schedule.required("", found);
    } else {
        let before = old.map(|old| &old["spec"]["schedule"]);
        schedule::check(&schedule, zone.given(), before == Some(schedule.value), found);
    }
    spec.get("startingDeadlineSeconds").not_negative(found);
    schedule::time_zone(&zone, found);
    spec.get("concurrencyPolicy").must_be_one_of(&["Allow", "Forbid", "Replace"], found);
    let template = spec.get("jobTemplate");
    template.get("metadata").get("labels").labels(found);
    let job = template.get("spec");
    if job.get("manualSelector").given() {
        job.get("manualSelector").not_supported(&["nil"], found);
    }
    job_spec(&job, found);
    for count in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(count).not_negative(found);
    }
}
