use std::net::{Ipv4Addr, SocketAddr};

use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::testing::{self, MemoryFiles, TinyApi, test_host};
use kubevirt_runtime::tls::CertificateFiles;

use super::*;

/// As the manifest writes it, the variables filled in.
const LINE: &str = "virt-handler --port 8443 --hostname-override node1 --pod-ip-address 10.0.0.1 --max-metric-requests 3 \
                    --console-server-port 8186 --vmstats-server-port 8187 --graceful-shutdown-seconds 315 \
                    --migration-cn-types migration -v 2";

fn put_certificate(files: &MemoryFiles, role: &str) {
    let mut params = rcgen::CertificateParams::new(vec!["virt-handler".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, role);
    let key = rcgen::KeyPair::generate().unwrap();
    let paths = CertificateFiles::in_dir(CERTIFICATE_DIR, vec![]);
    files.write(&paths.certificate, params.self_signed(&key).unwrap().pem());
    files.write(&paths.key, key.serialize_pem());
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_by_its_role_and_refuses_what_is_not_written() {
    let (net, api, files) = (MemoryNet::new(), TinyApi::new(), MemoryFiles::default());
    put_certificate(&files, "kubevirt.io:system:client:virt-handler");
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let mut host = test_host("virt-handler-1", "kubevirt", &api, &files, net.host(ip));
    host.args = LINE.split_whitespace().map(str::to_owned).collect();
    let stop = host.stop.clone();
    let process = tokio::spawn(program().run(host));
    while net.listening(ip).len() < 3 {
        tokio::task::yield_now().await;
    }
    let kubelet = net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    let get = async |port, path: &str| testing::get(&*kubelet, SocketAddr::new(ip, port), path).await.unwrap();

    let (status, body) = get(8443, "/healthz").await;
    assert_eq!(status.as_u16(), 503);
    assert!(
        body.contains(
            "/etc/virt-handler/servercertificates/tls.crt: the certificate is not for \
             CN=kubevirt.io:system:node:virt-handler; it is for CN=kubevirt.io:system:client:virt-handler, DNS:virt-handler"
        ),
        "{body}"
    );
    api.until(|api| !api.objects("/api/v1/namespaces/kubevirt/events").is_empty()).await;
    assert_eq!(get(8443, "/livez").await.0.as_u16(), 200);
    put_certificate(&files, ROLE);
    assert_eq!(get(8443, "/healthz").await.0.as_u16(), 200);

    let (status, body) = get(8186, "/v1/namespaces/a/virtualmachineinstances/b/console").await;
    assert_eq!(status.as_u16(), 501);
    assert!(body.contains("virt-handler: the console server is not implemented"), "{body}");
    assert_eq!(get(8187, "/v1/vmstats").await.0.as_u16(), 501);

    stop.cancel();
    process.await.unwrap().unwrap();
    assert!(net.listening(ip).is_empty());
}

#[test]
fn the_document_is_the_tables() {
    let document = [
        table().document("Endpoints of virt-handler, port 8443"),
        console_table().document("Port 8186"),
        vmstats_table().document("Port 8187"),
    ];
    expect_test::expect_file!["../ENDPOINTS.md"].assert_eq(&document.join("\n"));
}
