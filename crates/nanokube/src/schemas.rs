//! Where a resource's rules come from: the tables of built-in kinds or the schema of a definition.

use apimachinery::FieldError;
use apimachinery::names::{self, NameRule};
use apimachinery::schema::Schema;
use serde_json::Value;

use crate::kinds::Sub;
use crate::registry::Resource;

/// The schema of a built-in kind; `None` when it is only stored.
pub(crate) fn built_in(api_version: &str, kind: &str) -> Option<&'static Schema> {
    apimachinery::builtin::schema(api_version, kind)
}

/// Fills in defaults.
pub(crate) fn default(resource: &Resource, object: &mut Value) {
    match (&resource.custom, resource.schema()) {
        (None, _) => apimachinery::builtin::default(&resource.api_version(), &resource.kind, object),
        (Some(_), Some(schema)) => schema.default(object),
        (Some(_), None) => {}
    }
}

/// Drops what the schema does not know and says what that was.
pub(crate) fn prune(resource: &Resource, object: &mut Value) -> Vec<String> {
    resource.schema().map(|schema| schema.prune(object)).unwrap_or_default()
}

/// What is wrong with an object; `old` is the state it replaces, `sub` the part that was written.
pub(crate) fn validate(resource: &Resource, sub: Option<Sub>, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match (&resource.custom, resource.schema()) {
        (None, _) if let (Some(sub @ (Sub::Status | Sub::EphemeralContainers)), Some(old)) = (sub, old) => {
            apimachinery::builtin::validate_part(&resource.kind, sub.path(), object, old)
        }
        (None, _) => apimachinery::builtin::validate(&resource.api_version(), &resource.kind, object, old),
        (Some(_), schema) => {
            // Definitions describe everything but metadata, whose rules are the same for all.
            let mut errors = names::metadata(object, NameRule::Subdomain);
            errors.extend(old.map(|old| names::metadata_update(object, old)).unwrap_or_default());
            errors.extend(schema.map(|schema| schema.validate(object)).unwrap_or_default());
            errors
        }
    }
}
