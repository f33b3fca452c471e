//! `/livez`, `/readyz` and `/healthz`: the checks a client may ask for one by one. This server is one program without parts
//! that fail alone, so whoever gets an answer gets `ok`; the names are those that probes of clusters ask for. Pure.

use crate::reply::Reply;
use crate::request::Query;
use crate::status::ApiError;

/// Checks of all three.
const CHECKS: [&str; 11] = [
    "ping",
    "log",
    "etcd",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
];
/// What only readiness has beside them.
const READINESS: [&str; 3] = ["etcd-readiness", "informer-sync", "shutdown"];

/// Answers a probe, or one of its checks.
///
/// # Errors
/// There is no such check.
pub(crate) fn answer(probe: &str, check: &[&str], query: &Query) -> Result<Reply, ApiError> {
    let more: &[&str] = if probe == "readyz" { &READINESS } else { &[] };
    let checks = || CHECKS.iter().chain(more);
    let check = check.join("/");
    if !check.is_empty() {
        return if checks().any(|known| *known == check) {
            Ok(Reply::text(200, "ok"))
        } else {
            Err(ApiError::no_path())
        };
    }
    let excluded = query.all("exclude");
    let unknown: Vec<String> =
        excluded.iter().filter(|name| !checks().any(|known| known == name)).map(|name| format!("\"{name}\"")).collect();
    if !query.flag("verbose") {
        return Ok(Reply::text(200, "ok"));
    }
    let mut text = String::new();
    for name in checks() {
        let said = if excluded.iter().any(|it| it == name) { "excluded: ok" } else { "ok" };
        text.push_str(&format!("[+]{name} {said}\n"));
    }
    if !unknown.is_empty() {
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", ")));
    }
    text.push_str(&format!("{probe} check passed\n"));
    Ok(Reply::text(200, &text))
}
