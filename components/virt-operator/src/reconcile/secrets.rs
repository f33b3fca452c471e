//! The Secrets and bundles of the certificates, as objects. What is stored and still serves is kept byte for byte.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kubevirt_api::kubevirt::CertificateLifetimes;
use kubevirt_api::names::annotation;
use kubevirt_release::certificates::{self as table, CertificateSpec, Usage};
use kubevirt_release::{Kind, Object, ObjectKey};
use serde_json::{Map, Value, json};

use crate::cache::{Objects, text};
use crate::certificates::{self, Bundle, Error, KeyCert, Leaf, Lifetime, Unfit};

/// The ConfigMap in which somebody puts authorities from outside.
const DROP_BOX: &str = "kubevirt-external-ca";

/// The wanted Secrets and ConfigMaps, and when one of them is due next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Issued {
    pub(crate) objects: Vec<Object>,
    pub(crate) due: Option<Timestamp>,
    /// Each certificate that was made anew, and why.
    pub(crate) renewed: Vec<(&'static str, Unfit)>,
}

/// Keeps every certificate of a version that serves, and makes the others.
///
/// # Errors
/// The cryptographic library refused.
pub(crate) fn issue(
    namespace: &str,
    specs: Vec<CertificateSpec>,
    live: &Objects,
    lifetimes: CertificateLifetimes,
    stamps: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<Issued, Error> {
    let CertificateLifetimes { ca_duration, ca_renew_before, server_duration, server_renew_before } = lifetimes;
    let authority_life = Lifetime { duration: ca_duration, renew_before: ca_renew_before };
    let leaf_life = Lifetime { duration: server_duration, renew_before: server_renew_before };
    let mut issued = Issued::default();
    let mut authorities: BTreeMap<&str, KeyCert> = BTreeMap::new();
    let mut leaves: BTreeMap<&str, Vec<KeyCert>> = BTreeMap::new();
    for spec in specs {
        let CertificateSpec { secret, common_name, dns_names, usage, mounts: _ } = spec;
        let stored = stored(live, namespace, secret);
        let leaf = Leaf { common_name, dns_names };
        let (kept, due, lifetime) = match usage {
            Usage::Authority { .. } => {
                let fit = certificates::check_authority(&stored, now, authority_life);
                let fit =
                    fit.and_then(|due| lives_as_asked(live, namespace, secret, authority_life, now).map(|()| due));
                let (kept, due) = match fit {
                    Ok(due) => (stored, due),
                    Err(unfit) => {
                        issued.renewed.push((secret, unfit));
                        // Looked at again at once: the next pass finds it stored and says when it is due.
                        (certificates::new_authority(&leaf.common_name, now, authority_life)?, now)
                    }
                };
                authorities.insert(secret, kept.clone());
                (kept, due, authority_life)
            }
            Usage::Server { issuer } | Usage::Client { issuer } => {
                leaves.entry(issuer).or_default().push(stored.clone());
                let Some(authority) = authorities.get(issuer) else { continue };
                let published = Published { live, namespace, issuer };
                let life = lives_as_asked(live, namespace, secret, leaf_life, now);
                match published.judge(&stored, &leaf, authority, now, leaf_life, life) {
                    Judgement::Keep { due } => (stored, due, leaf_life),
                    Judgement::Issue { unfit } => {
                        issued.renewed.push((secret, unfit));
                        (certificates::issue(authority, &leaf, now, leaf_life)?, now, leaf_life)
                    }
                    Judgement::Hold => {
                        let key = ObjectKey::new(Kind::Secret, Some(namespace), secret);
                        issued
                            .objects
                            .extend(live.get(&key).and_then(|live| Object::from_value(Value::clone(live)).ok()));
                        continue;
                    }
                }
            }
        };
        if due > now {
            issued.due = Some(issued.due.map_or(due, |earliest| earliest.min(due)));
        }
        issued.objects.push(secret_object(namespace, secret, &kept, lifetime, stamps));
    }
    let dropped = Bundle::parse(bundle_of(live, namespace, DROP_BOX)).acceptable(now);
    let is_part = |bundle: &&table::Bundle| bundle.authority.is_none_or(|secret| authorities.contains_key(secret));
    for table::Bundle { config_map, authority } in table::BUNDLES.iter().filter(is_part) {
        let stored = Bundle::parse(bundle_of(live, namespace, config_map));
        let content = match authority.and_then(|secret| Some((secret, authorities.get(secret)?))) {
            Some((secret, current)) => {
                let outside = if secret == table::CA { dropped.clone() } else { Bundle::default() };
                let leaves = leaves.get(secret).map(Vec::as_slice).unwrap_or_default();
                stored.next(current, &outside, leaves, now, ca_renew_before).to_pem()
            }
            // What was dropped in is taken out once it is published, and what is of no use at once.
            None if Bundle::parse(bundle_of(live, namespace, table::CA)).has_all(&dropped) => String::new(),
            None => bundle_of(live, namespace, config_map).to_owned(),
        };
        issued.objects.push(object(
            namespace,
            Kind::ConfigMap,
            config_map,
            stamps,
            json!({
                "data": {table::BUNDLE_KEY: content},
            }),
        ));
    }
    Ok(issued)
}

/// What is done about a leaf.
enum Judgement {
    Keep {
        due: Timestamp,
    },
    Issue {
        unfit: Unfit,
    },
    /// Its authority has to be published first: it is left as it is in this round.
    Hold,
}

/// What clients were told about an authority.
struct Published<'a> {
    live: &'a Objects,
    namespace: &'a str,
    issuer: &'static str,
}

