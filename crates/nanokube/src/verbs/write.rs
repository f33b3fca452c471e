//! Create, update and patch: every write but deletion goes through [`finish_create`] or [`finish_update`].

use std::sync::{Arc, LazyLock};

use apimachinery::managed::{self, ApplyError, Manager};
use apimachinery::patch::StrategicError;
use apimachinery::{FieldError, Schema, patch};
use serde_json::{Value, json};

use super::render::{stored_form, versioned};
use super::{Target, body, meta, metadata_text, render, tidying};
use crate::admission::{Asked, Operation};
use crate::core::Core;
use crate::jsonpaths;
use crate::kinds::Sub;
use crate::registry::{Resource, resource_key};
use crate::reply::{Reply, negotiate};
use crate::request::{FieldValidation, WriteOptions, check_not_forced};
use crate::status::{About, ApiError, StatusCause};
use crate::store::{Name, StoreError, Stored};
use crate::{admission, authz, rules, schemas, strategy};

/// A patch without a stated version is computed again when somebody else was quicker; a real server gives up after five.
const PATCH_ATTEMPTS: usize = 5;
/// A generated name that is taken is drawn again this often.
const NAME_ATTEMPTS: usize = 8;

/// The subtree of a write that is recorded: the main resource or a subresource.
pub(super) fn manager(target: &Target<'_>, options: &WriteOptions, subresource: &str) -> Manager {
    let name =
        if options.field_manager.is_empty() { target.context.default_manager() } else { options.field_manager.clone() };
    Manager {
        name,
        api_version: target.resource.api_version(),
        subresource: subresource.to_owned(),
        time: Some(target.core.now_text()),
    }
}

pub(super) async fn create(target: &Target<'_>) -> Result<Reply, ApiError> {
    let options = WriteOptions::parse(target.query(), "CreateOptions")?;
    let mut object = body::object(target)?;
    let warnings = body::prune(target, &mut object, options.field_validation)?;
    if !metadata_text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    body::check_namespace(target, &mut object)?;
    meta::clear_for_create(&mut object);
    drop_status(&target.resource, &mut object);
    schemas::default(&target.resource, &mut object);
    let manager = manager(target, &options, "");
    record(&target.resource, None, &mut object, &manager)?;
    let stored = finish_create(target, &options, object).await?;
    answer(target, &stored, 201, warnings)
}

fn drop_status(resource: &Resource, object: &mut Value) {
    if resource.has(Sub::Status)
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
}

/// Records who wrote an object that is answered and not kept.
pub(crate) fn record_owner(target: &Target<'_>, options: &WriteOptions, object: &mut Value) -> Result<(), ApiError> {
    record(&target.resource, None, object, &manager(target, options, ""))
}

fn record(resource: &Resource, old: Option<&Value>, new: &mut Value, manager: &Manager) -> Result<(), ApiError> {
    if let Some(problem) = managed::metadata_problem(new) {
        return Err(ApiError::bad_request(format!("metadata.managedFields: {problem}")));
    }
    managed::record_update(schema_of(resource), old, new, manager);
    Ok(())
}

/// About an object without a schema nothing is known: its fields merge one by one.
static FREE: LazyLock<Schema> = LazyLock::new(|| Schema { preserve_unknown: true, ..<Schema as Default>::default() });

fn schema_of(resource: &Resource) -> &Schema {
    resource.schema().unwrap_or(&FREE)
}

