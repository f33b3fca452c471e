//! `cargo xtask guest`: one real guest under libvirt, moved between the two releases and back.
//!
//! Installs what is missing, builds root file systems, guest and programs once, and runs the stage in network and mount
//! namespaces of its own. Everything that takes long is kept in the build directory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kubevirt_guest::rootfs::{self, Layer, Pair};
use kubevirt_guest::{disk, packages};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Migrations in a row, each to the other side.
    #[arg(long, default_value_t = 50)]
    pub(crate) migrations: usize,
    /// Run only the suite's cases whose name contains this; `none` runs none of them.
    #[arg(long, default_value = "")]
    pub(crate) cases: String,
    /// Run those cases this often: for what happens once in many times.
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: usize,
    /// Build everything and run nothing.
    #[arg(long)]
    pub(crate) build_only: bool,
    /// Fail where it cannot run, instead of saying why.
    #[arg(long)]
    pub(crate) required: bool,
}

/// Why this machine cannot run the stage; `None` when it can.
pub(crate) fn unavailable() -> Option<String> {
    if !cfg!(target_os = "linux") || !Path::new("/etc/debian_version").exists() {
        return Some("the guest stage needs Debian: it builds its images from Debian's packages".to_owned());
    }
    if !is_root() {
        return Some("the guest stage needs root: pods are made of namespaces and tap devices".to_owned());
    }
    let cache = cache().ok()?;
    let is_built = [rootfs::OLD, rootfs::NEW].into_iter().all(|pair| rootfs::path(&cache, pair).is_dir());
    if is_built && disk::path(&cache).is_file() && packages::missing().is_empty() {
        return None;
    }
    let error = packages::ask_mirror(&cache).err()?;
    Some(format!("the guest stage needs Debian's packages, and the mirror does not answer: {error}"))
}

/// Where everything that takes long is kept.
fn cache() -> Result<PathBuf> {
    Ok(programs()?.parent().context("the programs' directory has no parent")?.join("guest"))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// # Errors
/// When something could not be built, or the guest suffered.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(why) = unavailable() {
        ensure!(!options.required, "{why}");
        println!("skipped: {why}");
        return Ok(());
    }
    let began = now();
    let installed = packages::ensure(is_root())?;
    if !installed.is_empty() {
        println!("installed {}", installed.join(" "));
    }
    let programs = programs()?;
    let cache = cache()?;
    let images = build_images(&cache)?;
    build_programs()?;
    let building = began.elapsed();
    println!("everything is built, after {:.0} s", building.as_secs_f64());
    if options.build_only {
        return Ok(());
    }
    let mut figures = stage(options, &programs, &images)?;
    figures["build_seconds"] = json!(building.as_secs());
    figures["layers"] = json!({"old": images.old_layer, "new": images.new_layer});
    println!("{figures}");
    Ok(())
}

fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a build tool measures how long it took; nothing simulates it")]
    Instant::now()
}

/// Where cargo puts programs: beside this one.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("this program is in no directory")?.to_owned())
}

struct Images {
    old: PathBuf,
    new: PathBuf,
    guest: PathBuf,
    old_layer: Value,
    new_layer: Value,
}

fn build_images(cache: &Path) -> Result<Images> {
    // Fetching is what takes long, so the two wait for the network at the same time.
    std::thread::scope(|scope| {
        let old = scope.spawn(|| build_pair(cache, rootfs::OLD));
        let new = scope.spawn(|| build_pair(cache, rootfs::NEW));
        let guest = disk::ensure(cache)?;
        let (old, old_layer) = old.join().map_err(|_| anyhow::anyhow!("building the old pair panicked"))??;
        let (new, new_layer) = new.join().map_err(|_| anyhow::anyhow!("building the new pair panicked"))??;
        Ok(Images { old, new, guest, old_layer, new_layer })
    })
}

fn build_pair(cache: &Path, pair: Pair) -> Result<(PathBuf, Value)> {
    let root = rootfs::ensure(cache, pair).with_context(|| format!("the root file system of {}", pair.suite))?;
    let (layer, description) = (root.with_extension("tar.gz"), root.with_extension("json"));
    if let Ok(text) = std::fs::read_to_string(&description)
        && layer.is_file()
    {
        return Ok((root, serde_json::from_str(&text)?));
    }
    let packed: Layer = rootfs::pack(&root, &layer)?;
    let packed = serde_json::to_value(packed)?;
    std::fs::write(&description, packed.to_string())?;
    println!("built the pair of {}", pair.suite);
    Ok((root, packed))
}

