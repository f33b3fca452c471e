//! Deployments: one ReplicaSet per template, moved from the old ones to the new one by a strategy.

mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::action::{Action, Controller, Decision, Note, View, delete_of, patch_of, status_change};
use crate::cache::{Change, Name, controller_uid};
use crate::kinds::{Kind, Object, Objects};
use crate::ownership::{claim, selector};
use crate::pods::{self, Round, controller_ref, scaled, template_hash};
use crate::replicaset::owners_of;

const COMPONENT: &str = "deployment-controller";
/// The label that tells the pods of one template from those of another.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// Which revision a ReplicaSet or a Deployment is at.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// The controller.
pub struct Deployments;

impl Controller for Deployments {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn is_workload(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::Deployment, Kind::ReplicaSet, Kind::Pod]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::Deployment => vec![change.name.clone()],
            Kind::ReplicaSet => {
                owners_of(change, &objects.deployments, |owner| owner.spec.as_ref().map(|spec| &spec.selector))
            }
            // Only Recreate waits for pods themselves: for the last old one to be gone.
            Kind::Pod if change.new.as_ref().and_then(Object::as_pod).is_none_or(|pod| pods::has_ended(pod)) => {
                let set = change.both().find_map(|object| {
                    let uid = controller_uid(object.meta())?;
                    objects
                        .replica_sets
                        .in_namespace(&change.name.namespace)
                        .find(|set| set.metadata.uid.as_deref() == Some(uid))
                });
                let owner = set.and_then(|set| {
                    set.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
                });
                owner.map(|owner| Name::new(change.name.namespace.clone(), owner.name.clone())).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let Some(deployment) = view.objects.deployments.get(key) else { return Decision::none() };
        decide(view, deployment)
    }
}

/// A Deployment with its ReplicaSets, as one decision sees them.
pub(crate) struct Rollout<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) deployment: &'a Deployment,
    pub(crate) spec: &'a DeploymentSpec,
    pub(crate) replicas: i32,
    /// The set of the current template.
    pub(crate) new: Option<Arc<ReplicaSet>>,
    /// All other sets, oldest first.
    pub(crate) old: Vec<Arc<ReplicaSet>>,
}

impl Rollout<'_> {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(self.new.iter())
    }

    pub(crate) fn surge(&self) -> i32 {
        self.bounds().0
    }

    pub(crate) fn max_unavailable(&self) -> i32 {
        self.bounds().1
    }

    /// Surge and unavailability as numbers. Both zero would stand still, so one may then be unavailable.
    fn bounds(&self) -> (i32, i32) {
        let strategy = self.spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return (0, 0);
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
        let surge = scaled(surge, self.replicas, Round::Up).max(0);
        let unavailable = scaled(unavailable, self.replicas, Round::Down).max(0).min(self.replicas);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }
}

pub(crate) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether two templates differ in nothing but the label that this controller adds.
fn same_template(left: &PodTemplateSpec, right: &PodTemplateSpec) -> bool {
    fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
        let mut template = template.clone();
        if let Some(meta) = &mut template.metadata {
            if let Some(labels) = &mut meta.labels {
                labels.remove(TEMPLATE_HASH);
                if labels.is_empty() {
                    meta.labels = None;
                }
            }
            meta.creation_timestamp = None;
        }
        template
    }
    plain(left) == plain(right)
}

fn decide(view: &View<'_>, deployment: &Deployment) -> Decision {
    let mut decision = Decision::none();
    let Some(spec) = &deployment.spec else { return decision };
    let Some(wanted) = selector(&spec.selector) else { return decision };
    let claim = claim::<Deployment, ReplicaSet>(view.objects, deployment, &wanted);
    decision.actions = claim.actions;
    let mut sets = claim.owned;
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), Name::of(set.as_ref())));
    let new = sets
        .iter()
        .find(|set| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.is_some_and(|template| same_template(template, &spec.template))
        })
        .cloned();
    let old =
        sets.into_iter().filter(|set| new.as_ref().is_none_or(|new| new.metadata.uid != set.metadata.uid)).collect();
    let rollout = Rollout { view, deployment, spec, replicas: spec.replicas.unwrap_or(1).max(0), new, old };
    let mut next = deployment.clone();
    let mut noted = None;
    if deployment.metadata.deletion_timestamp.is_none() {
        if let Some(scaling) = rollout::proportional(&rollout) {
            decision.actions.extend(scaling);
        } else if spec.paused != Some(true) {
            noted = steps(&rollout, &mut next, &mut decision);
        }
    }
    next.status = Some(status::status(&rollout, next.status.take(), noted, &mut decision));
    decision.actions.extend(status_change(deployment, &next));
    decision
}

/// What the status should say about this pass beyond the counts.
pub(crate) enum Noted {
    Created(String),
    Failed(String),
}

