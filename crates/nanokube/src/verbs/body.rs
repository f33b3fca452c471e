//! Request bodies: decoding, and the checks that belong to it.

use serde_json::Value;

use super::{Target, metadata_text};
use crate::protobuf::{self, ProtobufError};
use crate::registry::{Resource, join_version};
use crate::request::FieldValidation;
use crate::schemas;
use crate::status::ApiError;

const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type without parameters, lower case.
pub(super) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body as JSON, whatever of the two it came as.
pub(crate) fn parse(target: &Target<'_>, what: &str) -> Result<Value, ApiError> {
    let value = parse_as(&media_type(&target.context.content_type), &target.context.body, what)?;
    if value.is_object() { Ok(value) } else { Err(not_an_object(what)) }
}

fn not_an_object(what: &str) -> ApiError {
    ApiError::bad_request(format!("the object provided is unrecognized (must be of type {what}): it is not an object"))
}

fn parse_as(media: &str, body: &[u8], what: &str) -> Result<Value, ApiError> {
    match media {
        "" | "application/json" => serde_json::from_slice(body).map_err(|error| {
            let text = String::from_utf8_lossy(body);
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {what}): couldn't get version/kind; json parse \
                 error: {error} ({})",
                text.chars().take(64).collect::<String>()
            ))
        }),
        "application/yaml" => parse_yaml(body),
        protobuf::MEDIA => protobuf::read(body).map_err(|error| match error {
            ProtobufError::Kind(_) => ApiError::unsupported_media(OBJECT_TYPES),
            ProtobufError::Damaged => ApiError::bad_request(error.to_string()),
        }),
        _ => Err(ApiError::unsupported_media(OBJECT_TYPES)),
    }
}

/// A YAML document (JSON is one, too).
pub(super) fn parse_yaml(body: &[u8]) -> Result<Value, ApiError> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("error decoding YAML: not UTF-8"))?;
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
}

/// What a strict reader says to a YAML document that gives a field twice.
fn repeated_in_yaml(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        return None;
    }
    // The first line says what; the rest shows the place, which no header can hold.
    let error = serde_saphyr::from_str::<Value>(text).err()?.to_string();
    Some(error.lines().next().unwrap_or_default().to_owned())
}

/// An object of the target's kind from the body.
pub(super) fn object(target: &Target<'_>) -> Result<Value, ApiError> {
    let mut value = parse(target, &target.resource.kind)?;
    check_kind(&target.resource, &mut value)?;
    check_types(&target.resource, &value)?;
    Ok(value)
}

/// Checks `apiVersion` and `kind`; absent ones are filled in.
pub(super) fn check_kind(resource: &Resource, value: &mut Value) -> Result<(), ApiError> {
    if !value.is_object() {
        return Err(not_an_object(&resource.kind));
    }
    let expected = resource.api_version();
    let version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if resource.custom.is_some() && (version.is_empty() || kind.is_empty()) {
        let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
        return Err(ApiError::bad_request(format!("Object '{missing}' is missing in '{value}'")));
    }
    if !kind.is_empty() && kind != resource.kind {
        let short = |group_version: &str| group_version.rsplit('/').next().unwrap_or_default().to_owned();
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {}: converting ({}.{kind}) to ({}.{}): unknown conversion",
            short(&version),
            resource.kind,
            short(&version),
            if resource.group.is_empty() { "core" } else { resource.group.split('.').next().unwrap_or_default() },
            resource.kind,
        )));
    }
    if !version.is_empty() && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            join_version(&resource.group, &resource.version)
        )));
    }
    value["apiVersion"] = Value::String(expected);
    value["kind"] = Value::String(resource.kind.clone());
    Ok(())
}

/// What a reader of typed objects could not decode, as one sentence. Custom objects are judged by their definition.
fn undecodable(resource: &Resource, value: &Value) -> Option<String> {
    let schema = resource.schema().filter(|_| resource.custom.is_none())?;
    let found = schema.undecodable(value);
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Refuses an object of a built-in kind whose values have other types than its fields.
pub(super) fn check_types(resource: &Resource, value: &Value) -> Result<(), ApiError> {
    undecodable(resource, value).map_or(Ok(()), |why| {
        let (kind, version) = (&resource.kind, &resource.version);
        Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: {why}"
        )))
    })
}

