//! A `nanokube` program as a child process that ends with the task that started it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A program that is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    /// The line that said it is ready.
    pub(crate) said: String,
    pub(crate) started: Instant,
    /// From the start of the process to that line.
    pub(crate) took: Duration,
}

impl Running {
    /// Starts it and returns when it is ready.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is ready.
    pub(crate) fn start(program: &Path, arguments: &[&str], log: &Path) -> Result<Self> {
        let errors = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = child.stdout.take().expect("stdout was piped");
        let mut running = Self { child, said: String::new(), started, took: Duration::ZERO };
        // nanokube says `ready ...` once it serves, and nothing else on standard output before that.
        let mut lines = BufReader::new(stdout).lines();
        match lines.next() {
            Some(Ok(line)) if line.starts_with("ready") => {
                (running.said, running.took) = (line, started.elapsed());
                // Keep reading, or the child blocks when the pipe is full.
                std::thread::spawn(move || lines.for_each(drop));
                Ok(running)
            }
            other => bail!("nanokube did not become ready ({other:?}); its log is {}", log.display()),
        }
    }

    /// A field of `/proc/PID/status` in megabytes: `VmRSS` is what it holds now, `VmHWM` the most it ever held.
    ///
    /// # Errors
    /// The process has ended, or this is not Linux.
    pub(crate) fn memory(&self, field: &str) -> Result<f64> {
        memory_of(self.child.id(), field)
    }

    /// Processor time it has used, in seconds.
    ///
    /// # Errors
    /// The process has ended, or this is not Linux.
    pub(crate) fn processor(&self) -> Result<f64> {
        /// The unit of the kernel's counters for programs, whatever its own clock ticks at.
        const TICKS_PER_SECOND: f64 = 100.0;
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}: has nanokube ended?"))?;
        // The name before the last parenthesis may hold anything; user and system time are the 12th and 13th after it.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) / TICKS_PER_SECOND)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A field of `/proc/PID/status` in megabytes.
///
/// # Errors
/// The process has ended, or this is not Linux.
pub(crate) fn memory_of(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}: has it ended?"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    Ok(f64::from(kibibytes.with_context(|| format!("{path} has no {field}"))?) * 1024.0 / 1e6)
}

/// The processes that run a program.
///
/// # Errors
/// This is not Linux.
pub(crate) fn processes_of(program: &Path) -> Result<Vec<u32>> {
    let numbers = std::fs::read_dir("/proc").context("read /proc")?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    Ok(numbers.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|it| it == program)).collect())
}

/// A variable of a process's environment.
///
/// # Errors
/// The process has ended, or is somebody else's.
pub(crate) fn environment(pid: u32, name: &str) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/environ");
    let bytes = std::fs::read(&path).with_context(|| format!("read {path}: has it ended?"))?;
    let text = String::from_utf8_lossy(&bytes);
    let value = text.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    Ok(value.map(str::to_owned))
}
