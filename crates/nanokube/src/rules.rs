//! Rules of custom resources in CEL (`x-kubernetes-validations`): their own validity when a definition is written, and
//! what they say about an object. Pure.

use apimachinery::field::{self, Cause, FieldError};
use apimachinery::schema::{ListType, RuleSite, Schema, Type};
use serde_json::{Value, json};

use crate::cel::{self, Bindings, Expressions};

/// Variables a rule may use.
const VARIABLES: [&str; 2] = ["self", "oldSelf"];
/// What a rule may give as its reason.
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What the rules of a schema say about an object that replaces `old`. `found` is what is wrong with its shape: rules
/// would stumble over it, so they are not asked then, which is said.
pub(crate) fn check(
    expressions: &Expressions,
    schema: &Schema,
    new: &Value,
    old: Option<&Value>,
    found: &[FieldError],
) -> Vec<FieldError> {
    let blocking = [Cause::NotSupported, Cause::Required, Cause::TooLong, Cause::TooMany, Cause::TypeInvalid];
    if found.iter().any(|error| blocking.contains(&error.cause)) {
        if !has_rules(schema) {
            return Vec::new();
        }
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
                   to complete validation";
        return vec![FieldError::invalid("<nil>", &Value::Null, why)];
    }
    let sites = schema.rule_sites(new, old);
    sites.iter().flat_map(|site| site.schema.rules.iter().filter_map(|rule| judge(expressions, site, rule))).collect()
}

fn has_rules(schema: &Schema) -> bool {
    !schema.rules.is_empty()
        || schema.properties.values().any(|field| has_rules(field))
        || schema.additional.iter().chain(&schema.items).any(|inner| has_rules(inner))
}

fn text<'r>(rule: &'r Value, name: &str) -> &'r str {
    rule[name].as_str().unwrap_or_default()
}

/// What one rule says at one place.
fn judge(expressions: &Expressions, site: &RuleSite<'_>, rule: &Value) -> Option<FieldError> {
    let source = text(rule, "rule");
    let refuse = |reason: &str, detail: &str| Some(refused(site, rule, reason, detail));
    let expression = match expressions.get(source) {
        Ok(expression) => expression,
        Err(error) => return refuse("", &format!("rule compile error: {error}")),
    };
    let transition = cel::uses(&expression, "oldSelf");
    let optional = rule["optionalOldSelf"] == true;
    if transition && site.old.is_none() && !optional {
        return None;
    }
    // What was accepted before stays acceptable while nobody touches it: a rule can be added to a definition.
    if !transition && site.old == Some(site.value) {
        return None;
    }
    let old = site.old.map(|old| cel::typed(old, site.schema));
    let mut bindings = Bindings::from([("self", cel::typed(site.value, site.schema))]);
    if optional {
        bindings.insert("oldSelf", cel::optional(old));
    } else if let Some(old) = old {
        bindings.insert("oldSelf", old);
    }
    match cel::run_bool(&expression, &bindings) {
        Ok(true) => None,
        Ok(false) => refuse(text(rule, "reason"), &message(expressions, rule, &bindings)),
        Err(error) => {
            let shown = [text(rule, "message").trim(), source.trim()].into_iter().find(|text| !text.is_empty());
            refuse("", &format!("{error} evaluating rule: {}", shown.unwrap_or_default()))
        }
    }
}

fn message(expressions: &Expressions, rule: &Value, bindings: &Bindings) -> String {
    let computed = expressions
        .get(text(rule, "messageExpression"))
        .ok()
        .filter(|_| !text(rule, "messageExpression").is_empty())
        .and_then(|expression| cel::run_text(&expression, bindings).ok())
        // A message of several lines, or of none, would tear the error apart.
        .filter(|text| !text.trim().is_empty() && !text.contains('\n'));
    if let Some(text) = computed {
        return text.trim().to_owned();
    }
    match text(rule, "message").trim() {
        "" => format!("failed rule: {}", text(rule, "rule").trim()),
        given => given.to_owned(),
    }
}

fn refused(site: &RuleSite<'_>, rule: &Value, reason: &str, detail: &str) -> FieldError {
    let path = steps(text(rule, "fieldPath")).unwrap_or_default().iter().fold(site.path.clone(), |path, step| {
        if step.data { field::key(&path, &step.name) } else { field::child(&path, &step.name) }
    });
    // Whole objects and lists are not repeated in the message.
    let large = matches!(site.schema.kind, Type::Object | Type::Array);
    let plain = |cause, head: &str| {
        let message = if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") };
        FieldError { cause, field: path.clone(), message }
    };
    match reason {
        "FieldValueForbidden" => FieldError::forbidden(path, detail),
        "FieldValueRequired" => FieldError::required(path, detail),
        "FieldValueDuplicate" if large => {
            FieldError { message: "Duplicate value".to_owned(), ..plain(Cause::Duplicate, "") }
        }
        "FieldValueDuplicate" => FieldError::duplicate(path, site.value),
        _ if large => plain(Cause::Invalid, "Invalid value"),
        _ => FieldError::invalid(path, site.value, detail),
    }
}

