//! The webhooks' side of admission: what is open is filled in by [`crate::mutate`], what is asked is judged by
//! [`crate::rules`]. Where no rules are written yet, reviews are read and refused: letting an object pass that nobody
//! judged would be a promise this build cannot keep. Pure.

use http::StatusCode;
use kubevirt_component::Call;
use kubevirt_runtime::admission::{Review, Verdict};
use kubevirt_runtime::serve::{self, Response};

use crate::{State, mutate, rules};

/// One path a webhook configuration points at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Webhook {
    pub(crate) path: &'static str,
    pub(crate) mutates: bool,
    /// Rules are written for it.
    pub(crate) judged: bool,
    /// What it judges.
    pub(crate) subject: &'static str,
}

impl Webhook {
    /// For the table.
    pub(crate) fn about(&self) -> String {
        let what = if self.mutates { "defaulting" } else { "validation" };
        format!("{what} of {}", self.subject)
    }
}

const fn mutating(path: &'static str, subject: &'static str) -> Webhook {
    Webhook { path, mutates: true, judged: true, subject }
}

const fn validating(path: &'static str, subject: &'static str) -> Webhook {
    Webhook { path, mutates: false, judged: false, subject }
}

const fn judging(path: &'static str, subject: &'static str) -> Webhook {
    Webhook { judged: true, ..validating(path, subject) }
}

/// Every webhook of virt-api.
pub(crate) const WEBHOOKS: &[Webhook] = &[
    mutating("/virtualmachines-mutate", "virtualmachines"),
    mutating("/virtualmachineinstances-mutate", "virtualmachineinstances"),
    mutating("/migration-mutate-create", "virtualmachineinstancemigrations"),
    mutating("/vm-clone-mutate-create", "virtualmachineclones"),
    mutating("/virt-launcher-pod-mutate", "virt-launcher pods"),
    validating("/pod-eviction-validate", "evictions of virt-launcher and hotplug pods"),
    validating("/virtualmachineinstances-validate-create", "new virtualmachineinstances"),
    judging("/virtualmachineinstances-validate-update", "changes of virtualmachineinstances"),
    validating("/virtualmachines-validate", "virtualmachines"),
    validating("/virtualmachinereplicaset-validate", "virtualmachineinstancereplicasets"),
    validating("/virtualmachinepool-validate", "virtualmachinepools"),
    validating("/vmipreset-validate", "virtualmachineinstancepresets"),
    validating("/migration-validate-create", "new virtualmachineinstancemigrations"),
    judging("/migration-validate-update", "changes of virtualmachineinstancemigrations"),
    validating("/virtualmachinesnapshots-validate", "virtualmachinesnapshots"),
    validating("/virtualmachinerestores-validate", "virtualmachinerestores"),
    validating("/virtualmachinebackups-validate", "virtualmachinebackups"),
    validating("/virtualmachinebackuptrackers-validate", "virtualmachinebackuptrackers"),
    validating("/virtualmachineexports-validate", "virtualmachineexports"),
    validating("/virtualmachineinstancetypes-validate", "virtualmachineinstancetypes"),
    validating("/virtualmachineclusterinstancetypes-validate", "virtualmachineclusterinstancetypes"),
    validating("/virtualmachinepreferences-validate", "virtualmachinepreferences"),
    validating("/virtualmachineclusterpreferences-validate", "virtualmachineclusterpreferences"),
    validating("/status-validate", "status changes of kubevirt.io objects"),
    validating("/migration-policy-validate-create", "migrationpolicies"),
    validating("/vm-clone-validate-create", "virtualmachineclones"),
    validating("/plugin-validate", "plugins"),
];

/// Answers a review. What is not a review gets 400, as the API server reports a broken webhook call.
pub(crate) fn review(state: &State, call: &Call) -> Response {
    match Review::parse(&call.body) {
        Ok(review) => {
            let verdict = rules::judge(&call.path, &state.namespace, &review)
                .or_else(|| mutate::mutate(&call.path, &state.namespace, &review, &state.settings.now()));
            serve::json(StatusCode::OK, &review.answer(&verdict.unwrap_or_else(|| refuse(&call.path, &review)), &[]))
        }
        Err(error) => serve::text(StatusCode::BAD_REQUEST, format!("virt-api: {}: {error}\n", call.path)),
    }
}

fn refuse(path: &str, review: &Review) -> Verdict {
    let about = WEBHOOKS.iter().find(|webhook| webhook.path == path).map_or_else(|| path.to_owned(), Webhook::about);
    let (operation, target) = (review.operation, review.target());
    Verdict::Deny {
        code: 501,
        reason: "NotImplemented",
        message: format!("virt-api: {operation} of {target} cannot be judged: {about} is not implemented"),
    }
}
