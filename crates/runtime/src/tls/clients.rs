//! Client certificates that are accepted but not demanded: whoever shows one must have it from a known authority.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// The authorities of clients, which may change while a server runs. Without any, no client certificate is asked for.
#[derive(Clone)]
pub struct ClientAuthorities {
    provider: Arc<CryptoProvider>,
    current: Arc<Mutex<Option<Arc<dyn ClientCertVerifier>>>>,
}

impl std::fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientAuthorities").finish_non_exhaustive()
    }
}

impl Default for ClientAuthorities {
    fn default() -> Self {
        Self { provider: Arc::new(rustls::crypto::ring::default_provider()), current: Arc::default() }
    }
}

impl ClientAuthorities {
    /// Takes over a bundle of certificates in PEM; what is no authority in it vouches for nobody.
    pub fn set(&self, bundle: &str) {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok) {
            if let Err(error) = roots.add(authority) {
                tracing::warn!(%error, "a certificate of the clients' bundle is no authority");
            }
        }
        let verifier = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
            builder
                .allow_unauthenticated()
                .build()
                .inspect_err(|error| tracing::warn!(%error, "the clients' bundle is of no use"))
                .ok()
        };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = verifier;
    }

    fn current(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientCertVerifier for ClientAuthorities {
    fn offer_client_auth(&self) -> bool {
        self.current().is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one certificate at most for this server and needs no hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.current() {
            Some(current) => current.verify_client_cert(certificate, chain, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
