//! How virt-handler goes over the nodes where the policy asks for more than the usual sequence (pure): part of the wanted
//! object, because it depends on how far the roll-out is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kubevirt_release::{Kind, Object, ObjectKey};
use kubevirt_upgrade::waves::{Roll, Wave, wave};
use kubevirt_upgrade::{Reason, Share, stands_still};
use serde_json::{Value, json};

use super::build::observed;
use super::courses::Case;
use super::snapshot::{Workloads, identifier};

/// What is done for DaemonSets that wait, beside what is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct OverNodes {
    /// Pods to be replaced: of which DaemonSet, name, uid.
    pub(crate) replace: Vec<(ObjectKey, String, String)>,
    pub(crate) reason: Option<Reason>,
    pub(crate) due: Option<Timestamp>,
}

/// Gives each DaemonSet that changes version the way the policy asks for, and says what is done for it.
pub(super) fn over_nodes(
    case: Case<'_>,
    finals: &mut BTreeMap<ObjectKey, Object>,
    workloads: &Workloads,
    now: Timestamp,
) -> OverNodes {
    let Case { cr, target, world, settings: _ } = case;
    let policy = &world.upgrades.policy;
    let mut done = OverNodes::default();
    let changes = target.returns.is_none() && observed(cr).is_some_and(|from| from.id != target.id);
    if !changes || !policy.governs() || stands_still(policy, case.request()).is_some() {
        return done;
    }
    for (key, object) in finals.iter_mut().filter(|(key, _)| key.kind == Kind::DaemonSet) {
        let Some(live) = world.objects.get(key) else { continue };
        if identifier(live) != Some(target.id.as_str()) {
            // It is written to wait; the first node is chosen afterwards.
            set(object, &Roll::Still { replace: Vec::new() });
            continue;
        }
        let Some(workload) = workloads.get(key) else { continue };
        let Wave { roll, reason, due } = wave(workload, &target.id, policy, &world.absent, &world.first_nodes, now);
        set(object, &roll);
        if let Roll::Still { replace } = roll {
            done.replace.extend(replace.into_iter().filter_map(|pod| {
                let uid = world.pods.get(pod.as_str())?.uid.as_deref()?.to_owned();
                Some((key.clone(), pod, uid))
            }));
        }
        done.reason = done.reason.or(reason);
        done.due = done.due.into_iter().chain(due).min();
    }
    done
}

fn set(daemon_set: &mut Object, roll: &Roll) {
    let strategy = match roll {
        Roll::Rolling(share) => rolling(*share),
        Roll::Still { .. } => json!({"type": "OnDelete"}),
    };
    daemon_set.value_mut()["spec"]["updateStrategy"] = strategy;
}

fn rolling(share: Share) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": share.written()}})
}
