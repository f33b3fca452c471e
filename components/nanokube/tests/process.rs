//! Process nodes from outside: the real program, real child processes, and nothing seen but the API and the machine.
//!
//! The images' programs are shell scripts, so that each test says what a pod does.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::AsyncBufReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Client, Config};
use rustix::process::{Pid, Signal};
use serde_json::json;

/// Everything here takes a second or two; a minute means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    dir: PathBuf,
    nanokube: Child,
    client: Client,
}

impl World {
    /// A cluster with one process node whose images hold these programs: version, component, shell script.
    async fn start(name: &str, programs: &[(&str, &str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("process-nodes-{}-{name}", std::process::id()));
        for (version, component, script) in programs {
            let place = dir.join("images").join(version);
            std::fs::create_dir_all(&place).expect("a directory");
            let file = place.join(component);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
        }
        let kubeconfig = dir.join("kubeconfig");
        let mut nanokube = Command::new(env!("CARGO_BIN_EXE_nanokube"))
            .args(["up", "--nodes", "1", "--process", "--image-dir"])
            .arg(dir.join("images"))
            .arg("--pod-dir")
            .arg(dir.join("pods"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .stdout(Stdio::piped())
            .spawn()
            .expect("nanokube starts");
        let mut line = String::new();
        let mut out = BufReader::new(nanokube.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready https://127.0.0.1:") && line.contains("1 process nodes"), "{line}");
        // Err: another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a config");
        Self { dir, nanokube, client: Client::try_from(config).expect("a client") }
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    async fn run(&self, name: &str, component: &str, version: &str, policy: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"restartPolicy": policy, "containers": [{
                "name": "main", "image": format!("localhost/kubevirt/{component}:{version}"),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "env": [{"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            }]},
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("created");
    }

    async fn until(&self, name: &str, condition: impl Fn(&Pod) -> bool) -> Pod {
        let fulfilled = await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_some_and(&condition));
        match tokio::time::timeout(PATIENCE, fulfilled).await {
            Ok(pod) => pod.expect("a watch").expect("it is there"),
            Err(_) => panic!("{name} did not get there: {:#?}", self.pods().get(name).await),
        }
    }

    /// Waits until the log contains a text, and gives the whole line.
    async fn line(&self, name: &str, text: &str) -> String {
        let params = LogParams { follow: true, ..LogParams::default() };
        let found = async {
            let mut lines = self.pods().log_stream(name, &params).await.expect("a log").lines();
            while let Some(line) = futures::TryStreamExt::try_next(&mut lines).await.expect("a line") {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("the log of {name} ended without {text:?}");
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{text:?} is not in the log of {name}"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.nanokube.id()).expect("a process id")).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.nanokube.kill();
        let _ = self.nanokube.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn ip(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address")
}

fn alive(pid: &str) -> bool {
    // A zombie has ended; whoever is its parent now has not looked yet.
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until_dead(pid: &str) {
    let dead = async {
        while alive(pid) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, dead).await.unwrap_or_else(|_| panic!("process {pid} is left behind"));
}

const SERVER: &str = "trap 'echo bye; exit 0' TERM
echo \"$0 pid $$ ip $MY_IP place $PROCESS_NODE_ADDRESS\"
echo \"namespace $(cat $PROCESS_NODE_ROOT/var/run/secrets/kubernetes.io/serviceaccount/namespace)\"
head -1 $PROCESS_NODE_ROOT/var/run/secrets/kubernetes.io/serviceaccount/ca.crt
while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_releases_side_by_side_and_a_clean_end() {
    let programs = [("v0.1.0", "virt-api", SERVER), ("v0.2.0", "virt-api", SERVER)];
    let mut world = World::start("side", &programs).await;
    world.run("old", "virt-api", "v0.1.0", "Always").await;
    world.run("new", "virt-api", "v0.2.0", "Always").await;
    let (old, new) = (world.until("old", running).await, world.until("new", running).await);
    assert_ne!(ip(&old), ip(&new));
    let mut pids = Vec::new();
    for (pod, version) in [(&old, "v0.1.0"), (&new, "v0.2.0")] {
        let name = pod.metadata.name.as_deref().expect("a name");
        let first = world.line(name, " pid ").await;
        assert!(first.contains(&format!("images/{version}/virt-api")), "{first}");
        let ip = ip(pod);
        assert!(first.ends_with(&format!("ip {ip} place {ip}")), "{first}");
        assert_eq!(world.line(name, "namespace").await, "namespace default");
        world.line(name, "BEGIN CERTIFICATE").await;
        pids.push(first.split(" pid ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a pid").to_owned());
    }
    assert!(pids.iter().all(|pid| alive(pid)), "both run at once");

    let one = LogParams { tail_lines: Some(1), timestamps: true, ..LogParams::default() };
    let text = world.pods().logs("old", &one).await.expect("a log");
    assert!(text.lines().count() == 1 && text.starts_with("20"), "{text}");
    let other = LogParams { container: Some("other".to_owned()), ..LogParams::default() };
    let error = world.pods().logs("old", &other).await.expect_err("no such container");
    assert!(error.to_string().contains("container other is not valid for pod old"), "{error}");

    world.pods().delete("old", &Default::default()).await.expect("deleted");
    world.line("old", "bye").await;
    until_dead(&pids[0]).await;
    world.signal(Signal::TERM);
    assert!(world.nanokube.wait().expect("it ends").success());
    until_dead(&pids[1]).await;
    assert!(!world.dir.join("pods").exists(), "tokens do not outlive the run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_shows_its_last_words_and_no_orphan_stays() {
    let crash = "echo \"run of $$\"; echo about to fail >&2; exit 3";
    let programs = [("v0.1.0", "virt-handler", crash), ("v0.1.0", "virt-api", SERVER)];
    let world = World::start("crash", &programs).await;
    world.run("crash", "virt-handler", "v0.1.0", "Always").await;
    let restarted = |pod: &Pod| {
        let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
        status.is_some_and(|status| status.restart_count >= 1)
    };
    let pod = world.until("crash", restarted).await;
    let status = pod.status.and_then(|status| status.container_statuses?.into_iter().next()).expect("a status");
    let last = status.last_state.and_then(|state| state.terminated).expect("it has ended before");
    assert_eq!(last.exit_code, 3);
    assert!(last.message.expect("the log's end").contains("about to fail"));
    let previous = LogParams { previous: true, ..LogParams::default() };
    let text = world.pods().logs("crash", &previous).await.expect("the log of the run before");
    assert!(text.contains("run of"), "{text}");

    world.run("once", "virt-api", "v0.1.0", "Always").await;
    world.until("once", running).await;
    let first = world.line("once", " pid ").await;
    let error = world.pods().logs("once", &previous).await.expect_err("there was no run before");
    assert!(error.to_string().contains("previous terminated container \"main\" in pod \"once\" not found"), "{error}");
    let pid = first.split(" pid ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a pid");
    assert!(alive(pid));
    world.signal(Signal::KILL);
    until_dead(pid).await;
}
