//! What the condition CertificatesReady says (pure, but for what is remembered): every certificate of the suite, judged as
//! those judge it who have to trust it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kubevirt_api::kubevirt::{CertificateLifetimes, ConditionType, ConditionUpdate, Reason};
use kubevirt_release::certificates::{self as table, Usage};
use kubevirt_release::{Kind, ObjectKey};

use super::secrets::{bundle_of, stored};
use crate::cache::{Objects, text};
use crate::certificates::{Bundle, Health, KeyCert, Leaf, Problem, health};

impl Problem {
    /// The reason it is told by.
    pub fn reason(&self) -> Reason {
        match self {
            Self::ExpiringSoon => Reason::CertificateExpiringSoon,
            Self::Missing => Reason::CertificateMissing,
            Self::NotVerifiable(_) => Reason::CertificateNotVerifiable,
            Self::Expired => Reason::CertificateExpired,
        }
    }
}

/// How each certificate fares.
pub(super) fn certificates(
    live: &Objects,
    namespace: &str,
    lifetimes: CertificateLifetimes,
    now: Timestamp,
) -> Vec<Health> {
    let mut authorities: BTreeMap<&str, (KeyCert, Bundle)> = BTreeMap::new();
    let mut found = Vec::new();
    for spec in table::all(namespace) {
        let pair = stored(live, namespace, spec.secret);
        let leaf = Leaf { common_name: spec.common_name, dns_names: spec.dns_names };
        found.push(match spec.usage {
            Usage::Authority { bundle } => {
                let published = Bundle::parse(bundle_of(live, namespace, bundle));
                let one = health(spec.secret, &pair, None, &published, lifetimes.ca_renew_before, now);
                authorities.insert(spec.secret, (pair, published));
                one
            }
            Usage::Server { issuer } | Usage::Client { issuer } => {
                let Some((authority, published)) = authorities.get(issuer) else { continue };
                health(spec.secret, &pair, Some((&leaf, authority)), published, lifetimes.server_renew_before, now)
            }
        });
    }
    found
}

/// What the condition says of them.
pub(super) fn condition(certificates: &[Health]) -> ConditionUpdate {
    let update = |ready: bool, reason, message: String| {
        ConditionUpdate::new(ConditionType::CertificatesReady, ready, reason, message)
    };
    if let Some(worst) = certificates.iter().filter_map(|one| one.problem.as_ref()).max() {
        let told = certificates.iter().filter_map(|one| {
            let why = match one.problem.as_ref()? {
                Problem::ExpiringSoon => format!("was to be renewed, and expires at {}", expiry(one)),
                Problem::Missing => "is missing".to_owned(),
                Problem::NotVerifiable(why) => format!("cannot be verified: {why}"),
                Problem::Expired => format!("has expired at {}", expiry(one)),
            };
            Some(format!("Secret {} {why}", one.secret))
        });
        return update(false, worst.reason(), told.collect::<Vec<_>>().join("; "));
    }
    if certificates.iter().any(|one| one.by_earlier) {
        let message = "A new authority is published; it signs when everybody knows it";
        return update(true, Reason::AuthorityRotating, message.to_owned());
    }
    update(true, Reason::CertificatesValid, "Every certificate is one that clients accept".to_owned())
}

fn expiry(one: &Health) -> String {
    one.expires.map(|at| at.to_string()).unwrap_or_default()
}

/// The last judgement: it holds until a Secret or a bundle changes, or time makes a difference. Signatures are checked in
/// it, which is too dear for every pass of a large roll-out.
#[derive(Default)]
pub struct Judged(Mutex<Option<Judgement>>);

struct Judgement {
    /// What was judged, and in which versions.
    seen: Vec<String>,
    until: Timestamp,
    found: Vec<Health>,
}

impl Judged {
    pub(super) fn certificates(
        &self,
        live: &Objects,
        namespace: &str,
        lifetimes: CertificateLifetimes,
        now: Timestamp,
    ) -> Vec<Health> {
        /// How long time alone makes no difference that matters.
        const HOLDS: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
        let concerned = |key: &&ObjectKey| matches!(key.kind, Kind::Secret | Kind::ConfigMap);
        let mut versions: Vec<String> = live
            .keys()
            .filter(concerned)
            .filter_map(|key| Some(format!("{key} {}", text(live.get(key)?, "/metadata/resourceVersion")?)))
            .collect();
        versions.push(format!("{lifetimes:?}"));
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Judgement { seen, until, found }) = &*last
            && *seen == versions
            && now < *until
        {
            return found.clone();
        }
        let found = certificates(live, namespace, lifetimes, now);
        let until = now.saturating_add(HOLDS).unwrap_or(Timestamp::MAX);
        *last = Some(Judgement { seen: versions, until, found: found.clone() });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(secret: &'static str, problem: Option<Problem>, by_earlier: bool) -> Health {
        Health { secret, expires: Timestamp::from_second(0).ok(), problem, by_earlier }
    }

    #[test]
    fn the_worst_problem_names_the_condition_and_all_are_told() {
        let said = condition(&[
            one("a", None, false),
            one("b", Some(Problem::Missing), false),
            one("c", Some(Problem::Expired), true),
        ]);
        assert_eq!(said.reason, Reason::CertificateExpired);
        assert_eq!(said.message, "Secret b is missing; Secret c has expired at 1970-01-01T00:00:00Z");
        assert_eq!(condition(&[one("a", None, true)]).reason, Reason::AuthorityRotating);
        assert_eq!(condition(&[one("a", None, false)]).reason, Reason::CertificatesValid);
    }
}
