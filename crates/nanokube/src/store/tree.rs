//! An object as a tree of values, or as text that becomes one when somebody looks.
//!
//! A tree takes six times the memory of its text, and most objects of a large cluster are looked at rarely: watchers and
//! lists are answered with the text as it is.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

/// A state as text.
#[derive(Clone, Debug)]
pub(super) struct Text {
    api_version: Arc<str>,
    kind: Arc<str>,
    /// Shared by everything that came from this state. See [`super::Stored::tail`].
    pub(super) tail: Bytes,
}

impl Text {
    pub(super) fn of(stored: &super::Stored) -> Self {
        if let Some(text) = &stored.value.text {
            return text.clone();
        }
        let field = |name: &str| stored.value[name].as_str().unwrap_or_default().into();
        Self { api_version: field("apiVersion"), kind: field("kind"), tail: stored.tail().clone() }
    }

    fn read(&self) -> Value {
        let whole = [b"{", self.tail.as_ref()].concat();
        let mut value: Value = serde_json::from_slice(&whole).expect("what was written as JSON is JSON");
        for (name, text) in [("apiVersion", &self.api_version), ("kind", &self.kind)] {
            if !text.is_empty() {
                value[name] = Value::from(text.as_ref());
            }
        }
        value
    }
}

/// See the module's own words.
#[derive(Debug)]
pub(crate) struct Tree {
    value: OnceLock<Value>,
    pub(super) text: Option<Text>,
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        Self { value: OnceLock::from(value), text: None }
    }
}

impl From<Text> for Tree {
    fn from(text: Text) -> Self {
        Self { value: OnceLock::new(), text: Some(text) }
    }
}

impl Deref for Tree {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value.get_or_init(|| self.text.as_ref().map(Text::read).unwrap_or_default())
    }
}