impl Published<'_> {
    /// Every bundle that clients hold. None: nobody was told anything yet.
    fn bundles(&self) -> Vec<Bundle> {
        let map = ObjectKey::new(Kind::ConfigMap, Some(self.namespace), self.issuer);
        let published =
            self.live.contains_key(&map).then(|| Bundle::parse(bundle_of(self.live, self.namespace, self.issuer)));
        let called = self.live.iter().flat_map(|(key, object)| match key.kind {
            Kind::ValidatingWebhookConfiguration | Kind::MutatingWebhookConfiguration => {
                let webhooks = object.get("webhooks").and_then(Value::as_array).into_iter().flatten();
                webhooks.filter_map(|webhook| text(webhook, "/clientConfig/caBundle")).collect::<Vec<_>>()
            }
            Kind::APIService => text(object, "/spec/caBundle").into_iter().collect(),
            _ => Vec::new(),
        });
        let decode = |bundle: &str| BASE64.decode(bundle).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let called = called.filter_map(decode).filter(|bundle| !bundle.is_empty()).map(|bundle| Bundle::parse(&bundle));
        published.into_iter().chain(called).collect()
    }

    fn judge(
        &self,
        stored: &KeyCert,
        leaf: &Leaf,
        authority: &KeyCert,
        now: Timestamp,
        lifetime: Lifetime,
        life: Result<(), Unfit>,
    ) -> Judgement {
        let fit = certificates::check_leaf(stored, leaf, authority, now, lifetime);
        let unfit = match fit.and_then(|due| life.map(|()| due)) {
            Ok(due) => return Judgement::Keep { due },
            Err(unfit) => unfit,
        };
        let bundles = self.bundles();
        let (known, told) = (bundles.iter().filter(|bundle| bundle.has(&authority.certificate)).count(), bundles.len());
        if unfit == Unfit::WrongAuthority {
            // An earlier authority may vouch for it until everybody knows the current one.
            let vouched = bundles.iter().map(|bundle| {
                let signer = bundle.signer(stored, now)?;
                certificates::check_leaf(stored, leaf, &signer, now, lifetime)
            });
            let vouched: Result<Vec<Timestamp>, Unfit> = vouched.collect();
            let signs_from = certificates::signs_from(&authority.certificate).unwrap_or(now);
            if let Ok(due) = vouched
                && told > 0
                && (known < told || now < signs_from)
            {
                return Judgement::Keep { due: due.into_iter().min().unwrap_or(now).min(signs_from) };
            }
        }
        let is_published = |bundle: &Bundle| bundle.has(&authority.certificate);
        if bundles.first().is_none_or(is_published) { Judgement::Issue { unfit } } else { Judgement::Hold }
    }
}

pub(super) fn stored(live: &Objects, namespace: &str, secret: &str) -> KeyCert {
    let object = live.get(&ObjectKey::new(Kind::Secret, Some(namespace), secret));
    let field = |name: &str| {
        let encoded = object.and_then(|object| object.get("data")?.get(name)?.as_str()).unwrap_or_default();
        BASE64.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    KeyCert { certificate: field(table::CERTIFICATE_KEY), key: field(table::PRIVATE_KEY_KEY) }
}

/// Whether a certificate was made for the lifetime that is asked for, as its Secret says. Where somebody took that off, one
/// that has longer to live than any that is made now was not.
fn lives_as_asked(
    live: &Objects,
    namespace: &str,
    secret: &str,
    lifetime: Lifetime,
    now: Timestamp,
) -> Result<(), Unfit> {
    let object = live.get(&ObjectKey::new(Kind::Secret, Some(namespace), secret));
    let annotations = object.and_then(|object| object.pointer("/metadata/annotations"));
    let found = annotations.and_then(|all| all.get(annotation::CERTIFICATE_DURATION)?.as_str()).map(str::to_owned);
    let wanted = go_duration(lifetime.duration);
    let longer = || {
        let left = certificates::seconds_left(&stored(live, namespace, secret).certificate, now)?;
        (left > lifetime.duration).then(|| go_duration(left))
    };
    match found.or_else(longer) {
        Some(found) if found != wanted => Err(Unfit::OtherLifetime { found, wanted }),
        _ => Ok(()),
    }
}

pub(super) fn bundle_of<'a>(live: &'a Objects, namespace: &str, config_map: &str) -> &'a str {
    let object = live.get(&ObjectKey::new(Kind::ConfigMap, Some(namespace), config_map));
    object.and_then(|object| text(object, &format!("/data/{}", table::BUNDLE_KEY))).unwrap_or_default()
}

