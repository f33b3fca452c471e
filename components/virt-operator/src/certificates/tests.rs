use jiff::Timestamp;

use super::{Bundle, KeyCert, Leaf, Lifetime, Unfit, check_authority, check_leaf, issue, new_authority, self_made};

const CA: Lifetime = Lifetime { duration: 7 * 86_400, renew_before: 86_400 };
const SERVER: Lifetime = Lifetime { duration: 86_400, renew_before: 3_600 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn leaf(name: &str) -> Leaf {
    Leaf { common_name: name.to_owned(), dns_names: vec![format!("{name}.kubevirt.svc"), name.to_owned()] }
}

fn authority() -> KeyCert {
    new_authority("kubevirt.io", at(0), CA).expect("an authority")
}

#[test]
fn what_was_issued_is_fit_until_it_is_due() {
    let ca = authority();
    assert_eq!(check_authority(&ca, at(0), CA), Ok(at(6 * 86_400)));
    let issued = issue(&ca, &leaf("virt-api"), at(10), SERVER).expect("a leaf");
    assert_eq!(check_leaf(&issued, &leaf("virt-api"), &ca, at(11), SERVER), Ok(at(10 + 86_400 - 3_600)));
    assert_eq!(check_leaf(&issued, &leaf("virt-api"), &ca, at(86_400), SERVER), Err(Unfit::Due));
    assert_eq!(check_authority(&ca, at(-1), CA), Err(Unfit::NotYetValid));
}

#[test]
fn each_fault_has_its_name() {
    let ca = authority();
    let issued = issue(&ca, &leaf("virt-api"), at(0), SERVER).expect("a leaf");
    let other = issue(&ca, &leaf("virt-api"), at(0), SERVER).expect("a leaf");
    let check = |stored: &KeyCert, wanted: &str, ca: &KeyCert| {
        check_leaf(stored, &leaf(wanted), ca, at(1), SERVER).expect_err("a fault")
    };
    let wiped = KeyCert { certificate: String::new(), key: String::new() };
    assert_eq!(check(&wiped, "virt-api", &ca), Unfit::Missing);
    let mixed = KeyCert { key: other.key, ..issued.clone() };
    assert_eq!(check(&mixed, "virt-api", &ca), Unfit::WrongKey);
    assert_eq!(check(&issued, "virt-api", &authority()), Unfit::WrongAuthority);
    assert!(matches!(check(&issued, "virt-handler", &ca), Unfit::WrongName { .. }));
    let garbled = KeyCert { certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), ..issued.clone() };
    assert!(matches!(check(&garbled, "virt-api", &ca), Unfit::Unreadable(_)));
    assert_eq!(check_authority(&issued, at(1), CA), Err(Unfit::NoAuthority));
}

#[test]
fn a_bundle_keeps_earlier_authorities_while_they_last_and_each_once() {
    const OVERLAP: u64 = 5 * 86_400;
    let (old, new) = (authority(), new_authority("kubevirt.io", at(3 * 86_400), CA).expect("an authority"));
    let next = |stored: &str, current: &KeyCert, leaves: &[KeyCert], day: i64| {
        Bundle::parse(stored).next(current, &Bundle::default(), leaves, at(day * 86_400), OVERLAP).to_pem()
    };
    let count = |bundle: &str| bundle.matches("BEGIN CERTIFICATE").count();
    let both = next(&next("", &old, &[], 0), &new, &[], 3);
    assert_eq!(count(&both), 2);
    assert_eq!(next(&both, &new, &[], 3), both, "a bundle of a bundle is the same bundle");
    assert_eq!(count(&next(&both, &new, &[], 7)), 1, "the old authority has run out");
    assert_eq!(count(&next("not a certificate", &new, &[], 3)), 1);
    let brief = |leaves: &[KeyCert]| {
        count(&Bundle::parse(&both).next(&new, &Bundle::default(), leaves, at(4 * 86_400), 60).to_pem())
    };
    assert_eq!(brief(&[]), 1, "the overlap is over");
    let leaf = issue(&old, &leaf("virt-api"), at(86_400), Lifetime { duration: 5 * 86_400, renew_before: 60 })
        .expect("a leaf");
    assert_eq!(brief(&[leaf]), 2, "something is still signed by it");
}

#[test]
fn a_self_made_certificate_is_made_out_to_its_name() {
    let own = self_made(&leaf("virt-operator"), at(0), SERVER).expect("a certificate");
    assert_eq!(check_leaf(&own, &leaf("virt-operator"), &own, at(1), SERVER), Ok(at(86_400 - 3_600)));
}

#[test]
fn a_key_is_never_printed() {
    let ca = authority();
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}
