//! Conditions of the KubeVirt CR: their names, and what each situation of the installation means for them.
//!
//! The time is handed in. Nothing here is written when nothing changed.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::textless;
use crate::AsGiven;

/// One condition as it is stored. Types and reasons are text, since another operator may have written them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "textless::<Option<Time>>")]
    pub last_probe_time: Option<Time>,
    /// Null until the condition changes for the first time.
    #[serde(default)]
    #[schemars(schema_with = "textless::<Option<Time>>")]
    pub last_transition_time: Option<Time>,
    /// Fields this release does not know, kept as they are. The schema knows none.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: AsGiven,
}

macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident, )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )* }

        impl $name {
            /// The word clients match.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => stringify!($variant), )* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    pub enum ConditionType {
        Available,
        Progressing,
        Degraded,
        Created,
        /// Only ever present as False: the spec is not being followed.
        Synchronized,
        /// Beyond the contract: every certificate is one that clients accept.
        CertificatesReady,
        /// Beyond the contract, and only ever present as True: a change of version waits for a person.
        UpgradeBlocked,
        /// Beyond the contract: Prometheus has what it needs.
        MonitoringReady,
        /// Beyond the contract: the common instance types and preferences are as asked for.
        InstancetypesReady,
        /// Beyond the contract, and only ever present as False: objects may be stored in a version that is not their
        /// definition's storage version any more.
        StoredVersionsCurrent,
    }
}

words! {
    pub enum ConditionStatus {
        True,
        False,
        Unknown,
    }
}

words! {
    /// Why a condition is as it is. The first group is the contract; the second is our own and names what is refused.
    pub enum Reason {
        DeploymentInProgress,
        UpdateInProgress,
        AllResourcesCreated,
        AllComponentsReady,
        ExistingDeployment,
        DeploymentFailed,
        DeletionInProgress,
        DeletionFailed,

        /// The named version can't be had: no strategy, and no image to make one.
        TargetUnavailable,
        /// The named version's strategy is being got.
        StrategyPending,
        /// The spec asks for something this operator does not do.
        NotSupported,
        /// The spec contradicts itself.
        InvalidSpec,
        /// Not everything there is could be listed yet.
        CacheNotSynced,
        /// What was written does not last: somebody changes it on its way in.
        Contested,
        /// A change of `customizeComponents` can't be made.
        CustomizationRefused,
        /// The upgrade waits for something a person has to decide or repair.
        UpgradeBlocked,

        CertificatesValid,
        /// A new authority is published and does not sign everything yet.
        AuthorityRotating,
        CertificateMissing,
        /// A certificate was to be renewed and was not.
        CertificateExpiringSoon,
        CertificateExpired,
        /// No published authority vouches for a certificate.
        CertificateNotVerifiable,

        MonitoringDeployed,
        /// The cluster has no Prometheus operator.
        MonitoringNotServed,
        /// Prometheus' account is in none of the namespaces that are looked at.
        MonitorAccountMissing,
        /// The objects for Prometheus are still to be written.
        MonitoringPending,
        /// The server refused an object for Prometheus.
        MonitoringRefused,

        InstancetypesDeployed,
        /// The spec leaves them out.
        InstancetypesDisabled,
        /// They are still to be written.
        InstancetypesPending,
        /// The server refused one.
        InstancetypesRefused,

        /// Objects are stored anew when the change of version is over, or nothing is paused any more.
        StorageMigrationWaits,
        StorageMigrationInProgress,
        /// An object could not be stored anew.
        StorageMigrationRefused,

        /// Somebody wants the upgrade to stand still.
        UpgradePaused,
        /// Somebody ended the upgrade where it was.
        UpgradeAborted,
        /// The version asked for did not work, or was taken back; the one before is held.
        UpgradeRolledBack,
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    pub condition_type: ConditionType,
    pub status: ConditionStatus,
    pub reason: Reason,
    pub message: String,
}

impl ConditionUpdate {
    pub fn new(
        condition_type: ConditionType,
        status: impl Into<ConditionStatus>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { condition_type, status: status.into(), reason, message: message.into() }
    }
}

/// The condition of a type.
pub fn find_condition(conditions: &[Condition], condition_type: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.condition_type == condition_type.as_str())
}

