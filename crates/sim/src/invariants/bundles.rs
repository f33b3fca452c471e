//! S6: whoever checks a certificate of the suite, now, finds its authority in the bundle he was given.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use kubevirt_release::Kind;
use nanokube::Nanokube;
use serde_json::Value;
use x509_parser::pem::Pem;

use super::{Invariant, NAMESPACE, Sight, Verdict, text};

/// What held after the last commit: a third party may break the rule, but the operator must not, and must not let time
/// break it either.
pub(super) struct Bundles {
    /// Until when it holds if nobody writes; none when it does not.
    until: Option<Timestamp>,
    signatures: Signatures,
    leader: Leader,
}

impl Default for Bundles {
    fn default() -> Self {
        // Without certificates it holds.
        Self { until: Some(Timestamp::MAX), signatures: Signatures::default(), leader: Leader::default() }
    }
}

/// Who is there to see that time passes.
#[derive(Default)]
struct Leader {
    name: String,
    since: Timestamp,
    /// When the lease was last renewed.
    renewed: Timestamp,
}

/// How long before certificates run out an operator must have been there to be blamed for it: a few passes.
const NOTICE: SignedDuration = SignedDuration::from_secs(60);

/// Who renews its lease more rarely than it lasts was away.
const AWAY: SignedDuration = SignedDuration::from_secs(15);

/// Who signed what, by the content of authority and certificate: it never changes, and to find out takes a while.
#[derive(Default)]
struct Signatures(BTreeMap<(Vec<u8>, Vec<u8>), bool>);

impl Signatures {
    fn signed(&mut self, authority: &Pem, leaf: &Pem) -> bool {
        let key = (authority.contents.clone(), leaf.contents.clone());
        *self.0.entry(key).or_insert_with(|| {
            let (Ok(authority), Ok(leaf)) = (authority.parse_x509(), leaf.parse_x509()) else { return false };
            leaf.verify_signature(Some(authority.public_key())).is_ok()
        })
    }
}

/// The authority whose bundle clients of the suite use.
const AUTHORITY: &str = "kubevirt-ca";
const LEASES: &str = "leases.coordination.k8s.io";
const LEASE: &str = "virt-operator";
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

/// The bundles that clients hold: the published one, and those inside webhooks and aggregated APIs of the suite; each with
/// one of its holders.
fn bundles(sight: &Sight<'_>) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    if let Some(map) = sight.api.stored("", "configmaps", NAMESPACE, AUTHORITY) {
        found.insert(text(&map, "/data/ca-bundle").as_bytes().to_vec(), format!("ConfigMap {AUTHORITY}"));
    }
    let kinds = [Kind::ValidatingWebhookConfiguration, Kind::MutatingWebhookConfiguration, Kind::APIService];
    for kind in kinds {
        for object in sight.api.stored_all(kind.group(), kind.plural()) {
            let webhooks = object.pointer("/webhooks").and_then(Value::as_array).into_iter().flatten();
            let callers = webhooks.filter_map(|webhook| webhook.get("clientConfig")).chain(object.get("spec"));
            for caller in callers.filter(|caller| text(caller, "/service/namespace") == NAMESPACE) {
                let bundle = decoded(text(caller, "/caBundle"));
                if !bundle.is_empty() {
                    let holder = || format!("{kind} {}", text(&object, "/metadata/name"));
                    found.entry(bundle).or_insert_with(holder);
                }
            }
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

/// From when to when a certificate is good, as seconds since 1970; none of what cannot be read.
fn life(pem: &Pem) -> Option<RangeInclusive<i64>> {
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    Some(validity.not_before.timestamp()..=validity.not_after.timestamp())
}

/// Until when the rule holds if nobody writes; why it does not otherwise.
fn holds_until(sight: &Sight<'_>, signatures: &mut Signatures) -> Result<Timestamp, String> {
    let now = sight.now.as_second();
    let bundles: Vec<(Vec<Pem>, String)> =
        bundles(sight).into_iter().map(|(content, holder)| (pems(&content), holder)).collect();
    let mut until = i64::MAX;
    for (secret, leaf) in leaves(sight) {
        let Some(good) = life(&leaf) else { continue };
        if !good.contains(&now) {
            return Err(format!(
                "the certificate in Secret {secret} is valid from {} to {}",
                at(*good.start()),
                at(*good.end())
            ));
        }
        until = until.min(*good.end());
        for (authorities, holder) in &bundles {
            let vouching = authorities.iter().filter(|authority| signatures.signed(authority, &leaf));
            let lasting = vouching.filter_map(life).filter(|life| life.contains(&now)).map(|life| *life.end()).max();
            let Some(lasting) = lasting else {
                return Err(format!(
                    "no authority in the bundle of {holder} vouches for the certificate in Secret {secret}"
                ));
            };
            until = until.min(lasting);
        }
    }
    Ok(at(until))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

impl Invariant for Bundles {
    fn id(&self) -> &'static str {
        "S6"
    }

    fn states(&self) -> &'static str {
        "each certificate of the suite chains to an authority in every client's bundle"
    }

    fn check(&mut self, sight: &Sight<'_>) -> Verdict {
        if sight.is_of(LEASES) && sight.transition.namespace() == NAMESPACE && sight.transition.name() == LEASE {
            return self.while_time_passes(sight);
        }
        if !RESOURCES.contains(&&*sight.transition.resource) {
            return Verdict::NotConcerned;
        }
        let held = self.until.is_some_and(|until| sight.now <= until);
        match holds_until(sight, &mut self.signatures) {
            Ok(until) => self.until = Some(until),
            Err(why) => {
                self.until = None;
                // What somebody else broke, or time in nobody's presence, the operator repairs in several writes.
                if held && sight.by_operator() {
                    return Verdict::Broken(why);
                }
            }
        }
        Verdict::Holds
    }
}

impl Bundles {
    /// At each renewal of the lease: nothing has run out since the last that its holder could have renewed.
    fn while_time_passes(&mut self, sight: &Sight<'_>) -> Verdict {
        let Some(lease) = sight.transition.after() else { return Verdict::NotConcerned };
        let (holder, now) = (text(lease, "/spec/holderIdentity"), sight.now);
        let renewed = std::mem::replace(&mut self.leader.renewed, now);
        if self.leader.name != holder || now.duration_since(renewed) > AWAY {
            self.leader = Leader { name: holder.to_owned(), since: now, renewed: now };
        }
        let noticed = self.leader.since.checked_add(NOTICE).unwrap_or(Timestamp::MAX);
        match self.until {
            Some(until) if noticed <= until && (renewed..now).contains(&until) => {
                Verdict::Broken(format!("a certificate ran out at {until}, although {holder} was there to renew it"))
            }
            _ => Verdict::NotConcerned,
        }
    }
}
