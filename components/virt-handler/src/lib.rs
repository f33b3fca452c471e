//! virt-handler: the agent of one node. This build serves its probes; it drives no launcher, registers no device and does
//! not write to its node.
//!
//! It writes only the event about its own certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::future::BoxFuture;
use kubevirt_component::{Component, Does, Endpoint, REST_REQUESTS, Table, Verb};
use kubevirt_runtime::cli::{self, ListenArgs, ProcessArgs};
use kubevirt_runtime::health::Health;
use kubevirt_runtime::host::{Host, Program};
use kubevirt_runtime::metrics::Metrics;
use kubevirt_runtime::rest;
use kubevirt_runtime::tls::Wanted;

/// The container's name.
pub const NAME: &str = "virt-handler";

/// Where the Secret `kubevirt-virt-handler-server-certs` is mounted.
pub const CERTIFICATE_DIR: &str = "/etc/virt-handler/servercertificates";

/// The role by which virt-api knows a virt-handler: it connects to a pod's address, for which there is no name.
pub const ROLE: &str = "kubevirt.io:system:node:virt-handler";

/// The agent of one node
#[derive(Parser, Debug)]
#[command(name = "virt-handler", version)]
pub struct Args {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Name of the node, where it is not the host name
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Address of this pod
    #[arg(long)]
    pub pod_ip_address: Option<IpAddr>,
    /// Scrapes that are answered at a time
    #[arg(long, default_value_t = 3)]
    pub max_metric_requests: u32,
    /// Port for consoles and the lifecycle of instances
    #[arg(long, default_value_t = 8186)]
    pub console_server_port: u16,
    /// Port for statistics of instances
    #[arg(long, default_value_t = 8187)]
    pub vmstats_server_port: u16,
    /// How long running migrations may take after the handler was asked to stop
    #[arg(long, default_value_t = 315)]
    pub graceful_shutdown_seconds: u64,
    /// Common name types accepted from migration peers
    #[arg(long)]
    pub migration_cn_types: Vec<String>,
    /// How many KVM devices the node offers
    #[arg(long)]
    pub max_devices: Option<u32>,
}

/// What is served on the port of probes and metrics.
pub fn table() -> Table<()> {
    Table::new(vec![
        Endpoint::new(Verb::Get, "/", Does::Index, "the list of paths"),
        // The contract gives both probes this path. Liveness alone would hide a bad certificate.
        Endpoint::new(Verb::Get, "/healthz", Does::Ready, "ready, or why not (both probes of the pod)"),
        Endpoint::new(Verb::Get, "/livez", Does::Live, "alive"),
        Endpoint::new(Verb::Get, "/readyz", Does::Ready, "ready, or why not"),
        Endpoint::new(Verb::Get, "/metrics", Does::Metrics, "Prometheus metrics"),
        Endpoint::new(Verb::Get, "/start-profiler", Does::Refuse, "profiling"),
        Endpoint::new(Verb::Get, "/stop-profiler", Does::Refuse, "profiling"),
        Endpoint::new(Verb::Get, "/dump-profiler", Does::Refuse, "profiling"),
    ])
}

/// What is served on the console server's port.
pub fn console_table() -> Table<()> {
    let instance = "/v1/namespaces/{namespace}/virtualmachineinstances/{name}/{*action}";
    Table::new(vec![
        Endpoint::new(Verb::Get, instance, Does::Refuse, "the console server"),
        Endpoint::new(Verb::Put, instance, Does::Refuse, "the lifecycle of instances"),
    ])
}

/// What is served on the statistics port.
pub fn vmstats_table() -> Table<()> {
    Table::new(vec![Endpoint::new(Verb::Get, "/{*path}", Does::Refuse, "statistics of instances")])
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
    let at = |port| std::net::SocketAddr::new(args.listen.listen, port);
    let component = Component {
        name: NAME,
        certificate_dir: CERTIFICATE_DIR,
        wanted: vec![Wanted::CommonName(ROLE.to_owned())],
        ports: vec![
            (args.listen.addr(), table()),
            (at(args.console_server_port), console_table()),
            (at(args.vmstats_server_port), vmstats_table()),
        ],
        linger: Duration::ZERO,
    };
    component.run(&host, Arc::new(()), Health::new(), metrics).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
