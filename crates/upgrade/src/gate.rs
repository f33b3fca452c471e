//! Kinds that a version brings stay closed until its virt-api serves: until when. What closes them is in
//! [`kubevirt_release::gate`].

use kubevirt_release::ObjectKey;

use crate::input::{Input, Pod};
use crate::order::{Mode, Slot, slot_of};
use crate::planner;
use crate::rollout;

/// Whether the registration belongs to what is desired: as long as virt-api is not of the target version, or a pod of an
/// older one may still answer. A pod that is not ready, or a node that joins, closes nothing again.
pub fn wanted(input: &Input) -> bool {
    let Input { observed: _, target, desired, snapshot, releases: _, closes, pulls_images: _, images_overdue: _ } =
        input;
    let is_old = |pod: &Pod| pod.id.as_deref() != Some(target.id.as_str());
    let is_open = |key: &ObjectKey| {
        let workload = snapshot.workloads.get(key);
        snapshot.is_of(key, &target.id)
            && workload.is_some_and(|workload| {
                workload.observed_generation >= workload.generation
                    && workload.updated > 0
                    && !rollout::runs_old(workload, is_old, &snapshot.absent_nodes)
            })
    };
    *closes
        && planner::mode(input) == Mode::Update
        && desired.iter().filter(|key| slot_of(key) == Slot::Api).any(|key| !is_open(key))
}
