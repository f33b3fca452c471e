//! `ValidatingAdmissionPolicy`: expressions that judge a write, put in force by bindings. Pure but for looking up
//! parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::Asked;
use super::matching::{Criteria, Subject};
use crate::cel::{self, Bindings};
use crate::registry::{Resource, Table, resource_key};
use crate::status::ApiError;
use crate::store::{Name, Stored};

/// Where failures that are only recorded stand in the audit log.
const AUDIT_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What a policy objects to.
struct Objection {
    message: String,
    reason: String,
}

pub(super) fn validate(asked: &Asked<'_>, object: &Value, old: &Value) -> Result<(), ApiError> {
    let store = &asked.target.core.store;
    let all = |plural: &str| store.list_kept(&resource_key("admissionregistration.k8s.io", plural));
    let bindings = all("validatingadmissionpolicybindings");
    if bindings.is_empty() {
        return Ok(());
    }
    let table = asked.target.core.registry.table();
    let namespace_object = asked.namespace_object();
    let subject = asked.subject(object, old, &namespace_object.value);
    let mut recorded = Vec::new();
    for policy in all("validatingadmissionpolicies") {
        let name = policy.value["metadata"]["name"].as_str().unwrap_or_default();
        let own = bindings.iter().filter(|binding| binding.value["spec"]["policyName"] == name);
        for binding in own {
            let judged = Judged { asked, policy: &policy.value, binding: &binding.value, table: &table };
            judged.validate(&subject, &mut recorded)?;
        }
    }
    if !recorded.is_empty() {
        asked.target.context.notes.annotate(AUDIT_KEY.to_owned(), Value::Array(recorded).to_string());
    }
    Ok(())
}

/// A policy under one of its bindings.
struct Judged<'a> {
    asked: &'a Asked<'a>,
    policy: &'a Value,
    binding: &'a Value,
    table: &'a Table,
}

