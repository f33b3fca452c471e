//! Runs libvirt's daemons for one pod: writes their configuration into a private directory, starts them, starts them
//! again when they die, and reaps every process that is left over. A guest's QEMU is a child of nobody after its daemon
//! died; without a reaper it would stay a zombie and libvirt would wait for it in vain.
//!
//! The supervisor is the pod's first process. It never talks to libvirt and never ends a guest on its own account.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first pause before a daemon is started again, and the longest. The first is short because nothing can be asked of
/// the guest meanwhile; the longest keeps a daemon that cannot start from filling the log.
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_LONGEST: Duration = Duration::from_secs(5);

/// A daemon that ran this long was healthy: its next death is the first again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How long daemons may take to end when asked. libvirt waits for calls in progress; beyond that the pod is killed anyway.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Without these a guest does not start in an unprivileged pod: there is no session bus, no cgroup to write to, no
/// capability to raise limits, and ownership of disks is the pod's affair.
const QEMU_CONF: &str =
    "stdio_handler = \"file\"\nnamespaces = []\ncgroup_controllers = []\nremember_owner = 0\nmax_core = 0\n";

/// Why the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot prepare {path:?}: {source}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("neither virtqemud nor libvirtd is installed in {0:?}")]
    NoDaemon(PathBuf),
    #[error("cannot watch for ended processes: {0}")]
    Signals(io::Error),
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything of this pod's libvirt: sockets, configuration, caches. Only the launcher's user may enter it.
    pub private: PathBuf,
    /// Where the daemons are installed.
    pub programs: PathBuf,
}

impl Settings {
    /// The socket on which the daemon listens.
    pub fn socket(private: &Path) -> PathBuf {
        private.join("run/libvirt/libvirt-sock")
    }

    fn environment(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("HOME", self.private.clone()),
            ("XDG_RUNTIME_DIR", self.private.join("run")),
            ("XDG_CACHE_HOME", self.private.join("cache")),
            ("XDG_CONFIG_HOME", self.private.join("config")),
        ]
    }

    /// Debian ships the monolithic daemon, other distributions the modular one. In session mode both listen in the same
    /// directory; the modular one's socket is linked to the usual name.
    fn daemon(&self) -> Result<(&'static str, PathBuf), Error> {
        ["virtqemud", "libvirtd"]
            .into_iter()
            .map(|name| (name, self.programs.join(name)))
            .find(|(_, path)| path.is_file())
            .ok_or_else(|| Error::NoDaemon(self.programs.clone()))
    }
}

/// What the supervisor tells, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Report {
    Started {
        program: String,
        pid: i32,
    },
    /// A daemon died and will be started again. Guests run on.
    Died {
        program: String,
        pid: i32,
        status: Status,
        restart_in_milliseconds: u64,
    },
    /// It could not be started at all.
    NotStarted {
        program: String,
        why: String,
        restart_in_milliseconds: u64,
    },
    /// Some other process of the pod ended, a guest's QEMU for example.
    Reaped {
        pid: i32,
        status: Status,
    },
    Stopping,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Exited(i32),
    Signal(i32),
}

struct Daemon {
    path: PathBuf,
    pid: Option<Pid>,
    started: Instant,
    backoff: Duration,
    restart_at: Option<Instant>,
}

/// Runs until `stop`. Every report is made before the next thing happens.
///
/// # Errors
/// When the directory cannot be prepared or no daemon is installed; a daemon that dies is no error.
pub async fn run(settings: Settings, stop: CancellationToken, mut report: impl FnMut(Report)) -> Result<(), Error> {
    prepare(&settings)?;
    let mut ended = signal(SignalKind::child()).map_err(Error::Signals)?;
    let (name, path) = settings.daemon()?;
    let mut daemons = BTreeMap::new();
    for (name, path) in [("virtlogd", settings.programs.join("virtlogd")), (name, path)] {
        let now = Instant::now();
        let daemon = Daemon { path, pid: None, started: now, backoff: RESTART_FIRST, restart_at: Some(now) };
        daemons.insert(name.to_owned(), daemon);
    }
    loop {
        let now = Instant::now();
        for (name, daemon) in &mut daemons {
            if daemon.restart_at.is_some_and(|at| at <= now) {
                start(&settings, name, daemon, &mut report);
            }
        }
        let next = daemons.values().filter_map(|daemon| daemon.restart_at).min();
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ended.recv() => reap(&mut daemons, &mut report),
            () = async { tokio::time::sleep_until(next.unwrap_or(now)).await }, if next.is_some() => {}
        }
    }
    report(Report::Stopping);
    for daemon in daemons.values_mut() {
        daemon.restart_at = None;
        if let Some(pid) = daemon.pid {
            // It may have ended a moment ago.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let all_ended = async {
        while daemons.values().any(|daemon| daemon.pid.is_some()) {
            let _ = ended.recv().await;
            reap(&mut daemons, &mut report);
        }
    };
    // What does not end by then goes with the pod.
    let _ = tokio::time::timeout(STOP_WITHIN, all_ended).await;
    Ok(())
}

fn prepare(settings: &Settings) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Prepare { path, source }
    };
    for directory in ["run/libvirt", "cache", "config/libvirt", "migration"] {
        let path = settings.private.join(directory);
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
    }
    let path = settings.private.join("config/libvirt/qemu.conf");
    std::fs::write(&path, QEMU_CONF).map_err(failed(&path))?;
    if settings.daemon()?.0 == "virtqemud" {
        let path = Settings::socket(&settings.private);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink("virtqemud-sock", &path).map_err(failed(&path))?;
    }
    Ok(())
}

fn start(settings: &Settings, name: &str, daemon: &mut Daemon, report: &mut impl FnMut(Report)) {
    let mut command = Command::new(&daemon.path);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(settings.environment());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    daemon.restart_at = None;
    daemon.started = Instant::now();
    match command.spawn() {
        // Dropping the handle leaves the process alone; it is reaped with all others.
        Ok(child) => {
            daemon.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            report(Report::Started { program: name.to_owned(), pid: daemon.pid.map_or(0, Pid::as_raw_pid) });
        }
        Err(error) => {
            let restart_in_milliseconds = again(daemon);
            report(Report::NotStarted { program: name.to_owned(), why: error.to_string(), restart_in_milliseconds });
        }
    }
}

/// Plans the next start.
fn again(daemon: &mut Daemon) -> u64 {
    if daemon.started.elapsed() >= HEALTHY_AFTER {
        daemon.backoff = RESTART_FIRST;
    }
    let pause = daemon.backoff;
    daemon.backoff = (pause * 2).min(RESTART_LONGEST);
    daemon.restart_at = Some(Instant::now() + pause);
    pause.as_millis() as u64
}

fn reap(daemons: &mut BTreeMap<String, Daemon>, report: &mut impl FnMut(Report)) {
    // One signal may stand for many processes.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Signal(signal),
            (None, None) => continue,
        };
        let pid_number = pid.as_raw_pid();
        match daemons.iter_mut().find(|(_, daemon)| daemon.pid == Some(pid)) {
            Some((name, daemon)) => {
                daemon.pid = None;
                let restart_in_milliseconds = again(daemon);
                let program = name.clone();
                report(Report::Died { program, pid: pid_number, status, restart_in_milliseconds });
            }
            None => report(Report::Reaped { pid: pid_number, status }),
        }
    }
}
