//! One world: a cluster of this process with the real operator and the real suite, and the hand of its administrator.
//!
//! The administrator is never hit by faults: he stands for what people asked for, not for how it went.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kubevirt_release::{Kind, Object};
use kubevirt_runtime::clock::Clock;
use nanokube::{FaultPlan, Injector};
use nanokube_cli::{Cluster, Options};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::chronicle::{Cue, Reached};
use crate::course::Course;
use crate::expect;
use crate::invariants::{NAMESPACE, text};
use crate::monkey::{Prank, Victim};
use crate::outage::{Cable, Outage};
use crate::process::Lives;
use crate::referee::Referee;
use crate::registry::{Registry, Sickness};
use crate::run::Script;
use crate::story::PATIENCE;
use crate::strike::{Strike, Target};

/// How often the administrator looks at the cluster; far below anything a run measures.
const LOOK: Duration = Duration::from_millis(100);

/// After a failure of the server a person asks again, for two minutes: a drawn fault ends after twenty requests of the
/// operator, which renews its lease every five seconds.
const TRIES: u32 = 40;
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// The releases whose images exist.
pub(crate) const VERSIONS: [&str; 2] = ["v0.1.0", "v0.2.0"];

/// What is wrong in a run.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    pub strike: Option<Strike>,
    /// Writes at which it strikes again.
    pub series: Vec<Target>,
    /// Faults drawn from a seed.
    pub plan: Option<FaultPlan>,
    /// A component's image is of no use until it is mended.
    pub sick: Option<(&'static str, Sickness)>,
    pub mischief: Option<Mischief>,
    /// Webhooks and aggregated APIs are out of reach for a while.
    pub outage: Option<Outage>,
}

impl Trouble {
    pub(crate) fn is_none(&self) -> bool {
        let Self { strike, series: _, plan, sick, mischief, outage } = self;
        strike.is_none() && plan.is_none() && sick.is_none() && mischief.is_none() && outage.is_none()
    }
}

/// When third parties play their pranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// As soon as the object exists.
    Installing,
    /// When nothing else happens.
    Settled,
    /// Right after settings have changed.
    Configuring,
    /// Right after a newer version was named.
    Upgrading,
    /// When the newer version runs and nothing else happens.
    Upgraded,
}

/// What third parties do.
#[derive(Clone, Debug)]
pub struct Mischief {
    pub moment: Moment,
    pub prank: Prank,
    pub victims: Vec<Victim>,
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) registry: Registry,
    pub(crate) lives: Lives,
    pub(crate) referee: Arc<Referee>,
    /// What lies between the API server and those it calls.
    pub(crate) cable: Cable,
    /// True time.
    pub(crate) clock: Clock,
    client: Client,
    /// What there was before the custom resource.
    before: Mutex<BTreeSet<String>>,
    /// The way back was asked for when the change was complete.
    pub(crate) is_too_late: AtomicBool,
}

