//! The images of the new virt-handler, brought onto the nodes before the first one is replaced: when the DaemonSet that sees
//! to it is wanted, and how far it is. What it consists of is in [`kubevirt_release::images`].

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::upgrade::{Request, StepProgress, UpgradePlanStatus};
use kubevirt_release::{Kind, ObjectKey, images};

use crate::input::{Input, Pod, Snapshot, Workload};
use crate::order::{Mode, Slot, slot_of};
use crate::planner;
use crate::policy::Policy;

/// From the deadline to when nobody waits any more: pods are made a moment after the step began, and one that fails has to
/// be seen to fail first.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Whether people ask for it: not on the way back, whose images are there, and not where nothing comes of the change.
pub fn asked_for(policy: &Policy, request: Option<Request>, returning: bool) -> bool {
    policy.pulls_images && !returning && request != Some(Request::Abort)
}

/// Whether the DaemonSet belongs to what is desired, asked about an input that does not have it there: from the beginning of
/// an update until virt-handler begins to go over the nodes. From then on it would only be in the way: a node that comes
/// meanwhile pulls by itself, and nothing waits for it.
pub fn wanted(input: &Input) -> bool {
    let Input { observed: _, target, desired, snapshot, releases: _, closes: _, pulls_images, images_overdue: _ } =
        input;
    let handler = desired.iter().find(|key| is_handler(key));
    *pulls_images
        && planner::mode(input) == Mode::Update
        && handler.is_some_and(|handler| !snapshot.is_of(handler, &target.id))
}

/// Whether nodes that still lack images are not waited for any more. Who cannot pull fails at the deadline, which counts from
/// the pod; what is left after that are single nodes, fewer than a failure takes, and nodes that got no pod at all.
pub fn overdue(policy: &Policy, record: Option<&UpgradePlanStatus>, now: Timestamp) -> bool {
    let step = record.and_then(|record| record.steps.iter().find(|step| step.name == Slot::Images.code()));
    let started = step.filter(|step| step.state != StepProgress::Held).and_then(|step| step.started.as_ref());
    let until = started.and_then(|started| started.0.checked_add(policy.deadline).ok()?.checked_add(GRACE).ok());
    until.is_some_and(|until| until <= now)
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
