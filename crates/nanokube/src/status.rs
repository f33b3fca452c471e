//! Refusals as `metav1.Status` objects: the codes, reasons, causes and messages that clients match.

use apimachinery::field::FieldError;
use serde_json::{Map, Value, json};

/// A refused request. One value per answer; [`ApiError::to_value`] is the body.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// Some answers of a router are plain text, not a Status.
    pub plain: bool,
    /// A webhook's own Status, which is passed on as it is.
    pub whole: Option<Box<Value>>,
}

/// `status.details`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Details {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub causes: Vec<StatusCause>,
    pub retry_after: Option<u32>,
}

/// One entry of `status.details.causes`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StatusCause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// Reasons the audit log knows by name.
const REASONS: [&str; 12] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "InternalError",
    "Invalid",
    "NotFound",
    "RequestEntityTooLarge",
    "ServiceUnavailable",
    "TooManyRequests",
    "Unauthorized",
];

/// Names the resource or kind an error is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub group: &'a str,
    /// The plural or the kind, whichever the error shows.
    pub what: &'a str,
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.what.to_owned() } else { format!("{}.{}", self.what, self.group) }
    }

    fn details(&self) -> Details {
        Details {
            name: self.name.to_owned(),
            group: self.group.to_owned(),
            kind: self.what.to_owned(),
            ..Details::default()
        }
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: None, plain: false, whole: None }
    }

    fn detailed(code: u16, reason: &'static str, message: String, details: Details) -> Self {
        Self { code, reason, message, details: Some(Box::new(details)), plain: false, whole: None }
    }

    /// A Status somebody else made.
    pub(crate) fn verbatim(code: u16, reason: &str, whole: Value) -> Self {
        let reason = REASONS.iter().find(|known| **known == reason).copied().unwrap_or("Unknown");
        let message = whole["message"].as_str().unwrap_or_default().to_owned();
        Self { whole: Some(Box::new(whole)), ..Self::new(code, reason, message) }
    }

    /// The refusal of an admission policy: as [`ApiError::forbidden`], with the policy's reason and a cause.
    pub(crate) fn denied(about: About<'_>, code: u16, reason: &'static str, why: &str) -> Self {
        Self { code, reason, ..Self::forbidden(about, why) }.with_cause("", why, "")
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    pub(crate) fn forbidden(about: About<'_>, why: &str) -> Self {
        let message = match (about.what.is_empty(), about.name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", about.qualified()),
            (false, false) => format!("{} \"{}\" is forbidden: {why}", about.qualified(), about.name),
        };
        Self::detailed(403, "Forbidden", message, about.details())
    }

    pub(crate) fn not_found(about: About<'_>) -> Self {
        let message = format!("{} \"{}\" not found", about.qualified(), about.name);
        Self::detailed(404, "NotFound", message, about.details())
    }

    /// The path names a resource that is not served.
    pub(crate) fn no_resource() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::detailed(404, "NotFound", message, Details::default())
    }

    /// The path names nothing at all.
    pub(crate) fn no_path() -> Self {
        Self { plain: true, ..Self::new(404, "NotFound", "404 page not found\n".to_owned()) }
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::detailed(405, "MethodNotAllowed", message, Details::default())
    }

    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("nanokube does not implement {what}"))
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, application/yaml".to_owned();
        Self::new(406, "NotAcceptable", message)
    }

    pub(crate) fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} \"{}\" already exists", about.qualified(), about.name);
        Self::detailed(409, "AlreadyExists", message, about.details())
    }

    pub(crate) fn conflict(about: About<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", about.qualified(), about.name);
        Self::detailed(409, "Conflict", message, about.details())
    }

    /// The optimistic lock failed; clients read again and retry on this message's reason.
    pub(crate) fn stale(about: About<'_>) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(about, why)
    }

    /// Field managers disagree; one cause per field.
    pub(crate) fn apply_conflict(message: String, causes: Vec<StatusCause>) -> Self {
        Self::detailed(409, "Conflict", message, Details { causes, ..Details::default() })
    }

    pub(crate) fn expired(message: &str) -> Self {
        Self::new(410, "Expired", message.to_owned())
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub(crate) fn unsupported_media(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn unsupported_patch() -> Self {
        let message = "415: Unsupported Media Type".to_owned();
        Self::detailed(415, "UnsupportedMediaType", message, Details::default())
    }

    /// `about.what` is a kind.
    pub(crate) fn invalid(about: About<'_>, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let causes = errors.iter().map(status_cause).collect();
        Self::invalid_with(about, &texts, causes)
    }

    fn invalid_with(about: About<'_>, texts: &[String], causes: Vec<StatusCause>) -> Self {
        let text = match texts {
            [one] => one.clone(),
            // Several managers of one field list can find the same fault; a reader needs it once.
            many => {
                let mut unique: Vec<&str> = Vec::new();
                for text in many {
                    if !unique.contains(&text.as_str()) {
                        unique.push(text);
                    }
                }
                if unique.len() == 1 { unique[0].to_owned() } else { format!("[{}]", unique.join(", ")) }
            }
        };
        let message = format!("{} \"{}\" is invalid: {text}", about.qualified(), about.name);
        Self::detailed(422, "Invalid", message, Details { causes, ..about.details() })
    }

    /// A patch whose result is no object of its kind.
    pub(crate) fn invalid_patch(error: &FieldError) -> Self {
        let details = Details { causes: vec![status_cause(error)], ..Details::default() };
        Self::detailed(422, "Invalid", format!(" \"\" is invalid: {error}"), details)
    }

    /// An option of the request is wrong: `kind` is `ListOptions`, `PatchOptions` and so on.
    pub(crate) fn invalid_option(kind: &str, field: &str, reason: &str, text: &str) -> Self {
        let about = About { group: "meta.k8s.io", what: kind, name: "" };
        let cause = StatusCause { reason: reason.to_owned(), message: text.to_owned(), field: field.to_owned() };
        Self::invalid_with(about, &[format!("{field}: {text}")], vec![cause])
    }

    /// A JSON patch that cannot be carried out; the answer does not say why, as on a real server.
    pub(crate) fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Self::detailed(422, "Invalid", message, Details::default())
    }

    pub(crate) fn too_many_requests(message: &str, retry_after: Option<u32>) -> Self {
        let details = Details { retry_after, ..Details::default() };
        Self::detailed(429, "TooManyRequests", message.to_owned(), details)
    }

    pub(crate) fn internal(message: &str) -> Self {
        let cause = StatusCause { message: message.to_owned(), ..StatusCause::default() };
        let details = Details { causes: vec![cause], ..Details::default() };
        Self::detailed(500, "InternalError", format!("Internal error occurred: {message}"), details)
    }

    /// A failure without a reason, as a server answers what its code did not expect.
    pub(crate) fn unexplained(message: String) -> Self {
        Self::new(500, "", message)
    }

    pub(crate) fn unavailable(message: &str) -> Self {
        Self::new(503, "ServiceUnavailable", message.to_owned())
    }

    pub(crate) fn future_version(asked: u64, current: u64) -> Self {
        let cause = StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        let details = Details { causes: vec![cause], retry_after: Some(1), ..Details::default() };
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        Self::detailed(504, "Timeout", message, details)
    }

    /// Adds a cause.
    #[must_use]
    pub(crate) fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = StatusCause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The `metav1.Status`.
    pub(crate) fn to_value(&self) -> Value {
        if let Some(whole) = &self.whole {
            return Value::clone(whole);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_value();
        }
        status
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::String(text.clone()));
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes".to_owned(), self.causes.iter().map(StatusCause::to_value).collect());
        }
        if let Some(seconds) = self.retry_after {
            map.insert("retryAfterSeconds".to_owned(), Value::from(seconds));
        }
        Value::Object(map)
    }
}

impl StatusCause {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::String(text.clone()));
            }
        }
        Value::Object(map)
    }
}

fn status_cause(error: &FieldError) -> StatusCause {
    StatusCause { reason: error.cause.as_str().to_owned(), message: error.message.clone(), field: error.field.clone() }
}

/// The answer to a deletion that is complete.
pub(crate) fn deleted(about: About<'_>, uid: &str) -> Value {
    let mut details = about.details().to_value();
    details["uid"] = Value::String(uid.to_owned());
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The answer to a request that created something that is not shown.
pub(crate) fn created() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
