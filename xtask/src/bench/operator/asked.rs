//! What the operator's pods asked of the API, from nanokube's audit log.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::audit::OPERATOR;

/// Requests of one pod of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) all: u32,
    /// All writes, those of the lease included.
    pub(super) writes: u32,
    /// Writes of the lease.
    pub(super) renewals: u32,
    /// How often each watch was opened.
    pub(super) watches: BTreeMap<String, u32>,
}

/// Requests by pod.
pub(super) type ByPod = BTreeMap<String, Asked>;

/// Counts from a place in the log on; gives the place where it ended.
///
/// # Errors
/// The log cannot be read, or holds something that is no audit event.
pub(super) fn since(log: &Path, start: u64) -> Result<(ByPod, u64)> {
    let mut file = std::fs::File::open(log).with_context(|| format!("open {}", log.display()))?;
    file.seek(SeekFrom::Start(start)).context("find the place in the audit log")?;
    let mut text = String::new();
    file.read_to_string(&mut text).context("read the audit log")?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let asked = count(&text[..whole])?;
    Ok((asked, start + u64::try_from(whole).unwrap_or(0)))
}

/// All pods together.
pub(super) fn together(pods: &ByPod) -> Asked {
    let mut sum = Asked::default();
    for Asked { all, writes, renewals, watches } in pods.values() {
        sum.all += all;
        sum.writes += writes;
        sum.renewals += renewals;
        for (what, count) in watches {
            *sum.watches.entry(what.clone()).or_default() += count;
        }
    }
    sum
}

fn count(text: &str) -> Result<ByPod> {
    let mut pods = ByPod::new();
    for line in text.lines().filter(|line| line.contains(OPERATOR)) {
        let event: Value = serde_json::from_str(line).context("a line of the audit log is JSON")?;
        if event["user"]["username"] != OPERATOR {
            continue;
        }
        let field = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let pod = field("/user/extra/authentication.kubernetes.io~1pod-name/0");
        let asked = pods.entry(pod.to_owned()).or_default();
        let (verb, resource) = (field("/verb"), field("/objectRef/resource"));
        let is_write = !matches!(verb, "get" | "list" | "watch");
        asked.all += 1;
        asked.writes += u32::from(is_write);
        asked.renewals += u32::from(is_write && resource == "leases");
        if verb == "watch" {
            *asked.watches.entry(watched(field("/requestURI"))).or_default() += 1;
        }
    }
    Ok(pods)
}

/// What a watch is about: its address without what differs each time it is opened.
fn watched(uri: &str) -> String {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let lasting = |part: &&str| part.starts_with("labelSelector=") || part.starts_with("fieldSelector=");
    let selected: Vec<&str> = query.split('&').filter(lasting).collect();
    format!("{path} {}", selected.join("&")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(user: &str, pod: &str, verb: &str, resource: &str, uri: &str) -> String {
        json!({
            "user": {"username": user, "extra": {"authentication.kubernetes.io/pod-name": [pod]}},
            "verb": verb, "requestURI": uri,
            "objectRef": {"resource": resource},
        })
        .to_string()
    }

    #[test]
    fn requests_are_counted_by_who_asked_and_what_for() {
        let text = [
            line(OPERATOR, "a", "update", "leases", ""),
            line(OPERATOR, "a", "get", "leases", ""),
            line(OPERATOR, "a", "patch", "services", ""),
            line(OPERATOR, "a", "patch", "kubevirts", ""),
            line(OPERATOR, "b", "watch", "leases", "/x?watch=true&resourceVersion=1&labelSelector=y"),
            line(OPERATOR, "b", "watch", "leases", "/x?watch=true&resourceVersion=9&labelSelector=y"),
            line("kubernetes-admin", "", "patch", "services", ""),
            line("kubernetes-admin", "", "create", OPERATOR, ""),
        ];
        let pods = count(&text.join("\n")).expect("it parses");
        let a = Asked { all: 4, writes: 3, renewals: 1, watches: BTreeMap::new() };
        assert_eq!(pods["a"], a);
        assert_eq!(pods["b"].watches, [("/x labelSelector=y".to_owned(), 2)].into());
        let sum = together(&pods);
        assert_eq!((sum.all, sum.writes), (6, 3));
    }
}
