//! The Secrets and bundles of the certificates, as objects. What is stored and still serves is kept byte for byte.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kubevirt_api::kubevirt::CertificateLifetimes;
use kubevirt_api::names::annotation;
use kubevirt_release::certificates::{self as table, Bundle, CertificateSpec, Usage};
use kubevirt_release::{Kind, Object, ObjectKey};
use serde_json::{Map, Value, json};

use crate::cache::{Objects, text};
use crate::certificates::{self, Error, KeyCert, Leaf, Lifetime, Unfit};

/// The wanted Secrets and ConfigMaps, and when one of them is due next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Issued {
    pub(crate) objects: Vec<Object>,
    pub(crate) due: Option<Timestamp>,
    /// Each certificate that was made anew, and why.
    pub(crate) renewed: Vec<(&'static str, Unfit)>,
}

/// Keeps every certificate of the table that serves, and makes the others.
///
/// # Errors
/// The cryptographic library refused.
pub(crate) fn issue(
    namespace: &str,
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
    for spec in table::all(namespace) {
        let CertificateSpec { secret, common_name, dns_names, usage, mounts: _ } = spec;
        let stored = stored(live, namespace, secret);
        let leaf = Leaf { common_name, dns_names };
        let (issuer, lifetime) = match usage {
            Usage::Authority { .. } => (None, authority_life),
            Usage::Server { issuer } | Usage::Client { issuer } => (authorities.get(issuer), leaf_life),
        };
        let state = match issuer {
            None => certificates::check_authority(&stored, now, lifetime),
            Some(issuer) => certificates::check_leaf(&stored, &leaf, issuer, now, lifetime),
        };
        let (kept, due) = match state {
            Ok(due) => (stored, due),
            Err(unfit) => {
                issued.renewed.push((secret, unfit));
                let made = match issuer {
                    None => certificates::new_authority(&leaf.common_name, now, lifetime)?,
                    Some(issuer) => certificates::issue(issuer, &leaf, now, lifetime)?,
                };
                // Looked at again at once: the next pass finds it stored and says when it is due.
                (made, now)
            }
        };
        if due > now {
            issued.due = Some(issued.due.map_or(due, |earliest| earliest.min(due)));
        }
        issued.objects.push(secret_object(namespace, secret, &kept, lifetime, stamps));
        if issuer.is_none() {
            authorities.insert(secret, kept);
        }
    }
    for Bundle { config_map, authority } in table::BUNDLES {
        let stored = bundle_of(live, namespace, config_map);
        let content = match authority.and_then(|secret| authorities.get(secret)) {
            Some(current) => certificates::bundle(&current.certificate, stored, now),
            // The drop box belongs to whoever drops something in.
            None => stored.to_owned(),
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

fn stored(live: &Objects, namespace: &str, secret: &str) -> KeyCert {
    let object = live.get(&ObjectKey::new(Kind::Secret, Some(namespace), secret));
    let field = |name: &str| {
        let encoded = object.and_then(|object| object.get("data")?.get(name)?.as_str()).unwrap_or_default();
        BASE64.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    KeyCert { certificate: field(table::CERTIFICATE_KEY), key: field(table::PRIVATE_KEY_KEY) }
}

fn bundle_of<'a>(live: &'a Objects, namespace: &str, config_map: &str) -> &'a str {
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

    fn made(live: &Objects, now: Timestamp) -> Issued {
        issue("kubevirt-test", live, LIFETIMES, &BTreeMap::new(), now).expect("certificates")
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
    fn a_new_authority_re_signs_its_leaves_and_the_old_one_stays_trusted() {
        let first = made(&Objects::new(), at(0));
        let mut live = as_live(&first);
        live.remove(&ObjectKey::new(Kind::Secret, Some("kubevirt-test"), table::CA));
        let second = made(&live, at(10));
        assert!(second.renewed.contains(&(table::VIRT_API, Unfit::WrongAuthority)), "{:?}", second.renewed);
        assert!(!second.renewed.iter().any(|(secret, _)| *secret == table::BACKUP_CA));
        let bundle =
            second.objects.iter().find(|object| object.kind() == Kind::ConfigMap && object.name() == table::CA);
        let content = bundle.and_then(|bundle| text(bundle.value(), "/data/ca-bundle")).expect("a bundle");
        assert_eq!(content.matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        assert_eq!([go_duration(604_800), go_duration(90), go_duration(5)], ["168h0m0s", "1m30s", "5s"]);
    }
}