/// Brings one condition to what it should say; tells whether anything changed.
///
/// A new condition gets `lastProbeTime` only. A changed one gets both times. An unchanged one is left as it is.
pub fn set_condition(conditions: &mut Vec<Condition>, update: &ConditionUpdate, now: Timestamp) -> bool {
    let ConditionUpdate { condition_type, status, reason, message } = update;
    let message = Some(message.clone()).filter(|m| !m.is_empty());
    let reason = Some(reason.to_string());
    match conditions.iter_mut().find(|c| c.condition_type == condition_type.as_str()) {
        None => {
            conditions.push(Condition {
                condition_type: condition_type.to_string(),
                status: status.to_string(),
                reason,
                message,
                last_probe_time: Some(Time(now)),
                last_transition_time: None,
                other: AsGiven::new(),
            });
            true
        }
        Some(c) if c.status == status.as_str() && c.reason == reason && c.message == message => false,
        Some(c) => {
            c.status = status.to_string();
            c.reason = reason;
            c.message = message;
            c.last_probe_time = Some(Time(now));
            c.last_transition_time = Some(Time(now));
            true
        }
    }
}

/// Takes a condition away; tells whether it was there.
pub fn remove_condition(conditions: &mut Vec<Condition>, condition_type: ConditionType) -> bool {
    let before = conditions.len();
    conditions.retain(|c| c.condition_type != condition_type.as_str());
    conditions.len() != before
}

/// Where a pass of the operator found the installation. Each maps to a fixed set of conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Situation {
    /// Not everything is there or ready, and no other version is being left.
    Installing,
    /// Another version is observed than is wanted.
    Updating,
    /// Every object is as it should be; pods may still be starting.
    ResourcesCreated,
    /// Everything is there and ready.
    Ready,
    /// A pass failed.
    Failed {
        message: String,
    },
    /// The spec can't be followed and nothing was changed: the running suite is as it was.
    Refused {
        reason: Reason,
        message: String,
    },
    /// This CR is not the one that is followed.
    NotFollowed {
        message: String,
    },
    Deleting,
    DeletionFailed {
        message: String,
    },
}

/// Brings the conditions to what a situation means; tells whether anything changed.
///
/// `Updating` keeps `Available` true next to `Progressing` and `Degraded`: clients recognize an upgrade by these three.
pub fn enter(situation: &Situation, conditions: &mut Vec<Condition>, now: Timestamp) -> bool {
    use ConditionType::{Available, Created, Degraded, Progressing, Synchronized};
    let mut changed = false;
    let mut set = |condition_type, status: bool, reason, message: &str| {
        changed |= set_condition(conditions, &ConditionUpdate::new(condition_type, status, reason, message), now);
    };
    let mut removed: &[ConditionType] = &[];
    match situation {
        Situation::Installing => {
            let (reason, message) = (Reason::DeploymentInProgress, "Components are being installed");
            set(Available, false, reason, message);
            set(Progressing, true, reason, message);
            set(Degraded, false, reason, message);
            removed = &[Synchronized];
        }
        Situation::Updating => {
            let (reason, message) = (Reason::UpdateInProgress, "Components are changing to another version");
            set(Available, true, reason, message);
            set(Progressing, true, reason, message);
            set(Degraded, true, reason, message);
            removed = &[Created, Synchronized];
        }
        Situation::ResourcesCreated => set(Created, true, Reason::AllResourcesCreated, "Every object is in place"),
        Situation::Ready => {
            let (reason, message) = (Reason::AllComponentsReady, "Every component is ready");
            set(Available, true, reason, message);
            set(Progressing, false, reason, message);
            set(Degraded, false, reason, message);
            set(Created, true, Reason::AllResourcesCreated, "Every object is in place");
            removed = &[Synchronized];
        }
        Situation::Failed { message } => {
            set(Available, false, Reason::DeploymentFailed, message);
            set(Progressing, false, Reason::DeploymentFailed, message);
            set(Degraded, true, Reason::DeploymentFailed, message);
            set(Synchronized, false, Reason::DeploymentFailed, message);
        }
        Situation::Refused { reason, message } => set(Synchronized, false, *reason, message),
        Situation::NotFollowed { message } => set(Synchronized, false, Reason::ExistingDeployment, message),
        Situation::Deleting | Situation::DeletionFailed { .. } => {
            let (reason, text) = (Reason::DeletionInProgress, "Components are being removed");
            set(Available, false, reason, text);
            set(Progressing, false, reason, text);
            set(Degraded, true, reason, text);
            match situation {
                Situation::DeletionFailed { message } => {
                    set(Synchronized, false, Reason::DeletionFailed, message);
                    removed = &[Created];
                }
                _ => removed = &[Created, Synchronized],
            }
        }
    }
    for condition_type in removed {
        changed |= remove_condition(conditions, *condition_type);
    }
    changed
}
