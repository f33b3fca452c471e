//! Reading the protobuf bodies that typed clients send. Answers are always JSON. Pure.
//!
//! `kubectl create deployment`, `drain`, `auth can-i` and the like speak protobuf and do not fall back when it is refused.
//! The numbers, names and types of all fields are facts of the API; they are in `fields.txt`, one message a paragraph:
//! `name number:field:type ...`, continued on lines that begin with a space. Types are `s` text, `i` whole number, `d`
//! number, `b` flag, `y` bytes (base64 in JSON), or a message; `*` before it is a list, `%` a map from text; a message
//! without a field name is part of the object around it. `@ apiVersion kind name` names the message of a kind.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The media type of these bodies.
pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// Every body begins with these bytes.
const MAGIC: &[u8] = b"k8s\0";

/// The deepest message of the API has some fifteen levels; a body with more was made to exhaust the stack.
const DEPTH: usize = 64;

const FIELDS: &str = include_str!("protobuf/fields.txt");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    List,
    Map,
}

struct Field {
    name: &'static str,
    times: Times,
    kind: &'static str,
}

#[derive(Default)]
struct Messages {
    fields: BTreeMap<&'static str, BTreeMap<u64, Field>>,
    /// By API version and kind.
    kinds: BTreeMap<(&'static str, &'static str), &'static str>,
}

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let mut all = Messages::default();
        let mut current = "";
        for line in FIELDS.lines() {
            let mut words = line.split(' ');
            match words.next() {
                Some("@") => {
                    let mut next = || words.next().unwrap_or_default();
                    let kind = (next(), next());
                    all.kinds.insert(kind, next());
                    continue;
                }
                Some("") | None => {}
                Some(name) => current = name,
            }
            for word in words {
                let mut parts = word.splitn(3, ':');
                let number = parts.next().and_then(|number| number.parse().ok());
                let (Some(number), Some(name), Some(kind)) = (number, parts.next(), parts.next()) else { continue };
                let (times, kind) = match (kind.strip_prefix('*'), kind.strip_prefix('%')) {
                    (Some(kind), _) => (Times::List, kind),
                    (_, Some(kind)) => (Times::Map, kind),
                    _ => (Times::Once, kind),
                };
                all.fields.entry(current).or_default().insert(number, Field { name, times, kind });
            }
        }
        all
    })
}

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
    let kinds = &messages().kinds;
    // Options of a deletion come in the version of what is deleted.
    let known = kinds.get(&(api_version.as_str(), kind.as_str()));
    let known = known.or_else(|| kinds.get(&("v1", kind.as_str())).filter(|_| kind == "DeleteOptions"));
    let Some(name) = known else { return Err(ProtobufError::Kind(kind)) };
    let mut map = Map::new();
    message(name, raw, &mut map, DEPTH)?;
    let mut object = Value::Object(map);
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Eight([u8; 8]),
}

fn message(name: &str, bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Result<(), ProtobufError> {
    let fields = messages().fields.get(name);
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Damaged)?;
    for (number, part) in parts(bytes)? {
        let Some(field) = fields.and_then(|fields| fields.get(&number)) else { continue };
        if field.name.is_empty() {
            let Part::Bytes(bytes) = part else { return Err(ProtobufError::Damaged) };
            message(field.kind, bytes, map, depth)?;
            continue;
        }
        match field.times {
            // What is empty is absent: messages carry the empty values of fields nobody has set.
            Times::Once => {
                if let Some(value) = value(field.kind, &part, depth)? {
                    map.insert(field.name.to_owned(), value);
                }
            }
            Times::List => {
                let value = value(field.kind, &part, depth)?.unwrap_or_else(|| json!(""));
                if let Some(list) = map.entry(field.name).or_insert_with(|| json!([])).as_array_mut() {
                    list.push(value);
                }
            }
            Times::Map => {
                let Part::Bytes(bytes) = part else { return Err(ProtobufError::Damaged) };
                let (mut key, mut entry) = (String::new(), json!(""));
                for (number, part) in parts(bytes)? {
                    match (number, &part) {
                        (1, Part::Bytes(bytes)) => key = text(bytes)?,
                        (2, part) => entry = value(field.kind, part, depth)?.unwrap_or_else(|| json!("")),
                        _ => {}
                    }
                }
                map.entry(field.name).or_insert_with(|| json!({}))[key] = entry;
            }
        }
    }
    Ok(())
}

