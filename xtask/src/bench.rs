//! Figures of a part of the system against their goals, of a release build on this machine: nanokube's throughput, latency,
//! start and memory here, the operator's in [`operator`], those of a change of version in [`upgrade`].

mod chart;
mod operator;
mod processes;
mod upgrade;

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::nanokube::Running;
use crate::{paths, release, setup, term};

/// What the suite's images are called; any release does.
const VERSION: &str = "v0.1.0";
/// Starts whose slowest is the figure: a single one may be lucky.
const STARTS: usize = 5;
/// Writes per second and milliseconds of the slowest event in a hundred: the goals of the load.
const WRITES: f64 = 2000.0;
/// See [`WRITES`].
const LATE: f64 = 50.0;
/// Another program on this machine can only slow a measurement down: a good round among these is what nanokube does.
const ROUNDS: usize = 3;
/// 5,000 nodes with their suite take half an hour to change version on a small machine; after this long something hangs.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Memory is settled when it stays within one part in this many over [`STILL`] samples.
const STEADY: f64 = 200.0;
/// See [`STEADY`]; one sample a second, so that a wave of leases or a resync falls between the first and the last.
const STILL: usize = 5;
/// After this many samples the last one is taken, and the figure shows whatever still grows.
const SAMPLES: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_parser = ["nanokube", "operator", "upgrade"])]
    subject: String,
    /// The small version, without the large clusters
    #[arg(long)]
    quick: bool,
    /// `json` prints the object and nothing else
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
    /// Measure only figures whose name or label contains this
    #[arg(long)]
    only: Option<String>,
    /// Measure nothing, and draw the picture from the output of earlier runs (`upgrade` alone)
    #[arg(long, value_name = "FILE", num_args = 1..)]
    draw: Vec<PathBuf>,
    /// How many writes under watches
    #[arg(long, default_value_t = 10_000)]
    writes: usize,
}

/// What a figure is held against.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    Exactly(f64),
    /// Measured, and no more.
    None,
}

struct Figure {
    name: String,
    /// Where it was taken: `in process`, `HTTPS`, `simulated`.
    label: &'static str,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

impl Figure {
    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtLeast(bound) => Some(self.value >= bound),
            Goal::AtMost(bound) => Some(self.value <= bound),
            Goal::Below(bound) => Some(self.value < bound),
            Goal::Exactly(bound) => Some((self.value - bound).abs() < f64::EPSILON),
            Goal::None => None,
        }
    }

    fn row(&self) -> [String; 5] {
        let shown = |value: f64| {
            let digits = if value >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
            format!("{value:.digits$} {}", self.unit).trim_end().to_owned()
        };
        let goal = match self.goal {
            Goal::AtLeast(bound) => format!("at least {}", shown(bound)),
            Goal::AtMost(bound) => format!("at most {}", shown(bound)),
            Goal::Below(bound) => format!("below {}", shown(bound)),
            Goal::Exactly(bound) => shown(bound),
            Goal::None => "-".to_owned(),
        };
        let verdict = match self.met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "measured",
        };
        [self.name.clone(), self.label.to_owned(), shown(self.value), goal, verdict.to_owned()]
    }

    /// In a line, for the end of a long run.
    fn missed(&self) -> String {
        let [name, label, value, goal, _] = self.row();
        format!("{name} ({label}) is {value}, goal {goal}")
    }

    fn json(&self) -> Value {
        let goal = match self.goal {
            Goal::AtLeast(bound) => json!({"at_least": bound}),
            Goal::AtMost(bound) => json!({"at_most": bound}),
            Goal::Below(bound) => json!({"below": bound}),
            Goal::Exactly(bound) => json!({"exactly": bound}),
            Goal::None => Value::Null,
        };
        let value = (self.value * 100.0).round() / 100.0;
        json!({"name": self.name, "label": self.label, "value": value, "unit": self.unit, "goal": goal, "met": self.met()})
    }
}

/// Measures, prints, and fails when a goal is missed.
///
/// # Errors
/// A goal was missed, or something could not be measured.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.draw.is_empty() || options.subject == "upgrade", "--draw knows the picture of `upgrade` alone");
    match options.subject.as_str() {
        "operator" => return operator::run(options),
        "upgrade" => return upgrade::run(options),
        _ => {}
    }
    let mut bench = Bench::new(options)?;
    bench.build()?;
    let measured = measure(&mut bench, options.quick);
    bench.end(measured)
}

