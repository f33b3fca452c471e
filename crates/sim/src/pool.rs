//! Runs as processes: each is split off from this one where it parts from the others, as many at once as there are
//! processors.
//!
//! A split-off process has everything that was simulated so far without playing it again. It is also on its own: a run that
//! panics, or that never lets time pass, ends itself and nothing else. This process must not have a second thread.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::process;

use rustix::process::{Resource, Rlimit, WaitOptions, WaitStatus, setrlimit, wait};

/// Processor time of one run, in seconds. A run takes about one (ten without optimisation); one that has used thirty times
/// that is working without letting time pass.
const MOST_SECONDS: u64 = if cfg!(debug_assertions) { 300 } else { 30 };

/// What a process is after it split.
pub(crate) enum Side {
    /// It leads on.
    Leading,
    /// It is the run, and is to leave its result here.
    Run(Report),
}

/// Where a run leaves its result.
pub(crate) struct Report(File);

impl Report {
    /// The same place once more.
    pub(crate) fn again(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Leaves the result and ends this process.
    pub(crate) fn end(mut self, result: &[u8]) -> ! {
        // The leading process sees an empty result for what it is.
        let written = self.0.write_all(result);
        process::exit(i32::from(written.is_err()))
    }
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) number: usize,
    /// What it left, or why it left nothing.
    pub(crate) result: Result<Vec<u8>, NoResult>,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoResult {
    #[error("it used {MOST_SECONDS} s of processor time: something works without letting time pass")]
    Endless,
    #[error("its process was ended by signal {0}")]
    Signal(i32),
    #[error("its process ended with code {0}")]
    Code(i32),
    #[error("its result could not be read: {0}")]
    Unread(#[from] io::Error),
}

struct Running {
    pid: i32,
    number: usize,
    report: File,
}

/// The processes at work.
pub(crate) struct Pool {
    slots: usize,
    running: Vec<Running>,
}

impl Pool {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: slots.max(1), running: Vec::new() }
    }

    /// Splits off the run `number`. When all places are taken, first waits for runs to end and gives them to `ended`.
    ///
    /// # Errors
    /// The machine has no memory or no process left.
    pub(crate) fn split(&mut self, number: usize, mut ended: impl FnMut(Ended)) -> io::Result<Side> {
        while self.running.len() >= self.slots {
            self.next()?.into_iter().for_each(&mut ended);
        }
        let report = nameless()?;
        match fork::fork()? {
            fork::Fork::Parent(pid) => {
                self.running.push(Running { pid, number, report });
                Ok(Side::Leading)
            }
            fork::Fork::Child => {
                let most = Rlimit { current: Some(MOST_SECONDS), maximum: Some(MOST_SECONDS + 1) };
                if setrlimit(Resource::Cpu, most).is_err() {
                    // Without the limit it might never end, and from here on only this process may act as the run.
                    process::exit(1);
                }
                Ok(Side::Run(Report(report)))
            }
        }
    }

    /// Waits for all that still runs.
    ///
    /// # Errors
    /// The system does not tell.
    pub(crate) fn drain(&mut self, mut ended: impl FnMut(Ended)) -> io::Result<()> {
        while !self.running.is_empty() {
            self.next()?.into_iter().for_each(&mut ended);
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Ended>> {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { return Ok(None) };
        let Some(at) = self.running.iter().position(|running| running.pid == pid.as_raw_nonzero().get()) else {
            return Ok(None);
        };
        let Running { number, report, .. } = self.running.swap_remove(at);
        Ok(Some(Ended { number, result: read(status, report) }))
    }
}

/// A file that is gone when nobody has it open.
fn nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("kubevirt-sim-{}", process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn read(status: WaitStatus, mut report: File) -> Result<Vec<u8>, NoResult> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => {
            let mut result = Vec::new();
            report.seek(SeekFrom::Start(0))?;
            report.read_to_end(&mut result)?;
            Ok(result)
        }
        (Some(code), _) => Err(NoResult::Code(code)),
        (None, Some(signal)) if signal == rustix::process::Signal::XCPU.as_raw() => Err(NoResult::Endless),
        (None, signal) => Err(NoResult::Signal(signal.unwrap_or_default())),
    }
}