fn steps(rollout: &Rollout<'_>, next: &mut Deployment, decision: &mut Decision) -> Option<Noted> {
    let recreate = rollout.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
    if recreate {
        let down: Vec<Action> = rollout.old.iter().filter_map(|set| rollout::resize(rollout, set, 0)).collect();
        if !down.is_empty() {
            decision.actions.extend(down);
            return None;
        }
        if rollout::old_pods_left(rollout) {
            return None;
        }
    }
    let Some(new) = &rollout.new else {
        let initial = if recreate { rollout.replicas } else { rollout::new_size(rollout, 0) };
        return create_new(rollout, initial, next, decision);
    };
    let upkeep = keep_annotations(rollout, new);
    if !upkeep.is_empty() {
        // A patched set has a new version; its size is decided on that.
        decision.actions.extend(upkeep);
        return None;
    }
    if recreate {
        decision.actions.extend(rollout::resize(rollout, new, rollout.replicas));
    } else {
        let up = rollout::resize(rollout, new, rollout::new_size(rollout, size(new)));
        match up {
            Some(up) => decision.actions.push(up),
            None => decision.actions.extend(rollout::shrink_old(rollout)),
        }
    }
    decision.actions.extend(forget_old(rollout));
    None
}

fn create_new(rollout: &Rollout<'_>, replicas: i32, next: &mut Deployment, decision: &mut Decision) -> Option<Noted> {
    let deployment = rollout.deployment;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&rollout.spec.template, collisions);
    let name = format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default());
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    if rollout.view.objects.replica_sets.get(&Name::new(namespace.clone(), name.clone())).is_some() {
        // The name is taken by a set that is not ours or has another template: the next hash is another one.
        next.status.get_or_insert_default().collision_count = Some(collisions.unwrap_or(0) + 1);
        return None;
    }
    let mut template = rollout.spec.template.clone();
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut selector = rollout.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash);
    let revision = rollout.old.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0) + 1;
    let mut annotations = rollout::carried_annotations(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.insert(DESIRED.to_owned(), rollout.replicas.to_string());
    annotations.insert(MAXIMUM.to_owned(), (rollout.replicas + rollout.surge()).to_string());
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: rollout.spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let note = (replicas > 0).then(|| {
        let text = format!("Scaled up replica set {name} from 0 to {replicas}");
        Note::normal(deployment, COMPONENT, "ScalingReplicaSet", text)
    });
    decision.actions.push(Action::Create { object: Object::ReplicaSet(Arc::new(set)), note });
    if let Some(words) = rollout.view.failure {
        return Some(Noted::Failed(words.to_owned()));
    }
    Some(Noted::Created(name))
}

/// Keeps the revision on the current set and on the Deployment, and what a set copies from its Deployment.
fn keep_annotations(rollout: &Rollout<'_>, new: &ReplicaSet) -> Vec<Action> {
    let mut actions = Vec::new();
    let highest_old = rollout.old.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0);
    let own = revision(&new.metadata);
    let target = if own > highest_old { own } else { highest_old + 1 };
    let mut changes = serde_json::Map::new();
    if own != target {
        changes.insert(REVISION.to_owned(), json!(target.to_string()));
        if own > 0 {
            let history = annotation(&new.metadata, REVISION_HISTORY).unwrap_or_default();
            let history = if history.is_empty() { own.to_string() } else { format!("{history},{own}") };
            changes.insert(REVISION_HISTORY.to_owned(), json!(history));
        }
    }
    for (key, value) in rollout::carried_annotations(rollout.deployment) {
        if annotation(&new.metadata, &key) != Some(&value) {
            changes.insert(key, json!(value));
        }
    }
    let mut patch = json!({});
    if !changes.is_empty() {
        patch["metadata"] = json!({"annotations": changes});
    }
    if new.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
        != rollout.spec.min_ready_seconds.unwrap_or(0)
    {
        patch["spec"] = json!({"minReadySeconds": rollout.spec.min_ready_seconds.unwrap_or(0)});
    }
    if patch != json!({}) {
        actions.push(patch_of(new, None, patch));
    }
    if annotation(&rollout.deployment.metadata, REVISION) != Some(&target.to_string()) {
        let patch = json!({"metadata": {"annotations": {REVISION: target.to_string()}}});
        actions.push(patch_of(rollout.deployment, None, patch));
    }
    actions
}

/// Deletes empty old sets beyond the history limit once the rollout is complete.
fn forget_old(rollout: &Rollout<'_>) -> Vec<Action> {
    let Some(limit) = rollout.spec.revision_history_limit else { return Vec::new() };
    if !status::is_complete(rollout) {
        return Vec::new();
    }
    let limit = limit.max(0).unsigned_abs() as usize;
    let mut old: Vec<_> = rollout.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    old.sort_by_key(|set| Reverse(revision(&set.metadata)));
    old.into_iter()
        .skip(limit)
        .filter(|set| {
            let status = set.status.clone().unwrap_or_default();
            size(set) == 0 && status.replicas == 0 && status.observed_generation >= set.metadata.generation
        })
        .map(|set| delete_of(set.as_ref(), None))
        .collect()
}
