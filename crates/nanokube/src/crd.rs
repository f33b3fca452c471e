//! Custom resource definitions: what they serve, their conditions and their own validity. Pure.

use std::sync::{Arc, OnceLock};

use apimachinery::FieldError;
use apimachinery::schema::Schema;
use serde_json::{Value, json};

use crate::kinds::{Keeping, Sub};
use crate::registry::{Custom, CustomColumn, CustomScale, Resource, Rules, Table, join_version, resource_key};
use crate::rules;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn versions(spec: &Value) -> &[Value] {
    spec["versions"].as_array().map_or(&[], Vec::as_slice)
}

/// What a definition leaves out and the server fills in.
pub(crate) fn default(definition: &mut Value) {
    let spec = &mut definition["spec"];
    let kind = text(&spec["names"], "kind").to_owned();
    let names = &mut spec["names"];
    if text(names, "singular").is_empty() {
        names["singular"] = json!(kind.to_lowercase());
    }
    if text(names, "listKind").is_empty() {
        names["listKind"] = json!(format!("{kind}List"));
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
}

/// The status of a definition that was just created.
pub(crate) fn initial_status(definition: &mut Value) {
    let storage = storage_version(&definition["spec"]);
    definition["status"] = json!({
        "conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": [storage],
    });
}

fn storage_version(spec: &Value) -> String {
    versions(spec)
        .iter()
        .find(|version| version["storage"] == true)
        .map(|version| text(version, "name").to_owned())
        .unwrap_or_default()
}

/// A change of the storage version is remembered: objects of the old one may still be there.
pub(crate) fn remember_storage_version(definition: &mut Value) {
    let storage = storage_version(&definition["spec"]);
    let mut stored = texts(&definition["status"]["storedVersions"]);
    if !storage.is_empty() && !stored.contains(&storage) {
        stored.push(storage);
        definition["status"]["storedVersions"] = json!(stored);
    }
}

/// What cannot change: objects are stored under some of it, and clients hold them by the rest.
fn changes(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut fields = vec!["group", "names/plural"];
    if condition_is_true(&old["status"], "Established") {
        fields.splice(0..0, ["scope", "names/kind"]);
    }
    let at =
        |definition: &Value, field: &str| definition.pointer(&format!("/spec/{field}")).cloned().unwrap_or_default();
    let changed = fields.into_iter().filter(|field| at(new, field) != at(old, field));
    changed
        .map(|field| {
            FieldError::invalid(format!("spec.{}", field.replace('/', ".")), &at(new, field), "field is immutable")
        })
        .collect()
}

/// The versions in which objects may be stored, against those there are.
fn stored_versions(definition: &Value) -> Vec<FieldError> {
    let path = "status.storedVersions";
    let stored = texts(&definition["status"]["storedVersions"]);
    if stored.is_empty() {
        return vec![FieldError::invalid(path, &json!([]), "must have at least one stored version")];
    }
    let storage = storage_version(&definition["spec"]);
    let mut errors = Vec::new();
    if !storage.is_empty() && !stored.contains(&storage) {
        errors.push(FieldError::invalid(path, &json!(storage), &format!("must have the storage version {storage}")));
    }
    let known: Vec<&str> = versions(&definition["spec"]).iter().map(|version| text(version, "name")).collect();
    for (index, name) in stored.iter().enumerate().filter(|(_, name)| !known.contains(&name.as_str())) {
        errors.push(FieldError::invalid(format!("{path}[{index}]"), &json!(name), "must appear in spec.versions"));
    }
    errors
}

/// Says where a group of the Kubernetes project was reviewed.
const APPROVAL: &str = "api-approved.kubernetes.io";

/// What that annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approval {
    Missing,
    Invalid,
    /// The annotation says that there is none.
    Bypassed,
    Approved,
}

fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|home| group == *home || group.ends_with(&format!(".{home}")))
}

