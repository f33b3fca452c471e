//! Probes, volumes and logs of simulated pods, to the second.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kubevirt_runtime::host::Host;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{World, is_ready};

/// What happened in a program, with the time since it began.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(Duration, String)>>>);

impl Diary {
    fn note(&self, since: Instant, what: impl Into<String>) {
        self.0.lock().unwrap().push((since.elapsed(), what.into()));
    }

    fn seconds(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect()
    }

    fn words(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, what)| what.clone()).collect()
    }
}

/// A program that notes when it is connected to on port 8080, and hangs up without a word.
fn connected(diary: Diary) -> impl Fn(Host) -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
    move |host: Host| {
        let diary = diary.clone();
        async move {
            let since = Instant::now();
            let mut listener = host.net.listen((host.net.own_ip(), 8080).into()).await?;
            loop {
                tokio::select! {
                    accepted = listener.accept() => drop(accepted?),
                    () = host.stop.cancelled() => return Ok(()),
                }
                diary.note(since, "connected");
            }
        }
        .boxed()
    }
}

/// A program that takes connections on port 8080 and never says anything.
fn silent(diary: Diary) -> impl Fn(Host) -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
    move |host: Host| {
        let diary = diary.clone();
        async move {
            let since = Instant::now();
            let mut listener = host.net.listen((host.net.own_ip(), 8080).into()).await?;
            let mut open = Vec::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => open.push(accepted?),
                    () = host.stop.cancelled() => return Ok(()),
                }
                diary.note(since, "connected");
            }
        }
        .boxed()
    }
}

async fn run(world: &World, container: Value) -> Api<Pod> {
    let mut container = container;
    container["name"] = json!("main");
    let pods: Api<Pod> = Api::default_namespaced(world.client());
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [container]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.expect("created");
    pods
}

fn status(pod: &Pod) -> Option<ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned()
}

#[tokio::test(start_paused = true)]
async fn a_tcp_probe_asks_after_its_delay_and_then_each_period() {
    let diary = Diary::default();
    let world = World::with_program(1, "tcp", connected(diary.clone())).await;
    let probe =
        json!({"tcpSocket": {"port": 8080}, "initialDelaySeconds": 5, "periodSeconds": 3, "successThreshold": 2});
    run(&world, json!({"image": "tcp:v1", "readinessProbe": probe})).await;
    world.until::<Pod>("p", is_ready).await;
    assert_eq!(diary.seconds(), [5, 8], "ready after two successes");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(diary.seconds(), [5, 8, 11, 14]);
}

