//! The client of a process for the API server: kube's layers on connections that stay small.
//!
//! Each watch has a connection of its own, and an operator has thirty. As kube makes them, each keeps a buffer as large as
//! the largest list that once came through it.

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client as Connections};
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// What is read from a connection at once. Events are smaller; a list of megabytes takes hundreds of reads, which cost less
/// than taking it apart.
const READ: usize = 8 * 1024;

/// # Errors
/// The configuration names certificates, keys or headers that are none, or a proxy, which is not supported.
pub(crate) fn client(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // It says which kind of proxy cannot be had.
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(config.connect_timeout);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let connections: Connections<_, Body> =
        legacy::Builder::new(TokioExecutor::new()).http1_read_buf_exact_size(READ).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
