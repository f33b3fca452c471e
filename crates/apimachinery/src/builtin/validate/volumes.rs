//! Rules of the volumes of pods: one source each, with what the source needs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::at::{At, Found};
use super::{containers, data, selectors};
use crate::names;

/// The highest mode a file can have.
const MODE_MAX: i64 = 0o777;
/// A token of a service account lives at least this long: whoever renews it must get the chance.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The volumes that are sound, by name: only they can be mounted.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

pub(super) fn volumes<'a>(at: &At<'a>, found: &mut Found) -> Volumes<'a> {
    let mut sound = Volumes::new();
    for volume in at.items() {
        let mut wrong = Found::new();
        source(&volume, &mut wrong);
        let name = volume.get("name");
        name.must_be_named(names::dns_label, &mut wrong);
        if sound.contains_key(name.text()) {
            name.duplicate(&mut wrong);
        }
        if wrong.is_empty() {
            sound.insert(name.text(), volume.value);
        }
        found.extend(wrong);
    }
    sound
}

fn source(volume: &At<'_>, found: &mut Found) {
    let given = volume.value.as_object().into_iter().flat_map(Map::keys).filter(|name| *name != "name");
    let mut count = 0;
    for kind in given {
        let source = volume.get(kind);
        count += 1;
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type", found);
            continue;
        }
        one_source(kind, &source, found);
    }
    if count == 0 {
        volume.required("must specify a volume type", found);
    }
}

fn one_source(kind: &str, source: &At<'_>, found: &mut Found) {
    match kind {
        "emptyDir" => {
            let limit = source.get("sizeLimit");
            if limit.amount().is_some_and(|amount| amount.milli() < 0) {
                limit.forbidden("must not be negative", found);
            }
        }
        "hostPath" => host_path(source, found),
        "secret" => {
            source.get("secretName").must_be_given(found);
            files(source, found);
        }
        "configMap" => {
            source.get("name").must_be_given(found);
            files(source, found);
        }
        "nfs" => {
            source.get("server").must_be_given(found);
            absolute(&source.get("path"), found);
        }
        "persistentVolumeClaim" => source.get("claimName").must_be_given(found),
        "downwardAPI" => {
            mode(&source.get("defaultMode"), found);
            for item in source.get("items").items() {
                downward_file(&item, found);
            }
        }
        "projected" => projected(source, found),
        "csi" => driver(&source.get("driver"), found),
        "ephemeral" => {
            let template = source.get("volumeClaimTemplate");
            if template.given() {
                super::storage::claim_spec(&template.get("spec"), found);
            } else {
                template.required("", found);
            }
        }
        "image" => source.get("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], found),
        _ => {}
    }
}

pub(super) fn host_path(source: &At<'_>, found: &mut Found) {
    let path = source.get("path");
    path.must_be_given(found);
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'", found);
    }
    source.get("type").one_of(&HOST_PATH_TYPES, found);
}

fn absolute(path: &At<'_>, found: &mut Found) {
    if path.empty() {
        path.required("", found);
    } else if !path.text().starts_with('/') {
        path.invalid("must be an absolute path", found);
    }
}

/// A driver of storage is named like a domain.
pub(super) fn driver(at: &At<'_>, found: &mut Found) {
    /// Drivers register with nodes by a name that must fit into a label.
    const LONGEST: usize = 63;
    if at.text().len() > LONGEST {
        found.push(crate::field::FieldError::too_long(&at.path, LONGEST));
    }
    if at.empty() {
        at.required("", found);
    } else {
        found.extend(
            names::dns_subdomain(&at.text().to_lowercase())
                .iter()
                .map(|why| crate::field::FieldError::invalid(&at.path, at.value, why)),
        );
    }
}

fn mode(at: &At<'_>, found: &mut Found) {
    if at.number().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        at.invalid("must be a number between 0 and 0777 (octal), both inclusive", found);
    }
}

/// The files of a secret or a config map.
fn files(source: &At<'_>, found: &mut Found) {
    mode(&source.get("defaultMode"), found);
    keys(source, found);
}

fn keys(source: &At<'_>, found: &mut Found) {
    for item in source.get("items").items() {
        item.get("key").must_be_given(found);
        let path = item.get("path");
        if path.empty() {
            path.required("", found);
        } else {
            below(&path, found);
        }
        mode(&item.get("mode"), found);
    }
}

/// A path that does not leave the directory it is in.
pub(super) fn below(path: &At<'_>, found: &mut Found) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path", found);
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'", found);
    } else if path.text().starts_with("..") {
        path.invalid("must not start with '..'", found);
    }
}