/// From a decoded, defaulted object with its `managedFields` to the store.
async fn finish_create(
    target: &Target<'_>,
    options: &WriteOptions,
    mut object: Value,
) -> Result<Arc<Stored>, ApiError> {
    let (core, resource) = (target.core, &target.resource);
    let generate = metadata_text(&object, "generateName").to_owned();
    let generated = metadata_text(&object, "name").is_empty() && !generate.is_empty();
    let name = metadata_text(&object, "name").to_owned();
    namespace_open(target, &name)?;
    let mut attempts = if generated { NAME_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let mut candidate = if attempts == 0 { std::mem::take(&mut object) } else { object.clone() };
        let metadata = meta::metadata_mut(&mut candidate);
        if generated {
            metadata.insert("name".to_owned(), json!(generated_name(&generate, &core.suffix())));
        }
        metadata.insert("uid".to_owned(), json!(core.uid()));
        metadata.insert("creationTimestamp".to_owned(), json!(core.now_text()));
        if resource.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        let asked_name = metadata_text(&candidate, "name").to_owned();
        let asked = Asked { target, operation: Operation::Create, name: &asked_name, dry_run: options.dry_run };
        admission::mutate(&asked, &mut candidate, &Value::Null).await?;
        strategy::prepare(target, &candidate).await;
        strategy::create(target, &mut candidate)?;
        let about_name = metadata_text(&candidate, "name").to_owned();
        let errors = problems(target, None, &candidate, None);
        if !errors.is_empty() {
            return Err(ApiError::invalid(target.about_kind(&about_name), &errors));
        }
        strategy::check_create(target, &candidate)?;
        authz::check_escalation(target, &candidate, None)?;
        admission::validate(&asked, &candidate, &Value::Null).await?;
        let place = Name::new(metadata_text(&candidate, "namespace"), &about_name);
        let value = stored_form(resource, candidate);
        if options.dry_run {
            if core.store.get(&resource.key, &place).is_some() {
                return Err(ApiError::already_exists(target.about(&about_name)));
            }
            return Ok(Arc::new(Stored::unstored(value)));
        }
        match core.store.create(&resource.key, &place, value) {
            Ok(stored) => {
                tidying::after_write(core, resource, &stored);
                return Ok(stored);
            }
            Err(StoreError::Exists) if attempts > 0 => {}
            Err(_) => return Err(ApiError::already_exists(target.about(&about_name))),
        }
    }
}

/// What is wrong with an object: its shape, then what its definition's rules say.
fn problems(target: &Target<'_>, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let resource = &target.resource;
    let mut errors = schemas::validate(resource, sub, new, old);
    let scale = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    for path in scale.iter().flat_map(|scale| [&scale.spec_replicas, &scale.status_replicas]) {
        if let Some(count) = jsonpaths::simple(new, path).filter(|count| count.as_i64().is_some_and(|count| count < 0))
        {
            errors.push(FieldError::invalid(path, count, "should be a non-negative integer"));
        }
    }
    if resource.custom.is_some()
        && let Some(schema) = resource.schema()
    {
        errors.extend(rules::check(&target.core.expressions, schema, new, old, &errors));
    }
    errors
}

/// The base of a generated name is cut so that the whole stays a valid label.
fn generated_name(base: &str, suffix: &str) -> String {
    // RFC 1123: a label of a domain name has at most 63 characters.
    const LONGEST: usize = 63;
    let base: String = base.chars().take(LONGEST - suffix.len()).collect();
    format!("{base}{suffix}")
}

/// New objects need a namespace that exists and is not being deleted.
fn namespace_open(target: &Target<'_>, name: &str) -> Result<(), ApiError> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let namespace = &target.path.namespace;
    let Some(found) = target.core.store.get_kept(&resource_key("", "namespaces"), &Name::new("", namespace)) else {
        return Err(ApiError::not_found(About { group: "", what: "namespaces", name: namespace }));
    };
    if meta::is_terminating(&found.value) {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let message = format!("namespace {namespace} is being terminated");
        return Err(ApiError::forbidden(target.about(name), &why).with_cause(
            "NamespaceTerminating",
            &message,
            "metadata.namespace",
        ));
    }
    Ok(())
}

pub(super) async fn update(target: &Target<'_>, sub: Option<Sub>) -> Result<Reply, ApiError> {
    let options = WriteOptions::parse(target.query(), "UpdateOptions")?;
    let mut new = body::object(target)?;
    let warnings = body::prune(target, &mut new, options.field_validation)?;
    body::check_namespace(target, &mut new)?;
    check_name(target, &new)?;
    let stated = metadata_text(&new, "resourceVersion").to_owned();
    if stated.is_empty() && target.resource.custom.is_some() {
        target.live()?;
        let error =
            apimachinery::FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(ApiError::invalid(target.about_kind(&target.path.name), &[error]));
    }
    for _ in 0..PATCH_ATTEMPTS {
        let live = match target.live() {
            Err(_) if sub.is_none() && creates_on_update(&target.resource) => {
                return create_by_update(target, &options, new, warnings).await;
            }
            found => found?,
        };
        let change =
            Change { new: new.clone(), sub, manager: Some(manager(target, &options, sub_name(sub))), stated: &stated };
        match finish_update(target, &options, &live, change).await {
            Err(error)
                if error.code == 409 && error.reason == "Conflict" && stated.is_empty() && is_race(target, &live) => {}
            Err(error) => return Err(error),
            Ok(stored) => return answer(target, &stored, 200, warnings),
        }
    }
    Err(ApiError::stale(target.about(&target.path.name)))
}

