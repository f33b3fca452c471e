//! Claims and volumes that are deleted while somebody uses them: they go when the last user has gone.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::json;

use crate::action::{Controller, Decision, View, patch_of};
use crate::cache::{Change, Name};
use crate::kinds::{Cached, Kind, Objects};
use crate::pods;

/// Holds a claim while a pod uses it.
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Holds a volume while a claim is bound to it.
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Lets go of claims; its keys are claims.
pub struct ClaimProtection;

impl Controller for ClaimProtection {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::PersistentVolumeClaim, Kind::Pod]
    }

    fn affected(&self, _objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::PersistentVolumeClaim => vec![change.name.clone()],
            Kind::Pod => {
                let pods = change.both().filter_map(|object| object.as_pod());
                let namespace = &change.name.namespace;
                pods.flat_map(|pod| claims(pod)).map(|claim| Name::new(namespace.clone(), claim)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let mut decision = Decision::none();
        let Some(claim) = view.objects.claims.get(key) else { return decision };
        let mut pods = view.objects.pods.in_namespace(&key.namespace);
        if !pods.any(|pod| !pods::has_ended(pod) && claims(pod).any(|name| name == key.name)) {
            decision.actions.extend(released::<PersistentVolumeClaim>(claim, CLAIM_FINALIZER));
        }
        decision
    }
}

/// The claims a pod uses: by name, and those made for it.
fn claims(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(move |volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{pod_name}-{}", volume.name)))
    })
}

/// Lets go of volumes; its keys are volumes.
pub struct VolumeProtection;

impl Controller for VolumeProtection {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::PersistentVolume]
    }

    fn affected(&self, _objects: &Objects, change: &Change) -> Vec<Name> {
        if change.kind == Kind::PersistentVolume { vec![change.name.clone()] } else { Vec::new() }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let mut decision = Decision::none();
        let Some(volume) = view.objects.volumes.get(key) else { return decision };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Bound") {
            decision.actions.extend(released::<PersistentVolume>(volume, VOLUME_FINALIZER));
        }
        decision
    }
}

/// The object without the finalizer, when it is being deleted and has it.
fn released<K: Cached>(object: &K, finalizer: &str) -> Option<crate::action::Action> {
    let meta = object.meta();
    let held = meta.finalizers.iter().flatten().any(|known| known == finalizer);
    if meta.deletion_timestamp.is_none() || !held {
        return None;
    }
    let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
    Some(patch_of(object, None, json!({"metadata": {"finalizers": rest}})))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;

    fn patches(objects: &Objects, controller: &dyn Controller, name: &Name) -> Vec<Value> {
        let view = View { objects, now: jiff::Timestamp::UNIX_EPOCH, failure: None };
        let actions = controller.decide(&view, name).actions;
        let patch = |action| match action {
            crate::action::Action::Patch { patch, .. } => patch,
            other => panic!("not a patch: {other:?}"),
        };
        actions.into_iter().map(patch).collect()
    }

    #[test]
    fn a_claim_goes_when_its_last_pod_has_ended() {
        let claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "1", "resourceVersion": "5",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b", CLAIM_FINALIZER]}});
        let pod = |version: &str, phase: &str| {
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "2", "resourceVersion": version},
                "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
                    {"name": "w", "emptyDir": {}}]}, "status": {"phase": phase}})
        };
        let name = Name::new("n", "c");
        let mut objects = Objects::lean();
        objects.upsert::<PersistentVolumeClaim>(from_value(claim).unwrap());
        let change = objects.upsert::<Pod>(from_value(pod("6", "Running")).unwrap()).unwrap();
        assert_eq!(ClaimProtection.affected(&objects, &change), std::slice::from_ref(&name));
        assert_eq!(patches(&objects, &ClaimProtection, &name), Vec::<Value>::new());
        objects.upsert::<Pod>(from_value(pod("7", "Succeeded")).unwrap());
        let want = json!({"metadata": {"finalizers": ["a/b"], "resourceVersion": "5"}});
        assert_eq!(patches(&objects, &ClaimProtection, &name), [want]);
    }

    #[test]
    fn a_volume_goes_when_no_claim_has_it() {
        let volume = |version: &str, phase: &str| {
            json!({"metadata": {"name": "v", "uid": "1", "resourceVersion": version,
                "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [VOLUME_FINALIZER]},
                "status": {"phase": phase}})
        };
        let name = Name::new("", "v");
        let mut objects = Objects::lean();
        objects.upsert::<PersistentVolume>(from_value(volume("5", "Bound")).unwrap());
        assert_eq!(patches(&objects, &VolumeProtection, &name), Vec::<Value>::new());
        objects.upsert::<PersistentVolume>(from_value(volume("6", "Released")).unwrap());
        assert_eq!(patches(&objects, &VolumeProtection, &name).len(), 1);
    }
}
