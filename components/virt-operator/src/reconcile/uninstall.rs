//! Taking everything away again (pure): which objects go next. It needs no strategy, only what is there.

use kubevirt_release::render::VALIDATOR;
use kubevirt_release::{Kind, ObjectKey, Phase};

use super::World;
use super::snapshot::is_stamped;
use crate::backends::registers;
use crate::cache::text;

/// A stage of the uninstallation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// What is still to be deleted.
    pub(crate) delete: Vec<ObjectKey>,
    /// What was deleted and is still there.
    pub(crate) going: Vec<ObjectKey>,
    /// Pods of the suite that still run or drain; until they are gone they need their accounts, roles and Secrets.
    pub(crate) pods: Vec<String>,
}

/// The first stage that is not finished; `None` when nothing of ours is left.
///
/// Users' objects go first, with their definitions, while the components that clean up after them still run.
pub(crate) fn stage(world: &World) -> Option<Stage> {
    /// Whether an object belongs to a stage.
    type Belongs = fn(&ObjectKey) -> bool;
    const STAGES: [(&str, Belongs); 6] = [
        // The CR is changed once more when everything is gone; by then nobody could answer for it.
        ("the operator's own webhooks", |key| registers(key.kind) && key.name == VALIDATOR),
        ("custom resources with their definitions", |key| key.kind == Kind::CustomResourceDefinition),
        ("webhooks and aggregated APIs", |key| key.kind.phase() == Phase::Admission),
        (WORKLOADS, |key| key.kind.phase() == Phase::Workloads),
        ("services, certificates, configuration", |key| {
            !matches!(key.kind, Kind::CustomResourceDefinition)
                && !matches!(key.kind.phase(), Phase::Admission | Phase::Workloads | Phase::Access)
        }),
        ("accounts and roles", |key| key.kind.phase() == Phase::Access),
    ];
    STAGES.iter().find_map(|(name, belongs)| {
        let ours = world.objects.iter().filter(|(key, live)| belongs(key) && is_stamped(live));
        let (going, delete): (Vec<_>, Vec<_>) =
            ours.partition(|(_, live)| text(live, "/metadata/deletionTimestamp").is_some());
        let keys = |found: Vec<(&ObjectKey, &_)>| found.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let pods = if *name == WORKLOADS { pods(world) } else { Vec::new() };
        let stage = Stage { name, delete: keys(delete), going: keys(going), pods };
        let open = !stage.delete.is_empty() || !stage.going.is_empty() || !stage.pods.is_empty();
        open.then_some(stage)
    })
}

const WORKLOADS: &str = "workloads";

/// The suite's pods, the operator's own left out: only those of a strategy carry its identifier.
fn pods(world: &World) -> Vec<String> {
    world.pods.iter().filter(|(_, pod)| is_stamped(pod)).map(|(name, _)| name.clone()).collect()
}

impl Stage {
    /// One sentence for a condition.
    pub(crate) fn message(&self) -> String {
        /// How many objects a sentence names.
        const NAMED: usize = 3;
        let left = self.delete.len() + self.going.len() + self.pods.len();
        let objects = self.going.iter().chain(&self.delete).map(ToString::to_string);
        let pods = self.pods.iter().map(|name| format!("Pod {name}"));
        let names: Vec<String> = objects.chain(pods).take(NAMED).collect();
        let more = if left > NAMED { format!(" and {} more", left - NAMED) } else { String::new() };
        format!("Removing {}: {}{more} left", self.name, names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kubevirt_api::names::annotation;
    use serde_json::json;

    use super::*;

    fn world(objects: &[(Kind, &str, bool)]) -> World {
        let mut world = World::default();
        for (kind, name, going) in objects {
            let mut live = json!({"metadata": {"name": name, "annotations": {annotation::STRATEGY_IDENTIFIER: "id"}}});
            if *going {
                live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            world.objects.insert(ObjectKey::new(*kind, Some("kubevirt"), name), Arc::new(live));
        }
        world
    }

    #[test]
    fn users_objects_go_before_the_components_that_clean_up_after_them() {
        let mut all = vec![
            (Kind::ValidatingWebhookConfiguration, VALIDATOR, false),
            (Kind::CustomResourceDefinition, "vms", true),
            (Kind::APIService, "v1.subresources", false),
            (Kind::Deployment, "virt-api", false),
            (Kind::Secret, "kubevirt-ca", false),
            (Kind::ClusterRole, "kubevirt-handler", false),
        ];
        let mut names = Vec::new();
        while let Some(stage) = stage(&world(&all)) {
            names.push(stage.name);
            all.remove(0);
        }
        assert_eq!(
            names,
            [
                "the operator's own webhooks",
                "custom resources with their definitions",
                "webhooks and aggregated APIs",
                "workloads",
                "services, certificates, configuration",
                "accounts and roles",
            ]
        );
    }

    #[test]
    fn what_is_on_its_way_out_is_waited_for_and_named() {
        let stage = stage(&world(&[(Kind::Deployment, "virt-api", true)])).expect("something is left");
        assert_eq!(stage.delete, []);
        assert_eq!(stage.message(), "Removing workloads: Deployment kubevirt/virt-api left");
    }

    #[test]
    fn what_nobody_stamped_is_not_ours() {
        let mut world = world(&[]);
        let key = ObjectKey::new(Kind::Service, Some("shop"), "copy-of-labels");
        world.objects.insert(key, Arc::new(json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "x"}}})));
        assert_eq!(stage(&world), None);
    }

    #[test]
    fn accounts_and_roles_stay_until_the_last_pod_of_the_suite_is_gone() {
        let mut world = world(&[(Kind::ServiceAccount, "kubevirt-handler", false)]);
        let pod = |annotations| Arc::new(json!({"metadata": {"annotations": annotations}}));
        world.pods.insert("virt-operator-1".to_owned(), pod(json!({})));
        assert_eq!(stage(&world).expect("the account is left").name, "accounts and roles");
        world.pods.insert("virt-handler-1".to_owned(), pod(json!({annotation::STRATEGY_IDENTIFIER: "id"})));
        let stage = stage(&world).expect("a pod is left");
        assert_eq!((stage.name, stage.delete.len()), ("workloads", 0));
        assert_eq!(stage.message(), "Removing workloads: Pod virt-handler-1 left");
    }
}
