//! Step 5 (client required): writes what changed of the CR's status and metadata, and tells of turning points in events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kubevirt_api::kubevirt::{ConditionType, KubeVirt, KubeVirtStatus, Phase, Reason, STORAGE_VERSION, find_condition};
use kubevirt_api::names::{annotation, finalizer};
use kubevirt_apply::{Error, Writer};
use kubevirt_release::{Kind, ObjectKey};
use serde_json::{Map, Value, json};

use crate::cache::{Cache, text};

/// The CR's key.
pub(crate) fn key(cr: &Value) -> ObjectKey {
    ObjectKey::new(Kind::KubeVirt, text(cr, "/metadata/namespace"), text(cr, "/metadata/name").unwrap_or_default())
}

/// Whether the operator's finalizer should be on the CR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finalizer {
    Keep,
    Remove,
}

/// The change to the CR's metadata: the annotations that say with which API version it was last looked at, and the
/// finalizer under its current name. `None` when it is as it should be.
pub(crate) fn metadata_changes(cr: &Value, wanted: Finalizer) -> Option<Value> {
    let mut metadata = Map::new();
    let annotations = cr.pointer("/metadata/annotations");
    let is_stamped = |name: &str| annotations.and_then(|all| all.get(name)?.as_str()) == Some(STORAGE_VERSION);
    let missing: Map<String, Value> =
        [annotation::LATEST_OBSERVED_API_VERSION, annotation::STORAGE_OBSERVED_API_VERSION]
            .into_iter()
            .filter(|name| !is_stamped(name))
            .map(|name| (name.to_owned(), Value::from(STORAGE_VERSION)))
            .collect();
    if !missing.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(missing));
    }
    let old: Vec<&str> = cr
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let mut new: Vec<&str> =
        old.iter().copied().filter(|name| ![finalizer::KUBEVIRT, finalizer::KUBEVIRT_OLD].contains(name)).collect();
    if wanted == Finalizer::Keep {
        new.push(finalizer::KUBEVIRT);
    }
    let is_same = old.len() == new.len() && new.iter().all(|name| old.contains(name));
    if !is_same {
        metadata.insert("finalizers".to_owned(), json!(new));
    }
    if metadata.is_empty() {
        return None;
    }
    metadata.insert("resourceVersion".to_owned(), cr.pointer("/metadata/resourceVersion").cloned().unwrap_or_default());
    Some(json!({"metadata": metadata}))
}

/// The change to the CR's status; fields the operator does not know or does not own are left alone.
pub(crate) fn status_changes(cr: &Value, old: &KubeVirtStatus, new: &KubeVirtStatus) -> Option<Value> {
    let tree = |status: &KubeVirtStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (tree(old), tree(new));
    let mut changes: Map<String, Value> =
        new.iter().filter(|(name, value)| old.get(*name) != Some(value)).map(|(n, v)| (n.clone(), v.clone())).collect();
    changes.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null)));
    if changes.is_empty() {
        return None;
    }
    let version = cr.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    Some(json!({"metadata": {"resourceVersion": version}, "status": changes}))
}

/// Writes the CR's metadata if it needs to change. The live CR afterwards.
///
/// # Errors
/// The write failed, or the CR has changed since it was seen; the next pass looks again.
pub(crate) async fn update_metadata(
    cr: &Value,
    wanted: Finalizer,
    writer: &Writer,
    cache: &Cache,
) -> Result<Option<Value>, Error> {
    let Some(changes) = metadata_changes(cr, wanted) else {
        return Ok(None);
    };
    let written = writer.merge(&key(cr), None, &changes).await?;
    if let Some(live) = &written.live
        && wanted == Finalizer::Keep
    {
        cache.store(key(cr), live.clone());
    }
    Ok(written.live)
}

