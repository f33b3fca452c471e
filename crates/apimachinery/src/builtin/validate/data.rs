//! Rules of what holds data and tells news: config maps, secrets, leases, events.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use super::at::{At, Found};
use crate::field::{self, FieldError};
use crate::names;

/// The most an object of data may hold: what fits into one request to etcd.
const DATA_MAX_BYTES: usize = 1024 * 1024;

/// What keeps a text from being a key of data.
pub(super) fn key_problem(name: &str) -> Option<&'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() > names::SUBDOMAIN_MAX {
        Some("must be no more than 253 characters")
    } else if name.is_empty() || !name.bytes().all(word) {
        Some("a key must be letters, digits, '-', '_' and '.'")
    } else if name == "." || name.starts_with("..") {
        Some("must not be '.' or start with '..'")
    } else {
        None
    }
}

fn decoded_len(value: &Value) -> usize {
    value.as_str().map_or(0, |text| BASE64.decode(text).map_or(text.len(), |bytes| bytes.len()))
}

pub(super) fn config_map(new: &Value, old: Option<&Value>, found: &mut Found) {
    let root = At::root(new);
    let mut bytes = 0;
    for map in ["data", "binaryData"] {
        for (name, entry) in root.get(map).entries() {
            if let Some(why) = key_problem(name) {
                entry.invalid_as(&json!(name), why, found);
            }
            if map == "data" && !new["binaryData"][name].is_null() {
                entry.invalid_as(&json!(name), "duplicate of key present in binaryData", found);
            }
            bytes += if map == "data" { entry.text().len() } else { decoded_len(entry.value) };
        }
    }
    if bytes > DATA_MAX_BYTES {
        found.push(FieldError::too_long("", DATA_MAX_BYTES));
    }
    if let Some(old) = old {
        fixed(new, old, &["data", "binaryData"], found);
    }
}

/// Data that was marked immutable stays, and stays marked.
fn fixed(new: &Value, old: &Value, maps: &[&str], found: &mut Found) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        found.push(FieldError::forbidden("immutable", WHY));
    }
    for map in maps {
        if new[map] != old[map] {
            found.push(FieldError::forbidden(*map, WHY));
        }
    }
}

pub(super) fn secret(new: &Value, old: Option<&Value>, found: &mut Found) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let data = At::root(new).get("data");
    let mut bytes = 0;
    for (name, entry) in data.entries() {
        if let Some(why) = key_problem(name) {
            entry.invalid_as(&json!(name), why, found);
        }
        bytes += decoded_len(entry.value);
    }
    if bytes > DATA_MAX_BYTES {
        found.push(FieldError::too_long("data", DATA_MAX_BYTES));
    }
    let wanted: &[&str] = match new["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            if new["metadata"]["annotations"][ACCOUNT].as_str().unwrap_or_default().is_empty() {
                found.push(FieldError::required(field::key("metadata.annotations", ACCOUNT), ""));
            }
            &[]
        }
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if data.get("username").given() || data.get("password").given() => &[],
        "kubernetes.io/basic-auth" => &["username", "password"],
        "kubernetes.io/dockerconfigjson" => {
            registry_access(&data.key(".dockerconfigjson"), found);
            &[]
        }
        "kubernetes.io/dockercfg" => {
            registry_access(&data.key(".dockercfg"), found);
            &[]
        }
        _ => &[],
    };
    for name in wanted {
        let entry = data.key(name);
        // A certificate may be empty, a key for a door must not be.
        if !entry.given() || (*name == "ssh-privatekey" && entry.empty()) {
            entry.required("", found);
        }
    }
    if let Some(old) = old {
        At::root(new).get("type").immutable(&old["type"], found);
        fixed(new, old, &["data"], found);
    }
}

/// How to log in to registries: JSON, which an answer does not show.
fn registry_access(at: &At<'_>, found: &mut Found) {
    if !at.given() {
        at.required("", found);
        return;
    }
    let decoded = BASE64.decode(at.text()).unwrap_or_default();
    if serde_json::from_slice::<Value>(&decoded).is_ok_and(|value| value.is_object() || value.is_null()) {
        return;
    }
    at.invalid_as(&json!("<secret contents redacted>"), "is no JSON object", found);
}

pub(super) fn lease(new: &Value, found: &mut Found) {
    let spec = At::root(new).get("spec");
    if spec.get("leaseDurationSeconds").number().is_some_and(|n| n <= 0) {
        spec.get("leaseDurationSeconds").invalid("must be greater than 0", found);
    }
    spec.get("leaseTransitions").not_negative(found);
    let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
    if strategy.given() {
        strategy.one_of(&["OldestEmulationVersion"], found);
    } else if !preferred.empty() {
        preferred.forbidden("may only be specified when `strategy` is defined", found);
    }
}

/// Lengths of an event's words.
const WORD_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

pub(super) fn event(api_version: &str, new: &Value, old: Option<&Value>, found: &mut Found) {
    let root = At::root(new);
    let core = api_version == "v1";
    let about = root.get(if core { "involvedObject" } else { "regarding" });
    let namespace = root.get("metadata").get("namespace").text();
    let theirs = about.get("namespace");
    // The answer speaks of the field as the core group calls it.
    let said = At::new("involvedObject.namespace", theirs.value);
    let cluster_wide = theirs.empty() && matches!(namespace, "" | "default");
    // An object without a namespace is told of in `default`; any other where it lives.
    if !cluster_wide && theirs.text() != namespace && !(theirs.empty() && !core && namespace == "default") {
        said.invalid_as(&json!(theirs.text()), "does not match event.namespace", found);
    }
    let timed = root.get("eventTime").given();
    if core && !timed {
        return;
    }
    if !timed && old.is_none() {
        root.get("eventTime").required("", found);
    }
    let controller = root.get(if core { "reportingComponent" } else { "reportingController" });
    let said = At::new("reportingController", controller.value);
    if said.empty() {
        said.required("", found);
    } else {
        said.named(names::label_key, found);
    }
    for name in ["reportingInstance", "action", "reason"] {
        let word = root.get(name);
        if word.empty() {
            word.required("", found);
        } else if word.text().len() > WORD_MAX {
            word.invalid(&format!("can have at most {WORD_MAX} characters"), found);
        }
    }
    let note = root.get(if core { "message" } else { "note" });
    if note.text().len() > NOTE_MAX {
        At::new("message", note.value).invalid(&format!("can have at most {NOTE_MAX} characters"), found);
    }
    let kind = root.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_as(&json!(kind.text()), "must be Normal or Warning", found);
    }
}
