//! A cluster of one process: the API server, the built-in controllers, nodes, and images whose code is this crate's or a
//! server that is simply ready.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kubevirt_release::operator_manifest::{ManifestOptions, cr_manifest, operator_manifest};
use kubevirt_release::{Kind, Object};
use kubevirt_runtime::admission::{Review, Verdict};
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::host::{Host, Program};
use kubevirt_runtime::net::memory::MemoryNet;
use kubevirt_runtime::serve;
use kubevirt_runtime::tls::{Certificate, CertificateFiles};
use nanokube::{MemorySink, Nanokube, UserInfo};
use nanokube_nodes::{Heartbeats, Image, Images, Latencies};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const NAMESPACE: &str = "kubevirt";
pub(crate) const REGISTRY: &str = "registry.example/suite";
pub(crate) const OPERATOR: &str = "system:serviceaccount:kubevirt:kubevirt-operator";

/// Where the API server is on the pods' network, from which it calls webhooks.
const API_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// Longer than anything here should take in simulated time.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// The pods' network.
    pub(crate) network: Arc<MemoryNet>,
    audit: MemorySink,
    _tasks: JoinSet<()>,
}

/// A component reduced to its readiness: it answers every request on its port with 200. New objects pass it as they are.
fn ready_server() -> impl Program {
    |host: Host| -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
        Box::pin(async move {
            // virt-api's, which the API server checks; who has none mounted shows one of its own making.
            let certificate =
                Certificate::new(&host, CertificateFiles::in_dir("/etc/virt-api/certificates", Vec::new()));
            let address = (std::net::Ipv4Addr::UNSPECIFIED, 8443).into();
            let listener = host.net.listen(address).await?;
            let answer = serve::handler(|request: serve::Request| async {
                if !request.uri().path().contains("-mutate") {
                    return serve::text(StatusCode::OK, "ok");
                }
                let body = serve::read_body(request.into_body()).await.expect("a body");
                let review = Review::parse(&body).expect("a review");
                serve::json(StatusCode::OK, &review.answer(&Verdict::allow(), &[]))
            });
            serve::serve(listener, certificate.server_config()?, answer, host.stop.clone()).await;
            Ok(())
        })
    }
}

pub(crate) fn find(image: &str) -> Option<Image> {
    let name = image.strip_prefix(REGISTRY)?.strip_prefix('/')?;
    match name.split_once(':').filter(|(_, tag)| ["v0.1.0", "v0.2.0"].contains(tag))? {
        ("virt-operator", _) => Some(Image::Program(Arc::new(virt_operator::program()))),
        ("virt-launcher", _) => Some(Image::Idle),
        ("virt-api" | "virt-controller" | "virt-handler", _) => Some(Image::Program(Arc::new(ready_server()))),
        _ => None,
    }
}

impl Cluster {
    pub(crate) fn start(nodes: u32) -> Self {
        Self::start_with(nodes, Arc::new(find))
    }

    /// A cluster that can pull other images.
    pub(crate) fn start_with(nodes: u32, images: Arc<dyn Images>) -> Self {
        // What went wrong is in the log, which only a failing test shows.
        let log = kubevirt_runtime::cli::ProcessArgs {
            verbosity: 2,
            log_format: kubevirt_runtime::cli::LogFormat::Text,
            kubeconfig: None,
            master: None,
        };
        kubevirt_runtime::log::init(&log);
        let clock = Clock::anchored(Timestamp::from_second(1_790_000_000).expect("a time"));
        let audit = MemorySink::default();
        let network = MemoryNet::new();
        let options = nanokube::Options::new(clock.clone(), 1).with_audit(audit.clone());
        let api = Nanokube::new(options.with_net(network.host(API_SERVER)));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (server, until, stamps) = (api.clone(), stop.clone(), clock.clone());
        tasks.spawn(async move {
            let endpoint_lag = Duration::ZERO..=Duration::from_millis(100);
            let options = nanokube_controllers::Options { clock: stamps, seed: 1, endpoint_lag };
            let client_for = |user: &str| server.client(UserInfo::new(user, &["system:masters"]));
            nanokube_controllers::run(client_for, options, until).await.expect("the controllers run");
        });
        let pods = api.clone();
        let options = nanokube_nodes::Options {
            client: api.client(UserInfo::admin()),
            connect: Arc::new(move |token: &str| Ok(pods.client_with_token(token))),
            count: nodes,
            first_number: 1,
            join_every: Duration::ZERO,
            images,
            network: Arc::clone(&network).into(),
            latencies: Latencies::default(),
            heartbeats: Heartbeats::default(),
            power: nanokube_nodes::Power::default(),
            clock,
            seed: 1,
            capacity: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        tasks.spawn(async move { nanokube_nodes::run(options, stop).await.expect("the nodes run") });
        Self { client: api.client(UserInfo::admin()), network, audit, _tasks: tasks }
    }

    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        self.of(kind.group(), kind.version(), kind.name(), kind.plural(), kind.namespaced())
    }

