//! The HTTPS transport: HTTP/1.1 and HTTP/2 over TLS, client certificates optional.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::core::Core;
use crate::identity::UserInfo;
use crate::pki::{Pki, PkiError};
use crate::server::{ApiService, Peer};

/// A client that does not finish its TLS handshake in this time is not one of ours; it would hold a task for ever.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Requests under way at shutdown get this long; watches are ended by the server itself, so little is left to wait for.
const DRAIN: Duration = Duration::from_secs(5);
/// After a failed accept (out of file descriptors, most likely) the next try waits, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Each open watch of an HTTP/2 client is a stream on its one connection; a client with a thousand informers is still a client.
const MAX_STREAMS: u32 = 1000;

/// Why serving ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Serves until `stop` is cancelled, then drains.
pub(crate) async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    pki: &Pki,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(Arc::new(pki.server_config()?));
    // Err: it serves twice, with one way to the nodes.
    let _ = core.nodes.set(crate::logs::connector(pki)?);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (core, acceptor) = (core.clone(), acceptor.clone());
                tokio::spawn(connection(core, acceptor, stream, address.ip().to_string(), graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    core.stopping.cancel();
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("connections were still open when the server ended");
    }
    Ok(())
}

async fn connection(core: Arc<Core>, acceptor: TlsAcceptor, stream: TcpStream, address: String, watcher: Watcher) {
    // Without it small watch events wait for an acknowledgement; failing to set it costs only that.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, address, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let user = stream.get_ref().1.peer_certificates().and_then(|chain| user_of(chain.first()?));
    let service = TowerToHyperService::new(ApiService { core, peer: Peer { user, address, remote: true } });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(MAX_STREAMS);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// The user of a client certificate that TLS has verified: CN is the name, each O a group.
fn user_of(certificate: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    Some(UserInfo::new(name, &groups))
}
