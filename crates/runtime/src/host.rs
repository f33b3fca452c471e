//! What a process gets from the machine it runs on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::log::Verbosity;
use crate::net::Net;

/// The content of a file if it is not larger than it may be.
pub(crate) fn within(content: Vec<u8>, most: u64) -> io::Result<Vec<u8>> {
    if u64::try_from(content.len()).is_ok_and(|size| size <= most) {
        return Ok(content);
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")))
}

/// Files a process may read: the operating system's, or the volumes mounted into a simulated pod.
pub trait Files: Send + Sync + 'static {
    /// The whole content of a file, as it is now (a mounted Secret changes under a running process).
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The same of a file that is not known to be small: not more than `most` bytes of it are taken into memory.
    ///
    /// # Errors
    /// As for [`Self::read`]; `FileTooLarge` when it has more.
    fn read_at_most(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        within(self.read(path)?, most)
    }

    /// The names of what is in a directory, in no order.
    ///
    /// # Errors
    /// There is no such directory, or these files are in none.
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("{dir}: no directory that can be listed")))
    }
}

/// Everything a process touches outside itself.
#[derive(Clone)]
pub struct Host {
    /// The command line, the program's name first.
    pub args: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The host name; inside a pod, the pod's name.
    pub hostname: String,
    /// A client of the cluster's API with this process's own identity.
    pub client: kube::Client,
    /// The namespace this process runs in.
    pub namespace: String,
    pub files: Arc<dyn Files>,
    pub net: Arc<dyn Net>,
    pub clock: Clock,
    /// Seed for whatever this process draws at random (retry jitter, names).
    pub seed: u64,
    /// How much this process logs.
    pub verbosity: Verbosity,
    /// Cancelled when the process should end (SIGTERM); it then drains and returns.
    pub stop: CancellationToken,
}

/// A program that runs on a [`Host`]: the real code of a component, started by its `main` or by a simulated node.
pub trait Program: Send + Sync + 'static {
    /// Runs until `host.stop` is cancelled or the program fails. Dropping the future is SIGKILL.
    ///
    /// # Errors
    /// The reason for a non-zero exit; its text is what a termination message shows.
    fn run(&self, host: Host) -> BoxFuture<'static, anyhow::Result<()>>;
}

impl<F> Program for F
where
    F: Fn(Host) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static,
{
    fn run(&self, host: Host) -> BoxFuture<'static, anyhow::Result<()>> {
        self(host)
    }
}
