//! The images of the new virt-handler, brought onto the nodes before the first one is replaced: when the DaemonSet that sees
//! to it is wanted, and how far it is. What it consists of is in [`kubevirt_release::images`].

use std::borrow::Cow;

use kubevirt_api::upgrade::Request;
use kubevirt_release::{Kind, ObjectKey, images};

use crate::input::{Input, Pod, Snapshot, Workload};
use crate::order::{Mode, Slot, slot_of};
use crate::policy::Policy;
use crate::{planner, rollout};

/// Whether people ask for it: not on the way back, whose images are there, and not where nothing comes of the change.
pub fn asked_for(policy: &Policy, request: Option<Request>, returning: bool) -> bool {
    policy.pulls_images && !returning && request != Some(Request::Abort)
}

/// Whether the DaemonSet belongs to what is desired, asked about an input that does not have it there: from the beginning of
/// an update until virt-handler is new on every node. Once virt-handler goes over the nodes it is not made any more: all it
/// could do is done then.
pub fn wanted(input: &Input) -> bool {
    let Input { observed: _, target, desired, snapshot, releases: _, pulls_images } = input;
    if !pulls_images || planner::mode(input) != Mode::Update {
        return false;
    }
    let Some(handler) = desired.iter().find(|key| is_handler(key)) else { return false };
    let has_begun = snapshot.objects.get(handler).is_some_and(|existing| existing.id.as_ref() == Some(&target.id));
    if !has_begun {
        return true;
    }
    let rolls =
        |workload: &Workload| !rollout::missing(handler, workload, &target.id, &snapshot.absent_nodes).is_empty();
    exists(snapshot) && snapshot.workloads.get(handler).is_none_or(rolls)
}

/// The DaemonSet whose images it is about.
pub fn is_handler(key: &ObjectKey) -> bool {
    key.kind == Kind::DaemonSet && key.name == images::OF
}

pub(crate) fn exists(snapshot: &Snapshot) -> bool {
    snapshot.objects.keys().any(|key| slot_of(key) == Slot::Images)
}

/// A workload as its step counts it. The pods that bring images are there for nothing else: whether they become ready is
/// not asked once that is done.
pub(crate) fn counted(slot: Slot, workload: &Workload) -> Cow<'_, Workload> {
    let done = |pod: &Pod| pod.prepared && !pod.ready;
    if slot != Slot::Images || !workload.pods.iter().any(done) {
        return Cow::Borrowed(workload);
    }
    let mut counted = workload.clone();
    for pod in counted.pods.iter_mut().filter(|pod| done(pod)) {
        pod.ready = true;
        pod.not_ready = None;
        pod.trouble = None;
        counted.ready += i64::from(!pod.deleting);
    }
    Cow::Owned(counted)
}
