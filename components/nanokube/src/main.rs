//! The `nanokube` program: `up` serves an embedded Kubernetes with nodes, `nodes` brings nodes to any cluster.

mod export;
mod kubeconfig;
mod leftover;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use kubevirt_release::index::RELEASES;
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::net::memory::MemoryNet;
use nanokube::{Pki, WriterSink};
use nanokube_cli::images::Table;
use nanokube_cli::{Cluster, Options};
use nanokube_nodes::{Heartbeats, Latencies, Network, Power, Processes};
use tokio_util::sync::CancellationToken;

/// A server's objects are trees of small pieces, made and freed with every request by whichever thread is there: glibc's allocator takes
/// a quarter more processor time for the same work, and keeps more.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A server that is there answers its version in milliseconds; one behind a slow network in a few seconds.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// What nodes that join are counted in.
const SECOND: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(name = "nanokube", version, about = "An embedded Kubernetes for tests, simulation and rehearsal")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a Kubernetes API with built-in controllers and nodes, in the foreground
    Up(Up),
    /// Bring nodes to any cluster, as clients of its API
    Nodes(Nodes),
    /// Write all objects of a cluster as YAML, which `up --import` takes back
    Export(Export),
}

#[derive(Args)]
struct Export {
    /// The cluster to read
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Secrets, too; without it they are left out
    #[arg(long)]
    secrets: bool,
    /// The file to write; without it, standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct NodeKind {
    /// Pods are simulated: seeded latencies, code of known images in this process (the default)
    #[arg(long, conflicts_with = "process")]
    simulated: bool,
    /// Pods are real processes
    #[arg(long)]
    process: bool,
    /// Programs of process nodes: DIR/VERSION/COMPONENT; without it, those beside this program stand in for every version
    #[arg(long, value_name = "DIR", requires = "process")]
    image_dir: Option<PathBuf>,
    /// Where process nodes keep the pods' files; without it, a new directory below the system's one for temporary files
    #[arg(long, value_name = "DIR", requires = "process")]
    pod_dir: Option<PathBuf>,
    /// Registry of the images that can be pulled
    #[arg(long, default_value = "localhost/kubevirt")]
    registry: String,
    /// A further release whose images can be pulled
    #[arg(long = "release", value_name = "VERSION")]
    releases: Vec<String>,
    /// An image whose program ends as soon as it is started, to see what becomes of a release that does not work
    #[arg(long = "crashing-image", value_name = "IMAGE")]
    crashing_images: Vec<String>,
    /// A further image that can be pulled; it runs and does nothing
    #[arg(long = "idle-image", value_name = "IMAGE")]
    idle_images: Vec<String>,
    /// Seed of everything that is drawn: uids, names, latencies
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Up {
    /// Nodes; node 1 is a control-plane node without a taint
    #[arg(long)]
    nodes: u32,
    /// Where to write the administrator's kubeconfig
    #[arg(long)]
    kubeconfig: PathBuf,
    /// TCP port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Where to write ca.crt, client.crt and client.key (system:masters)
    #[arg(long)]
    pki: Option<PathBuf>,
    /// Where to write one audit.k8s.io/v1 Event per request
    #[arg(long)]
    audit_log: Option<PathBuf>,
    /// Objects to begin with: a YAML file that `export` wrote
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    #[command(flatten)]
    kind: NodeKind,
}

#[derive(Args)]
struct Nodes {
    /// The cluster to join
    #[arg(long)]
    kubeconfig: PathBuf,
    /// How many nodes
    #[arg(long)]
    nodes: u32,
    /// Number of the first node; several programs that bring nodes to one cluster need numbers of their own
    #[arg(long, default_value_t = 1)]
    first_node: u32,
    /// How many of them join in a second: thousands that start their pods at once leave a small machine no time for anything else
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_second: Option<u32>,
    #[command(flatten)]
    kind: NodeKind,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = run(cli) {
        eprintln!("nanokube: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(cli: Cli) -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .init();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("another crypto provider was installed first");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(up) => serve(up).await,
            Command::Nodes(nodes) => join(nodes).await,
            Command::Export(options) => write_objects(options).await,
        }
    })
}

