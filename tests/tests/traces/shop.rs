//! The images of the shop: most do nothing; `shop:guard` is a webhook that refuses bad names, `shop:meter` an aggregated API.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use kubevirt_runtime::admission::{Review, Verdict};
use kubevirt_runtime::host::Host;
use kubevirt_runtime::serve::{Handler, handler, json as answer, read_body, serve, text};
use nanokube_nodes::Image;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

/// The port of both servers.
const PORT: u16 = 8443;

/// Signs for every server of the shop, as an installer would who writes Secret and `caBundle` together.
pub(crate) struct Shop {
    /// The authority in PEM.
    pub(crate) authority: String,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names = ["guard", "meter"].map(|name| format!("{name}.default.svc"));
        let params = CertificateParams::new(names).expect("valid names");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        Self {
            authority: authority.pem(),
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        }
    }

    /// What an image holds. Nothing but the shop's images can be pulled.
    pub(crate) fn image(&self, name: &str) -> Option<Image> {
        match name.strip_prefix("shop:")? {
            "guard" => Some(self.server(handler(guard))),
            "meter" => Some(self.server(handler(meter))),
            _ => Some(Image::Idle),
        }
    }

    fn server(&self, handler: Handler) -> Image {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of this build")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("a key that fits its certificate");
        let config = Arc::new(config);
        Image::Program(Arc::new(move |host: Host| -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
            let (config, handler) = (config.clone(), handler.clone());
            Box::pin(async move {
                let listener = host.net.listen(SocketAddr::from(([0, 0, 0, 0], PORT))).await?;
                serve(listener, config, handler, host.stop).await;
                Ok(())
            })
        }))
    }
}

/// Refuses objects whose name begins with `bad`.
async fn guard(request: kubevirt_runtime::serve::Request) -> kubevirt_runtime::serve::Response {
    if request.uri().path() == "/healthz" {
        return text(StatusCode::OK, "ok");
    }
    let Ok(body) = read_body(request.into_body()).await else { return text(StatusCode::BAD_REQUEST, "no body") };
    let Ok(review) = Review::parse(&body) else { return text(StatusCode::BAD_REQUEST, "no review") };
    let verdict = if review.name.starts_with("bad") {
        Verdict::Deny { code: 403, reason: "Forbidden", message: format!("{} is a bad name", review.name) }
    } else {
        Verdict::allow()
    };
    answer(StatusCode::OK, &review.answer(&verdict, &[]))
}

/// Serves `meter.shop/v1` with one list.
async fn meter(request: kubevirt_runtime::serve::Request) -> kubevirt_runtime::serve::Response {
    let value = match request.uri().path() {
        "/healthz" => return text(StatusCode::OK, "ok"),
        "/apis/meter.shop/v1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "meter.shop/v1", "resources": [
                {"name": "meters", "singularName": "meter", "namespaced": false, "kind": "Meter", "verbs": ["list"]},
            ],
        }),
        "/apis/meter.shop/v1/meters" => {
            json!({"kind": "MeterList", "apiVersion": "meter.shop/v1", "metadata": {}, "items": []})
        }
        _ => {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"});
            return answer(StatusCode::NOT_FOUND, &status);
        }
    };
    answer(StatusCode::OK, &value)
}
