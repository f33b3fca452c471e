//! Names without their random parts, so that a transcript reads well and a changed seed changes little.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kinds::Kind;

#[derive(Default)]
pub(crate) struct Names {
    /// Real name to alias. Random names are unique across kinds and namespaces.
    aliases: BTreeMap<String, String>,
    /// How many objects of one prefix there were.
    counts: BTreeMap<String, usize>,
    /// Addresses of pods, which depend on where the pods happened to run.
    addresses: BTreeMap<String, String>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The name of the controlling owner, with its kind.
fn owner(object: &Value) -> Option<(&str, &str)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((owner["kind"].as_str()?, owner["name"].as_str()?))
}

/// The node a daemon pod is made for.
fn home(pod: &Value) -> &str {
    const TERM: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    text(pod, TERM)
}

impl Names {
    /// Takes note of an object; must see owners before what they own.
    pub(crate) fn learn(&mut self, kind: Kind, object: &Value) {
        let name = text(object, "/metadata/name");
        if kind.word == "pod" {
            let ip = text(object, "/status/podIP");
            if !ip.is_empty() && object["spec"]["hostNetwork"] != true {
                self.addresses.insert(ip.to_owned(), format!("<{}>", self.of(name)));
            }
        }
        if self.aliases.contains_key(name) {
            return;
        }
        let alias = match (kind.word, owner(object)) {
            ("replicaset", Some(("Deployment", deployment))) => {
                let revision = object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
                format!("{deployment}-r{}", revision.unwrap_or_default())
            }
            ("revision", Some((_, set))) => format!("{set}-r{}", object["revision"]),
            ("pod", Some(("DaemonSet", set))) => self.next(&format!("{set}.{}", home(object))),
            ("pod", Some((_, owner))) => self.next(&self.of(owner)),
            _ => {
                let prefix = text(object, "/metadata/generateName").trim_end_matches('-').to_owned();
                if prefix.is_empty() {
                    return;
                }
                self.next(&prefix)
            }
        };
        self.aliases.insert(name.to_owned(), alias);
    }

    fn next(&mut self, prefix: &str) -> String {
        let count = self.counts.entry(prefix.to_owned()).or_default();
        *count += 1;
        format!("{prefix}.{count}")
    }

    /// The alias of a name.
    pub(crate) fn of(&self, name: &str) -> String {
        self.aliases.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// The name behind an alias.
    pub(crate) fn real(&self, alias: &str) -> String {
        let found = self.aliases.iter().find(|(_, known)| *known == alias);
        found.map_or(alias, |(name, _)| name).to_owned()
    }

    /// A text in which every known name and address is replaced.
    pub(crate) fn replaced(&self, text: &str) -> String {
        // A pod's name begins with its set's: the longer one first.
        let mut known: Vec<(&String, &String)> = self.aliases.iter().chain(&self.addresses).collect();
        known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        known.into_iter().fold(text.to_owned(), |text, (name, alias)| text.replace(name.as_str(), alias))
    }
}
