//! virt-api: admission webhooks and the `subresources.kubevirt.io` API. What it serves, and what it refuses so far, is the
//! table in [`table`]; `ENDPOINTS.md` is that table for people.
//!
//! It never writes to the cluster but the event about its own certificate.

mod admission;
mod discovery;
mod mutate;
mod rules;
mod settings;
mod subresources;
mod table;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::future::BoxFuture;
use kubevirt_component::{Component, REST_REQUESTS};
use kubevirt_runtime::cli::{self, ListenArgs, ProcessArgs};
use kubevirt_runtime::health::{Health, Probe};
use kubevirt_runtime::host::{Host, Program};
use kubevirt_runtime::metrics::Metrics;
use kubevirt_runtime::rest;
use kubevirt_runtime::tls::Wanted;

pub use settings::Settings;
pub use table::table;

/// The container's name, and the Service's.
pub const NAME: &str = "virt-api";

/// Where the Secret `kubevirt-virt-api-certs` is mounted.
pub const CERTIFICATE_DIR: &str = "/etc/virt-api/certificates";

/// How long requests are still accepted after SIGTERM: as long as it takes until every API server and proxy has heard that
/// this pod is leaving the Service, which takes about a second on a busy cluster and five on one that is overloaded.
const LINGER: Duration = Duration::from_secs(6);

/// What answers look at.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Where the suite is, and with it its accounts.
    pub namespace: String,
    /// What the KubeVirt CR says.
    pub settings: Settings,
}

/// Admission webhooks and the subresource API of KubeVirt
#[derive(Parser, Debug)]
#[command(name = "virt-api", version)]
pub struct Args {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Port of virt-handler's console server
    #[arg(long, default_value_t = 8186)]
    pub console_server_port: u16,
    /// Serve the subresource API and the webhooks only, which is all there is
    #[arg(long)]
    pub subresources_only: bool,
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
    let metrics = Metrics::new();
    let host = Host { client: rest::counted(&host.client, &metrics, REST_REQUESTS), ..host };
    let component = Component {
        name: NAME,
        certificate_dir: CERTIFICATE_DIR,
        // What the API server verifies when it calls a webhook or an aggregated API through the Service.
        wanted: vec![Wanted::DnsName(format!("{NAME}.{}.svc", host.namespace))],
        ports: vec![(args.listen.addr(), table())],
        linger: LINGER,
    };
    let state = State { namespace: host.namespace.clone(), settings: Settings::default() };
    let health = Health::new();
    // Told of here, not when it is first polled: what `select!` polls first is chance.
    let known = health.part(Probe::Ready, "settings");
    let following = state.settings.clone().follow(&host, known);
    tokio::select! {
        ended = component.run(&host, Arc::new(state), health, metrics) => ended?,
        never = following => match never {},
    }
    Ok(())
}

#[cfg(test)]
mod tests;
