//! A real process: a [`Host`] made from the operating system, signals, the log, and the exit code. The only place, beside
//! tests, that may look at the process's own environment.

pub mod place;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::causes::Causes;
use crate::cli::ProcessArgs;
use crate::clock::Clock;
use crate::connect;
use crate::host::{Files, Host, Program, within};
use crate::log::{self, Verbosity};
use crate::net::Net;
use crate::net::os::OsNet;
use place::{Place, PlaceError};

/// Where a pod finds the namespace it runs in.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Exit code for a wrong command line, as shells and clap use it.
const USAGE: u8 = 2;

/// Why a process could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("kubeconfig {path}")]
    Kubeconfig { path: String, source: kube::config::KubeconfigError },
    #[error("the environment of a process node")]
    Place(#[from] PlaceError),
    #[error("no way to the API server (no --kubeconfig, no KUBECONFIG, not in a pod)")]
    NoCluster(#[from] kube::config::InferConfigError),
    #[error("--master {value}: {reason}")]
    Master { value: String, reason: String },
    #[error("no client for the API server")]
    Client(#[source] Box<kube::Error>),
    #[error("no signal handler")]
    Signals(#[source] io::Error),
    #[error("no randomness from the operating system")]
    Random,
}

/// The files of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct OsFiles;

impl Files for OsFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(Path::new(path))
    }

    fn read_at_most(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        first_of(Path::new(path), most)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        names_in(Path::new(dir))
    }
}

/// The content of a file, of which not more than is allowed is read.
fn first_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut content)?;
    within(content, most)
}

/// The names in a directory, those that are no text left out.
fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let found = std::fs::read_dir(dir)?.filter_map(Result::ok);
    Ok(found.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Picks the cryptography of every TLS connection of this process. Called once, first thing in `main`; more calls change
/// nothing.
pub fn install_crypto() {
    // Err: somebody was first, with the same choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What a command line asks for.
pub enum Start {
    /// The program.
    Program(ProcessArgs),
    /// Nothing, until a signal asks to end: without a log, a client or anything else that a host has.
    Idle,
}

impl From<ProcessArgs> for Start {
    fn from(args: ProcessArgs) -> Self {
        Self::Program(args)
    }
}

/// The body of a component's `main`: reads the command line with `parse`, builds the host and runs the program on a single
/// thread until it ends or a signal asks it to.
pub fn run<S: Into<Start>>(parse: impl FnOnce(&[String]) -> Result<S, clap::Error>, program: impl Program) -> ExitCode {
    #[allow(clippy::disallowed_methods, reason = "this is the front door through which arguments enter")]
    let args: Vec<String> = std::env::args().collect();
    let process = match parse(&args) {
        Ok(process) => process,
        Err(error) => {
            // Printing fails only when nobody reads.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    let process = match process.into() {
        Start::Program(process) => process,
        Start::Idle => return runtime.block_on(idle()),
    };
    install_crypto();
    let verbosity = log::init(&process);
    let outcome = runtime.block_on(async {
        let host = Host::from_os(args, &process, verbosity).await?;
        program.run(host).await
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn idle() -> ExitCode {
    match stop_on_signal() {
        Ok(stop) => {
            stop.cancelled().await;
            ExitCode::SUCCESS
        }
        Err(error) => failed(&anyhow::Error::from(error)),
    }
}

/// The last line on standard error is what Kubernetes shows as the termination message.
fn failed(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{}", Causes(&**error));
    ExitCode::FAILURE
}

impl Host {
    /// What the operating system, the kubeconfig and the pod's service account give. SIGTERM and SIGINT cancel `stop`.
    ///
    /// # Errors
    /// There is no way to an API server, or the process cannot be set up.
    pub async fn from_os(args: Vec<String>, process: &ProcessArgs, verbosity: Verbosity) -> Result<Self, StartError> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let place = Place::from_env(&env)?;
        let mut config = match (&process.kubeconfig, &place) {
            (Some(path), _) => {
                let failed = |source| StartError::Kubeconfig { path: path.clone(), source };
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
            }
            (None, Some(place)) => place.config(&env)?,
            (None, None) => kube::Config::infer().await?,
        };
        if let Some(value) = &process.master {
            config.cluster_url = value.parse().map_err(|error: http::uri::InvalidUri| StartError::Master {
                value: value.clone(),
                reason: error.to_string(),
            })?;
        }
        let files = place.as_ref().map_or_else(|| Arc::new(OsFiles) as Arc<dyn Files>, Place::files);
        let namespace = files
            .read(NAMESPACE_FILE)
            .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
            .ok()
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = connect::client(config).map_err(|error| StartError::Client(Box::new(error)))?;
        let mut seed = [0; 8];
        let provider = rustls::crypto::ring::default_provider();
        provider.secure_random.fill(&mut seed).map_err(|_| StartError::Random)?;
        Ok(Self {
            args,
            hostname: match &place {
                // The kernel's name is the machine's.
                Some(_) => env.get("HOSTNAME").cloned().unwrap_or_else(hostname),
                None => hostname(),
            },
            net: place.as_ref().map_or_else(|| Arc::new(OsNet::detect()) as Arc<dyn Net>, Place::net),
            env,
            client,
            namespace,
            files,
            clock: Clock::System,
            seed: u64::from_le_bytes(seed),
            verbosity,
            stop: stop_on_signal()?,
        })
    }
}

/// In a pod the kernel's host name is the pod's name.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |n| n.trim().to_owned())
}

fn stop_on_signal() -> Result<CancellationToken, StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("asked to stop (SIGTERM)"),
            _ = interrupt.recv() => tracing::info!("asked to stop (SIGINT)"),
        }
        token.cancel();
    });
    Ok(stop)
}
