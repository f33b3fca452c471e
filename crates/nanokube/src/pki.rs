//! The server's certificates: a CA, the serving certificate, and client certificates it issues.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kubevirt_runtime::clock::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::backend::Identity;
use crate::identity::MASTERS;

/// Certificates live a year: longer than any run, short enough that a leaked key of a test does not stay good for ever.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of client and server may differ; a certificate is valid a little before it was made.
const BACKDATE: Duration = Duration::from_secs(3600);

/// What went wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("the certificate file {path}")]
    File { path: String, source: io::Error },
    #[error("the stored certificates cannot be used: {0}")]
    Parse(String),
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority with a serving certificate and an administrator's client certificate.
#[derive(Clone, Debug)]
pub struct Pki {
    ca: Pair,
    server: Pair,
    admin: Pair,
    clock: Clock,
}

const FILES: [&str; 6] = ["ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"];

impl Pki {
    /// New certificates. The serving certificate is for `localhost`, `127.0.0.1`, the names of the service `kubernetes`,
    /// and `extra_names`.
    ///
    /// # Errors
    /// [`PkiError::Generate`] when a name cannot be in a certificate.
    pub fn generate(clock: &Clock, extra_names: &[String]) -> Result<Self, PkiError> {
        let now = clock.now();
        let mut params = params("nanokube-ca", None, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca = Pair { certificate: issuer.pem(), key: issuer.key().serialize_pem() };
        let names = ["localhost", "127.0.0.1", "::1", "10.96.0.1", "kubernetes", "kubernetes.default"]
            .into_iter()
            .chain(["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"])
            .map(str::to_owned)
            .chain(extra_names.iter().cloned());
        let server = issue(&issuer, "kube-apiserver", None, names.collect(), ExtendedKeyUsagePurpose::ServerAuth, now)?;
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let admin = issue(&issuer, "kubernetes-admin", Some(MASTERS), Vec::new(), usage, now)?;
        Ok(Self { ca, server, admin, clock: clock.clone() })
    }

    /// A client certificate for a user (CN) and a group (O), signed by the CA.
    ///
    /// # Errors
    /// [`PkiError::Generate`].
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Pair, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(&self.ca.certificate, KeyPair::from_pem(&self.ca.key)?)?;
        issue(&issuer, user, group, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, self.clock.now())
    }

    /// The CA certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca.certificate
    }

    /// The administrator's client certificate.
    pub fn admin(&self) -> &Pair {
        &self.admin
    }

    /// Writes `ca.crt`, `client.crt`, `client.key` and what [`Pki::load`] needs; the directory is made if missing.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn store(&self, dir: &Path) -> Result<(), PkiError> {
        std::fs::create_dir_all(dir).map_err(|source| file_error(dir, source))?;
        let texts = [&self.ca, &self.server, &self.admin].map(|pair| [&pair.certificate, &pair.key]);
        for (name, text) in FILES.iter().zip(texts.into_iter().flatten()) {
            let path = dir.join(name);
            write_private(&path, text, name.ends_with(".key")).map_err(|source| file_error(&path, source))?;
        }
        Ok(())
    }

    /// Reads what [`Pki::store`] wrote.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn load(dir: &Path, clock: &Clock) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|source| file_error(&path, source))
        };
        let pair = |name: &str| -> Result<Pair, PkiError> {
            Ok(Pair { certificate: read(&format!("{name}.crt"))?, key: read(&format!("{name}.key"))? })
        };
        Ok(Self { ca: pair("ca")?, server: pair("server")?, admin: pair("client")?, clock: clock.clone() })
    }

    /// A kubeconfig for the administrator, certificates included.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        let data = |text: &str| STANDARD.encode(text);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: nanokube\n  cluster:\n    server: {server_url}\n    \
             certificate-authority-data: {}\ncontexts:\n- name: nanokube\n  context:\n    cluster: nanokube\n    \
             user: admin\ncurrent-context: nanokube\nusers:\n- name: admin\n  user:\n    client-certificate-data: {}\n    \
             client-key-data: {}\n",
            data(&self.ca.certificate),
            data(&self.admin.certificate),
            data(&self.admin.key),
        )
    }

    /// TLS for the server; client certificates are optional and, when given, must be the CA's.
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, PkiError> {
        let parse = |error: rustls_pki_types::pem::Error| PkiError::Parse(error.to_string());
        let ca = CertificateDer::from_pem_slice(self.ca.certificate.as_bytes()).map_err(parse)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::Parse(error.to_string()))?;
        let chain = vec![CertificateDer::from_pem_slice(self.server.certificate.as_bytes()).map_err(parse)?, ca];
        let key = PrivateKeyDer::from_pem_slice(self.server.key.as_bytes()).map_err(parse)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The name under which this server comes to those behind it.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// An Ed25519 key in PKCS #8 is these bytes and its 32 secret ones (RFC 8410).
const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// An authority (in PEM) and the certificate it gave this server to show to aggregated APIs. The keys come from the
/// seed, since the authority is an object of the cluster and two runs of one seed have the same objects.
pub(crate) fn front_proxy(secrets: [[u8; 32]; 2], now: Timestamp) -> Result<(String, Identity), PkiError> {
    let [authority, own] = secrets.map(|secret| PrivatePkcs8KeyDer::from([&ED25519[..], &secret[..]].concat()));
    let key = |der: &PrivatePkcs8KeyDer<'_>| KeyPair::from_pkcs8_der_and_sign_algo(der, &rcgen::PKCS_ED25519);
    let mut parameters = params("front-proxy-ca", None, now)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let issuer = CertifiedIssuer::self_signed(parameters, key(&authority)?)?;
    let mut parameters = params(FRONT_PROXY, None, now)?;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key(&own)?, &issuer)?;
    Ok((issuer.pem(), Identity { chain: vec![certificate.der().clone()], key: PrivateKeyDer::Pkcs8(own) }))
}

fn params(name: &str, group: Option<&str>, now: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    params.distinguished_name = subject;
    // rcgen shows its date type only through this function; adding a duration reaches the second.
    let epoch = date_time_ymd(1970, 1, 1);
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATE.as_secs()));
    params.not_after = epoch + Duration::from_secs(now + LIFETIME.as_secs());
    Ok(params)
}

fn issue(
    issuer: &Issuer<'_, impl rcgen::SigningKey>,
    name: &str,
    group: Option<&str>,
    alt_names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    now: Timestamp,
) -> Result<Pair, PkiError> {
    let mut params = params(name, group, now)?;
    params.subject_alt_names = CertificateParams::new(alt_names)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn file_error(path: &Path, source: io::Error) -> PkiError {
    PkiError::File { path: path.display().to_string(), source }
}

fn write_private(path: &Path, text: &str, private: bool) -> io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    if private {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(text.as_bytes())
}
