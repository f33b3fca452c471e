//! Tables: what `kubectl get` shows. Pure.

mod cells;
mod columns;
mod more;
mod pods;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use columns::Column;

use crate::registry::Resource;
use crate::request::Query;
use crate::verbs::metadata_text;

/// The table of some objects; `list` is the metadata of a list.
pub(crate) fn table(
    resource: &Resource,
    now: Timestamp,
    query: &Query,
    version: &str,
    list: Option<Value>,
    objects: &[&Value],
) -> Value {
    let columns = columns::of(resource);
    let definitions: Vec<Value> = columns.iter().map(Column::to_value).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|column| column.cell(object, now)).collect();
            let mut row = json!({"cells": cells});
            match query.get("includeObject") {
                Some("None") => {}
                Some("Object") => row["object"] = (*object).clone(),
                _ => {
                    row["object"] = crate::verbs::partial(object);
                }
            }
            if let Some(conditions) = finished(resource, object) {
                row["conditions"] = conditions;
            }
            row
        })
        .collect();
    let metadata = list.unwrap_or_else(|| json!({"resourceVersion": version}));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// Rows of things that are over are marked.
fn finished(resource: &Resource, object: &Value) -> Option<Value> {
    let phase = object["status"]["phase"].as_str()?;
    let over = resource.is("", "pods") && matches!(phase, "Succeeded" | "Failed");
    over.then(|| {
        json!([{"type": "Completed", "status": "True", "reason": phase,
            "message": format!("pod {} is over", metadata_text(object, "name"))}])
    })
}
