//! What is wrong with one field of an object, in the words clients match.

use std::fmt;

use serde_json::Value;

/// Why a field was refused; [`Cause::as_str`] is the `reason` of a status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TypeInvalid,
    TooLong,
    TooMany,
    NotFound,
}

impl Cause {
    /// The reason clients see in `details.causes[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

/// One refused field. `message` is what a status cause carries (`Invalid value: 3: ...`); [`fmt::Display`] puts the
/// field in front, as in the message of the whole status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub cause: Cause,
    /// The path of the field, such as `spec.containers[0].image`.
    pub field: String,
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

impl FieldError {
    fn with(cause: Cause, field: impl Into<String>, head: &str, detail: &str) -> Self {
        let message = if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") };
        Self { cause, field: field.into(), message }
    }

    /// The field is missing or empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::with(Cause::Required, field, "Required value", detail)
    }

    /// The value breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::with(Cause::Invalid, field, &format!("Invalid value: {value}"), detail)
    }

    /// The value has the wrong JSON type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::with(Cause::TypeInvalid, field, &format!("Invalid value: {value}"), detail)
    }

    /// The value is not one of those allowed.
    pub fn not_supported(field: impl Into<String>, value: &Value, allowed: &[Value]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let detail =
            if allowed.is_empty() { String::new() } else { format!("supported values: {}", allowed.join(", ")) };
        Self::with(Cause::NotSupported, field, &format!("Unsupported value: {value}"), &detail)
    }

    /// The same value stands in the list already.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::with(Cause::Duplicate, field, &format!("Duplicate value: {value}"), "")
    }

    /// The field may not be set, or not be changed like this.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::with(Cause::Forbidden, field, "Forbidden", detail)
    }

    /// The text is longer than `max` characters.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::with(Cause::TooLong, field, "Too long", &format!("may not be more than {max} bytes"))
    }

    /// The list or map has more than `max` entries.
    pub fn too_many(field: impl Into<String>, have: usize, max: usize) -> Self {
        Self::with(Cause::TooMany, field, &format!("Too many: {have}"), &format!("must have at most {max} items"))
    }

    /// A name points at nothing.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::with(Cause::NotFound, field, &format!("Not found: {value}"), "")
    }
}

/// Joins the path of an object and the name of one of its fields.
pub fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The path of one entry of a map whose keys are data.
pub fn key(path: &str, name: &str) -> String {
    format!("{path}[{name}]")
}

/// The path of one item of a list.
pub fn index(path: &str, i: usize) -> String {
    format!("{path}[{i}]")
}
