//! Runs one real guest under two releases and moves it. Called by `cargo xtask guest` as root, in network and mount
//! namespaces of its own. Prints a story, the last line is JSON.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};
use kubevirt_guest::lab::resident_kib;
use kubevirt_guest::stage::{GUEST, Paths, RealStage};
use kubevirt_hypervisor::hypervisor::{Change, Event, Hypervisor, Migration, Pause, Progress, Start};
use kubevirt_hypervisor::libvirt::Libvirt;
use kubevirt_hypervisor::migration::{Ends, run};
use kubevirt_hypervisor::monitor::Policy;
use kubevirt_hypervisor::suite::{BEATS_WITHIN, BOOTS_WITHIN, Case, Part, Place, Stage};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot, move, measure, and run the cases in which nothing breaks on the way.
    Run(Run),
    /// Run the cases in which something breaks on the way.
    Disturb(Laboratory),
    /// Start one migration: a controlling process that can be killed.
    Migrate {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        how: String,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    laboratory: Laboratory,
    /// Migrations in a row, each to the other side.
    #[arg(long, default_value_t = 50)]
    migrations: usize,
    /// Round trips by virsh, spread among them.
    #[arg(long, default_value_t = 4)]
    virsh: usize,
}

#[derive(Args)]
struct Laboratory {
    #[arg(long)]
    base: PathBuf,
    #[arg(long)]
    old: PathBuf,
    #[arg(long)]
    new: PathBuf,
    #[arg(long)]
    guest: PathBuf,
    #[arg(long)]
    programs: PathBuf,
    /// Run the suite's cases whose name contains this; `none` runs none.
    #[arg(long, default_value = "")]
    cases: String,
    /// Run them this often.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

impl Laboratory {
    async fn open(&self) -> Result<RealStage> {
        let Self { base, old, new, guest, programs, cases: _, rounds: _ } = self;
        let paths = Paths {
            base: base.clone(),
            old: old.clone(),
            new: new.clone(),
            guest: guest.clone(),
            programs: programs.clone(),
        };
        Ok(RealStage::start(&paths).await?)
    }

    fn chosen(&self, part: Part) -> Vec<Case> {
        part.cases().into_iter().filter(|case| case.name.contains(&self.cases)).collect()
    }
}

/// libvirt's default waits for a downtime of 300 ms; so do both sides of the comparison.
const POLICY: fn() -> Policy = Policy::default;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match Line::parse().task {
            Task::Run(options) => story(options).await,
            Task::Disturb(laboratory) => disturb(laboratory).await,
            Task::Migrate { socket, how } => {
                let how: Migration = serde_json::from_str(&how)?;
                let client = connect(&socket.to_string_lossy()).await?;
                client.migrate(GUEST, &how).await?;
                Ok(())
            }
        }
    })
}

