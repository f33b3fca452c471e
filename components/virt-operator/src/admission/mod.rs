//! Admission of the KubeVirt custom resource: what is allowed, refused and warned of. Pure; [`lookup`] fetches the facts
//! and [`serve`] speaks HTTPS.

pub mod customized;
pub mod lookup;
pub mod rules;
pub mod serve;
mod trust;

use kubevirt_api::kubevirt::{KubeVirt, KubeVirtSpec, Phase, UninstallStrategy};
use kubevirt_runtime::admission::{Operation, Review, Verdict};
use serde::Deserialize;
use serde_json::Value;

use self::rules::placed;

/// The paths that the webhook configuration names.
pub const CREATE: &str = "/kubevirt-validate-create";
pub const UPDATE: &str = "/kubevirt-validate-update";
pub const DELETE: &str = "/kubevirt-validate-delete";
/// The path of the registration that keeps new kinds closed.
pub use kubevirt_release::gate::PATH as CLOSED;

/// Kinds whose objects keep an installation that blocks its removal: the plural, and the name in the refusal.
pub const WORKLOADS: [(&str, &str); 3] = [
    ("virtualmachineinstances", "Virtual Machine Instances"),
    ("virtualmachines", "Virtual Machines"),
    ("virtualmachineinstancereplicasets", "Virtual Machine Instance Replica Sets"),
];

/// What has to be looked up before a request can be judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// The custom resources there are.
    pub custom_resources: bool,
    /// Which of [`WORKLOADS`] have objects.
    pub workloads: bool,
    /// Placements that a server must agree to: of the cluster-wide components, and of virt-handler.
    pub infra: Option<Value>,
    pub nodes: Option<Value>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub custom_resources: Vec<Value>,
    /// Of [`WORKLOADS`], the names of those that have objects.
    pub workloads: Vec<&'static str>,
    /// What the server said against a placement, with the part of the spec it stands in.
    pub placements: Vec<(&'static str, String)>,
}

/// A verdict and what the client is told beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub verdict: Verdict,
    pub warnings: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The object says something it may not say.
    Invalid,
    /// The object is well, but now is not the time for it.
    Forbidden,
    /// The facts could not be looked up.
    ServiceUnavailable,
}

impl Denial {
    /// Kubernetes' word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::Forbidden => "Forbidden",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Invalid => 422,
            Self::Forbidden => 403,
            Self::ServiceUnavailable => 503,
        }
    }
}

impl Judgement {
    fn allow() -> Self {
        Self { verdict: Verdict::allow(), warnings: Vec::new() }
    }

    fn deny(denial: Denial, message: String) -> Self {
        let verdict = Verdict::Deny { code: denial.status(), reason: denial.code(), message };
        Self { verdict, warnings: Vec::new() }
    }
}

/// What must be known to judge a review.
pub fn needs(review: &Review) -> Needs {
    match review.operation {
        Operation::Create => Needs { custom_resources: true, ..Needs::default() },
        Operation::Update => match (changed(review), read(&review.object)) {
            (Some(old), Ok(new)) => {
                let placement =
                    |of: fn(&KubeVirtSpec) -> Option<Value>| of(&new.spec).filter(|_| of(&new.spec) != of(&old));
                Needs {
                    infra: placement(|spec| tree(placed(spec.infra.as_ref()))),
                    nodes: placement(|spec| tree(placed(spec.workloads.as_ref()))),
                    ..Needs::default()
                }
            }
            _ => Needs::default(),
        },
        Operation::Delete if review.old_object.is_object() => {
            Needs { workloads: blocks(&review.old_object), ..Needs::default() }
        }
        // A collection is deleted in one request that may carry no object.
        Operation::Delete => Needs { custom_resources: true, workloads: true, ..Needs::default() },
        Operation::Connect => Needs::default(),
    }
}

/// The judgement on a review.
pub fn admit(review: &Review, facts: &Facts) -> Judgement {
    match review.operation {
        Operation::Create => create(review, facts),
        Operation::Update => update(review, facts),
        Operation::Delete => delete(review, facts),
        Operation::Connect => Judgement::allow(),
    }
}

