//! What the process was started with: arguments, environment, and what its own image says.

use std::collections::BTreeMap;

use clap::Parser;
use kubevirt_release::OwnImage;
use kubevirt_release::extras::monitoring::{Runbooks, RunbooksError};
use kubevirt_release::image::ImageError;
use kubevirt_runtime::cli::{ListenArgs, ProcessArgs};
use kubevirt_runtime::process::Start;

/// Installs KubeVirt, keeps it in sync with the KubeVirt custom resource and upgrades it
#[derive(Parser, Debug)]
#[command(name = "virt-operator", version)]
pub struct Arguments {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Write the install strategy of this release into the cluster and end
    #[arg(long)]
    pub dump_install_strategy: bool,
    /// Do nothing until asked to end: what is left of a pod that only brings images onto its node
    #[arg(long, hide = true)]
    pub idle: bool,
    /// Directory with install strategies of other versions: VERSION/install-strategy.yaml as `xtask release` writes it, or an
    /// OCI image layout
    #[arg(long, value_name = "DIR", env = "STRATEGY_DIR")]
    pub strategy_dir: Option<String>,
    /// Accepted for manifests of other releases; this operator makes too few requests to need a limit
    #[arg(long, value_name = "N")]
    pub client_qps: Option<f32>,
    /// Accepted for manifests of other releases; this operator makes too few requests to need a limit
    #[arg(long, value_name = "N")]
    pub client_burst: Option<u32>,
}

impl Arguments {
    /// What the process does.
    pub fn start(self) -> Start {
        if self.idle { Start::Idle } else { Start::Program(self.process) }
    }
}

/// Why the environment is no use.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    OwnImage(#[from] ImageError),
    #[error(transparent)]
    Runbooks(#[from] RunbooksError),
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the operator runs, and with it the suite.
    pub namespace: String,
    pub env: BTreeMap<String, String>,
    pub own: OwnImage,
    /// Where alerts are explained.
    pub runbooks: Runbooks,
    /// The architecture this program was built for, in the words of Kubernetes.
    pub architecture: &'static str,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// The operator does not know its own image, or a variable has a value that cannot be used.
    pub fn new(namespace: String, env: BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let own = OwnImage::from_env(&env)?;
        let runbooks = Runbooks::from_env(&env)?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self { namespace, env, own, runbooks, architecture })
    }

    /// The version string the operator reports about itself.
    pub fn operator_version(&self) -> &str {
        &self.own.version
    }
}