    pub(crate) fn of(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespaced: bool,
    ) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        if namespaced {
            Api::namespaced_with(self.client.clone(), NAMESPACE, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    pub(crate) async fn apply(&self, objects: &[Object]) {
        for object in objects {
            // A definition serves its kind a moment after it was written.
            self.until(&format!("{} can be applied", object.key()), async || {
                let parameters = PatchParams::apply("admin").force();
                self.api(object.kind()).patch(object.name(), &parameters, &Patch::Apply(object.value())).await.ok()
            })
            .await;
        }
    }

    /// Applies the operator's manifest of a version.
    pub(crate) async fn operator(&self, version: &str) {
        self.apply(&operator_manifest(&ManifestOptions::new(REGISTRY, version))).await;
        // Every pod mounts it; on a real cluster a controller puts it into every namespace.
        let root = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": "none"},
            "metadata": {"name": "kube-root-ca.crt", "namespace": NAMESPACE},
        });
        self.apply(&[Object::from_value(root).expect("a registered kind")]).await;
    }

    /// Applies the CR of a release.
    pub(crate) async fn cr(&self) {
        self.apply(&[cr_manifest(NAMESPACE)]).await;
    }

    pub(crate) async fn patch_cr(&self, patch: Value) {
        self.api(Kind::KubeVirt)
            .patch("kubevirt", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the CR takes the change");
    }

    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        let found = self.api(kind).get_opt(name).await.expect("reading works")?;
        Some(serde_json::to_value(found).expect("an object is data"))
    }

    pub(crate) async fn names(&self, kind: Kind, selector: &str) -> Vec<String> {
        let found = self.api(kind).list(&ListParams::default().labels(selector)).await.expect("listing works");
        found.items.into_iter().filter_map(|object| object.metadata.name).collect()
    }

    /// Name, image and readiness of the pods of a component.
    pub(crate) async fn pods(&self, component: &str) -> Vec<(String, String, bool)> {
        let pods = self.of("", "v1", "Pod", "pods", true);
        let selector = ListParams::default().labels(&format!("kubevirt.io={component}"));
        let found = pods.list(&selector).await.expect("listing works").items;
        found
            .into_iter()
            .map(|pod| {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let image = pod.data.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default();
                let conditions = pod.data.pointer("/status/conditions").and_then(Value::as_array).cloned();
                let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
                (name, image.to_owned(), ready)
            })
            .collect()
    }

