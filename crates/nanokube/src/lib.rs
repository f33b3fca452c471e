//! An embedded Kubernetes API server: store, watch, verbs, discovery, authentication, authorization, audit and faults.
//!
//! [`Nanokube`] is the server. [`Nanokube::client`] hands out in-process clients (no sockets, no threads: with paused time
//! and one seed a run repeats itself), [`Nanokube::serve_https`] serves the same over TLS. Controllers and nodes are other
//! crates and reach it only through such clients.
//!
//! It keeps everything in memory and is for tests, simulations and rehearsals. It knows Kubernetes, and nothing of what
//! runs on it.
//!
//! # What is not implemented
//!
//! | what | what happens instead |
//! |---|---|
//! | mutating admission policies, type checks of admission policies | absent |
//! | webhooks named by a DNS name outside the cluster | "no such host" |
//! | cost limits and full type checks of CEL rules; `authorizer` in expressions | rules of any cost run; an unknown name refuses |
//! | conversion webhooks | all versions of a definition are served as stored, with another `apiVersion` |
//! | upgraded connections (WebSocket, SPDY) to aggregated APIs | passed on as plain requests; their server refuses them |
//! | OpenAPI of aggregated APIs | not merged |
//! | webhooks for access reviews | not asked |
//! | `pods/exec`, `attach`, `portforward`, `proxy` (nodes and services too), `resize` | 501 with a reason |
//! | `pods/log` of a node that publishes no endpoint (simulated ones) | 500 that says so |
//! | protobuf bodies of custom resource definitions | 415; those of all other built-in kinds are read |
//! | protobuf and gzip answers | JSON, or 406 when the client takes nothing else |
//! | metrics, OIDC discovery | 501 |
//! | quotas, network policies, flow schemas | stored, not enforced |
//! | controllers of any kind | other crates; namespaces, garbage and roll-outs need them |
//! | controllers of StatefulSets, ReplicationControllers, CronJobs, autoscalers, Ingresses, volumes, device claims, certificate requests | nobody acts on these objects, as in a cluster whose controllers for them are off |
//! | priority and fairness, API server leader leases, persistence | absent |

mod admission;
mod aggregation;
mod audit;
mod authn;
mod authz;
mod backend;
mod cel;
mod core;
mod crd;
mod discovery;
mod faults;
mod filter;
mod history;
mod https;
mod identity;
mod jsonpaths;
mod kinds;
mod logs;
mod openapi;
mod own;
mod pace;
mod pki;
mod probes;
mod protobuf;
mod registry;
mod reply;
mod request;
mod reviews;
mod rules;
mod schemas;
mod server;
mod status;
mod store;
mod strategy;
mod table;
mod tokens;
mod verbs;

use std::sync::Arc;

use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::net::Net;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use audit::{AuditSink, MemorySink, WriterSink};
pub use faults::{
    After, Before, Call, Fault, FaultPlan, Faults, Injected, Injector, Misfortune, NoFaults, OnEvent, Read, Scope,
    trace_hash,
};
pub use history::{StoredObject, Transition};
pub use https::ServeError;
pub use identity::UserInfo;
pub use pki::{Pair, Pki, PkiError};
pub use request::{Query, RequestInfo, ResourcePath};
pub use server::ConnectionLost;
pub use verbs::ImportError;

use crate::core::Core;
use crate::registry::resource_key;
use crate::server::{ApiService, Peer};
use crate::store::Name;

/// How many events of each resource a watcher may be behind: a rollout of a thousand pods writes some ten thousand, and at
/// a few kilobytes each (states are shared with the store) this stays within tens of megabytes.
const DEFAULT_HISTORY: usize = 10_000;

/// The namespaces a cluster starts with.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// How a server is set up.
pub struct Options {
    pub clock: Clock,
    /// Uids, name suffixes and the token key are drawn from it.
    pub seed: u64,
    pub audit: Option<Box<dyn AuditSink>>,
    pub faults: Arc<dyn Faults>,
    /// Where webhooks and aggregated APIs are reached; without it they cannot be.
    pub net: Option<Arc<dyn Net>>,
    /// Events kept per resource; a watcher further behind gets 410 and lists again.
    pub history: usize,
}

impl Options {
    /// No audit, no faults.
    pub fn new(clock: Clock, seed: u64) -> Self {
        Self { clock, seed, audit: None, faults: Arc::new(NoFaults), net: None, history: DEFAULT_HISTORY }
    }

    #[must_use]
    pub fn with_audit(self, sink: impl AuditSink) -> Self {
        Self { audit: Some(Box::new(sink)), ..self }
    }

    #[must_use]
    pub fn with_faults(self, faults: Arc<dyn Faults>) -> Self {
        Self { faults, ..self }
    }

    #[must_use]
    pub fn with_net(self, net: Arc<dyn Net>) -> Self {
        Self { net: Some(net), ..self }
    }
}

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct Nanokube {
    core: Arc<Core>,
}