impl Judged<'_> {
    fn name(&self) -> &str {
        self.policy["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn binding_name(&self) -> &str {
        self.binding["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn validate(&self, subject: &Subject<'_>, recorded: &mut Vec<Value>) -> Result<(), ApiError> {
        let spec = &self.policy["spec"];
        let Some(meant) = Criteria::of_policy(&spec["matchConstraints"]).meant(subject, self.table) else {
            return Ok(());
        };
        let narrowed = &self.binding["spec"]["matchResources"];
        if !narrowed.is_null() {
            let criteria = Criteria::of_policy(narrowed);
            // Without rules of its own a binding narrows by its selectors only.
            let held = if criteria.rules.is_empty() {
                criteria.selected(subject)
            } else {
                criteria.meant(subject, self.table).is_some()
            };
            if !held {
                return Ok(());
            }
        }
        let meant = self.asked.shared(meant, self.table);
        let objections = match self.parameters(subject) {
            Ok(parameters) => parameters
                .iter()
                .flat_map(|parameters| self.objections(&meant, subject, parameters))
                .collect::<Vec<_>>(),
            Err(error) => self.failed(error).into_iter().collect(),
        };
        self.enforce(&objections, recorded)
    }

    /// What becomes of an expression or parameter that cannot be had.
    fn failed(&self, message: String) -> Option<Objection> {
        (self.policy["spec"]["failurePolicy"] != "Ignore").then(|| Objection { message, reason: String::new() })
    }

    fn objections(&self, meant: &Resource, subject: &Subject<'_>, parameters: &Value) -> Vec<Objection> {
        let spec = &self.policy["spec"];
        let mut bindings = self.asked.bindings(meant, subject.object, subject.old);
        bindings.insert("params", cel::free(parameters));
        bindings.insert("namespaceObject", cel::free(subject.namespace_object));
        match self.asked.conditions_hold(&spec["matchConditions"], &bindings) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => return self.failed(error).into_iter().collect(),
        }
        self.add_variables(&mut bindings);
        let rules = spec["validations"].as_array().into_iter().flatten();
        let found: Vec<Objection> = rules.filter_map(|rule| self.objection(rule, &bindings)).collect();
        for note in spec["auditAnnotations"].as_array().into_iter().flatten() {
            let key = format!("{}/{}", self.name(), note["key"].as_str().unwrap_or_default());
            let expression = note["valueExpression"].as_str().unwrap_or_default();
            if let Ok(text) = self.compiled(expression).and_then(|compiled| cel::run_text(&compiled, &bindings)) {
                self.asked.target.context.notes.annotate(key, text);
            }
        }
        found
    }

    fn compiled(&self, expression: &str) -> Result<cel::Expression, String> {
        self.asked.target.core.expressions.get(expression).map_err(|error| error.to_string())
    }

    /// Variables may use those before them. One that fails is absent: who uses it fails, and nobody else.
    fn add_variables(&self, bindings: &mut Bindings) {
        let mut known = BTreeMap::new();
        bindings.insert("variables", cel::map([]));
        for variable in self.policy["spec"]["variables"].as_array().into_iter().flatten() {
            let expression = variable["expression"].as_str().unwrap_or_default();
            let Ok(value) = self.compiled(expression).and_then(|compiled| cel::run(&compiled, bindings)) else {
                continue;
            };
            known.insert(variable["name"].as_str().unwrap_or_default().to_owned(), value);
            bindings.insert("variables", cel::map(known.clone()));
        }
    }

    fn objection(&self, rule: &Value, bindings: &Bindings) -> Option<Objection> {
        let expression = rule["expression"].as_str().unwrap_or_default();
        match self.compiled(expression).and_then(|compiled| cel::run_bool(&compiled, bindings)) {
            Ok(true) => None,
            Ok(false) => {
                let computed = rule["messageExpression"]
                    .as_str()
                    .and_then(|source| self.compiled(source).ok())
                    .and_then(|compiled| cel::run_text(&compiled, bindings).ok())
                    .filter(|text| !text.trim().is_empty() && !text.contains('\n'));
                let given = rule["message"].as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
                let message = computed.or(given).unwrap_or_else(|| format!("failed expression: {}", expression.trim()));
                let reason = rule["reason"].as_str().unwrap_or_default().to_owned();
                Some(Objection { message: message.trim().to_owned(), reason })
            }
            Err(error) => self.failed(format!("expression '{expression}' resulted in error: {error}")),
        }
    }

    /// The parameter objects to judge with; one `null` when the policy takes none.
    fn parameters(&self, subject: &Subject<'_>) -> Result<Vec<Value>, String> {
        let kind = &self.policy["spec"]["paramKind"];
        let reference = &self.binding["spec"]["paramRef"];
        if kind.is_null() || reference.is_null() {
            return Ok(vec![Value::Null]);
        }
        let (api_version, wanted) = (&kind["apiVersion"], &kind["kind"]);
        let resource = self
            .table
            .iter()
            .find(|resource| *api_version == resource.api_version().as_str() && *wanted == resource.kind.as_str())
            .ok_or_else(|| {
                format!("failed to find resource referenced by paramKind: '{api_version}, Kind={wanted}'")
            })?;
        let namespace = match reference["namespace"].as_str().filter(|name| !name.is_empty()) {
            _ if !resource.namespaced => "",
            Some(given) => given,
            None if subject.namespace.is_empty() => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
                );
            }
            None => subject.namespace,
        };
        let found = self.referenced(resource, reference, namespace);
        if found.is_empty() {
            return if reference["parameterNotFoundAction"] == "Allow" {
                Ok(Vec::new())
            } else {
                Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned())
            };
        }
        Ok(found.iter().map(|stored| stored.value.clone()).collect())
    }

    fn referenced(&self, resource: &Resource, reference: &Value, namespace: &str) -> Vec<Arc<Stored>> {
        let store = &self.asked.target.core.store;
        match reference["name"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => store.get(&resource.key, &Name::new(namespace, name)).into_iter().collect(),
            None => {
                let Ok(selector) = LabelSelector::from_json(&reference["selector"]) else { return Vec::new() };
                let all = store.objects(&resource.key, namespace);
                all.into_iter().filter(|stored| selector.matches_object(&stored.value)).collect()
            }
        }
    }

    fn enforce(&self, objections: &[Objection], recorded: &mut Vec<Value>) -> Result<(), ApiError> {
        let actions = &self.binding["spec"]["validationActions"];
        let does = |action: &str| actions.as_array().into_iter().flatten().any(|listed| listed == action);
        let notes = &self.asked.target.context.notes;
        for (index, objection) in objections.iter().enumerate() {
            if does("Warn") {
                notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    self.name(),
                    self.binding_name(),
                    objection.message
                ));
            }
            if does("Audit") {
                recorded.push(json!({
                    "message": objection.message, "policy": self.name(), "binding": self.binding_name(),
                    "expressionIndex": index.to_string(), "validationActions": actions,
                }));
            }
        }
        let Some(first) = objections.first().filter(|_| does("Deny")) else { return Ok(()) };
        let message = format!(
            "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
            self.name(),
            self.binding_name(),
            first.message
        );
        let (code, reason) = match first.reason.as_str() {
            "Unauthorized" => (401, "Unauthorized"),
            "Forbidden" => (403, "Forbidden"),
            "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
            _ => (422, "Invalid"),
        };
        Err(ApiError::denied(self.asked.target.about(self.asked.name), code, reason, &message))
    }
}
