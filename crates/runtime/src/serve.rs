//! An HTTPS server over any [`Listener`]: bounded connections, a deadline for every silent peer, and a drain that lets
//! requests under way finish.
//!
//! It speaks HTTP/1.1 only. Every client of these processes (API server, kubelet, Prometheus, virtctl behind the API
//! server) speaks it, upgrades need it, and one open request per connection is what makes the bound on connections a
//! bound on work.

mod body;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use body::{BODY_BYTES, BODY_TIMEOUT, BodyError, read_body};

use crate::net::{BoxStream, Listener};

/// Connections served at a time; more wait in the listener's queue. A connection costs some 40 KiB (TLS and HTTP buffers),
/// so this bounds them at 10 MiB, while three API servers, kubelet and Prometheus together keep some dozens.
pub const CONNECTIONS: usize = 256;

/// A handshake needs a few round trips; the slowest client that matters is a kubelet with a probe timeout of 10 s.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent between requests or within a request's head. Longer than the 90 s for which
/// clients written in Go keep an idle connection, so that it is they who close it and no request meets a closing server.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(100);

/// How long a drain waits for requests under way: what is left of the usual grace period of 30 s for leaving in order.
pub const DRAIN: Duration = Duration::from_secs(20);

/// Pause after a failed accept (out of file descriptors, usually): long enough not to spin, short enough for a probe.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub type Request = http::Request<Incoming>;
pub type Response = http::Response<Full<Bytes>>;

/// What answers requests.
pub type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// Makes a [`Handler`] of an async function.
pub fn handler<F, R>(answer: F) -> Handler
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    Arc::new(move |request| Box::pin(answer(request)))
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because [`DRAIN`] was over.
    pub cut_off: usize,
}

/// Serves until `stop` is cancelled; then closes the port, tells clients to go, and waits for requests under way. Dropping
/// the future drops every connection.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    tls: Arc<ServerConfig>,
    handler: Handler,
    stop: CancellationToken,
) -> Drained {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // A place first: what cannot be served is not accepted.
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let served = connection(stream, acceptor.clone(), Arc::clone(&handler), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = served.await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                sleep(ACCEPT_RETRY).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let deadline = Instant::now() + DRAIN;
    while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
    let cut_off = connections.len();
    if cut_off > 0 {
        tracing::warn!(cut_off, "connections were still open at the end of the drain");
    }
    Drained { cut_off }
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the TLS handshake took more than {HANDSHAKE_TIMEOUT:?}")]
    HandshakeTimeout,
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

async fn connection(
    stream: BoxStream,
    acceptor: TlsAcceptor,
    handler: Handler,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| ConnectionError::HandshakeTimeout)?
        .map_err(ConnectionError::Handshake)?;
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(served);
    tokio::select! {
        done = served.as_mut() => return Ok(done?),
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    Ok(served.await?)
}

/// A response with a plain text.
pub fn text(status: http::StatusCode, body: impl Into<String>) -> Response {
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// A response with a JSON document.
pub fn json(status: http::StatusCode, body: &serde_json::Value) -> Response {
    respond(status, "application/json", body.to_string())
}

fn respond(status: http::StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = http::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