impl NodeKind {
    fn images(&self) -> Result<Table> {
        let known = RELEASES.iter().map(|release| release.version);
        let versions: Vec<&str> = known.chain(self.releases.iter().map(String::as_str)).collect();
        let table = if self.process {
            Table::processes(&self.registry, &versions, self.image_dir.as_deref())?
        } else {
            Table::suite(&self.registry, &versions)
        };
        let table = self.crashing_images.iter().fold(table, |table, image| table.with_crashing(image, self.process));
        Ok(self.idle_images.iter().fold(table, |table, image| table.with_idle(image)))
    }
}

impl NodeKind {
    fn word(&self) -> &'static str {
        if self.process { "process" } else { "simulated" }
    }

    /// What all pods take time for. Processes take their own.
    fn latencies(&self) -> Latencies {
        if self.process { Latencies::none() } else { Latencies::default() }
    }

    /// What process nodes need, if that is what is asked for.
    fn processes(&self, url: &str) -> Result<Option<Processes>> {
        if !self.process {
            return Ok(None);
        }
        let url: http::Uri = url.parse().with_context(|| format!("the address of the server, {url}"))?;
        let host = url.host().with_context(|| format!("{url} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let dir = self.pod_dir.clone().unwrap_or_else(|| {
            let base = std::env::temp_dir();
            leftover::remove(&base);
            leftover::own(&base)
        });
        let dir = std::path::absolute(&dir).with_context(|| format!("the pods' directory {}", dir.display()))?;
        Ok(Some(Processes { dir, api: (host, url.port_u16().unwrap_or(443)) }))
    }
}

async fn serve(up: Up) -> Result<()> {
    let stop = signals()?;
    let kubeconfig = up.kubeconfig.clone();
    let served = serve_until(up, stop).await;
    if served.is_err() {
        kubeconfig::remove_if_stale(&kubeconfig).await;
    }
    served
}

async fn serve_until(up: Up, stop: CancellationToken) -> Result<()> {
    let Up { nodes, kubeconfig, port, pki: pki_dir, audit_log, import, kind } = up;
    let import = import.map(|path| std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display())));
    let import = import.transpose()?;
    let images = Arc::new(kind.images()?);
    let clock = Clock::System;
    // The port first: whoever cannot have it must not touch what belongs to the one who has it.
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await
        .with_context(|| format!("listen on 127.0.0.1:{port}"))?;
    let url = format!("https://{}", listener.local_addr()?);
    let pki = match &pki_dir {
        Some(dir) if dir.join("ca.key").exists() => Pki::load(dir, &clock),
        _ => Pki::generate(&clock, &[]),
    }
    .context("make certificates")?;
    if let Some(dir) = &pki_dir {
        pki.store(dir).with_context(|| format!("write certificates to {}", dir.display()))?;
    }
    let audit = audit_log.map(|path| audit_file(&path)).transpose()?;
    let text = pki.kubeconfig(&url);
    kubeconfig::write(&kubeconfig, &text)?;

    let processes = kind.processes(&url)?;
    let simulated = if kind.process { 0 } else { nodes };
    let options = Options { audit, ..Options::new(simulated, clock, kind.seed, images.clone()) };
    let mut cluster = Cluster::start_from(options, import.as_deref().unwrap_or_default()).context("import objects")?;
    cluster.serve(listener, pki);
    if let Some(processes) = processes.filter(|_| nodes > 0) {
        cluster.run_processes(nodes, kind.seed, images, processes);
    }
    let (_, client) = connect(&kubeconfig).await?;
    tokio::select! {
        answered = answers(&client, &url) => drop(answered?),
        ended = cluster.ended() => return ended_early(ended),
        () = stop.cancelled() => return cluster.shut_down().await.map_err(Into::into),
    }
    println!("ready {url} ({nodes} {} nodes, kubeconfig {})", kind.word(), kubeconfig.display());
    std::io::stdout().flush()?;
    tokio::select! {
        () = stop.cancelled() => cluster.shut_down().await?,
        ended = cluster.ended() => return ended_early(ended),
    }
    Ok(())
}

async fn write_objects(options: Export) -> Result<()> {
    let Export { kubeconfig, secrets, out } = options;
    let (_, client) = connect(&kubeconfig).await?;
    let count = match out {
        Some(path) => {
            // Whole or not at all: a file that is cut off must not look like an export.
            let mut text = Vec::new();
            let count = export::write(&client, secrets, &mut text).await?;
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            count
        }
        None => export::write(&client, secrets, &mut std::io::stdout().lock()).await?,
    };
    eprintln!("{count} objects{}", if secrets { "" } else { ", Secrets left out (--secrets takes them along)" });
    Ok(())
}

