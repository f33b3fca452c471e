//! Admission: what is asked before an object reaches the store, beside schema and strategy. Mutating webhooks first, then
//! (when the object is complete and valid) policies and validating webhooks.

mod declared;
mod hooks;
mod matching;
mod policies;
mod review;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

pub(crate) use declared::problems;
pub(crate) use matching::Operation;

use crate::cel::{self, Bindings};
use crate::registry::{Resource, Table, resource_key};
use crate::status::ApiError;
use crate::store::{Name, Stored};
use crate::verbs::Target;

/// What admission has to say beside yes and no.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Said>);

#[derive(Default)]
struct Said {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Notes {
    fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A webhook that is asked twice warns once.
        if !said.warnings.contains(&text) {
            said.warnings.push(text);
        }
    }

    fn annotate(&self, key: String, value: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).annotations.insert(key, value);
    }

    /// Texts for `Warning` headers.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).warnings.clone()
    }

    /// Annotations of the audit event.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).annotations.clone()
    }
}

/// A write on its way.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub target: &'a Target<'a>,
    pub operation: Operation,
    /// May still be empty when the server is to choose it.
    pub name: &'a str,
    pub dry_run: bool,
}

impl Asked<'_> {
    /// What criteria look at.
    fn subject<'a>(&'a self, object: &'a Value, old: &'a Value, namespace_object: &'a Value) -> matching::Subject<'a> {
        matching::Subject {
            operation: self.operation,
            resource: &self.target.resource,
            subresource: self.subresource(),
            namespace: self.namespace(),
            name: self.name,
            object,
            old,
            namespace_object,
        }
    }

    fn subresource(&self) -> &str {
        &self.target.path.subresource
    }

    /// The namespace the object is in; a namespace itself is in none.
    fn namespace(&self) -> &str {
        if self.target.resource.namespaced { &self.target.path.namespace } else { "" }
    }

    /// The namespace as an object, `null` where there is none.
    fn namespace_object(&self) -> Arc<Stored> {
        let namespaces = resource_key("", "namespaces");
        let found = (!self.namespace().is_empty())
            .then(|| self.target.core.store.get_kept(&namespaces, &Name::new("", self.namespace())))
            .flatten();
        found.unwrap_or_else(|| Arc::new(Stored::unstored(Value::Null)))
    }

    /// A resource of the table, or the request's own, to keep.
    fn shared(&self, meant: &Resource, table: &Table) -> Arc<Resource> {
        let found = table.get(&meant.group, &meant.version, &meant.plural);
        found.unwrap_or_else(|| self.target.resource.clone())
    }

    /// Configuration of admission itself is never asked about: a broken webhook could not be removed otherwise.
    fn is_exempt(&self) -> bool {
        self.target.resource.group == "admissionregistration.k8s.io"
    }

    /// The `request` of an `AdmissionReview`, and of expressions, without the objects. `meant` is the version in which
    /// whoever is asked wants to see it.
    fn describe(&self, meant: &Resource, uid: &str) -> Value {
        let spoken = &*self.target.resource;
        let kind = |resource: &Resource| {
            let sub = resource.subresources.iter().find(|sub| sub.path() == self.subresource());
            match sub.and_then(|sub| sub.body()) {
                Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
                None => json!({"group": resource.group, "version": resource.version, "kind": resource.kind}),
            }
        };
        let resource = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
        let mut options = json!({"kind": self.operation.options_kind(), "apiVersion": "meta.k8s.io/v1"});
        if self.target.context.info.verb == "patch" {
            options["kind"] = json!("PatchOptions");
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if let Some(manager) = self.target.query().get("fieldManager") {
            options["fieldManager"] = json!(manager);
        }
        let mut request = json!({
            "uid": uid, "kind": kind(meant), "resource": resource(meant),
            "requestKind": kind(spoken), "requestResource": resource(spoken),
            "operation": self.operation.as_str(), "userInfo": self.target.context.user.to_value(),
            "dryRun": self.dry_run, "options": options,
        });
        let namespace = if spoken.is("", "namespaces") { self.name } else { self.namespace() };
        for (field, text) in [
            ("name", self.name),
            ("namespace", namespace),
            ("subResource", self.subresource()),
            ("requestSubResource", self.subresource()),
        ] {
            if !text.is_empty() {
                request[field] = json!(text);
            }
        }
        request
    }

    /// Whether the conditions of a webhook or policy hold.
    ///
    /// # Errors
    /// A condition cannot be answered, and none is false.
    fn conditions_hold(&self, conditions: &Value, bindings: &Bindings) -> Result<bool, String> {
        let mut failed = None;
        for condition in conditions.as_array().into_iter().flatten() {
            let expression = condition["expression"].as_str().unwrap_or_default();
            let compiled = self.target.core.expressions.get(expression).map_err(|error| error.to_string());
            match compiled.and_then(|compiled| cel::run_bool(&compiled, bindings)) {
                Ok(true) => {}
                // One that is false settles it, whatever the others would have said.
                Ok(false) => return Ok(false),
                Err(error) => {
                    failed.get_or_insert(format!("expression '{expression}' resulted in error: {error}"));
                }
            }
        }
        failed.map_or(Ok(true), Err)
    }

    fn bindings(&self, meant: &Resource, object: &Value, old: &Value) -> Bindings {
        Bindings::from([
            ("object", cel::free(object)),
            ("oldObject", cel::free(old)),
            ("request", cel::free(&self.describe(meant, ""))),
        ])
    }
}

/// Lets mutating webhooks change the object. `old` is `null` on creation; deletions show `null` as the object and are not
/// changed.
///
/// # Errors
/// A webhook refuses, or must be asked and does not answer.
pub(crate) async fn mutate(asked: &Asked<'_>, object: &mut Value, old: &Value) -> Result<(), ApiError> {
    if asked.is_exempt() { Ok(()) } else { hooks::mutate(asked, object, old).await }
}

/// Asks policies, then validating webhooks.
///
/// # Errors
/// One refuses, or must be asked and does not answer.
pub(crate) async fn validate(asked: &Asked<'_>, object: &Value, old: &Value) -> Result<(), ApiError> {
    if asked.is_exempt() {
        return Ok(());
    }
    policies::validate(asked, object, old)?;
    hooks::validate(asked, object, old).await
}

/// Both stages for what is not changed on its way: deletions and the bodies of subresources.
///
/// # Errors
/// As [`mutate`] and [`validate`].
pub(crate) async fn ask(asked: &Asked<'_>, object: &mut Value, old: &Value) -> Result<(), ApiError> {
    mutate(asked, object, old).await?;
    validate(asked, object, old).await
}
