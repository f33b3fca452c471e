//! Selectors: which objects a query or a controller means, by labels or by fields.

mod field;
mod label;

pub use field::{FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, LabelSelectorError, Operator, Requirement};

#[cfg(test)]
mod tests;