impl Nanokube {
    /// A server with the namespaces and roles a cluster starts with.
    pub fn new(options: Options) -> Self {
        let Options { clock, seed, audit, faults, net, history } = options;
        let core = Arc::new(Core::new(clock, seed, audit, faults, net, history));
        for name in NAMESPACES {
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name, "uid": core.uid(), "creationTimestamp": core.now_text(),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            });
            core.store
                .create(&resource_key("", "namespaces"), &Name::new("", name), object)
                .expect("the store is empty");
        }
        authz::bootstrap(&core);
        own::bootstrap(&core);
        Self { core }
    }

    /// A client in this process that acts as `user`. Needs a running tokio runtime, on which requests are carried out.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        self.in_process(Some(user), None, None)
    }

    /// A client in this process that acts as `user` and names `program` as its user agent; writes without a field manager
    /// are recorded under that name.
    pub fn client_of(&self, user: UserInfo, program: &str) -> kube::Client {
        self.in_process(Some(user), None, Some(program))
    }

    /// A client in this process that authenticates with a bearer token, like any other client.
    pub fn client_with_token(&self, token: &str) -> kube::Client {
        self.in_process(None, Some(token), None)
    }

    fn in_process(&self, user: Option<UserInfo>, token: Option<&str>, program: Option<&str>) -> kube::Client {
        let namespace =
            user.as_ref().and_then(|user| user.as_service_account()).map_or("default", |(own, _)| own).to_owned();
        let peer = Peer { user, address: "127.0.0.1".to_owned(), remote: false };
        let service = ApiService { core: self.core.clone(), peer };
        let authorization = token.and_then(|token| http::HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let agent = program.and_then(|program| http::HeaderValue::from_str(program).ok());
        let service = tower::util::MapRequest::new(service, move |mut request: http::Request<kube::client::Body>| {
            if let Some(value) = &authorization {
                request.headers_mut().insert(http::header::AUTHORIZATION, value.clone());
            }
            if let Some(value) = &agent {
                request.headers_mut().entry(http::header::USER_AGENT).or_insert_with(|| value.clone());
            }
            request
        });
        kube::Client::new(service, namespace)
    }

    /// Serves HTTPS on `listener` until `stop` is cancelled, then lets requests under way finish. Every open watch, of
    /// in-process clients too, ends with it.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub async fn serve_https(
        &self,
        listener: TcpListener,
        pki: &Pki,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        self.publish_authority(pki);
        if let Ok(address) = listener.local_addr() {
            own::publish_address(&self.core, address);
        }
        https::serve(self.core.clone(), listener, pki, stop).await
    }

    /// Extension API servers and nodes read whose client certificates this server accepts, pods whom to trust; the
    /// controllers copy the latter to every namespace.
    fn publish_authority(&self, pki: &Pki) {
        let (key, now) = (resource_key("", "configmaps"), self.core.now_text());
        let maps = [("extension-apiserver-authentication", "client-ca-file"), ("kube-root-ca.crt", "ca.crt")];
        for (name, field) in maps {
            let data = json!({field: pki.ca_pem()});
            let place = Name::new("kube-system", name);
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": name, "namespace": "kube-system", "uid": self.core.uid(), "creationTimestamp": now,
                },
                "data": data,
            });
            if self.core.store.create(&key, &place, object).is_ok() {
                continue;
            }
            // A controller was first, and does not know it; or this serves twice.
            while let Some(live) = self.core.store.get(&key, &place) {
                let mut known = live.value.clone();
                known["data"][field] = data[field].clone();
                if self.core.store.update(&key, &place, live.revision, known).is_ok() {
                    break;
                }
            }
        }
    }

    /// Takes in the objects of YAML documents, definitions first, as an export of another cluster holds them: they keep
    /// uids, owners and status. What is there under the same name is replaced. For a server nobody uses yet; needs a
    /// running tokio runtime. How many there were.
    ///
    /// # Errors
    /// [`ImportError`]; what came before the object it names is stored.
    pub fn import_yaml(&self, text: &str) -> Result<usize, ImportError> {
        verbs::import(&self.core, verbs::parse(text)?)
    }

    /// Every object as it is stored, in order of resource, namespace and name, of one moment.
    pub fn objects(&self) -> Vec<serde_json::Value> {
        self.core.store.everything().1.iter().map(|stored| stored.value.clone()).collect()
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.core.store.revision()
    }

    /// From now on objects stay trees, however long nobody has looked at them: six times the memory, and no time to read
    /// them anew. For simulations, which look at everything all the time.
    pub fn keep_trees(&self) {
        self.core.store.keep_trees();
    }

    /// Forgets the history up to `revision`, as etcd's compaction does: watches and pages from before get 410.
    pub fn compact(&self, revision: u64) {
        self.core.store.compact(revision);
    }
}
