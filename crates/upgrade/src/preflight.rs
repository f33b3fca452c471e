//! What speaks against a change of version before anything of it is written (pure): findings with codes. Those that block
//! would make the server refuse a write half-way; the others are told and nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::rbac::v1::PolicyRule;
use kubevirt_api::deprecated::Deprecated;
use kubevirt_release::image::flaw;
use kubevirt_release::{Kind, ObjectKey};
use serde::Serialize;
use serde_json::Value;

use crate::hops::skips;
use crate::input::Absence;
use crate::permissions::{self, Written};

/// How many rules of a role are named: enough to recognize which it is about; a condition has to stay readable.
const NAMED_RULES: usize = 4;

/// One thing that speaks against a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "code", rename_all = "PascalCase")]
pub enum Finding {
    /// Objects are stored in a version that the new definition does not have; the server refuses to lose it.
    StoredVersionLost { definition: String, version: String },
    /// The new version changes a field that the server never lets anybody change.
    ImmutableField { object: String, field: &'static str },
    /// A role or binding grants what the operator does not hold and may not give; the server refuses to write it.
    PermissionMissing {
        object: String,
        /// The right that would do instead of all of them.
        unless: String,
        rules: Vec<String>,
    },
    /// A workload names an image that no container runtime would take.
    ImageReferenceInvalid { object: String, image: String, why: &'static str },
    /// Versions between the two are left out; releases are tested from one to the next.
    VersionsSkipped { from: String, to: String },
    /// Webhooks or aggregated APIs of the suite are not answered even before the change.
    Unanswered { registration: String, why: String },
    /// A node is not there; it will catch up.
    NodeMissing { node: String, absence: Absence },
    /// A Secret to pull images with is not there; images that need none are pulled all the same.
    PullSecretMissing { secret: String },
    /// The custom resource sets what a later release will not know.
    DeprecatedField { field: String, instead: &'static str },
    /// A certificate has run out or will not do; the change renews it first.
    CertificateUnfit { secret: String, why: String },
    /// The history has a record that this release cannot read.
    RecordUnread { record: String },
}

impl Finding {
    /// The machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::StoredVersionLost { .. } => "StoredVersionLost",
            Self::ImmutableField { .. } => "ImmutableField",
            Self::PermissionMissing { .. } => "PermissionMissing",
            Self::ImageReferenceInvalid { .. } => "ImageReferenceInvalid",
            Self::VersionsSkipped { .. } => "VersionsSkipped",
            Self::Unanswered { .. } => "Unanswered",
            Self::NodeMissing { .. } => "NodeMissing",
            Self::CertificateUnfit { .. } => "CertificateUnfit",
            Self::PullSecretMissing { .. } => "PullSecretMissing",
            Self::DeprecatedField { .. } => "DeprecatedField",
            Self::RecordUnread { .. } => "RecordUnread",
        }
    }

    /// Whether nothing may be written because of it.
    pub fn blocks(&self) -> bool {
        match self {
            Self::StoredVersionLost { .. }
            | Self::ImmutableField { .. }
            | Self::PermissionMissing { .. }
            | Self::ImageReferenceInvalid { .. } => true,
            Self::VersionsSkipped { .. }
            | Self::Unanswered { .. }
            | Self::NodeMissing { .. }
            | Self::CertificateUnfit { .. }
            | Self::PullSecretMissing { .. }
            | Self::DeprecatedField { .. }
            | Self::RecordUnread { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoredVersionLost { definition, version } => write!(
                f,
                "objects of {definition} are stored in version {version}, which the new definition lacks. If another is its \
                 storage version now, they are stored anew first, as condition StoredVersionsCurrent says; else a release \
                 in between has to be gone through"
            ),
            Self::ImmutableField { object, field } => {
                write!(f, "{object}: {field} would change, which the server never allows; delete the object first")
            }
            Self::PermissionMissing { object, unless, rules } => {
                write!(f, "{object} grants what the operator does not hold and may not give: ")?;
                write!(f, "{}", rules[..rules.len().min(NAMED_RULES)].join("; "))?;
                if rules.len() > NAMED_RULES {
                    write!(f, "; and {} more", rules.len() - NAMED_RULES)?;
                }
                write!(f, ". Apply the manifest of a newer operator, or allow its account these or `{unless}`")
            }
            Self::ImageReferenceInvalid { object, image, why } => {
                write!(f, "{object}: no container runtime would take the image `{image}`: {why}")
            }
            Self::VersionsSkipped { from, to } => {
                write!(
                    f,
                    "versions between {from} and {to} are left out, because none is known; going through each is what is tested"
                )
            }
            Self::Unanswered { registration, why } => write!(f, "{registration} is not answered: {why}"),
            Self::NodeMissing { node, absence } => {
                write!(f, "node {node} is not there ({}), it will catch up", absence.code())
            }
            Self::CertificateUnfit { secret, why } => write!(f, "the certificate in {secret} will be renewed: {why}"),
            Self::PullSecretMissing { secret } => {
                write!(f, "Secret {secret}, with which images are to be pulled, is not there")
            }
            Self::DeprecatedField { field, instead } => write!(f, "{field} is deprecated: {instead}"),
            Self::RecordUnread { record } => {
                write!(f, "UpgradePlan {record} cannot be read by this release; it is left as it is")
            }
        }
    }
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Before<'a> {
    pub from: &'a str,
    pub to: &'a str,
    /// Each object of the new version as it is written first, with what is live under its key.
    pub objects: Vec<Written<'a>>,
    /// What the operator may do in the namespace that it was asked about, as far as the server told all of it.
    pub rights: Option<(&'a str, &'a [PolicyRule])>,
    /// Registrations of the suite that nobody answers now, and why.
    pub unanswered: BTreeMap<ObjectKey, String>,
    pub absent_nodes: &'a BTreeMap<String, Absence>,
    /// Certificates that are not fit, and why.
    pub unfit: Vec<(&'a str, String)>,
    /// Secrets to pull images with that are not there.
    pub missing_secrets: &'a BTreeSet<String>,
    /// What the custom resource sets and a later release will not know.
    pub deprecated: Vec<Deprecated>,
    /// UpgradePlans that cannot be read, by name.
    pub unread: &'a BTreeSet<String>,
}

/// Everything that speaks against a change, what blocks it first.
pub fn preflight(before: &Before<'_>) -> Vec<Finding> {
    let Before { from, to, objects, rights, unanswered, absent_nodes, unfit, missing_secrets, deprecated, unread } =
        before;
    let mut found = Vec::new();
    for (key, new, live) in objects.iter().filter_map(|(key, new, live)| Some((*key, *new, (*live)?))) {
        found.extend(lost_versions(key, new, live));
        found.extend(fixed_fields(key, new, live));
    }
    found.extend(objects.iter().flat_map(|(key, new, live)| unfit_images(key, new, *live)));
    found.extend(rights.iter().flat_map(|(namespace, rights)| permissions::refused(objects, namespace, rights)));
    if skips(from, to) {
        found.push(Finding::VersionsSkipped { from: (*from).to_owned(), to: (*to).to_owned() });
    }
    found.extend(
        unanswered.iter().map(|(key, why)| Finding::Unanswered { registration: key.to_string(), why: why.clone() }),
    );
    found.extend(
        absent_nodes.iter().map(|(node, absence)| Finding::NodeMissing { node: node.clone(), absence: *absence }),
    );
    found.extend(
        unfit.iter().map(|(secret, why)| Finding::CertificateUnfit { secret: (*secret).to_owned(), why: why.clone() }),
    );
    found.extend(unread.iter().map(|record| Finding::RecordUnread { record: record.clone() }));
    found.extend(missing_secrets.iter().map(|secret| Finding::PullSecretMissing { secret: secret.clone() }));
    // Last: they concern some release to come, and not all findings are told.
    found.extend(
        deprecated
            .iter()
            .map(|Deprecated { field, instead }| Finding::DeprecatedField { field: field.clone(), instead }),
    );
    found.sort_by_key(|finding| !finding.blocks());
    found
}

/// Versions in which objects are stored and which the new definition does not have.
fn lost_versions(key: &ObjectKey, new: &Value, live: &Value) -> Vec<Finding> {
    if key.kind != Kind::CustomResourceDefinition {
        return Vec::new();
    }
    let names = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
    let served: Vec<String> =
        new.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten().filter_map(names).collect();
    let stored = live.pointer("/status/storedVersions").and_then(Value::as_array).into_iter().flatten();
    let stored = stored.filter_map(Value::as_str);
    stored
        .filter(|version| !served.iter().any(|known| known == version))
        .map(|version| Finding::StoredVersionLost { definition: key.name.clone(), version: version.to_owned() })
        .collect()
}

/// Fields that would change although they cannot, and for which the object is not simply made anew.
fn fixed_fields(key: &ObjectKey, new: &Value, live: &Value) -> Vec<Finding> {
    let fields: &[&'static str] = match key.kind {
        Kind::Deployment | Kind::DaemonSet => &["/spec/selector"],
        Kind::CustomResourceDefinition => &["/spec/group", "/spec/scope", "/spec/names/plural", "/spec/names/kind"],
        _ => &[],
    };
    let changes = |field: &&&'static str| {
        let (new, live) = (new.pointer(field), live.pointer(field));
        new.is_some() && live.is_some() && new != live
    };
    fields.iter().filter(changes).map(|field| Finding::ImmutableField { object: key.to_string(), field }).collect()
}

/// Images of a workload that cannot even be asked for. What is live already is nobody's hindrance.
fn unfit_images(key: &ObjectKey, new: &Value, live: Option<&Value>) -> Vec<Finding> {
    if !matches!(key.kind, Kind::Deployment | Kind::DaemonSet) {
        return Vec::new();
    }
    let has = live.map(images).unwrap_or_default();
    let flawed = |image: &str| {
        let why = flaw(image)?;
        Some(Finding::ImageReferenceInvalid { object: key.to_string(), image: image.to_owned(), why })
    };
    images(new).difference(&has).filter_map(|image| flawed(image)).collect()
}

/// The images of a workload's pods, each once; an empty text for a container without one.
fn images(workload: &Value) -> BTreeSet<&str> {
    let containers = |list: &'static str| workload.pointer(list).and_then(Value::as_array).into_iter().flatten();
    let all = containers("/spec/template/spec/initContainers").chain(containers("/spec/template/spec/containers"));
    all.map(|container| container.get("image").and_then(Value::as_str).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(versions: &[&str], stored: &[&str], scope: &str) -> Value {
        let versions: Vec<Value> = versions.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"group": "g", "scope": scope, "versions": versions}, "status": {"storedVersions": stored}})
    }

