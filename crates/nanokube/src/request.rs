//! What a request asks for: its path and query as values. Pure.

use std::collections::BTreeMap;

use serde_json::json;

use crate::status::ApiError;

/// A parsed request line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestInfo {
    /// The Kubernetes verb: `get`, `list`, `watch`, `create`, ... or the lower-case method for other paths.
    pub verb: String,
    pub method: String,
    pub path: String,
    pub query: Query,
    /// Set when the path is below `/api/v1` or `/apis/GROUP/VERSION` and names a resource.
    pub resource: Option<ResourcePath>,
}

/// The resource part of a path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourcePath {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub plural: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource (proxies).
    pub rest: String,
}

/// Query parameters; a repeated one keeps its first value, as on a real server, except where all are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(decode(key, true)).or_default().push(decode(value, true));
        }
        Self(map)
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|values| values.first()).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// A boolean: present without value, `1` and `true` (in any case Go accepts) are true.
    pub fn flag(&self, key: &str) -> bool {
        self.0
            .get(key)
            .and_then(|values| values.first())
            .is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F"))
    }
}

impl RequestInfo {
    /// Reads method, path and query.
    pub fn parse(method: &str, path: &str, query: &str) -> Self {
        let query = Query::parse(query);
        let mut info = Self {
            verb: method.to_lowercase(),
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            resource: None,
        };
        if let Some((resource, watch)) = parse_path(path) {
            let verb = verb_of(method, &resource, &info.query);
            info.verb = if watch && matches!(verb, "get" | "list") { "watch" } else { verb }.to_owned();
            info.resource = Some(resource);
        }
        info
    }

    /// The long-running ones: they are audited when they begin and are not counted as load.
    pub fn is_watch(&self) -> bool {
        self.verb == "watch"
    }

    /// Whether the request may change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

/// The resource of a path, and whether it is watched for the path alone.
fn parse_path(path: &str) -> Option<(ResourcePath, bool)> {
    let mut parts = path.trim_matches('/').split('/').map(|part| decode(part, false));
    let (group, version) = match parts.next()?.as_str() {
        "api" => (String::new(), parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut parts: std::collections::VecDeque<String> = parts.collect();
    if parts.front()?.is_empty() {
        return None;
    }
    // The old spelling of a watch: /api/v1/watch/...
    let watch = parts.len() > 1 && parts[0] == "watch";
    if watch {
        parts.pop_front();
    }
    let mut namespace = String::new();
    if parts.len() > 2
        && parts[0] == "namespaces"
        && !(matches!(parts[2].as_str(), "status" | "finalize") && parts.len() == 3)
    {
        namespace = parts[1].clone();
        parts.drain(..2);
    } else if parts.len() >= 2 && parts[0] == "namespaces" && group.is_empty() {
        // The namespace object itself: it counts as a request in its own namespace.
        namespace = parts[1].clone();
    }
    let mut next = || parts.pop_front().unwrap_or_default();
    let (plural, name, subresource) = (next(), next(), next());
    let rest = parts.into_iter().collect::<Vec<_>>().join("/");
    Some((ResourcePath { group, version, namespace, plural, name, subresource, rest }, watch))
}

fn verb_of(method: &str, resource: &ResourcePath, query: &Query) -> &'static str {
    match (method, resource.name.is_empty()) {
        ("GET" | "HEAD", true) if query.flag("watch") => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) if query.flag("watch") => "watch",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    }
}

/// Percent decoding; `+` is a space in queries only.
fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits are a byte"));
                at += 3;
            }
            (b'+', ..) if plus => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The options of a list or watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: usize,
    pub continue_token: String,
    /// `None`: not given; `Some(0)`: any version will do.
    pub resource_version: Option<u64>,
    pub version_match: Option<VersionMatch>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