/// One step of a rule's `fieldPath`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: String,
    /// Written in brackets: the key of a map, or a field whose name has dots.
    data: bool,
}

/// Reads `.spec.x['a.b']`; nothing for what is not such a path.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (name, after, data) = if let Some(inner) = rest.strip_prefix("['") {
            let (name, after) = inner.split_once("']")?;
            (name, after, true)
        } else {
            let inner = rest.strip_prefix('.')?;
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            (&inner[..end], &inner[end..], false)
        };
        if name.is_empty() {
            return None;
        }
        steps.push(Step { name: name.to_owned(), data });
        rest = after;
    }
    Some(steps)
}

/// What is wrong with the rules of a definition's schema; paths start at the schema.
pub(crate) fn check_declared(schema: &Schema) -> Vec<FieldError> {
    let mut errors = Vec::new();
    declared("", schema, true, &mut errors);
    errors
}

fn declared(path: &str, schema: &Schema, comparable: bool, errors: &mut Vec<FieldError>) {
    let rules = field::child(path, "x-kubernetes-validations");
    for (index, rule) in schema.rules.iter().enumerate() {
        declared_rule(&field::index(&rules, index), schema, rule, comparable, errors);
    }
    for (name, inner) in &schema.properties {
        let at = field::key(&field::child(path, "properties"), name);
        declared(&at, inner, comparable && schema.list != ListType::Set, errors);
    }
    if let Some(inner) = &schema.additional {
        declared(&field::child(path, "additionalProperties"), inner, comparable, errors);
    }
    if let Some(inner) = &schema.items {
        // Only the items of a list map can be told from each other, and so compared with what they were.
        declared(&field::child(path, "items"), inner, comparable && schema.list == ListType::Map, errors);
    }
}

fn declared_rule(path: &str, schema: &Schema, rule: &Value, comparable: bool, errors: &mut Vec<FieldError>) {
    let source = text(rule, "rule");
    let at = field::child(path, "rule");
    if source.trim().is_empty() {
        errors.push(FieldError::required(at, "rule is not specified"));
        return;
    }
    match problem(source, schema) {
        Err(error) => errors.push(FieldError::invalid(at, rule, &format!("compilation failed: {error}"))),
        Ok(transition) if transition && !comparable => {
            let why = "oldSelf cannot be used on the uncorrelatable portion of the schema";
            errors.push(FieldError::invalid(at, rule, why));
        }
        Ok(transition) if !transition && rule["optionalOldSelf"] == true => {
            let why = "may not be set unless oldSelf is used in rule";
            errors.push(FieldError::invalid(field::child(path, "optionalOldSelf"), &json!(true), why));
        }
        Ok(_) => {}
    }
    let message = &rule["message"];
    if message.as_str().is_some_and(|text| !text.is_empty() && text.trim().is_empty()) {
        let why = "message must be non-empty if specified";
        errors.push(FieldError::invalid(field::child(path, "message"), message, why));
    } else if message.as_str().is_some_and(|text| text.trim().contains('\n')) {
        let why = "message must not contain line breaks";
        errors.push(FieldError::invalid(field::child(path, "message"), message, why));
    } else if source.trim().contains('\n') && message.as_str().is_none_or(str::is_empty) {
        let why = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(field::child(path, "message"), why));
    }
    if let Some(source) = rule["messageExpression"].as_str()
        && let Err(error) = problem(source, schema)
    {
        let at = field::child(path, "messageExpression");
        errors.push(FieldError::invalid(at, rule, &format!("messageExpression compilation failed: {error}")));
    }
    if let Some(reason) = rule["reason"].as_str()
        && !REASONS.contains(&reason)
    {
        errors.push(FieldError::not_supported(field::child(path, "reason"), &json!(reason), &REASONS.map(Value::from)));
    }
    if let Some(given) = rule["fieldPath"].as_str()
        && !leads_somewhere(given, schema)
    {
        let why = "fieldPath must be a valid path";
        errors.push(FieldError::invalid(field::child(path, "fieldPath"), &json!(given), why));
    }
}

/// Whether an expression compares with the old state.
///
/// # Errors
/// What keeps it from being compiled.
fn problem(source: &str, schema: &Schema) -> Result<bool, String> {
    let expression = Expressions::default().get(source).map_err(|error| error.to_string())?;
    if let Some(name) = cel::unknown_names(&expression, &VARIABLES).first() {
        return Err(format!("undeclared reference to '{name}' (in container '')"));
    }
    for root in VARIABLES {
        if let Some(name) = cel::unknown_fields(&expression, root, schema).first() {
            return Err(format!("undefined field '{name}'"));
        }
    }
    Ok(cel::uses(&expression, "oldSelf"))
}

fn leads_somewhere(path: &str, schema: &Schema) -> bool {
    let Some(steps) = steps(path).filter(|steps| !steps.is_empty()) else { return false };
    let mut at = schema;
    for step in &steps {
        match at.properties.get(&step.name).or(at.additional.as_ref()) {
            Some(inner) => at = inner,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
