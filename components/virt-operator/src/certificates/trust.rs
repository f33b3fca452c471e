//! What clients are told to trust: the current authority, those before it while they last, and those from outside.
//!
//! A new authority is published first and signs only once clients had time to learn of it: at no instant does a server
//! show a certificate that a client has no authority for.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use x509_parser::prelude::{Pem, X509Certificate};

use super::{FromDer, KeyCert, Unfit, parse, parse_pem};

/// From the publication of a new authority until it signs. Components follow the published bundle by a watch and have it
/// within a second; one that just lost its connection has it again after its back-off. Users expect certificates to
/// change within two minutes after the authority was replaced.
pub const PROPAGATION: Duration = Duration::from_secs(60);

/// Earlier authorities that are kept: far more than overlap even with the shortest lifetimes, and still a small file.
const KEPT: usize = 50;

/// A published bundle: certificates of authorities, without duplicates, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle(Vec<Vec<u8>>);

impl Bundle {
    /// What can be read of a bundle as it is stored.
    pub fn parse(text: &str) -> Self {
        let mut seen = BTreeSet::new();
        let certificates = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok).map(|pem| pem.contents);
        Self(certificates.filter(|der| seen.insert(der.clone())).collect())
    }

    /// Whether an authority is in it.
    pub fn has(&self, authority: &str) -> bool {
        der(authority).is_some_and(|der| self.0.contains(&der))
    }

    /// Whether everything that `other` would add is in it.
    pub fn has_all(&self, other: &Self) -> bool {
        other.0.iter().all(|der| self.0.contains(der))
    }

    /// The authorities somebody from outside wants to be trusted: those that are authorities and valid now.
    pub fn acceptable(&self, now: Timestamp) -> Self {
        let is_acceptable =
            |der: &&Vec<u8>| X509Certificate::from_der(der).is_ok_and(|(_, one)| one.is_ca() && is_valid(&one, now));
        Self(self.0.iter().filter(is_acceptable).cloned().collect())
    }

    /// The valid authority in it that signed a stored certificate, as PEM.
    pub fn signer(&self, stored: &KeyCert, now: Timestamp) -> Result<KeyCert, Unfit> {
        let pem = parse_pem(&stored.certificate)?;
        let leaf = parse(&pem)?;
        let signer = self.0.iter().find(|der| {
            X509Certificate::from_der(der).is_ok_and(|(_, one)| {
                is_valid(&one, now)
                    && leaf.issuer() == one.subject()
                    && leaf.verify_signature(Some(one.public_key())).is_ok()
            })
        });
        signer.map(|der| KeyCert { certificate: encode(der), key: String::new() }).ok_or(Unfit::WrongAuthority)
    }

    /// What is to be published: the current authority, authorities from outside for as long as they are valid, and our
    /// own earlier ones while they are valid and either the current one is younger than `overlap` or one of `leaves` is
    /// still signed by them.
    pub fn next(&self, current: &KeyCert, outside: &Self, leaves: &[KeyCert], now: Timestamp, overlap: u64) -> Self {
        let family = |der: &[u8]| {
            let (_, one) = X509Certificate::from_der(der).ok()?;
            let name = one.subject().iter_common_name().next()?.as_str().ok()?;
            Some(name.split_once('@')?.0.to_owned())
        };
        let Some(own) = der(&current.certificate) else { return self.clone() };
        let is_young = age(&own, now).is_none_or(|age| age < overlap);
        let in_use: Vec<String> =
            leaves.iter().filter_map(|leaf| self.signer(leaf, now).ok()).map(|signer| signer.certificate).collect();
        let stays = |der: &&Vec<u8>| {
            let Ok((_, one)) = X509Certificate::from_der(der) else { return false };
            let is_ours = family(der).is_some() && family(der) == family(&own);
            is_valid(&one, now) && (!is_ours || is_young || in_use.contains(&encode(der)))
        };
        let mut seen = BTreeSet::from([own.clone()]);
        let earlier = self.0.iter().filter(stays).chain(&outside.0);
        let kept: Vec<Vec<u8>> = earlier.filter(|der| seen.insert((*der).clone())).take(KEPT).cloned().collect();
        Self([own].into_iter().chain(kept).collect())
    }

    /// As it is stored.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|der| encode(der)).collect()
    }
}

/// Since when an authority exists, in seconds.
fn age(der: &[u8], now: Timestamp) -> Option<u64> {
    let (_, one) = X509Certificate::from_der(der).ok()?;
    u64::try_from(now.as_second() - one.validity().not_before.timestamp()).ok()
}

/// When an authority may begin to sign what another one still vouches for.
pub(crate) fn signs_from(authority: &str) -> Option<Timestamp> {
    let pem = parse_pem(authority).ok()?;
    let one = parse(&pem).ok()?;
    let born = Timestamp::from_second(one.validity().not_before.timestamp()).ok()?;
    born.checked_add(PROPAGATION).ok()
}

fn is_valid(certificate: &X509Certificate<'_>, now: Timestamp) -> bool {
    let validity = certificate.validity();
    (validity.not_before.timestamp()..validity.not_after.timestamp()).contains(&now.as_second())
}

fn der(pem: &str) -> Option<Vec<u8>> {
    parse_pem(pem).ok().map(|pem| pem.contents)
}

fn encode(der: &[u8]) -> String {
    use base64::Engine as _;
    /// PEM's line length.
    const LINE: usize = 64;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
