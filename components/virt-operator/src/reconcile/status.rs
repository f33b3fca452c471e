//! What the CR's status should say (pure).

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::kubevirt::{
    Condition, ConditionType, ConditionUpdate, GenerationStatus, KubeVirt, KubeVirtStatus, Phase, Reason, Situation,
    enter, find_condition, remove_condition, set_condition,
};
use kubevirt_release::desired::unsupported;
use kubevirt_release::{DeploymentConfig, Kind, ObjectKey};
use kubevirt_upgrade::{Mode, Plan, Report, StepState, WorkloadKind};
use serde_json::Value;

use super::{World, fetch};
use crate::cache::text;
use crate::settings::Settings;

/// The conditions beyond the contract.
const BESIDE: [ConditionType; 5] = [
    ConditionType::CertificatesReady,
    ConditionType::UpgradeBlocked,
    ConditionType::MonitoringReady,
    ConditionType::InstancetypesReady,
    ConditionType::StoredVersionsCurrent,
];

/// How a pass ended.
#[derive(Debug)]
pub(crate) enum Ended<'a> {
    /// The plan after everything that was due has been written.
    Planned {
        config: &'a DeploymentConfig,
        plan: &'a Plan,
        report: &'a Report,
        /// Writes that did not last.
        contested: &'a [String],
        /// Why a change of version stands still.
        held: Option<&'a kubevirt_upgrade::Reason>,
    },
    /// The server refused a write, or no plan could be made.
    Failed {
        config: &'a DeploymentConfig,
        message: String,
    },
    /// The spec can't be followed.
    Refused {
        config: Option<&'a DeploymentConfig>,
        reason: Reason,
        message: String,
        /// How the version that runs instead fares, if it could be kept.
        kept: Option<(&'a Plan, &'a Report)>,
        /// What was begun is being undone.
        returns: bool,
    },
    Deleting {
        message: String,
    },
    /// The removal was refused.
    NotDeleted {
        message: String,
    },
    Deleted,
}

/// The status after a pass. Equal to the old one when nothing is new, times included.
pub(crate) fn status(
    cr: &KubeVirt,
    ended: &Ended<'_>,
    world: &World,
    settings: &Settings,
    now: Timestamp,
) -> KubeVirtStatus {
    let old = cr.status.clone().unwrap_or_default();
    let mut new = old.clone();
    new.operator_version = Some(settings.operator_version().to_owned());
    let given_architecture = cr
        .spec
        .configuration
        .as_ref()
        .and_then(|configuration| configuration.other.get("architectureConfiguration"))
        .and_then(|architectures| text(architectures, "/defaultArchitecture"))
        .filter(|architecture| !architecture.is_empty())
        .map(str::to_owned);
    // Once seen it stays: objects without an architecture were made for that one.
    new.default_architecture =
        given_architecture.or(new.default_architecture).or_else(|| Some(settings.architecture.to_owned()));
    let mut conditions = new.conditions.take().unwrap_or_default();
    match ended {
        Ended::Planned { config, plan, report, contested, held } => {
            set_target(&mut new, config);
            new.generations = Some(generations(world));
            planned(&mut new, &mut conditions, cr, config, &Fares::of(plan, report, world, now), now);
            if let Some(reason) = held.filter(|_| !plan.is_done()) {
                let update =
                    ConditionUpdate::new(ConditionType::Synchronized, false, stands_still(reason), reason.to_string());
                set_condition(&mut conditions, &update, now);
            }
            if !contested.is_empty() {
                let message = format!(
                    "Not as it was written, because something changes it on its way in (an admission webhook or policy): {}",
                    contested.join("; ")
                );
                let update = ConditionUpdate::new(ConditionType::Synchronized, false, Reason::Contested, message);
                set_condition(&mut conditions, &update, now);
            }
        }
        Ended::Failed { config, message } => {
            set_target(&mut new, config);
            new.phase = Some(new.phase.unwrap_or(Phase::Deploying));
            enter(&Situation::Failed { message: message.clone() }, &mut conditions, now);
        }
        Ended::Refused { config, reason, message, kept, returns } => {
            if let Some(config) = config {
                set_target(&mut new, config);
            }
            new.phase = Some(new.phase.unwrap_or(Phase::Deploying));
            refused(&mut conditions, *reason, message, now);
            if let Some((plan, report)) = kept {
                keeps_running(&mut conditions, &Fares::of(plan, report, world, now), now);
                if *returns {
                    returning(&mut conditions, plan, report, *reason, message, now);
                }
            }
        }
        Ended::Deleting { message } => {
            new.phase = Some(Phase::Deleting);
            enter(&Situation::Deleting, &mut conditions, now);
            say(&mut conditions, ConditionType::Progressing, message);
        }
        Ended::NotDeleted { message } => {
            new.phase = Some(Phase::Deleting);
            enter(&Situation::DeletionFailed { message: message.clone() }, &mut conditions, now);
        }
        Ended::Deleted => {
            new.phase = Some(Phase::Deleted);
            enter(&Situation::Deleting, &mut conditions, now);
        }
    }
    match ended {
        Ended::Planned { .. } => {
            remove_condition(&mut conditions, ConditionType::UpgradeBlocked);
            // It is there only while it says something, and stays as it is where nothing of this was looked at.
            if !world.beside.is_empty() {
                remove_condition(&mut conditions, ConditionType::StoredVersionsCurrent);
            }
            for update in &world.beside {
                set_condition(&mut conditions, update, now);
            }
        }
        Ended::Deleting { .. } | Ended::NotDeleted { .. } | Ended::Deleted => {
            for kind in BESIDE {
                remove_condition(&mut conditions, kind);
            }
        }
        // A version is complete, and another one is asked for that cannot be followed: a person has to change the spec.
        Ended::Refused { reason, message, .. } if changes_version(&new) => {
            let update = ConditionUpdate::new(ConditionType::UpgradeBlocked, true, *reason, message);
            set_condition(&mut conditions, &update, now);
        }
        // The others are not looked at then.
        Ended::Failed { .. } | Ended::Refused { .. } => {}
    }
    new.conditions = Some(settled(old.conditions.as_deref().unwrap_or_default(), conditions));
    new
}

