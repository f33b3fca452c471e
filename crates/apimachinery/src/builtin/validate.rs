//! The rules of built-in kinds that clients meet: required fields, names, what may not change, what must fit together.

use serde_json::Value;

use crate::field::{Cause, FieldError};
use crate::names::{self, NameRule};
use crate::schema::Schema;

/// Everything wrong with an object of a built-in kind, new (`old` absent) or changed. The object is in stored form, as
/// [`super::default`] leaves it. A kind that is not built in has no rules here.
pub fn validate(api_version: &str, kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(schema) = super::schema(api_version, kind) else { return Vec::new() };
    let mut errors = Vec::new();
    if has_name(kind) {
        errors.extend(names::metadata(new, name_rule(kind)));
    }
    if let Some(old) = old {
        errors.extend(names::metadata_update(new, old));
    }
    required(schema, new, &mut errors);
    errors
}

/// Reviews are questions, not objects.
fn has_name(kind: &str) -> bool {
    !kind.ends_with("Review") && !matches!(kind, "TokenRequest" | "Scale" | "Binding" | "Eviction")
}

/// How objects of a kind are named.
fn name_rule(kind: &str) -> NameRule {
    match kind {
        "Namespace" => NameRule::Label,
        "Service" => NameRule::LetterLabel,
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" => NameRule::PathSegment,
        _ => NameRule::Subdomain,
    }
}

/// Fields the type requires and nobody complained about yet. The status is the server's business.
fn required(schema: &Schema, new: &Value, errors: &mut Vec<FieldError>) {
    for e in schema.validate(new) {
        let known = e.field.starts_with("status") || errors.iter().any(|o| o.field == e.field);
        if e.cause == Cause::Required && !known {
            errors.push(e);
        }
    }
}
