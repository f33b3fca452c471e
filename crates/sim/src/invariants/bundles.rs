//! S6: whoever checks a certificate of the suite, now, finds its authority in the bundle he was given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kubevirt_release::Kind;
use nanokube::Nanokube;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

/// Whether the rule held after the last commit: a third party may break it, the operator must not.
pub(super) struct Bundles {
    held: bool,
}

impl Default for Bundles {
    fn default() -> Self {
        Self { held: true }
    }
}

/// The authority whose bundle clients of the suite use.
const AUTHORITY: &str = "kubevirt-ca";
const RESOURCES: [&str; 5] = [
    "secrets",
    "configmaps",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "apiservices.apiregistration.k8s.io",
];

fn pems(data: &[u8]) -> Vec<Pem> {
    Pem::iter_from_buffer(data).filter_map(Result::ok).filter(|pem| pem.label == "CERTIFICATE").collect()
}

fn decoded(text: &str) -> Vec<u8> {
    // What is no base64 holds no certificate.
    BASE64.decode(text).unwrap_or_default()
}

/// The bundles that clients hold: the published one, and those inside webhooks and aggregated APIs of the suite.
fn bundles(sight: &Sight<'_>) -> Vec<(String, Vec<Pem>)> {
    let mut found = Vec::new();
    if let Some(map) = sight.api.stored("", "configmaps", NAMESPACE, AUTHORITY) {
        found.push((format!("ConfigMap {AUTHORITY}"), pems(text(&map, "/data/ca-bundle").as_bytes())));
    }
    let kinds = [Kind::ValidatingWebhookConfiguration, Kind::MutatingWebhookConfiguration];
    for kind in kinds {
        for object in sight.api.stored_all(kind.group(), kind.plural()) {
            for webhook in object.pointer("/webhooks").and_then(Value::as_array).into_iter().flatten() {
                let is_ours = text(webhook, "/clientConfig/service/namespace") == NAMESPACE;
                let bundle = text(webhook, "/clientConfig/caBundle");
                if is_ours && !bundle.is_empty() {
                    found.push((format!("{kind} {}", text(&object, "/metadata/name")), pems(&decoded(bundle))));
                }
            }
        }
    }
    let kind = Kind::APIService;
    for object in sight.api.stored_all(kind.group(), kind.plural()) {
        let bundle = text(&object, "/spec/caBundle");
        if text(&object, "/spec/service/namespace") == NAMESPACE && !bundle.is_empty() {
            found.push((format!("{kind} {}", text(&object, "/metadata/name")), pems(&decoded(bundle))));
        }
    }
    found
}

/// The certificates of the suite, by Secret.
pub(crate) fn certificates(api: &Nanokube) -> Vec<(String, Pem)> {
    let secrets = api.stored_all("", "secrets").into_iter().filter(|secret| {
        text(secret, "/metadata/namespace") == NAMESPACE && text(secret, "/type") == "kubernetes.io/tls"
    });
    secrets
        .filter_map(|secret| {
            let pem = pems(&decoded(text(&secret, "/data/tls.crt"))).into_iter().next()?;
            Some((text(&secret, "/metadata/name").to_owned(), pem))
        })
        .collect()
}

/// Those that servers and clients show to each other.
fn leaves(sight: &Sight<'_>) -> Vec<(String, Pem)> {
    let is_authority = |pem: &Pem| pem.parse_x509().is_ok_and(|certificate| certificate.is_ca());
    certificates(sight.api).into_iter().filter(|(_, pem)| !is_authority(pem)).collect()
}

fn vouches(authority: &X509Certificate<'_>, leaf: &X509Certificate<'_>, now: Timestamp) -> bool {
    let lives = |certificate: &X509Certificate<'_>| {
        (certificate.validity.not_before.timestamp()..=certificate.validity.not_after.timestamp())
            .contains(&now.as_second())
    };
    lives(authority) && leaf.verify_signature(Some(authority.public_key())).is_ok()
}

fn broken(sight: &Sight<'_>) -> Option<String> {
    let bundles = bundles(sight);
    for (secret, leaf) in leaves(sight) {
        let Ok(leaf) = leaf.parse_x509() else { continue };
        for (client, authorities) in &bundles {
            let vouched = authorities
                .iter()
                .any(|authority| authority.parse_x509().is_ok_and(|authority| vouches(&authority, &leaf, sight.now)));
            if !vouched {
                return Some(format!(
                    "no authority in the bundle of {client} vouches for the certificate in Secret {secret}"
                ));
            }
        }
    }
    None
}

impl Invariant for Bundles {
    fn id(&self) -> &'static str {
        "S6"
    }

    fn states(&self) -> &'static str {
        "each certificate of the suite chains to an authority in every client's bundle"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if !RESOURCES.contains(&&*sight.transition.resource) {
            return Verdict::NotConcerned;
        }
        let held = std::mem::replace(&mut self.held, true);
        match broken(sight) {
            None => Verdict::Holds,
            Some(why) => {
                self.held = false;
                // What somebody else broke, the operator repairs in several writes.
                if held && sight.by_operator() { Verdict::Broken(why) } else { Verdict::Holds }
            }
        }
    }
}
