//! Which objects of a list or watch a client wants: namespace, labels, fields. Pure.

use apimachinery::selector::{LabelSelector, LabelSelectorError};
use serde_json::Value;

use crate::registry::Resource;
use crate::status::ApiError;
use crate::store::{Name, Stored};

/// A compiled choice.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    namespace: String,
    labels: LabelSelector,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    path: String,
    value: String,
    equal: bool,
}

impl Filter {
    /// Compiles the selectors of a request for a resource.
    ///
    /// # Errors
    /// 400 for a selector that does not parse or a field that is not served.
    pub(crate) fn new(
        resource: &Resource,
        namespace: &str,
        name: &str,
        labels: &str,
        fields: &str,
    ) -> Result<Self, ApiError> {
        let labels: LabelSelector =
            labels.parse().map_err(|error: LabelSelectorError| ApiError::bad_request(error.to_string()))?;
        let mut parsed = parse_fields(fields)?;
        for field in &parsed {
            let known = matches!(field.path.as_str(), "metadata.name" | "metadata.namespace")
                || resource.selectors.contains(&field.path);
            if !known {
                let mut names = vec!["\"metadata.name\"".to_owned(), "\"metadata.namespace\"".to_owned()];
                names.extend(resource.selectors.iter().map(|name| format!("\"{name}\"")));
                return Err(ApiError::bad_request(format!(
                    "\"{}\" is not a known field selector: only {}",
                    field.path,
                    names.join(", ")
                )));
            }
        }
        if !name.is_empty() {
            parsed.push(Field { path: "metadata.name".to_owned(), value: name.to_owned(), equal: true });
        }
        Ok(Self { namespace: namespace.to_owned(), labels, fields: parsed })
    }

    /// Whether every object of the namespace passes.
    pub(crate) fn is_plain(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }

    /// Whether a state of the object of this name passes. What the name decides is not looked up in the object: most
    /// watchers choose by name, if at all, and an object that is kept as text would have to be parsed for each of them.
    pub(crate) fn sees(&self, name: &Name, object: &Stored) -> bool {
        if !self.namespace.is_empty() && name.namespace != self.namespace {
            return false;
        }
        let named = |field: &Field| match field.path.as_str() {
            "metadata.name" => Some((name.name == field.value) == field.equal),
            "metadata.namespace" => Some((name.namespace == field.value) == field.equal),
            _ => None,
        };
        if self.fields.iter().any(|field| named(field) == Some(false)) {
            return false;
        }
        let decided = self.labels.is_empty() && self.fields.iter().all(|field| named(field).is_some());
        decided || self.matches(&object.value)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        if !self.namespace.is_empty() && metadata["namespace"].as_str().unwrap_or_default() != self.namespace {
            return false;
        }
        self.fields.iter().all(|field| (field_text(object, &field.path) == field.value) == field.equal)
            && self.labels.matches(metadata["labels"].as_object())
    }
}

fn parse_fields(text: &str) -> Result<Vec<Field>, ApiError> {
    let mut fields = Vec::new();
    for term in text.split(',').filter(|term| !term.trim().is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (path, value, true)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{}'",
                term.trim()
            )));
        };
        let value = value.trim().replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
        fields.push(Field { path: path.trim().to_owned(), value, equal });
    }
    Ok(fields)
}

/// The text of a field for selection; what is absent is empty, or its zero for numbers and switches.
fn field_text(object: &Value, path: &str) -> String {
    if path == "source" {
        let component = object["source"]["component"].as_str().filter(|text| !text.is_empty());
        return component.or(object["reportingComponent"].as_str()).unwrap_or_default().to_owned();
    }
    // Stored events are spelled as in the core group.
    let path = path.strip_prefix("regarding.").map_or(path.to_owned(), |rest| format!("involvedObject.{rest}"));
    let path = if path == "reportingController" { "reportingComponent".to_owned() } else { path };
    let path = if path == "status.successful" { "status.succeeded".to_owned() } else { path };
    let mut at = object;
    for part in path.trim_start_matches('.').split('.') {
        at = &at[part];
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => match path.as_str() {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.succeeded" => "0".to_owned(),
            _ => String::new(),
        },
        other => other.to_string(),
    }
}
