//! Reading the protobuf bodies that `kubectl` sends for a few small kinds. Answers are always JSON. Pure.
//!
//! Typed clients of `kubectl` (`create configmap`, `auth can-i`, `create token`, `drain`, ...) speak protobuf and do not
//! fall back. Only the kinds in [`MESSAGES`] are read; any other is refused as an unknown format.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The media type of these bodies.
pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// Every body begins with these bytes.
const MAGIC: &[u8] = b"k8s\0";

/// How one field is read.
#[derive(Clone, Copy)]
enum Read {
    Text,
    Texts,
    Number,
    Switch,
    /// `map<string, string>`
    TextMap,
    /// `map<string, bytes>`, base64 in JSON
    DataMap,
    Message(&'static str),
    Messages(&'static str),
    /// Written by servers only.
    Skip,
}

type Field = (u64, &'static str, Read);

/// Messages by name: the number, JSON name and type of their fields.
const MESSAGES: &[(&str, &[Field])] = &[
    (
        "ConfigMap",
        &[META, (2, "data", Read::TextMap), (3, "binaryData", Read::DataMap), (4, "immutable", Read::Switch)],
    ),
    (
        "Secret",
        &[
            META,
            (2, "data", Read::DataMap),
            (3, "type", Read::Text),
            (4, "stringData", Read::TextMap),
            (5, "immutable", Read::Switch),
        ],
    ),
    ("Namespace", &[META, (2, "spec", Read::Skip), (3, "status", Read::Skip)]),
    (
        "ServiceAccount",
        &[
            META,
            (3, "imagePullSecrets", Read::Messages("Reference")),
            (4, "automountServiceAccountToken", Read::Switch),
        ],
    ),
    ("Reference", &[(1, "name", Read::Text)]),
    ("TokenRequest", &[META, (2, "spec", Read::Message("TokenSpec")), (3, "status", Read::Skip)]),
    (
        "TokenSpec",
        &[
            (1, "audiences", Read::Texts),
            (3, "boundObjectRef", Read::Message("Bound")),
            (4, "expirationSeconds", Read::Number),
        ],
    ),
    (
        "Bound",
        &[(1, "kind", Read::Text), (2, "apiVersion", Read::Text), (3, "name", Read::Text), (4, "uid", Read::Text)],
    ),
    ("SelfSubjectReview", &[META, (2, "status", Read::Skip)]),
    ("SelfSubjectAccessReview", &[META, (2, "spec", Read::Message("AccessSpec")), (3, "status", Read::Skip)]),
    (
        "AccessSpec",
        &[
            (1, "resourceAttributes", Read::Message("ResourceAttributes")),
            (2, "nonResourceAttributes", Read::Message("PathAttributes")),
        ],
    ),
    (
        "ResourceAttributes",
        &[
            (1, "namespace", Read::Text),
            (2, "verb", Read::Text),
            (3, "group", Read::Text),
            (4, "version", Read::Text),
            (5, "resource", Read::Text),
            (6, "subresource", Read::Text),
            (7, "name", Read::Text),
        ],
    ),
    ("PathAttributes", &[(1, "path", Read::Text), (2, "verb", Read::Text)]),
    ("SelfSubjectRulesReview", &[META, (2, "spec", Read::Message("RulesSpec")), (3, "status", Read::Skip)]),
    ("RulesSpec", &[(1, "namespace", Read::Text)]),
    ("Role", &[META, (2, "rules", Read::Messages("Rule"))]),
    ("ClusterRole", &[META, (2, "rules", Read::Messages("Rule"))]),
    (
        "Rule",
        &[
            (1, "verbs", Read::Texts),
            (2, "apiGroups", Read::Texts),
            (3, "resources", Read::Texts),
            (4, "resourceNames", Read::Texts),
            (5, "nonResourceURLs", Read::Texts),
        ],
    ),
    ("RoleBinding", BINDING),
    ("ClusterRoleBinding", BINDING),
    (
        "Subject",
        &[(1, "kind", Read::Text), (2, "apiGroup", Read::Text), (3, "name", Read::Text), (4, "namespace", Read::Text)],
    ),
    ("RoleRef", &[(1, "apiGroup", Read::Text), (2, "kind", Read::Text), (3, "name", Read::Text)]),
    ("Eviction", &[META, (2, "deleteOptions", Read::Message("DeleteOptions"))]),
    (
        "DeleteOptions",
        &[
            (1, "gracePeriodSeconds", Read::Number),
            (2, "preconditions", Read::Message("Preconditions")),
            (3, "orphanDependents", Read::Switch),
            (4, "propagationPolicy", Read::Text),
            (5, "dryRun", Read::Texts),
        ],
    ),
    ("Preconditions", &[(1, "uid", Read::Text), (2, "resourceVersion", Read::Text)]),
    (
        "ObjectMeta",
        &[
            (1, "name", Read::Text),
            (2, "generateName", Read::Text),
            (3, "namespace", Read::Text),
            (4, "selfLink", Read::Skip),
            (5, "uid", Read::Text),
            (6, "resourceVersion", Read::Text),
            (7, "generation", Read::Skip),
            (8, "creationTimestamp", Read::Skip),
            (11, "labels", Read::TextMap),
            (12, "annotations", Read::TextMap),
            (14, "finalizers", Read::Texts),
        ],
    ),
];

const META: Field = (1, "metadata", Read::Message("ObjectMeta"));
const BINDING: &[Field] = &[META, (2, "subjects", Read::Messages("Subject")), (3, "roleRef", Read::Message("RoleRef"))];

/// Why a body was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("the body is damaged")]
    Damaged,
    #[error("kind {0} is not read in this format")]
    Kind(String),
}

/// The object in a body.
///
/// # Errors
/// [`ProtobufError`].
pub(crate) fn read(body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Damaged)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, part) in parts(body)? {
        match (number, part) {
            (1, Part::Bytes(bytes)) => {
                for (number, part) in parts(bytes)? {
                    match (number, part) {
                        (1, Part::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Part::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Part::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = message(&kind, raw)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn message(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let Some((_, fields)) = MESSAGES.iter().find(|(known, _)| *known == name) else {
        return Err(ProtobufError::Kind(name.to_owned()));
    };
    let mut map = Map::new();
    for (number, part) in parts(bytes)? {
        let Some((_, field, read)) = fields.iter().find(|(known, ..)| *known == number) else { continue };
        match (read, part) {
            (Read::Skip, _) => {}
            (Read::Number, Part::Number(number)) => {
                // Negative numbers are written in two's complement.
                map.insert((*field).to_owned(), json!(i64::from_ne_bytes(number.to_ne_bytes())));
            }
            (Read::Switch, Part::Number(number)) => {
                map.insert((*field).to_owned(), json!(number != 0));
            }
            (Read::Text, Part::Bytes(bytes)) => {
                let text = text(bytes)?;
                if !text.is_empty() {
                    map.insert((*field).to_owned(), json!(text));
                }
            }
            (Read::Texts, Part::Bytes(bytes)) => push(&mut map, field, json!(text(bytes)?)),
            (Read::Message(name), Part::Bytes(bytes)) => {
                map.insert((*field).to_owned(), message(name, bytes)?);
            }
            (Read::Messages(name), Part::Bytes(bytes)) => push(&mut map, field, message(name, bytes)?),
            (Read::TextMap | Read::DataMap, Part::Bytes(bytes)) => {
                let data = matches!(read, Read::DataMap);
                let (key, value) = entry(bytes, data)?;
                let entries = map.entry(*field).or_insert_with(|| json!({}));
                entries[key] = json!(value);
            }
            _ => return Err(ProtobufError::Damaged),
        }
    }
    Ok(Value::Object(map))
}

fn push(map: &mut Map<String, Value>, field: &str, value: Value) {
    if let Some(list) = map.entry(field).or_insert_with(|| json!([])).as_array_mut() {
        list.push(value);
    }
}

fn entry(bytes: &[u8], data: bool) -> Result<(String, String), ProtobufError> {
    let (mut key, mut value) = (String::new(), String::new());
    for (number, part) in parts(bytes)? {
        match (number, part) {
            (1, Part::Bytes(bytes)) => key = text(bytes)?,
            (2, Part::Bytes(bytes)) if data => value = STANDARD.encode(bytes),
            (2, Part::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Damaged)
}

/// Field numbers and contents of a message, in order.
fn parts(mut bytes: &[u8]) -> Result<Vec<(u64, Part<'_>)>, ProtobufError> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let part = match tag & 7 {
            0 => Part::Number(varint(&mut bytes)?),
            1 => Part::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| ProtobufError::Damaged)?;
                Part::Bytes(take(&mut bytes, length)?)
            }
            5 => Part::Bytes(take(&mut bytes, 4)?),
            _ => return Err(ProtobufError::Damaged),
        };
        all.push((tag >> 3, part));
    }
    Ok(all)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], ProtobufError> {
    let (head, tail) = bytes.split_at_checked(length).ok_or(ProtobufError::Damaged)?;
    *bytes = tail;
    Ok(head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(ProtobufError::Damaged)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn config_map() -> Vec<u8> {
        let meta = field(1, &field(1, b"c1"));
        let data = field(2, &[field(1, b"a"), field(2, b"b")].concat());
        let kind = field(1, &[field(1, b"v1"), field(2, b"ConfigMap")].concat());
        [MAGIC.to_vec(), kind, field(2, &[meta, data].concat())].concat()
    }

    #[test]
    fn reads_a_config_map() {
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c1"}, "data": {"a": "b"}});
        assert_eq!(read(&config_map()), Ok(expected));
    }

    #[test]
    fn every_cut_body_is_refused_or_smaller_but_never_panics() {
        let whole = config_map();
        let refused = (0..whole.len()).filter(|cut| read(&whole[..*cut]).is_err()).count();
        assert!(refused > whole.len() / 2, "{refused} of {} cuts were noticed", whole.len());
    }

    #[test]
    fn unknown_kinds_are_named() {
        let kind = field(1, &[field(1, b"apps/v1"), field(2, b"Deployment")].concat());
        assert_eq!(read(&[MAGIC.to_vec(), kind].concat()), Err(ProtobufError::Kind("Deployment".to_owned())));
    }
}
