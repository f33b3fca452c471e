//! `pods/log`: the request is checked here and passed on to the pod's node, whose answer is streamed back.
//!
//! The node is reached at the address and port in its status, over HTTPS. The server shows a client certificate of the
//! cluster's authority; the node's own certificate is not verified, as by a real server that was given no authority for
//! nodes: they make their certificates themselves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::FieldError;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, BodyStream, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kubevirt_runtime::tls::unverified;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::identity::MASTERS;
use crate::pki::{Pki, PkiError};
use crate::registry::resource_key;
use crate::reply::{Reply, TEXT};
use crate::request::Query;
use crate::status::{About, ApiError};
use crate::store::Name;
use crate::verbs::Target;

/// The user that a real server is to its nodes.
const USER: &str = "kube-apiserver-kubelet-client";
/// A node is near; one that does not answer in this time is gone, and kubectl should say so while its user still waits.
const ANSWER: Duration = Duration::from_secs(10);
/// A refusal is a sentence.
const REFUSAL_BYTES: usize = 64 * 1024;
/// The order in which an installer lets a server choose among a node's addresses.
const ADDRESSES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];
/// Parameters that nodes understand.
const PASSED: [&str; 7] = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes"];

/// How this server connects to nodes.
pub(crate) fn connector(pki: &Pki) -> Result<TlsConnector, PkiError> {
    let parse = |error: rustls_pki_types::pem::Error| PkiError::Parse(error.to_string());
    let own = pki.client(USER, Some(MASTERS))?;
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).map_err(parse)?];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(parse)?;
    let config = unverified()?.with_client_auth_cert(chain, key)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Answers `GET pods/NAME/log`.
pub(crate) async fn get(target: &Target<'_>) -> Result<Reply, ApiError> {
    let name = &target.path.name;
    check(target.query(), name)?;
    let pod = target.live()?;
    let container = container(&pod.value, name, target.query().get("container"))?;
    let node = pod.value["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // There is no output yet, which is no error.
        return Ok(Reply::text(200, ""));
    }
    let found = target.core.store.get(&resource_key("", "nodes"), &Name::new("", node));
    let found = found.ok_or_else(|| ApiError::not_found(About { group: "", what: "nodes", name: node }))?;
    let query: Vec<String> = PASSED
        .iter()
        .filter_map(|key| target.query().get(key).map(|value| format!("{key}={}", value.replace('+', "%2B"))))
        .collect();
    let path = format!("/containerLogs/{}/{name}/{container}", target.path.namespace);
    let path = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
    let (host, port) = endpoint(&found.value)
        .ok_or_else(|| unreached(&format!("node \"{node}\" publishes no endpoint for logs in its status")))?;
    let url = format!("https://{host}:{port}{path}");
    let connector = target.core.nodes.get().ok_or_else(|| {
        unreached(&format!("Get \"{url}\": this server has no certificate for nodes: it does not serve HTTPS"))
    })?;
    let asked = ask(connector, &host, port, &path);
    let response = match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|why| unreached(&format!("Get \"{url}\": {why}")))?,
        Err(_) => return Err(unreached(&format!("Get \"{url}\": context deadline exceeded"))),
    };
    let code = response.status().as_u16();
    if code == 200 {
        let parts = BodyStream::new(response.into_body())
            .filter_map(|part| std::future::ready(part.ok().and_then(|frame| frame.into_data().ok())));
        return Ok(Reply::stream(TEXT, parts.boxed()));
    }
    let body = Limited::new(response.into_body(), REFUSAL_BYTES).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
    Err(match code {
        400 => ApiError::bad_request(text),
        404 => ApiError::not_found(About { group: "", what: "pods", name }),
        _ => unreached(&format!("node \"{node}\" answered {code} to {url}: {text}")),
    })
}

/// The answer of a server that cannot get at a node: a message and no reason.
fn unreached(message: &str) -> ApiError {
    ApiError { code: 500, reason: "", ..ApiError::unavailable(message) }
}

/// The options must make sense before anybody is asked.
fn check(query: &Query, name: &str) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let mut number = |key: &str, least: i64| {
        let Some(text) = query.get(key) else { return Ok(()) };
        let value: i64 = text.parse().map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax ({key})"))
        })?;
        if value < least {
            let why = format!("must be greater than or equal to {least}");
            errors.push(FieldError::invalid(key, &json!(value), why.as_str()));
        }
        Ok(())
    };
    number("tailLines", 0)?;
    number("limitBytes", 1)?;
    number("sinceSeconds", 1)?;
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(About { group: "", what: "PodLogOptions", name }, &errors))
    }
}

fn names<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
}

/// The container that is meant: the one named, or the only one.
fn container(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, ApiError> {
    let own: Vec<&str> = names(pod, "containers").collect();
    let init: Vec<&str> = names(pod, "initContainers").collect();
    match (asked, own.as_slice()) {
        (Some(asked), _) => {
            let known = own.iter().chain(&init).any(|container| *container == asked);
            let ephemeral = || names(pod, "ephemeralContainers").any(|container| container == asked);
            if known || ephemeral() {
                return Ok(asked.to_owned());
            }
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
        (None, [only]) => Ok((*only).to_owned()),
        (None, several) => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", several.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Address and port in a node's status.
fn endpoint(node: &Value) -> Option<(String, u16)> {
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    let addresses = node["status"]["addresses"].as_array()?;
    let address = ADDRESSES.iter().find_map(|kind| {
        let found = addresses.iter().find(|address| address["type"] == *kind)?;
        found["address"].as_str()
    })?;
    Some((address.to_owned(), port))
}

async fn ask(connector: &TlsConnector, host: &str, port: u16, path: &str) -> Result<http::Response<Incoming>, String> {
    let stream = TcpStream::connect((host, port)).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {host}:{port}: connect: {why}")
    })?;
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?,
    };
    let stream = connector.connect(name, stream).await.map_err(|error| format!("remote error: tls: {error}"))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    // It ends with the body, or when whoever reads it goes.
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, format!("{host}:{port}"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    sender.send_request(request).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(outcome: Result<impl std::fmt::Debug, ApiError>) -> (u16, String) {
        let error = outcome.expect_err("refused");
        (error.code, error.message)
    }

    #[test]
    fn the_container_must_be_clear() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let text =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(message(container(&pod, "p", None)), (400, text.to_owned()));
        assert_eq!(container(&pod, "p", Some("i")).expect("known"), "i");
        assert_eq!(message(container(&pod, "p", Some("x"))), (400, "container x is not valid for pod p".to_owned()));
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "p", None).expect("the only one"), "a");
    }

    #[test]
    fn senseless_options() {
        assert!(check(&Query::parse("tailLines=0&sinceSeconds=1"), "p").is_ok());
        assert_eq!(message(check(&Query::parse("tailLines=-1"), "p")).0, 422);
        assert_eq!(message(check(&Query::parse("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"), "p")).0, 422);
        assert_eq!(message(check(&Query::parse("limitBytes=x"), "p")).0, 400);
    }

    #[test]
    fn a_node_says_where_it_is_reached() {
        let node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "127.64.1.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
        assert_eq!(endpoint(&node), Some(("127.64.1.1".to_owned(), 10250)));
        assert_eq!(endpoint(&json!({"status": {"addresses": node["status"]["addresses"]}})), None);
    }
}
