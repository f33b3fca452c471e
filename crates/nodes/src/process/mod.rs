//! Process nodes: a pod's container is a child process with an address, files and memory of its own.
//!
//! The nodes share one machine, so each pod gets an address of the loopback network and a private directory in which its
//! volumes are files. A program learns both from its environment, see `kubevirt_runtime::process::place`. What a kernel
//! would enforce is not enforced here: users, capabilities, limits of resources and network policies have no effect.

mod child;
mod endpoint;
mod log;
mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use child::{Exit, Start, run};
pub(crate) use endpoint::serve;
pub(crate) use log::Log;
pub(crate) use volumes::{TOKEN_SECONDS, container_root, keep, mount};

/// Where a node serves logs; a kubelet's port.
pub(crate) const ENDPOINT_PORT: u16 = 10250;
/// The program (util-linux) that has a child killed when this process ends, however it ends.
const SETPRIV: &str = "setpriv";

/// What process nodes need beside what all nodes need.
#[derive(Clone, Debug)]
pub struct Processes {
    /// An empty directory for the pods' files. Secrets are among them, so it should be on no disk that outlives the run.
    pub dir: PathBuf,
    /// Where pods reach the API server: host (a name or an address) and port.
    pub api: (String, u16),
}

/// Why process nodes cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("listen on {addr}, where a node serves logs")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("process nodes need the program `{SETPRIV}` (Debian package util-linux) in PATH")]
    NoSetpriv,
    #[error("make the directory {dir}")]
    Directory { dir: PathBuf, source: io::Error },
    #[error("make the nodes' certificate: {0}")]
    Certificate(String),
}

/// The output of one container, newest run first.
#[derive(Clone)]
pub(crate) struct Logs {
    pub(crate) current: Arc<Log>,
    pub(crate) previous: Option<Arc<Log>>,
}

/// What the process nodes of this run share.
pub(crate) struct Shared {
    pub(crate) options: Processes,
    pub(crate) setpriv: PathBuf,
    /// By pod uid and container.
    logs: Mutex<BTreeMap<(String, String), Logs>>,
}

impl Shared {
    /// Checks what the machine offers.
    pub(crate) fn new(options: Processes) -> Result<Self, SetupError> {
        #[allow(clippy::disallowed_methods, reason = "a program is looked for as a shell would")]
        let path = std::env::var("PATH").unwrap_or_default();
        let found = path.split(':').map(|dir| Path::new(dir).join(SETPRIV)).find(|file| file.is_file());
        let setpriv = found.ok_or(SetupError::NoSetpriv)?;
        let failed = |source| SetupError::Directory { dir: options.dir.clone(), source };
        create_private(&options.dir).map_err(failed)?;
        Ok(Self { options, setpriv, logs: Mutex::default() })
    }

    /// The directory of a pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.dir.join("pods").join(uid)
    }

    /// A new log for a container's next run; the one before it becomes the previous one.
    pub(crate) fn open_log(&self, uid: &str, container: &str) -> Arc<Log> {
        let log = Arc::new(Log::new());
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (uid.to_owned(), container.to_owned());
        let previous = logs.remove(&key).map(|logs| logs.current);
        logs.insert(key, Logs { current: log.clone(), previous });
        log
    }

    pub(crate) fn logs(&self, uid: &str, container: &str) -> Option<Logs> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    /// Forgets a pod: its logs and its files.
    pub(crate) fn forget(&self, uid: &str) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|(pod, _), _| pod != uid);
        drop(logs);
        let dir = self.pod_dir(uid);
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "the files of a pod that is gone were not removed");
        }
    }
}

impl Drop for Shared {
    /// Tokens and keys do not outlive the run.
    fn drop(&mut self) {
        for part in ["pods", "hosts"] {
            // Nothing was written, or somebody else has removed it.
            let _ = std::fs::remove_dir_all(self.options.dir.join(part));
        }
        let _ = std::fs::remove_dir(&self.options.dir);
    }
}

/// A directory, and those above it, that only this user enters.
fn create_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