fn approval(definition: &Value) -> (Approval, &str) {
    let said = definition["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default();
    let place = said.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
    let state = match said {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") => Approval::Bypassed,
        _ if place => Approval::Approved,
        _ => Approval::Invalid,
    };
    (state, said)
}

/// Groups of the Kubernetes project need an approval; one that lacked it before may go on so.
fn check_approval(new: &Value, old: Option<&Value>) -> Option<FieldError> {
    if !is_protected(text(&new["spec"], "group")) {
        return None;
    }
    let (state, said) = approval(new);
    if old.is_some_and(|old| approval(old).0 == state) {
        return None;
    }
    let field = format!("metadata.annotations[{APPROVAL}]");
    match state {
        Approval::Missing => Some(FieldError::required(field, "protected groups must say where they were approved")),
        Approval::Invalid => {
            let why = "must be the URL of the approval, or begin with \"unapproved\"";
            Some(FieldError::invalid(field, &json!(said), why))
        }
        Approval::Bypassed | Approval::Approved => None,
    }
}

/// What is wrong with a definition, beside what the schema of definitions says; `old` is the state it replaces.
pub(crate) fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut errors = Vec::new();
    if spec["preserveUnknownFields"] == true {
        let why = "must be false: use x-kubernetes-preserve-unknown-fields in the schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &json!(true), why));
    }
    errors.extend(check_approval(definition, old));
    errors.extend(stored_versions(definition));
    errors.extend(old.map(|old| changes(definition, old)).unwrap_or_default());
    let name = text(&definition["metadata"], "name");
    let (plural, group) = (text(&spec["names"], "plural"), text(spec, "group"));
    if name != format!("{plural}.{group}") {
        let value = json!(name);
        errors.push(FieldError::invalid("metadata.name", &value, "must be spec.names.plural+\".\"+spec.group"));
    }
    if !matches!(text(spec, "scope"), "Namespaced" | "Cluster") {
        let allowed = [json!("Cluster"), json!("Namespaced")];
        errors.push(FieldError::not_supported("spec.scope", &spec["scope"], &allowed));
    }
    for (field, value) in
        [("spec.group", group), ("spec.names.plural", plural), ("spec.names.kind", text(&spec["names"], "kind"))]
    {
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
    }
    let storage = versions(spec).iter().filter(|version| version["storage"] == true).count();
    if storage != 1 {
        let value = json!(versions(spec).iter().map(|version| text(version, "name")).collect::<Vec<_>>());
        errors.push(FieldError::invalid(
            "spec.versions",
            &value,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions(spec).iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), "schemas are required"));
            continue;
        }
        let found = match Schema::from_crd(schema) {
            Ok(schema) => rules::check_declared(&schema),
            Err(found) => found,
        };
        if !found.is_empty() {
            errors.extend(found.into_iter().map(|mut error| {
                error.field = if error.field.is_empty() {
                    format!("{path}.schema.openAPIV3Schema")
                } else {
                    format!("{path}.schema.openAPIV3Schema.{}", error.field)
                };
                error
            }));
        }
    }
    errors
}

/// The status a definition should have, and what it serves.
pub(crate) fn settle(definition: &Value, table: &Table, now: &str) -> (Value, Vec<Resource>) {
    let spec = &definition["spec"];
    let conflict = name_conflict(definition, table);
    let accepted = conflict.is_none();
    let mut status = definition["status"].clone();
    let names = match (&conflict, status["acceptedNames"]["kind"].as_str()) {
        // Names once accepted are kept while the wanted ones are taken.
        (Some(_), _) => status["acceptedNames"].clone(),
        (None, _) => spec["names"].clone(),
    };
    status["acceptedNames"] = names;
    let (reason, message) = match &conflict {
        None => ("NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => (*reason, message.clone()),
    };
    set_condition(&mut status, "NamesAccepted", accepted, reason, &message, now);
    let established = accepted || condition_is_true(&status, "Established");
    let (reason, message) = if established {
        ("InitialNamesAccepted", "the initial names have been accepted")
    } else {
        ("NotAccepted", "not all names are accepted")
    };
    set_condition(&mut status, "Established", established, reason, message, now);
    if is_protected(text(spec, "group")) {
        let (approved, reason, message) = match approval(definition) {
            (Approval::Approved, place) => (true, "ApprovedAnnotation", format!("approved in {place}")),
            (Approval::Bypassed, said) => (false, "UnapprovedAnnotation", format!("not approved: {}", json!(said))),
            (Approval::Missing, _) => (false, "MissingAnnotation", format!("there is no annotation {APPROVAL}")),
            (Approval::Invalid, said) => (false, "InvalidAnnotation", format!("{} is no URL", json!(said))),
        };
        set_condition(&mut status, "KubernetesAPIApprovalPolicyConformant", approved, reason, &message, now);
    }
    let resources = if established { resources(definition) } else { Vec::new() };
    (status, resources)
}

/// Says that the definition's objects are about to be deleted.
pub(crate) fn mark_terminating(definition: &mut Value, now: &str) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut definition["status"], "Terminating", true, "InstanceDeletionPending", message, now);
}