/// The stage and the supervisor, with libvirt. Only now, because this program was built without it.
fn build_programs() -> Result<()> {
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--bins", "--package", "kubevirt-guest", "--package", "kubevirt-hypervisor"])
        .args(["--features", "kubevirt-guest/libvirt"])
        .status()?;
    ensure!(status.success(), "the guest stage does not build");
    Ok(())
}

/// Runs the suite in two laboratories, shows what they tell, returns the figures. The second one opens when the first one has measured,
/// so that nothing runs beside what is measured.
fn stage(options: &Options, programs: &Path, images: &Images) -> Result<Value> {
    let began = now();
    let (to, told) = mpsc::channel();
    let open = |name: char, task: &[&str]| Laboratory::open(name, task, options, programs, images, to.clone());
    let migrations = options.migrations.to_string();
    let mut laboratories = vec![open('a', &["run", "--migrations", &migrations])?];
    let (mut measured, mut verdicts, mut passed, mut failed, mut ended) = (None, 0, 0, Vec::new(), 0);
    while ended < laboratories.len() {
        match told.recv()? {
            Told::Line(line) => match serde_json::from_str::<Value>(&line).ok() {
                Some(mut value) if value.get("measured").is_some() => {
                    measured = Some(value["measured"].take());
                    laboratories.push(open('b', &["disturb"])?);
                }
                Some(value) if value.get("cases").is_some() => {
                    let cases: Cases = serde_json::from_value(value["cases"].clone())?;
                    verdicts += 1;
                    passed += cases.passed;
                    failed.extend(cases.failed);
                }
                _ => println!("{line}"),
            },
            Told::End => ended += 1,
        }
    }
    // Each is waited for before anything is judged, so that nothing is left of any.
    let statuses = laboratories.iter_mut().map(Laboratory::close).collect::<Result<Vec<_>>>()?;
    let mut figures =
        measured.with_context(|| format!("the guest stage ended before it had measured: {statuses:?}"))?;
    figures["cases"] = json!({"passed": passed, "failed": failed});
    figures["seconds"] = json!(began.elapsed().as_secs());
    let whole = verdicts == statuses.len() && statuses.iter().all(ExitStatus::success);
    ensure!(whole, "the guest stage failed, {verdicts} laboratories gave a verdict ({statuses:?}): {figures}");
    Ok(figures)
}

/// How cases fared, as a laboratory says it.
#[derive(serde::Deserialize)]
struct Cases {
    passed: usize,
    failed: Vec<String>,
}

/// What comes from a laboratory.
enum Told {
    Line(String),
    End,
}

/// A network, two pods and a guest of its own, in namespaces of its own.
struct Laboratory {
    child: Child,
    base: PathBuf,
}

impl Laboratory {
    fn open(
        name: char,
        task: &[&str],
        options: &Options,
        programs: &Path,
        images: &Images,
        to: mpsc::Sender<Told>,
    ) -> Result<Self> {
        // Sockets have short paths.
        let base = PathBuf::from(format!("/tmp/kvg-{}{name}", std::process::id()));
        let shipped = base.join("programs");
        std::fs::create_dir_all(&shipped)?;
        std::fs::copy(programs.join("libvirt-supervisor"), shipped.join("libvirt-supervisor"))?;
        // Whatever ends the stage or this process ends everything in the laboratory.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
            .arg(programs.join("guest-stage"))
            .args(task)
            .arg("--base")
            .arg(&base)
            .arg("--old")
            .arg(&images.old)
            .arg("--new")
            .arg(&images.new)
            .arg("--guest")
            .arg(&images.guest)
            .arg("--programs")
            .arg(&shipped)
            .args(["--cases", &options.cases, "--rounds", &options.rounds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("the stage has no output")?).lines();
        std::thread::spawn(move || {
            // One that can't be read has given no verdict, which is missed later.
            for line in lines.map_while(Result::ok) {
                let _ = to.send(Told::Line(line));
            }
            let _ = to.send(Told::End);
        });
        Ok(Self { child, base })
    }

    fn close(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Laboratory {
    fn drop(&mut self) {
        // Unless it has ended: an error elsewhere ends it, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove(&self.base);
    }
}

/// Removes the laboratory's directory once its last process let go of it.
fn remove(base: &Path) {
    let began = now();
    while std::fs::remove_dir_all(base).is_err() && base.exists() && began.elapsed() < REMOVED_WITHIN {
        std::thread::yield_now();
    }
}

/// Processes that were killed end within moments; a leftover directory in /tmp is no failure.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);
