//! Jobs: run pods until enough have succeeded or too many have failed.
//!
//! Succeeded and failed pods are counted by the pods that exist; there is no tracking finalizer, so a finished pod that
//! someone deletes is run again. Indexed Jobs, success policies and pod failure policies are refused with an event.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::action::{Action, Controller, Decision, Note, View, delete_of, status_change};
use crate::cache::{Change, Name, controller_uid};
use crate::kinds::{Cached, Kind, Objects};
use crate::pods;
use crate::replicaset::{count, some_if_any};

const COMPONENT: &str = "job-controller";
/// Failed pods that a Job bears when it says nothing.
const BACKOFF_LIMIT: i32 = 6;
/// Pause after the first failed pod; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause after failed pods.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

/// The controller.
pub struct Jobs;

impl Controller for Jobs {
    fn user(&self) -> &'static str {
        crate::MANAGER
    }

    fn is_workload(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [Kind] {
        &[Kind::Job, Kind::Pod]
    }

    fn affected(&self, objects: &Objects, change: &Change) -> Vec<Name> {
        match change.kind {
            Kind::Job => vec![change.name.clone()],
            Kind::Pod => change
                .both()
                .filter_map(|object| {
                    let uid = controller_uid(object.meta())?;
                    let owner = object.meta().owner_references.iter().flatten().find(|owner| owner.uid == uid)?;
                    let name = Name::new(change.name.namespace.clone(), owner.name.clone());
                    objects.jobs.get(&name).map(|_| name)
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn decide(&self, view: &View<'_>, key: &Name) -> Decision {
        let Some(job) = view.objects.jobs.get(key) else { return Decision::none() };
        decide(view, job)
    }
}

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// A pause until `since + wait`, if that is still to come.
fn left(now: Timestamp, since: Timestamp, wait: Duration) -> Option<Duration> {
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    wait.checked_sub(passed).filter(|left| !left.is_zero())
}

/// A Job with the pods that exist of it.
struct Run<'a> {
    view: &'a View<'a>,
    job: &'a Job,
    spec: &'a JobSpec,
    active: Vec<&'a Arc<Pod>>,
    succeeded: usize,
    failed: Vec<&'a Arc<Pod>>,
}

/// Why a Job is over.
struct Over {
    kind: &'static str,
    reason: &'static str,
    message: String,
}

fn decide(view: &View<'_>, job: &Job) -> Decision {
    let mut decision = Decision::none();
    let Some(spec) = &job.spec else { return decision };
    if job.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let status = job.status.clone().unwrap_or_default();
    if condition(&status, "Complete").is_some() || condition(&status, "Failed").is_some() {
        expire(view, job, spec, &status, &mut decision);
        return decision;
    }
    if spec.completion_mode.as_deref() == Some("Indexed")
        || spec.pod_failure_policy.is_some()
        || spec.success_policy.is_some()
    {
        let text = "indexed Jobs, success policies and pod failure policies are not implemented";
        decision.actions.push(Action::Note(Note::warning(job, COMPONENT, "NotImplemented", text)));
        return decision;
    }
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let owned: Vec<&Arc<Pod>> = view.objects.pods.owned_by(uid).collect();
    let run = Run {
        view,
        job,
        spec,
        succeeded: owned.iter().filter(|pod| pods::phase(pod) == "Succeeded").count(),
        failed: owned.iter().copied().filter(|pod| pods::phase(pod) == "Failed").collect(),
        active: owned.into_iter().filter(|pod| pods::is_active(pod)).collect(),
    };
    let mut next = job.clone();
    let status = next.status.insert(status);
    let over = over(&run, status, &mut decision);
    match &over {
        Some(_) => stop(&run, &mut decision),
        None if spec.suspend == Some(true) => stop(&run, &mut decision),
        None => balance(&run, &mut decision),
    }
    report(&run, status, over, &mut decision);
    decision.actions.extend(status_change(job, &next));
    decision
}

/// Deletes a finished Job whose time to live has passed.
fn expire(view: &View<'_>, job: &Job, spec: &JobSpec, status: &JobStatus, decision: &mut Decision) {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return };
    let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let finished = condition(status, "Complete").or_else(|| condition(status, "Failed"));
    let since = finished.and_then(|finished| finished.last_transition_time.as_ref()).map_or(view.now, |time| time.0);
    match left(view.now, since, wait) {
        Some(left) => decision.look_again(left),
        None => decision.actions.push(delete_of(job, None)),
    }
}

fn restarts(run: &Run<'_>) -> i32 {
    let policy = run.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return 0;
    }
    let statuses = run.active.iter().flat_map(|pod| pod.status.iter());
    statuses.flat_map(|status| status.container_statuses.iter().flatten()).map(|status| status.restart_count).sum()
}

fn over(run: &Run<'_>, status: &JobStatus, decision: &mut Decision) -> Option<Over> {
    let limit = run.spec.backoff_limit.unwrap_or(BACKOFF_LIMIT);
    if count(run.failed.len()) > limit || (limit > 0 && restarts(run) >= limit) {
        let message = "Job has reached the specified backoff limit".to_owned();
        return Some(Over { kind: "Failed", reason: "BackoffLimitExceeded", message });
    }
    if let (Some(seconds), Some(started)) = (run.spec.active_deadline_seconds, &status.start_time) {
        let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        match left(run.view.now, started.0, wait) {
            Some(left) => decision.look_again(left),
            None => {
                let message = "Job was active longer than specified deadline".to_owned();
                return Some(Over { kind: "Failed", reason: "DeadlineExceeded", message });
            }
        }
    }
    let done = match run.spec.completions {
        Some(wanted) => count(run.succeeded) >= wanted,
        // Without a number the Job is a work queue: one success, and nobody works any more.
        None => run.succeeded > 0 && run.active.is_empty(),
    };
    let message = "Reached expected number of succeeded pods".to_owned();
    done.then_some(Over { kind: "Complete", reason: "CompletionsReached", message })
}

fn stop(run: &Run<'_>, decision: &mut Decision) {
    for pod in &run.active {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let note = Note::normal(run.job, COMPONENT, "SuccessfulDelete", format!("Deleted pod: {name}"));
        decision.actions.push(delete_of(pod.as_ref(), Some(note)));
    }
}

/// Starts or stops pods so that as many run as should.
fn balance(run: &Run<'_>, decision: &mut Decision) {
    let parallel = run.spec.parallelism.unwrap_or(1).max(0);
    let wanted = match run.spec.completions {
        Some(completions) => parallel.min(completions - count(run.succeeded)).max(0),
        None if run.succeeded > 0 => count(run.active.len()),
        None => parallel,
    };
    let active = count(run.active.len());
    if active > wanted {
        for pod in run.active.iter().take(usize::try_from(active - wanted).unwrap_or(0)) {
            decision.actions.push(delete_of(pod.as_ref(), None));
        }
        return;
    }
    if active == wanted {
        return;
    }
    let last_failure = run.failed.iter().filter_map(|pod| ended_at(pod)).max();
    if let Some(since) = last_failure {
        let doublings = u32::try_from(run.failed.len()).unwrap_or(u32::MAX).saturating_sub(1).min(16);
        let pause = BACK_OFF_FIRST.saturating_mul(1 << doublings).min(BACK_OFF_MAX);
        if let Some(left) = left(run.view.now, since, pause) {
            return decision.look_again(left);
        }
    }
    let mut pod = pods::from_template(run.job, &run.spec.template);
    let labels = pod.metadata.labels.get_or_insert_default();
    let uid = run.job.metadata.uid.clone().unwrap_or_default();
    let name = run.job.metadata.name.clone().unwrap_or_default();
    for prefix in ["batch.kubernetes.io/", ""] {
        labels.insert(format!("{prefix}controller-uid"), uid.clone());
        labels.insert(format!("{prefix}job-name"), name.clone());
    }
    let object = Pod::wrap(Arc::new(pod));
    let note = Note::normal(run.job, COMPONENT, "SuccessfulCreate", "Created pod: {name}");
    for _ in active..wanted {
        decision.actions.push(Action::Create { object: object.clone(), note: Some(note.clone()) });
    }
}

/// When a pod's last container ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)).max()
}

fn report(run: &Run<'_>, status: &mut JobStatus, over: Option<Over>, decision: &mut Decision) {
    let suspended = run.spec.suspend == Some(true);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(run.view.now));
    }
    let ready = run.active.iter().filter(|pod| pods::is_ready(pod)).count();
    let terminating = run
        .view
        .objects
        .pods
        .owned_by(run.job.metadata.uid.as_deref().unwrap_or_default())
        .filter(|pod| pods::is_terminating(pod) && !pods::has_ended(pod));
    let active = if over.is_some() { 0 } else { count(run.active.len()) };
    status.active = some_if_any(active, status.active);
    status.succeeded = some_if_any(count(run.succeeded), status.succeeded);
    status.failed = some_if_any(count(run.failed.len()), status.failed);
    status.ready = Some(if over.is_some() { 0 } else { count(ready) });
    status.terminating = Some(count(terminating.count()));
    let now = Time(run.view.now);
    let add = |status: &mut JobStatus, kind: &str, reason: &str, message: String| {
        status.conditions.get_or_insert_default().push(JobCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now.clone()),
        });
    };
    let known = condition(status, "Suspended").is_some();
    if suspended && !known {
        add(status, "Suspended", "JobSuspended", "Job suspended".to_owned());
    } else if !suspended && known {
        status.conditions.get_or_insert_default().retain(|condition| condition.type_ != "Suspended");
        status.start_time = Some(now.clone());
    }
    let Some(Over { kind, reason, message }) = over else { return };
    if kind == "Complete" {
        add(status, "SuccessCriteriaMet", reason, message.clone());
        status.completion_time = Some(now.clone());
        decision.actions.push(Action::Note(Note::normal(run.job, COMPONENT, "Completed", "Job completed")));
    } else {
        add(status, "FailureTarget", reason, message.clone());
        decision.actions.push(Action::Note(Note::warning(run.job, COMPONENT, reason, message.clone())));
    }
    add(status, kind, reason, message);
}
