//! The table of endpoints: the one place that says what a component serves, from which requests are answered and the
//! documentation is written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use kubevirt_runtime::health::{Health, Probe};
use kubevirt_runtime::metrics::{self, Metrics};
use kubevirt_runtime::serve::{self, Handler, Request, Response};
use serde_json::json;

/// The verb of an endpoint. HEAD is answered like GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Put,
    Post,
}

impl Verb {
    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Put => method == Method::PUT,
            Self::Post => method == Method::POST,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
        })
    }
}

/// A request as an answer sees it.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    /// The values of the path's `{parameters}`.
    pub parameters: BTreeMap<String, String>,
    /// Empty where there is none.
    pub query: String,
    pub body: Bytes,
}

/// What an endpoint does.
pub enum Does<S> {
    /// 200 when ready, 503 with the reasons otherwise.
    Ready,
    /// 200 when alive, 503 with the reasons otherwise.
    Live,
    /// Prometheus' text format.
    Metrics,
    /// The list of paths.
    Index,
    /// The component's own answer, a function of the request and the component's state.
    Answer(fn(&S, &Call) -> Response),
    /// 501 "not implemented".
    Refuse,
}

impl<S> Does<S> {
    fn word(&self) -> &'static str {
        match self {
            Self::Ready => "readiness",
            Self::Live => "liveness",
            Self::Metrics => "metrics",
            Self::Index => "index",
            Self::Answer(_) => "answered",
            Self::Refuse => "refused: not implemented",
        }
    }
}

/// One row of the table.
pub struct Endpoint<S> {
    pub verb: Verb,
    /// Segments in braces are parameters: `/namespaces/{namespace}`. A last segment `{*rest}` takes all that follows.
    pub path: String,
    pub does: Does<S>,
    /// What it is, for people: the subject of the sentence "... is not implemented" where it is refused.
    pub about: String,
}

impl<S> Endpoint<S> {
    pub fn new(verb: Verb, path: impl Into<String>, does: Does<S>, about: impl Into<String>) -> Self {
        Self { verb, path: path.into(), does, about: about.into() }
    }
}

/// The table. Its first matching row answers.
pub struct Table<S>(Vec<Endpoint<S>>);

enum Found<'a, S> {
    Row(&'a Endpoint<S>, BTreeMap<String, String>),
    /// The path is known under other verbs.
    OtherVerb(Vec<Verb>),
    Unknown,
}

impl<S> Table<S> {
    pub fn new(rows: Vec<Endpoint<S>>) -> Self {
        Self(rows)
    }

    /// The rows, for tests.
    pub fn rows(&self) -> &[Endpoint<S>] {
        &self.0
    }

    fn find(&self, method: &Method, path: &str) -> Found<'_, S> {
        let mut others = Vec::new();
        for row in &self.0 {
            let Some(parameters) = matches(&row.path, path) else { continue };
            if row.verb.is(method) {
                return Found::Row(row, parameters);
            }
            others.push(row.verb);
        }
        if others.is_empty() { Found::Unknown } else { Found::OtherVerb(others) }
    }

    /// The table as a Markdown document, to be kept beside the code and compared by a test.
    pub fn document(&self, title: &str) -> String {
        let mut out = format!("# {title}\n\n| verb | path | does | what |\n|---|---|---|---|\n");
        for row in &self.0 {
            out.push_str(&format!("| {} | `{}` | {} | {} |\n", row.verb, row.path, row.does.word(), row.about));
        }
        out
    }
}

fn matches(pattern: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => {
                if segment.is_empty() {
                    return None;
                }
                if let Some(name) = name.strip_prefix('*') {
                    let rest: Vec<&str> = std::iter::once(segment).chain(segments).collect();
                    parameters.insert(name.to_owned(), rest.join("/"));
                    return Some(parameters);
                }
                parameters.insert(name.to_owned(), segment.to_owned());
            }
            None if wanted == segment => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(parameters)
}

/// A `Status` as Kubernetes' clients read errors.
fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    serve::json(code, &body)
}