async fn connect(socket: &str) -> Result<Libvirt> {
    let client = Libvirt::new(socket);
    let answers = async {
        while client.list().await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(BOOTS_WITHIN, answers).await.context("the daemon does not answer")?;
    Ok(client)
}

fn say(text: &str) {
    // A reader that went away must not leave half a laboratory behind.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// One migration's figures, in milliseconds.
#[derive(Clone, Copy, Serialize)]
struct Moved {
    total_ms: u64,
    /// libvirt's figure. It ends when the target could run the guest.
    downtime_ms: u64,
    /// From the source's event that the guest stopped to the target's that it runs, seen from one place.
    stopped_ms: u64,
}

impl Moved {
    fn of(progress: &Progress, stopped: Duration) -> Result<Self> {
        let downtime = progress.downtime.context("libvirt's statistics have no downtime")?;
        Ok(Self {
            total_ms: progress.elapsed.as_millis() as u64,
            downtime_ms: downtime.as_millis() as u64,
            stopped_ms: stopped.as_millis() as u64,
        })
    }
}

async fn disturb(laboratory: Laboratory) -> Result<()> {
    let chosen = laboratory.chosen(Part::Disturbed);
    if chosen.is_empty() {
        return Verdict::default().tell();
    }
    let stage = laboratory.open().await?;
    let result = suite(&stage, &chosen, laboratory.rounds).await.tell();
    explain(&stage, result)
}

async fn story(options: Run) -> Result<()> {
    let started = Instant::now();
    let stage = options.laboratory.open().await?;
    let result = tell(&stage, &options, started).await;
    explain(&stage, result)
}

/// Shows what can be seen of the guest and its pods when something went wrong.
fn explain(stage: &RealStage, result: Result<()>) -> Result<()> {
    if result.is_err() {
        let mut told = format!("--- the guest: {}", what_it_does(stage));
        for pod in [&stage.old, &stage.new] {
            // What libvirt says about a resolver is of no interest here.
            let mut log: String = pod
                .log()
                .lines()
                .filter(|line| !line.contains("getaddrinfo"))
                .fold(String::new(), |log, line| log + line + "\n");
            let console = std::fs::read(pod.outside("/serial0.log")).unwrap_or_default();
            log.push_str(&String::from_utf8_lossy(&console));
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            told.push_str(&format!("\n--- pod {}:", pod.name));
            tail.iter().rev().for_each(|line| told.push_str(&format!("\n    {line}")));
        }
        say(&told);
    }
    result
}

/// What an emulated processor that answers nobody is at.
fn what_it_does(stage: &RealStage) -> String {
    let Some(place) = stage.place() else { return "it has no process".to_owned() };
    let ask = |what: &str| {
        let uri = format!("qemu+unix:///session?socket={}", stage.pod(place).socket().display());
        let out = Command::new("virsh").args(["-c", &uri, "qemu-monitor-command", "--hmp", GUEST, what]).output();
        out.map_or_else(|error| error.to_string(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let questions = ["info status", "info registers", "info lapic", "info pic", "info jit"];
    let answers = questions.map(|question| format!("{question}:\n{}", ask(question)));
    format!("on the {place:?} pair\n{}", answers.join("\n"))
}

async fn tell(stage: &RealStage, options: &Run, started: Instant) -> Result<()> {
    for place in [Place::Old, Place::New] {
        let client = connect(&stage.pod(place).socket().to_string_lossy()).await?;
        let capabilities = client.capabilities().await?;
        say(&format!(
            "{place:?} pair: libvirt {}, QEMU {}, {} machine types; up after {:.1} s",
            capabilities.libvirt,
            capabilities.qemu,
            capabilities.machines.len(),
            started.elapsed().as_secs_f64()
        ));
    }
    boot(stage).await?;
    let memory = memory(stage);
    ensure!(
        memory["supervisor_kib"].as_u64().is_some_and(|kib| kib > 0 && kib <= SUPERVISOR_AT_MOST_KIB),
        "the supervisor takes more than {SUPERVISOR_AT_MOST_KIB} KiB: {memory}"
    );

    let there = ours(stage).await?;
    say(&format!("moved by us   Old -> New: {} ms in total, {} ms of downtime", there.total_ms, there.downtime_ms));
    let back = ours(stage).await?;
    say(&format!("moved by us   New -> Old: {} ms in total, {} ms of downtime", back.total_ms, back.downtime_ms));
    let (mut mine, mut theirs) = (vec![there, back], Vec::new());
    let round_trips = options.migrations.div_ceil(2).max(1);
    for trip in 1..round_trips {
        let by_virsh = options.virsh;
        if theirs.len() < 2 * by_virsh && (trip - 1) * by_virsh >= theirs.len() / 2 * (round_trips - 1).max(1) {
            let (there, back) = (virsh(stage).await?, virsh(stage).await?);
            if theirs.is_empty() {
                say(&format!(
                    "moved by virsh Old -> New: {} ms in total, {} ms of downtime",
                    there.total_ms, there.downtime_ms
                ));
                say(&format!(
                    "moved by virsh New -> Old: {} ms in total, {} ms of downtime",
                    back.total_ms, back.downtime_ms
                ));
            }
            theirs.extend([there, back]);
        }
        mine.push(ours(stage).await?);
        mine.push(ours(stage).await?);
        if trip % PROGRESS_EVERY == 0 {
            say(&format!(".. {} of {} migrations", mine.len(), 2 * round_trips));
        }
    }
    ensure!(stage.beats(3, BOOTS_WITHIN).await, "the heart stopped");
    let pulse = stage.heart.pulse();
    let (ours_p50, ours_p99) = (percentile(&mine, 50), percentile(&mine, 99));
    let virsh_p50 = percentile(&theirs, 50);
    let of =
        |ours: u64, theirs: u64| if theirs > 0 { (100.0 * ours as f64 / theirs as f64).round() / 100.0 } else { 0.0 };
    let ratio = of(ours_p50, virsh_p50);
    let median_stop = |moved: &[Moved]| {
        let mut stops: Vec<u64> = moved.iter().map(|moved| moved.stopped_ms).collect();
        stops.sort_unstable();
        stops.get(stops.len() / 2).copied().unwrap_or(0)
    };
    let (ours_stop, virsh_stop) = (median_stop(&mine), median_stop(&theirs));
    let stop_ratio = of(ours_stop, virsh_stop);
    say(&format!(
        "{} migrations by us and {} by virsh in a row: {} heartbeats, {} lost, {} connection, uptime monotonic: {}",
        mine.len(),
        theirs.len(),
        pulse.beats,
        pulse.lost,
        pulse.connections,
        pulse.uptime_monotonic
    ));
    say(&format!(
        "downtime by us: p50 {ours_p50} ms, p99 {ours_p99} ms; by virsh: p50 {virsh_p50} ms; ratio {ratio:.2}"
    ));
    say(&format!(
        "standing still, by events: p50 {ours_stop} ms by us, {virsh_stop} ms by virsh; ratio {stop_ratio:.2}"
    ));
    ensure!(pulse.lost == 0 && pulse.repeated == 0 && pulse.uptime_monotonic, "the guest suffered: {pulse:?}");
    ensure!(pulse.connections == 1, "the heartbeat's connection broke: {pulse:?}");

    let measured = json!({"measured": {
        "kind": "emulation",
        "memory": memory,
        "first_migrations": {"old_to_new": there, "new_to_old": back},
        "migrations": mine.len(),
        "downtime_ms": {"p50": ours_p50, "p99": ours_p99, "virsh_p50": virsh_p50},
        "downtime_ratio_to_virsh": ratio,
        "stopped_ms": {"p50": ours_stop, "virsh_p50": virsh_stop},
        "stopped_ratio_to_virsh": stop_ratio,
        "heartbeats": pulse,
    }});
    say(&measured.to_string());
    suite(stage, &options.laboratory.chosen(Part::Undisturbed), options.laboratory.rounds).await.tell()
}

/// Round trips between two words about how far it is: some ten seconds.
const PROGRESS_EVERY: usize = 5;

/// Between two looks at something that does not announce itself; short against everything that is measured.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the supervisor may take: a pod's fixed cost, paid once per guest.
const SUPERVISOR_AT_MOST_KIB: u64 = 8 * 1024;

async fn boot(stage: &RealStage) -> Result<()> {
    stage.prepare(Place::Old).await.map_err(|why| anyhow!(why))?;
    let client = stage.watcher(Place::Old);
    let began = Instant::now();
    client.define(&stage.guest()).await?;
    client.start(GUEST, Start::default()).await?;
    ensure!(stage.beats(1, BOOTS_WITHIN).await, "the guest did not boot; its console says:\n{}", console_log(stage));
    let seconds = began.elapsed().as_secs_f64();
    // The login appears at about the time of the first beat.
    let greeted = async {
        while !console_log(stage).contains("login:") {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(BOOTS_WITHIN, greeted).await.context("no login on the console")?;
    say(&format!("the guest booted under the old pair, first heartbeat after {seconds:.1} s; its console says:"));
    for line in console_log(stage).lines().filter(|line| line.contains("guest")) {
        say(&format!("    {}", line.trim()));
    }
    let answer = stage.console("uname -r; hostname; ls /seed").await?;
    say(&format!("logged in on the console: {}", answer.split_whitespace().collect::<Vec<_>>().join(" ")));
    Ok(())
}

fn console_log(stage: &RealStage) -> String {
    std::fs::read(stage.old.outside("/serial0.log"))
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .unwrap_or_default()
}

fn memory(stage: &RealStage) -> serde_json::Value {
    let of = |place: Place, program: &str| {
        stage.pod(place).processes(program).into_iter().map(resident_kib).max().unwrap_or(0)
    };
    let supervisor = resident_kib(stage.old.supervisor).max(resident_kib(stage.new.supervisor));
    let old = (of(Place::Old, "/usr/sbin/libvirtd"), of(Place::Old, "/usr/sbin/virtlogd"));
    let new = (of(Place::New, "/usr/sbin/libvirtd"), of(Place::New, "/usr/sbin/virtlogd"));
    let controller = resident_kib(std::process::id());
    say(&format!(
        "resident memory in KiB: libvirtd {} (old) {} (new), virtlogd {} (old) {} (new), \
         our supervisor {supervisor}, this program {controller}",
        old.0, new.0, old.1, new.1
    ));
    json!({
        "libvirtd_kib": {"old": old.0, "new": new.0},
        "virtlogd_kib": {"old": old.1, "new": new.1},
        "supervisor_kib": supervisor,
        "controller_kib": controller,
    })
}

/// Moves the guest to the other side.
async fn ours(stage: &RealStage) -> Result<Moved> {
    let from = stage.place().context("the guest has no process")?;
    let how = stage.route(from).await.map_err(|why| anyhow!(why))?;
    let (source, target) = (stage.watcher(from), stage.watcher(from.other()));
    let stopped = stopped(stage, from);
    let outcome = run(Ends { source, target }, GUEST, &how, POLICY(), CancellationToken::new(), |_| {}).await?;
    if let Some(error) = outcome.error {
        bail!("moving the guest from {from:?}: {error}");
    }
    beats_on(stage, from.other()).await?;
    Moved::of(&outcome.statistics.context("the target has no statistics")?, stopped.await?)
}

/// A guest that arrived but does not go on is a lost guest, and this is where it got lost.
async fn beats_on(stage: &RealStage, place: Place) -> Result<()> {
    let beats = stage.beats(1, BEATS_WITHIN).await;
    ensure!(beats, "the guest's heart stopped when it came to the {place:?} pair: {:?}", stage.heart.pulse());
    Ok(())
}

/// How long the guest stands still in the migration that is about to begin.
fn stopped(stage: &RealStage, from: Place) -> tokio::task::JoinHandle<Duration> {
    let (mut here, mut there) = (stage.watcher(from).events(), stage.watcher(from.other()).events());
    let is = |event: &Event, wanted: Change| matches!(event, Event::Domain { name, change } if name == GUEST && *change == wanted);
    tokio::spawn(async move {
        while here.recv().await.is_some_and(|event| !is(&event, Change::Suspended(Pause::Migration))) {}
        let began = Instant::now();
        while there.recv().await.is_some_and(|event| !is(&event, Change::Resumed)) {}
        began.elapsed()
    })
}

/// The same by libvirt's own client.
async fn virsh(stage: &RealStage) -> Result<Moved> {
    let from = stage.place().context("the guest has no process")?;
    let how = stage.route(from).await.map_err(|why| anyhow!(why))?;
    let uri = |socket: &str| format!("qemu+unix:///session?socket={socket}");
    let mut command = Command::new("virsh");
    command
        .args(["-c", &uri(&stage.pod(from).socket().to_string_lossy())])
        .args(["migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--copy-storage-inc"])
        .args(["--migrate-disks", &how.copy_disks.join(",")])
        .args([GUEST, &uri(&how.peer)])
        .args(["--migrateuri", &format!("unix://{}", how.memory)])
        .args(["--disks-uri", &format!("unix://{}", how.disks_socket)]);
    let stopped = stopped(stage, from);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "virsh: {}", String::from_utf8_lossy(&output.stderr));
    beats_on(stage, from.other()).await?;
    let completed = stage.watcher(from.other()).completed(GUEST).await?;
    Moved::of(&completed.context("the target has no statistics")?, stopped.await?)
}

fn percentile(moved: &[Moved], percent: usize) -> u64 {
    let mut downtimes: Vec<u64> = moved.iter().map(|moved| moved.downtime_ms).collect();
    downtimes.sort_unstable();
    let index = (downtimes.len() * percent).div_ceil(100).saturating_sub(1);
    downtimes.get(index).copied().unwrap_or(0)
}

/// Enough for an assertion that failed and what led to it.
const EMULATORS_LAST_LINES: usize = 12;

/// How the suite's cases fared.
#[derive(Default, Serialize)]
struct Verdict {
    passed: usize,
    failed: Vec<String>,
}

impl Verdict {
    /// Says it as the last line.
    fn tell(self) -> Result<()> {
        say(&json!({"cases": self}).to_string());
        ensure!(self.failed.is_empty(), "{} of the suite's cases failed", self.failed.len());
        Ok(())
    }
}

async fn suite(stage: &RealStage, cases: &[Case], rounds: usize) -> Verdict {
    let mut verdict = Verdict::default();
    for case in std::iter::repeat_n(cases, rounds).flatten() {
        let began = Instant::now();
        let result = case.run(stage).await;
        let took = began.elapsed().as_secs_f64();
        let mut told = match &result {
            Ok(()) => format!("pass {took:5.1} s  {}", case.name),
            Err(why) => format!("FAIL {took:5.1} s  {}: {why}", case.name),
        };
        for note in stage.take_notes() {
            told.push_str(&format!("\n             {note}"));
        }
        if result.is_err() {
            // Now, because the cases that follow write there as well.
            for pod in [&stage.old, &stage.new] {
                let said = pod.emulator_says(GUEST);
                let last: Vec<&str> = said.lines().rev().take(EMULATORS_LAST_LINES).collect();
                for line in last.iter().rev() {
                    told.push_str(&format!("\n             {} QEMU: {line}", pod.name));
                }
            }
            verdict.failed.push(case.name.clone());
        } else {
            verdict.passed += 1;
        }
        // At once: another laboratory writes to the same place.
        say(&told);
    }
    verdict
}