fn planned(
    new: &mut KubeVirtStatus,
    conditions: &mut Vec<Condition>,
    cr: &KubeVirt,
    config: &DeploymentConfig,
    fares: &Fares<'_>,
    now: Timestamp,
) {
    let Fares { plan, report, is_down } = *fares;
    if plan.is_done() {
        new.phase = Some(Phase::Deployed);
        new.observed_generation = cr.metadata.generation;
        new.observed_kube_virt_version = new.target_kube_virt_version.clone();
        new.observed_kube_virt_registry = new.target_kube_virt_registry.clone();
        new.observed_deployment_id = new.target_deployment_id.clone();
        new.observed_deployment_config = Some(config.to_json());
        enter(&Situation::Ready, conditions, now);
    } else {
        new.phase = Some(new.phase.filter(|phase| *phase == Phase::Deployed).unwrap_or(Phase::Deploying));
        let was_available = is_true(conditions, ConditionType::Available);
        let changes_version = changes_version(new);
        if changes_version || matches!(plan.mode(), Mode::Update | Mode::Rollback) {
            enter(&Situation::Updating, conditions, now);
        } else if plan.mode() == Mode::Keep && was_available && !is_down {
            // A repair, a new pod, a changed setting: what users call still answers.
            let update =
                |kind, status| ConditionUpdate::new(kind, status, Reason::DeploymentInProgress, report.message());
            set_condition(conditions, &update(ConditionType::Progressing, true), now);
        } else {
            enter(&Situation::Installing, conditions, now);
        }
        say(conditions, ConditionType::Progressing, &report.message());
        if plan.is_applied() && !changes_version {
            enter(&Situation::ResourcesCreated, conditions, now);
        }
    }
    let objects = plan.steps().iter().flat_map(|step| step.objects.iter().cloned());
    // It is no part of a version, and may be changed all the same.
    let job = ObjectKey::new(Kind::Job, cr.metadata.namespace.as_deref(), fetch::NAME);
    let keys: Vec<ObjectKey> = objects.chain([job]).collect();
    let passed_over: Vec<String> = unsupported(&cr.spec, &keys).iter().map(ToString::to_string).collect();
    if !passed_over.is_empty() {
        let update =
            ConditionUpdate::new(ConditionType::Synchronized, false, Reason::NotSupported, passed_over.join("; "));
        set_condition(conditions, &update, now);
    }
}

/// Whether another version is asked for than the one that was last complete.
fn changes_version(status: &KubeVirtStatus) -> bool {
    let observed = status.observed_deployment_id.as_ref();
    observed.is_some_and(|id| !id.is_empty()) && status.observed_deployment_id != status.target_deployment_id
}

/// What runs is left as it is, and so is what the conditions say about it. On an empty cluster nothing is available.
fn refused(conditions: &mut Vec<Condition>, reason: Reason, message: &str, now: Timestamp) {
    enter(&Situation::Refused { reason, message: message.to_owned() }, conditions, now);
    let mut set = |kind, status| {
        set_condition(conditions, &ConditionUpdate::new(kind, status, reason, message), now);
    };
    set(ConditionType::Progressing, false);
    if !is_true(conditions, ConditionType::Available) {
        let mut set = |kind, status| {
            set_condition(conditions, &ConditionUpdate::new(kind, status, reason, message), now);
        };
        set(ConditionType::Available, false);
        set(ConditionType::Degraded, false);
    }
}

/// Why a change of version stands still, in the words of the conditions.
fn stands_still(reason: &kubevirt_upgrade::Reason) -> Reason {
    match reason {
        kubevirt_upgrade::Reason::Paused { .. } => Reason::UpgradePaused,
        kubevirt_upgrade::Reason::Aborted => Reason::UpgradeAborted,
        _ => Reason::UpgradeBlocked,
    }
}

