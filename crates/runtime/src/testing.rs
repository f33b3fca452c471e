//! A very small API server for tests of this workspace's processes: objects by path, compare-and-swap, watch, a log of
//! requests and faults on demand. It knows no schemas and no rights; what needs those is tested against `nanokube`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::host::{Files, Host};
use crate::log::Verbosity;
use crate::net::Net;

/// Longer than anything a test waits for; in paused time it passes as soon as nothing else is left to happen.
pub const PATIENCE: Duration = Duration::from_secs(3600);

type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The name its client was made with.
    pub who: String,
    pub method: Method,
    pub path: String,
    pub watch: bool,
    /// The status that was answered; 0 for none.
    pub status: u16,
}

impl Seen {
    /// Whether it asked for a change.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Refused with this status, without effect.
    Status(u16),
    /// Never answered, without effect.
    Hang,
    /// It takes effect, the answer is lost.
    LoseReply,
    /// It takes effect this much later, even if its sender has given up meanwhile; then it is answered.
    Late(Duration),
}

type FaultRule = Arc<dyn Fn(&str, &Method, &str) -> Fault + Send + Sync>;

/// The server. Clones share everything.
#[derive(Clone)]
pub struct TinyApi(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// The revision; every change and every request raises the channel.
    changed: watch::Sender<u64>,
}

struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, &'static str, String, Value)>,
    seen: Vec<Seen>,
    fault: FaultRule,
}

impl Default for TinyApi {
    fn default() -> Self {
        Self::new()
    }
}

impl TinyApi {
    /// An empty server.
    pub fn new() -> Self {
        let state = State {
            revision: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
            seen: Vec::new(),
            fault: Arc::new(|_, _, _| Fault::None),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: watch::channel(0).0 }))
    }

    /// A client whose requests are logged under `who`.
    pub fn client(&self, who: &str, namespace: &str) -> kube::Client {
        let (api, who) = (self.clone(), who.to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (api, who) = (api.clone(), who.clone());
            async move { Ok::<_, Infallible>(api.answer(&who, request).await) }
        });
        kube::Client::new(service, namespace.to_owned())
    }

    /// From now on `rule(who, method, path)` says what goes wrong.
    pub fn set_fault(&self, rule: impl Fn(&str, &Method, &str) -> Fault + Send + Sync + 'static) {
        self.lock().fault = Arc::new(rule);
    }

    /// Puts an object at its path, as another client would.
    pub fn put(&self, path: &str, object: Value) {
        let mut state = self.lock();
        let exists = state.objects.contains_key(path);
        state.store(if exists { "MODIFIED" } else { "ADDED" }, path, object);
        drop(state);
        self.raise();
    }

    /// Deletes the object at a path.
    pub fn delete(&self, path: &str) {
        let mut state = self.lock();
        if let Some(object) = state.objects.get(path).cloned() {
            state.store("DELETED", path, object);
        }
        drop(state);
        self.raise();
    }

    /// The object at a path.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// The objects below a collection's path.
    pub fn objects(&self, collection: &str) -> Vec<Value> {
        let prefix = format!("{collection}/");
        self.lock().objects.iter().filter(|(path, _)| path.starts_with(&prefix)).map(|(_, o)| o.clone()).collect()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// Waits until `condition` holds; it is asked again after every request and change.
    ///
    /// # Panics
    /// It does not hold within [`PATIENCE`].
    pub async fn until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let met = async {
            while !condition(self) {
                changed.changed().await.expect("the sender lives as long as this server");
            }
        };
        let met = tokio::time::timeout(PATIENCE, met).await;
        assert!(
            met.is_ok(),
            "not within {PATIENCE:?}; the last requests: {:#?}",
            self.seen().iter().rev().take(5).collect::<Vec<_>>()
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    async fn answer(&self, who: &str, request: Request<Body>) -> Reply {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches('/').to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let is_watch = query.contains("watch=true") || query.contains("watch=1");
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let rule = Arc::clone(&self.lock().fault);
        let fault = rule(who, &parts.method, &path);
        let (status, reply) = match fault {
            Fault::Status(code) => (code, Some(status(code, "the test wants it so"))),
            Fault::Hang => (0, None),
            Fault::Late(delay) if !is_watch => {
                let (api, method, path, query) = (self.clone(), parts.method.clone(), path.clone(), query.clone());
                let acting = tokio::spawn(async move {
                    tokio::time::sleep_until(tokio::time::Instant::now() + delay).await;
                    let done = api.lock().act(&method, &path, &query, &body);
                    api.raise();
                    done
                });
                let (code, value) = acting.await.unwrap_or_else(|_| (500, failure(500, "the test is over")));
                (code, Some(reply(code, &value)))
            }
            Fault::None | Fault::LoseReply | Fault::Late(_) if is_watch => (200, Some(self.watch(&path, &query))),
            Fault::None | Fault::LoseReply | Fault::Late(_) => {
                let (code, value) = self.lock().act(&parts.method, &path, &query, &body);
                (code, (fault == Fault::None).then(|| reply(code, &value)))
            }
        };
        let entry = Seen { who: who.to_owned(), method: parts.method, path, watch: is_watch, status };
        self.lock().seen.push(entry);
        self.raise();
        match reply {
            Some(reply) => reply,
            None => std::future::pending().await,
        }
    }

    fn watch(&self, path: &str, query: &str) -> Reply {
        let from = parameter(query, "resourceVersion").and_then(|rv| rv.parse().ok()).unwrap_or(0);
        let (api, path, name) = (self.clone(), path.to_owned(), selected_name(query));
        let changed = self.0.changed.subscribe();
        let lines = stream::unfold((api, changed, from), move |(api, mut changed, from)| {
            let (path, name) = (path.clone(), name.clone());
            async move {
                loop {
                    let next = api
                        .lock()
                        .history
                        .iter()
                        .find(|(revision, _, at, object)| {
                            *revision > from
                                && at.starts_with(&format!("{path}/"))
                                && name.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str())
                        })
                        .map(|(revision, kind, _, object)| (*revision, json!({"type": kind, "object": object})));
                    if let Some((revision, event)) = next {
                        let line = Bytes::from(format!("{event}\n"));
                        return Some((Ok::<_, io::Error>(Frame::data(line)), (api, changed, revision)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        let mut reply = Response::new(StreamBody::new(lines.boxed()).boxed_unsync());
        reply.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        reply
    }
}

impl State {
    fn store(&mut self, kind: &'static str, path: &str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if kind == "DELETED" {
            self.objects.remove(path);
        } else {
            self.objects.insert(path.to_owned(), object.clone());
        }
        self.history.push((self.revision, kind, path.to_owned(), object.clone()));
        object
    }

    fn act(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
        if method == Method::GET {
            if let Some(object) = self.objects.get(path) {
                return (200, object.clone());
            }
            let is_collection = path.rsplit('/').next().is_some_and(|last| last.ends_with('s') && !last.contains('-'));
            if !is_collection {
                return (404, failure(404, "not found"));
            }
            let (prefix, name) = (format!("{path}/"), selected_name(query));
            let items: Vec<&Value> = self
                .objects
                .iter()
                .filter(|(at, object)| {
                    at.starts_with(&prefix)
                        && name.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str())
                })
                .map(|(_, object)| object)
                .collect();
            let metadata = json!({"resourceVersion": self.revision.to_string()});
            return (200, json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}));
        }
        let Ok(object) = serde_json::from_slice::<Value>(body) else { return (400, failure(400, "not JSON")) };
        if method == Method::POST {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{path}/{name}");
            if self.objects.contains_key(&path) {
                return (409, failure(409, "exists"));
            }
            return (201, self.store("ADDED", &path, object));
        }
        if method == Method::PUT {
            let Some(old) = self.objects.get(path) else { return (404, failure(404, "not found")) };
            let wanted = &object["metadata"]["resourceVersion"];
            if !wanted.is_null() && *wanted != old["metadata"]["resourceVersion"] {
                return (409, failure(409, "the object has been modified"));
            }
            return (200, self.store("MODIFIED", path, object));
        }
        (405, failure(405, "this test server has GET, POST and PUT"))
    }
}

fn parameter(query: &str, key: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
}

fn selected_name(query: &str) -> Option<String> {
    parameter(query, "fieldSelector")?.strip_prefix("metadata.name%3D").map(str::to_owned)
}

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason})
}