/// Checks what is applied. It is read as a typed object before anything else, so what does not fit the type, unknown fields
/// among it, is answered as an error nobody has classified: clients know the words.
pub(super) fn check_applied(
    target: &Target<'_>,
    config: &mut Value,
    level: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let resource = &target.resource;
    if !config.is_object() {
        return Err(not_an_object(&resource.kind));
    }
    if config["metadata"]["managedFields"].is_array() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let (version, expected) = (config["apiVersion"].as_str().unwrap_or_default(), resource.api_version());
    if version != expected {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {expected}"
        )));
    }
    let kind = config["kind"].as_str().unwrap_or_default().to_owned();
    let untyped = |why: String| {
        let place = [target.path.namespace.as_str(), metadata_text(config, "name")];
        let place = place.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let known = format!("{}/{}, Kind={kind}", resource.group, resource.version);
        ApiError::unexplained(format!("failed to create typed patch object ({place}; {known}): {why}"))
    };
    if kind.is_empty() {
        return Err(untyped(format!("no corresponding type for {}/{}, Kind=", resource.group, resource.version)));
    }
    if let Some(why) = undecodable(resource, config) {
        return Err(untyped(why));
    }
    let unknown = schemas::prune(resource, &mut config.clone());
    if !unknown.is_empty() {
        let texts: Vec<String> =
            unknown.iter().map(|field| format!(".{field}: field not declared in schema")).collect();
        return Err(untyped(match texts.as_slice() {
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        }));
    }
    check_kind(resource, config)?;
    prune(target, config, level)
}

/// The same of the result of a patch, and under the strict level what the result does not know: the patch is at fault.
pub(super) fn check_patched(resource: &Resource, value: &Value, level: FieldValidation) -> Result<(), ApiError> {
    let unknown = || {
        let fields = schemas::prune(resource, &mut value.clone());
        let texts: Vec<String> = fields.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        (!texts.is_empty()).then(|| format!("strict decoding error: {}", texts.join(", ")))
    };
    let why = undecodable(resource, value);
    let why = why.or_else(|| if level == FieldValidation::Strict { unknown() } else { None });
    why.map_or(Ok(()), |why| {
        let error = apimachinery::FieldError::invalid("patch", value, &why);
        Err(ApiError::invalid_patch(&error))
    })
}

/// The fields that a JSON text gives twice, by their path; the last one counts.
fn repeated(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // A text that is no JSON was refused before.
    let _ = serde::de::DeserializeSeed::deserialize(Repeated { path: String::new(), found: &mut found }, &mut reader);
    found
}

struct Repeated<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Repeated<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Repeated<'_> {
    type Value = ();

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("any value")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if !seen.insert(name) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Repeated { path, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while list
            .next_element_seed(Repeated { path: format!("{}[{index}]", self.path), found: &mut *self.found })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Prunes unknown fields; depending on the level they are refused, warned about or ignored.
pub(super) fn prune(target: &Target<'_>, object: &mut Value, level: FieldValidation) -> Result<Vec<String>, ApiError> {
    let unknown = schemas::prune(&target.resource, object);
    let mut texts: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
    let whole = matches!(target.context.info.verb.as_str(), "create" | "update");
    if level != FieldValidation::Ignore && whole {
        let twice = repeated(&target.context.body);
        texts.extend(twice.iter().map(|field| format!("duplicate field \"{field}\"")));
        if media_type(&target.context.content_type) == "application/yaml" {
            texts.extend(repeated_in_yaml(&target.context.body));
        }
    }
    match level {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(texts),
        FieldValidation::Strict if texts.is_empty() => Ok(texts),
        FieldValidation::Strict => Err(ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
            target.resource.version,
            texts.join(", "),
            kind = target.resource.kind,
        ))),
    }
}

/// The namespace of the body must be that of the path.
pub(super) fn check_namespace(target: &Target<'_>, object: &mut Value) -> Result<(), ApiError> {
    let wanted = if target.resource.namespaced { target.path.namespace.as_str() } else { "" };
    let found = metadata_text(object, "namespace");
    if !found.is_empty() && found != wanted {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(text));
    }
    let metadata = super::meta::metadata_mut(object);
    if wanted.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), Value::String(wanted.to_owned()));
    }
    Ok(())
}
