use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kubevirt_runtime::net::Net;
use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::testing::{self, MemoryFiles, TinyApi, test_host};
use kubevirt_runtime::tls::CertificateFiles;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kubevirt/leases/virt-controller";
/// As the manifest writes it.
const LINE: &str =
    "virt-controller --launcher-image r/virt-launcher:v1 --exporter-image r/virt-exportserver:v1 --port 8443 -v 2";

struct Pod {
    addr: SocketAddr,
    stop: CancellationToken,
    process: JoinHandle<anyhow::Result<()>>,
}

struct World {
    api: TinyApi,
    net: Arc<MemoryNet>,
    files: MemoryFiles,
    kubelet: Arc<dyn Net>,
}

impl World {
    fn new() -> Self {
        let (net, files) = (MemoryNet::new(), MemoryFiles::default());
        let made = rcgen::generate_simple_self_signed(vec!["virt-controller.kubevirt.svc".to_owned()]).unwrap();
        let paths = CertificateFiles::in_dir(CERTIFICATE_DIR, vec![]);
        files.write(&paths.certificate, made.cert.pem());
        files.write(&paths.key, made.signing_key.serialize_pem());
        let kubelet = net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)));
        Self { api: TinyApi::new(), net, files, kubelet }
    }

    async fn pod(&self, number: u8) -> Pod {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
        let name = format!("virt-controller-{number}");
        let mut host = test_host(&name, "kubevirt", &self.api, &self.files, self.net.host(ip));
        host.args = LINE.split(' ').map(str::to_owned).collect();
        let stop = host.stop.clone();
        let process = tokio::spawn(program().run(host));
        while self.net.listening(ip).is_empty() && !process.is_finished() {
            tokio::task::yield_now().await;
        }
        Pod { addr: SocketAddr::new(ip, 8443), stop, process }
    }

    async fn get(&self, pod: &Pod, path: &str) -> (StatusCode, String) {
        testing::get(&*self.kubelet, pod.addr, path).await.unwrap()
    }

    async fn leader(&self, pod: &Pod) -> Value {
        let (status, body) = self.get(pod, "/leader").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["apiserver"].clone()
    }

    async fn held_by(&self, name: &str) {
        self.api.until(|api| api.object(LEASE).is_some_and(|lease| lease["spec"]["holderIdentity"] == name)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_replicas_are_ready_and_one_leads_until_it_is_asked_to_stop() {
    let world = World::new();
    let first = world.pod(1).await;
    world.held_by("virt-controller-1").await;
    let second = world.pod(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.leader(&first).await, json!({"leader": "true", "generation": 1}));
    assert_eq!(world.leader(&second).await, json!({"leader": "false", "holder": "virt-controller-1"}));
    assert_eq!(world.get(&second, "/healthz").await.0, StatusCode::OK);
    assert!(world.get(&first, "/metrics").await.1.contains("kubevirt_virt_controller_leading_status 1\n"));
    assert!(world.get(&second, "/metrics").await.1.contains("kubevirt_virt_controller_leading_status 0\n"));

    let begin = tokio::time::Instant::now();
    first.stop.cancel();
    first.process.await.unwrap().unwrap();
    world.held_by("virt-controller-2").await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(world.leader(&second).await, json!({"leader": "true", "generation": 2}));
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_when_its_lease_has_run_out() {
    let world = World::new();
    let first = world.pod(1).await;
    world.held_by("virt-controller-1").await;
    let second = world.pod(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.process.abort();
    assert!(first.process.await.unwrap_err().is_cancelled());
    let begin = tokio::time::Instant::now();
    world.held_by("virt-controller-2").await;
    assert!(begin.elapsed() > Duration::from_secs(13) && begin.elapsed() <= Duration::from_secs(15));
    assert_eq!(world.leader(&second).await["leader"], "true");
}

#[tokio::test(start_paused = true)]
async fn without_its_secret_it_is_alive_but_not_ready() {
    let world = World::new();
    world.files.remove("/etc/virt-controller/certificates/tls.key");
    let pod = world.pod(1).await;
    let (status, body) = world.get(&pod, "/leader").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("CertificateMissing: /etc/virt-controller/certificates/tls.key"), "{body}");
    assert_eq!(world.get(&pod, "/healthz").await.0, StatusCode::OK);
    world.api.until(|api| !api.objects("/api/v1/namespaces/kubevirt/events").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_ends_the_process_with_a_reason() {
    let world = World::new();
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let _taken = world.net.host(ip).listen(SocketAddr::new(ip, 8443)).await.unwrap();
    let error = world.pod(1).await.process.await.unwrap().unwrap_err();
    assert_eq!(format!("{error:#}"), "virt-controller cannot listen on 0.0.0.0:8443: 10.0.0.1:8443 is taken");
}

#[test]
fn the_document_is_the_table() {
    expect_test::expect_file!["../ENDPOINTS.md"].assert_eq(&table().document("Endpoints of virt-controller"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_leaves_nothing_open() {
    let world = World::new();
    let pod = world.pod(1).await;
    let (mut open, _) = testing::connect(&*world.kubelet, pod.addr).await.unwrap();
    open.ready().await.unwrap();
    pod.process.abort();
    assert!(pod.process.await.unwrap_err().is_cancelled());
    assert!(world.net.listening(pod.addr.ip()).is_empty(), "its port is closed");
    assert!(open.ready().await.is_err(), "and so are its connections");
    world.api.until(|api| api.object(LEASE).is_some()).await;
    let requests = world.api.seen().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.api.seen().len(), requests, "no task of it lives on");
}