/// The judgement on an object of a kind that a change of version under way brings. Which kinds those are is in the
/// registration; whoever is asked refuses.
pub fn closed(review: &Review) -> Judgement {
    let Review { group, resource, .. } = review;
    let message = format!(
        "{resource}.{group} comes with the version of KubeVirt that is being rolled out, and opens when its virt-api serves. \
         kubectl get upgradeplans says how far that is; try again then"
    );
    Judgement::deny(Denial::ServiceUnavailable, message)
}

fn create(review: &Review, facts: &Facts) -> Judgement {
    let cr = match read(&review.object) {
        Ok(cr) => cr,
        Err(judgement) => return judgement,
    };
    if let Some(found) = refused(&cr.spec, None, &[]) {
        return found;
    }
    if let Some(existing) = facts.custom_resources.first() {
        let text = |pointer: &str| existing.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        return Judgement::deny(
            Denial::Forbidden,
            format!("Kubevirt is already created: {name} in namespace {namespace}"),
        );
    }
    Judgement { warnings: rules::warnings(&cr.spec), ..Judgement::allow() }
}

fn update(review: &Review, facts: &Facts) -> Judgement {
    // What leaves the spec as it is, or ends the object, is nobody's mistake in the spec.
    let Some(old) = changed(review) else { return Judgement::allow() };
    let new = match read(&review.object) {
        Ok(new) => new,
        Err(judgement) => return judgement,
    };
    if let Some(found) = refused(&new.spec, Some(&old), &facts.placements) {
        return found;
    }
    Judgement { warnings: rules::warnings(&new.spec), ..Judgement::allow() }
}

fn delete(review: &Review, facts: &Facts) -> Judgement {
    let namespace = Value::from(review.namespace.as_str());
    let in_namespace = |cr: &&Value| cr.pointer("/metadata/namespace") == Some(&namespace);
    let addressed = if review.old_object.is_object() {
        Some(&review.old_object)
    } else {
        facts.custom_resources.iter().find(in_namespace)
    };
    match facts.workloads.first().filter(|_| addressed.is_some_and(blocks)) {
        Some(left) => Judgement::deny(
            Denial::Forbidden,
            format!(
                "KubeVirt is not removed: there are still {left} present. Delete them first, or set spec.uninstallStrategy to \
             RemoveWorkloads"
            ),
        ),
        None => Judgement::allow(),
    }
}

fn refused(spec: &KubeVirtSpec, old: Option<&KubeVirtSpec>, placements: &[(&str, String)]) -> Option<Judgement> {
    let faults = rules::faults(spec, old).into_iter().map(|fault| fault.to_string());
    let placements = placements.iter().map(|(part, message)| format!("spec.{part}.nodePlacement: {message}"));
    let all: Vec<String> = faults.chain(placements).collect();
    (!all.is_empty()).then(|| Judgement::deny(Denial::Invalid, all.join("; ")))
}

/// Whether the object's removal waits for the users' objects.
fn blocks(cr: &Value) -> bool {
    let Ok(cr) = KubeVirt::deserialize(cr) else { return false };
    let is_deployed = cr.status.as_ref().and_then(|status| status.phase) == Some(Phase::Deployed);
    is_deployed && cr.spec.uninstall() == UninstallStrategy::BlockUninstallIfWorkloadsExist
}

/// The old spec, when an update changes it. One that cannot be read counts as empty: everything in the new one is new.
fn changed(review: &Review) -> Option<KubeVirtSpec> {
    let is_going = review.object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string);
    if is_going || review.object.get("spec") == review.old_object.get("spec") {
        return None;
    }
    Some(KubeVirt::deserialize(&review.old_object).map(|old| old.spec).unwrap_or_default())
}

fn read(object: &Value) -> Result<KubeVirt, Judgement> {
    KubeVirt::deserialize(object)
        .map_err(|error| Judgement::deny(Denial::Invalid, format!("the object cannot be read: {error}")))
}

fn tree(part: Option<&kubevirt_api::kubevirt::NodePlacement>) -> Option<Value> {
    part.and_then(|part| serde_json::to_value(part).ok())
}

#[cfg(test)]
mod tests;
