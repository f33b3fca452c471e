//! `componentstatuses`: the parts of the control plane. They are one program here, which is well if it answers.

use serde_json::{Value, json};

use super::{Target, render};
use crate::reply::{Reply, negotiate};
use crate::status::ApiError;
use crate::store::Stored;

const PARTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

fn part(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    })
}

pub(super) fn read(target: &Target<'_>) -> Result<Reply, ApiError> {
    let shape = negotiate(&target.context.accept)?;
    let name = target.path.name.as_str();
    let stored = |name: &str| Stored::unstored(part(name));
    if name.is_empty() {
        let list = render::List {
            version: String::new(),
            objects: PARTS.iter().map(|name| std::sync::Arc::new(stored(name))).collect(),
            token: String::new(),
            remaining: None,
        };
        return Ok(render::render_list(target.core, &target.resource, shape, target.query(), &list));
    }
    if !PARTS.contains(&name) {
        return Err(ApiError::not_found(target.about(name)));
    }
    Ok(render::render_object(target.core, &target.resource, shape, target.query(), &stored(name), 200))
}