/// On the way back the conditions are those of a change of version; when it is over, what runs is whole.
fn returning(
    conditions: &mut Vec<Condition>,
    plan: &Plan,
    report: &Report,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    let (is_under_way, reason, message) = if plan.is_done() {
        (false, reason, message.to_owned())
    } else {
        (true, Reason::UpdateInProgress, report.message())
    };
    for kind in [ConditionType::Progressing, ConditionType::Degraded] {
        set_condition(conditions, &ConditionUpdate::new(kind, is_under_way, reason, message.clone()), now);
    }
}

/// What runs may fail, be repaired and recover while the spec is refused.
fn keeps_running(conditions: &mut Vec<Condition>, fares: &Fares<'_>, now: Timestamp) {
    let Fares { plan, report, is_down } = *fares;
    let update = if plan.is_done() {
        ConditionUpdate::new(ConditionType::Available, true, Reason::AllComponentsReady, "Every component is ready")
    } else if is_down {
        ConditionUpdate::new(ConditionType::Available, false, Reason::DeploymentInProgress, report.message())
    } else {
        return;
    };
    set_condition(conditions, &update, now);
}

/// How a version that is brought about fares.
struct Fares<'a> {
    plan: &'a Plan,
    report: &'a Report,
    is_down: bool,
}

impl<'a> Fares<'a> {
    fn of(plan: &'a Plan, report: &'a Report, world: &World, now: Timestamp) -> Self {
        Self { plan, report, is_down: is_down(plan, world, now) }
    }
}

/// How long the only pod of a DaemonSet may take to start before its node counts as without it: new settings replace the
/// pod where it is, so on a cluster of one node none answers for the moment this takes.
const STARTS: SignedDuration = SignedDuration::from_secs(60);

/// Whether some workload has nothing that answers. One that has to be written anew was deleted or changed by somebody;
/// how it fares shows when it has been written.
fn is_down(plan: &Plan, world: &World, now: Timestamp) -> bool {
    plan.steps().iter().filter(|step| step.slot.is_workload()).any(|step| {
        let reasons = match &step.state {
            StepState::Waiting(reasons) => reasons.as_slice(),
            StepState::Done | StepState::Now => &[],
        };
        reasons.iter().any(|reason| match reason {
            kubevirt_upgrade::Reason::NotReady { ready: 0, wanted, kind, .. } => {
                *wanted > 0 && !(*kind == WorkloadKind::DaemonSet && starts(reasons, world, now))
            }
            _ => false,
        })
    })
}

/// Whether a pod that is waited for was made a moment ago.
fn starts(reasons: &[kubevirt_upgrade::Reason], world: &World, now: Timestamp) -> bool {
    reasons.iter().any(|reason| match reason {
        kubevirt_upgrade::Reason::PodNotReady { pod, .. } => {
            let since = world.pods.get(pod.as_str()).and_then(|pod| pod.since);
            since.is_some_and(|since| now.duration_since(since) < STARTS)
        }
        _ => false,
    })
}

fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find_condition(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// Gives a condition a better sentence than its situation has.
fn say(conditions: &mut [Condition], kind: ConditionType, message: &str) {
    if let Some(condition) = conditions.iter_mut().find(|condition| condition.condition_type == kind.as_str()) {
        condition.message = Some(message.to_owned());
    }
}

/// Conditions that say what they said before keep their times, so that an unchanged status is an equal one.
fn settled(old: &[Condition], new: Vec<Condition>) -> Vec<Condition> {
    new.into_iter()
        .map(|condition| {
            let same = old.iter().find(|old| {
                old.condition_type == condition.condition_type
                    && old.status == condition.status
                    && old.reason == condition.reason
                    && old.message == condition.message
            });
            same.cloned().unwrap_or(condition)
        })
        .collect()
}

fn set_target(status: &mut KubeVirtStatus, config: &DeploymentConfig) {
    status.target_kube_virt_version = Some(config.kubevirt_version.clone());
    status.target_kube_virt_registry = Some(config.registry.clone());
    status.target_deployment_id = Some(config.id());
    status.target_deployment_config = Some(config.to_json());
}

/// The generations of the kinds that clients look for here, with the group names they know.
fn generations(world: &World) -> Vec<GenerationStatus> {
    let group = |kind: Kind| match kind {
        Kind::CustomResourceDefinition => Some("apiextensions.k8s.io/v1"),
        Kind::Deployment | Kind::DaemonSet | Kind::PodDisruptionBudget => Some("apps"),
        Kind::ValidatingWebhookConfiguration | Kind::MutatingWebhookConfiguration => {
            Some("admissionregistration.k8s.io")
        }
        _ => None,
    };
    world
        .objects
        .iter()
        .filter(|(_, live)| super::snapshot::is_stamped(live) && text(live, "/metadata/deletionTimestamp").is_none())
        .filter_map(|(key, live)| {
            Some(GenerationStatus {
                other: Default::default(),
                group: group(key.kind)?.to_owned(),
                resource: key.kind.plural().to_owned(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                last_generation: live.pointer("/metadata/generation").and_then(Value::as_i64)?,
                hash: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