/// Asks again as long as the server fails, as a person does.
async fn asked_again(ask: impl AsyncFn() -> Result<(), kube::Error>) -> Result<(), kube::Error> {
    let mut tries = 0;
    loop {
        match ask().await {
            Err(kube::Error::Api(status)) if status.code >= 500 && tries < TRIES => {
                tries += 1;
                sleep(ASK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

/// Something the administrator waited for did not come.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not {what} within {within:?}: {last}")]
pub struct TooLate {
    pub what: String,
    pub within: Duration,
    pub last: String,
}

impl World {
    /// Starts a world on the current runtime, whose time should be paused.
    pub(crate) fn start(course: Course) -> Self {
        let Script { seed, nodes, trouble, .. } = course.script();
        let start = "2026-01-01T00:00:00Z".parse().expect("a valid time");
        let clock = Clock::anchored(start);
        let lives = Lives::default();
        let injector = trouble.plan.map(|plan| Arc::new(Injector::new(plan)));
        let registry = Registry::new(&VERSIONS, lives.clone(), injector.clone());
        if let Some((component, sickness)) = trouble.sick {
            registry.set(component, VERSIONS[0], Some(sickness));
        }
        // The pods' clock is off when the plan says so; the server's and the referee's never is.
        let pods_clock = injector.as_ref().map_or_else(|| clock.clone(), |injector| injector.clock(&clock));
        let referee = Arc::new(Referee::new(clock.clone(), lives.clone(), injector, course));
        let cluster = Cluster::start(Options {
            pods_clock: Some(pods_clock),
            faults: Arc::clone(&referee) as Arc<dyn nanokube::Faults>,
            ..Options::new(nodes, clock.clone(), seed, Arc::new(registry.clone()))
        });
        cluster.api.keep_trees();
        referee.attach(cluster.api.clone());
        let cable = Cable::lay(&cluster.network, &referee);
        let client = cluster.admin();
        Self {
            cluster,
            registry,
            lives,
            referee,
            cable,
            clock,
            client,
            before: Mutex::default(),
            is_too_late: AtomicBool::new(false),
        }
    }

    pub(crate) fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        match namespace.filter(|_| kind.namespaced()) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Applies objects in their order, as `kubectl apply --server-side` does.
    pub(crate) async fn apply(&self, objects: &[Object]) -> Result<(), kube::Error> {
        for object in objects {
            let api = self.api(object.kind(), object.namespace());
            let parameters = PatchParams::apply("admin").force();
            let mut tries = 0;
            // A kind whose definition was just applied is served a moment later.
            while let Err(error) = api.patch(object.name(), &parameters, &Patch::Apply(object.value())).await {
                tries += 1;
                let fails = matches!(&error, kube::Error::Api(status) if status.code >= 500);
                if tries > if fails { TRIES } else { 50 } {
                    return Err(error);
                }
                sleep(if fails { ASK_AGAIN } else { LOOK }).await;
            }
        }
        Ok(())
    }

    /// Merges a change into an object. A webhook whose process has just died fails the request; a person asks again.
    pub(crate) async fn merge(&self, kind: Kind, name: &str, change: &Value) -> Result<(), kube::Error> {
        let api = self.api(kind, Some(NAMESPACE));
        let merge = async || api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop);
        asked_again(merge).await
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> Result<(), kube::Error> {
        let api = self.api(kind, Some(NAMESPACE));
        asked_again(async || api.delete(name, &DeleteParams::default()).await.map(drop)).await
    }

    /// Gets ready for a moment of a change of version that is about to be asked for: how far the run is. Within a pass no time
    /// goes by, so a write that is waited for is answered late.
    pub(crate) fn ready(&self, cue: Cue) -> Reached {
        let asked = self.referee.reached();
        if let Cue::Wrote(nth) = cue {
            self.referee.linger_at(asked.writes + nth);
        }
        asked
    }

    /// Waits for a moment of the change of version that was asked for when the run was as far as `asked`.
    pub(crate) async fn cue(&self, cue: Cue, asked: Reached) -> Result<(), TooLate> {
        let (far, wait) = cue.from(asked);
        let reached = tokio::time::timeout(PATIENCE, self.referee.reaches(far)).await;
        let last = || format!("{:?}", self.referee.reached());
        reached.map_err(|_| TooLate { what: format!("at {cue:?}"), within: PATIENCE, last: last() })?;
        sleep(wait).await;
        Ok(())
    }

    /// Puts an object into storage as it is: nobody admits it and nobody checks its schema.
    pub(crate) fn store(&self, object: &Value) -> Result<(), nanokube::ImportError> {
        self.cluster.api.import_yaml(&object.to_string()).map(drop)
    }

    /// Remembers what there is before the custom resource: what has to be left when it is gone.
    pub(crate) fn remember(&self) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = expect::present(&self.cluster.api);
    }

    pub(crate) fn before(&self) -> BTreeSet<String> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who holds the operator's lease.
    pub(crate) fn leader(&self) -> String {
        let lease = self.cluster.api.stored("coordination.k8s.io", "leases", NAMESPACE, "virt-operator");
        lease.map(|lease| text(&lease, "/spec/holderIdentity").to_owned()).unwrap_or_default()
    }

    /// Deletes a pod as `kubectl delete pod` does: its processes are asked to stop.
    pub(crate) async fn delete_pod(&self, name: &str) -> Result<(), kube::Error> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &resource);
        api.delete(name, &DeleteParams::default()).await.map(drop)
    }

    /// The custom resource in its true state.
    pub(crate) fn kubevirt(&self) -> Option<Value> {
        self.cluster.api.stored("kubevirt.io", "kubevirts", NAMESPACE, "kubevirt").map(|cr| Value::clone(&cr))
    }

    /// Waits for something that can be seen in the true state. Gives how long it took.
    pub(crate) async fn until(
        &self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<Duration, TooLate> {
        let began = Instant::now();
        loop {
            match holds(self) {
                Ok(()) => return Ok(began.elapsed()),
                Err(last) if began.elapsed() >= within => {
                    return Err(TooLate { what: what.to_owned(), within, last });
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }
}
