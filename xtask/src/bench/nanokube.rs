//! The embedded API server's figures: throughput with watchers, time until ready, memory with the suite and with many
//! nodes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::{paths, release, setup, term};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Writes of the throughput run
    #[arg(long, default_value_t = 10_000)]
    writes: u32,
    /// Watchers of the throughput run
    #[arg(long, default_value_t = 100)]
    watchers: u32,
    /// Numbers of simulated nodes whose memory is measured
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    nodes: Vec<u32>,
    /// Leave out the run with the suite installed (it needs kubectl)
    #[arg(long)]
    no_suite: bool,
}

/// The release that is installed; any would do.
const VERSION: &str = "v0.1.0";
/// How often a server is started to measure the time until it is ready; the median is told.
const STARTS: usize = 5;
/// How long the nodes may take to be all there; a thousand take seconds.
const NODES_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the suite may take to be installed.
const SUITE_TIMEOUT: &str = "120s";
/// Memory is read when the first burst of work is over.
const SETTLE: Duration = Duration::from_secs(10);

/// One measured figure.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
}

#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    Below(f64),
    Exactly(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::Below(goal) => value < goal,
            Self::Exactly(goal) => (value - goal).abs() < f64::EPSILON,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(goal) => format!("at least {goal}"),
            Self::Below(goal) => format!("below {goal}"),
            Self::Exactly(goal) => format!("{goal}"),
        }
    }
}

/// Runs all measurements.
///
/// # Errors
/// Something does not build or start, or a goal is missed.
pub(crate) fn run(options: &Options) -> Result<()> {
    term::heading("Build");
    let build: [&[&str]; 2] = [
        &["build", "--release", "--package", "nanokube-cli"],
        &["build", "--release", "--package", "nanokube", "--example", "throughput"],
    ];
    for arguments in build {
        term::command(&format!("cargo {}", arguments.join(" ")));
        ensure!(paths::cargo().args(arguments).status()?.success(), "the build failed");
    }
    let programs = paths::target()?.join("release");
    let scratch = paths::target()?.join("bench");
    std::fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;

    let mut figures = throughput(&programs, options)?;
    figures.push(ready(&programs, &scratch)?);
    if !options.no_suite {
        figures.push(suite(&programs, &scratch)?);
    }
    for &nodes in &options.nodes {
        figures.extend(many_nodes(&programs, &scratch, nodes)?);
    }
    report(&figures)
}

fn throughput(programs: &Path, options: &Options) -> Result<Vec<Figure>> {
    let Options { writes, watchers, .. } = options;
    term::heading(&format!("{writes} writes with {watchers} watchers, in one process"));
    let program = programs.join("examples").join("throughput");
    let out = Command::new(&program)
        .args([writes.to_string(), watchers.to_string()])
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(out.status.success(), "throughput failed: {}", String::from_utf8_lossy(&out.stderr));
    let line: Value = serde_json::from_slice(&out.stdout).context("read the figures of throughput")?;
    let figure = |key: &str, name: &str, unit, goal| -> Result<Figure> {
        let value = line[key].as_f64().with_context(|| format!("throughput printed no {key}"))?;
        Ok(Figure { name: name.to_owned(), value, unit, goal })
    };
    Ok(vec![
        figure("writes_per_second", "writes with watchers", "1/s", Some(Goal::AtLeast(2000.0)))?,
        figure("p50_watch_ms", "watch latency, median", "ms", None)?,
        figure("p99_watch_ms", "watch latency, 99th percentile", "ms", Some(Goal::Below(50.0)))?,
        figure("events_lost", "events lost", "", Some(Goal::Exactly(0.0)))?,
    ])
}

fn ready(programs: &Path, scratch: &Path) -> Result<Figure> {
    term::heading("Time until ready, 3 nodes");
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let server = Server::start(programs, scratch, 3)?;
        times.push(server.ready_after);
    }
    times.sort();
    let value = times[times.len() / 2].as_secs_f64();
    Ok(Figure { name: "time until ready, 3 nodes".to_owned(), value, unit: "s", goal: Some(Goal::Below(1.0)) })
}

