//! virt-controller: the cluster-wide controllers. This build holds their lease and serves their probes; the controllers
//! themselves are not written, and nothing is reconciled.
//!
//! It writes its lease, and the event about its own certificate.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::future::BoxFuture;
use http::StatusCode;
use kubevirt_component::{Call, Component, Does, Endpoint, REST_REQUESTS, Table, Verb};
use kubevirt_runtime::cli::{self, ListenArgs, ProcessArgs};
use kubevirt_runtime::health::{Health, Probe};
use kubevirt_runtime::host::{Host, Program};
use kubevirt_runtime::lease::{Claim, Election, LeaseConfig};
use kubevirt_runtime::metrics::Metrics;
use kubevirt_runtime::rest;
use kubevirt_runtime::serve::{self, Response};
use kubevirt_runtime::tls::Wanted;
use serde_json::json;
use tokio::sync::watch;

/// The container's name, the lease's, and that of the Service its certificate is made for.
pub const NAME: &str = "virt-controller";

/// Where the Secret `kubevirt-controller-certs` is mounted.
pub const CERTIFICATE_DIR: &str = "/etc/virt-controller/certificates";

/// The controllers of virtual machines
#[derive(Parser, Debug)]
#[command(name = "virt-controller", version)]
pub struct Args {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Image of the pods that virtual machines run in
    #[arg(long)]
    pub launcher_image: Option<String>,
    /// Image of the pods that export volumes
    #[arg(long)]
    pub exporter_image: Option<String>,
}

/// What the table's answers look at.
pub struct State {
    claim: watch::Receiver<Claim>,
    health: Health,
}

/// Every endpoint.
pub fn table() -> Table<State> {
    Table::new(vec![
        Endpoint::new(Verb::Get, "/", Does::Index, "the list of paths"),
        Endpoint::new(Verb::Get, "/healthz", Does::Live, "alive (the pod's liveness probe)"),
        Endpoint::new(Verb::Get, "/readyz", Does::Ready, "ready, or why not"),
        Endpoint::new(
            Verb::Get,
            "/leader",
            Does::Answer(leader),
            "ready, and whether it leads (the pod's readiness probe)",
        ),
        Endpoint::new(Verb::Get, "/metrics", Does::Metrics, "Prometheus metrics"),
        Endpoint::new(Verb::Get, "/start-profiler", Does::Refuse, "profiling"),
        Endpoint::new(Verb::Get, "/stop-profiler", Does::Refuse, "profiling"),
        Endpoint::new(Verb::Get, "/dump-profiler", Does::Refuse, "profiling"),
    ])
}

/// A standby is as ready as the leader: it could take over. Which of the two it is stands in the body.
fn leader(state: &State, _: &Call) -> Response {
    let (code, reasons) = state.health.answer(Probe::Ready);
    if code != StatusCode::OK {
        return serve::text(code, reasons);
    }
    let body = match &*state.claim.borrow() {
        Claim::Leader { generation } => json!({"apiserver": {"leader": "true", "generation": generation}}),
        Claim::Standby { holder } => json!({"apiserver": {"leader": "false", "holder": holder}}),
    };
    serve::json(StatusCode::OK, &body)
}

/// Checks a command line before anything is set up.
///
/// # Errors
/// It is not one of this program.
pub fn parse(args: &[String]) -> Result<ProcessArgs, clap::Error> {
    cli::parse::<Args>(args).map(|args| args.process)
}

/// The program.
pub fn program() -> impl Program {
    |host: Host| -> BoxFuture<'static, anyhow::Result<()>> { Box::pin(run(host)) }
}

async fn run(host: Host) -> anyhow::Result<()> {
    let Some(args) = cli::begin::<Args>(&host.args)? else { return Ok(()) };
    let (health, metrics) = (Health::new(), Metrics::new());
    let host = Host { client: rest::counted(&host.client, &metrics, REST_REQUESTS), ..host };
    let lease =
        LeaseConfig { namespace: host.namespace.clone(), name: NAME.to_owned(), identity: host.hostname.clone() };
    let election = Election::start(lease, host.client.clone(), host.clock.clone(), host.seed);
    let component = Component {
        name: NAME,
        certificate_dir: CERTIFICATE_DIR,
        wanted: vec![Wanted::DnsName(format!("{NAME}.{}.svc", host.namespace))],
        ports: vec![(args.listen.addr(), table())],
        linger: Duration::ZERO,
    };
    let state = State { claim: election.claim(), health: health.clone() };
    let gauge = follow(election.claim(), metrics.clone());
    // The lease is free before the last connection is closed: the other replica need not wait for a slow scrape.
    let handing_over = async {
        host.stop.cancelled().await;
        election.release().await;
    };
    let serving = component.run(&host, Arc::new(state), health, metrics);
    tokio::select! {
        // A failure to serve ends the process at once, with the lease left to run out.
        outcome = async { tokio::try_join!(serving, async { handing_over.await; Ok(()) }) } => { outcome?; }
        () = gauge => {}
    }
    Ok(())
}

/// Keeps the gauge that dashboards and the alert about a missing leader read. Never ends.
async fn follow(mut claim: watch::Receiver<Claim>, metrics: Metrics) {
    let leading =
        metrics.gauge("kubevirt_virt_controller_leading_status", "1 for the replica that holds the lease.", &[]);
    loop {
        leading.set(if claim.borrow_and_update().leads() { 1.0 } else { 0.0 });
        if claim.changed().await.is_err() {
            // The election is over, the drain is not.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
