//! `virtctl version`.

use std::process::ExitCode;

use clap::Args;
use kube::Api;
use kube::api::ListParams;
use kubevirt_api::kubevirt::{KubeVirt, KubeVirtStatus};
use serde_json::json;

use crate::Output;
use crate::cluster::ClusterArgs;

/// This program's version, as releases write it.
const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Show this program's version only, without asking a cluster
    #[arg(short, long)]
    client: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(cluster: &ClusterArgs, arguments: &VersionArgs) -> anyhow::Result<ExitCode> {
    let VersionArgs { client, output } = arguments;
    let status = if *client { None } else { status(cluster).await? };
    match output {
        Output::Text => crate::print(&text(*client, status.as_ref()))?,
        Output::Json => crate::print(&format!("{}\n", document(status.as_ref())))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(cluster: &ClusterArgs) -> anyhow::Result<Option<KubeVirtStatus>> {
    let crs: Api<KubeVirt> = Api::all(cluster.client().await?);
    match crs.list(&ListParams::default()).await {
        Ok(found) => Ok(found.items.into_iter().next().map(|cr| cr.status.unwrap_or_default())),
        // The definition itself is missing: not installed.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn text(client_only: bool, status: Option<&KubeVirtStatus>) -> String {
    let mut lines = format!("Client Version:   {CLIENT}\n");
    if client_only {
        return lines;
    }
    let Some(status) = status else {
        lines.push_str("Server Version:   KubeVirt is not installed\n");
        return lines;
    };
    let shown = |version: &Option<String>| version.clone().unwrap_or_else(|| "none yet".to_owned());
    lines.push_str(&format!("Server Version:   {}\n", shown(&status.observed_kube_virt_version)));
    lines.push_str(&format!("Target Version:   {}\n", shown(&status.target_kube_virt_version)));
    lines.push_str(&format!("Operator Version: {}\n", shown(&status.operator_version)));
    lines
}

fn document(status: Option<&KubeVirtStatus>) -> serde_json::Value {
    let server = status.map(|status| {
        json!({
            "operatorVersion": status.operator_version,
            "observedKubeVirtVersion": status.observed_kube_virt_version,
            "targetKubeVirtVersion": status.target_kube_virt_version,
            "phase": status.phase,
        })
    });
    json!({"clientVersion": CLIENT, "serverVersion": server})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_said() {
        assert_eq!(text(true, None).lines().count(), 1);
        assert!(text(false, None).contains("not installed"));
        let status = KubeVirtStatus {
            operator_version: Some("v0.2.0".to_owned()),
            target_kube_virt_version: Some("v0.1.0".to_owned()),
            ..KubeVirtStatus::default()
        };
        let lines = text(false, Some(&status));
        assert!(lines.contains("Server Version:   none yet\nTarget Version:   v0.1.0\nOperator Version: v0.2.0\n"));
        assert_eq!(document(Some(&status))["serverVersion"]["operatorVersion"], "v0.2.0");
        assert_eq!(document(None)["serverVersion"], serde_json::Value::Null);
    }
}
