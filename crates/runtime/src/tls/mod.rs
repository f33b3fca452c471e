//! TLS of a server whose certificate changes under it.
//!
//! The certificate is looked at on every handshake and every probe, and parsed again only when its files changed: two
//! small reads from a memory-backed volume are cheaper than anything that watches files, and there is no moment at
//! which an old certificate is served because a notification was lost. A server without a readable certificate serves
//! a self-made one, so that whoever asks why it is not ready gets an answer.
//!
//! This module does not decide what being without a certificate means for readiness.

mod check;
mod clients;
mod probe;
mod unverified;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, WantsVerifier};

pub use check::{Invalid, Validity, Wanted, check};
pub use clients::ClientAuthorities;
pub use probe::{PROBE_TIMEOUT, ProbeError, probe};
pub use unverified::{as_kubernetes, unverified};

use crate::clock::Clock;
use crate::host::{Files, Host};

/// A certificate file larger than this is not one: a chain of ten certificates has some 20 KiB.
const FILE_BYTES: usize = 256 * 1024;

/// Where a certificate lies, and what it must be good for.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    pub certificate: String,
    pub key: String,
    pub wanted: Vec<Wanted>,
}

impl CertificateFiles {
    /// `tls.crt` and `tls.key` in the directory a `kubernetes.io/tls` Secret is mounted at.
    pub fn in_dir(dir: &str, wanted: Vec<Wanted>) -> Self {
        let dir = dir.trim_end_matches('/');
        Self { certificate: format!("{dir}/tls.crt"), key: format!("{dir}/tls.key"), wanted }
    }
}

/// The TLS library could not be set up: a mistake of the program, not of its surroundings.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct SetupError(#[from] rustls::Error);

/// A certificate that follows its files.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    files: Arc<dyn Files>,
    paths: CertificateFiles,
    clock: Clock,
    /// Name in the self-made certificate.
    own_name: String,
    provider: Arc<CryptoProvider>,
    cache: Mutex<Option<Loaded>>,
    fallback: OnceLock<Option<Arc<CertifiedKey>>>,
}

/// What the files held when they were last read.
struct Loaded {
    certificate: Vec<u8>,
    key: Vec<u8>,
    parsed: Result<Arc<CertifiedKey>, Invalid>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("paths", &self.0.paths).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads nothing yet.
    pub fn new(host: &Host, paths: CertificateFiles) -> Self {
        Self(Arc::new(Inner {
            files: Arc::clone(&host.files),
            paths,
            clock: host.clock.clone(),
            own_name: host.hostname.clone(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            cache: Mutex::new(None),
            fallback: OnceLock::new(),
        }))
    }

    /// Whether the certificate that is in the files now may be served now.
    ///
    /// # Errors
    /// What is wrong with it, naming the file.
    pub fn state(&self) -> Result<Validity, Invalid> {
        let key = self.0.current()?;
        let leaf = key.end_entity_cert().map_err(|error| Invalid::NoCertificate {
            file: self.0.paths.certificate.clone(),
            reason: error.to_string(),
        })?;
        check(&self.0.paths.certificate, leaf, &self.0.paths.wanted, self.0.clock.now())
    }

    /// A server configuration that serves this certificate as it changes; HTTP/1.1 only, without client certificates.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, SetupError> {
        let config = self.builder()?.with_no_client_auth();
        Ok(finished(config.with_cert_resolver(Arc::new(Resolver(Arc::clone(&self.0))))))
    }

    /// As [`Self::server_config`]; a client may show a certificate, and is refused if none of `clients` signed it.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn server_config_for(&self, clients: &ClientAuthorities) -> Result<Arc<ServerConfig>, SetupError> {
        let config = self.builder()?.with_client_cert_verifier(Arc::new(clients.clone()));
        Ok(finished(config.with_cert_resolver(Arc::new(Resolver(Arc::clone(&self.0))))))
    }

    fn builder(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, SetupError> {
        let now = Arc::new(probe::Now(self.0.clock.clone()));
        let builder = ServerConfig::builder_with_details(Arc::clone(&self.0.provider), now);
        Ok(builder.with_safe_default_protocol_versions()?)
    }
}

fn finished(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would skip the certificate; clients here connect rarely enough to afford a full handshake.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

impl Inner {
    /// The key pair in the files, parsed again only if they changed.
    fn current(&self) -> Result<Arc<CertifiedKey>, Invalid> {
        let certificate = self.read(&self.paths.certificate)?;
        let key = self.read(&self.paths.key)?;
        let mut cache = self.lock();
        if let Some(loaded) = &*cache
            && loaded.certificate == certificate
            && loaded.key == key
        {
            return loaded.parsed.clone();
        }
        let parsed = self.parse(&certificate, &key).map(Arc::new);
        *cache = Some(Loaded { certificate, key, parsed: parsed.clone() });
        parsed
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Invalid> {
        let file = path.to_owned();
        match self.files.read(path) {
            Ok(content) if content.len() > FILE_BYTES => {
                let reason = format!("it has {} bytes, more than the {FILE_BYTES} a chain may have", content.len());
                Err(Invalid::Unreadable { file, reason })
            }
            Ok(content) => Ok(content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Invalid::Missing { file }),
            Err(error) => Err(Invalid::Unreadable { file, reason: error.to_string() }),
        }
    }

    fn parse(&self, certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, Invalid> {
        let file = self.paths.certificate.clone();
        let malformed = |reason: String| Invalid::NoCertificate { file: file.clone(), reason };
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| malformed(error.to_string()))?;
        if chain.is_empty() {
            return Err(malformed("there is no CERTIFICATE section".to_owned()));
        }
        let no_key = |reason: String| Invalid::NoKey { file: self.paths.key.clone(), reason };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| no_key(error.to_string()))?;
        let key = self.provider.key_provider.load_private_key(key).map_err(|error| no_key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // Unknown: the key cannot tell its public half; a mismatch would show in the handshake.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(Invalid::KeyMismatch { file: file.clone(), key_file: self.paths.key.clone() })
            }
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// The self-made certificate, made when it is first needed.
    fn fallback(&self) -> Option<Arc<CertifiedKey>> {
        self.fallback
            .get_or_init(|| match self_made(&self.own_name, &self.provider) {
                Ok(key) => Some(Arc::new(key)),
                Err(error) => {
                    tracing::error!(%error, "no self-made certificate; handshakes will fail");
                    None
                }
            })
            .clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, thiserror::Error)]
enum SelfMadeError {
    #[error(transparent)]
    Made(#[from] rcgen::Error),
    #[error(transparent)]
    Loaded(#[from] rustls::Error),
}

/// Its period is rcgen's default, which is always: nobody is meant to trust it.
fn self_made(name: &str, provider: &CryptoProvider) -> Result<CertifiedKey, SelfMadeError> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    Ok(CertifiedKey::new(vec![made.cert.der().clone()], provider.key_provider.load_private_key(key)?))
}

struct Resolver(Arc<Inner>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("certificate", &self.0.paths.certificate).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A certificate with a wrong name or period is served as it is: the client's own message is the best one.
        self.0.current().ok().or_else(|| self.0.fallback())
    }
}

#[cfg(test)]
mod tests;
