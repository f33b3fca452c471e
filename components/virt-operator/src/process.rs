//! The process: serves probes and metrics from the start, stands for election, and reconciles while it leads.
//!
//! Before the CR exists the only thing it writes is its lease; a standby writes nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http::{Method, StatusCode};
use kubevirt_apply::Writer;
use kubevirt_runtime::health::{Health, Probe, Reason, Report};
use kubevirt_runtime::host::Host;
use kubevirt_runtime::lease::{Claim, Election, LeaseConfig};
use kubevirt_runtime::metrics::Metrics;
use kubevirt_runtime::serve::{self, Handler, handler};
use kubevirt_runtime::tls::{Certificate, CertificateFiles};
use kubevirt_runtime::{cli, metrics, rest};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::absent::Absent;
use crate::accounts::Accounts;
use crate::admission;
use crate::admission::serve::CERTIFICATES;
use crate::before::Before;
use crate::endpoints::Endpoints;
use crate::metrics::{OperatorMetrics, REST_REQUESTS};
use crate::reconcile::{Judged, Next, Progress, Reconciler, Refusals, Storage, Troubles};
use crate::settings::{Arguments, Settings};
use crate::shelf::Shelf;
use crate::upgrades::Upgrades;
use crate::watches;

/// The Lease's name.
const LEASE: &str = "virt-operator";

/// A pass over the cache without any event, in case one was lost. It makes no request unless something is wrong.
const RESCAN: Duration = Duration::from_secs(60);

/// After an event more usually follow (a rollout touches a workload and its pods): they are looked at together. Far below
/// the second in which people perceive an operator as prompt.
const SETTLE: Duration = Duration::from_millis(100);

/// What each pod of the suite adds to that. A pass looks at every pod, which takes some microseconds each; while thousands
/// of them become ready, passes must not take more than a small part of the time between them. A second for 5,000.
const SETTLE_PER_POD: Duration = Duration::from_micros(200);

/// The first pause after a failed pass.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest pause after failed passes: whoever repaired the cause waits at most this long.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// The first lists take a second or two; whoever waits for longer than this is told what for.
const SYNC: Duration = Duration::from_secs(20);

/// A pass that takes longer is stuck: it writes some hundred objects, one request each, every one limited to 5 s; passes
/// of a healthy cluster take seconds.
const STUCK: Duration = Duration::from_secs(600);

/// How long a pass under way may go on when the process is asked to stop: one request's limit.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// How long webhooks are still answered after SIGTERM: as long as it takes until every API server has heard that this pod
/// is leaving the Service, about a second on a busy cluster and five on one that is overloaded.
const LINGER: Duration = Duration::from_secs(6);

