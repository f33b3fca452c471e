//! The real binary on the real operating system: arguments, port, signal, exit code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use http::StatusCode;
use kubevirt_runtime::net::Net;
use kubevirt_runtime::net::os::OsNet;
use kubevirt_runtime::testing;
use tokio::process::Command;
use tokio::time::timeout;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Far more than any step here takes, so that a hanging process fails the test instead of hanging it.
const LIMIT: Duration = Duration::from_secs(30);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virt-controller"));
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn free_port(net: &OsNet) -> u16 {
    net.listen(SocketAddr::new(LOCALHOST, 0)).await.unwrap().local_addr().port()
}

#[tokio::test]
async fn it_serves_at_once_and_ends_cleanly_on_sigterm() {
    let net = OsNet::new(LOCALHOST);
    let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let kubeconfig = dir.join("kubeconfig-nobody-there");
    let nobody = free_port(&net).await;
    std::fs::write(
        &kubeconfig,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
             contexts: [{{name: x, context: {{cluster: x, user: x, namespace: kubevirt}}}}]\n\
             clusters: [{{name: x, cluster: {{server: 'http://127.0.0.1:{nobody}'}}}}]\n\
             users: [{{name: x, user: {{token: t}}}}]\n"
        ),
    )
    .unwrap();
    let port = free_port(&net).await;
    let child = command()
        .args(["--port", &port.to_string(), "--listen", "127.0.0.1", "-v", "2", "--kubeconfig"])
        .arg(&kubeconfig)
        .spawn()
        .unwrap();
    let addr = SocketAddr::new(LOCALHOST, port);
    let (status, body) = timeout(LIMIT, async {
        loop {
            // Refused until the process has begun.
            match testing::get(&net, addr, "/leader").await {
                Ok(answer) => break answer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("CertificateMissing: /etc/virt-controller/certificates/tls.crt"), "{body}");
    assert_eq!(testing::get(&net, addr, "/healthz").await.unwrap().0, StatusCode::OK);

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("asked to stop (SIGTERM)"), "{log}");
    // What it could not do is in its log, with the cause.
    assert!(log.contains("listing the lease failed") && log.contains("Connection refused"), "{log}");
}

#[tokio::test]
async fn an_unknown_flag_is_refused_with_exit_code_2() {
    let output = timeout(LIMIT, command().args(["--prot", "8443"]).output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("unexpected argument '--prot'"), "{message}");
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_named() {
    let output = timeout(LIMIT, command().args(["--kubeconfig", "/no/such/file"]).output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("kubeconfig /no/such/file") && message.contains("No such file"), "{message}");
}
