//! What a node knows of a pod's containers, and the status that follows from it. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nanokube_controllers::pods::condition;

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running beside the main ones.
    Sidecar,
    Main,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: Option<String>,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) id: String,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    Waiting { reason: &'static str, message: Option<String> },
    Running { since: Timestamp },
    Ended(Ended),
}

/// One container as the node sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) id: Option<String>,
    pub(crate) stage: Stage,
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    /// The startup probe has succeeded, or there is none and the container runs.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    /// It will not be started again.
    pub(crate) finished: bool,
}

/// A pod as the node sees it.
#[derive(Clone, Debug)]
pub(crate) struct PodSeen {
    pub(crate) host_ip: String,
    pub(crate) ip: Option<String>,
    pub(crate) start_time: Timestamp,
    pub(crate) containers: Vec<Seen>,
    /// Being deleted, with every container stopped: nothing starts again whatever the restart policy says.
    pub(crate) terminal: bool,
}

/// What a node knows of a container before it does anything: from the pod's status, if the node ran it before it lost
/// power. Such a container is restarted, whatever it was; of its end nothing is known.
pub(crate) fn before(pod: &Pod, role: Role, container: &Container, waiting: &'static str) -> Seen {
    /// How a container ends that nobody saw ending.
    const UNSEEN: i32 = 255;
    let status = pod.status.as_ref();
    let lists = status.map(|status| (status.init_container_statuses.iter(), status.container_statuses.iter()));
    let mut known = lists.into_iter().flat_map(|(init, main)| init.chain(main)).flatten();
    let known = known.find(|known| known.name == container.name);
    let id = known.and_then(|known| known.container_id.clone());
    let running = known.and_then(|known| known.state.as_ref()?.running.as_ref());
    let last = running.map(|running| {
        let started = running.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let id = id.clone().unwrap_or_default();
        Ended { code: UNSEEN, reason: "Unknown", message: None, started, finished: started, id }
    });
    let restarts = known.map_or(0, |known| known.restart_count) + i32::from(last.is_some());
    Seen {
        name: container.name.clone(),
        role,
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        id: None,
        stage: Stage::Waiting { reason: waiting, message: None },
        last,
        restarts,
        started: false,
        ready: false,
        finished: false,
    }
}

fn ended(ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: ended.code,
        reason: Some(ended.reason.to_owned()),
        message: ended.message.clone(),
        started_at: Some(Time(ended.started)),
        finished_at: Some(Time(ended.finished)),
        container_id: Some(ended.id.clone()),
        signal: None,
    }
}

fn container_status(seen: &Seen) -> ContainerStatus {
    let state = match &seen.stage {
        Stage::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some((*reason).to_owned()), message: message.clone() }),
            ..ContainerState::default()
        },
        Stage::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        Stage::Ended(how) => ContainerState { terminated: Some(ended(how)), ..ContainerState::default() },
    };
    ContainerStatus {
        name: seen.name.clone(),
        image: seen.image.clone(),
        image_id: seen.image_id.clone(),
        container_id: seen.id.clone(),
        ready: seen.ready,
        started: Some(seen.started),
        restart_count: seen.restarts,
        state: Some(state),
        last_state: Some(ContainerState { terminated: seen.last.as_ref().map(ended), ..ContainerState::default() }),
        ..ContainerStatus::default()
    }
}

/// The pod's phase.
pub(crate) fn phase(seen: &PodSeen, restart_policy: &str) -> &'static str {
    let of = |role: Role| seen.containers.iter().filter(move |container| container.role == role);
    let failed = |container: &Seen| matches!(&container.stage, Stage::Ended(how) if how.code != 0);
    if of(Role::Init).any(|container| container.finished && failed(container)) {
        return "Failed";
    }
    let main: Vec<&Seen> = of(Role::Main).collect();
    if seen.terminal {
        // A container that never ran, or waited to run again, has not succeeded.
        let waits = |container: &&Seen| matches!(container.stage, Stage::Waiting { .. });
        let missed = main.iter().any(|container| failed(container) || waits(container));
        return if missed { "Failed" } else { "Succeeded" };
    }
    if of(Role::Init).any(|container| !container.finished) {
        return "Pending";
    }
    if main.iter().all(|container| container.finished) && restart_policy != "Always" {
        return if main.iter().any(|container| failed(container)) { "Failed" } else { "Succeeded" };
    }
    // A container that never ran keeps the pod pending; one that waits for its restart does not.
    let never_ran = |container: &&Seen| matches!(container.stage, Stage::Waiting { .. }) && container.last.is_none();
    if main.iter().any(never_ran) { "Pending" } else { "Running" }
}

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn verdict(holds: bool, reason: &'static str, message: impl FnOnce() -> String) -> Verdict {
    if holds {
        Verdict { holds, reason: None, message: None }
    } else {
        Verdict { holds, reason: Some(reason), message: Some(message()) }
    }
}