fn ended_early(ended: Result<(), nanokube_cli::Error>) -> Result<()> {
    ended?;
    bail!("a part of the cluster ended before it was asked to")
}

async fn join(nodes: Nodes) -> Result<()> {
    let stop = signals()?;
    let Nodes { kubeconfig, nodes, first_node, per_second, kind } = nodes;
    let images = Arc::new(kind.images()?);
    let (config, client) = connect(&kubeconfig).await?;
    let url = config.cluster_url.to_string();
    let network = network_for(&answers(&client, &url).await?);
    let options = nanokube_nodes::Options {
        client: client.clone(),
        connect: Arc::new(move |token: &str| {
            let mut config = config.clone();
            config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
            Client::try_from(config)
        }),
        count: nodes,
        first_number: first_node,
        join_every: per_second.map_or(Duration::ZERO, |nodes| SECOND / nodes),
        images,
        network,
        latencies: kind.latencies(),
        heartbeats: Heartbeats::default(),
        power: Power::default(),
        clock: Clock::System,
        seed: kind.seed,
        capacity: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    let until = stop.clone();
    let processes = kind.processes(&url)?;
    let mut running = tokio::spawn(async move {
        let ran = match processes {
            Some(processes) => nanokube_nodes::run_processes(options, processes, until).await,
            None => nanokube_nodes::run(options, until).await,
        };
        ran.context("nodes")
    });
    tokio::select! {
        joined = joined(client, (first_node..first_node.saturating_add(nodes)).map(nanokube_nodes::name)) => joined?,
        ended = &mut running => return ended?,
    }
    println!("ready ({nodes} {} nodes joined {url})", kind.word());
    std::io::stdout().flush()?;
    running.await?
}

/// Waits until every node is registered.
async fn joined(client: Client, names: impl Iterator<Item = String>) -> Result<()> {
    let mut missing: BTreeSet<String> = names.collect();
    let watched = watcher(Api::<PartialObjectMeta<Node>>::all(client), watcher::Config::default()).default_backoff();
    let mut seen = std::pin::pin!(watched.applied_objects());
    while !missing.is_empty() {
        match seen.next().await {
            Some(Ok(node)) => _ = missing.remove(&node.name_any()),
            Some(Err(error)) => tracing::warn!(%error, "the nodes cannot be watched, trying again"),
            None => bail!("the watch of the nodes ended"),
        }
    }
    Ok(())
}

/// How to reach the cluster of a kubeconfig.
async fn connect(kubeconfig: &Path) -> Result<(Config, Client)> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use {}", kubeconfig.display()))?;
    let client = Client::try_from(config.clone()).context("set up TLS")?;
    Ok((config, client))
}

/// Where the pods of simulated nodes listen. A nanokube serves this machine only and reaches webhooks and aggregated APIs on
/// its loopback network. Any other server may be elsewhere, and a real one refuses endpoints with loopback addresses.
fn network_for(server: &Info) -> Network {
    if server.git_version.contains("nanokube") { Network::Loopback } else { MemoryNet::new().into() }
}

/// What the server says of itself, once it answers a request.
async fn answers(client: &Client, url: &str) -> Result<Info> {
    let version = tokio::time::timeout(FIRST_ANSWER, client.apiserver_version()).await;
    version
        .with_context(|| format!("{url} did not answer within {FIRST_ANSWER:?}"))?
        .with_context(|| format!("ask {url}"))
}

fn audit_file(path: &Path) -> Result<Box<dyn nanokube::AuditSink>> {
    let file = File::create(path).with_context(|| format!("create the audit log {}", path.display()))?;
    Ok(Box::new(WriterSink::new(file)))
}

/// A token that SIGTERM and SIGINT cancel.
fn signals() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        cancel.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_on_the_loopback_network_of_a_nanokube_only() {
        let info = |version: &str| Info { git_version: version.to_owned(), ..Info::default() };
        assert!(matches!(network_for(&info("v1.36.0+nanokube.0.1.0")), Network::Loopback));
        assert!(matches!(network_for(&info("v1.36.0")), Network::Memory(_)));
    }
}
