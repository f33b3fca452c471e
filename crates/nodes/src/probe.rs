//! Probes: one attempt over the network, and the counting that turns attempts into a verdict.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubevirt_runtime::net::{BoxStream, Net};
use kubevirt_runtime::tls::unverified;
use rustls::pki_types::ServerName;

/// Which probe; it says how its failure is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// A probe's numbers with their defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    pub(crate) delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) successes: i32,
    pub(crate) failures: i32,
}

impl Timing {
    pub(crate) fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, otherwise: u64| match value {
            Some(value) if value > 0 => Duration::from_secs(value.unsigned_abs().into()),
            _ => Duration::from_secs(otherwise),
        };
        let times = |value: Option<i32>, otherwise: i32| value.filter(|value| *value > 0).unwrap_or(otherwise);
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: times(probe.success_threshold, 1),
            failures: times(probe.failure_threshold, 3),
        }
    }
}

/// Attempts in a row with the same result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Count {
    good: bool,
    run: i32,
}

impl Count {
    /// Counts one attempt; a verdict once a threshold is reached.
    pub(crate) fn step(&mut self, good: bool, timing: Timing) -> Option<bool> {
        if self.run > 0 && self.good == good {
            self.run = self.run.saturating_add(1);
        } else {
            *self = Self { good, run: 1 };
        }
        let needed = if good { timing.successes } else { timing.failures };
        (self.run >= needed).then_some(good)
    }
}

/// The port a probe means: a number, or the name of one of the container's ports.
fn port(wanted: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match wanted {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0).ok_or_else(|| {
        format!(
            "invalid port: {}",
            match wanted {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name.clone(),
            }
        )
    })
}

/// One attempt; the error is the text users see after "probe failed: ".
pub(crate) async fn attempt(probe: &Probe, container: &Container, net: &dyn Net, pod: IpAddr) -> Result<(), String> {
    let timeout = Timing::of(probe).timeout;
    if let Some(action) = &probe.http_get {
        let port = port(&action.port, container)?;
        let ip = action.host.as_deref().and_then(|host| host.parse().ok()).unwrap_or(pod);
        let https = action.scheme.as_deref() == Some("HTTPS");
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let scheme = if https { "https" } else { "http" };
        let to = SocketAddr::new(ip, port);
        let url = format!("{scheme}://{to}{slash}{path}");
        let late = || {
            Err(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        };
        return tokio::time::timeout(timeout, get(net, to, https, &url, action)).await.unwrap_or_else(|_| late());
    }
    if let Some(action) = &probe.tcp_socket {
        let port = port(&action.port, container)?;
        let ip = action.host.as_deref().and_then(|host| host.parse().ok()).unwrap_or(pod);
        let to = SocketAddr::new(ip, port);
        return match tokio::time::timeout(timeout, net.connect(to)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(dial(to, &error)),
            Err(_) => Err(format!("dial tcp {to}: i/o timeout")),
        };
    }
    if probe.exec.is_some() {
        return Err("exec probes are not supported by simulated nodes".to_owned());
    }
    Err("probes of this type are not supported by simulated nodes".to_owned())
}

fn dial(to: SocketAddr, error: &std::io::Error) -> String {
    let what = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {to}: connect: {what}")
}

async fn get(net: &dyn Net, to: SocketAddr, https: bool, url: &str, action: &HTTPGetAction) -> Result<(), String> {
    let failed = |what: String| format!("Get \"{url}\": {what}");
    let stream = net.connect(to).await.map_err(|error| failed(dial(to, &error)))?;
    let stream: BoxStream = if https {
        let connector = connector().map_err(|error| failed(error.to_string()))?;
        let name = ServerName::IpAddress(to.ip().into());
        Box::pin(connector.connect(name, stream).await.map_err(|error| failed(tls(&error)))?)
    } else {
        stream
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    let uri: Uri = url.parse().map_err(|error| failed(format!("{error}")))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::get(target).header("User-Agent", "kube-probe/1.36").header("Accept", "*/*");
    let mut host = None;
    for header in action.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            host = Some(header.value.clone());
        } else {
            request = request.header(&header.name, &header.value);
        }
    }
    let request = request
        .header("Host", host.unwrap_or_else(|| to.to_string()))
        .header("Connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let answer = async {
        let answer = sender.send_request(request).await;
        answer.map_err(|error| failed(if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() }))
    };
    // The connection is driven beside the request and dropped with it.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }?;
    let code = answer.status().as_u16();
    if (200..400).contains(&code) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
}

/// What every probe over TLS uses. Nothing is remembered between two probes: each asks as if it were the first.
fn connector() -> Result<tokio_rustls::TlsConnector, rustls::Error> {
    static CONNECTOR: OnceLock<Result<tokio_rustls::TlsConnector, rustls::Error>> = OnceLock::new();
    let connector = CONNECTOR.get_or_init(|| {
        let mut config = unverified()?.with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config).into())
    });
    connector.clone()
}

fn tls(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => format!("tls: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_need_runs() {
        let timing = Timing { failures: 3, successes: 1, ..Timing::of(&Probe::default()) };
        let mut count = Count::default();
        let verdicts: Vec<_> =
            [false, false, true, false, false, false, true].iter().map(|good| count.step(*good, timing)).collect();
        assert_eq!(verdicts, [None, None, Some(true), None, None, Some(false), Some(true)]);
    }
}