/// Says that the definition's objects are gone.
pub(crate) fn mark_terminated(definition: &mut Value, now: &str) {
    let message = "removed all instances";
    set_condition(&mut definition["status"], "Terminating", false, "InstanceDeletionCompleted", message, now);
}

fn condition_is_true(status: &Value, kind: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn set_condition(status: &mut Value, kind: &str, truth: bool, reason: &str, message: &str, now: &str) {
    let truth = if truth { "True" } else { "False" };
    let mut list = status["conditions"].as_array().cloned().unwrap_or_default();
    let old = list.iter().position(|condition| condition["type"] == kind);
    let since = old
        .map(|index| &list[index])
        .filter(|condition| condition["status"] == truth)
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .unwrap_or(now);
    let new = json!({"type": kind, "status": truth, "lastTransitionTime": since, "reason": reason, "message": message});
    match old {
        Some(index) => list[index] = new,
        None => list.push(new),
    }
    status["conditions"] = Value::Array(list);
}

/// A name that another definition of the group uses already.
fn name_conflict(definition: &Value, table: &Table) -> Option<(&'static str, String)> {
    let spec = &definition["spec"];
    let own = text(&definition["metadata"], "name");
    let group = text(spec, "group");
    let names = &spec["names"];
    let others = || {
        table.iter().filter(|resource| {
            resource.group == group && resource.custom.as_ref().is_none_or(|custom| custom.definition != own)
        })
    };
    let used = |name: &str| {
        others()
            .any(|other| other.plural == name || other.singular == name || other.short_names.iter().any(|s| s == name))
    };
    let taken = |name: &str| format!("\"{name}\" is already in use");
    let plural = text(names, "plural");
    if used(plural) {
        return Some(("PluralConflict", taken(plural)));
    }
    let singular = text(names, "singular");
    if !singular.is_empty() && used(singular) {
        return Some(("SingularConflict", taken(singular)));
    }
    if let Some(short) = texts(&names["shortNames"]).iter().find(|short| used(short)) {
        return Some(("ShortNamesConflict", taken(short)));
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = text(names, field);
        if others().any(|other| other.kind == name || other.list_kind == name) {
            return Some((reason, taken(name)));
        }
    }
    None
}

/// The resources of the served versions.
fn resources(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    versions(spec)
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| resource(definition, version))
        .collect()
}

fn resource(definition: &Value, version: &Value) -> Resource {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let (group, plural) = (text(spec, "group"), text(names, "plural"));
    let schema = Schema::from_crd(&version["schema"]["openAPIV3Schema"]).ok();
    let subresources = &version["subresources"];
    let mut subs = Vec::new();
    if subresources["status"].is_object() {
        subs.push(Sub::Status);
    }
    let scale = subresources["scale"].is_object().then(|| {
        subs.push(Sub::Scale);
        let scale = &subresources["scale"];
        CustomScale {
            spec_replicas: text(scale, "specReplicasPath").to_owned(),
            status_replicas: text(scale, "statusReplicasPath").to_owned(),
            label_selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
        }
    });
    let name = text(version, "name");
    let deprecation = (version["deprecated"] == true).then(|| {
        let default = format!("{group}/{name} {} is deprecated", text(names, "kind"));
        version["deprecationWarning"].as_str().map_or(default, str::to_owned)
    });
    Resource {
        group: group.to_owned(),
        version: name.to_owned(),
        plural: plural.to_owned(),
        singular: text(names, "singular").to_owned(),
        kind: text(names, "kind").to_owned(),
        list_kind: text(names, "listKind").to_owned(),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: text(spec, "scope") == "Namespaced",
        subresources: subs,
        selectors: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned())
            .collect(),
        generation: true,
        shows_deleted: false,
        keeping: Keeping::Own,
        key: resource_key(group, plural),
        stored_as: join_version(group, &storage_version(spec)),
        rules: OnceLock::from(schema.map(|schema| Rules::Own(Arc::new(schema)))),
        custom: Some(Custom {
            definition: text(&definition["metadata"], "name").to_owned(),
            columns: columns(version),
            openapi: version["schema"]["openAPIV3Schema"].clone(),
            scale,
            deprecation,
        }),
    }
}

fn columns(version: &Value) -> Vec<CustomColumn> {
    version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| CustomColumn {
            name: text(column, "name").to_owned(),
            kind: text(column, "type").to_owned(),
            format: text(column, "format").to_owned(),
            description: text(column, "description").to_owned(),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: text(column, "jsonPath").to_owned(),
        })
        .collect()
}
