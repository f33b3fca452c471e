//! Rules of what extends the API: webhooks, policies of admission, services that answer for a group.

use serde_json::{Value, json};

use super::at::{At, Found};
use super::selectors;
use crate::names;

/// A name of at least three parts cannot be taken for one of Kubernetes' own.
const PARTS_MIN: usize = 3;
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const FAILURE: [&str; 2] = ["Fail", "Ignore"];
const MATCH: [&str; 2] = ["Equivalent", "Exact"];

pub(super) fn webhooks(kind: &str, new: &Value, found: &mut Found) {
    let mut seen = Vec::new();
    for hook in At::root(new).get("webhooks").items() {
        webhook(kind, &hook, found);
        review_versions(&hook.get("admissionReviewVersions"), found);
        let name = hook.get("name");
        if !name.empty() {
            if seen.contains(&name.text()) {
                name.duplicate(found);
            }
            seen.push(name.text());
        }
    }
}

fn webhook(kind: &str, hook: &At<'_>, found: &mut Found) {
    let name = hook.get("name");
    name.must_be_named(names::dns_subdomain, found);
    if !name.empty() && name.text().split('.').count() < PARTS_MIN {
        name.invalid("should be a domain with at least three segments separated by dots", found);
    }
    for rule in hook.get("rules").items() {
        operations_and_rule(&rule, found);
    }
    hook.get("failurePolicy").one_of(&FAILURE, found);
    hook.get("matchPolicy").one_of(&MATCH, found);
    let effects = hook.get("sideEffects");
    if !effects.empty() {
        effects.one_of(&["None", "NoneOnDryRun"], found);
    } else {
        effects.required("must specify one of None, NoneOnDryRun", found);
    }
    if !hook.get("timeoutSeconds").number().is_some_and(|n| (1..=30).contains(&n)) {
        hook.get("timeoutSeconds").invalid("must be between 1 and 30 seconds", found);
    }
    for name in ["namespaceSelector", "objectSelector"] {
        selectors::label_selector(&hook.get(name), found);
    }
    let client = hook.get("clientConfig");
    let (url, service) = (client.get("url"), client.get("service"));
    if url.given() == service.given() {
        client.required("exactly one of url or service is required", found);
    } else if url.given() {
        webhook_url(&url, found);
    } else {
        service_reference(&service, found);
    }
    match_conditions(&hook.get("matchConditions"), found);
    if kind == "MutatingWebhookConfiguration" {
        hook.get("reinvocationPolicy").one_of(&["IfNeeded", "Never"], found);
    }
}

fn review_versions(at: &At<'_>, found: &mut Found) {
    if at.empty() {
        at.required("must specify one of v1, v1beta1", found);
        return;
    }
    let mut seen = Vec::new();
    for version in at.items() {
        if seen.contains(&version.text()) {
            version.invalid("duplicate version", found);
            continue;
        }
        seen.push(version.text());
        for why in names::letter_label(version.text()) {
            version.invalid(&why, found);
        }
    }
    if !seen.iter().any(|version| REVIEWS.contains(version)) {
        at.invalid("must include at least one of v1, v1beta1", found);
    }
}

/// Which requests a webhook or policy is about. `*` stands for all and stands alone.
fn operations_and_rule(at: &At<'_>, found: &mut Found) {
    let operations = at.get("operations");
    if operations.empty() {
        operations.required("", found);
    }
    alone(&operations, "*", found);
    for operation in operations.items() {
        operation.one_of(&OPERATIONS, found);
    }
    for (name, all) in [("apiGroups", "*"), ("apiVersions", "*"), ("resources", "*/*")] {
        let list = at.get(name);
        if list.empty() {
            list.required("", found);
        }
        alone(&list, all, found);
        for item in list.items() {
            if item.empty() && name != "apiGroups" {
                item.required("", found);
            }
        }
    }
    at.get("scope").one_of(&["*", "Cluster", "Namespaced"], found);
}

