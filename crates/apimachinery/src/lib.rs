//! The algebra of Kubernetes API objects over [`serde_json::Value`]: schemas, patches, server-side apply, selectors,
//! the rules of built-in kinds. Every function takes values and returns values; nothing here reads a clock, draws a
//! random number or does input and output.

pub mod builtin;
pub mod field;
pub mod jsonpath;
pub mod managed;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;

pub use field::{Cause, FieldError};
pub use managed::Manager;
pub use schema::Schema;
