//! Whether a server shows a certificate that its clients will accept: a handshake, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::net::Net;

/// A handshake inside a cluster takes milliseconds; a server that needs longer than this is too slow for the API server,
/// whose webhooks have 10 s for everything.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a client would not accept a server.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("there is no authority to check the server against")]
    NoAuthority,
    #[error("{0:?} is not a name a server can have")]
    Name(String),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(SocketAddr, io::Error),
    #[error("{0}: {1}")]
    Handshake(SocketAddr, io::Error),
    #[error("{0} did not finish a handshake within {PROBE_TIMEOUT:?}")]
    TooSlow(SocketAddr),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// The injected clock, for the periods of certificates.
#[derive(Debug)]
pub(super) struct Now(pub(super) Clock);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Connects to `addr` and checks what it shows for `name` against a bundle of authorities in PEM.
///
/// # Errors
/// Why a client with this bundle would refuse the server.
pub async fn probe(net: &dyn Net, addr: SocketAddr, name: &str, bundle: &str, clock: &Clock) -> Result<(), ProbeError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok) {
        // A bundle may hold what is no authority; it vouches for nobody.
        let _ = roots.add(authority);
    }
    if roots.is_empty() {
        return Err(ProbeError::NoAuthority);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(Now(clock.clone())))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).map_err(|_| ProbeError::Name(name.to_owned()))?;
    let handshake = async {
        let stream = net.connect(addr).await.map_err(|error| ProbeError::Unreachable(addr, error))?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(server, stream).await.map_err(|error| ProbeError::Handshake(addr, error))
    };
    timeout(PROBE_TIMEOUT, handshake).await.map_err(|_| ProbeError::TooSlow(addr))?.map(drop)
}
