//! Whom this server trusts as a server behind it: a bundle of authorities, checked at the time of the server's clock.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::tls::as_kubernetes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::Value;

use super::{CallError, Place};

/// A client certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// How the other side is checked, and what it is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    /// `insecureSkipTLSVerify`: whoever answers is believed.
    blind: bool,
    identity: Option<Arc<Identity>>,
}

impl Trust {
    /// The authorities of a `caBundle`: PEM in base64.
    pub(crate) fn bundle(bundle: &Value) -> Self {
        let pem = bundle.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        // What is not a certificate vouches for nobody.
        let authorities = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        Self { authorities, ..Self::default() }
    }

    /// Believes whoever answers.
    pub(crate) fn blind() -> Self {
        Self { blind: true, ..Self::default() }
    }

    /// Shows a client certificate.
    #[must_use]
    pub(crate) fn with_identity(self, identity: Option<Arc<Identity>>) -> Self {
        Self { identity, ..self }
    }

    pub(super) fn config(&self, clock: &Clock) -> Result<ClientConfig, CallError> {
        let failed = |error: Error| CallError::Tls(format!("tls: {error}"));
        let provider = Arc::new(as_kubernetes());
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            // A bundle may hold what is no authority; it is kept for comparison below.
            let _ = roots.add(authority.clone());
        }
        let inner = if roots.is_empty() {
            None
        } else {
            let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Some(built.map_err(|error| CallError::Tls(format!("tls: {error}")))?)
        };
        let check = Check { inner, pinned: self.authorities.clone(), blind: self.blind, provider: provider.clone() };
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Now(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(check));
        let mut config = match &self.identity {
            Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map_err(failed)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The server's clock, for the periods of certificates.
#[derive(Debug)]
struct Now(Clock);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

#[derive(Debug)]
struct Check {
    inner: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    blind: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.blind {
            return Ok(ServerCertVerified::assertion());
        }
        // A self-made certificate in the bundle vouches for itself, as it does for clients in Go.
        if self.pinned.iter().any(|pinned| pinned == certificate) {
            in_period(certificate, now)?;
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.inner {
            Some(inner) => inner.verify_server_cert(certificate, chain, name, ocsp, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn in_period(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// A failed handshake, in the words clients know.
pub(super) fn explain(error: &std::io::Error, place: &Place) -> CallError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof {
            CallError::Cut
        } else {
            CallError::Tls(error.to_string())
        };
    };
    let why = match tls {
        Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
            CertificateError::Expired
            | CertificateError::NotValidYet
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYetContext { .. } => "certificate has expired or is not yet valid".to_owned(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("certificate is not valid for {}", place.server_name())
            }
            other => other.to_string(),
        },
        other => return CallError::Tls(format!("tls: {other}")),
    };
    CallError::Tls(format!("tls: failed to verify certificate: x509: {why}"))
}
