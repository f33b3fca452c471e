//! What `cargo xtask bench nanokube` asks of a server: a load of writes under watches, and how long nodes take.
//!
//! `measure load` writes ConfigMaps as fast as it is answered while watchers count every event; without `--kubeconfig`
//! the server runs in this process. `measure nodes` waits until that many nodes are Ready. Each prints one JSON object.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, UserInfo};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// As the server has it: in this process, what is measured is the server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Where the load is written.
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
/// Each object is created once and then replaced, so that both kinds of writes and events are measured.
const WRITES_PER_OBJECT: usize = 4;
/// An event that is this late is lost: 200 times the goal of the slowest one in a hundred.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// Writes before the clock starts, so that neither side measures its first allocations and connections.
const WARM_UP: usize = 400;

#[derive(Parser)]
#[command(about = "Measures an API server")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes under watches
    Load(Load),
    /// Waits until all nodes are Ready
    Nodes(Nodes),
}

#[derive(Args)]
struct Load {
    /// The server; without it, one in this process
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    #[arg(long, default_value_t = 10_000)]
    writes: usize,
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Writers, each of which waits for its answers
    #[arg(long, default_value_t = 4)]
    writers: usize,
}

#[derive(Args)]
struct Nodes {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    count: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    ensure!(
        rustls::crypto::ring::default_provider().install_default().is_ok(),
        "another crypto provider was installed first"
    );
    match Cli::parse().command {
        Command::Load(load) => run(load).await,
        Command::Nodes(nodes) => ready(nodes).await,
    }
}

async fn connect(kubeconfig: &PathBuf) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context("use it")?;
    Client::try_from(config).context("set up TLS")
}

/// When each write was sent, in microseconds since the start; what a watcher sees of it is compared with this.
struct Sent {
    start: Instant,
    /// Of the objects' names: several loads follow each other on one server.
    prefix: String,
    at: Vec<AtomicU64>,
}

