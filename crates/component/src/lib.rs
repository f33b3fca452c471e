//! What virt-api, virt-controller and virt-handler have in common: HTTPS with the Secret's certificate, a table that lists
//! every endpoint, readiness that names what is wrong, an event on the own pod when the certificate is not the one
//! clients expect, and a drain.
//!
//! A component is this plus its business logic. What it cannot do stands in its table as refused, and is answered with
//! 501 "not implemented", never with silence.

mod certificate;
mod endpoint;
mod event;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kubevirt_runtime::health::{Health, Probe, Reason};
use kubevirt_runtime::host::Host;
use kubevirt_runtime::metrics::Metrics;
use kubevirt_runtime::net::Listener;
use kubevirt_runtime::serve::{self, Handler};
use kubevirt_runtime::tls::{Certificate, CertificateFiles, SetupError, Wanted};
use tokio_util::sync::CancellationToken;

pub use endpoint::{Call, Does, Endpoint, Table, Verb};

/// The metric in which every component counts its requests to the API server.
pub const REST_REQUESTS: &str = "kubevirt_rest_client_requests_total";

/// A component: its name, its certificate and its tables.
pub struct Component<S> {
    /// The container's name.
    pub name: &'static str,
    /// Where the Secret with the serving certificate is mounted.
    pub certificate_dir: &'static str,
    /// Names that clients verify in that certificate.
    pub wanted: Vec<Wanted>,
    /// What is served at which address. The first one carries the probes.
    pub ports: Vec<(SocketAddr, Table<S>)>,
    /// How long requests are still accepted after the component was asked to stop and is not ready any more: as long as it
    /// takes until nobody is sent here. Zero where no Service leads here.
    pub linger: Duration,
}

/// Why a component ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{component} cannot listen on {addr}")]
    Listen { component: &'static str, addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] SetupError),
}

impl<S: Send + Sync + 'static> Component<S> {
    /// Runs until `host.stop` is cancelled and the drain is over. `state` is what the table's own answers look at; the
    /// component's parts report to `health` and count in `metrics`.
    ///
    /// # Errors
    /// A port cannot be bound. A bad certificate is no error: it keeps the component unready until it is mended.
    pub async fn run(self, host: &Host, state: Arc<S>, health: Health, metrics: Metrics) -> Result<(), RunError> {
        // Bound before anything else: a probe that comes early is told why it is not ready yet.
        let mut listeners: Vec<Box<dyn Listener>> = Vec::new();
        for (addr, _) in &self.ports {
            let listen = |source| RunError::Listen { component: self.name, addr: *addr, source };
            listeners.push(host.net.listen(*addr).await.map_err(listen)?);
        }
        let files = CertificateFiles::in_dir(self.certificate_dir, self.wanted);
        let certificate = Certificate::new(host, files);
        let tls = certificate.server_config()?;
        let problem = certificate::register(certificate, &health, &metrics);
        let stop = host.stop.clone();
        health.check(Probe::Ready, "process", move || {
            if stop.is_cancelled() { Err(Reason::new("Draining", "asked to stop")) } else { Ok(()) }
        });

        let close = CancellationToken::new();
        let serving = join_all(listeners.into_iter().zip(self.ports).map(|(listener, (addr, table))| {
            tracing::info!(component = self.name, %addr, "serving");
            let answering = endpoint::Answering {
                component: self.name,
                table,
                state: Arc::clone(&state),
                health: health.clone(),
                metrics: metrics.clone(),
            };
            serve::serve(listener, Arc::clone(&tls), answering.into_handler(), close.clone())
        }));
        let closing = async {
            host.stop.cancelled().await;
            tokio::time::sleep(self.linger).await;
            close.cancel();
        };
        let telling = event::tell(host, self.name, problem);
        tokio::select! {
            _ = async { tokio::join!(serving, closing) } => Ok(()),
            never = telling => match never {},
        }
    }
}

/// Makes the handler of one table; for tests of a table without a server.
pub fn handler<S: Send + Sync + 'static>(
    component: &'static str,
    table: Table<S>,
    state: Arc<S>,
    health: Health,
    metrics: Metrics,
) -> Handler {
    endpoint::Answering { component, table, state, health, metrics }.into_handler()
}