fn suite(programs: &Path, scratch: &Path) -> Result<Figure> {
    term::heading("Memory with the suite installed on 3 nodes");
    setup::run()?;
    let server = Server::start(programs, scratch, 3)?;
    let dist = scratch.join("dist");
    if dist.exists() {
        std::fs::remove_dir_all(&dist).with_context(|| format!("empty {}", dist.display()))?;
    }
    std::fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;
    release::write(&release::Options::manifests_only(VERSION, &dist))?;
    for manifest in ["kubevirt-operator.yaml", "kubevirt-cr.yaml"] {
        let path = dist.join(VERSION).join(manifest);
        server.kubectl(&["apply", "--server-side", "-f", &path.display().to_string()])?;
    }
    let timeout = format!("--timeout={SUITE_TIMEOUT}");
    server.kubectl(&["wait", "-n", "kubevirt", "kubevirt/kubevirt", "--for=condition=Available", &timeout])?;
    std::thread::sleep(SETTLE);
    let name = "memory (RSS), suite on 3 nodes".to_owned();
    Ok(Figure { name, value: server.memory()?, unit: "MB", goal: Some(Goal::Below(60.0)) })
}

fn many_nodes(programs: &Path, scratch: &Path, nodes: u32) -> Result<Vec<Figure>> {
    term::heading(&format!("{nodes} simulated nodes"));
    let server = Server::start(programs, scratch, nodes)?;
    let start = Instant::now();
    loop {
        let out = server.kubectl(&["get", "nodes", "--no-headers", "--chunk-size=0"])?;
        let up = out.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
        if up == usize::try_from(nodes)? {
            break;
        }
        ensure!(start.elapsed() < NODES_TIMEOUT, "only {up} of {nodes} nodes are ready after {NODES_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let all_there = server.started.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let goal = (nodes <= 1000).then_some(Goal::Below(1000.0));
    Ok(vec![
        Figure { name: format!("time until {nodes} nodes are Ready"), value: all_there, unit: "s", goal: None },
        Figure { name: format!("memory (RSS), {nodes} nodes"), value: server.memory()?, unit: "MB", goal },
    ])
}

fn report(figures: &[Figure]) -> Result<()> {
    term::heading("Figures of this machine, release build");
    let rows: Vec<Vec<String>> = figures
        .iter()
        .map(|figure| {
            let goal = figure.goal.map(Goal::text).unwrap_or_default();
            let met = figure.goal.map_or("", |goal| if goal.is_met(figure.value) { "met" } else { "MISSED" });
            let decimals = usize::from(figure.value.fract() != 0.0) * 2;
            let value = format!("{:.decimals$}", figure.value);
            vec![figure.name.clone(), value, figure.unit.to_owned(), goal, met.to_owned()]
        })
        .collect();
    term::table(&["FIGURE", "VALUE", "UNIT", "GOAL", ""], &rows);
    let line: Map<String, Value> = figures
        .iter()
        .map(|figure| {
            let label =
                if figure.unit.is_empty() { figure.name.clone() } else { format!("{} [{}]", figure.name, figure.unit) };
            (label, json!(figure.value))
        })
        .collect();
    println!("{}", Value::Object(line));
    let missed: Vec<&str> = figures
        .iter()
        .filter(|figure| figure.goal.is_some_and(|goal| !goal.is_met(figure.value)))
        .map(|figure| figure.name.as_str())
        .collect();
    ensure!(missed.is_empty(), "goals missed: {}", missed.join("; "));
    Ok(())
}

/// A `nanokube up` that ends with the measurement.
struct Server {
    child: Child,
    kubeconfig: PathBuf,
    started: Instant,
    ready_after: Duration,
}

impl Server {
    fn start(programs: &Path, scratch: &Path, nodes: u32) -> Result<Self> {
        let kubeconfig = scratch.join("kubeconfig");
        let program = programs.join("nanokube");
        let log = std::fs::File::create(scratch.join("nanokube.log")).context("create nanokube.log")?;
        let started = Instant::now();
        let mut child = Command::new(&program)
            .args(["up", "--simulated", "--nodes", &nodes.to_string(), "--kubeconfig"])
            .arg(&kubeconfig)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = child.stdout.take().context("stdout was piped")?;
        let mut lines = BufReader::new(stdout).lines();
        match lines.next() {
            Some(Ok(line)) if line.starts_with("ready") => {
                let ready_after = started.elapsed();
                // Keep reading, or the child blocks when the pipe is full.
                std::thread::spawn(move || lines.for_each(drop));
                Ok(Self { child, kubeconfig, started, ready_after })
            }
            other => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("nanokube did not become ready ({other:?}); its log is in {}", scratch.display());
            }
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let out = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .output()
            .context("run kubectl")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr));
        Ok(text)
    }

    /// Resident memory in megabytes (10^6 bytes), as the kernel counts it.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("read its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel tells no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().context("read VmRSS")?;
        Ok(kibibytes * 1024.0 / 1e6)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
