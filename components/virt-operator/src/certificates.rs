//! Certificates: issuing them, and telling whether one that is stored still serves.
//!
//! The time is handed in. Keys come from the cryptographic library's own source of randomness, as they must; nothing else
//! here is left to chance, and which Secret holds which certificate is the release's table, not this module's.

mod health;
mod key;
mod trust;
mod unfit;

use std::collections::BTreeSet;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, Pem, X509Certificate};

pub use health::{Health, Problem, health};
pub(crate) use trust::signs_from;
pub use trust::{Bundle, PROPAGATION};
pub use unfit::Unfit;

/// A certificate and its key, both as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyCert {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for KeyCert {
    /// A key is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCert").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a leaf certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub common_name: String,
    pub dns_names: Vec<String>,
}

/// How long a certificate lives, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub duration: u64,
    /// How long before its end it is replaced.
    pub renew_before: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    #[error("the authority's certificate cannot be read: {0}")]
    Authority(Unfit),
}

/// A new authority. The issue time in its name tells one generation from the next.
///
/// # Errors
/// The cryptographic library refused.
pub fn new_authority(name: &str, now: Timestamp, lifetime: Lifetime) -> Result<KeyCert, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("{name}@{}", now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut params, now.as_second(), now.as_second().saturating_add_unsigned(lifetime.duration));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(KeyCert { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A leaf, signed by an authority. It is never valid before its authority nor after it.
///
/// # Errors
/// The authority is unreadable or the cryptographic library refused.
pub fn issue(authority: &KeyCert, leaf: &Leaf, now: Timestamp, lifetime: Lifetime) -> Result<KeyCert, Error> {
    let (from, until) = validity(&authority.certificate).map_err(Error::Authority)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, key::read(&authority.key)?)?;
    let mut params = leaf_params(leaf)?;
    set_validity(&mut params, from, now.as_second().saturating_add_unsigned(lifetime.duration).min(until));
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(KeyCert { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A certificate that signs itself, for a server that must answer before the first Secret exists.
///
/// # Errors
/// The cryptographic library refused.
pub fn self_made(leaf: &Leaf, now: Timestamp, lifetime: Lifetime) -> Result<KeyCert, Error> {
    let mut params = leaf_params(leaf)?;
    set_validity(&mut params, now.as_second(), now.as_second().saturating_add_unsigned(lifetime.duration));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(KeyCert { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn leaf_params(leaf: &Leaf) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(leaf.dns_names.clone())?;
    params.distinguished_name = named(&leaf.common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    // Components talk to each other with the same certificate in both roles.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Seconds since 1970.
fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let at = |second: i64| {
        let since = std::time::Duration::from_secs(u64::try_from(second).unwrap_or_default());
        date_time_ymd(1970, 1, 1) + since
    };
    params.not_before = at(from);
    params.not_after = at(until);
}

/// Whether a stored authority still serves, and until when it need not be looked at again.
///
/// # Errors
/// Why it does not.
pub fn check_authority(stored: &KeyCert, now: Timestamp, lifetime: Lifetime) -> Result<Timestamp, Unfit> {
    let pem = parse_pem(&stored.certificate)?;
    let certificate = parse(&pem)?;
    if !certificate.is_ca() {
        return Err(Unfit::NoAuthority);
    }
    check_key(&certificate, &stored.key)?;
    check_time(&certificate, now, lifetime.renew_before)
}

/// Whether a stored leaf still serves, and until when it need not be looked at again.
///
/// # Errors
/// Why it does not.
pub fn check_leaf(
    stored: &KeyCert,
    leaf: &Leaf,
    authority: &KeyCert,
    now: Timestamp,
    lifetime: Lifetime,
) -> Result<Timestamp, Unfit> {
    let pem = parse_pem(&stored.certificate)?;
    let certificate = parse(&pem)?;
    let authority_pem = parse_pem(&authority.certificate)?;
    let authority = parse(&authority_pem)?;
    if certificate.issuer() != authority.subject()
        || certificate.verify_signature(Some(authority.public_key())).is_err()
    {
        return Err(Unfit::WrongAuthority);
    }
    check_key(&certificate, &stored.key)?;
    check_names(&certificate, leaf)?;
    check_time(&certificate, now, lifetime.renew_before)
}

fn parse_pem(text: &str) -> Result<Pem, Unfit> {
    if text.trim().is_empty() {
        return Err(Unfit::Missing);
    }
    match Pem::iter_from_buffer(text.as_bytes()).next() {
        Some(Ok(pem)) => Ok(pem),
        Some(Err(error)) => Err(Unfit::Unreadable(error.to_string())),
        None => Err(Unfit::Unreadable("no certificate in it".to_owned())),
    }
}

fn parse(pem: &Pem) -> Result<X509Certificate<'_>, Unfit> {
    let (_, certificate) =
        X509Certificate::from_der(&pem.contents).map_err(|error| Unfit::Unreadable(error.to_string()))?;
    Ok(certificate)
}

/// How long a certificate has to live; none of what cannot be read.
pub(crate) fn seconds_left(pem: &str, now: Timestamp) -> Option<u64> {
    let (_, until) = validity(pem).ok()?;
    u64::try_from(until - now.as_second()).ok()
}

fn validity(pem: &str) -> Result<(i64, i64), Unfit> {
    let pem = parse_pem(pem)?;
    let certificate = parse(&pem)?;
    Ok((certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp()))
}

fn check_key(certificate: &X509Certificate<'_>, key: &str) -> Result<(), Unfit> {
    if key.trim().is_empty() {
        return Err(Unfit::Missing);
    }
    let key = key::read(key).map_err(|error| Unfit::Unreadable(format!("its key: {error}")))?;
    if *certificate.public_key().subject_public_key.data == *key.public_key_raw() {
        Ok(())
    } else {
        Err(Unfit::WrongKey)
    }
}

fn check_time(certificate: &X509Certificate<'_>, now: Timestamp, renew_before: u64) -> Result<Timestamp, Unfit> {
    let validity = certificate.validity();
    if validity.not_before.timestamp() > now.as_second() {
        return Err(Unfit::NotYetValid);
    }
    let due = validity.not_after.timestamp().saturating_sub_unsigned(renew_before);
    if due <= now.as_second() {
        return Err(Unfit::Due);
    }
    Timestamp::from_second(due).map_err(|error| Unfit::Unreadable(error.to_string()))
}

fn check_names(certificate: &X509Certificate<'_>, leaf: &Leaf) -> Result<(), Unfit> {
    let wrong = |found: String, wanted: &str| Err(Unfit::WrongName { found, wanted: wanted.to_owned() });
    let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if common_name != Some(leaf.common_name.as_str()) {
        return wrong(common_name.unwrap_or("nobody").to_owned(), &leaf.common_name);
    }
    let found: BTreeSet<String> = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    match leaf.dns_names.iter().find(|wanted| !found.contains(*wanted)) {
        Some(wanted) => wrong(found.into_iter().collect::<Vec<_>>().join(", "), wanted),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