impl Sent {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What one watcher saw.
#[derive(Default)]
struct Seen {
    /// Microseconds from the request to the event.
    delays: Vec<u64>,
    lost: usize,
    twice: usize,
    out_of_order: usize,
}

async fn run(load: Load) -> Result<()> {
    let Load { kubeconfig, writes, watchers, writers } = load;
    ensure!(writers > 0 && watchers > 0, "give at least one writer and one watcher");
    let client = match &kubeconfig {
        Some(file) => connect(file).await?,
        None => {
            // Held by its clients.
            Nanokube::new(Options::new(Clock::System, 1)).client(UserInfo::admin())
        }
    };
    let total = WARM_UP + writes;
    let list: serde_json::Value =
        client.request(Request::get(format!("{COLLECTION}?limit=1")).body(Vec::new())?).await?;
    let from = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?.to_owned();
    let sent = Arc::new(Sent {
        start: Instant::now(),
        prefix: format!("load-{from}"),
        at: (0..total).map(|_| AtomicU64::new(0)).collect(),
    });

    let mut watching = JoinSet::new();
    for _ in 0..watchers {
        let uri = format!("{COLLECTION}?watch=true&resourceVersion={from}");
        let answer = client.send(Request::get(uri).body(Body::empty())?).await?;
        ensure!(answer.status().is_success(), "a watch was refused: {}", answer.status());
        watching.spawn(watch(answer.into_body(), sent.clone()));
    }
    write(&client, &sent, 0..WARM_UP, writers).await?;
    let began = Instant::now();
    write(&client, &sent, WARM_UP..total, writers).await?;
    let took = began.elapsed();

    let mut all = Seen::default();
    while let Some(seen) = watching.join_next().await {
        let Seen { delays, lost, twice, out_of_order } = seen??;
        all.delays.extend(delays);
        all.lost += lost;
        all.twice += twice;
        all.out_of_order += out_of_order;
    }
    all.delays.sort_unstable();
    let part = |hundredths: usize| {
        let index = (all.delays.len() * hundredths / 100).min(all.delays.len().saturating_sub(1));
        millis(all.delays.get(index).copied().unwrap_or(0))
    };
    let line = json!({
        "writes": writes, "watchers": watchers, "writers": writers,
        "writes_per_second": (number(writes) / took.as_secs_f64()).round(),
        "p50_ms": part(50), "p99_ms": part(99), "max_ms": part(100),
        "events": all.delays.len(), "lost": all.lost, "twice": all.twice, "out_of_order": all.out_of_order,
    });
    println!("{line}");
    Ok(())
}

/// Carries out a range of writes; each writer takes every so many objects.
async fn write(client: &Client, sent: &Arc<Sent>, range: std::ops::Range<usize>, writers: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(range.start / WRITES_PER_OBJECT));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..writers {
        let (client, sent, next, range) = (client.clone(), sent.clone(), next.clone(), range.clone());
        tasks.spawn(async move {
            loop {
                let object = next.fetch_add(1, Ordering::Relaxed);
                for step in 0..WRITES_PER_OBJECT {
                    let index = object * WRITES_PER_OBJECT + step;
                    if index >= range.end {
                        return Ok(());
                    }
                    let name = format!("{}-{object}", sent.prefix);
                    let body = json!({
                        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                        "data": {"n": index.to_string(), "text": "as long as a line of a configuration file may be"},
                    });
                    let request = if step == 0 {
                        Request::post(COLLECTION)
                    } else {
                        Request::put(format!("{COLLECTION}/{name}"))
                    };
                    let request =
                        request.header("content-type", "application/json").body(serde_json::to_vec(&body)?)?;
                    sent.at[index].store(sent.now(), Ordering::Relaxed);
                    client.request_text(request).await.with_context(|| format!("write {index}"))?;
                    // In one process an answer never has to be waited for. Whoever writes through a socket lets others run in
                    // between; four writers that don't would be measured instead of the watches.
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Reads events until it has seen every write, or nothing comes any more.
async fn watch(mut body: Body, sent: Arc<Sent>) -> Result<Seen> {
    let total = sent.at.len();
    let mut seen = Seen::default();
    let mut marks = vec![false; total];
    let (mut left, mut version, mut rest) = (total, 0, Vec::new());
    while left > 0 {
        let frame = match tokio::time::timeout(LOST_AFTER, body.frame()).await {
            Err(_) | Ok(None) => break,
            Ok(Some(frame)) => frame.context("read a watch")?,
        };
        let Some(data) = frame.data_ref() else { continue };
        let now = sent.now();
        rest.extend_from_slice(data);
        let mut from = 0;
        while let Some(end) = rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&rest[from..from + end]).context("an event is text")?;
            from += end + 1;
            let index: usize = field(line, "\"n\":\"")?;
            let at: u64 = field(line, "\"resourceVersion\":\"")?;
            seen.out_of_order += usize::from(at <= version);
            version = at;
            if std::mem::replace(marks.get_mut(index).context("an event of another load")?, true) {
                seen.twice += 1;
                continue;
            }
            left -= 1;
            if index >= WARM_UP {
                seen.delays.push(now.saturating_sub(sent.at[index].load(Ordering::Relaxed)));
            }
        }
        rest.drain(..from);
    }
    seen.lost = left;
    Ok(seen)
}

/// The number behind a key. Parsing every event whole would measure this program instead of the server.
fn field<T: std::str::FromStr>(line: &str, key: &str) -> Result<T> {
    let value = line.split_once(key).and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
    value.with_context(|| format!("an event without {key}: {line}"))
}

async fn ready(nodes: Nodes) -> Result<()> {
    let start = Instant::now();
    let api: Api<Node> = Api::all(connect(&nodes.kubeconfig).await?);
    let mut stream = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
    let mut ready = BTreeSet::new();
    while ready.len() < nodes.count {
        let node = match stream.next().await {
            Some(Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) => node,
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(error).context("watch the nodes"),
            None => bail!("the watch of the nodes ended"),
        };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let holds = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
        let name = node.metadata.name.unwrap_or_default();
        if holds {
            ready.insert(name);
        } else {
            ready.remove(&name);
        }
    }
    println!("{}", json!({"nodes": ready.len(), "seconds": start.elapsed().as_secs_f64()}));
    Ok(())
}

fn millis(micros: u64) -> f64 {
    number(usize::try_from(micros / 10).unwrap_or(usize::MAX)) / 100.0
}

fn number(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