fn secret_object(
    namespace: &str,
    name: &str,
    pair: &KeyCert,
    lifetime: Lifetime,
    stamps: &BTreeMap<String, String>,
) -> Object {
    let mut stamps = stamps.clone();
    stamps.insert(annotation::CERTIFICATE_DURATION.to_owned(), go_duration(lifetime.duration));
    object(
        namespace,
        Kind::Secret,
        name,
        &stamps,
        json!({
            "type": table::SECRET_TYPE,
            "data": {
                table::CERTIFICATE_KEY: BASE64.encode(&pair.certificate),
                table::PRIVATE_KEY_KEY: BASE64.encode(&pair.key),
            },
        }),
    )
}

fn object(namespace: &str, kind: Kind, name: &str, stamps: &BTreeMap<String, String>, content: Value) -> Object {
    let labels: Map<String, Value> =
        table::LABELS.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    let mut value = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": stamps},
    });
    if let (Some(value), Value::Object(content)) = (value.as_object_mut(), content) {
        value.extend(content);
    }
    Object::from_value(value).expect("Secrets and ConfigMaps are registered kinds and these have names")
}

/// Seconds as Go prints a duration, which is how the annotation is read elsewhere.
fn go_duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LIFETIMES: CertificateLifetimes = CertificateLifetimes {
        ca_duration: 7 * 86_400,
        ca_renew_before: 86_400,
        server_duration: 86_400,
        server_renew_before: 7_200,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    fn issued(live: &Objects, lifetimes: CertificateLifetimes, now: Timestamp) -> Issued {
        let specs = table::all("kubevirt-test");
        issue("kubevirt-test", specs, live, lifetimes, &BTreeMap::new(), now).expect("certificates")
    }

    fn made(live: &Objects, now: Timestamp) -> Issued {
        issued(live, LIFETIMES, now)
    }

    fn as_live(issued: &Issued) -> Objects {
        issued.objects.iter().map(|object| (object.key(), Arc::new(object.value().clone()))).collect()
    }

    #[test]
    fn what_serves_is_kept_byte_for_byte() {
        let first = made(&Objects::new(), at(0));
        assert_eq!(first.renewed.len(), table::all("kubevirt-test").len());
        let again = made(&as_live(&first), at(10));
        assert_eq!(again.renewed, []);
        assert_eq!(again.objects, first.objects);
        assert_eq!(again.due, Some(at(86_400 - 7_200)));
    }

    #[test]
    fn a_wiped_leaf_is_made_again_alone() {
        let first = made(&Objects::new(), at(0));
        let mut live = as_live(&first);
        let key = ObjectKey::new(Kind::Secret, Some("kubevirt-test"), table::VIRT_API);
        let mut wiped = live[&key].as_ref().clone();
        wiped["data"] = json!({});
        live.insert(key, Arc::new(wiped));
        assert_eq!(made(&live, at(10)).renewed, [(table::VIRT_API, Unfit::Missing)]);
    }

    #[test]
    fn another_lifetime_takes_effect_at_once_also_where_nobody_says_what_it_was() {
        let mut live = as_live(&made(&Objects::new(), at(0)));
        let key = ObjectKey::new(Kind::Secret, Some("kubevirt-test"), table::VIRT_API);
        let mut unmarked = live[&key].as_ref().clone();
        unmarked["metadata"]["annotations"] = json!({});
        live.insert(key, Arc::new(unmarked));
        let with = |live: &Objects, server_duration, now| {
            let lifetimes = CertificateLifetimes { server_duration, ..LIFETIMES };
            issue("kubevirt-test", table::all("kubevirt-test"), live, lifetimes, &BTreeMap::new(), now)
                .expect("certificates")
        };
        let renewed = |issued: &Issued| issued.renewed.iter().map(|(secret, _)| *secret).collect::<Vec<_>>();
        let shorter = with(&live, 43_200, at(10));
        let names = renewed(&shorter);
        assert!(names.contains(&table::HANDLER_SERVER) && names.contains(&table::VIRT_API), "{names:?}");
        assert!(!names.contains(&table::CA), "an authority's lifetime is as before");
        assert_eq!(with(&as_live(&shorter), 43_200, at(20)).renewed, []);
        let longer = renewed(&with(&live, 100_000, at(10)));
        assert!(longer.contains(&table::HANDLER_SERVER), "{longer:?}");
        assert!(!longer.contains(&table::VIRT_API), "it may well be one of those that live longer");
    }

    fn bundle(issued: &Issued, name: &str) -> String {
        let map = issued.objects.iter().find(|object| object.kind() == Kind::ConfigMap && object.name() == name);
        map.and_then(|map| text(map.value(), "/data/ca-bundle")).expect("a bundle").to_owned()
    }

    fn count(bundle: &str) -> usize {
        bundle.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn a_new_authority_is_published_first_and_signs_when_clients_know_it() {
        let mut live = as_live(&made(&Objects::new(), at(0)));
        live.remove(&ObjectKey::new(Kind::Secret, Some("kubevirt-test"), table::CA));
        let second = made(&live, at(1_000));
        assert_eq!(second.renewed, [(table::CA, Unfit::Missing)], "the old one still vouches for the leaves");
        assert_eq!(count(&bundle(&second, table::CA)), 2);
        let third = made(&as_live(&second), at(1_059));
        assert_eq!(third.renewed, []);
        assert_eq!(third.due, Some(at(1_060)));
        let fourth = made(&as_live(&third), at(1_060));
        assert!(fourth.renewed.contains(&(table::VIRT_API, Unfit::WrongAuthority)), "{:?}", fourth.renewed);
        assert!(!fourth.renewed.iter().any(|(secret, _)| *secret == table::BACKUP_CA));
        assert_eq!(count(&bundle(&fourth, table::CA)), 2, "old pods still show what the old one signed");
        let later = made(&as_live(&fourth), at(1_060 + 86_400));
        assert_eq!(count(&bundle(&later, table::CA)), 1, "the overlap is over");
    }

    #[test]
    fn a_broken_leaf_waits_for_the_publication_of_an_authority_that_was_just_made() {
        let mut live = as_live(&made(&Objects::new(), at(0)));
        let key = |name| ObjectKey::new(Kind::Secret, Some("kubevirt-test"), name);
        live.remove(&key(table::CA));
        live.remove(&key(table::VIRT_API));
        let second = made(&live, at(1_000));
        assert_eq!(second.renewed, [(table::CA, Unfit::Missing)]);
        let third = made(&as_live(&second), at(1_000));
        assert_eq!(third.renewed, [(table::VIRT_API, Unfit::Missing)]);
    }

    #[test]
    fn authorities_from_outside_are_taken_in_and_kept_and_what_is_none_is_thrown_away() {
        let first = made(&Objects::new(), at(0));
        let outside =
            certificates::new_authority("elsewhere", at(0), Lifetime { duration: 4 * 86_400, renew_before: 0 })
                .expect("an authority");
        let expired = certificates::new_authority("elsewhere", at(-9_000), Lifetime { duration: 60, renew_before: 0 })
            .expect("an authority");
        let box_key = ObjectKey::new(Kind::ConfigMap, Some("kubevirt-test"), DROP_BOX);
        let drop_in = |issued: &Issued, text: String| {
            let mut live = as_live(issued);
            let mut map = live[&box_key].as_ref().clone();
            map["data"]["ca-bundle"] = json!(text);
            live.insert(box_key.clone(), Arc::new(map));
            live
        };
        let twice = format!("{0}{0}{1}", outside.certificate, expired.certificate);
        let second = made(&drop_in(&first, twice.clone()), at(100));
        assert_eq!(count(&bundle(&second, table::CA)), 2, "once, and only the valid one");
        assert_eq!(bundle(&second, DROP_BOX), twice, "not before it is published");
        let third = made(&as_live(&second), at(101));
        assert_eq!(bundle(&third, DROP_BOX), "");
        let fourth = made(&drop_in(&third, "no certificate".to_owned()), at(3 * 86_400));
        assert_eq!(bundle(&fourth, DROP_BOX), "");
        assert_eq!(count(&bundle(&fourth, table::CA)), 2, "kept beyond any overlap");
        let last = made(&as_live(&fourth), at(5 * 86_400));
        assert_eq!(count(&bundle(&last, table::CA)), 1, "until it has run out");
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        assert_eq!([go_duration(604_800), go_duration(90), go_duration(5)], ["168h0m0s", "1m30s", "5s"]);
    }
}
