//! The administrator's kubeconfig: written when there is a server to reach, gone when there is none.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::Kubeconfig;

/// Somebody on this machine accepts a connection at once or not at all.
const DIAL: Duration = Duration::from_secs(1);

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write {path}")]
pub(crate) struct WriteError {
    path: PathBuf,
    source: std::io::Error,
}

/// Writes the file so that only its owner can read it: it holds a private key.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), WriteError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Removes a kubeconfig whose server nobody is: a client that finds it would wait for a cluster that is not there. One
/// whose server accepts connections stays, since it belongs to whoever serves there; so does one that names another
/// machine.
pub(crate) async fn remove_if_stale(path: &Path) {
    let Ok(file) = Kubeconfig::read_from(path) else { return };
    let servers: Vec<String> = file.clusters.into_iter().filter_map(|named| named.cluster?.server).collect();
    for server in &servers {
        let Some(address) = server.strip_prefix("https://127.0.0.1:") else { return };
        let Ok(port) = address.trim_end_matches('/').parse::<u16>() else { return };
        let dialled = tokio::time::timeout(DIAL, tokio::net::TcpStream::connect(("127.0.0.1", port))).await;
        match dialled {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            _ => return,
        }
    }
    match std::fs::remove_file(path) {
        Ok(()) => eprintln!("nanokube: removed {}: nothing serves there any more", path.display()),
        Err(error) => eprintln!("nanokube: {} is stale and cannot be removed: {error}", path.display()),
    }
}
