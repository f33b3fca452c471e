//! The webhooks over HTTPS, on every replica: whether it leads makes no difference to what is allowed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, StatusCode};
use kube::Client;
use kubevirt_release::certificates;
use kubevirt_release::operator_manifest::WEBHOOK_PORT;
use kubevirt_runtime::admission::{Operation, Review, Verdict};
use kubevirt_runtime::host::Host;
use kubevirt_runtime::serve::{self, Handler, Request, Response, handler, read_body};
use kubevirt_runtime::tls::{Certificate, CertificateFiles, ClientAuthorities, SetupError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::customized::{Customized, customized};
use super::trust::{self, OwnSecret};
use super::{CLOSED, CREATE, DELETE, Denial, Judgement, UPDATE, admit, closed, lookup, needs};
use crate::metrics::OperatorMetrics;
use crate::settings::Settings;

/// Where the operator's own certificate is mounted once it has issued it.
pub const CERTIFICATES: &str = "/etc/virt-operator/certificates";

/// Why the webhooks are not served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] SetupError),
}

/// Starts the server and what it follows. Everything ends with the set; the server drains when `stop` is cancelled.
///
/// # Errors
/// The port is taken, or TLS cannot be set up.
pub async fn start(
    host: &Host,
    ip: IpAddr,
    metrics: &OperatorMetrics,
    settings: &Settings,
    stop: CancellationToken,
    server: &mut JoinSet<serve::Drained>,
    watches: &mut JoinSet<()>,
) -> Result<(), StartError> {
    let address = SocketAddr::new(ip, WEBHOOK_PORT);
    let listener = host.net.listen(address).await.map_err(|source| StartError::Listen { address, source })?;
    let own = OwnSecret::new(Arc::clone(&host.files), CERTIFICATES);
    let files = Host { files: Arc::new(own.clone()), ..host.clone() };
    let certificate = Certificate::new(&files, CertificateFiles::in_dir(CERTIFICATES, Vec::new()));
    let clients = ClientAuthorities::default();
    watches.spawn(trust::follow_secret(host.client.clone(), host.namespace.clone(), certificates::OPERATOR, own));
    watches.spawn(trust::follow_clients(host.client.clone(), clients.clone()));
    let tls = certificate.server_config_for(&clients)?;
    server.spawn(serve::serve(listener, tls, endpoints(host.client.clone(), metrics.clone(), settings.clone()), stop));
    Ok(())
}

/// What answers on the webhooks' port.
pub fn endpoints(client: Client, metrics: OperatorMetrics, settings: Settings) -> Handler {
    let settings = Arc::new(settings);
    handler(move |request: Request| {
        let (client, metrics, settings) = (client.clone(), metrics.clone(), Arc::clone(&settings));
        async move { answer(&client, &metrics, &settings, request).await }
    })
}

async fn answer(client: &Client, metrics: &OperatorMetrics, settings: &Settings, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let operation = match path.as_str() {
        CREATE | CLOSED => Operation::Create,
        UPDATE => Operation::Update,
        DELETE => Operation::Delete,
        _ => return serve::text(StatusCode::NOT_FOUND, format!("{path} is not served here\n")),
    };
    if request.method() != Method::POST {
        return serve::text(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered here\n");
    }
    let bad = |why: String| serve::text(StatusCode::BAD_REQUEST, format!("virt-operator: {path}: {why}\n"));
    let body = match read_body(request.into_body()).await {
        Ok(body) => body,
        Err(error) => return serve::text(error.status(), format!("virt-operator: {path}: {error}\n")),
    };
    let review = match Review::parse(&body) {
        Ok(review) => review,
        Err(error) => return bad(error.to_string()),
    };
    if review.operation != operation {
        return bad(format!("{} is not judged here", review.operation));
    }
    let Judgement { verdict, warnings } = match path.as_str() {
        CLOSED => closed(&review),
        _ => judge(client, settings, &review).await,
    };
    if let Verdict::Deny { message, .. } = &verdict {
        tracing::info!(operation = %review.operation, name = review.name, user = review.user, message, "refused");
    }
    metrics.judged(&review.operation.to_string(), matches!(verdict, Verdict::Allow { .. }));
    serve::json(StatusCode::OK, &review.answer(&verdict, &warnings))
}

/// Looks up what is needed and judges. What cannot be looked up cannot be allowed.
pub async fn judge(client: &Client, settings: &Settings, review: &Review) -> Judgement {
    let judged = match lookup::facts(client, &needs(review), &review.namespace).await {
        Ok(facts) => admit(review, &facts),
        Err(error) => return not_now(&error),
    };
    if !matches!(judged.verdict, Verdict::Allow { .. }) {
        return judged;
    }
    let Customized { objects, warnings } = match customized(review, settings) {
        Ok(None) => return judged,
        Ok(Some(customized)) => customized,
        Err(refused) => {
            let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
            return Judgement::deny(Denial::Invalid, all.join("; "));
        }
    };
    match lookup::objections(client, &objects).await {
        Ok(objections) if objections.is_empty() => {
            Judgement { warnings: judged.warnings.into_iter().chain(warnings).collect(), ..judged }
        }
        Ok(objections) => {
            let message =
                format!("spec.customizeComponents: the API server refuses the result: {}", objections.join("; "));
            Judgement::deny(Denial::Invalid, message)
        }
        Err(error) => not_now(&error),
    }
}

fn not_now(error: &lookup::Error) -> Judgement {
    let message = format!("virt-operator cannot judge this now: {error}; try again");
    Judgement::deny(Denial::ServiceUnavailable, message)
}
