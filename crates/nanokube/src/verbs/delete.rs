//! Delete and delete-collection: finalizers, grace, propagation, preconditions.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Target, body, meta, metadata_text, read, render, tidying};
use crate::admission::{self, Asked, Operation};
use crate::core::seconds;
use crate::registry::Resource;
use crate::reply::{Reply, negotiate};
use crate::request::{ListOptions, Query, dry_run};
use crate::status::{ApiError, deleted};
use crate::store::{Name, StoreError, Stored};

/// A delete that lost a race with another writer looks again this often.
const ATTEMPTS: usize = 8;

/// Namespaces without which there is no cluster.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

/// `DeleteOptions`, from body or query.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    grace: Option<i64>,
    propagation: Option<Propagation>,
    uid: String,
    resource_version: String,
    dry_run: bool,
    /// Whoever is to be asked about it was asked already.
    admitted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl DeleteOptions {
    pub(super) fn parse(query: &Query, body: &Value) -> Result<Self, ApiError> {
        let text = |key: &str| body[key].as_str().or_else(|| query.get(key));
        if text("propagationPolicy").is_some_and(|policy| !policy.is_empty()) && body["orphanDependents"].is_boolean() {
            let shown = json!(text("propagationPolicy"));
            let why = format!("Invalid value: {shown}: orphanDependents and deletionPropagation cannot be both set");
            return Err(ApiError::invalid_option("DeleteOptions", "propagationPolicy", "FieldValueInvalid", &why));
        }
        if let Some(text) = query.get("gracePeriodSeconds").filter(|text| text.parse::<i64>().is_err()) {
            return Err(ApiError::bad_request(format!("gracePeriodSeconds: {text:?} is no whole number")));
        }
        let propagation = match text("propagationPolicy") {
            None | Some("") => match body["orphanDependents"].as_bool() {
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
                None => None,
            },
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let message = format!(
                    "Unsupported value: \"{other}\": supported values: \"Background\", \"Foreground\", \"Orphan\", \"nil\""
                );
                return Err(ApiError::invalid_option(
                    "DeleteOptions",
                    "propagationPolicy",
                    "FieldValueNotSupported",
                    &message,
                ));
            }
        };
        let grace = body["gracePeriodSeconds"]
            .as_i64()
            .or_else(|| query.get("gracePeriodSeconds").and_then(|seconds| seconds.parse().ok()));
        let mut dry: Vec<String> = query.all("dryRun").to_vec();
        dry.extend(body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        let precondition = |key: &str| body["preconditions"][key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            grace,
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run: dry_run(&dry, "DeleteOptions")?,
            admitted: false,
        })
    }

    /// Dry-run or not comes from the surrounding request; everything else is this one's.
    pub(super) fn or_dry_run(self, dry_run: bool) -> Self {
        Self { dry_run: self.dry_run || dry_run, ..self }
    }

    /// For a deletion that follows from a request that was let in.
    pub(super) fn admitted(self) -> Self {
        Self { admitted: true, ..self }
    }

    /// Whether its preconditions hold.
    pub(super) fn agrees(&self, live: &Stored) -> bool {
        (self.uid.is_empty() || self.uid == metadata_text(&live.value, "uid"))
            && (self.resource_version.is_empty() || self.resource_version == live.revision.to_string())
    }

    /// The same after the server itself has changed the object.
    pub(super) fn following(self, changed: &Stored) -> Self {
        let stated = !self.resource_version.is_empty();
        Self { resource_version: if stated { changed.revision.to_string() } else { String::new() }, ..self }
    }

    /// Chooses what becomes of dependents where the client does not: those of older kinds stay, unless a finalizer of the
    /// object says otherwise. What to warn about.
    fn complete(&mut self, resource: &Resource, live: &Stored) -> Vec<String> {
        let job = resource.is("batch", "jobs");
        if self.propagation.is_some() || !(job || resource.is("", "replicationcontrollers")) {
            return Vec::new();
        }
        let says = ["orphan", "foregroundDeletion"];
        if !meta::finalizers(&live.value).iter().any(|name| says.contains(name)) {
            self.propagation = Some(Propagation::Orphan);
        }
        let warning = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                       remove them or set propagationPolicy=Orphan to suppress this warning";
        if job { vec![warning.to_owned()] } else { Vec::new() }
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

/// What a deletion has done.
pub(super) enum Outcome {
    /// It is gone; this was its last state.
    Gone(Arc<Stored>),
    /// Its deletion has begun.
    Begun(Arc<Stored>),
}

pub(super) async fn delete(target: &Target<'_>) -> Result<Reply, ApiError> {
    let mut options = DeleteOptions::parse(target.query(), &options_body(target)?)?;
    let name = target.name();
    let resource = &target.resource;
    let warnings = options.complete(resource, &*target.live()?);
    let outcome = remove(target, &name, &options).await?;
    let shape = negotiate(&target.context.accept)?;
    let reply = match outcome {
        Outcome::Gone(last) if !resource.shows_deleted => {
            Reply::json(200, &deleted(target.about(&name.name), metadata_text(&last.value, "uid")))
        }
        Outcome::Gone(stored) | Outcome::Begun(stored) => {
            render::render_object(target.core, resource, shape, target.query(), &stored, 200)
        }
    };
    Ok(reply.with_warnings(warnings))
}

fn options_body(target: &Target<'_>) -> Result<Value, ApiError> {
    if target.context.body.is_empty() {
        return Ok(json!({}));
    }
    let options = body::parse(target, "DeleteOptions")?;
    match options["kind"].as_str().unwrap_or_default() {
        "" | "DeleteOptions" => Ok(options),
        kind => Err(ApiError::bad_request(format!("a body of kind {kind} cannot be read as DeleteOptions"))),
    }
}

pub(super) async fn delete_collection(target: &Target<'_>) -> Result<Reply, ApiError> {
    let options = DeleteOptions::parse(target.query(), &options_body(target)?)?;
    let list_options = ListOptions::parse(target.query(), false)?;
    let filter = read::filter(target, &list_options)?;
    let namespace = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    let snapshot = target.core.store.list(&target.resource.key, namespace);
    let matching = snapshot.objects.into_iter().filter(|(name, stored)| filter.sees(name, stored));
    let (names, objects): (Vec<_>, Vec<_>) = matching.unzip();
    let mut warnings = Vec::new();
    for (name, stored) in names.iter().zip(&objects) {
        let mut options = options.clone();
        warnings = options.complete(&target.resource, stored);
        match remove(target, name, &options).await {
            Err(error) if error.reason == "NotFound" => {}
            other => drop(other?),
        }
    }
    let list = render::List { version: snapshot.revision.to_string(), objects, token: String::new(), remaining: None };
    let shape = negotiate(&target.context.accept)?;
    let reply = render::render_list(target.core, &target.resource, shape, target.query(), &list);
    Ok(reply.with_warnings(warnings))
}

/// Deletes one object, or begins to.
pub(super) async fn remove(target: &Target<'_>, name: &Name, options: &DeleteOptions) -> Result<Outcome, ApiError> {
    for _ in 0..ATTEMPTS {
        let found = target.core.store.get(&target.resource.key, name);
        let live = found.ok_or_else(|| ApiError::not_found(target.about(&name.name)))?;
        check_preconditions(target, &live, options)?;
        if target.resource.is("", "namespaces") && IMMORTAL.contains(&name.name.as_str()) {
            return Err(ApiError::forbidden(target.about(&name.name), "this namespace may not be deleted"));
        }
        if !options.admitted {
            let asked = Asked { target, operation: Operation::Delete, name: &name.name, dry_run: options.dry_run };
            admission::ask(&asked, &mut Value::Null, &render::versioned(&target.resource, &live.value)).await?;
        }
        match step(target, name, &live, options) {
            Err(StoreError::Conflict { .. }) => {}
            Err(StoreError::NotFound) => return Err(ApiError::not_found(target.about(&name.name))),
            Err(error) => return Err(ApiError::internal(&error.to_string())),
            Ok(outcome) => return Ok(outcome),
        }
    }
    Err(ApiError::stale(target.about(&name.name)))
}

fn check_preconditions(target: &Target<'_>, live: &Stored, options: &DeleteOptions) -> Result<(), ApiError> {
    let name = metadata_text(&live.value, "name");
    let uid = metadata_text(&live.value, "uid");
    if !options.uid.is_empty() && options.uid != uid {
        let why = format!(
            "the UID in the precondition ({}) does not match the UID in record ({uid}). The object might have been deleted \
             and then recreated",
            options.uid
        );
        return Err(ApiError::conflict(target.about_kind(name), &why));
    }
    if !options.resource_version.is_empty() && options.resource_version != live.revision.to_string() {
        let why = format!(
            "the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({}). The object \
             might have been modified",
            options.resource_version, live.revision
        );
        return Err(ApiError::conflict(target.about_kind(name), &why));
    }
    Ok(())
}

fn step(target: &Target<'_>, name: &Name, live: &Arc<Stored>, options: &DeleteOptions) -> Result<Outcome, StoreError> {
    let (core, resource) = (target.core, &target.resource);
    let mut value = live.value.clone();
    let began = meta::is_terminating(&value);
    let now = core.clock.now();
    set_propagation(&mut value, options.propagation);
    let grace = grace(resource, &value, options);
    let previous_grace = value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let tracked = core.registry.table();
    let holds = holding_finalizer(resource, &value, &tracked);
    let graceful = resource.is("", "pods");
    let at_once = !graceful && holds.is_none() && !began && held_by_nothing(&value);
    if at_once {
        // Nothing waits for this deletion, so nobody is told that it has begun.
    } else if !began {
        let metadata = meta::metadata_mut(&mut value);
        let ends = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata.insert("deletionTimestamp".to_owned(), json!(seconds(ends)));
        if !resource.is("", "namespaces") && holds.is_none() {
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        }
        if resource.generation
            && holds.is_none()
            && let Some(generation) = live.value["metadata"]["generation"].as_i64()
        {
            metadata.insert("generation".to_owned(), json!(generation + 1));
        }
        if resource.is("", "namespaces") {
            value["status"]["phase"] = json!("Terminating");
        }
        if let Some(finalizer) = holds {
            let mut finalizers: Vec<String> = meta::finalizers(&value).into_iter().map(str::to_owned).collect();
            finalizers.push(finalizer.to_owned());
            meta::metadata_mut(&mut value).insert("finalizers".to_owned(), json!(finalizers));
            crate::crd::mark_terminating(&mut value, &core.now_text());
        }
    } else if grace < previous_grace {
        // A second, shorter deletion brings the end forward.
        let metadata = meta::metadata_mut(&mut value);
        let ends = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata.insert("deletionTimestamp".to_owned(), json!(seconds(ends)));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    }
    let complete = at_once || super::write::completes_deletion(&value);
    if options.dry_run {
        let shown = Arc::new(Stored::unstored(value));
        return Ok(if complete { Outcome::Gone(shown) } else { Outcome::Begun(shown) });
    }
    if complete {
        let last = core.store.delete(&resource.key, name, live.revision, value)?;
        tidying::after_delete(core, resource, &last.value);
        return Ok(Outcome::Gone(last));
    }
    if value == *live.value {
        return Ok(Outcome::Begun(live.clone()));
    }
    let stored = core.store.update(&resource.key, name, live.revision, value)?;
    tidying::after_write(core, resource, &stored);
    Ok(Outcome::Begun(stored))
}

/// Whether an object may go right away: no finalizers, neither in metadata nor (namespaces) in the specification.
fn held_by_nothing(value: &Value) -> bool {
    let listed = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let namespace = value["kind"] == "Namespace" && value["apiVersion"] == "v1";
    let held = listed(&value["metadata"]["finalizers"]) || (namespace && listed(&value["spec"]["finalizers"]));
    !held
}

/// Definitions stay until their objects are gone.
fn holding_finalizer(resource: &Resource, value: &Value, table: &crate::registry::Table) -> Option<&'static str> {
    if !resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        return None;
    }
    let name = metadata_text(value, "name");
    let served = table.iter().any(|other| other.custom.as_ref().is_some_and(|custom| custom.definition == name));
    (served && !meta::finalizers(value).contains(&tidying::DEFINITION_FINALIZER))
        .then_some(tidying::DEFINITION_FINALIZER)
}

fn set_propagation(value: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let own = ["orphan", "foregroundDeletion"];
    let mut finalizers: Vec<String> =
        meta::finalizers(value).into_iter().filter(|name| !own.contains(name)).map(str::to_owned).collect();
    match propagation {
        Propagation::Orphan => finalizers.push("orphan".to_owned()),
        Propagation::Foreground => finalizers.push("foregroundDeletion".to_owned()),
        Propagation::Background => {}
    }
    let metadata = meta::metadata_mut(value);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
}

/// Only pods end gracefully, and only those that a node may be running.
fn grace(resource: &Resource, value: &Value, options: &DeleteOptions) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let phase = value["status"]["phase"].as_str().unwrap_or_default();
    let on_node = value["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if !on_node || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let grace = options.grace.or(value["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    grace.max(0)
}