fn measure(bench: &mut Bench<'_>, quick: bool) -> Result<()> {
    let nodes = |count: u32| format!("{count} nodes");
    if bench.wants("load in process HTTPS") {
        bench.load("in process", None)?;
        bench.load_over_https()?;
    }
    if bench.wants("start") {
        bench.start()?;
    }
    if bench.wants(&nodes(3)) {
        bench.suite(3, Goal::Below(60.0))?;
    }
    if !quick {
        if bench.wants(&nodes(1000)) {
            bench.suite(1000, Goal::Below(1000.0))?;
        }
        if bench.wants(&nodes(5000)) {
            bench.suite(5000, Goal::None)?;
        }
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    nanokube: PathBuf,
    measure: PathBuf,
    scratch: PathBuf,
    figures: Vec<Figure>,
    /// How many servers were started; each has files of its own.
    servers: Cell<u32>,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let target = paths::target()?;
        let scratch = target.join("bench");
        std::fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        let release = target.join("release");
        let (nanokube, measure) = (release.join("nanokube"), release.join("examples").join("measure"));
        let bench = Self { options, nanokube, measure, scratch, figures: Vec::new(), servers: Cell::new(0) };
        setup::run()?;
        Ok(bench)
    }

    /// Builds the server, and the program that measures it.
    fn build(&self) -> Result<()> {
        self.heading("Build");
        let build = ["build", "--release", "--package", "nanokube-cli", "--bin", "nanokube", "--example", "measure"];
        self.command(&format!("cargo {}", build.join(" ")));
        let status = paths::cargo().args(build).status()?;
        ensure!(status.success(), "the build failed");
        Ok(())
    }

    fn talks(&self) -> bool {
        self.options.output == "text"
    }

    fn heading(&self, text: &str) {
        if self.talks() {
            term::heading(text);
        }
    }

    fn command(&self, text: &str) {
        if self.talks() {
            term::command(text);
        }
    }

    /// Waits on the clock, which is what is measured.
    fn sleep(&self, time: Duration, why: &str) {
        self.command(&format!("sleep {}   # {why}", time.as_secs()));
        std::thread::sleep(time);
    }

    fn wants(&self, what: &str) -> bool {
        self.options.only.as_ref().is_none_or(|only| what.contains(only.as_str()))
    }

    fn add(&mut self, name: impl Into<String>, label: &'static str, value: f64, unit: &'static str, goal: Goal) {
        self.figures.push(Figure { name: name.into(), label, value, unit, goal });
    }

    /// Runs the measuring program; its answer is a JSON object.
    fn measure(&self, arguments: &[&str]) -> Result<Value> {
        self.told_by(&self.measure, arguments)
    }

    /// Builds a program of `tests` that plays something in simulated time.
    fn player(&self, name: &str) -> Result<PathBuf> {
        self.heading("Build");
        let build = ["build", "--release", "--package", "kubevirt-tests", "--bin", name];
        self.command(&format!("cargo {}", build.join(" ")));
        ensure!(paths::cargo().args(build).status()?.success(), "the build failed");
        Ok(self.nanokube.with_file_name(name))
    }

    /// Runs a program whose answer is a JSON object. What it says on standard error meanwhile is seen at once: it may take
    /// an hour, and says how far it is.
    fn told_by(&self, program: &Path, arguments: &[&str]) -> Result<Value> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        self.command(&format!("{name} {}", arguments.join(" ")));
        let mut running = Command::new(program);
        let out = running.args(arguments).stderr(Stdio::inherit()).output().with_context(|| format!("run {name}"))?;
        ensure!(out.status.success(), "{name}: {}; what went wrong stands above", out.status);
        let text = String::from_utf8_lossy(&out.stdout);
        if self.talks() {
            term::output(&text);
        }
        serde_json::from_str(text.trim()).with_context(|| format!("{name} printed no JSON"))
    }

    /// Gives the number of rounds it took.
    fn load(&mut self, label: &'static str, kubeconfig: Option<&str>) -> Result<usize> {
        self.heading(&format!("Writes under 100 watchers, {label}"));
        let writes = self.options.writes.to_string();
        let mut arguments = vec!["load", "--writes", &writes, "--watchers", "100"];
        arguments.extend(kubeconfig.iter().flat_map(|file| ["--kubeconfig", *file]));
        // Over HTTPS the clients, in a program of their own, take half of a small machine: how many writes fit says as much about
        // them as about the server, and is measured. How late events are is the server's doing either way.
        let least = if kubeconfig.is_none() { WRITES } else { 0.0 };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let measured = self.measure(&arguments)?;
            let figure = |name: &str| measured[name].as_f64().with_context(|| format!("no figure {name}"));
            let good = figure("writes_per_second")? >= least && figure("p99_ms")? < LATE;
            rounds.push(measured);
            if good {
                break;
            }
        }
        // Events lost in any round count; of speed the last round speaks, which is the first good one if there was one.
        let sum = |name: &str| rounds.iter().filter_map(|round| round[name].as_f64()).sum::<f64>();
        let (lost, wrong) = (sum("lost"), sum("twice") + sum("out_of_order"));
        let measured = rounds.last().context("at least one round")?;
        let figure = |name: &str| measured[name].as_f64().with_context(|| format!("no figure {name}"));
        let (speed, median, late) = (figure("writes_per_second")?, figure("p50_ms")?, figure("p99_ms")?);
        let goal = if kubeconfig.is_none() { Goal::AtLeast(WRITES) } else { Goal::None };
        self.add("writes per second with 100 watchers", label, speed, "", goal);
        self.add("watch latency, median", label, median, "ms", Goal::None);
        self.add("watch latency, 99 of 100", label, late, "ms", Goal::Below(LATE));
        self.add("events lost", label, lost, "", Goal::Exactly(0.0));
        self.add("events told twice or out of order", label, wrong, "", Goal::Exactly(0.0));
        Ok(rounds.len())
    }

    fn load_over_https(&mut self) -> Result<()> {
        let (server, kubeconfig) = self.up(0, &[])?;
        let (before, rounds) = (server.processor()?, self.load("HTTPS", Some(&kubeconfig))?);
        let writes = f64::from(u32::try_from(rounds * self.options.writes).unwrap_or(u32::MAX));
        let each = (server.processor()? - before) * 1000.0 / writes;
        self.add("server's processor time for a write and its 100 events", "HTTPS", each, "ms", Goal::None);
        Ok(())
    }

    /// Starts a server of its own; the nodes are simulated, unless the arguments say something else.
    fn up(&self, nodes: u32, more: &[&str]) -> Result<(Running, String)> {
        let number = self.servers.get();
        self.servers.set(number + 1);
        let file = |name: &str| self.scratch.join(format!("{name}-{number}"));
        let kubeconfig = file("kubeconfig").display().to_string();
        let count = nodes.to_string();
        let mut arguments = vec!["up", "--nodes", &count, "--kubeconfig", &kubeconfig];
        arguments.extend(more);
        self.command(&format!("nanokube {}", arguments.join(" ")));
        let running = Running::start(&self.nanokube, &arguments, &file("nanokube.log"))?;
        Ok((running, kubeconfig))
    }

    fn start(&mut self) -> Result<()> {
        self.heading("Start");
        let mut slowest = Duration::ZERO;
        for _ in 0..STARTS {
            slowest = slowest.max(self.up(3, &[])?.0.took);
        }
        let name = format!("process start to ready, slowest of {STARTS}");
        self.add(name, "3 nodes", slowest.as_secs_f64(), "s", Goal::Below(1.0));
        Ok(())
    }

    /// Nodes, then the suite on them, then what the one process holds.
    fn suite(&mut self, nodes: u32, goal: Goal) -> Result<()> {
        self.heading(&format!("{nodes} simulated nodes with the suite"));
        let (server, kubeconfig) = self.up(nodes, &[])?;
        let count = nodes.to_string();
        self.measure(&["nodes", "--kubeconfig", &kubeconfig, "--count", &count])?;
        let joined = server.started.elapsed();
        let bare = server.memory("VmRSS")?;

        let dist = self.scratch.join("dist");
        release::write(&release::Options::manifests_only(VERSION, &dist))?;
        let kubectl = Kubectl { bench: self, kubeconfig: &kubeconfig };
        kubectl.apply(&dist.join(VERSION).join("kubevirt-operator.yaml"))?;
        kubectl.wait("deployment/virt-operator", "condition=Available")?;
        let (applied, before) = (Instant::now(), server.processor()?);
        kubectl.apply(&dist.join(VERSION).join("kubevirt-cr.yaml"))?;
        kubectl.wait("kubevirt/kubevirt", "condition=Available")?;
        kubectl.wait("daemonset/virt-handler", &format!("jsonpath={{.status.numberAvailable}}={nodes}"))?;
        let installed = applied.elapsed();
        let worked = server.processor()? - before;
        let rss = settled(&server)?;
        let peak = server.memory("VmHWM")?;

        let name = |what: &str| format!("{nodes} nodes: {what}");
        self.add(name("process start to all Ready"), "simulated", joined.as_secs_f64(), "s", Goal::None);
        self.add(name("memory before the suite"), "simulated", bare, "MB", Goal::None);
        self.add(name("custom resource to all available"), "simulated", installed.as_secs_f64(), "s", Goal::None);
        self.add(name("processor time for that"), "simulated", worked, "s", Goal::None);
        self.add(name("memory with the suite"), "simulated", rss, "MB", goal);
        self.add(name("most memory ever"), "simulated", peak, "MB", Goal::None);
        Ok(())
    }

    /// What was measured before something went wrong took minutes: it is shown all the same.
    fn end(&self, measured: Result<()>) -> Result<()> {
        if let (Ok(()), true, Some(only)) = (&measured, self.figures.is_empty(), &self.options.only) {
            bail!("--only {only}: no figure of `bench {}` has that in its name or label", self.options.subject);
        }
        let reported = self.report();
        measured.and(reported)
    }

    fn report(&self) -> Result<()> {
        let missed: Vec<String> =
            self.figures.iter().filter(|figure| figure.met() == Some(false)).map(Figure::missed).collect();
        if self.talks() {
            term::heading("Measured (release build, this machine)");
            let rows: Vec<Vec<String>> = self.figures.iter().map(|figure| figure.row().to_vec()).collect();
            term::table(&["FIGURE", "LABEL", "VALUE", "GOAL", "VERDICT"], &rows);
            term::note(&format!("{} processors, load {}", processors(), load()));
            println!();
        }
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        println!(
            "{}",
            json!({"subject": self.options.subject, "processors": processors(), "load": load(), "figures": figures, "missed": missed.len()})
        );
        ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
        Ok(())
    }
}

