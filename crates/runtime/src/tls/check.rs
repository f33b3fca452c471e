//! Whether a served certificate is the one its clients will accept. Pure.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A name the certificate must carry because clients ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A DNS name among the subject's alternative names (wildcards count as they do for clients).
    DnsName(String),
    /// The subject's common name, for peers that know each other by role.
    CommonName(String),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DnsName(name) => write!(f, "DNS:{name}"),
            Self::CommonName(name) => write!(f, "CN={name}"),
        }
    }
}

/// Until when a certificate that passed may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Why a certificate may not be served. Every text names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("{file}: the file does not exist; is the Secret there and mounted?")]
    Missing { file: String },
    #[error("{file}: cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("{file}: holds no certificate in PEM form: {reason}")]
    NoCertificate { file: String, reason: String },
    #[error("{file}: holds no usable private key in PEM form: {reason}")]
    NoKey { file: String, reason: String },
    #[error("{file}: the certificate does not belong to the key in {key_file}")]
    KeyMismatch { file: String, key_file: String },
    #[error("{file}: the certificate is not for {wanted}; it is for {}", list(.found))]
    WrongName { file: String, wanted: Wanted, found: Vec<String> },
    #[error("{file}: the certificate is valid only from {from}, now is {now}")]
    NotYetValid { file: String, from: Timestamp, now: Timestamp },
    #[error("{file}: the certificate expired at {until}, now is {now}")]
    Expired { file: String, until: Timestamp, now: Timestamp },
}

impl Invalid {
    /// The case as one word, for metrics and probes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "CertificateMissing",
            Self::Unreadable { .. } => "CertificateUnreadable",
            Self::NoCertificate { .. } => "CertificateMalformed",
            Self::NoKey { .. } => "KeyMalformed",
            Self::KeyMismatch { .. } => "KeyMismatch",
            Self::WrongName { .. } => "CertificateWrongName",
            Self::NotYetValid { .. } => "CertificateNotYetValid",
            Self::Expired { .. } => "CertificateExpired",
        }
    }

    /// Whether this is the same trouble as `other`, found at another time.
    pub fn is_same_trouble(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Expired { file: a, until: u, now: _ }, Self::Expired { file: b, until: v, now: _ }) => {
                a == b && u == v
            }
            (Self::NotYetValid { file: a, from: u, now: _ }, Self::NotYetValid { file: b, from: v, now: _ }) => {
                a == b && u == v
            }
            _ => self == other,
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// Checks the first certificate of a chain read from `file`: its period and that it carries every wanted name.
///
/// The chain up to the authority is the clients' business: a server does not hold what they trust.
///
/// # Errors
/// The first thing that is wrong; an expired certificate says so before anything about its names.
pub fn check(
    file: &str,
    certificate: &CertificateDer<'_>,
    wanted: &[Wanted],
    now: Timestamp,
) -> Result<Validity, Invalid> {
    let malformed = |reason: String| Invalid::NoCertificate { file: file.to_owned(), reason };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| malformed(error.to_string()))?;
    let stamp = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let validity = Validity {
        from: stamp(parsed.validity().not_before.timestamp()),
        until: stamp(parsed.validity().not_after.timestamp()),
    };
    if now < validity.from {
        return Err(Invalid::NotYetValid { file: file.to_owned(), from: validity.from, now: whole_seconds(now) });
    }
    if now > validity.until {
        return Err(Invalid::Expired { file: file.to_owned(), until: validity.until, now: whole_seconds(now) });
    }
    let commons: Vec<&str> = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    for name in wanted {
        let carried = match name {
            Wanted::CommonName(wanted) => commons.contains(&wanted.as_str()),
            Wanted::DnsName(wanted) => carries(certificate, wanted).map_err(malformed)?,
        };
        if !carried {
            let found = names(&parsed, &commons);
            return Err(Invalid::WrongName { file: file.to_owned(), wanted: name.clone(), found });
        }
    }
    Ok(validity)
}

/// Asks what a client's TLS library would say.
fn carries(certificate: &CertificateDer<'_>, name: &str) -> Result<bool, String> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
    let Ok(name) = ServerName::try_from(name) else { return Ok(false) };
    Ok(rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn names(parsed: &X509Certificate<'_>, commons: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = commons.iter().map(|name| format!("CN={name}")).collect();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        found.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| format!("IP:{}", std::net::Ipv4Addr::from(ip))),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|ip| format!("IP:{}", std::net::Ipv6Addr::from(ip))),
                _ => None,
            },
            _ => None,
        }));
    }
    found
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
