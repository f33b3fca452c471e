//! The three ways to change an object by a patch: JSON patch (RFC 6902), merge patch (RFC 7386) and the strategic merge
//! patch of built-in kinds.

mod strategic;

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

pub use strategic::{StrategicError, strategic};

/// Why a JSON patch is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JsonPatchError {
    /// The document is no list of operations.
    #[error("the patch is not a JSON patch: {0}")]
    Malformed(String),
    /// A `test` operation did not hold.
    #[error("operation {operation} of the patch: {path} does not have the tested value")]
    TestFailed { operation: usize, path: String },
    /// A path points at nothing.
    #[error("operation {operation} of the patch: {path} does not exist")]
    NoSuchPath { operation: usize, path: String },
    /// A value would be moved into itself.
    #[error("operation {operation} of the patch moves {path} into itself")]
    MoveIntoItself { operation: usize, path: String },
}

/// Applies a JSON patch; all of it or nothing.
///
/// # Errors
/// The patch is malformed, a test fails, or a path does not exist.
pub fn json(object: &Value, patch: &Value) -> Result<Value, JsonPatchError> {
    let operations: Vec<PatchOperation> =
        serde_json::from_value(patch.clone()).map_err(|e| JsonPatchError::Malformed(e.to_string()))?;
    let mut out = object.clone();
    json_patch::patch(&mut out, &operations).map_err(|e| {
        let (operation, path) = (e.operation, e.path.to_string());
        match e.kind {
            PatchErrorKind::TestFailed => JsonPatchError::TestFailed { operation, path },
            PatchErrorKind::CannotMoveInsideItself => JsonPatchError::MoveIntoItself { operation, path },
            _ => JsonPatchError::NoSuchPath { operation, path },
        }
    })?;
    Ok(out)
}

/// Applies a merge patch: null removes, objects merge, everything else replaces.
#[must_use]
pub fn merge(object: &Value, patch: &Value) -> Value {
    let mut out = object.clone();
    json_patch::merge(&mut out, patch);
    out
}

/// The merge patch that turns `from` into `to`; nothing when they are equal. Nulls inside `to` cannot be said by a
/// merge patch and are lost.
pub fn merge_diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(a), Value::Object(b)) = (from, to) else { return Some(to.clone()) };
    let mut out = serde_json::Map::new();
    for name in a.keys().filter(|n| !b.contains_key(*n)) {
        out.insert(name.clone(), Value::Null);
    }
    for (name, v) in b {
        match a.get(name) {
            Some(before) => {
                if let Some(patch) = merge_diff(before, v) {
                    out.insert(name.clone(), patch);
                }
            }
            None => {
                out.insert(name.clone(), v.clone());
            }
        }
    }
    Some(Value::Object(out))
}

#[cfg(test)]
mod tests;