/// Writes the status if it changed, then the events that follow from the change.
///
/// # Errors
/// As for [`update_metadata`].
pub(crate) async fn update_status(
    cr: &KubeVirt,
    live: &Value,
    new: &KubeVirtStatus,
    now: Timestamp,
    writer: &Writer,
    cache: &Cache,
) -> Result<(), Error> {
    let old = cr.status.clone().unwrap_or_default();
    let Some(changes) = status_changes(live, &old, new) else {
        return Ok(());
    };
    let key = key(live);
    let written = writer.merge(&key, Some("status"), &changes).await?;
    if let Some(live) = written.live {
        cache.store(key.clone(), live);
    }
    let notes = notes(&old, new).into_iter().chain(advanced(cr, &old, new));
    for (index, note) in notes.enumerate() {
        // The status is what counts; an event that could not be written is only missed by its reader.
        if let Err(error) = writer.record(&key, &event(live, &note, index, now)).await {
            tracing::warn!(%error, reason = note.reason.code(), "an event was not written");
        }
    }
    Ok(())
}

/// A turning point worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) warning: bool,
    pub(crate) reason: Turn,
    pub(crate) message: String,
}

/// Which turning point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    InstallationStarted,
    InstallationFinished,
    UpgradeStarted,
    UpgradeFinished,
    DeletionStarted,
    DeletionFinished,
    NotSynchronized,
    UpgradeRolledBack,
    AdvancedFeatureUse,
    /// A condition beyond the contract says that something needs attention; its reason is the event's.
    NeedsAttention(Reason),
}

impl Turn {
    /// The event's reason.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NeedsAttention(reason) => reason.as_str(),
            Self::InstallationStarted => "InstallationStarted",
            Self::InstallationFinished => "InstallationFinished",
            Self::UpgradeStarted => "UpgradeStarted",
            Self::UpgradeFinished => "UpgradeFinished",
            Self::DeletionStarted => "DeletionStarted",
            Self::DeletionFinished => "DeletionFinished",
            Self::NotSynchronized => "NotSynchronized",
            Self::UpgradeRolledBack => "UpgradeRolledBack",
            Self::AdvancedFeatureUse => "AdvancedFeatureUse",
        }
    }
}

/// Reasons of conditions beyond the contract that somebody should know of who reads events.
const ATTENTION: &[(ConditionType, Reason)] = &[
    (ConditionType::CertificatesReady, Reason::CertificateMissing),
    (ConditionType::CertificatesReady, Reason::CertificateExpiringSoon),
    (ConditionType::CertificatesReady, Reason::CertificateExpired),
    (ConditionType::CertificatesReady, Reason::CertificateNotVerifiable),
    (ConditionType::MonitoringReady, Reason::MonitoringRefused),
    (ConditionType::InstancetypesReady, Reason::InstancetypesRefused),
    (ConditionType::StoredVersionsCurrent, Reason::StorageMigrationRefused),
];

/// What happened between two states of the status.
pub(crate) fn notes(old: &KubeVirtStatus, new: &KubeVirtStatus) -> Vec<Note> {
    let reason_of = |status: &KubeVirtStatus, kind: &str| {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.condition_type == kind).and_then(|c| c.reason.clone())
    };
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let (from, to) = (version(&old.observed_kube_virt_version), version(&new.target_kube_virt_version));
    let note = |reason, message| Note { warning: false, reason, message };
    let mut notes = Vec::new();
    let (was, is) = (reason_of(old, "Progressing"), reason_of(new, "Progressing"));
    if was != is {
        match is.as_deref() {
            Some("DeploymentInProgress") if from.is_empty() => {
                notes.push(note(Turn::InstallationStarted, format!("Installing {to}")));
            }
            Some("UpdateInProgress") => {
                notes.push(note(Turn::UpgradeStarted, format!("Changing from {from} to {to}")));
            }
            Some("AllComponentsReady") if from.is_empty() => {
                notes.push(note(Turn::InstallationFinished, format!("{to} is installed and ready")));
            }
            Some("AllComponentsReady") if was.as_deref() == Some("UpdateInProgress") => {
                notes.push(note(Turn::UpgradeFinished, format!("Changed from {from} to {to}")));
            }
            Some("DeletionInProgress") => notes.push(note(Turn::DeletionStarted, "Removing all components".to_owned())),
            _ => {}
        }
    }
    let (was, is) = (reason_of(old, "Synchronized"), reason_of(new, "Synchronized"));
    if was != is
        && let Some(reason) = is
    {
        let conditions = new.conditions.as_deref().unwrap_or_default();
        let condition = conditions.iter().find(|condition| condition.condition_type == "Synchronized");
        let turn = if reason == "UpgradeRolledBack" { Turn::UpgradeRolledBack } else { Turn::NotSynchronized };
        let message = condition.and_then(|condition| condition.message.clone()).unwrap_or(reason);
        notes.push(Note { warning: true, reason: turn, message });
    }
    for (kind, reason) in ATTENTION {
        let condition = kind.as_str();
        if reason_of(new, condition).as_deref() == Some(reason.as_str())
            && reason_of(old, condition) != reason_of(new, condition)
        {
            let conditions = new.conditions.as_deref().unwrap_or_default();
            let message = find_condition(conditions, *kind).and_then(|condition| condition.message.clone());
            let reason = Turn::NeedsAttention(*reason);
            notes.push(Note { warning: true, reason, message: message.unwrap_or_default() });
        }
    }
    if new.phase == Some(Phase::Deleted) && old.phase != Some(Phase::Deleted) {
        notes.push(note(Turn::DeletionFinished, "All components are removed".to_owned()));
    }
    notes
}