    /// The status of a pod that is not ready, and how many there are.
    async fn unready(&self) -> String {
        let pods =
            self.of("", "v1", "Pod", "pods", true).list(&ListParams::default()).await.expect("listing works").items;
        let is_ready = |pod: &DynamicObject| {
            let conditions = pod.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let unready: Vec<_> = pods.iter().filter(|pod| !is_ready(pod)).collect();
        let first = unready.first().map_or(Value::Null, |pod| pod.data["status"].clone());
        let events =
            self.of("", "v1", "Event", "events", true).list(&ListParams::default()).await.expect("listing works");
        let events: Vec<String> = events
            .items
            .iter()
            .map(|event| format!("{} {}", event.data["involvedObject"]["name"], event.data["message"]))
            .collect();
        format!("{} not ready, the first: {first:#}\nevents: {events:#?}", unready.len())
    }

    /// Waits until something is there.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let begin = tokio::time::Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if begin.elapsed() > PATIENCE {
                let status = self.get(Kind::KubeVirt, "kubevirt").await.map_or(Value::Null, |cr| cr["status"].clone());
                let mut pods = Vec::new();
                for component in ["virt-operator", "virt-api", "virt-controller", "virt-handler"] {
                    pods.extend(self.pods(component).await);
                }
                let unready = self.unready().await;
                let refused = self.refused();
                panic!("not in time: {what}\nstatus: {status:#}\npods: {pods:#?}\n{unready}\nrefused: {refused:#?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the CR's status is as wanted.
    pub(crate) async fn cr_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(what, async || self.get(Kind::KubeVirt, "kubevirt").await.filter(|cr| wanted(cr))).await
    }

    /// Waits until a version is observed, available, and nothing progresses.
    pub(crate) async fn settled(&self, version: &str) -> Value {
        self.cr_until(&format!("settled at {version}"), |cr| {
            cr["status"]["observedKubeVirtVersion"] == version
                && condition(cr, "Available") == "True AllComponentsReady"
                && condition(cr, "Progressing") == "False AllComponentsReady"
        })
        .await
    }

    /// The operator's requests so far, as verb and resource/name.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        let events = self.audit.events();
        let own = events.iter().filter(|event| event["user"]["username"] == OPERATOR);
        own.map(|event| {
            let object = &event["objectRef"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut target = format!("{}/{}", text(&object["resource"]), text(&object["name"]));
            if let Some(part) = object["subresource"].as_str() {
                target.push_str(&format!("/{part}"));
            }
            (text(&event["verb"]), target)
        })
        .collect()
    }

    /// The operator's writes so far, its lease aside.
    pub(crate) fn writes(&self) -> Vec<(String, String)> {
        let is_read = |verb: &str| matches!(verb, "get" | "list" | "watch");
        let writes = self.requests().into_iter().filter(|(verb, _)| !is_read(verb));
        // A review is asked for by POST, and nothing of it is stored.
        let aside = |target: &str| ["leases/", "selfsubjectrulesreviews/"].iter().any(|it| target.starts_with(it));
        writes.filter(|(_, target)| !aside(target)).collect()
    }

    /// Every request so far, oldest first.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.audit.events()
    }

    /// Everybody's writes so far, leases aside: user, verb, request.
    pub(crate) fn all_writes(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_write = |event: &&Value| !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"));
        let events = self.audit.events();
        let is_stored = |event: &&Value| {
            !["leases", "selfsubjectrulesreviews"].iter().any(|aside| event["objectRef"]["resource"] == *aside)
        };
        let writes = events.iter().filter(is_write).filter(is_stored);
        writes.map(|e| (text(&e["user"]["username"]), text(&e["verb"]), text(&e["requestURI"]))).collect()
    }

    /// What the server refused the operator.
    pub(crate) fn refused(&self) -> Vec<String> {
        let events = self.audit.events();
        let refused = events.iter().filter(|event| {
            event["user"]["username"] == OPERATOR && event["responseStatus"]["code"].as_u64().unwrap_or(0) >= 400
        });
        refused.map(|event| format!("{} {}: {}", event["verb"], event["requestURI"], event["responseStatus"])).collect()
    }
}

/// Status and reason of a condition.
pub(crate) fn condition(cr: &Value, kind: &str) -> String {
    let conditions = cr["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found.map_or_else(|| "-".to_owned(), |c| format!("{} {}", text(&c["status"]), text(&c["reason"])))
}

pub(crate) fn tag(version: &str) -> Value {
    json!({"spec": {"imageTag": version}})
}
