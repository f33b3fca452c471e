use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base64::Engine as _;
use http::{Method, StatusCode};
use kubevirt_component::Verb;
use kubevirt_runtime::net::Net;
use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::testing::{self, MemoryFiles, TinyApi, test_host};
use kubevirt_runtime::tls::CertificateFiles;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

const EVENTS: &str = "/api/v1/namespaces/kubevirt/events";
const KUBEVIRTS: &str = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts";
const PROBE: &str = "/apis/subresources.kubevirt.io/v1/healthz";
/// As the manifest writes it.
const LINE: &str = "virt-api --port 8443 --console-server-port 8186 --subresources-only -v 2";

struct World {
    api: TinyApi,
    files: MemoryFiles,
    kubelet: Arc<dyn Net>,
    addr: SocketAddr,
    stop: CancellationToken,
    process: JoinHandle<anyhow::Result<()>>,
}

impl World {
    async fn get(&self, path: &str) -> (StatusCode, String) {
        testing::get(&*self.kubelet, self.addr, path).await.unwrap()
    }

    async fn events(&self, count: usize) -> Vec<(String, String)> {
        self.api.until(|api| api.objects(EVENTS).len() >= count).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.api.objects(EVENTS).iter().map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
    }
}

/// Starts the program in a simulated pod; returns when its port is open and its settings were asked for.
async fn start(files: MemoryFiles, line: &str) -> World {
    start_with(files, line, |_, _, _| testing::Fault::None).await
}

/// As [`start`], with an API server that has faults.
async fn start_with(
    files: MemoryFiles,
    line: &str,
    rule: impl Fn(&str, &Method, &str) -> testing::Fault + Send + Sync + 'static,
) -> World {
    let (net, api) = (MemoryNet::new(), TinyApi::new());
    api.set_fault(rule);
    api.put("/api/v1/namespaces/kubevirt/pods/virt-api-1", json!({"metadata": {"name": "virt-api-1", "uid": "u-1"}}));
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let mut host = test_host("virt-api-1", "kubevirt", &api, &files, net.host(ip));
    host.args = line.split(' ').map(str::to_owned).collect();
    let stop = host.stop.clone();
    let process = tokio::spawn(program().run(host));
    while net.listening(ip).is_empty() && !process.is_finished() {
        tokio::task::yield_now().await;
    }
    if !process.is_finished() {
        // It asks for its settings at once.
        api.until(|api| {
            api.seen().iter().any(|seen| seen.path == KUBEVIRTS && (seen.watch || seen.status != 200))
                || process.is_finished()
        })
        .await;
    }
    let kubelet = net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    World { api, files, kubelet, addr: SocketAddr::new(ip, 8443), stop, process }
}

fn put_certificate(files: &MemoryFiles, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let paths = CertificateFiles::in_dir(CERTIFICATE_DIR, vec![]);
    files.write(&paths.certificate, made.cert.pem());
    files.write(&paths.key, made.signing_key.serialize_pem());
}

