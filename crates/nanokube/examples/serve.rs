//! Serves an empty cluster without controllers and nodes: `serve PORT DIR`, certificates and a kubeconfig go into `DIR`.

use std::path::PathBuf;

use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, Pki, WriterSink};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    #[allow(clippy::disallowed_methods, reason = "a main may read its arguments")]
    let args: Vec<String> = std::env::args().collect();
    let port: u16 = args.get(1).ok_or("usage: serve PORT DIR")?.parse()?;
    let dir = PathBuf::from(args.get(2).ok_or("usage: serve PORT DIR")?);
    let clock = Clock::System;
    let pki = Pki::generate(&clock, &[])?;
    pki.store(&dir)?;
    std::fs::write(dir.join("kubeconfig"), pki.kubeconfig(&format!("https://127.0.0.1:{port}")))?;
    let audit = WriterSink::new(std::fs::File::create(dir.join("audit.log"))?);
    let server = Nanokube::new(Options::new(clock, 1).with_audit(audit));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    println!("ready on {}", listener.local_addr()?);
    server.serve_https(listener, &pki, stop).await?;
    Ok(())
}
