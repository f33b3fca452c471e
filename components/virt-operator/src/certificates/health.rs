//! How a stored certificate fares for those who have to trust it (pure). Renewal is another question, which comes earlier.

use jiff::Timestamp;

use super::{Bundle, KeyCert, Leaf, check_key, check_names, parse, parse_pem, validity};

/// What is wrong with a certificate, the worst last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// More than half of the time is over in which it was to be renewed.
    ExpiringSoon,
    Missing,
    /// Nobody who trusts the published authorities accepts it.
    NotVerifiable(String),
    Expired,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its Secret.
    pub secret: &'static str,
    pub expires: Option<Timestamp>,
    pub problem: Option<Problem>,
    /// It was not signed by the current authority, but by one before it.
    pub by_earlier: bool,
}

/// How a certificate fares: a leaf of an authority, or an authority when `leaf` and `authority` are missing. `published` is
/// what clients were told to trust.
pub fn health(
    secret: &'static str,
    stored: &KeyCert,
    leaf: Option<(&Leaf, &KeyCert)>,
    published: &Bundle,
    renew_before: u64,
    now: Timestamp,
) -> Health {
    let mut found = Health { secret, expires: None, problem: None, by_earlier: false };
    if stored.certificate.trim().is_empty() {
        found.problem = Some(Problem::Missing);
        return found;
    }
    let until = match validity(&stored.certificate) {
        Ok((_, until)) => until,
        Err(unfit) => {
            found.problem = Some(Problem::NotVerifiable(unfit.to_string()));
            return found;
        }
    };
    found.expires = Timestamp::from_second(until).ok();
    let left = until - now.as_second();
    let verified = match leaf {
        Some((leaf, authority)) => verify(stored, leaf, published, now).map(|signer| {
            found.by_earlier = signer != Bundle::parse(&authority.certificate).to_pem();
        }),
        None if published.has(&stored.certificate) => Ok(()),
        None => Err("it is not published".to_owned()),
    };
    found.problem = match verified {
        _ if left <= 0 => Some(Problem::Expired),
        Err(why) => Some(Problem::NotVerifiable(why)),
        Ok(()) if left < i64::try_from(renew_before / 2).unwrap_or(i64::MAX) => Some(Problem::ExpiringSoon),
        Ok(()) => None,
    };
    found
}

/// The authority that vouches for a leaf.
fn verify(stored: &KeyCert, leaf: &Leaf, published: &Bundle, now: Timestamp) -> Result<String, String> {
    let pem = parse_pem(&stored.certificate).map_err(|unfit| unfit.to_string())?;
    let certificate = parse(&pem).map_err(|unfit| unfit.to_string())?;
    check_key(&certificate, &stored.key).map_err(|unfit| unfit.to_string())?;
    check_names(&certificate, leaf).map_err(|unfit| unfit.to_string())?;
    let signer = published.signer(stored, now).map_err(|_| "no published authority signed it".to_owned())?;
    Ok(signer.certificate)
}

#[cfg(test)]
mod tests {
    use super::super::{Lifetime, issue, new_authority};
    use super::*;

    const LIFETIME: Lifetime = Lifetime { duration: 1_000, renew_before: 200 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    #[test]
    fn the_worst_that_is_wrong_is_told() {
        let leaf = Leaf { common_name: "a".into(), dns_names: vec!["a.svc".into()] };
        let long = Lifetime { duration: 9_000, renew_before: 200 };
        let authority = new_authority("ca", at(0), long).expect("an authority");
        let pair = issue(&authority, &leaf, at(0), LIFETIME).expect("a certificate");
        let published = Bundle::parse(&authority.certificate);
        let look = |pair: &KeyCert, published: &Bundle, second| {
            health("s", pair, Some((&leaf, &authority)), published, LIFETIME.renew_before, at(second)).problem
        };
        assert_eq!(look(&pair, &published, 0), None);
        assert_eq!(look(&pair, &published, 850), None, "its renewal is due, and no more");
        assert_eq!(look(&pair, &published, 901), Some(Problem::ExpiringSoon));
        assert_eq!(look(&pair, &published, 1_000), Some(Problem::Expired));
        assert!(matches!(look(&pair, &Bundle::default(), 0), Some(Problem::NotVerifiable(_))));
        let empty = KeyCert { certificate: String::new(), key: String::new() };
        assert_eq!(look(&empty, &published, 0), Some(Problem::Missing));
        let other_key = KeyCert { key: authority.key.clone(), ..pair.clone() };
        assert!(matches!(look(&other_key, &published, 0), Some(Problem::NotVerifiable(_))));
        let broken = KeyCert { certificate: "nothing".into(), ..pair.clone() };
        assert!(matches!(look(&broken, &published, 0), Some(Problem::NotVerifiable(_))));
        assert_eq!(health("s", &authority, None, &published, 200, at(0)).problem, None);
        assert!(health("s", &authority, None, &Bundle::default(), 200, at(0)).problem.is_some(), "unpublished");

        let next = new_authority("ca", at(10), long).expect("an authority");
        let both = Bundle::parse(&format!("{}{}", next.certificate, authority.certificate));
        let found = health("s", &pair, Some((&leaf, &next)), &both, 200, at(20));
        assert_eq!((found.problem, found.by_earlier), (None, true));
    }
}
