//! One container: pulled, started, probed, restarted, stopped. It reports every change to its pod's worker.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use k8s_openapi::api::core::v1::{Container, Probe};
use kubevirt_runtime::host::{Host, Program};
use kubevirt_runtime::log::Verbosity;
use nanokube_controllers::pods::draw;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::state::{Ended, Role, Seen, Stage};
use crate::Image;
use crate::environment::{Missing, command_line, environment};
use crate::guard::{GuardedNet, guard_client};
use crate::probe::{self, Count, Kind, Timing};
use crate::process::{self, Exit};
use crate::volumes::{NamespaceSources, PodFiles};

/// Back-off of restarts and pulls: 10 s, doubling up to 5 minutes, as a kubelet's.
const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// A failed pull shows its error for this long before it shows that it waits, as a kubelet does.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// A run this long ends a row of crashes.
const STABLE: Duration = Duration::from_secs(600);
/// From a container's start to its first probe, so that a program that binds at once is asked after it did.
const FIRST_PROBE: Duration = Duration::from_millis(50);
/// Failed attempts reported one by one; after that every thirtieth, so that a pod left unready does not flood the API.
const REPORTED_EACH: u32 = 20;
/// See [`REPORTED_EACH`].
const REPORTED_EVERY: u32 = 30;
/// What a container runtime reports for a program it cannot start.
const CANNOT_START: i32 = 128;
/// Where a program may leave a termination message, unless the container says otherwise.
const MESSAGE_PATH: &str = "/dev/termination-log";
/// What a signal that cannot be caught leaves behind.
const KILLED: i32 = 137;
/// What a Rust program that panics leaves behind.
const PANICKED: i32 = 101;

/// The pause before the next attempt after `failures` in a row.
pub(super) fn back_off(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => BACK_OFF_FIRST.saturating_mul(1 << doublings.min(16)).min(BACK_OFF_MAX),
    }
}

/// Whether a container runs again after it ended.
pub(super) fn restarts(role: Role, policy: &str, code: i32) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, "Never") => false,
        (Role::Init, _) => code != 0,
        (Role::Main, "Never") => false,
        (Role::Main, "OnFailure") => code != 0,
        (Role::Main, _) => true,
    }
}

pub(super) struct Actor {
    context: Arc<Context>,
    index: usize,
    spec: Container,
    seen: Seen,
    to: mpsc::Sender<(usize, Seen)>,
}

/// The pod is being stopped.
struct Stopped;

impl Actor {
    pub(super) fn new(
        context: Arc<Context>,
        index: usize,
        spec: Container,
        seen: Seen,
        to: mpsc::Sender<(usize, Seen)>,
    ) -> Self {
        Self { context, index, spec, seen, to }
    }

    async fn report(&self) {
        // The worker is gone only when the pod is.
        let _ = self.to.send((self.index, self.seen.clone())).await;
    }

    async fn note(&self, warning: bool, reason: &'static str, message: String) {
        self.context.note(warning, reason, message, Some(&self.spec.name)).await;
    }

    async fn say_waiting(&mut self, reason: &'static str, message: Option<String>) {
        self.seen.stage = Stage::Waiting { reason, message };
        self.seen.ready = false;
        self.report().await;
    }

    /// Runs the container until it will not run again.
    pub(super) async fn run(mut self) {
        let mut crashes = 0;
        loop {
            let run = async {
                let image = self.pull().await?;
                self.configure(image).await
            };
            let Ok(ready) = run.await else { break };
            let began = Instant::now();
            let ended = self.run_once(ready).await;
            let code = ended.code;
            self.seen.started = false;
            self.seen.ready = false;
            self.seen.stage = Stage::Ended(ended.clone());
            let policy = self.context.pod().spec.as_ref().and_then(|spec| spec.restart_policy.clone());
            let again = restarts(self.seen.role, policy.as_deref().unwrap_or("Always"), code);
            if !again || self.context.stop.is_cancelled() {
                break;
            }
            self.report().await;
            if began.elapsed() >= STABLE {
                crashes = 0;
            }
            let pause = back_off(crashes);
            crashes += 1;
            self.seen.last = Some(ended);
            if !pause.is_zero() && self.back_off_crash(pause).await.is_err() {
                break;
            }
            self.seen.restarts += 1;
        }
        self.seen.finished = true;
        self.report().await;
    }

