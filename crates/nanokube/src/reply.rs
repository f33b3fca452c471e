//! Answers: what a handler returns, and how it becomes an HTTP response.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use crate::status::ApiError;

/// The body of every response.
pub(crate) type Body = UnsyncBoxBody<Bytes, StreamBroken>;

/// A response that ends without its end: the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection broke")]
pub(crate) struct StreamBroken;

/// What a handler answers.
pub(crate) struct Reply {
    pub code: u16,
    pub content_type: String,
    pub body: ReplyBody,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// For the audit log.
    pub reason: &'static str,
    /// For the audit log: the name of what was created.
    pub name: String,
    pub retry_after: Option<u32>,
}

/// The content.
pub(crate) enum ReplyBody {
    Whole(Bytes),
    Stream(BoxStream<'static, Bytes>),
}

pub(crate) const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

impl Reply {
    pub(crate) fn bytes(code: u16, content_type: &str, body: Bytes) -> Self {
        Self {
            code,
            content_type: content_type.to_owned(),
            body: ReplyBody::Whole(body),
            warnings: Vec::new(),
            reason: "",
            name: String::new(),
            retry_after: None,
        }
    }

    pub(crate) fn json(code: u16, value: &Value) -> Self {
        Self::bytes(code, JSON, Bytes::from(value.to_string()))
    }

    pub(crate) fn text(code: u16, text: &str) -> Self {
        Self::bytes(code, TEXT, Bytes::copy_from_slice(text.as_bytes()))
    }

    pub(crate) fn stream(content_type: &str, stream: BoxStream<'static, Bytes>) -> Self {
        Self { body: ReplyBody::Stream(stream), ..Self::bytes(200, content_type, Bytes::new()) }
    }

    pub(crate) fn error(error: &ApiError) -> Self {
        let body = if error.plain {
            Self::text(error.code, &error.message)
        } else {
            Self::json(error.code, &error.to_value())
        };
        let retry_after = error.details.as_ref().and_then(|details| details.retry_after);
        Self { reason: error.reason, retry_after, ..body }
    }

    /// The same in the format the client prefers, if it is YAML.
    #[must_use]
    pub(crate) fn in_format_of(self, accept: &str) -> Self {
        let mut media = accept.split(',').map(|entry| entry.split(';').next().unwrap_or_default().trim());
        let preferred = media.find(|media| matches!(*media, JSON | YAML | "application/*" | "*/*"));
        let ReplyBody::Whole(body) = &self.body else { return self };
        if preferred != Some(YAML) || self.content_type != JSON {
            return self;
        }
        let value = serde_json::from_slice::<Value>(body).ok();
        match value.and_then(|value| serde_saphyr::to_string(&value).ok()) {
            Some(text) => Self { content_type: YAML.to_owned(), body: ReplyBody::Whole(Bytes::from(text)), ..self },
            None => self,
        }
    }

    #[must_use]
    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// The HTTP response.
    pub(crate) fn into_response(self) -> http::Response<Body> {
        let body = match self.body {
            ReplyBody::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            ReplyBody::Stream(stream) => {
                StreamBody::new(stream.map(|bytes| Ok::<_, StreamBroken>(Frame::data(bytes)))).boxed_unsync()
            }
        };
        let mut response = http::Response::new(body);
        *response.status_mut() =
            http::StatusCode::from_u16(self.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&self.content_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        for warning in &self.warnings {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                headers.append(WARNING, value);
            }
        }
        response
    }
}

/// In which shape a client wants objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Full,
    Table,
    /// `PartialObjectMetadata`, or a list of it.
    Metadata,
}

/// Chooses the first shape of an `Accept` header that can be served.
///
/// # Errors
/// 406 when none can.
pub(crate) fn negotiate(accept: &str) -> Result<Shape, ApiError> {
    if accept.trim().is_empty() {
        return Ok(Shape::Full);
    }
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, JSON | YAML | "application/*" | "*/*") {
            continue;
        }
        let parameter =
            |name: &str| entry.split(';').map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        match (parameter("as"), parameter("v"), parameter("g")) {
            (None, ..) => return Ok(Shape::Full),
            (Some("Table"), Some("v1"), Some("meta.k8s.io")) => return Ok(Shape::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1"), Some("meta.k8s.io")) => {
                return Ok(Shape::Metadata);
            }
            _ => {}
        }
    }
    Err(ApiError::not_acceptable())
}
