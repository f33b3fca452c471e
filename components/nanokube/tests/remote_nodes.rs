//! Simulated nodes that are a program of their own: what the server and everybody else on this machine see of them.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Client, Config};
use rustix::process::{Pid, Signal};
use serde_json::json;

/// Everything here takes a second or two; a minute means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `nanokube` that is killed when it is dropped.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str], kubeconfig: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nanokube"));
        command.args(arguments).arg("--kubeconfig").arg(kubeconfig).stdout(Stdio::piped());
        let mut running = Self(command.spawn().expect("nanokube starts"));
        let mut line = String::new();
        let mut out = BufReader::new(running.0.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready"), "{line}");
        running
    }

    /// Asks it to end, and waits until it has.
    fn end(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id")).expect("a process id");
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn client(kubeconfig: &Path) -> Client {
    // Err: another test of this process was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("remote-nodes-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// Waits for the node's first status, in which a simulated node names no place for logs.
async fn until_it_tells_of_itself(client: &Client, node: &str) {
    let told = |node: Option<&Node>| {
        let info = node.and_then(|node| node.status.as_ref()?.node_info.as_ref());
        info.is_some_and(|info| info.os_image.contains("simulated"))
    };
    let found = await_condition(Api::<Node>::all(client.clone()), node, told);
    let node = tokio::time::timeout(PATIENCE, found).await.expect("a status").expect("a watch").expect("a node");
    let endpoints = node.status.and_then(|status| status.daemon_endpoints);
    assert_eq!(endpoints.and_then(|endpoints| endpoints.kubelet_endpoint).map_or(0, |endpoint| endpoint.port), 0);
}

async fn address_of_pod(client: &Client, node: &str) -> IpAddr {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let name = format!("on-{node}");
    let pod = json!({"metadata": {"name": name, "labels": {"served": "yes"}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "idle:1"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("created");
    let runs = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase == "Running")
    };
    let found = tokio::time::timeout(PATIENCE, await_condition(pods, &name, runs)).await.expect("it runs");
    let status = found.expect("a watch").and_then(|pod| pod.status).expect("a status");
    status.pod_ip.expect("an address").parse().expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_sockets_of_this_machine_and_sigterm_ends_it() {
    let dir = scratch("addresses");
    let kubeconfig = dir.join("kubeconfig");
    let server = Running::start(&["up", "--nodes", "0"], &kubeconfig);
    let nodes = Running::start(&["nodes", "--simulated", "--nodes", "2", "--idle-image", "idle:1"], &kubeconfig);
    let more = ["nodes", "--nodes", "1", "--first-node", "3", "--idle-image", "idle:1"];
    let others = Running::start(&more, &kubeconfig);
    let client = client(&kubeconfig).await;
    let mut addresses = Vec::new();
    for node in ["node01", "node02", "node03"] {
        until_it_tells_of_itself(&client, node).await;
        let address = address_of_pod(&client, node).await;
        assert!(address.is_loopback(), "{address}");
        addresses.push(address);
    }
    // A controller makes endpoints of them, which the server must not refuse.
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"served": "yes"}, "ports": [{"port": 80}]}});
    let services: Api<Service> = Api::default_namespaced(client.clone());
    services
        .create(&PostParams::default(), &serde_json::from_value(service).expect("a service"))
        .await
        .expect("created");
    let endpoints: Api<Endpoints> = Api::default_namespaced(client.clone());
    let served = |endpoints: Option<&Endpoints>| {
        let subsets = endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
        subsets.flat_map(|subset| subset.addresses.iter().flatten()).count() == 3
    };
    tokio::time::timeout(PATIENCE, await_condition(endpoints, "s", served)).await.expect("endpoints").expect("a watch");
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "two programs share no address");
    nodes.end();
    others.end();
    server.end();
    std::fs::remove_dir_all(dir).expect("removed");
}
