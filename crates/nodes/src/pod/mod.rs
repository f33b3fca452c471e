//! The life of one pod on its node: volumes, network, init containers, containers, status, and its end.

mod container;
mod state;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use nanokube_controllers::action::{Note, merge_diff};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::fleet::Fleet;
use crate::node::Machine;
use crate::volumes::{self, NamespaceSources, Unmountable};
use crate::{Image, drawn, process};
use container::Actor;
use state::{PodSeen, Role, Seen, Stage};

/// Who speaks in the node's events.
const COMPONENT: &str = "kubelet";
/// Pause after a failed status write; short, since readiness waits for it.
const RETRY: Duration = Duration::from_millis(200);
/// Longest pause after failed writes or token requests.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A token outlives any run: a program's client keeps the one it started with.
const TOKEN_SECONDS: i64 = 365 * 24 * 3600;
/// Reports waiting to be written; containers report rarely.
const REPORTS: usize = 16;

/// What the containers of one pod share.
pub(crate) struct Context {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) machine: Machine,
    pub(crate) pod: watch::Receiver<Arc<Pod>>,
    pub(crate) namespace: String,
    /// `namespace/name`, from which latencies are drawn.
    pub(crate) full_name: String,
    pub(crate) ip: OnceLock<IpAddr>,
    pub(crate) token: Arc<OnceLock<String>>,
    pub(crate) client: OnceLock<Client>,
    /// The pod is to end: SIGTERM for all.
    pub(crate) stop: CancellationToken,
    /// When SIGKILL follows.
    pub(crate) deadline: OnceLock<Instant>,
    /// Nothing of the pod may act any more.
    pub(crate) killed: CancellationToken,
}

impl Context {
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.pod.borrow().clone()
    }

    pub(crate) fn drawn(&self, range: &std::ops::RangeInclusive<Duration>, salt: &str) -> Duration {
        drawn(range, self.fleet.options.seed, &self.full_name, salt)
    }

    /// An event about the pod, or about one of its containers. Boxed, as all requests of a pod are: what a request takes
    /// on its way would else be part of every pod's task for as long as the pod lives, times a thousand nodes.
    pub(crate) fn note<'a>(
        &'a self,
        warning: bool,
        reason: &'static str,
        message: String,
        container: Option<&'a str>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(self.record(warning, reason, message, container))
    }

    async fn record(&self, warning: bool, reason: &'static str, message: String, container: Option<&str>) {
        let pod = self.pod();
        let mut note = if warning {
            Note::warning(pod.as_ref(), COMPONENT, reason, message)
        } else {
            Note::normal(pod.as_ref(), COMPONENT, reason, message)
        };
        note.host = Some(self.machine.name.clone());
        note.regarding.field_path = container.map(|name| {
            let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|c| c.name == name);
            if init { format!("spec.initContainers{{{name}}}") } else { format!("spec.containers{{{name}}}") }
        });
        self.fleet.recorder.record(&self.fleet.options.client, note).await;
    }
}

/// How a pod's life on the node ends.
enum End {
    /// Asked for, with this much time for the containers.
    Graceful(Duration),
    /// The API does not know the pod any more.
    Lost,
}

struct Worker {
    context: Arc<Context>,
    seen: PodSeen,
    specs: Vec<Container>,
    /// The newest pod known: from the watch, or the answer to the last status write.
    latest: Arc<Pod>,
    actors: JoinSet<()>,
    /// Keeps the files of the pod's processes.
    keeper: JoinSet<()>,
    to: mpsc::Sender<(usize, Seen)>,
    reports: mpsc::Receiver<(usize, Seen)>,
}

