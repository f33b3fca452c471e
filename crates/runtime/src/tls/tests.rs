use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use super::*;
use crate::net::memory::MemoryNet;
use crate::testing::{MemoryFiles, TinyApi, test_host};

const CRT: &str = "/etc/x/tls.crt";
const KEY: &str = "/etc/x/tls.key";

fn wanted() -> Vec<Wanted> {
    vec![Wanted::DnsName("virt-api.kubevirt.svc".into())]
}

struct World {
    files: MemoryFiles,
    certificate: Certificate,
}

fn world(wanted: Vec<Wanted>) -> World {
    let files = MemoryFiles::default();
    let net = MemoryNet::new();
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let host = test_host("pod-1", "kubevirt", &TinyApi::new(), &files, net.host(ip));
    World { certificate: Certificate::new(&host, CertificateFiles::in_dir("/etc/x/", wanted)), files }
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "kubevirt.io:system:node:virt-handler");
    params
}

fn put(files: &MemoryFiles, params: &CertificateParams) {
    let key = KeyPair::generate().unwrap();
    let made = params.clone().self_signed(&key).unwrap();
    files.write(CRT, made.pem());
    files.write(KEY, key.serialize_pem());
}

#[tokio::test(start_paused = true)]
async fn a_good_certificate_and_every_way_to_spoil_it() {
    let World { files, certificate } = world(wanted());
    let state = || certificate.state().map_err(|invalid| (invalid.code(), invalid.to_string()));
    assert_eq!(
        state(),
        Err(("CertificateMissing", "/etc/x/tls.crt: the file does not exist; is the Secret there and mounted?".into()))
    );
    put(&files, &params(&["virt-api", "virt-api.kubevirt.svc"]));
    let good = certificate.state().unwrap();
    assert!(good.from < good.until);

    put(&files, &params(&["virt-api.elsewhere.svc", "10.0.0.1"]));
    assert_eq!(
        state(),
        Err((
            "CertificateWrongName",
            "/etc/x/tls.crt: the certificate is not for DNS:virt-api.kubevirt.svc; it is for \
             CN=kubevirt.io:system:node:virt-handler, DNS:virt-api.elsewhere.svc, IP:10.0.0.1"
                .into()
        ))
    );
    put(&files, &params(&["*.kubevirt.svc"]));
    assert!(certificate.state().is_ok(), "a wildcard counts as clients count it");

    let mut old = params(&["virt-api.kubevirt.svc"]);
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    put(&files, &old);
    assert_eq!(
        state().unwrap_err(),
        (
            "CertificateExpired",
            "/etc/x/tls.crt: the certificate expired at 2021-01-01T00:00:00Z, now is 2026-01-01T00:00:00Z".into()
        )
    );
    (old.not_before, old.not_after) = (date_time_ymd(2030, 1, 1), date_time_ymd(2031, 1, 1));
    put(&files, &old);
    assert_eq!(state().unwrap_err().0, "CertificateNotYetValid");

    put(&files, &params(&["virt-api.kubevirt.svc"]));
    files.write(KEY, KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(state().unwrap_err().0, "KeyMismatch");
    files.write(KEY, "nonsense");
    assert_eq!(state().unwrap_err().0, "KeyMalformed");
    put(&files, &params(&["virt-api.kubevirt.svc"]));
    files.write(CRT, "nonsense");
    assert_eq!(state().unwrap_err().0, "CertificateMalformed");
    files.write(CRT, vec![b'x'; FILE_BYTES + 1]);
    assert_eq!(state().unwrap_err().0, "CertificateUnreadable");
    files.remove(KEY);
    files.write(CRT, "");
    assert_eq!(state().unwrap_err().1, "/etc/x/tls.key: the file does not exist; is the Secret there and mounted?");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_expires_under_a_running_process() {
    let World { files, certificate } = world(vec![]);
    let mut short = params(&["x"]);
    (short.not_before, short.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2026, 1, 2));
    put(&files, &short);
    assert!(certificate.state().is_ok());
    tokio::time::sleep(std::time::Duration::from_secs(24 * 3600 + 1)).await;
    assert_eq!(certificate.state().unwrap_err().code(), "CertificateExpired");
}

#[tokio::test(start_paused = true)]
async fn a_role_is_checked_by_common_name() {
    let World { files, certificate } = world(vec![Wanted::CommonName("kubevirt.io:system:node:virt-handler".into())]);
    put(&files, &params(&["virt-handler"]));
    assert!(certificate.state().is_ok());
    let mut other = params(&["virt-handler"]);
    other.distinguished_name.remove(DnType::CommonName);
    put(&files, &other);
    assert_eq!(
        certificate.state().unwrap_err().to_string(),
        "/etc/x/tls.crt: the certificate is not for CN=kubevirt.io:system:node:virt-handler; it is for DNS:virt-handler"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handshake_serves_what_the_files_hold_now() {
    let World { files, certificate } = world(wanted());
    let net = MemoryNet::new();
    let (server, client) =
        (net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))), net.host(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let addr = SocketAddr::new(server.own_ip(), 443);
    let mut listener = server.listen(addr).await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(certificate.server_config().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    });
    let served = async || crate::testing::served_certificate(&*client, addr).await.unwrap();
    let fallback = served().await;
    assert_eq!(fallback, served().await, "one self-made certificate per process");
    put(&files, &params(&["virt-api.kubevirt.svc"]));
    let first = served().await;
    assert_eq!(first, CertificateDer::from_pem_slice(&files.read(CRT).unwrap()).unwrap().to_vec());
    put(&files, &params(&["virt-api.kubevirt.svc"]));
    assert_ne!(served().await, first, "no restart needed");
    files.remove(CRT);
    assert_eq!(served().await, fallback);
    serving.abort();
}