/// All that answering takes.
pub(crate) struct Answering<S> {
    pub(crate) component: &'static str,
    pub(crate) table: Table<S>,
    pub(crate) state: Arc<S>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

impl<S: Send + Sync + 'static> Answering<S> {
    pub(crate) fn into_handler(self) -> Handler {
        let this = Arc::new(self);
        serve::handler(move |request| {
            let this = Arc::clone(&this);
            async move { this.answer(request).await }
        })
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let (row, parameters) = match self.table.find(&parts.method, &path) {
            Found::Row(row, parameters) => (row, parameters),
            Found::OtherVerb(verbs) => {
                let allowed = verbs.iter().map(Verb::to_string).collect::<Vec<_>>().join(", ");
                let message = format!("{}: {} is not served at {path}; {allowed} is", self.component, parts.method);
                let mut response = status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message);
                if let Ok(allowed) = HeaderValue::from_str(&allowed) {
                    response.headers_mut().insert(header::ALLOW, allowed);
                }
                return self.counted("(other verb)", response);
            }
            Found::Unknown => {
                let message = format!("{} serves nothing at {path}", self.component);
                return self.counted("(unknown)", status(StatusCode::NOT_FOUND, "NotFound", &message));
            }
        };
        let response = match row.does {
            Does::Ready => self.probe(Probe::Ready),
            Does::Live => self.probe(Probe::Live),
            Does::Metrics => {
                let mut response = serve::text(StatusCode::OK, self.metrics.render());
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Does::Index => {
                let paths: Vec<&str> = self.table.0.iter().map(|row| row.path.as_str()).collect();
                serve::json(StatusCode::OK, &json!({"paths": paths}))
            }
            Does::Answer(answer) => match serve::read_body(body).await {
                Ok(body) => {
                    let query = parts.uri.query().unwrap_or_default().to_owned();
                    answer(&self.state, &Call { path, parameters, query, body })
                }
                Err(error) => status(error.status(), "BadRequest", &format!("{}: {error}", self.component)),
            },
            Does::Refuse => {
                let message = format!("{}: {} is not implemented", self.component, row.about);
                status(StatusCode::NOT_IMPLEMENTED, "NotImplemented", &message)
            }
        };
        self.counted(&row.path, response)
    }

    fn probe(&self, probe: Probe) -> Response {
        let (code, body) = self.health.answer(probe);
        serve::text(code, body)
    }

    /// Labelled by the table's path, not the request's, so that the number of series is bounded.
    fn counted(&self, path: &str, response: Response) -> Response {
        let code = response.status();
        let labels = [("code", code.as_str()), ("component", self.component), ("path", path)];
        self.metrics.counter("kubevirt_component_requests_total", "Requests answered.", &labels).add(1);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pattern: &str, path: &str) -> Option<String> {
        matches(pattern, path).map(|found| found.iter().map(|(k, v)| format!("{k}={v} ")).collect())
    }

    #[test]
    fn patterns() {
        let pattern = "/namespaces/{namespace}/virtualmachines/{name}/start";
        assert_eq!(
            parameters(pattern, "/namespaces/a/virtualmachines/b/start").as_deref(),
            Some("name=b namespace=a ")
        );
        assert_eq!(parameters(pattern, "/namespaces/a/virtualmachines/b/start/"), Some("name=b namespace=a ".into()));
        assert_eq!(parameters(pattern, "/namespaces//virtualmachines/b/start"), None);
        assert_eq!(parameters(pattern, "/namespaces/a/virtualmachines/b"), None);
        assert_eq!(parameters(pattern, "/namespaces/a/virtualmachines/b/start/x"), None);
        assert_eq!(parameters("/", "/"), Some(String::new()));
        assert_eq!(parameters("/", "/x"), None);
        assert_eq!(parameters("/{*rest}", "/a/b"), Some("rest=a/b ".into()));
        assert_eq!(parameters("/{*rest}", "/"), None);
    }
}