/// Kinds of which an update of a missing object is its creation, as on any server.
fn creates_on_update(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => ["endpoints", "events", "limitranges", "services"].contains(&resource.plural.as_str()),
        "coordination.k8s.io" => resource.plural == "leases",
        "discovery.k8s.io" => resource.plural == "endpointslices",
        authz::GROUP => true,
        _ => false,
    }
}

async fn create_by_update(
    target: &Target<'_>,
    options: &WriteOptions,
    mut object: Value,
    warnings: Vec<String>,
) -> Result<Reply, ApiError> {
    if !metadata_text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::not_found(target.about(&target.path.name)));
    }
    target.core.authz.check_verb(target.core, &target.context.user, target.path, "create")?;
    meta::clear_for_create(&mut object);
    drop_status(&target.resource, &mut object);
    schemas::default(&target.resource, &mut object);
    record(&target.resource, None, &mut object, &manager(target, options, ""))?;
    let stored = finish_create(target, options, object).await?;
    answer(target, &stored, 201, warnings)
}

fn is_race(target: &Target<'_>, live: &Stored) -> bool {
    target.core.store.get(&target.resource.key, &target.name()).is_none_or(|now| now.revision != live.revision)
}

fn answer(target: &Target<'_>, stored: &Stored, code: u16, mut warnings: Vec<String>) -> Result<Reply, ApiError> {
    warnings.extend(strategy::warnings(target, &stored.value));
    let shape = negotiate(&target.context.accept)?;
    let reply = render::render_object(target.core, &target.resource, shape, target.query(), stored, code);
    Ok(reply.with_warnings(warnings))
}

fn check_name(target: &Target<'_>, object: &Value) -> Result<(), ApiError> {
    let found = metadata_text(object, "name");
    let wanted = &target.path.name;
    if found == wanted {
        return Ok(());
    }
    Err(ApiError::bad_request(if found.is_empty() {
        "metadata.name: Required value: name must be provided".to_owned()
    } else {
        format!("the name of the object ({found}) does not match the name on the URL ({wanted})")
    }))
}

/// How the subresource appears in `managedFields`.
pub(super) fn sub_name(sub: Option<Sub>) -> &'static str {
    sub.map_or("", Sub::path)
}

/// A changed object on its way into the store.
pub(super) struct Change<'a> {
    /// In the version of the request.
    pub new: Value,
    pub sub: Option<Sub>,
    /// Who is recorded as owner; `None` when `managedFields` are complete (server-side apply) or nobody is.
    pub manager: Option<Manager>,
    /// The version the client saw; empty when it does not care.
    pub stated: &'a str,
}