async fn ready() -> World {
    let files = MemoryFiles::default();
    put_certificate(&files, "virt-api.kubevirt.svc");
    start(files, LINE).await
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_within_a_moment_and_writes_nothing() {
    let begin = Instant::now();
    let world = ready().await;
    expect_test::expect![[r#"
        [+] settings: ok
        [+] certificate: ok
        [+] process: ok
    "#]]
    .assert_eq(&world.get(PROBE).await.1);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.get(PROBE).await.0, StatusCode::OK);
    let asked: Vec<(Method, String)> = world.api.seen().into_iter().map(|seen| (seen.method, seen.path)).collect();
    let settings = (Method::GET, KUBEVIRTS.to_owned());
    assert_eq!(asked, [settings.clone(), settings], "an idle virt-api asks for its settings, once");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_certificate_keeps_it_unready_says_so_and_mends_without_restart() {
    let files = MemoryFiles::default();
    put_certificate(&files, "virt-api.elsewhere.svc");
    let world = start(files, LINE).await;
    let (status, body) = world.get(PROBE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let wrong = "/etc/virt-api/certificates/tls.crt: the certificate is not for DNS:virt-api.kubevirt.svc; it is for \
                 CN=rcgen self signed cert, DNS:virt-api.elsewhere.svc";
    assert!(body.contains(&format!("[-] certificate: CertificateWrongName: {wrong}")), "{body}");
    assert_eq!(world.get("/healthz").await.0, StatusCode::OK, "a restart would not help");
    assert_eq!(world.events(1).await, [("CertificateInvalid".to_owned(), wrong.to_owned())]);
    let event = &world.api.objects(EVENTS)[0];
    assert_eq!(event["involvedObject"]["uid"], "u-1", "kubectl describe finds events by it");
    assert_eq!((&event["involvedObject"]["name"], &event["type"]), (&json!("virt-api-1"), &json!("Warning")));

    // The same trouble is told once, however often it is probed.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.get(PROBE).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(world.events(1).await.len(), 1);

    put_certificate(&world.files, "virt-api.kubevirt.svc");
    assert_eq!(world.get(PROBE).await.0, StatusCode::OK);
    assert_eq!(world.events(2).await[1].0, "CertificateValid");
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_named_and_events_come_at_a_bounded_rate() {
    let world = start(MemoryFiles::default(), LINE).await;
    assert_eq!(world.events(1).await[0].0, "CertificateInvalid", "nobody has to probe first");
    let (status, body) = world.get(PROBE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("/etc/virt-api/certificates/tls.crt: the file does not exist"), "{body}");
    // A certificate that changes every second for a minute.
    for second in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        put_certificate(&world.files, &format!("wrong-{second}"));
        world.get(PROBE).await;
    }
    let told = world.events(1).await.len();
    assert!((2..=8).contains(&told), "{told} events in a minute");
    let last = world.events(told).await.pop().unwrap().1;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (reason, message) = world.events(told).await.pop().unwrap();
    assert!(reason == "CertificateInvalid" && message.contains("wrong-59"), "the last state is told: {last} {message}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_port_is_refused_and_a_wrong_flag_named() {
    let files = MemoryFiles::default();
    put_certificate(&files, "virt-api.kubevirt.svc");
    let world = start(files, "virt-api --port 9443").await;
    let error = testing::get(&*world.kubelet, world.addr, PROBE).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert_eq!(
        testing::get(&*world.kubelet, SocketAddr::new(world.addr.ip(), 9443), PROBE).await.unwrap().0,
        StatusCode::OK
    );

    let world = start(MemoryFiles::default(), "virt-api --prot 8443").await;
    let error = world.process.await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("'--prot'"), "{error:#}");
}

#[tokio::test(start_paused = true)]
async fn asked_to_stop_it_is_unready_first_still_answers_and_then_ends() {
    let world = ready().await;
    let begin = Instant::now();
    world.stop.cancel();
    let (status, body) = world.get(PROBE).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("[-] process: Draining: asked to stop"), "{body}");
    assert_eq!(world.get("/apis").await.0, StatusCode::OK, "whoever has not heard yet is still served");
    world.process.await.unwrap().unwrap();
    assert_eq!(begin.elapsed(), LINGER);
    assert!(testing::get(&*world.kubelet, world.addr, PROBE).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn discovery_of_both_versions() {
    let world = ready().await;
    let json = async |path: &str| {
        let (status, body) = world.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let group = json("/apis/subresources.kubevirt.io").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "subresources.kubevirt.io/v1");
    assert_eq!(json("/apis").await["groups"][0]["name"], "subresources.kubevirt.io");
    let mut names = Vec::new();
    for version in ["v1", "v1alpha3"] {
        let list = json(&format!("/apis/subresources.kubevirt.io/{version}")).await;
        assert_eq!(list["groupVersion"], format!("subresources.kubevirt.io/{version}"));
        let resources = list["resources"].as_array().unwrap();
        names.push(resources.iter().map(|resource| resource["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(names[0], names[1]);
    for name in ["virtualmachineinstances/console", "virtualmachineinstances/portforward", "virtualmachines/migrate"] {
        assert_eq!(names[0].iter().filter(|listed| *listed == name).count(), 1, "{name}");
    }
    let version = json("/apis/subresources.kubevirt.io/v1/version").await;
    assert_eq!(version["gitVersion"], concat!("v", env!("CARGO_PKG_VERSION")));
    let openapi = json("/openapi/v2").await;
    for path in openapi["paths"].as_object().unwrap().keys() {
        assert_eq!(world.get(path).await.0, StatusCode::OK, "what OpenAPI lists is answered: {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_row_answers_as_the_table_says_and_nothing_else_is_served() {
    let world = ready().await;
    for row in table().rows() {
        let path = row.path.replace("{*rest}", "v3").replace(['{', '}'], "");
        let method = match row.verb {
            Verb::Get => Method::GET,
            Verb::Put => Method::PUT,
            Verb::Post => Method::POST,
        };
        let (status, body) =
            testing::request(&*world.kubelet, world.addr, method, &path, b"{}".to_vec()).await.unwrap();
        let wanted = match (&row.does, row.verb) {
            (kubevirt_component::Does::Refuse, _) => StatusCode::NOT_IMPLEMENTED,
            // {} is no review.
            (_, Verb::Post) => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        };
        assert_eq!(status, wanted, "{} {path}: {body}", row.verb);
        if status == StatusCode::NOT_IMPLEMENTED {
            assert!(body.contains(&format!("virt-api: {} is not implemented", row.about)), "{body}");
        }
    }
    assert_eq!(world.get("/nothing").await.0, StatusCode::NOT_FOUND);
    let (status, body) = testing::post(&*world.kubelet, world.addr, PROBE, vec![]).await.unwrap();
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_review_is_read_and_refused_in_words() {
    let world = ready().await;
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "r-1", "operation": "CREATE", "namespace": "ns", "name": "vm", "userInfo": {"username": "me"},
        "resource": {"group": "kubevirt.io", "version": "v1", "resource": "virtualmachines"}, "object": {}}});
    let (status, body) =
        testing::post(&*world.kubelet, world.addr, "/virtualmachines-validate?timeout=10s", review.to_string().into())
            .await
            .unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        answer["response"],
        json!({"uid": "r-1", "allowed": false, "status": {"status": "Failure", "code": 501, "reason": "NotImplemented",
            "message": "virt-api: CREATE of virtualmachines.kubevirt.io/v1 cannot be judged: validation of \
                        virtualmachines is not implemented"}})
    );
}

async fn reviewed(world: &World, path: &str) -> Value {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "r-1", "operation": "CREATE", "namespace": "ns", "name": "guest", "userInfo": {"username": "me"},
        "resource": {"group": "kubevirt.io", "version": "v1", "resource": "virtualmachineinstances"},
        "object": {"metadata": {"name": "guest"}, "spec": {"domain": {}}}}});
    let (status, body) = testing::post(&*world.kubelet, world.addr, path, review.to_string().into()).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let patch =
        base64::engine::general_purpose::STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&patch).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_filled_in_by_the_settings_of_the_moment() {
    let world = ready().await;
    let model = async || {
        let patch = reviewed(&world, "/virtualmachineinstances-mutate?timeout=10s").await;
        let changes = patch.as_array().unwrap();
        let spec = changes.iter().find(|change| change["path"] == "/spec").unwrap();
        spec["value"]["domain"]["cpu"]["model"].as_str().unwrap().to_owned()
    };
    assert_eq!(model().await, "host-model");
    let cr = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {"configuration": {"cpuModel": "Penryn"}}});
    world.api.put(&format!("{KUBEVIRTS}/kubevirt"), cr);
    let followed = async {
        while model().await != "Penryn" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), followed).await.expect("a changed setting counts");
}

#[tokio::test(start_paused = true)]
async fn without_its_settings_it_is_not_ready_and_says_why() {
    let files = MemoryFiles::default();
    put_certificate(&files, "virt-api.kubevirt.svc");
    let world = start_with(files, LINE, |_, _, path| match path {
        KUBEVIRTS => testing::Fault::Status(403),
        _ => testing::Fault::None,
    })
    .await;
    let refused = async {
        while !world.get(PROBE).await.1.contains("[-] settings: SettingsUnknown: the KubeVirt CR cannot be read") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("the reason shows");
    world.api.set_fault(|_, _, _| testing::Fault::None);
    let ready = async {
        while world.get(PROBE).await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("it goes on by itself");
}

#[test]
fn the_document_is_the_table() {
    expect_test::expect_file!["../ENDPOINTS.md"].assert_eq(&table().document("Endpoints of virt-api"));
}

#[test]
fn the_manifests_command_line_is_accepted() {
    let args: Args = cli::parse(&LINE.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap();
    assert_eq!((args.listen.port, args.console_server_port, args.subresources_only), (8443, 8186, true));
}

#[test]
fn a_webhook_is_judged_where_rules_are_written() {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "r", "operation": "UPDATE", "resource": {"version": "v1", "resource": "x"}, "object": {}, "oldObject": {}}});
    let review = kubevirt_runtime::admission::Review::parse(review.to_string().as_bytes()).unwrap();
    for webhook in admission::WEBHOOKS {
        let has_rules = match webhook.mutates {
            true => mutate::mutate(webhook.path, "kubevirt", &review, &Settings::default().now()).is_some(),
            false => rules::judge(webhook.path, "kubevirt", &review).is_some(),
        };
        assert_eq!(webhook.judged, has_rules, "{}", webhook.path);
    }
}
