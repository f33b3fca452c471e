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

/// An authority, and what it signs.
struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn sign(&self, names: &[&str]) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params(names).signed_by(&key, &self.issuer).unwrap().pem(), key)
    }
}

/// A server on a port of its own that accepts clients of `clients`.
async fn served(files: &MemoryFiles, clients: &ClientAuthorities) -> (Arc<dyn crate::net::Net>, SocketAddr) {
    let net = MemoryNet::new();
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let host = test_host("pod-1", "kubevirt", &TinyApi::new(), files, net.host(ip));
    let certificate = Certificate::new(&host, CertificateFiles::in_dir("/etc/x/", Vec::new()));
    let addr = SocketAddr::new(ip, 8444);
    let listener = host.net.listen(addr).await.unwrap();
    let answer = crate::serve::handler(|_| async { crate::serve::text(http::StatusCode::OK, "ok") });
    tokio::spawn(crate::serve::serve(
        listener,
        certificate.server_config_for(clients).unwrap(),
        answer,
        host.stop.clone(),
    ));
    (net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))), addr)
}

#[tokio::test(start_paused = true)]
async fn a_handshake_proves_what_a_server_shows() {
    const NAME: &str = "kubevirt-operator-webhook.kubevirt.svc";
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let files = MemoryFiles::default();
    let (net, addr) = served(&files, &ClientAuthorities::default()).await;
    let clock = Clock::anchored("2026-01-01T00:00:00Z".parse().unwrap());
    let show = |(certificate, key): (String, KeyPair)| {
        files.write(CRT, certificate);
        files.write(KEY, key.serialize_pem());
    };
    let asked = async |bundle: &str| probe(&*net, addr, NAME, bundle, &clock).await.map_err(|error| error.to_string());
    let refused = |answer: Result<(), String>, what: &str| {
        assert!(answer.as_ref().is_err_and(|e| e.contains(what)), "{answer:?}");
    };
    refused(asked("").await, "no authority");
    refused(asked(&own.pem).await, "10.0.0.1:8444");
    show(own.sign(&[NAME]));
    assert_eq!(asked(&own.pem).await, Ok(()));
    assert_eq!(asked(&format!("{}{}", other.pem, own.pem)).await, Ok(()), "a bundle of two");
    refused(asked(&other.pem).await, "UnknownIssuer");
    show(own.sign(&["virt-api.kubevirt.svc"]));
    refused(asked(&own.pem).await, "not valid for name");
    let nobody = SocketAddr::new(addr.ip(), 1);
    let answer = probe(&*net, nobody, NAME, &own.pem, &clock).await.map_err(|error| error.to_string());
    refused(answer, "cannot be reached");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_show_a_certificate_but_not_a_strangers() {
    use rustls::pki_types::ServerName;
    let (known, stranger) = (Authority::new("known"), Authority::new("stranger"));
    let files = MemoryFiles::default();
    put(&files, &params(&["server"]));
    let clients = ClientAuthorities::default();
    let (net, addr) = served(&files, &clients).await;
    let connects = async |identity: Option<&Authority>| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let own = rustls::pki_types::CertificateDer::from_pem_slice(&files_read(&files)).unwrap();
        roots.add(own).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let (pem, key) = authority.sign(&["front-proxy"]);
                let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = net.connect(addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from("server").unwrap(), stream).await.unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        // In TLS 1.3 a client learns of its refusal with the first answer.
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        stream.write_all(request).await.is_ok()
            && stream.read_to_end(&mut answer).await.is_ok()
            && answer.starts_with(b"HTTP/1.1 200")
    };
    assert!(connects(None).await && connects(Some(&stranger)).await, "without authorities nobody is asked");
    clients.set(&known.pem);
    assert!(connects(None).await, "it is not demanded");
    assert!(connects(Some(&known)).await);
    assert!(!connects(Some(&stranger)).await);
    clients.set("");
    assert!(connects(Some(&stranger)).await);
}

fn files_read(files: &MemoryFiles) -> Vec<u8> {
    crate::host::Files::read(files, CRT).unwrap()
}
