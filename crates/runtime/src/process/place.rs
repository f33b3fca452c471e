//! A process that stands in for a container on a process node (see nanokube). It shares the machine's file system and
//! network with the processes of other pods, so its environment tells which part of them is its own: absolute paths are
//! read below one directory, and what listens on every address listens on the pod's address only.
//!
//! Only process nodes set these variables. In a container they are unset and nothing here takes part.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::host::Files;
use crate::net::Net;
use crate::net::os::AddressNet;

/// Directory below which this process finds the files that a container has at absolute paths.
pub const ROOT: &str = "PROCESS_NODE_ROOT";
/// The pod's address, which no other pod of the machine has.
pub const ADDRESS: &str = "PROCESS_NODE_ADDRESS";

/// Where a pod finds its service account's credentials.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the environment says is wrong.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{ROOT} is set without {ADDRESS}, or the other way round: a process node sets both")]
    Half,
    #[error("{ADDRESS} is {0:?}, which is no IP address")]
    Address(String),
    #[error("{0} is not set, so there is no way to the API server")]
    NoServer(&'static str),
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT give {0:?}, which is no address")]
    Server(String),
    #[error("{path}")]
    File { path: String, source: io::Error },
    #[error("{path} holds no certificate: {reason}")]
    Certificate { path: String, reason: String },
}

/// The part of the machine that is this process's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
    address: IpAddr,
}

impl Place {
    /// Reads the environment; `None` for a process that has its machine to itself.
    ///
    /// # Errors
    /// Only one of the two variables is set, or the address is none.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Option<Self>, PlaceError> {
        match (env.get(ROOT), env.get(ADDRESS)) {
            (None, None) => Ok(None),
            (Some(root), Some(address)) => {
                let address = address.parse().map_err(|_| PlaceError::Address(address.clone()))?;
                Ok(Some(Self { root: root.into(), address }))
            }
            _ => Err(PlaceError::Half),
        }
    }

    /// The way to the API server with the service account's token, which is read again as it is renewed.
    ///
    /// # Errors
    /// The environment names no server, or the certificate of its authority cannot be read.
    pub fn config(&self, env: &BTreeMap<String, String>) -> Result<kube::Config, PlaceError> {
        let given = |name: &'static str| env.get(name).ok_or(PlaceError::NoServer(name));
        let (host, port) = (given("KUBERNETES_SERVICE_HOST")?, given("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let url = format!("https://{host}:{port}");
        let mut config = kube::Config::new(url.parse().map_err(|_| PlaceError::Server(url))?);
        let files = RootedFiles(self.root.clone());
        let path = format!("{CREDENTIALS}/ca.crt");
        let pem = files.read(&path).map_err(|source| PlaceError::File { path: path.clone(), source })?;
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = match parsed {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => return Err(PlaceError::Certificate { path, reason: "the file is empty".to_owned() }),
            Err(error) => return Err(PlaceError::Certificate { path, reason: error.to_string() }),
        };
        config.root_cert = Some(certificates.into_iter().map(|certificate| certificate.to_vec()).collect());
        config.auth_info.token_file = Some(files.place(&format!("{CREDENTIALS}/token")).display().to_string());
        if let Ok(namespace) = files.read(&format!("{CREDENTIALS}/namespace")) {
            config.default_namespace = String::from_utf8_lossy(&namespace).trim().to_owned();
        }
        Ok(config)
    }

    /// Files below the directory.
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::new(RootedFiles(self.root.clone()))
    }

    /// The network with the pod's address.
    pub fn net(&self) -> Arc<dyn Net> {
        Arc::new(AddressNet::new(self.address))
    }
}

struct RootedFiles(PathBuf);

impl RootedFiles {
    fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }
}

impl Files for RootedFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.place(path))
    }

    fn read_at_most(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        super::first_of(&self.place(path), most)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        super::names_in(&self.place(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_variables_or_none() {
        assert_eq!(Place::from_env(&env(&[])).unwrap(), None);
        assert!(matches!(Place::from_env(&env(&[(ROOT, "/x")])), Err(PlaceError::Half)));
        let wrong = Place::from_env(&env(&[(ROOT, "/x"), (ADDRESS, "nowhere")])).unwrap_err();
        assert!(wrong.to_string().contains("\"nowhere\""), "{wrong}");
    }

    #[tokio::test]
    async fn absolute_paths_and_all_addresses_are_the_pods_own() {
        let root = std::env::temp_dir().join(format!("place-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/motd"), "hello").unwrap();
        let text = root.display().to_string();
        let place = Place::from_env(&env(&[(ROOT, &text), (ADDRESS, "127.9.8.7")])).unwrap().unwrap();
        assert_eq!(place.files().read("/etc/motd").unwrap(), b"hello");
        assert_eq!(place.files().read("/etc/passwd").unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = place.net().listen("0.0.0.0:0".parse().unwrap()).await.unwrap();
        assert_eq!(listener.local_addr().ip().to_string(), "127.9.8.7");
        let error = place.config(&env(&[])).unwrap_err();
        assert!(error.to_string().contains("KUBERNETES_SERVICE_HOST"), "{error}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