/// Runs one pod until it is gone. Dropping the future kills it.
pub(crate) async fn run(fleet: Arc<Fleet>, machine: Machine, pod: watch::Receiver<Arc<Pod>>) {
    let mut worker = Worker::new(fleet, machine, pod);
    // Whatever way this future ends, nothing of the pod acts afterwards.
    let _kill = worker.context.killed.clone().drop_guard();
    let context = worker.context.clone();
    let end = tokio::select! {
        biased;
        end = ended(context) => end,
        () = worker.live() => End::Lost,
    };
    if let End::Graceful(grace) = end {
        let lost = lost(worker.context.pod.clone());
        tokio::select! {
            biased;
            () = lost => {}
            () = Box::pin(worker.shut_down(grace)) => {}
        }
    }
    worker.leave();
}

/// Waits until the pod is to end. Its node takes a moment to notice.
async fn ended(context: Arc<Context>) -> End {
    let mut pod = context.pod.clone();
    let deleted = pod.wait_for(|pod| pod.metadata.deletion_timestamp.is_some()).await.is_ok();
    if !deleted {
        return End::Lost;
    }
    let heed = context.drawn(&context.fleet.options.latencies.heed, "heed");
    tokio::select! {
        biased;
        () = lost(pod.clone()) => End::Lost,
        () = tokio::time::sleep(heed) => {
            let pod = pod.borrow();
            let of_spec = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            let seconds = pod.metadata.deletion_grace_period_seconds.or(of_spec).unwrap_or(30);
            End::Graceful(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        }
    }
}

async fn lost(mut pod: watch::Receiver<Arc<Pod>>) {
    while pod.changed().await.is_ok() {}
}

fn version(pod: &Pod) -> Option<u128> {
    pod.metadata.resource_version.as_deref()?.parse().ok()
}

impl Worker {
    fn new(fleet: Arc<Fleet>, machine: Machine, pod: watch::Receiver<Arc<Pod>>) -> Self {
        let latest = pod.borrow().clone();
        let spec = latest.spec.clone().unwrap_or_default();
        let role = |container: &Container| match container.restart_policy.as_deref() {
            Some("Always") => Role::Sidecar,
            _ => Role::Init,
        };
        let init = spec.init_containers.unwrap_or_default();
        let has_init = !init.is_empty();
        let waiting = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let specs: Vec<(Role, Container)> = init
            .into_iter()
            .map(|container| (role(&container), container))
            .chain(spec.containers.into_iter().map(|container| (Role::Main, container)))
            .collect();
        let containers =
            specs.iter().map(|(role, container)| state::before(&latest, *role, container, waiting)).collect();
        let started = latest.status.as_ref().and_then(|status| Some(status.start_time.as_ref()?.0));
        let (to, reports) = mpsc::channel(REPORTS);
        let seen = PodSeen {
            host_ip: machine.ip.to_string(),
            ip: None,
            start_time: started.unwrap_or_else(|| fleet.options.clock.now()),
            containers,
            terminal: false,
        };
        let namespace = latest.metadata.namespace.clone().unwrap_or_default();
        let context = Context {
            full_name: format!("{namespace}/{}", latest.metadata.name.as_deref().unwrap_or_default()),
            namespace,
            fleet,
            machine,
            pod,
            ip: OnceLock::new(),
            token: Arc::default(),
            client: OnceLock::new(),
            stop: CancellationToken::new(),
            deadline: OnceLock::new(),
            killed: CancellationToken::new(),
        };
        Self {
            context: Arc::new(context),
            seen,
            specs: specs.into_iter().map(|(_, container)| container).collect(),
            latest,
            actors: JoinSet::new(),
            keeper: JoinSet::new(),
            to,
            reports,
        }
    }

    /// Brings the pod up and keeps its status; returns never while the pod exists.
    async fn live(&mut self) {
        let context = self.context.clone();
        let latencies = &context.fleet.options.latencies;
        tokio::time::sleep(context.drawn(&latencies.notice, "notice")).await;
        self.publish().await;
        Box::pin(self.mount()).await;
        Box::pin(self.identify()).await;
        Box::pin(self.lay_out()).await;
        tokio::time::sleep(context.drawn(&latencies.sandbox, "sandbox")).await;
        self.connect();
        self.publish().await;
        for index in 0..self.specs.len() {
            self.start(index);
            let done = |seen: &Seen| match seen.role {
                Role::Init => seen.finished,
                Role::Sidecar => seen.started,
                Role::Main => true,
            };
            while !done(&self.seen.containers[index]) {
                self.report().await;
            }
            let failed = |seen: &Seen| matches!(&seen.stage, Stage::Ended(how) if how.code != 0);
            let seen = &self.seen.containers[index];
            if seen.role == Role::Init && failed(seen) {
                self.context.stop.cancel();
                break;
            }
        }
        loop {
            let main = self.seen.containers.iter().filter(|seen| seen.role == Role::Main);
            if main.into_iter().all(|seen| seen.finished) {
                // Sidecars end with the last main container.
                self.context.stop.cancel();
            }
            self.report().await;
        }
    }

    /// Waits until every volume can be mounted.
    async fn mount(&self) {
        let context = &self.context;
        let mut sources = context.fleet.sources.subscribe();
        let volumes = context.pod().spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
        loop {
            sources.borrow_and_update();
            let now = NamespaceSources { fleet: &context.fleet, namespace: &context.namespace };
            let faults: Vec<String> = volumes
                .iter()
                .filter_map(|volume| Some((volume, volumes::check(volume, &now).err()?)))
                .map(|(volume, why)| format!("MountVolume.SetUp failed for volume \"{}\" : {why}", volume.name))
                .collect();
            if faults.is_empty() {
                return;
            }
            for message in faults {
                context.note(true, "FailedMount", message, None).await;
            }
            if sources.changed().await.is_err() {
                return pending().await;
            }
            // Events come in bursts; one look per burst is enough.
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Asks for the service account's token, if the pod runs code that could use it. An image that can't be pulled yet may
    /// turn out to be code.
    async fn identify(&self) {
        let context = &self.context;
        let images = &context.fleet.options.images;
        let runs_code = self.seen.containers.iter().any(|seen| !matches!(images.find(&seen.image), Some(Image::Idle)));
        if !runs_code {
            return;
        }
        let mut pause = RETRY;
        loop {
            let seconds = if context.fleet.processes.is_some() { process::TOKEN_SECONDS } else { TOKEN_SECONDS };
            match token(context, seconds).await {
                Ok(token) => match context.fleet.options.connect.client(&token) {
                    Ok(client) => {
                        let _ = context.token.set(token);
                        let _ = context.client.set(client);
                        return;
                    }
                    Err(error) => debug!(pod = context.full_name, %error, "no client for the pod's token"),
                },
                Err(error) => {
                    let words = match error {
                        kube::Error::Api(status) => status.message.clone(),
                        other => other.to_string(),
                    };
                    let why = Unmountable::Token(words);
                    let message = format!("MountVolume.SetUp failed for volume \"kube-api-access\" : {why}");
                    context.note(true, "FailedMount", message, None).await;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Writes the volumes as files for the pod's processes, and keeps them as the API has them.
    async fn lay_out(&mut self) {
        let context = &self.context;
        let (Some(shared), Some(token)) = (&context.fleet.processes, context.token.get()) else { return };
        let mut pause = RETRY;
        while let Err(why) = process::mount(context, shared, token) {
            context.note(true, "FailedMount", format!("the volumes cannot be written: {why}"), None).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.keeper.spawn(process::keep(context.clone(), shared.clone(), token.clone()));
    }

    /// Gives the pod its address.
    fn connect(&mut self) {
        let context = &self.context;
        let on_host = context.pod().spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let ip = if on_host { Some(context.machine.ip) } else { context.fleet.take_address(&context.machine) };
        // A node holds 110 pods and 253 addresses; if all are taken the pod shares the node's.
        let ip = ip.unwrap_or(context.machine.ip);
        let _ = context.ip.set(ip);
        self.seen.ip = Some(ip.to_string());
    }

    fn start(&mut self, index: usize) {
        let actor = Actor::new(
            self.context.clone(),
            index,
            self.specs[index].clone(),
            self.seen.containers[index].clone(),
            self.to.clone(),
        );
        self.actors.spawn(actor.run());
    }

    /// Takes in what containers report, and writes the status.
    async fn report(&mut self) {
        let mut pod = self.context.pod.clone();
        pod.mark_unchanged();
        tokio::select! {
            biased;
            Some((index, seen)) = self.reports.recv() => self.seen.containers[index] = seen,
            // Readiness gates and generations change from outside.
            Ok(()) = pod.changed() => {}
        }
        while let Ok((index, seen)) = self.reports.try_recv() {
            self.seen.containers[index] = seen;
        }
        self.publish().await;
    }

    /// Writes the status if it differs from what the API has.
    fn publish(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.write_status())
    }

    async fn write_status(&mut self) {
        let mut pause = RETRY;
        loop {
            let watched = self.context.pod();
            // Of two copies of one version the shared one.
            if version(&watched) >= version(&self.latest) {
                self.latest = watched;
            }
            let clock = &self.context.fleet.options.clock;
            let next = state::status(&self.latest, &self.seen, clock.now());
            let value = |status: Option<&_>| {
                status.and_then(|status| serde_json::to_value(status).ok()).unwrap_or_else(|| json!({}))
            };
            let Some(patch) = merge_diff(&value(self.latest.status.as_ref()), &value(Some(&next))) else { return };
            let patch: Value = json!({"metadata": {"uid": self.latest.metadata.uid}, "status": patch});
            let name = self.latest.metadata.name.clone().unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.context.fleet.options.client.clone(), &self.context.namespace);
            match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(pod) => {
                    self.latest = Arc::new(pod);
                    return;
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return,
                Err(error) => debug!(pod = self.context.full_name, %error, "pod status not written, trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Stops the containers, reports their end and deletes the pod for good.
    async fn shut_down(&mut self, grace: Duration) {
        let _ = self.context.deadline.set(Instant::now() + grace);
        self.context.stop.cancel();
        while !self.actors.is_empty() {
            tokio::select! {
                biased;
                Some((index, seen)) = self.reports.recv() => {
                    self.seen.containers[index] = seen;
                    self.publish().await;
                }
                _ = self.actors.join_next() => {}
            }
        }
        while let Ok((index, seen)) = self.reports.try_recv() {
            self.seen.containers[index] = seen;
        }
        self.context.killed.cancel();
        self.seen.terminal = true;
        self.publish().await;
        let name = self.latest.metadata.name.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.fleet.options.client.clone(), &self.context.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: self.latest.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let mut pause = RETRY;
        loop {
            match api.delete(&name, &params).await {
                Ok(_) => break,
                // Gone, or another pod has the name by now.
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => break,
                Err(error) => debug!(pod = self.context.full_name, %error, "pod not deleted, trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Gives back what the pod had from the node.
    fn leave(self) {
        let Self { context, latest, .. } = self;
        context.killed.cancel();
        if let (Some(shared), Some(uid)) = (&context.fleet.processes, &latest.metadata.uid) {
            shared.forget(uid);
        }
        if let Some(ip) = context.ip.get()
            && *ip != context.machine.ip
        {
            context.fleet.options.network.leave(*ip);
            context.fleet.free_address(&context.machine, *ip);
        }
    }
}

/// A token for the pod's service account, bound to the pod.
pub(crate) async fn token(context: &Context, seconds: i64) -> Result<String, kube::Error> {
    let pod = context.pod();
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    let account = account.unwrap_or_else(|| "default".to_owned());
    let api: Api<ServiceAccount> = Api::namespaced(context.fleet.options.client.clone(), &context.namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = api.create_token_request(&account, &PostParams::default(), &request).await?;
    Ok(answer.status.and_then(|status| status.token).unwrap_or_default())
}