#[tokio::test(start_paused = true)]
async fn an_http_probe_gives_up_after_its_timeout_and_fails_at_its_threshold() {
    let diary = Diary::default();
    let world = World::with_program(1, "silent", silent(diary.clone())).await;
    let probe = json!({
        "httpGet": {"path": "/", "port": 8080}, "periodSeconds": 10, "timeoutSeconds": 4, "failureThreshold": 3,
    });
    run(&world, json!({"image": "silent:v1", "livenessProbe": probe})).await;
    let restarted = |times| move |pod: &Pod| status(pod).is_some_and(|status| status.restart_count == times);
    world.until::<Pod>("p", restarted(1)).await;
    // Asked at once, at 10 s and at 20 s; the third attempt is given up at 24 s, and the container asked to stop.
    let pod: Pod = world.get("p").await;
    let ended = status(&pod).unwrap().last_state.unwrap().terminated.unwrap();
    let ran = ended.finished_at.unwrap().0.duration_since(ended.started_at.unwrap().0);
    assert_eq!((diary.seconds(), ran.as_secs(), ended.exit_code), (vec![0, 10, 20], 24, 0));
    let text = world.event("Unhealthy").await;
    assert!(
        text.starts_with("Liveness probe failed: Get \"http://") && text.contains("context deadline exceeded"),
        "{text}"
    );
    assert_eq!(world.event("Killing").await, "Container main failed liveness probe, will be restarted");

    // The first restart comes at once, the next ones wait longer and longer.
    let mut last = Instant::now();
    for (times, pause) in [(2, 10), (3, 20)] {
        world.until::<Pod>("p", restarted(times)).await;
        let took = last.elapsed().as_secs();
        assert!((24 + pause..=26 + pause).contains(&took), "restart {times} after {took} s");
        last = Instant::now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_holds_the_others_back() {
    let diary = Diary::default();
    let world = World::with_program(1, "tcp", connected(diary.clone())).await;
    let probe = |more: Value| {
        let mut probe = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
        probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        probe
    };
    let container = json!({
        "image": "tcp:v1", "startupProbe": probe(json!({"initialDelaySeconds": 6})),
        "livenessProbe": probe(json!({"periodSeconds": 100})),
    });
    run(&world, container).await;
    world.until::<Pod>("p", is_ready).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(diary.seconds(), [6, 6], "once to see whether it has started, then once whether it lives");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_simulated_nodes_cannot_make_says_so() {
    let world = World::start(1).await;
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1});
    run(&world, json!({"image": "idle:v1", "readinessProbe": probe})).await;
    assert_eq!(
        world.event("Unhealthy").await,
        "Readiness probe failed: exec probes are not supported by simulated nodes"
    );
    assert!(!is_ready(&world.get::<Pod>("p").await));
}

#[tokio::test(start_paused = true)]
async fn a_running_program_sees_its_mounted_secret_change() {
    let diary = Diary::default();
    let log = diary.clone();
    let reads = move |host: Host| {
        let log = log.clone();
        async move {
            let since = Instant::now();
            loop {
                let text = host
                    .files
                    .read("/etc/certs/word")
                    .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
                if log.words().last() != Some(&text) {
                    log.note(since, text);
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = host.stop.cancelled() => return Ok(()),
                }
            }
        }
        .boxed()
    };
    let world = World::with_program(1, "reads", reads).await;
    let secrets: Api<Secret> = Api::default_namespaced(world.client());
    let secret = |word: &str| json!({"metadata": {"name": "certs"}, "stringData": {"word": word}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret("old")).unwrap()).await.expect("created");
    let pods: Api<Pod> = Api::default_namespaced(world.client());
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "volumes": [{"name": "certs", "secret": {"secretName": "certs"}}],
        "containers": [{"name": "main", "image": "reads:v1", "volumeMounts": [{"name": "certs", "mountPath": "/etc/certs"}]}],
    }});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.expect("created");
    world.until::<Pod>("p", is_ready).await;
    secrets.patch("certs", &PatchParams::default(), &Patch::Merge(secret("new"))).await.expect("patched");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(diary.words(), ["old", "new"]);
    assert_eq!(status(&world.get("p").await).unwrap().restart_count, 0, "the same run");
}

#[tokio::test(start_paused = true)]
async fn logs_of_a_simulated_pod_are_refused_with_the_reason() {
    let world = World::start(1).await;
    let pods = run(&world, json!({"image": "idle:v1"})).await;
    world.until::<Pod>("p", is_ready).await;
    let error = pods.logs("p", &LogParams::default()).await.expect_err("a simulated node keeps no logs");
    let kube::Error::Api(status) = error else { panic!("not an answer of the server: {error}") };
    assert_eq!(
        (status.code, status.message.as_str()),
        (500, "node \"node01\" publishes no endpoint for logs in its status")
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_ran_has_not_succeeded() {
    let world = World::start(1).await;
    let pods = run(&world, json!({"image": "nowhere:v1"})).await;
    world.until_all::<Event>(|events| events.iter().any(|it| it.reason.as_deref() == Some("BackOff"))).await;
    let mut watch = watcher(pods.clone(), watcher::Config::default()).boxed();
    let mut phases: Vec<String> = Vec::new();
    loop {
        let (pod, gone) = match watch.next().await.expect("it goes on").expect("an event") {
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => (pod, false),
            watcher::Event::Delete(pod) => (pod, true),
            watcher::Event::InitDone => {
                pods.delete("p", &DeleteParams::default()).await.expect("deleted");
                continue;
            }
            watcher::Event::Init => continue,
        };
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
        if gone {
            break;
        }
    }
    assert_eq!(phases, ["Pending", "Failed"]);
}