fn alone(list: &At<'_>, all: &str, found: &mut Found) {
    if list.items().count() > 1 && list.items().any(|item| item.text() == all) {
        list.invalid(&format!("if '{all}' is present, it stands alone"), found);
    }
}

fn webhook_url(at: &At<'_>, found: &mut Found) {
    let Some((scheme, rest)) = at.text().split_once("://") else {
        at.invalid("must be a URL such as https://example.com/path", found);
        return;
    };
    if scheme != "https" {
        at.invalid_as(&json!(scheme), "must be https", found);
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        at.invalid("must name a host", found);
    }
    for (sign, what) in [('@', "user information"), ('#', "a fragment"), ('?', "a query")] {
        let place = if sign == '@' { host } else { rest };
        if place.contains(sign) {
            at.invalid(&format!("must not hold {what}"), found);
        }
    }
}

fn service_reference(at: &At<'_>, found: &mut Found) {
    at.get("name").must_be_given(found);
    at.get("namespace").must_be_given(found);
    if at.get("port").given() {
        at.get("port").port(found);
    }
    let path = at.get("path");
    if path.given() && !path.empty() && !path.text().starts_with('/') {
        path.invalid("must start with a '/'", found);
    }
}

fn match_conditions(at: &At<'_>, found: &mut Found) {
    let mut seen = Vec::new();
    for condition in at.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.text().trim().is_empty() {
            expression.required("", found);
        }
        if name.empty() {
            name.required("", found);
        } else {
            name.named(names::label_key, found);
            if seen.contains(&name.text()) {
                name.duplicate(found);
            }
            seen.push(name.text());
        }
    }
}

fn match_resources(at: &At<'_>, found: &mut Found) {
    at.get("matchPolicy").one_of(&MATCH, found);
    for name in ["namespaceSelector", "objectSelector"] {
        selectors::label_selector(&at.get(name), found);
    }
    for name in ["resourceRules", "excludeResourceRules"] {
        for rule in at.get(name).items() {
            operations_and_rule(&rule, found);
        }
    }
}

fn param_kind(at: &At<'_>, found: &mut Found) {
    if at.given() {
        at.get("apiVersion").must_be_given(found);
        at.get("kind").must_be_given(found);
    }
}

/// What every policy of admission has.
fn policy(spec: &At<'_>, found: &mut Found) {
    spec.get("failurePolicy").must_be_one_of(&FAILURE, found);
    param_kind(&spec.get("paramKind"), found);
    let constraints = spec.get("matchConstraints");
    if constraints.given() {
        match_resources(&constraints, found);
        if constraints.get("resourceRules").empty() {
            constraints.get("resourceRules").required("", found);
        }
    } else {
        constraints.required("", found);
    }
    match_conditions(&spec.get("matchConditions"), found);
    let mut seen = Vec::new();
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.empty() {
            name.required("", found);
        } else if seen.contains(&name.text()) {
            name.duplicate(found);
        } else {
            seen.push(name.text());
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if !name.text().bytes().all(word) || name.text().starts_with(|c: char| c.is_ascii_digit()) {
                name.invalid("name is not a valid CEL identifier", found);
            }
        }
        if expression.text().trim().is_empty() {
            expression.required("expression is not specified", found);
        }
    }
}

pub(super) fn validating_policy(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    policy(&spec, found);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.empty() && annotations.empty() {
        for list in [&validations, &annotations] {
            list.required("validations or auditAnnotations must contain at least one item", found);
        }
        return;
    }
    for validation in validations.items() {
        let (expression, message) = (validation.get("expression"), validation.get("message"));
        if expression.text().trim().is_empty() {
            expression.required("expression is not specified", found);
        }
        if !message.empty() && message.text().trim().is_empty() {
            message.invalid("message must be non-empty if specified", found);
        } else if message.text().trim().contains('\n') {
            message.invalid("message must not contain line breaks", found);
        }
        validation.get("reason").one_of(&REASONS, found);
    }
    let mut seen = Vec::new();
    for annotation in annotations.items() {
        let key = annotation.get("key");
        if key.empty() {
            key.required("", found);
        } else if seen.contains(&key.text()) {
            key.duplicate(found);
        }
        seen.push(key.text());
        if annotation.get("valueExpression").text().trim().is_empty() {
            annotation.get("valueExpression").required("valueExpression is not specified", found);
        }
    }
}

