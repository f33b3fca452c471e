//! Objects as YAML text and back. Keys are in alphabetical order, so equal objects make equal text.

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::object::{Object, ObjectError};

#[derive(Debug, Error)]
pub enum YamlError {
    #[error("not YAML: {0}")]
    Syntax(#[from] serde_saphyr::Error),
    #[error("document {number}: {error}")]
    Object { number: usize, error: ObjectError },
}

/// One document per value, each after a separator line.
pub fn to_yaml<T: Serialize>(values: &[T]) -> String {
    values.iter().map(|value| format!("---\n{}", document(value))).collect()
}

/// One value without separators.
pub fn document<T: Serialize>(value: &T) -> String {
    // A detour over Value puts the keys in order.
    let value = serde_json::to_value(value).expect("what is written is plain data");
    let mut text = serde_saphyr::to_string(&value).expect("plain data can be written as YAML");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Every object of a text with any number of documents; empty ones are skipped.
///
/// # Errors
/// The text is not YAML, or a document is not an object of a known kind.
pub fn from_yaml(text: &str) -> Result<Vec<Object>, YamlError> {
    from_yaml_mended(text, |_| {})
}

/// As [`from_yaml`], with a chance to mend each document before it is taken as an object.
///
/// # Errors
/// As [`from_yaml`].
pub fn from_yaml_mended(text: &str, mend: impl Fn(&mut Value)) -> Result<Vec<Object>, YamlError> {
    // Only `true` and `false` are switches: writers of Kubernetes quote neither `y` nor `on` the way older YAML needs.
    // The size of a text is bounded where it enters.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        budget: None,
    };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
    values
        .into_iter()
        .enumerate()
        .filter(|(_, value)| !value.is_null())
        .map(|(at, mut value)| {
            mend(&mut value);
            Object::from_value(value).map_err(|error| YamlError::Object { number: at + 1, error })
        })
        .collect()
}