fn names<'a>(containers: impl Iterator<Item = &'a Seen>) -> String {
    containers.map(|container| container.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// The status of a pod, with the conditions that others own left as they are.
pub(crate) fn status(pod: &Pod, seen: &PodSeen, now: Timestamp) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = phase(seen, spec.restart_policy.as_deref().unwrap_or("Always"));
    let waiting_init: Vec<&Seen> = seen
        .containers
        .iter()
        .filter(|container| match container.role {
            Role::Init => !(container.finished && matches!(&container.stage, Stage::Ended(how) if how.code == 0)),
            Role::Sidecar => !container.started,
            Role::Main => false,
        })
        .collect();
    let succeeded = phase == "Succeeded";
    let over = succeeded || phase == "Failed";
    let unready: Vec<&Seen> =
        seen.containers.iter().filter(|container| container.role != Role::Init && !container.ready).collect();
    let initialized = verdict(waiting_init.is_empty(), "ContainersNotInitialized", || {
        format!("containers with incomplete status: [{}]", names(waiting_init.iter().copied()))
    });
    let ready_reason = if succeeded {
        "PodCompleted"
    } else if over {
        "PodFailed"
    } else {
        "ContainersNotReady"
    };
    let containers_ready = !over && unready.is_empty();
    let unready_text = || format!("containers with unready status: [{}]", names(unready.iter().copied()));
    let gates_closed: Vec<&str> = spec
        .readiness_gates
        .iter()
        .flatten()
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| condition(pod, gate).is_none_or(|condition| condition.status != "True"))
        .collect();
    let sandbox = seen.ip.is_some() && !over;
    let ready = if containers_ready && !gates_closed.is_empty() {
        verdict(false, "ReadinessGatesNotReady", || {
            format!("corresponding condition of pod readiness gate \"{}\" does not exist.", gates_closed[0])
        })
    } else {
        verdict(containers_ready, ready_reason, unready_text)
    };
    let verdicts = [
        ("PodReadyToStartContainers", Verdict { holds: sandbox, reason: None, message: None }),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", verdict(containers_ready, ready_reason, unready_text)),
        ("PodScheduled", Verdict { holds: true, reason: None, message: None }),
    ];
    let mut conditions: Vec<PodCondition> = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .filter(|known| verdicts.iter().all(|(kind, _)| *kind != known.type_))
        .cloned()
        .collect();
    for (kind, verdict) in verdicts {
        let status = if verdict.holds { "True" } else { "False" };
        let known = condition(pod, kind).filter(|known| known.status == status);
        conditions.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            observed_generation: pod.metadata.generation,
            last_transition_time: known.and_then(|known| known.last_transition_time.clone()).or(Some(Time(now))),
            last_probe_time: None,
        });
    }
    let statuses = |init: bool| {
        let chosen = seen.containers.iter().filter(|container| (container.role != Role::Main) == init);
        let statuses: Vec<_> = chosen.map(container_status).collect();
        if statuses.is_empty() { None } else { Some(statuses) }
    };
    let old = pod.status.clone().unwrap_or_default();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        host_ip: Some(seen.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: seen.host_ip.clone() }]),
        pod_ip: seen.ip.clone(),
        pod_ips: seen.ip.clone().map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(seen.start_time)),
        init_container_statuses: statuses(true),
        container_statuses: statuses(false),
        qos_class: old.qos_class.clone().or_else(|| Some(quality(pod).to_owned())),
        observed_generation: pod.metadata.generation,
        ..old
    }
}

/// The quality-of-service class that follows from requests and limits.
fn quality(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let (mut any, mut all) = (false, true);
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let (limit, request) = (limits.get(name), requests.get(name));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