/// How many programs this machine runs at a time: without it, and what else it had to do, times say nothing.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// How many programs wanted to run over the last one, five and fifteen minutes.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The memory of a server once it stays the same.
fn settled(server: &Running) -> Result<f64> {
    let mut samples: Vec<f64> = Vec::new();
    for _ in 0..SAMPLES {
        samples.push(server.memory("VmRSS")?);
        let last = &samples[samples.len().saturating_sub(STILL)..];
        let (low, high) = last.iter().fold((f64::MAX, 0.0_f64), |(low, high), it| (low.min(*it), high.max(*it)));
        if last.len() == STILL && high - low <= high / STEADY {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    samples.last().copied().context("at least one sample")
}

struct Kubectl<'a> {
    bench: &'a Bench<'a>,
    kubeconfig: &'a str,
}

impl Kubectl<'_> {
    fn run(&self, arguments: &[&str]) -> Result<()> {
        self.bench.command(&format!("kubectl {}", arguments.join(" ")));
        let out = Command::new("kubectl").env("KUBECONFIG", self.kubeconfig).args(arguments).output();
        let out = out.context("run kubectl")?;
        let mut why = String::new();
        write!(why, "kubectl {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim())?;
        ensure!(out.status.success(), why);
        Ok(())
    }

    /// The pod that leads.
    fn lease_holder(&self) -> Result<String> {
        let arguments = ["get", "-n", "kubevirt", "lease", "virt-operator", "-o", "jsonpath={.spec.holderIdentity}"];
        self.bench.command(&format!("kubectl {}", arguments.join(" ")));
        let out = Command::new("kubectl").env("KUBECONFIG", self.kubeconfig).args(arguments).output();
        let out = out.context("run kubectl")?;
        ensure!(out.status.success(), "no lease: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    fn apply(&self, manifest: &Path) -> Result<()> {
        self.run(&["apply", "-f", &manifest.to_string_lossy()])
    }

    fn wait(&self, what: &str, until: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.run(&["wait", "-n", "kubevirt", what, &format!("--for={until}"), &timeout])
    }
}