fn status(code: u16, message: &str) -> Reply {
    reply(code, &failure(code, message))
}

fn reply(code: u16, value: &Value) -> Reply {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).expect("tests use valid codes");
    reply.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    reply
}

/// Files in memory that a test can change under a running process.
#[derive(Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl MemoryFiles {
    /// Writes a file.
    pub fn write(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.lock().insert(path.to_owned(), content.into());
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        self.lock().remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.lock().get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let dir = format!("{}/", dir.trim_end_matches('/'));
        let files = self.lock();
        let below = files.keys().filter_map(|path| path.strip_prefix(&dir));
        let names: BTreeSet<&str> = below.filter_map(|path| path.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }
}

/// A host for a test: the pod `name`, with an identity of the same name, on the first day of 2026.
pub fn test_host(name: &str, namespace: &str, api: &TinyApi, files: &MemoryFiles, net: Arc<dyn Net>) -> Host {
    Host {
        args: vec![name.to_owned()],
        env: BTreeMap::new(),
        hostname: name.to_owned(),
        client: api.client(name, namespace),
        namespace: namespace.to_owned(),
        files: Arc::new(files.clone()),
        net,
        clock: Clock::anchored("2026-01-01T00:00:00Z".parse().expect("a valid time")),
        seed: 1,
        verbosity: Verbosity::fixed(),
        stop: CancellationToken::new(),
    }
}

/// An open HTTPS connection that trusts everybody, as a kubelet's probe does.
pub type Connection = (hyper::client::conn::http1::SendRequest<Full<Bytes>>, Vec<u8>);

/// Connects and returns the connection with the server's certificate (DER).
///
/// # Errors
/// Nothing listens, or the handshake fails.
pub async fn connect(net: &dyn Net, addr: SocketAddr) -> anyhow::Result<Connection> {
    let config = crate::tls::unverified()?.with_no_client_auth();
    let stream = net.connect(addr).await?;
    let name = rustls::pki_types::ServerName::from(addr.ip());
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().map(|certificate| certificate.to_vec()).unwrap_or_default();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok((sender, certificate))
}

/// The certificate a server shows.
///
/// # Errors
/// Nothing listens, or the handshake fails.
pub async fn served_certificate(net: &dyn Net, addr: SocketAddr) -> anyhow::Result<Vec<u8>> {
    Ok(connect(net, addr).await?.1)
}

/// One GET over HTTPS.
///
/// # Errors
/// No connection or no answer.
pub async fn get(net: &dyn Net, addr: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    request(net, addr, Method::GET, path, Vec::new()).await
}

/// One POST of a JSON document over HTTPS.
///
/// # Errors
/// No connection or no answer.
pub async fn post(net: &dyn Net, addr: SocketAddr, path: &str, body: Vec<u8>) -> anyhow::Result<(StatusCode, String)> {
    request(net, addr, Method::POST, path, body).await
}

/// One request over HTTPS.
///
/// # Errors
/// No connection or no answer.
pub async fn request(
    net: &dyn Net,
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, _) = connect(net, addr).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", addr.to_string())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