    async fn back_off_crash(&mut self, pause: Duration) -> Result<(), Stopped> {
        let pod = self.context.pod();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let place = format!("{name}_{}({uid})", self.context.namespace);
        let container = self.spec.name.clone();
        let span = seconds(pause);
        let message = format!("back-off {span} restarting failed container={container} pod={place}");
        self.say_waiting("CrashLoopBackOff", Some(message)).await;
        let text = format!("Back-off restarting failed container {container} in pod {place}");
        self.note(true, "BackOff", text).await;
        self.pause(pause).await
    }

    async fn pause(&self, time: Duration) -> Result<(), Stopped> {
        tokio::select! {
            biased;
            () = self.context.stop.cancelled() => Err(Stopped),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Pulls the image, as often as it takes; one that is on the node is not pulled again, and with the policy `Always` only
    /// asked for, since its parts are there.
    async fn pull(&mut self) -> Result<Image, Stopped> {
        let context = self.context.clone();
        let name = self.seen.image.clone();
        let policy = self.spec.image_pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned());
        let salt = format!("pull/{}", self.spec.name);
        let mut failures = 0;
        loop {
            let present = context.fleet.has_image(&context.machine.name, &name);
            if !present || policy == "Always" {
                self.note(false, "Pulling", format!("Pulling image \"{name}\"")).await;
            }
            let time =
                if present { Duration::ZERO } else { context.drawn(&context.fleet.options.latencies.pull, &salt) };
            self.pause(time).await?;
            if let Some(image) = context.fleet.options.images.find(&name) {
                context.fleet.pulled(&context.machine.name, &name);
                let text = if present && policy != "Always" {
                    format!("Container image \"{name}\" already present on machine")
                } else {
                    let took = seconds(time);
                    format!("Successfully pulled image \"{name}\" in {took} ({took} including waiting)")
                };
                self.note(false, "Pulled", text).await;
                self.seen.image_id = format!("{}@sha256:{}", name.split('@').next().unwrap_or(&name), hex(&name));
                return Ok(image);
            }
            failures += 1;
            let why = format!("failed to pull and unpack image \"{name}\": {name}: not found");
            self.note(true, "Failed", format!("Failed to pull image \"{name}\": {why}")).await;
            self.note(true, "Failed", "Error: ErrImagePull".to_owned()).await;
            self.say_waiting("ErrImagePull", Some(why.clone())).await;
            self.pause(PULL_ERROR_SHOWN).await?;
            self.note(false, "BackOff", format!("Back-off pulling image \"{name}\"")).await;
            self.note(true, "Failed", "Error: ImagePullBackOff".to_owned()).await;
            let text = format!("Back-off pulling image \"{name}\": ErrImagePull: {why}");
            self.say_waiting("ImagePullBackOff", Some(text)).await;
            self.pause(back_off(failures).saturating_sub(PULL_ERROR_SHOWN)).await?;
        }
    }

    /// Builds the container's environment; waits while it names something that is missing.
    async fn configure(&mut self, image: Image) -> Result<Ready, Stopped> {
        let context = self.context.clone();
        let mut sources = context.fleet.sources.subscribe();
        loop {
            sources.borrow_and_update();
            match self.environment() {
                Ok(env) => {
                    let time =
                        context.drawn(&context.fleet.options.latencies.start, &format!("start/{}", self.spec.name));
                    self.pause(time).await?;
                    let args = command_line(&self.spec, &env);
                    return Ok(Ready { image, args, env });
                }
                Err(missing) => {
                    self.note(true, "Failed", format!("Error: {missing}")).await;
                    self.say_waiting("CreateContainerConfigError", Some(missing.to_string())).await;
                }
            }
            tokio::select! {
                biased;
                () = context.stop.cancelled() => return Err(Stopped),
                changed = sources.changed() => {
                    if changed.is_err() {
                        return pending().await;
                    }
                }
            }
        }
    }

    fn environment(&self) -> Result<std::collections::BTreeMap<String, String>, Missing> {
        let context = &self.context;
        let mut pod = context.pod().as_ref().clone();
        // The watch may not have shown the address yet that this node has just given.
        let status = pod.status.get_or_insert_default();
        status.host_ip = Some(context.machine.ip.to_string());
        if let Some(ip) = context.ip.get() {
            status.pod_ip = Some(ip.to_string());
            status.pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: ip.to_string() }]);
        }
        environment(&pod, &self.spec, &NamespaceSources { fleet: &context.fleet, namespace: &context.namespace })
    }

    /// Starts the container and waits for its end.
    async fn run_once(&mut self, ready: Ready) -> Ended {
        let context = self.context.clone();
        let began = context.fleet.options.clock.now();
        let id =
            format!("nanokube://{}", hex(&format!("{}/{}/{}", context.full_name, self.spec.name, self.seen.restarts)));
        self.note(false, "Created", format!("Container created: {}", self.spec.name)).await;
        self.note(false, "Started", format!("Container started: {}", self.spec.name)).await;
        self.seen.id = Some(id.clone());
        self.seen.stage = Stage::Running { since: began };
        self.seen.started = self.spec.startup_probe.is_none();
        self.seen.ready = self.seen.started && self.spec.readiness_probe.is_none() && self.seen.role != Role::Init;
        self.report().await;

        let stop = CancellationToken::new();
        let killed = context.killed.child_token();
        let mut process = self.process(ready, stop.clone(), killed.clone());
        let spec = context.pod().spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let grace = Duration::from_secs(spec.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30));
        let exit = tokio::select! {
            biased;
            exit = process.ended() => exit,
            () = context.stop.cancelled() => {
                self.note(false, "Killing", format!("Stopping container {}", self.spec.name)).await;
                stop.cancel();
                let deadline = context.deadline.get().copied().unwrap_or_else(|| Instant::now() + grace);
                process.ended_by(deadline).await
            }
            kind = self.watch_probes() => {
                let word = kind.word().to_lowercase();
                let name = &self.spec.name;
                self.note(false, "Killing", format!("Container {name} failed {word} probe, will be restarted")).await;
                stop.cancel();
                process.ended_by(Instant::now() + grace).await
            }
        };
        killed.cancel();
        let Exit { code, reason, message } = exit;
        Ended {
            code,
            reason: reason.unwrap_or(if code == 0 { "Completed" } else { "Error" }),
            message,
            started: began,
            finished: context.fleet.options.clock.now(),
            id,
        }
    }

    fn process(&self, ready: Ready, stop: CancellationToken, killed: CancellationToken) -> Process {
        let context = &self.context;
        let latencies = &context.fleet.options.latencies;
        let code: BoxFuture<'static, Result<(), String>> = match ready.image {
            Image::Program(program) => self.program(program, ready.args, ready.env, stop, killed),
            Image::Executable(program) => return self.child(program, ready.args, ready.env, stop),
            Image::Idle if self.seen.role == Role::Init => {
                let time = context.drawn(&latencies.init, &format!("init/{}", self.spec.name));
                Box::pin(async move {
                    tokio::time::sleep(time).await;
                    Ok(())
                })
            }
            Image::Idle => {
                let time = context.drawn(&latencies.stop, &format!("stop/{}", self.spec.name));
                Box::pin(async move {
                    stop.cancelled().await;
                    tokio::time::sleep(time).await;
                    Ok(())
                })
            }
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            match code.await {
                Ok(()) => Exit { code: 0, reason: None, message: None },
                Err(message) => Exit { code: 1, reason: None, message: Some(message) },
            }
        });
        Process { task }
    }

    /// A child process of a process node.
    fn child(
        &self,
        program: std::path::PathBuf,
        args: Vec<String>,
        env: std::collections::BTreeMap<String, String>,
        stop: CancellationToken,
    ) -> Process {
        let context = &self.context;
        let mut task = JoinSet::new();
        let (Some(shared), Some(ip)) = (&context.fleet.processes, context.ip.get()) else {
            let message = "this node runs no processes: its images must be idle or code".to_owned();
            task.spawn(async { Exit { code: CANNOT_START, reason: Some("StartError"), message: Some(message) } });
            return Process { task };
        };
        let pod = context.pod();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let message_path = self.spec.termination_message_path.clone().filter(|path| !path.is_empty());
        task.spawn(process::run(process::Start {
            setpriv: shared.setpriv.clone(),
            program,
            args,
            env,
            root: process::container_root(shared, uid, &self.spec.name),
            address: *ip,
            api: shared.options.api.clone(),
            log: shared.open_log(uid, &self.spec.name),
            clock: context.fleet.options.clock.clone(),
            message_path: message_path.unwrap_or_else(|| MESSAGE_PATH.to_owned()),
            message_from_log: self.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
            stop,
        }));
        Process { task }
    }

    fn program(
        &self,
        program: Arc<dyn Program>,
        args: Vec<String>,
        env: std::collections::BTreeMap<String, String>,
        stop: CancellationToken,
        killed: CancellationToken,
    ) -> BoxFuture<'static, Result<(), String>> {
        let context = &self.context;
        let options = &context.fleet.options;
        let pod = context.pod();
        let (Some(ip), Some(client)) = (context.ip.get(), context.client.get()) else {
            return Box::pin(async {
                Err("the pod has no address or no identity, so its program cannot start".to_owned())
            });
        };
        let salt = format!("program/{}/{}", self.spec.name, self.seen.restarts);
        let host = Host {
            args,
            env,
            hostname: pod.metadata.name.clone().unwrap_or_default(),
            client: guard_client(client.clone(), &context.namespace, killed.clone()),
            namespace: context.namespace.clone(),
            files: Arc::new(PodFiles {
                fleet: context.fleet.clone(),
                pod: context.pod.clone(),
                namespace: context.namespace.clone(),
                container: self.spec.clone(),
                token: context.token.clone(),
            }),
            net: Arc::new(GuardedNet { inner: options.network.host(*ip), killed }),
            clock: options.clock.clone(),
            seed: draw(options.seed, &context.full_name, &salt),
            verbosity: Verbosity::fixed(),
            stop,
        };
        // The whole chain of causes becomes the termination message.
        let code = program.run(host);
        Box::pin(async move { code.await.map_err(|error| format!("{error:#}")) })
    }

    /// Runs the probes of a running container; gives the one that says it must be restarted.
    async fn watch_probes(&mut self) -> Kind {
        let began = Instant::now();
        let (to, mut verdicts) = mpsc::channel(4);
        if let Some(startup) = self.spec.startup_probe.clone() {
            let mut probing = std::pin::pin!(probing(self.probing(Kind::Startup, startup, began), to.clone()));
            let good = tokio::select! {
                biased;
                Some((_, good)) = verdicts.recv() => good,
                () = &mut probing => return pending().await,
            };
            if !good {
                return Kind::Startup;
            }
            self.seen.started = true;
            self.seen.ready = self.spec.readiness_probe.is_none();
            self.report().await;
        }
        let readiness = self.spec.readiness_probe.clone();
        let readiness = readiness.map(|probe| probing(self.probing(Kind::Readiness, probe, began), to.clone()));
        let liveness = self.spec.liveness_probe.clone();
        let liveness = liveness.map(|probe| probing(self.probing(Kind::Liveness, probe, began), to.clone()));
        let both = async {
            futures::join!(maybe(readiness), maybe(liveness));
        };
        let mut both = std::pin::pin!(both);
        loop {
            tokio::select! {
                biased;
                Some((kind, good)) = verdicts.recv() => {
                    if kind == Kind::Liveness && !good {
                        return kind;
                    }
                    if kind == Kind::Readiness && self.seen.ready != good {
                        self.seen.ready = good;
                        self.report().await;
                    }
                }
                () = &mut both => return pending().await,
            }
        }
    }

    fn probing(&self, kind: Kind, probe: Probe, began: Instant) -> Probing {
        Probing { context: self.context.clone(), container: self.spec.clone(), kind, probe, began }
    }
}