/// Applies the rules of updates and writes, unless nothing changed.
pub(super) async fn finish_update(
    target: &Target<'_>,
    options: &WriteOptions,
    live: &Arc<Stored>,
    change: Change<'_>,
) -> Result<Arc<Stored>, ApiError> {
    let (core, resource) = (target.core, &target.resource);
    let name = &target.path.name;
    let Change { mut new, sub, manager, stated } = change;
    let current = versioned(resource, &live.value);
    if !stated.is_empty() && stated != "0" && stated != live.revision.to_string() {
        return Err(ApiError::stale(target.about(name)));
    }
    let (wanted_uid, live_uid) = (metadata_text(&new, "uid"), metadata_text(&current, "uid"));
    if !wanted_uid.is_empty() && wanted_uid != live_uid {
        let key =
            if target.path.namespace.is_empty() { name.clone() } else { format!("{}/{name}", target.path.namespace) };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {live_uid}",
            resource.plural
        );
        return Err(ApiError::conflict(target.about(name), &why));
    }
    let ends = metadata_text(&new, "deletionTimestamp");
    if sub.is_none() && !ends.is_empty() && ends != metadata_text(&current, "deletionTimestamp") {
        let why = "field is immutable; may only be changed via deletion";
        let error = FieldError::invalid("metadata.deletionTimestamp", &json!(ends), why);
        return Err(ApiError::invalid(target.about_kind(name), &[error]));
    }
    meta::keep_server_owned(&mut new, &current);
    confine(resource, sub, &current, &mut new);
    schemas::default(resource, &mut new);
    if let Some(manager) = &manager {
        record(resource, Some(&current), &mut new, manager)?;
    }
    // A change of `scale` was judged as such.
    let asked = (sub != Some(Sub::Scale)).then_some(Asked {
        target,
        operation: Operation::Update,
        name,
        dry_run: options.dry_run,
    });
    if let Some(asked) = &asked {
        admission::mutate(asked, &mut new, &current).await?;
    }
    strategy::update(target, sub, &current, &mut new)?;
    let counts_status = resource.custom.is_some() && !resource.has(Sub::Status);
    if resource.generation && sub != Some(Sub::Status) && meta::wish_changed(&current, &new, !counts_status) {
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        meta::metadata_mut(&mut new).insert("generation".to_owned(), json!(generation));
    }
    // The rules of metadata are asked twice, for all kinds and by the kind: clients count on both causes.
    let mut errors = apimachinery::names::metadata_update(&new, &current);
    errors.extend(problems(target, sub, &new, Some(&current)));
    if !errors.is_empty() {
        return Err(ApiError::invalid(target.about_kind(name), &errors));
    }
    strategy::check_update(target, sub, &current, &new)?;
    authz::check_escalation(target, &new, Some(&current))?;
    if let Some(asked) = &asked {
        admission::validate(asked, &new, &current).await?;
    }
    // An unchanged object is written all the same if it would be stored in another version than it is.
    if meta::same_object(&current, &new) && live.value["apiVersion"] == resource.stored_as.as_str() {
        return Ok(live.clone());
    }
    let value = stored_form(resource, new);
    if options.dry_run {
        return Ok(Arc::new(Stored::unstored(value)));
    }
    let place = target.name();
    // The last finalizer is gone: the write completes the deletion.
    if completes_deletion(&value) {
        let gone = core.store.delete(&resource.key, &place, live.revision, value.clone());
        gone.map_err(|_| ApiError::stale(target.about(name)))?;
        tidying::after_delete(core, resource, &live.value);
        let mut shown = value;
        meta::metadata_mut(&mut shown).insert("resourceVersion".to_owned(), json!(live.revision.to_string()));
        return Ok(Arc::new(Stored::unstored(shown)));
    }
    match core.store.update(&resource.key, &place, live.revision, value) {
        Ok(stored) => {
            tidying::after_write(core, resource, &stored);
            Ok(stored)
        }
        Err(StoreError::NotFound) => Err(ApiError::not_found(target.about(name))),
        Err(_) => Err(ApiError::stale(target.about(name))),
    }
}

/// Whether an object whose deletion has begun has nothing left that holds it.
pub(super) fn completes_deletion(object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let namespace_holds = object["kind"] == "Namespace"
        && object["apiVersion"] == "v1"
        && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    meta::is_terminating(object) && meta::finalizers(object).is_empty() && grace == 0 && !namespace_holds
}

/// A write to the main resource leaves the status alone, a write to the status everything else.
fn confine(resource: &Resource, sub: Option<Sub>, current: &Value, new: &mut Value) {
    let keep = |new: &mut Value, field: &str| match current.get(field) {
        Some(value) => new[field] = value.clone(),
        None => {
            if let Some(map) = new.as_object_mut() {
                map.remove(field);
            }
        }
    };
    match sub {
        None if resource.has(Sub::Status) => keep(new, "status"),
        None => {}
        Some(Sub::Status) => {
            let mut result = current.clone();
            match new.get("status") {
                Some(status) => result["status"] = status.clone(),
                None => {
                    if let Some(map) = result.as_object_mut() {
                        map.remove("status");
                    }
                }
            }
            // Built-in kinds let a status write change metadata, custom ones do not; who owns what is metadata, too.
            let fields: &[&str] = if resource.custom.is_some() {
                &["managedFields"]
            } else {
                &["managedFields", "labels", "annotations", "finalizers"]
            };
            for field in fields {
                match new["metadata"].get(*field) {
                    Some(value) => result["metadata"][*field] = value.clone(),
                    None => {
                        meta::metadata_mut(&mut result).remove(*field);
                    }
                }
            }
            *new = result;
        }
        // Who approves says so in a condition; everything else is the signer's.
        Some(Sub::Approval) => {
            let conditions = new["status"]["conditions"].clone();
            let managed = new["metadata"]["managedFields"].clone();
            *new = current.clone();
            if !conditions.is_null() {
                new["status"]["conditions"] = conditions;
            }
            if !managed.is_null() {
                new["metadata"]["managedFields"] = managed;
            }
        }
        Some(Sub::Finalize) => {
            let finalizers = new["spec"]["finalizers"].clone();
            let managed = new["metadata"]["managedFields"].clone();
            *new = current.clone();
            new["spec"]["finalizers"] = finalizers;
            if !managed.is_null() {
                new["metadata"]["managedFields"] = managed;
            }
        }
        Some(Sub::EphemeralContainers) => {
            let containers = new["spec"]["ephemeralContainers"].clone();
            *new = current.clone();
            new["spec"]["ephemeralContainers"] = containers;
        }
        Some(_) => {}
    }
}