/// A value of a type; nothing for an empty text or a time that is not set.
fn value(kind: &str, part: &Part<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(match (kind, part) {
        // Negative numbers are written in two's complement.
        ("i", Part::Number(number)) => Some(json!(number.cast_signed())),
        ("b", Part::Number(number)) => Some(json!(*number != 0)),
        ("d", Part::Eight(bytes)) => Some(json!(f64::from_le_bytes(*bytes))),
        ("s", Part::Bytes(bytes)) => Some(text(bytes)?).filter(|text| !text.is_empty()).map(Value::String),
        ("y", Part::Bytes(bytes)) => Some(json!(STANDARD.encode(bytes))),
        ("i" | "b" | "d" | "s" | "y", _) | (_, Part::Number(_) | Part::Eight(_)) => return Err(ProtobufError::Damaged),
        ("meta.v1.Time", Part::Bytes(bytes)) => time(bytes)?.map(|time| json!(crate::core::seconds(time))),
        ("meta.v1.MicroTime", Part::Bytes(bytes)) => time(bytes)?.map(|time| json!(format!("{time:.6}"))),
        ("resource.Quantity", Part::Bytes(bytes)) => Some(json!(first_text(bytes)?)),
        ("runtime.RawExtension" | "meta.v1.FieldsV1", Part::Bytes(bytes)) => {
            let raw = first_bytes(bytes)?.unwrap_or(b"null");
            Some(serde_json::from_slice(raw).map_err(|_| ProtobufError::Damaged)?)
        }
        ("intstr.IntOrString", Part::Bytes(bytes)) => Some(number_or_text(bytes)?),
        (kind, Part::Bytes(bytes)) if kind.ends_with(".ExtraValue") => {
            let mut items = Vec::new();
            for (_, part) in parts(bytes)? {
                if let Part::Bytes(bytes) = part {
                    items.push(json!(text(bytes)?));
                }
            }
            Some(json!(items))
        }
        (kind, Part::Bytes(bytes)) => {
            let mut map = Map::new();
            message(kind, bytes, &mut map, depth)?;
            Some(Value::Object(map))
        }
    })
}

fn time(bytes: &[u8]) -> Result<Option<Timestamp>, ProtobufError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for (number, part) in parts(bytes)? {
        match (number, part) {
            (1, Part::Number(number)) => seconds = number.cast_signed(),
            (2, Part::Number(number)) => nanos = i32::try_from(number).map_err(|_| ProtobufError::Damaged)?,
            _ => {}
        }
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| ProtobufError::Damaged)
}

fn first_bytes(bytes: &[u8]) -> Result<Option<&[u8]>, ProtobufError> {
    let found = parts(bytes)?.into_iter().find_map(|(number, part)| match part {
        Part::Bytes(bytes) if number == 1 => Some(bytes),
        _ => None,
    });
    Ok(found)
}

fn first_text(bytes: &[u8]) -> Result<String, ProtobufError> {
    first_bytes(bytes)?.map_or_else(|| Ok(String::new()), text)
}

fn number_or_text(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number_found, mut text_found) = (false, 0, String::new());
    for (number, part) in parts(bytes)? {
        match (number, part) {
            (1, Part::Number(kind)) => is_text = kind == 1,
            (2, Part::Number(number)) => number_found = number.cast_signed(),
            (3, Part::Bytes(bytes)) => text_found = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(text_found) } else { json!(number_found) })
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
            1 => Part::Eight(take(&mut bytes, 8)?.try_into().map_err(|_| ProtobufError::Damaged)?),
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

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = field(1, &[field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat());
        [MAGIC.to_vec(), kind, field(2, raw)].concat()
    }

    fn config_map() -> Vec<u8> {
        let meta = field(1, &[field(1, b"c1"), field(2, b"")].concat());
        let data = field(2, &[field(1, b"a"), field(2, b"b")].concat());
        body("v1", "ConfigMap", &[meta, data].concat())
    }

    #[test]
    fn reads_a_config_map() {
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c1"}, "data": {"a": "b"}});
        assert_eq!(read(&config_map()), Ok(expected));
    }

    #[test]
    fn reads_lists_parts_of_objects_and_numbers_that_may_be_texts() {
        // A volume's source is no field of its own, a quantity is a text, a percentage is a text of a number.
        let volume = field(1, &[field(1, b"v"), field(2, &field(2, &field(1, b"Memory")))].concat());
        let template = field(3, &field(2, &volume));
        let rolling = field(2, &field(1, &[vec![8, 1], field(3, b"25%")].concat()));
        let strategy = field(4, &[field(1, b"RollingUpdate"), rolling].concat());
        let spec = field(2, &[vec![8, 0], template, strategy].concat());
        let found = read(&body("apps/v1", "Deployment", &spec)).unwrap();
        assert_eq!(
            found["spec"],
            json!({
                "replicas": 0, "template": {"spec": {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}},
            })
        );
    }

    #[test]
    fn every_message_that_is_named_is_there() {
        let all = messages();
        let special = ["meta.v1.Time", "meta.v1.MicroTime", "resource.Quantity", "runtime.RawExtension"];
        let special = [&special[..], &["meta.v1.FieldsV1", "intstr.IntOrString"]].concat();
        // Some messages have no fields at all; they are few.
        let fields = all.fields.values().flat_map(BTreeMap::values).filter(|field| field.kind.len() > 1);
        let unknown: std::collections::BTreeSet<&str> = fields
            .map(|field| field.kind)
            .filter(|kind| !special.contains(kind) && !kind.ends_with(".ExtraValue") && !all.fields.contains_key(kind))
            .collect();
        assert!(unknown.len() < 3, "{unknown:?}");
        assert!(all.kinds.values().all(|name| all.fields.contains_key(name)));
    }

    #[test]
    fn every_cut_body_is_refused_or_smaller_but_never_panics() {
        let whole = config_map();
        let refused = (0..whole.len()).filter(|cut| read(&whole[..*cut]).is_err()).count();
        assert!(refused > whole.len() / 2, "{refused} of {} cuts were noticed", whole.len());
    }

    #[test]
    fn unknown_kinds_are_named() {
        let gadget = body("acme.io/v1", "Gadget", &[]);
        assert_eq!(read(&gadget), Err(ProtobufError::Kind("Gadget".to_owned())));
    }
}
