//! The names of things: objects, labels, annotations, finalizers, owners. Each check returns what is wrong, in words.

use serde_json::{Value, json};

use crate::field::{self, FieldError};

/// The longest DNS label (RFC 1123).
pub const LABEL_MAX: usize = 63;
/// The longest DNS name that still leaves room for what systems put in front.
pub const SUBDOMAIN_MAX: usize = 253;
/// All annotations of an object together, keys and values: objects travel often, and etcd's requests are bounded.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// How the objects of a kind are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Most kinds.
    Subdomain,
    /// Namespaces, and names that become DNS labels.
    Label,
    /// Services: a label that starts with a letter.
    LetterLabel,
    /// Roles and bindings: anything that fits into a path.
    PathSegment,
}

fn too_long(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} bytes"))
}

fn lower_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| inner(*b))
        && bytes.last().is_some_and(|b| inner(*b))
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
}

/// What keeps a text from being an RFC 1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let wrong = (!lower_label(text)).then(|| {
        "must be an RFC 1123 label: lower case letters, digits and '-', with a letter or digit at both ends".to_owned()
    });
    too_long(text, LABEL_MAX).into_iter().chain(wrong).collect()
}

/// What keeps a text from being a DNS label that starts with a letter (RFC 1035).
pub fn letter_label(text: &str) -> Vec<String> {
    let fits = lower_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    let wrong = (!fits).then(|| {
        "must be an RFC 1035 label: lower case letters, digits and '-', a letter first, a letter or digit last"
            .to_owned()
    });
    too_long(text, LABEL_MAX).into_iter().chain(wrong).collect()
}

/// What keeps a text from being an RFC 1123 subdomain.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let wrong = (!text.split('.').all(lower_label)).then(|| {
        "must be an RFC 1123 subdomain: lower case letters, digits, '-' and '.', with a letter or digit at both ends \
         of each part"
            .to_owned()
    });
    too_long(text, SUBDOMAIN_MAX).into_iter().chain(wrong).collect()
}

/// What keeps a text from being one segment of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if matches!(text, "." | "..") {
        out.push(format!("may not be '{text}'"));
    }
    for c in ['/', '%'] {
        if text.contains(c) {
            out.push(format!("may not contain '{c}'"));
        }
    }
    out
}

fn word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What keeps a text from being the key of a label or annotation: `[prefix/]name`.
pub fn label_key(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            out.push("must have the form [prefix/]name, with at most one '/'".to_owned());
            return out;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push("prefix part must not be empty".to_owned());
            } else {
                out.extend(dns_subdomain(prefix).into_iter().map(|p| format!("prefix part {p}")));
            }
            name
        }
        None => text,
    };
    if name.is_empty() {
        out.push("name part must not be empty".to_owned());
    } else {
        out.extend(too_long(name, LABEL_MAX).map(|p| format!("name part {p}")));
        if !word(name) {
            out.push(
                "name part must be letters, digits, '-', '_' and '.', with a letter or digit at both ends".to_owned(),
            );
        }
    }
    out
}

/// What keeps a text from being the value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let wrong = (!text.is_empty() && !word(text))
        .then(|| "must be empty, or letters, digits, '-', '_' and '.', with a letter or digit at both ends".to_owned());
    too_long(text, LABEL_MAX).into_iter().chain(wrong).collect()
}

/// What keeps a text from being the name of a port of a container or service.
pub fn port_name(text: &str) -> Vec<String> {
    let wrong = |why: &str| vec![why.to_owned()];
    if text.len() > 15 {
        return wrong("must be no more than 15 characters");
    }
    if !lower_label(text) || text.contains("--") || !text.contains(|c: char| c.is_ascii_lowercase()) {
        return wrong("must be lower case letters, digits and single '-' between them, with at least one letter");
    }
    Vec::new()
}

/// What is wrong with labels, at the path they stand.
pub fn labels(path: &str, labels: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    for (key, v) in labels.as_object().into_iter().flatten() {
        for why in label_key(key) {
            out.push(FieldError::invalid(path, &json!(key), &why));
        }
        for why in label_value(v.as_str().unwrap_or_default()) {
            out.push(FieldError::invalid(path, v, &why));
        }
    }
    out
}

/// What is wrong with annotations, at the path they stand.
pub fn annotations(path: &str, annotations: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for (key, v) in annotations.as_object().into_iter().flatten() {
        // Case does not matter in the name part of an annotation.
        for why in label_key(&key.to_lowercase()) {
            out.push(FieldError::invalid(path, &json!(key), &why));
        }
        bytes += key.len() + v.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        out.push(FieldError::too_long(path, ANNOTATIONS_MAX_BYTES));
    }
    out
}

/// Finalizers without a domain that are Kubernetes' own.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