pub(super) async fn patch(target: &Target<'_>, sub: Option<Sub>) -> Result<Reply, ApiError> {
    let media = body::media_type(&target.context.content_type);
    match media.as_str() {
        "application/apply-patch+yaml" => apply(target, sub).await,
        "application/strategic-merge-patch+json" if target.resource.custom.is_some() => {
            let accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            Err(ApiError::unsupported_media(accepted))
        }
        "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            modify(target, sub, &media).await
        }
        _ => Err(ApiError::unsupported_patch()),
    }
}

async fn modify(target: &Target<'_>, sub: Option<Sub>, media: &str) -> Result<Reply, ApiError> {
    check_not_forced(target.query())?;
    let options = WriteOptions::parse(target.query(), "PatchOptions")?;
    let patch: Value = serde_json::from_slice(&target.context.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    for _ in 0..PATCH_ATTEMPTS {
        let live = target.live()?;
        let current = versioned(&target.resource, &live.value);
        let mut new = patched(&target.resource, &current, &patch, media)?;
        body::check_kind(&target.resource, &mut new)?;
        check_name(target, &new)?;
        body::check_patched(&target.resource, &new, options.field_validation)?;
        let warnings = body::prune(target, &mut new, options.field_validation)?;
        body::check_namespace(target, &mut new)?;
        check_uid(target, &new, &current)?;
        let stated = metadata_text(&new, "resourceVersion").to_owned();
        // A patch that does not mention the version carries the live one along.
        let mentioned = stated != live.revision.to_string();
        let change = Change {
            new,
            sub,
            manager: Some(manager(target, &options, sub_name(sub))),
            stated: if mentioned { &stated } else { "" },
        };
        match finish_update(target, &options, &live, change).await {
            Err(error) if error.code == 409 && !mentioned && is_race(target, &live) => {}
            Err(error) => return Err(error),
            Ok(stored) => return answer(target, &stored, 200, warnings),
        }
    }
    Err(ApiError::stale(target.about(&target.path.name)))
}

/// An update that names another uid means an object that is gone, which is a conflict; a patch would change the uid.
fn check_uid(target: &Target<'_>, new: &Value, current: &Value) -> Result<(), ApiError> {
    let (wanted, own) = (metadata_text(new, "uid"), metadata_text(current, "uid"));
    if wanted.is_empty() || wanted == own {
        return Ok(());
    }
    let error = FieldError::invalid("metadata.uid", &json!(wanted), "field is immutable");
    Err(ApiError::invalid(target.about_kind(&target.path.name), &[error]))
}

/// The object with a patch applied.
pub(super) fn patched(resource: &Resource, current: &Value, patch: &Value, media: &str) -> Result<Value, ApiError> {
    match media {
        "application/json-patch+json" => {
            if !patch.as_array().is_some_and(|list| list.iter().all(Value::is_object)) {
                return Err(ApiError::bad_request("error decoding patch: a JSON patch is a list of objects"));
            }
            patch::json(current, patch).map_err(|_| ApiError::unprocessable())
        }
        "application/merge-patch+json" => Ok(patch::merge(current, patch)),
        _ => {
            let schema = schema_of(resource);
            patch::strategic(schema, current, patch).map_err(strategic_error)
        }
    }
}

/// A patch of the wrong form is the client's fault; one that does not fit the object is one a real server stumbles over.
fn strategic_error(error: StrategicError) -> ApiError {
    let text = error.to_string();
    match error {
        StrategicError::NotAnObject { .. }
        | StrategicError::DirectiveNotAList { .. }
        | StrategicError::NotRetained { .. } => ApiError::bad_request(text),
        StrategicError::UnknownDirective { .. }
        | StrategicError::MissingKey { .. }
        | StrategicError::OrderMismatch { .. } => ApiError::unexplained(text),
    }
}

async fn apply(target: &Target<'_>, sub: Option<Sub>) -> Result<Reply, ApiError> {
    let options = WriteOptions::parse(target.query(), "PatchOptions")?;
    if options.field_manager.is_empty() {
        let text = "Required value: is required for apply patch";
        return Err(ApiError::invalid_option("PatchOptions", "fieldManager", "FieldValueRequired", text));
    }
    let mut config = body::parse_yaml(&target.context.body)?;
    let warnings = body::check_applied(target, &mut config, options.field_validation)?;
    body::check_namespace(target, &mut config)?;
    confine_config(&target.resource, sub, &mut config);
    let manager = manager(target, &options, sub_name(sub));
    let schema = schema_of(&target.resource);
    for _ in 0..PATCH_ATTEMPTS {
        let live = target.core.store.get(&target.resource.key, &target.name());
        let Some(live) = live else {
            if sub.is_some() {
                return Err(ApiError::not_found(target.about(&target.path.name)));
            }
            target.core.authz.check_verb(target.core, &target.context.user, target.path, "create")?;
            let mut new = managed::apply(schema, None, &config, &manager, options.force).map_err(apply_error)?;
            if metadata_text(&new, "name").is_empty() {
                meta::metadata_mut(&mut new).insert("name".to_owned(), json!(target.path.name));
            }
            check_name(target, &new)?;
            let uid = metadata_text(&config, "uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::conflict(target.about(&target.path.name), &why));
            }
            meta::clear_for_create(&mut new);
            drop_status(&target.resource, &mut new);
            schemas::default(&target.resource, &mut new);
            let options = WriteOptions { field_validation: FieldValidation::Ignore, ..options.clone() };
            match finish_create(target, &options, new).await {
                Err(error) if error.reason == "AlreadyExists" => continue,
                Err(error) => return Err(error),
                Ok(stored) => return answer(target, &stored, 201, warnings),
            }
        };
        let current = versioned(&target.resource, &live.value);
        let new = managed::apply(schema, Some(&current), &config, &manager, options.force).map_err(apply_error)?;
        check_name(target, &new)?;
        let stated = metadata_text(&config, "resourceVersion").to_owned();
        check_uid(target, &config, &current)?;
        let change = Change { new, sub, manager: None, stated: &stated };
        match finish_update(target, &options, &live, change).await {
            Err(error) if error.code == 409 && stated.is_empty() && is_race(target, &live) => {}
            Err(error) => return Err(error),
            Ok(stored) => return answer(target, &stored, 200, warnings),
        }
    }
    Err(ApiError::stale(target.about(&target.path.name)))
}

/// The object with what a manager applies to a subresource.
pub(super) fn applied_to(
    target: &Target<'_>,
    options: &WriteOptions,
    current: &Value,
    config: &Value,
    subresource: &str,
) -> Result<Value, ApiError> {
    let manager = manager(target, options, subresource);
    let schema = schema_of(&target.resource);
    managed::apply(schema, Some(current), config, &manager, options.force).map_err(apply_error)
}

/// What an apply to this endpoint cannot own is taken out before owners are computed.
fn confine_config(resource: &Resource, sub: Option<Sub>, config: &mut Value) {
    let Some(map) = config.as_object_mut() else { return };
    match sub {
        None if resource.has(Sub::Status) => {
            map.remove("status");
        }
        Some(Sub::Status) => {
            map.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|key, _| {
                    matches!(key.as_str(), "name" | "namespace" | "uid" | "resourceVersion" | "managedFields")
                });
            }
        }
        _ => {}
    }
}

