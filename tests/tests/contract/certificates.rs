//! Authorities from outside, and what becomes of certificates that somebody destroys.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubevirt_release::Kind;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Suite};

static CLUSTER: Fixture = Fixture::new(1);

/// The contract's limit for everything here.
const LIMIT: Duration = Duration::from_secs(10);

/// An authority's certificate in PEM, valid until the end of a year.
fn authority(name: &str, until: i32) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 12, 31);
    params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").pem()
}

/// What a PEM holds, whatever its line ends.
fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("---")).collect()
}

fn count(bundle: &Value, pem: &str) -> usize {
    let bundle = body(bundle["data"]["ca-bundle"].as_str().unwrap_or_default());
    bundle.matches(&body(pem)).count()
}

/// Puts text into the drop box and waits until it was taken out.
async fn drop_in(suite: &Suite, text: &str) {
    let filled = json!({"data": {"ca-bundle": text}});
    suite.merge(Kind::ConfigMap, "kubevirt-external-ca", filled).await.expect("the drop box is open");
    let is_blank = |map: &Value| map["data"]["ca-bundle"] == "";
    suite.until(Kind::ConfigMap, "kubevirt-external-ca", "emptied", LIMIT, is_blank).await;
}

#[test]
fn external_ca_manage_what_is_valid_is_published_once_and_kept() {
    CLUSTER.test(async |suite| {
        let (first, second, expired) =
            (authority("first", 2100), authority("second", 2100), authority("expired", 2001));
        drop_in(suite, &first).await;
        suite.until(Kind::ConfigMap, "kubevirt-ca", "with the first", LIMIT, |map| count(map, &first) == 1).await;
        for useless in ["no certificate at all", &expired, &first] {
            drop_in(suite, useless).await;
        }
        drop_in(suite, &format!("{second}{expired}{second}")).await;
        let bundle =
            suite.until(Kind::ConfigMap, "kubevirt-ca", "with both", LIMIT, |map| count(map, &second) == 1).await;
        assert_eq!((count(&bundle, &first), count(&bundle, &expired)), (1, 0));
    });
}

/// The certificate in a Secret.
fn certificate(secret: &Value) -> Option<String> {
    let encoded = secret["data"]["tls.crt"].as_str()?;
    String::from_utf8(BASE64.decode(encoded).ok()?).ok().filter(|pem| pem.contains("BEGIN CERTIFICATE"))
}

/// Overwrites a Secret with nonsense and waits for a new certificate in it.
async fn wiped(suite: &Suite, name: &str) -> String {
    let before = suite.get(Kind::Secret, name).await.as_ref().and_then(certificate).expect("a certificate");
    let nonsense = json!({"data": {"tls.crt": BASE64.encode("nonsense"), "tls.key": BASE64.encode("nonsense")}});
    suite.merge(Kind::Secret, name, nonsense).await.expect("the edit is accepted");
    let is_new = |secret: &Value| certificate(secret).is_some_and(|pem| pem != before);
    let secret = suite.until(Kind::Secret, name, "restored", LIMIT, is_new).await;
    certificate(&secret).expect("it was waited for")
}

#[test]
fn t4099_a_wiped_authority_is_replaced_and_everybody_is_told() {
    CLUSTER.test(async |suite| {
        let new = wiped(suite, "kubevirt-ca").await;
        suite.until(Kind::ConfigMap, "kubevirt-ca", "with the new one", LIMIT, |map| count(map, &new) == 1).await;
        let trusts = |bundle: &Value| {
            let decoded = BASE64.decode(bundle.as_str().unwrap_or_default()).unwrap_or_default();
            body(&String::from_utf8_lossy(&decoded)).contains(&body(&new))
        };
        for name in ["virt-api-validator", "virt-operator-validator"] {
            let all_trust = |configuration: &Value| {
                let webhooks = configuration["webhooks"].as_array().cloned().unwrap_or_default();
                !webhooks.is_empty() && webhooks.iter().all(|webhook| trusts(&webhook["clientConfig"]["caBundle"]))
            };
            suite.until(Kind::ValidatingWebhookConfiguration, name, "trusting it", LIMIT, all_trust).await;
        }
        let trusts = |service: &Value| trusts(&service["spec"]["caBundle"]);
        suite.until(Kind::APIService, "v1.subresources.kubevirt.io", "trusting it", LIMIT, trusts).await;
    });
}

#[test]
fn t4101_a_wiped_certificate_of_virt_operator_is_restored() {
    CLUSTER.test(async |suite| drop(wiped(suite, "kubevirt-operator-certs").await));
}

#[test]
fn t4103_a_wiped_certificate_of_virt_api_is_restored() {
    CLUSTER.test(async |suite| drop(wiped(suite, "kubevirt-virt-api-certs").await));
}

#[test]
fn t4104_a_wiped_certificate_of_virt_controller_is_restored() {
    CLUSTER.test(async |suite| drop(wiped(suite, "kubevirt-controller-certs").await));
}

#[test]
fn t4105_a_wiped_client_certificate_of_virt_handler_is_restored() {
    CLUSTER.test(async |suite| drop(wiped(suite, "kubevirt-virt-handler-certs").await));
}

#[test]
fn t4106_a_wiped_server_certificate_of_virt_handler_is_restored() {
    CLUSTER.test(async |suite| drop(wiped(suite, "kubevirt-virt-handler-server-certs").await));
}
