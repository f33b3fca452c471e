//! The way to the cluster: kubeconfig, context, namespace, as kubectl understands them.

use anyhow::Context;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    /// Path of a kubeconfig; without it, what kubectl would use
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// A client.
    ///
    /// # Errors
    /// There is no usable kubeconfig, or the named context is not in it.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match (&self.kubeconfig, &self.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("kubeconfig {path}"))?;
                Config::from_custom_kubeconfig(file, &options).await.with_context(|| format!("kubeconfig {path}"))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.context("kubeconfig")?,
            (None, None) => Config::infer().await.context("no cluster is configured: give --kubeconfig")?,
        };
        Ok(Client::try_from(config)?)
    }
}
