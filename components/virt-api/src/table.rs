//! Every endpoint of virt-api.

use http::StatusCode;
use kubevirt_component::{Call, Does, Endpoint, Table, Verb};
use kubevirt_runtime::serve::{self, Response};
use serde_json::json;

use crate::{State, admission, discovery, subresources};

/// Every endpoint, the first match answers.
pub fn table() -> Table<State> {
    let mut rows = vec![
        Endpoint::new(Verb::Get, "/", Does::Index, "the list of paths"),
        Endpoint::new(Verb::Get, "/healthz", Does::Live, "alive"),
        Endpoint::new(Verb::Get, "/readyz", Does::Ready, "ready, or why not"),
        Endpoint::new(Verb::Get, "/metrics", Does::Metrics, "Prometheus metrics"),
        Endpoint::new(Verb::Get, "/apis", Does::Answer(discovery::groups), "discovery: the groups"),
        Endpoint::new(Verb::Get, "/openapi/v2", Does::Answer(discovery::openapi), "OpenAPI of what is answered"),
        Endpoint::new(Verb::Get, "/openapi/{*rest}", Does::Refuse, "OpenAPI v3"),
    ];
    rows.push(Endpoint::new(
        Verb::Get,
        format!("/apis/{}", subresources::GROUP),
        Does::Answer(discovery::group),
        "discovery: the group",
    ));
    for served in subresources::VERSIONS {
        let base = format!("/apis/{}/{served}", subresources::GROUP);
        let resources: fn(&State, &Call) -> Response = discovery::resources;
        rows.push(Endpoint::new(Verb::Get, base.clone(), Does::Answer(resources), "discovery: the resources"));
        rows.push(Endpoint::new(
            Verb::Get,
            format!("{base}/healthz"),
            Does::Ready,
            "ready, or why not (the pod's probe)",
        ));
        rows.push(Endpoint::new(
            Verb::Get,
            format!("{base}/version"),
            Does::Answer(version),
            "the version of this build",
        ));
        for name in ["guestfs", "start-cluster-profiler", "stop-cluster-profiler", "dump-cluster-profiler"] {
            rows.push(Endpoint::new(
                Verb::Get,
                format!("{base}/{name}"),
                Does::Refuse,
                format!("the subresource {name}"),
            ));
        }
        let namespaced = format!("{base}/namespaces/{{namespace}}");
        rows.push(Endpoint::new(
            Verb::Put,
            format!("{namespaced}/expand-vm-spec"),
            Does::Refuse,
            "the subresource expand-vm-spec",
        ));
        for subresource in subresources::ALL {
            let about = format!("the subresource {}/{}", subresource.resource, subresource.path());
            let path = format!("{namespaced}/{}/{{name}}/{}", subresource.resource, subresource.path());
            rows.push(Endpoint::new(subresource.verb, path, Does::Refuse, about));
        }
    }
    for webhook in admission::WEBHOOKS {
        let about = match webhook.judged {
            true => webhook.about(),
            false => format!("{}: reviews are read and refused, code 501", webhook.about()),
        };
        rows.push(Endpoint::new(Verb::Post, webhook.path, Does::Answer(admission::review), about));
    }
    Table::new(rows)
}

/// What virtctl prints as the server's version.
fn version(_: &State, _: &Call) -> Response {
    let body = json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture(std::env::consts::ARCH)),
    });
    serve::json(StatusCode::OK, &body)
}

/// Clients know architectures by Go's names.
fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