fn finalizers(meta: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    for (i, f) in meta["finalizers"].as_array().into_iter().flatten().enumerate() {
        let path = field::index("metadata.finalizers", i);
        let text = f.as_str().unwrap_or_default();
        let problems = label_key(text);
        if problems.is_empty() && !text.contains('/') && !STANDARD_FINALIZERS.contains(&text) {
            out.push(FieldError::invalid(
                &path,
                f,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
        out.extend(problems.iter().map(|why| FieldError::invalid(&path, f, why)));
    }
    out
}

fn owners(meta: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let mut controller: Option<String> = None;
    let list = &meta["ownerReferences"];
    for (i, o) in list.as_array().into_iter().flatten().enumerate() {
        let path = field::index("metadata.ownerReferences", i);
        for name in ["apiVersion", "kind", "name", "uid"] {
            if o[name].as_str().unwrap_or_default().is_empty() {
                out.push(FieldError::invalid(field::child(&path, name), &json!(""), "must not be empty"));
            }
        }
        if o["controller"] == true {
            let name = format!("{}/{}", o["kind"].as_str().unwrap_or_default(), o["name"].as_str().unwrap_or_default());
            match &controller {
                Some(first) => {
                    let why = format!("only one owner can be the controller, but {first} and {name} both are");
                    out.push(FieldError::invalid("metadata.ownerReferences", list, &why));
                }
                None => controller = Some(name),
            }
        }
    }
    out
}

/// What is wrong with the metadata of an object, new or changed. Server-written fields are the server's business.
pub fn metadata(object: &Value, rule: NameRule) -> Vec<FieldError> {
    let meta = &object["metadata"];
    let mut out = Vec::new();
    let check = |text: &str| match rule {
        NameRule::Subdomain => dns_subdomain(text),
        NameRule::Label => dns_label(text),
        NameRule::LetterLabel => letter_label(text),
        NameRule::PathSegment => path_segment(text),
    };
    let text = |name: &str| meta[name].as_str().unwrap_or_default();
    let generated = text("generateName");
    if !generated.is_empty() {
        // The server appends letters and digits: what it generates ends well when the prefix does or ends in '-'.
        for why in check(&format!("{}x", generated.trim_end_matches('-'))) {
            out.push(FieldError::invalid("metadata.generateName", &meta["generateName"], &why));
        }
    }
    if text("name").is_empty() {
        if generated.is_empty() {
            out.push(FieldError::required("metadata.name", "name or generateName is required"));
        }
    } else {
        for why in check(text("name")) {
            out.push(FieldError::invalid("metadata.name", &meta["name"], &why));
        }
    }
    if let Some(namespace) = meta.get("namespace").filter(|v| *v != "" && !v.is_null()) {
        for why in dns_label(namespace.as_str().unwrap_or_default()) {
            out.push(FieldError::invalid("metadata.namespace", namespace, &why));
        }
    }
    out.extend(labels("metadata.labels", &meta["labels"]));
    out.extend(annotations("metadata.annotations", &meta["annotations"]));
    out.extend(owners(meta));
    out.extend(finalizers(meta));
    out
}

/// What is wrong with a change of metadata: identity never changes, and a deleted object gains no finalizers.
pub fn metadata_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let (new, old) = (&new["metadata"], &old["metadata"]);
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (a, b) = (&old[name], &new[name]);
        if !a.is_null() && a != b {
            out.push(FieldError::invalid(format!("metadata.{name}"), b, "field is immutable"));
        }
    }
    if !old["deletionTimestamp"].is_null() {
        let before = old["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let list = new["finalizers"].as_array().into_iter().flatten();
        let gained: Vec<String> = list.filter(|f| !before.contains(f)).map(Value::to_string).collect();
        if !gained.is_empty() {
            let why = format!("no new finalizers can be added if the object is being deleted: {}", gained.join(", "));
            out.push(FieldError::forbidden("metadata.finalizers", &why));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        assert!(dns_subdomain("virt-api.example.com").is_empty());
        for bad in ["", "Bad_Name", "-a", "a-", "a..b", ".a", "a.", &"a".repeat(254)] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(dns_label("a-1").is_empty() && letter_label("a-1").is_empty());
        assert!(
            !dns_label("a.b").is_empty() && !letter_label("1a").is_empty() && !dns_label(&"a".repeat(64)).is_empty()
        );
        for good in ["app", "app.kubernetes.io/name", "A_b.c-1", "kubevirt.io"] {
            assert!(label_key(good).is_empty(), "{good}");
        }
        for bad in ["", "bad key!", "/x", "a/", "a/b/c", "UPPER/x", "-x", &format!("a/{}", "x".repeat(64))] {
            assert!(!label_key(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty() && label_value("v1.2_x-Y").is_empty());
        assert!(!label_value("a b").is_empty() && !label_value("x-").is_empty());
        assert!(path_segment("system:node:x").is_empty() && !path_segment("a/b").is_empty());
        assert!(
            port_name("https").is_empty() && !port_name("1").is_empty() && !port_name("way-too-long-name").is_empty()
        );
    }

    #[test]
    fn metadata_of_objects() {
        let fields = |meta: Value| -> Vec<String> {
            metadata(&json!({"metadata": meta}), NameRule::Subdomain).into_iter().map(|e| e.field).collect()
        };
        assert_eq!(fields(json!({"name": "a", "finalizers": ["example.com/x", "orphan"]})), [""; 0]);
        assert_eq!(fields(json!({"generateName": "g-"})), [""; 0]);
        assert_eq!(fields(json!({})), ["metadata.name"]);
        assert_eq!(fields(json!({"name": "A"})), ["metadata.name"]);
        assert_eq!(fields(json!({"name": "a", "labels": {"b c": "d"}})), ["metadata.labels"]);
        assert_eq!(fields(json!({"name": "a", "finalizers": ["nodomain"]})), ["metadata.finalizers[0]"]);
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "A", "name": name, "uid": name, "controller": true});
        assert_eq!(fields(json!({"name": "a", "ownerReferences": [owner("x")]})), [""; 0]);
        assert_eq!(
            fields(json!({"name": "a", "ownerReferences": [owner("x"), owner("y")]})),
            ["metadata.ownerReferences"]
        );
    }

    #[test]
    fn metadata_changes() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "x", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        assert_eq!(metadata_update(&new, &old), []);
        new["metadata"]["finalizers"] = json!(["a/b", "a/c"]);
        new["metadata"]["uid"] = json!("2");
        let found: Vec<String> = metadata_update(&new, &old).into_iter().map(|e| e.field).collect();
        assert_eq!(found, ["metadata.uid", "metadata.finalizers"]);
    }
}