/// Runs the operator until it is asked to stop, or loses its lease.
///
/// # Errors
/// The command line or environment is wrong, the port is taken, or the lease was lost.
pub async fn run(host: Host) -> anyhow::Result<()> {
    let Some(arguments) = cli::begin::<Arguments>(&host.args)? else { return Ok(()) };
    if arguments.idle {
        host.stop.cancelled().await;
        return Ok(());
    }
    let settings = Settings::new(host.namespace.clone(), host.env.clone())?;
    if arguments.dump_install_strategy {
        return crate::dump::install_strategy(&host, &settings).await.map_err(Into::into);
    }
    tracing::info!(version = settings.operator_version(), namespace = %settings.namespace, "virt-operator starts");
    let metrics = Metrics::new();
    let host = Host { client: rest::counted(&host.client, &metrics, REST_REQUESTS), ..host };
    let numbers = OperatorMetrics::new(metrics.clone());
    let health = Health::new();

    let address = arguments.listen.addr();
    let listener = host.net.listen(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let certificate = Certificate::new(&host, CertificateFiles::in_dir(CERTIFICATES, Vec::new()));
    // Not a child of the host's: what is served goes on for a while after SIGTERM.
    let server_stop = CancellationToken::new();
    // Owned, so that dropping this future ends everything it started.
    let mut server = JoinSet::new();
    server.spawn(serve::serve(
        listener,
        certificate.server_config()?,
        endpoints(metrics, &health),
        server_stop.clone(),
    ));
    let mut followed = JoinSet::new();
    admission::serve::start(&host, address.ip(), &numbers, &settings, server_stop.clone(), &mut server, &mut followed)
        .await?;
    numbers.ready(true);

    let lease =
        LeaseConfig { namespace: host.namespace.clone(), name: LEASE.to_owned(), identity: host.hostname.clone() };
    let election = Election::start(lease, host.client.clone(), host.clock.clone(), host.seed);
    let outcome = stand(&host, &election, settings, arguments.strategy_dir, &numbers, &health).await;
    numbers.leads(false);
    // Nothing is being written any more: the next leader can take over at once.
    election.release().await;
    if host.stop.is_cancelled() {
        sleep(LINGER).await;
    }
    server_stop.cancel();
    while server.join_next().await.is_some() {}
    outcome
}

/// Waits for the lease, then leads until the process stops or the lease is lost.
async fn stand(
    host: &Host,
    election: &Election,
    settings: Settings,
    strategies: Option<String>,
    numbers: &OperatorMetrics,
    health: &Health,
) -> anyhow::Result<()> {
    let mut claim = election.claim();
    let generation = tokio::select! {
        biased;
        () = host.stop.cancelled() => return Ok(()),
        claim = claim.wait_for(Claim::leads) => match *claim.context("the election ended")? {
            Claim::Leader { generation } => generation,
            Claim::Standby { .. } => bail!("the election contradicts itself"),
        },
    };
    tracing::info!(generation, "leading");
    numbers.leads(true);
    let (cache, mut watches) = watches::start(&host.client, &settings.namespace);
    let endpoints = Arc::new(Endpoints::default());
    watches.spawn(Arc::clone(&endpoints).follow(host.client.clone(), settings.namespace.clone()));
    let accounts = Arc::new(Accounts::default());
    watches.spawn(Arc::clone(&accounts).follow(host.client.clone(), Arc::clone(&cache)));
    let upgrades = Arc::new(Upgrades::default());
    watches.spawn(Arc::clone(&upgrades).follow(host.client.clone()));
    let reconciler = Reconciler {
        settings,
        client: host.client.clone(),
        cache,
        writer: Writer::new(host.client.clone(), election.fence(), generation),
        clock: host.clock.clone(),
        metrics: numbers.clone(),
        endpoints,
        net: Arc::clone(&host.net),
        progress: Progress::default(),
        accounts,
        troubles: Troubles::default(),
        storage: Storage::default(),
        judged: Judged::default(),
        shelf: Shelf::new(&host.files, strategies),
        verbosity: host.verbosity.clone(),
        upgrades,
        absent: Absent::default(),
        before: Before::default(),
        refusals: Refusals::default(),
    };
    let still_leads = |claim: &Claim| *claim == Claim::Leader { generation };
    tokio::select! {
        biased;
        _ = claim.wait_for(|claim| !still_leads(claim)) => bail!("the lease {LEASE} was lost; another operator leads now"),
        Some(ended) = watches.join_next() => bail!("a watch ended: {ended:?}"),
        () = lead(&reconciler, host, health) => Ok(()),
    }
}

/// Reconciles until the process is asked to stop.
async fn lead(reconciler: &Reconciler, host: &Host, health: &Health) {
    let alive = health.part(Probe::Live, "reconcile");
    alive.set(Ok(()));
    let mut synced = std::pin::pin!(async {
        tokio::join!(reconciler.cache.synced(), reconciler.endpoints.synced(), reconciler.upgrades.synced())
    });
    loop {
        tokio::select! {
            biased;
            () = host.stop.cancelled() => return,
            _ = &mut synced => break,
            () = sleep(SYNC) => {
                if let Err(error) = reconciler.not_synced().await {
                    tracing::warn!(%error, "what the first lists wait for could not be told");
                }
            }
        }
    }
    let mut failures = 0;
    loop {
        let Some(passed) = pass(reconciler, host, &alive).await else {
            return;
        };
        let pause = match passed {
            Ok(next) => {
                failures = 0;
                wait(&next, host)
            }
            Err(()) => {
                failures += 1;
                let pause = RETRY_FIRST.saturating_mul(1 << (failures - 1).min(5)).min(RETRY_LONGEST);
                // The bell rings on while something is being rolled out; a failure is not retried any faster for it.
                tokio::select! {
                    () = host.stop.cancelled() => return,
                    () = sleep(pause) => continue,
                }
            }
        };
        tokio::select! {
            biased;
            () = host.stop.cancelled() => return,
            () = reconciler.cache.changed() => sleep(settle(reconciler)).await,
            () = reconciler.endpoints.changed() => sleep(SETTLE).await,
            () = reconciler.upgrades.changed() => sleep(SETTLE).await,
            () = sleep(pause) => {}
        }
    }
}

/// One pass. `None` when the process stops; a pass under way may finish its last write.
async fn pass(reconciler: &Reconciler, host: &Host, alive: &Report) -> Option<Result<Next, ()>> {
    let began = Instant::now();
    let mut pass = std::pin::pin!(reconciler.pass());
    let result = loop {
        tokio::select! {
            biased;
            result = &mut pass => break result,
            () = host.stop.cancelled() => {
                let _ = timeout(LAST_WRITE, &mut pass).await;
                return None;
            }
            () = tokio::time::sleep_until(began + STUCK), if began.elapsed() < STUCK => {
                let message = format!("a pass has been running for more than {} s", STUCK.as_secs());
                alive.set(Err(Reason::new("PassStuck", message)));
            }
        }
    };
    alive.set(Ok(()));
    match result {
        Ok(next) => {
            reconciler.metrics.passed("Ok");
            reconciler.metrics.came_to_its_end(host.clock.now());
            Some(Ok(next))
        }
        Err(error) => {
            reconciler.metrics.passed(error.category());
            tracing::warn!(%error, category = error.category(), "a pass did not come to its end");
            Some(Err(()))
        }
    }
}

/// How long to wait for more events after the first.
fn settle(reconciler: &Reconciler) -> Duration {
    SETTLE + SETTLE_PER_POD * u32::try_from(reconciler.cache.pod_count()).unwrap_or(u32::MAX)
}

/// How long nothing needs to be done if nothing happens.
fn wait(next: &Next, host: &Host) -> Duration {
    let until_due = next.due.map(|due| Duration::try_from(due.duration_since(host.clock.now())).unwrap_or_default());
    until_due.map_or(RESCAN, |until_due| until_due.min(RESCAN))
}

fn endpoints(metrics: Metrics, health: &Health) -> Handler {
    let health = Arc::new(health.clone());
    handler(move |request: serve::Request| {
        let (metrics, health) = (metrics.clone(), Arc::clone(&health));
        async move {
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                return serve::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
            }
            match request.uri().path() {
                "/metrics" => {
                    let mut response = serve::text(StatusCode::OK, metrics.render());
                    let kind = http::HeaderValue::from_static(metrics::CONTENT_TYPE);
                    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                    response
                }
                "/healthz" | "/livez" => {
                    let (status, body) = health.answer(Probe::Live);
                    serve::text(status, body)
                }
                "/readyz" => {
                    let (status, body) = health.answer(Probe::Ready);
                    serve::text(status, body)
                }
                path @ ("/start-profiler" | "/stop-profiler" | "/dump-profiler") => {
                    serve::text(StatusCode::NOT_IMPLEMENTED, format!("{path} is not implemented by this operator\n"))
                }
                path => serve::text(StatusCode::NOT_FOUND, format!("{path} is not served here\n")),
            }
        }
    })
}