pub(super) fn mutating_policy(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    policy(&spec, found);
    let mutations = spec.get("mutations");
    if mutations.empty() {
        mutations.required("must contain at least one item", found);
    }
    for mutation in mutations.items() {
        let kind = mutation.get("patchType");
        kind.must_be_one_of(&["ApplyConfiguration", "JSONPatch"], found);
        for (name, field) in [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")] {
            let given = mutation.get(field);
            if kind.text() == name && !given.given() {
                given.required(&format!("must be specified when patchType is {name}"), found);
            } else if kind.text() == name && given.get("expression").text().trim().is_empty() {
                given.get("expression").required("expression is not specified", found);
            }
        }
    }
    spec.get("reinvocationPolicy").must_be_one_of(&["IfNeeded", "Never"], found);
}

pub(super) fn policy_binding(kind: &str, new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    spec.get("policyName").must_be_named(names::dns_subdomain, found);
    let params = spec.get("paramRef");
    if params.given() {
        let (name, selector) = (params.get("name"), params.get("selector"));
        match (!name.empty(), selector.given()) {
            (true, true) => name.forbidden("name and selector are mutually exclusive", found),
            (false, false) => params.required("one of name or selector must be specified", found),
            _ => selectors::label_selector(&selector, found),
        }
        params.get("parameterNotFoundAction").must_be_one_of(&["Allow", "Deny"], found);
    }
    match_resources(&spec.get("matchResources"), found);
    if kind != "ValidatingAdmissionPolicyBinding" {
        return;
    }
    let actions = spec.get("validationActions");
    if actions.empty() {
        actions.required("at least one validation action is required", found);
    }
    let mut seen = Vec::new();
    for action in actions.items() {
        action.one_of(&["Audit", "Deny", "Warn"], found);
        if seen.contains(&action.text()) {
            action.duplicate(found);
        }
        seen.push(action.text());
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        actions.invalid("must not contain both Deny and Warn: the same would be said twice", found);
    }
}

pub(super) fn api_service(new: &Value, found: &mut Found) {
    let root = At::root(new);
    let spec = root.get("spec");
    let wanted = format!("{}.{}", spec.get("version").text(), spec.get("group").text());
    let name = root.get("metadata").get("name");
    if name.text() != wanted {
        name.invalid(&format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"), found);
    }
    let version = spec.get("version");
    for why in names::letter_label(version.text()) {
        version.invalid_as(&json!(version.text()), &why, found);
    }
    for (name, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let number = spec.get(name);
        if !number.number().is_some_and(|n| (1..=most).contains(&n)) {
            let shown = number.number().unwrap_or(0);
            number.invalid_as(&shown.into(), &format!("must be positive and at most {most}"), found);
        }
    }
    let service = spec.get("service");
    let (certificates, careless) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.given() {
        if !certificates.empty() {
            certificates.invalid_as(&json!("<redacted>"), "local APIServices may not have a caBundle", found);
        }
        if careless.value == true {
            careless.invalid("local APIServices may not have insecureSkipTLSVerify", found);
        }
        return;
    }
    for name in ["namespace", "name"] {
        service.get(name).must_be_given(found);
    }
    if service.get("port").given() {
        service.get("port").port(found);
    }
    if careless.value == true && !certificates.empty() {
        careless.invalid("may not be true if caBundle is present", found);
    }
}
