//! What a process asks of the API server, counted.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::InvalidHeaderValue;
use http::{HeaderName, HeaderValue, Request, Response};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

use crate::metrics::Metrics;

/// Says on whose behalf a request is made.
const IMPERSONATE: HeaderName = HeaderName::from_static("impersonate-user");

const HELP: &str = "Requests to the API server by method and the answer's code; <error> when none came";

/// The same client, with every request counted in the metric `name`.
pub fn counted(client: &Client, metrics: &Metrics, name: &'static str) -> Client {
    metrics.announce_counter(name, HELP);
    Client::new(Counted { inner: client.clone(), metrics: metrics.clone(), name }, client.default_namespace())
}

/// The same client, asking on behalf of a user; the server refuses it to whoever may not.
///
/// # Errors
/// The name cannot be sent.
pub fn on_behalf_of(client: &Client, user: &str) -> Result<Client, InvalidHeaderValue> {
    let user = HeaderValue::from_str(user)?;
    Ok(Client::new(OnBehalf { inner: client.clone(), user }, client.default_namespace()))
}

struct OnBehalf {
    inner: Client,
    user: HeaderValue,
}

impl Service<Request<Body>> for OnBehalf {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(IMPERSONATE, self.user.clone());
        let inner = self.inner.clone();
        async move { inner.send(request).await.map_err(Into::into) }.boxed()
    }
}

struct Counted {
    inner: Client,
    name: &'static str,
    metrics: Metrics,
}

impl Service<Request<Body>> for Counted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client behind this one has a queue of its own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, metrics, method) = (self.inner.clone(), self.metrics.clone(), request.method().to_string());
        let name = self.name;
        async move {
            let answer = inner.send(request).await;
            let code =
                answer.as_ref().map_or_else(|_| "<error>".to_owned(), |answer| answer.status().as_str().to_owned());
            metrics.counter(name, HELP, &[("code", &code), ("method", &method)]).add(1);
            answer.map_err(Into::into)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;

    use super::*;
    use crate::testing::TinyApi;

    #[tokio::test]
    async fn requests_are_counted_by_method_and_code() {
        let (metrics, api) = (Metrics::new(), TinyApi::new());
        let client = counted(&api.client("who", "here"), &metrics, "requests_total");
        assert!(metrics.render().contains("# TYPE requests_total counter"), "before the first one");
        let maps: Api<ConfigMap> = Api::namespaced(client, "here");
        assert_eq!(maps.get_opt("missing").await.expect("an answer"), None);
        let line = "requests_total{code=\"404\",method=\"GET\"} 1";
        assert!(metrics.render().contains(line), "{}", metrics.render());
    }
}