fn apply_error(error: ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts
                .iter()
                .map(|conflict| StatusCause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: conflict.message(),
                    field: conflict.field.clone(),
                })
                .collect();
            ApiError::apply_conflict(message, causes)
        }
        ApplyError::ManagedFieldsSet | ApplyError::Stored(_) => ApiError::bad_request(message),
        ApplyError::Duplicate(_) => ApiError::unexplained(message),
    }
}

/// Writes without a request: the server's own bookkeeping (the status of definitions, aggregated roles).
pub(crate) fn write_own(
    core: &Arc<Core>,
    resource: &Resource,
    live: &Stored,
    mut new: Value,
    subresource: &str,
) -> Result<Arc<Stored>, StoreError> {
    let manager = Manager {
        name: "kube-apiserver".to_owned(),
        api_version: resource.api_version(),
        subresource: subresource.to_owned(),
        time: Some(core.now_text()),
    };
    // Owners that cannot be read stay as they are; the write itself must not fail for them.
    if record(resource, Some(&live.value), &mut new, &manager).is_err() {
        tracing::debug!(kind = resource.kind, "managedFields could not be kept");
    }
    let place = Name::new(metadata_text(&new, "namespace"), metadata_text(&new, "name"));
    core.store.update(&resource.key, &place, live.revision, new)
}
