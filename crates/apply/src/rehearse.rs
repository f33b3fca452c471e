//! Asking the server whether it would take an object, without writing it. No fence is asked: nothing is stored, and a
//! standby may ask too.

use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, core};
use kubevirt_release::Object;

/// Why nobody knows whether an object would be taken.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    #[error("{0} is no object: {1}")]
    Malformed(String, serde_json::Error),
    #[error("the API server gave no answer: {0}")]
    NoAnswer(#[from] kube::Error),
}

/// What makes a creation a rehearsal.
pub(crate) fn rehearsed() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// Rehearses the creation of an object. The server's objection, if it has one to the object itself.
///
/// # Errors
/// The server could not be asked, or refused for a reason that is not in the object.
pub async fn rehearse(client: &Client, object: &Object) -> Result<Option<String>, RehearsalError> {
    let kind = object.kind();
    let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let value = serde_json::from_value(object.value().clone())
        .map_err(|error| RehearsalError::Malformed(object.key().to_string(), error))?;
    match api.create(&rehearsed(), &value).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => match *status {
            core::Status { code: 400 | 422, message, .. } => Ok(Some(message)),
            // Somebody else's object has the name: the check of the content comes before the name is taken.
            core::Status { code: 409, .. } => Ok(None),
            status => Err(RehearsalError::NoAnswer(kube::Error::Api(Box::new(status)))),
        },
        Err(error) => Err(error.into()),
    }
}