async fn maybe(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// What one probe needs.
struct Probing {
    context: Arc<Context>,
    container: Container,
    kind: Kind,
    probe: Probe,
    began: Instant,
}

/// Probes for ever, and sends every verdict.
async fn probing(it: Probing, to: mpsc::Sender<(Kind, bool)>) {
    let Probing { context, container, kind, probe, began } = it;
    let Some(ip) = context.ip.get().copied() else { return pending().await };
    // The kubelet asks from the node, not from the pod.
    let net = context.fleet.options.network.host(context.machine.ip);
    let timing = Timing::of(&probe);
    let mut next = (began + timing.delay.max(FIRST_PROBE)).max(Instant::now());
    let mut count = Count::default();
    let mut failures = 0;
    loop {
        tokio::time::sleep_until(next).await;
        next += timing.period;
        let answer = Box::pin(probe::attempt(&probe, &container, net.as_ref(), ip)).await;
        let verdict = count.step(answer.is_ok(), timing);
        if let Err(why) = answer {
            failures += 1;
            if failures <= REPORTED_EACH || failures % REPORTED_EVERY == 0 {
                let text = format!("{} probe failed: {why}", kind.word());
                context.note(true, "Unhealthy", text, Some(&container.name)).await;
            }
        }
        if let Some(good) = verdict
            && to.send((kind, good)).await.is_err()
        {
            return;
        }
        next = next.max(Instant::now());
    }
}

/// What a container needs to start.
struct Ready {
    image: Image,
    args: Vec<String>,
    env: std::collections::BTreeMap<String, String>,
}

/// Running code; dropping it is SIGKILL.
struct Process {
    task: JoinSet<Exit>,
}

impl Process {
    async fn ended(&mut self) -> Exit {
        match self.task.join_next().await {
            Some(Ok(exit)) => exit,
            Some(Err(error)) if error.is_panic() => {
                let panic = error.into_panic();
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Exit { code: PANICKED, reason: None, message: Some(format!("panicked: {text}")) }
            }
            Some(Err(_)) | None => Exit { code: KILLED, reason: None, message: None },
        }
    }

    async fn ended_by(&mut self, deadline: Instant) -> Exit {
        match tokio::time::timeout_at(deadline, self.ended()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.task.abort_all();
                Exit { code: KILLED, reason: None, message: None }
            }
        }
    }
}

/// A duration as Go prints it, to the millisecond.
fn seconds(time: Duration) -> String {
    let (minutes, rest) = (time.as_secs() / 60, time.as_millis() % 60_000);
    let part = format!("{}.{:03}", rest / 1000, rest % 1000);
    let part = part.trim_end_matches('0').trim_end_matches('.');
    if minutes > 0 { format!("{minutes}m{part}s") } else { format!("{part}s") }
}

/// 64 hexadecimal digits that stand for a name.
fn hex(name: &str) -> String {
    (0..4).map(|part| format!("{:016x}", draw(0, name, &format!("digest/{part}")))).collect()
}
