//! What a node serves to the API server: the logs of its containers, at a kubelet's port and path.
//!
//! HTTPS with a certificate the node made itself, as a kubelet's is by default. A caller shows a client certificate of the
//! cluster's authority and must be allowed `get` on `nodes/proxy`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerState, Pod};
use kube::Api;
use kube::api::PostParams;
use nanokube_controllers::cache::Name;
use nanokube_controllers::pods::node_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::log::{Query, render};
use super::{ENDPOINT_PORT, Log, SetupError, Shared};
use crate::fleet::Fleet;
use crate::node::Machine;

/// Where an API server says whose client certificates are good.
const AUTHORITY: (&str, &str, &str) = ("kube-system", "extension-apiserver-authentication", "client-ca-file");
/// Pause after a failed look for the authority, or a failed accept: a person who waits for logs hardly notices.
const RETRY: Duration = Duration::from_secs(1);
/// The API server is on this machine or near; a caller that shakes hands for longer is none.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections of one node at a time: each is one `kubectl logs`, and each follower costs a task only.
const CONNECTIONS: usize = 64;

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// Serves one node for ever.
pub(crate) async fn serve(fleet: Arc<Fleet>, machine: Machine, shared: Arc<Shared>) {
    let acceptor = loop {
        match acceptor(&fleet, &machine).await {
            Ok(acceptor) => break acceptor,
            Err(why) => debug!(node = machine.name, why, "no log endpoint yet, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let addr = SocketAddr::new(machine.ip, ENDPOINT_PORT);
    let listener = loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => break listener,
            Err(source) => warn!(error = %SetupError::Listen { addr, source }, "no logs from this node, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let at = At { fleet: fleet.clone(), node: machine.name.clone(), shared: shared.clone() };
                connections.spawn(connection(stream, acceptor.clone(), at));
            }
            Err(error) => {
                warn!(node = machine.name, %error, "accepting a connection failed");
                tokio::time::sleep(RETRY).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// TLS with the cluster's authority for callers.
async fn acceptor(fleet: &Fleet, machine: &Machine) -> Result<TlsAcceptor, String> {
    let (namespace, name, key) = AUTHORITY;
    let maps: Api<ConfigMap> = Api::namespaced(fleet.options.client.clone(), namespace);
    let map = maps.get(name).await.map_err(|error| error.to_string())?;
    let pem = map.data.and_then(|mut data| data.remove(key)).ok_or_else(|| format!("{name} has no {key}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let own = rcgen::generate_simple_self_signed([machine.name.clone(), machine.ip.to_string()])
        .map_err(|error| SetupError::Certificate(error.to_string()).to_string())?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(str::to_owned)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.cert.der().clone()], key)
        .map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Where a request arrives.
#[derive(Clone)]
struct At {
    fleet: Arc<Fleet>,
    node: String,
    shared: Arc<Shared>,
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, at: At) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(node = at.node, %error, "TLS handshake failed"),
        Err(_) => return,
    };
    let caller = stream.get_ref().1.peer_certificates().and_then(|chain| caller(chain.first()?));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (at, caller) = (at.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer(&at, caller, &request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let served = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!(%error, "a connection ended");
    }
}

/// Name and groups of a client certificate.
fn caller(certificate: &[u8]) -> Option<(String, Vec<String>)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    Some((name, groups))
}

async fn allowed(at: &At, caller: Option<(String, Vec<String>)>) -> Result<bool, kube::Error> {
    let Some((user, groups)) = caller else { return Ok(false) };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user),
            groups: Some(groups),
            resource_attributes: Some(ResourceAttributes {
                verb: Some("get".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some("proxy".to_owned()),
                version: Some("v1".to_owned()),
                name: Some(at.node.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(at.fleet.options.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    streamed(code, stream::iter([Bytes::copy_from_slice(text.as_bytes())]).boxed())
}

fn streamed(code: StatusCode, parts: BoxStream<'static, Bytes>) -> Response<Body> {
    let body = StreamBody::new(parts.map(|part| Ok(Frame::data(part))).boxed());
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

async fn answer(at: &At, caller: Option<(String, Vec<String>)>, request: &Request<Incoming>) -> Response<Body> {
    match allowed(at, caller).await {
        Ok(true) => {}
        Ok(false) => return text(StatusCode::FORBIDDEN, "Forbidden"),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("authorization failed: {error}")),
    }
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let ["containerLogs", namespace, pod, container] = path.as_slice() else {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    };
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let now = at.fleet.options.clock.now();
    let asked = match parse(request.uri().query().unwrap_or_default(), now) {
        Ok(asked) => asked,
        Err(why) => return text(StatusCode::BAD_REQUEST, &why),
    };
    let known = at.fleet.read(|objects| objects.pods.get(&Name::new(*namespace, *pod)).cloned());
    let Some(known) = known.filter(|known| node_name(known) == Some(at.node.as_str())) else {
        return text(StatusCode::NOT_FOUND, &format!("pod \"{pod}\" does not exist"));
    };
    match find(at, &known, pod, container, asked.previous) {
        Ok(log) => streamed(StatusCode::OK, lines(log, asked.query)),
        Err(why) => text(StatusCode::BAD_REQUEST, &why),
    }
}

/// The log that is asked for, or why there is none.
fn find(at: &At, pod: &Pod, name: &str, container: &str, previous: bool) -> Result<Arc<Log>, String> {
    let logs = at.shared.logs(pod.metadata.uid.as_deref().unwrap_or_default(), container);
    if previous {
        let log = logs.and_then(|logs| logs.previous);
        return log.ok_or_else(|| format!("previous terminated container \"{container}\" in pod \"{name}\" not found"));
    }
    if let Some(logs) = logs {
        return Ok(logs.current);
    }
    let status = pod.status.as_ref();
    let mut states = status.into_iter().flat_map(|status| {
        let own = status.container_statuses.iter().flatten();
        own.chain(status.init_container_statuses.iter().flatten())
    });
    let state = states.find(|state| state.name == container).and_then(|state| state.state.clone());
    let reason = state.and_then(|ContainerState { waiting, .. }| waiting?.reason);
    let why = reason.unwrap_or_else(|| "ContainerCreating".to_owned());
    Err(format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}"))
}

/// The lines as they are and, if asked for, as they come.
fn lines(log: Arc<Log>, query: Query) -> BoxStream<'static, Bytes> {
    struct Reader {
        log: Arc<Log>,
        changed: tokio::sync::watch::Receiver<u64>,
        next: u64,
        left: usize,
        done: bool,
        query: Query,
    }
    let changed = log.subscribe();
    let (next, left) = (log.start(&query), query.limit.unwrap_or(usize::MAX));
    let reader = Reader { log, changed, next, left, done: false, query };
    stream::unfold(reader, |mut reader| async move {
        loop {
            if reader.done || reader.left == 0 {
                return None;
            }
            reader.changed.borrow_and_update();
            let (found, next, open) = reader.log.read(reader.next);
            reader.next = next;
            reader.done = !open || !reader.query.follow;
            if !found.is_empty() {
                let mut out = render(&found, reader.query.timestamps);
                out.truncate(reader.left);
                reader.left -= out.len();
                return Some((Bytes::from(out), reader));
            }
            if !reader.done && reader.changed.changed().await.is_err() {
                return None;
            }
        }
    })
    .boxed()
}

#[derive(Debug, Default, PartialEq)]
struct Asked {
    previous: bool,
    query: Query,
}

/// Reads a query; the parameters are those of `PodLogOptions`.
fn parse(text: &str, now: Timestamp) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = decode(value);
        let wrong = || format!("{key}: invalid value \"{value}\"");
        let number = || value.parse::<i64>().ok().and_then(|number| usize::try_from(number).ok()).ok_or_else(wrong);
        let flag = || match value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong()),
        };
        match key {
            "follow" => asked.query.follow = flag()?,
            "previous" => asked.previous = flag()?,
            "timestamps" => asked.query.timestamps = flag()?,
            "tailLines" => asked.query.tail = Some(number()?),
            "limitBytes" => asked.query.limit = Some(number()?),
            "sinceTime" => asked.query.since = Some(value.parse().map_err(|_| wrong())?),
            "sinceSeconds" => {
                let ago = SignedDuration::from_secs(i64::try_from(number()?).map_err(|_| wrong())?);
                asked.query.since = Some(now.saturating_sub(ago).map_err(|_| wrong())?);
            }
            // Others are for the API server, or newer than this node.
            _ => {}
        }
    }
    Ok(asked)
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (bytes[at], digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let asked = parse("follow=true&tailLines=3&sinceSeconds=60&previous=true", now).expect("good");
        assert!(asked.previous && asked.query.follow);
        assert_eq!((asked.query.tail, asked.query.since), (Some(3), "2026-01-01T00:00:00Z".parse().ok()));
        let asked = parse("sinceTime=2026-01-01T00%3A00%3A30Z", now).expect("good");
        assert_eq!(asked.query.since, "2026-01-01T00:00:30Z".parse().ok());
        assert_eq!(parse("tailLines=-1", now).unwrap_err(), "tailLines: invalid value \"-1\"");
    }

    #[tokio::test]
    async fn a_follower_sees_what_comes_and_the_end() {
        let log = Arc::new(Log::new());
        log.push(Timestamp::UNIX_EPOCH, b"one".to_vec());
        let mut following = lines(log.clone(), Query { follow: true, ..Query::default() });
        assert_eq!(following.next().await.as_deref(), Some(b"one\n".as_slice()));
        log.push(Timestamp::UNIX_EPOCH, b"two".to_vec());
        assert_eq!(following.next().await.as_deref(), Some(b"two\n".as_slice()));
        log.close();
        assert_eq!(following.next().await, None);
        let limited = lines(log, Query { limit: Some(5), ..Query::default() }).collect::<Vec<_>>().await;
        assert_eq!(limited.concat(), b"one\nt");
    }
}
