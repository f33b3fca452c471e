//! Servers behind this one (webhooks, aggregated APIs): finding their address through Service and EndpointSlices, and
//! speaking to them over TLS on the network that was handed in. It never decides what an answer means.

mod trust;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kubevirt_runtime::net::BoxStream;
use serde_json::Value;

pub(crate) use trust::{Identity, Trust};

use crate::core::Core;
use crate::registry::resource_key;
use crate::store::Name;

/// An answer of a webhook or a discovery document beyond this is refused: no larger than a request may be.
const ANSWER: usize = 3 * 1024 * 1024;

/// Why a server behind this one did not answer. The texts are what clients of a real API server see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("service \"{0}\" not found")]
    NoService(String),
    #[error("no service port {port} found for service \"{service}\"")]
    NoPort { service: String, port: u16 },
    #[error("no endpoints available for service \"{0}\"")]
    NoEndpoints(String),
    #[error("dial tcp: lookup {0}: no such host")]
    NoHost(String),
    #[error("dial tcp {address}: connect: {why}")]
    Connect { address: String, why: String },
    #[error("{0}")]
    Tls(String),
    #[error("context deadline exceeded")]
    Timeout,
    #[error("EOF")]
    Cut,
    #[error("the URL is not valid: {0}")]
    Url(String),
    #[error("the answer has more than {ANSWER} bytes")]
    TooLarge,
    #[error("this server was given no network to reach others")]
    NoNetwork,
}

/// Where a server is, as an object says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
    /// Host and port of a URL.
    Host {
        host: String,
        port: u16,
    },
}

impl Place {
    /// A reference of a webhook or an `APIService`.
    pub(crate) fn service(reference: &Value) -> Self {
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let port = reference["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        Self::Service { namespace: text("namespace"), name: text("name"), port }
    }

    /// The host part of a `https` URL.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn url(url: &http::Uri) -> Result<Self, CallError> {
        let host = url.host().ok_or_else(|| CallError::Url(url.to_string()))?;
        Ok(Self::Host { host: host.trim_matches(['[', ']']).to_owned(), port: url.port_u16().unwrap_or(443) })
    }

    /// The name the server's certificate must carry.
    fn server_name(&self) -> String {
        match self {
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
            Self::Host { host, .. } => host.clone(),
        }
    }

    /// What stands in the `Host` header and in messages.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Service { port, .. } => format!("{}:{port}", self.server_name()),
            Self::Host { host, port: 443 } => host.clone(),
            Self::Host { host, port } => format!("{host}:{port}"),
        }
    }

    async fn dial(&self, core: &Core) -> Result<BoxStream, CallError> {
        let net = core.net.as_ref().ok_or(CallError::NoNetwork)?;
        let address = match self {
            Self::Service { namespace, name, port } => endpoint(core, namespace, name, *port)?,
            Self::Host { host, port } => {
                let ip = match host.as_str() {
                    "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    host => host.parse().map_err(|_| CallError::NoHost(host.to_owned()))?,
                };
                SocketAddr::new(ip, *port)
            }
        };
        net.connect(address).await.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
                _ => error.to_string(),
            };
            CallError::Connect { address: address.to_string(), why }
        })
    }
}

/// One of the ready endpoints of a service's port.
fn endpoint(core: &Core, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, CallError> {
    let service = core.store.get(&resource_key("", "services"), &Name::new(namespace, name));
    let service = service.ok_or_else(|| CallError::NoService(name.to_owned()))?;
    let port_name =
        service_port(&service.value, port).ok_or_else(|| CallError::NoPort { service: name.to_owned(), port })?;
    let slices = core.store.objects(&resource_key("discovery.k8s.io", "endpointslices"), namespace);
    let slices = slices.iter().map(|slice| &*slice.value);
    let ready = ready_addresses(slices, name, &port_name);
    let chosen = core.choose(ready.len());
    ready.get(chosen).copied().ok_or_else(|| CallError::NoEndpoints(name.to_owned()))
}

/// The name of a service's port.
pub(crate) fn service_port(service: &Value, port: u16) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let found = ports.iter().find(|candidate| candidate["port"] == port)?;
    Some(found["name"].as_str().unwrap_or_default().to_owned())
}

/// Whether a slice belongs to a service.
pub(crate) fn is_slice_of(slice: &Value, service: &str) -> bool {
    slice["metadata"]["labels"]["kubernetes.io/service-name"] == service
}

/// The addresses of ready endpoints, sorted.
pub(crate) fn ready_addresses<'s>(
    slices: impl Iterator<Item = &'s Value>,
    service: &str,
    port_name: &str,
) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices.filter(|slice| is_slice_of(slice, service)) {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports
            .filter(|port| port["name"].as_str().unwrap_or_default() == port_name)
            .find_map(|port| port["port"].as_u64().and_then(|port| u16::try_from(port).ok()));
        let Some(port) = port else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            let addresses = endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found.extend(addresses.filter_map(|ip| ip.parse().ok()).map(|ip: IpAddr| SocketAddr::new(ip, port)));
        }
    }
    found.sort_unstable();
    found
}

/// Sends a request and returns the answer's head with its body still open.
///
/// # Errors
/// There is no answer.
pub(crate) async fn send(
    core: &Core,
    place: &Place,
    trust: &Trust,
    request: http::Request<Full<Bytes>>,
) -> Result<http::Response<Incoming>, CallError> {
    let config = trust.config(&core.clock)?;
    let stream = place.dial(core).await?;
    let name = rustls_pki_types::ServerName::try_from(place.server_name())
        .map_err(|_| CallError::NoHost(place.server_name()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|error| trust::explain(&error, place))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| CallError::Cut)?;
    // Ends when the answer is read or dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|_| CallError::Cut)
}

/// Sends a request and reads the whole answer, within a time.
///
/// # Errors
/// There is no answer, or not in time.
pub(crate) async fn exchange(
    core: &Core,
    place: &Place,
    trust: &Trust,
    request: http::Request<Full<Bytes>>,
    within: Duration,
) -> Result<(u16, Bytes), CallError> {
    let whole = async {
        let response = send(core, place, trust, request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        match body {
            Ok(body) => Ok((code, body.to_bytes())),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(CallError::TooLarge),
            Err(_) => Err(CallError::Cut),
        }
    };
    tokio::time::timeout(within, whole).await.unwrap_or(Err(CallError::Timeout))
}

#[cfg(test)]
mod tests;
