//! What single kinds add to a write beyond schema and defaults: generated fields, admission that needs other objects,
//! and rules that compare with other objects.

mod limits;
mod pods;
mod security;
mod services;
mod simple;
mod storage;

use serde_json::Value;

pub(crate) use security::warnings;
pub(crate) use storage::is_default_class;

use crate::kinds::Sub;
use crate::status::ApiError;
use crate::verbs::Target;

/// Waits for what a new object needs and what is on its way.
pub(crate) async fn prepare(target: &Target<'_>, object: &Value) {
    if target.resource.is("", "pods") {
        pods::await_account(target, object).await;
    }
}

/// Completes a new object.
pub(crate) fn create(target: &Target<'_>, object: &mut Value) -> Result<(), ApiError> {
    match (target.resource.group.as_str(), target.resource.plural.as_str()) {
        ("", "pods") => {
            limits::pod(target, object)?;
            pods::create(target, object)?;
        }
        ("", "services") => services::create(target, object)?,
        ("", "namespaces") => simple::namespace(object),
        ("", "secrets") => simple::secret(object),
        ("", "persistentvolumeclaims") => {
            limits::claim(target, object)?;
            storage::claim(target, object);
        }
        ("", "persistentvolumes") => storage::volume(target, object),
        ("scheduling.k8s.io", "priorityclasses") => pods::one_default_class(target, object)?,
        ("apps", "daemonsets") => simple::daemonset(object),
        ("batch", "jobs") => simple::job(object),
        ("policy", "poddisruptionbudgets") => simple::budget(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            crate::crd::default(object);
            crate::crd::initial_status(object);
        }
        _ => {}
    }
    Ok(())
}

/// Completes a changed object.
pub(crate) fn update(target: &Target<'_>, sub: Option<Sub>, old: &Value, new: &mut Value) -> Result<(), ApiError> {
    match (target.resource.group.as_str(), target.resource.plural.as_str()) {
        ("", "services") if sub.is_none() => services::update(target, old, new)?,
        ("", "secrets") => simple::secret(new),
        ("", "pods") if sub.is_none() => pods::update(old, new),
        ("scheduling.k8s.io", "priorityclasses") => pods::one_default_class(target, new)?,
        ("apps", "daemonsets") if sub.is_none() => simple::daemonset_template(old, new),
        ("batch", "jobs") if sub.is_none() => simple::job_update(old, new),
        ("apiextensions.k8s.io", "customresourcedefinitions") if sub.is_none() => {
            crate::crd::default(new);
            crate::crd::remember_storage_version(new);
        }
        _ => {}
    }
    Ok(())
}

/// Rules for a new object that the schema cannot say.
pub(crate) fn check_create(target: &Target<'_>, object: &Value) -> Result<(), ApiError> {
    match (target.resource.group.as_str(), target.resource.plural.as_str()) {
        ("", "pods") => security::pod(target, object),
        _ => check_definition(target, object, None),
    }
}

/// Rules for a changed object that the schema cannot say.
pub(crate) fn check_update(target: &Target<'_>, sub: Option<Sub>, old: &Value, new: &Value) -> Result<(), ApiError> {
    if sub.is_none() {
        check_definition(target, new, Some(old))?;
        simple::check_role_ref(target, old, new)?;
    }
    Ok(())
}

fn check_definition(target: &Target<'_>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let resource = &target.resource;
    let errors = match (resource.group.as_str(), resource.plural.as_str()) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => crate::crd::validate(object, old),
        ("admissionregistration.k8s.io", plural) => crate::admission::problems(plural, object),
        ("", "namespaces") => security::namespace(object),
        _ => return Ok(()),
    };
    if errors.is_empty() {
        return Ok(());
    }
    let name = crate::verbs::metadata_text(object, "name");
    Err(ApiError::invalid(target.about_kind(name), &errors))
}