fn downward_file(item: &At<'_>, found: &mut Found) {
    let path = item.get("path");
    if path.empty() {
        path.required("", found);
    } else {
        below(&path, found);
    }
    let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
    if field.given() {
        containers::field_ref(&field, &containers::VOLUME_FIELDS, found);
        if resource.given() {
            item.invalid_as(&json!("resource"), "fieldRef and resourceFieldRef can not be given together", found);
        }
    } else if resource.given() {
        containers::resource_field(&resource, true, found);
    } else {
        item.required("one of fieldRef and resourceFieldRef is required", found);
    }
    mode(&item.get("mode"), found);
}

fn projected(source: &At<'_>, found: &mut Found) {
    mode(&source.get("defaultMode"), found);
    for projection in source.get("sources").items() {
        let mut count = 0;
        for (name, _) in projection.value.as_object().into_iter().flatten() {
            let one = projection.get(name);
            count += 1;
            if count > 1 {
                one.forbidden("may not specify more than 1 volume type per source", found);
                continue;
            }
            match name.as_str() {
                "secret" | "configMap" => {
                    one.get("name").must_be_given(found);
                    keys(&one, found);
                }
                "downwardAPI" => {
                    for item in one.get("items").items() {
                        downward_file(&item, found);
                    }
                }
                "serviceAccountToken" => {
                    let seconds = one.get("expirationSeconds");
                    if seconds.number().is_some_and(|n| n < TOKEN_SECONDS_MIN) {
                        seconds.invalid("may not be less than 10 minutes", found);
                    } else if seconds.number().is_some_and(|n| n > TOKEN_SECONDS_MAX) {
                        seconds.invalid("may not be larger than 2^32 seconds", found);
                    }
                    one.get("path").must_be_given(found);
                }
                "clusterTrustBundle" => selectors::label_selector(&one.get("labelSelector"), found),
                _ => {}
            }
        }
        if count == 0 {
            projection.required("must specify a source", found);
        }
    }
}

/// How volumes are mounted into a container, and which devices it sees.
pub(super) fn mounts(container: &At<'_>, volumes: &Volumes<'_>, found: &mut Found) {
    let (mounts, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let mut paths: Vec<&str> = Vec::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.empty() {
            name.required("", found);
        }
        if !volumes.contains_key(name.text()) {
            name.not_found(found);
        }
        if path.empty() {
            path.required("", found);
        }
        if paths.contains(&path.text()) {
            path.invalid("must be unique", found);
        }
        paths.push(path.text());
        if devices.items().any(|device| device.get("name").text() == name.text()) {
            name.invalid("is a device already", found);
        }
        if devices.items().any(|device| device.get("devicePath").text() == path.text()) {
            path.invalid("is the path of a device already", found);
        }
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        if !sub.empty() {
            below(&sub, found);
        }
        if !expression.empty() {
            if !sub.empty() {
                expression.invalid("subPathExpr and subPath are mutually exclusive", found);
            }
            below(&expression, found);
        }
        propagation(container, &mount, found);
    }
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.empty() {
            name.required("", found);
        }
        if names.contains(&name.text()) {
            name.invalid("must be unique", found);
        }
        names.push(name.text());
        match volumes.get(name.text()) {
            None => name.not_found(found),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                name.invalid("only a claim can be a device", found);
            }
            Some(_) => {}
        }
        if path.empty() {
            path.required("", found);
        } else if paths.contains(&path.text()) {
            path.invalid("must be unique", found);
        }
        paths.push(path.text());
    }
}

fn propagation(container: &At<'_>, mount: &At<'_>, found: &mut Found) {
    let propagation = mount.get("mountPropagation");
    if !propagation.given() {
        return;
    }
    let privileged = container.get("securityContext").get("privileged").value == true;
    if propagation.text() == "Bidirectional" && !privileged {
        propagation.forbidden("Bidirectional mount propagation is available only to privileged containers", found);
    }
    propagation.one_of(&["Bidirectional", "HostToContainer", "None"], found);
    let recursive = mount.get("recursiveReadOnly");
    if matches!(recursive.text(), "Enabled" | "IfPossible") && mount.get("readOnly").value != true {
        recursive.forbidden("may only be specified when `readOnly` is true", found);
    }
    recursive.one_of(&["Disabled", "Enabled", "IfPossible"], found);
}

/// The key of a secret or a config map that somebody points at.
pub(super) fn key_of(at: &At<'_>, found: &mut Found) {
    at.get("name").must_be_given(found);
    let key = at.get("key");
    if key.empty() {
        key.required("", found);
    } else if let Some(why) = data::key_problem(key.text()) {
        key.invalid(why, found);
    }
}