    fn look(key: &ObjectKey, new: &Value, live: &Value, from: &str, to: &str) -> Vec<&'static str> {
        let before = Before {
            from,
            to,
            objects: vec![(key, new, Some(live))],
            rights: None,
            unanswered: BTreeMap::new(),
            absent_nodes: &BTreeMap::new(),
            unfit: Vec::new(),
            missing_secrets: &BTreeSet::new(),
            deprecated: Vec::new(),
            unread: &BTreeSet::new(),
        };
        preflight(&before).iter().map(Finding::code).collect()
    }

    #[test]
    fn a_version_in_which_objects_are_stored_must_not_go() {
        let key = ObjectKey::new(Kind::CustomResourceDefinition, None, "things.g");
        let live = definition(&["v1alpha1", "v1"], &["v1alpha1", "v1"], "Cluster");
        let look = |new: &Value| look(&key, new, &live, "v1.0.0", "v1.1.0");
        assert_eq!(look(&definition(&["v1"], &[], "Cluster")), ["StoredVersionLost"]);
        assert_eq!(look(&definition(&["v1alpha1", "v1", "v2"], &[], "Cluster")), [""; 0]);
        assert_eq!(look(&definition(&["v1alpha1", "v1"], &[], "Namespaced")), ["ImmutableField"]);
    }

    #[test]
    fn a_selector_is_for_ever() {
        let key = ObjectKey::new(Kind::Deployment, Some("kubevirt"), "virt-api");
        let workload = |label: &str| json!({"spec": {"selector": {"matchLabels": {"kubevirt.io": label}}}});
        let look = |new: &str| look(&key, &workload(new), &workload("virt-api"), "v1.0.0", "v1.1.0");
        assert_eq!(look("virt-api"), [""; 0]);
        assert_eq!(look("other"), ["ImmutableField"]);
    }

    #[test]
    fn an_image_that_no_runtime_would_take_blocks_unless_it_is_there_already() {
        let key = ObjectKey::new(Kind::DaemonSet, Some("kubevirt"), "virt-handler");
        let workload = |image: Value| {
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}],
                "initContainers": [{"name": "b", "image": "r.io/launcher:v1"}]}}}})
        };
        let look = |new: Value| look(&key, &workload(new), &workload(json!("r.io/Old:v1")), "v1.0.0", "v1.1.0");
        assert_eq!(look(json!("r.io/virt-handler:v2")), [""; 0]);
        assert_eq!(look(json!("r.io/virt-handler:v 2")), ["ImageReferenceInvalid"]);
        assert_eq!(look(Value::Null), ["ImageReferenceInvalid"]);
        assert_eq!(look(json!("r.io/Old:v1")), [""; 0]);
    }

    #[test]
    fn what_blocks_comes_first_and_what_can_wait_last() {
        let key = ObjectKey::new(Kind::Deployment, Some("kubevirt"), "virt-api");
        let new = json!({"spec": {"template": {"spec": {"containers": [{"image": "r.io/a:"}]}}}});
        let deprecated = vec![Deprecated { field: "spec.x".to_owned(), instead: "leave it out" }];
        let found = preflight(&Before {
            from: "v1.0.0",
            to: "v1.9.0",
            objects: vec![(&key, &new, None)],
            rights: None,
            unanswered: BTreeMap::new(),
            absent_nodes: &BTreeMap::from([("node".to_owned(), Absence::Cordoned)]),
            unfit: Vec::new(),
            missing_secrets: &BTreeSet::from(["pull".to_owned()]),
            deprecated,
            unread: &BTreeSet::from(["upgrade-7".to_owned()]),
        });
        let codes: Vec<&str> = found.iter().map(Finding::code).collect();
        let expected = [
            "ImageReferenceInvalid",
            "VersionsSkipped",
            "NodeMissing",
            "RecordUnread",
            "PullSecretMissing",
            "DeprecatedField",
        ];
        assert_eq!(codes, expected);
        assert!(found[0].blocks() && found[1..].iter().all(|finding| !finding.blocks()));
    }

    #[test]
    fn versions_that_are_left_out_are_told_but_do_not_block() {
        let key = ObjectKey::new(Kind::ConfigMap, Some("kubevirt"), "x");
        let look = |from: &str, to: &str| look(&key, &json!({}), &json!({}), from, to);
        assert_eq!(look("v1.7.0", "v1.9.1"), ["VersionsSkipped"]);
        assert_eq!(look("v1.8.3", "v1.9.0"), [""; 0]);
        assert_eq!(look("v1.9.0", "v1.7.0"), [""; 0]);
        assert_eq!(look("devel", "v1.7.0"), [""; 0]);
        assert!(!Finding::VersionsSkipped { from: String::new(), to: String::new() }.blocks());
    }
}