impl ListOptions {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// 400 for a value that does not parse, 422 for a combination that makes no sense.
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let number = |key: &str| -> Result<Option<u64>, ApiError> {
            query
                .get(key)
                .map(|text| {
                    text.parse::<u64>().map_err(|_| {
                        ApiError::bad_request(format!("{key}: Invalid value: \"{text}\": must be a whole number"))
                    })
                })
                .transpose()
        };
        let refuse = |field: &str, text: &str| {
            Err(ApiError::invalid_option("ListOptions", field, "FieldValueForbidden", &format!("Forbidden: {text}")))
        };
        let version_match = match query.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                let text =
                    format!("Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\"");
                let field = "resourceVersionMatch";
                return Err(ApiError::invalid_option("ListOptions", field, "FieldValueNotSupported", &text));
            }
        };
        let options = Self {
            label_selector: query.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector: query.get("fieldSelector").unwrap_or_default().to_owned(),
            // Less than nothing is no limit.
            limit: match query.get("limit") {
                Some(text) if text.parse::<i64>().is_ok_and(|limit| limit < 0) => 0,
                _ => usize::try_from(number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX),
            },
            continue_token: query.get("continue").unwrap_or_default().to_owned(),
            resource_version: number("resourceVersion")?,
            version_match,
            timeout_seconds: number("timeoutSeconds")?,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        };
        let field = "resourceVersionMatch";
        if watch {
            match (options.send_initial_events, options.version_match) {
                (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => {}
                (Some(_), _) => {
                    return refuse(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
                }
                (None, Some(_)) => {
                    return refuse(
                        field,
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    );
                }
            }
        } else {
            if options.send_initial_events.is_some() {
                return refuse("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
            if options.version_match.is_some() && options.resource_version.is_none() {
                return refuse(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if options.version_match.is_some() && !options.continue_token.is_empty() {
                return refuse(field, "resourceVersionMatch is forbidden when continue is provided");
            }
            if options.version_match == Some(VersionMatch::Exact) && options.resource_version == Some(0) {
                return refuse(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        Ok(options)
    }
}

/// How strictly unknown fields are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The options of a write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub force: bool,
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// Reads and checks the options; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    ///
    /// # Errors
    /// 422 with the option's name.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, ApiError> {
        let unsupported =
            |field: &str, text: String| Err(ApiError::invalid_option(kind, field, "FieldValueNotSupported", &text));
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let values = "\"Ignore\", \"Strict\", \"Warn\"";
                return unsupported(
                    "fieldValidation",
                    format!("Unsupported value: \"{other}\": supported values: {values}"),
                );
            }
        };
        let field_manager = query.get("fieldManager").unwrap_or_default().to_owned();
        if field_manager.len() > FIELD_MANAGER_MAX {
            let text = format!("Too long: may not be more than {FIELD_MANAGER_MAX} bytes");
            return Err(ApiError::invalid_option(kind, "fieldManager", "FieldValueTooLong", &text));
        }
        if field_manager.chars().any(char::is_control) {
            let text = format!("Invalid value: {}: should only contain printable characters", json!(field_manager));
            return Err(ApiError::invalid_option(kind, "fieldManager", "FieldValueInvalid", &text));
        }
        Ok(Self {
            dry_run: dry_run(query.all("dryRun"), kind)?,
            field_manager,
            force: query.flag("force"),
            field_validation,
        })
    }
}

/// Only an apply can be forced.
///
/// # Errors
/// 422 where another patch says `force`.
pub(crate) fn check_not_forced(query: &Query) -> Result<(), ApiError> {
    if query.get("force").is_none() {
        return Ok(());
    }
    let text = "Forbidden: may not be specified for non-apply patch";
    Err(ApiError::invalid_option("PatchOptions", "force", "FieldValueForbidden", text))
}

/// A field manager's name is at most 128 characters: the limit of the API.
const FIELD_MANAGER_MAX: usize = 128;

/// Whether `dryRun` is asked for.
///
/// # Errors
/// 422 for any value but `All`.
pub(crate) fn dry_run(values: &[String], kind: &str) -> Result<bool, ApiError> {
    let values: Vec<&String> = values.iter().filter(|value| !value.is_empty()).collect();
    if values.iter().all(|value| *value == "All") {
        return Ok(!values.is_empty());
    }
    let shown = values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(",");
    let text = format!("Unsupported value: [{shown}]: supported values: \"All\"");
    Err(ApiError::invalid_option(kind, "dryRun", "FieldValueNotSupported", &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(method: &str, path: &str, query: &str) -> String {
        let info = RequestInfo::parse(method, path, query);
        let Some(path) = info.resource else { return format!("{} -", info.verb) };
        let ResourcePath { group, version, namespace, plural, name, subresource, rest: _ } = path;
        format!("{} {group}/{version} {namespace}:{plural}:{name}:{subresource}", info.verb)
    }

    #[test]
    fn paths_name_resources() {
        assert_eq!(shown("GET", "/api/v1/pods", ""), "list /v1 :pods::");
        assert_eq!(shown("GET", "/api/v1/namespaces/a/pods", "watch=1"), "watch /v1 a:pods::");
        assert_eq!(shown("GET", "/api/v1/namespaces/a/pods/p/status", ""), "get /v1 a:pods:p:status");
        assert_eq!(
            shown("DELETE", "/apis/apps/v1/namespaces/a/deployments", ""),
            "deletecollection apps/v1 a:deployments::"
        );
        assert_eq!(shown("GET", "/api/v1/namespaces/a", ""), "get /v1 a:namespaces:a:");
        assert_eq!(shown("PUT", "/api/v1/namespaces/a/finalize", ""), "update /v1 a:namespaces:a:finalize");
        assert_eq!(shown("GET", "/api/v1/watch/namespaces/a/pods/p", ""), "watch /v1 a:pods:p:");
        assert_eq!(shown("GET", "/api/v1/watch/pods", ""), "watch /v1 :pods::");
        assert_eq!(shown("GET", "/api/v1/namespaces", ""), "list /v1 :namespaces::");
        assert_eq!(shown("GET", "/apis/apps/v1", ""), "get -");
        assert_eq!(shown("GET", "/version", ""), "get -");
        assert_eq!(shown("GET", "/", ""), "get -");
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db+c&watch&x=%zz&limit=");
        assert_eq!(query.get("labelSelector"), Some("a=b c"));
        assert!(query.flag("watch") && !query.flag("missing"));
        assert_eq!(query.get("x"), Some("%zz"));
        assert_eq!(query.get("limit"), None);
    }

    #[test]
    fn senseless_options_are_refused() {
        let list = |text: &str, watch: bool| ListOptions::parse(&Query::parse(text), watch).map_err(|error| error.code);
        assert_eq!(list("resourceVersionMatch=Exact", false).unwrap_err(), 422);
        assert_eq!(list("limit=x", false).unwrap_err(), 400);
        assert_eq!(list("sendInitialEvents=true", true).unwrap_err(), 422);
        assert!(list("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true).is_ok());
        let write = |text: &str| WriteOptions::parse(&Query::parse(text), "CreateOptions").map_err(|error| error.code);
        assert_eq!(write("dryRun=Maybe").unwrap_err(), 422);
        assert!(write("dryRun=All&fieldValidation=Strict").unwrap().dry_run);
    }
}