/// A setting for those who know why they need it, told once for each generation of the CR that has it.
fn advanced(cr: &KubeVirt, old: &KubeVirtStatus, new: &KubeVirtStatus) -> Option<Note> {
    let replicas = cr.spec.infra.as_ref().and_then(|infra| infra.replicas)?;
    let message = format!(
        "spec.infra.replicas is {replicas}: the number of pods no longer follows the size of the cluster. Leave it out \
         unless you know why it is needed"
    );
    let is_new = new.observed_generation != old.observed_generation;
    is_new.then_some(Note { warning: true, reason: Turn::AdvancedFeatureUse, message })
}

fn event(cr: &Value, note: &Note, index: usize, now: Timestamp) -> Event {
    /// The longest message the API takes.
    const LONGEST: usize = 1024;
    let own = |pointer: &str| text(cr, pointer).map(str::to_owned);
    let name = text(cr, "/metadata/name").unwrap_or_default();
    let message: String = note.message.chars().take(LONGEST).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}{index}", now.as_microsecond())),
            namespace: own("/metadata/namespace"),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(format!("kubevirt.io/{STORAGE_VERSION}")),
            kind: Some("KubeVirt".to_owned()),
            name: own("/metadata/name"),
            namespace: own("/metadata/namespace"),
            uid: own("/metadata/uid"),
            resource_version: own("/metadata/resourceVersion"),
            ..ObjectReference::default()
        },
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.code().to_owned()),
        message: Some(message),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        reporting_component: Some("virt-operator".to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_has_one_name_and_foreign_ones_stay() {
        let cr = json!({"metadata": {
            "resourceVersion": "7",
            "annotations": {"kubevirt.io/latest-observed-api-version": "v1",
                            "kubevirt.io/storage-observed-api-version": "v1"},
            "finalizers": ["foregroundDeleteKubeVirt", "example.com/other"],
        }});
        let changes = metadata_changes(&cr, Finalizer::Keep).expect("a change");
        assert_eq!(changes["metadata"]["finalizers"], json!(["example.com/other", finalizer::KUBEVIRT]));
        assert_eq!(changes["metadata"]["resourceVersion"], "7");
        assert_eq!(changes["metadata"].get("annotations"), None);
        let mut done = cr;
        done["metadata"]["finalizers"] = changes["metadata"]["finalizers"].clone();
        assert_eq!(metadata_changes(&done, Finalizer::Keep), None);
        let changes = metadata_changes(&done, Finalizer::Remove).expect("a change");
        assert_eq!(changes["metadata"]["finalizers"], json!(["example.com/other"]));
    }

    #[test]
    fn only_what_changed_is_sent_and_others_fields_are_not_touched() {
        let cr = json!({"metadata": {"resourceVersion": "7"}});
        let old = KubeVirtStatus { operator_version: Some("v1".to_owned()), ..KubeVirtStatus::default() };
        let new = KubeVirtStatus {
            operator_version: Some("v2".to_owned()),
            outdated_virtual_machine_instance_workloads: old.outdated_virtual_machine_instance_workloads,
            ..KubeVirtStatus::default()
        };
        assert_eq!(
            status_changes(&cr, &old, &new),
            Some(json!({"metadata": {"resourceVersion": "7"}, "status": {"operatorVersion": "v2"}}))
        );
        assert_eq!(status_changes(&cr, &new, &new), None);
    }
}
