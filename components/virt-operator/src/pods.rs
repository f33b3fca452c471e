//! What is kept of a pod of the suite: a few facts of some hundred bytes. There is one pod for each node, and of each the
//! cluster has tens of kilobytes, so the rest is skipped while it is read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kubevirt_api::names::annotation;
use kubevirt_upgrade::Trouble;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The label by which the controller of a DaemonSet tells its templates apart.
const REVISION: &str = "controller-revision-hash";

/// Pods of the suite, by name. Each pass takes them as they are: what changes meanwhile makes a copy, and only then.
pub type Pods = Arc<BTreeMap<Arc<str>, PodFacts>>;

/// What decisions need of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// All pods of a workload share them.
    pub labels: Arc<Labels>,
    /// It has ended and runs nothing.
    pub ended: bool,
    pub deleting: bool,
    /// When it was made, as the server writes it: later ones sort behind earlier ones.
    pub created: Option<Arc<str>>,
    /// Why it is not ready, the most telling thing first.
    pub not_ready: Option<Arc<str>>,
    pub uid: Option<Box<str>>,
    pub node: Option<Arc<str>>,
    /// There is one of its kind on each node.
    pub of_nodes: bool,
    /// Since when it is as ready as it is; for one that never was, since it was made.
    pub since: Option<Timestamp>,
    pub trouble: Option<Trouble>,
    /// See [`kubevirt_upgrade::Pod::prepared`].
    pub prepared: bool,
}

/// What the pods of a workload's revision have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    /// The deployment ID it is stamped with.
    pub id: Option<Arc<str>>,
    /// The name of the template it was made from, which is one of the labels.
    pub revision: Option<Arc<str>>,
}

/// The labels that pods have in common, each once. While versions change, pods of two revisions lie between each other.
#[derive(Debug, Default)]
pub struct Shared(Vec<Arc<Labels>>);

impl Shared {
    /// A workload has two sets of them at a time, and there are a handful of workloads; whoever gives each pod labels of its
    /// own gains nothing, and costs no more than this.
    const MOST: usize = 64;

    /// Gives a pod the labels that others have already.
    pub(crate) fn share(&mut self, mut pod: PodFacts) -> PodFacts {
        if let Some(known) = self.0.iter().find(|known| **known == pod.labels) {
            pod.labels = Arc::clone(known);
            return pod;
        }
        self.0.retain(|known| Arc::strong_count(known) > 1);
        if self.0.len() == Self::MOST {
            self.0.remove(0);
        }
        self.0.push(Arc::clone(&pod.labels));
        pod
    }
}

/// A pod as it is read from the API: the facts, and what a watch needs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Whole")]
pub struct SuitePod {
    metadata: ObjectMeta,
    pub(crate) facts: PodFacts,
}

impl Resource for SuitePod {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Cow::Borrowed("Pod")
    }

    fn group((): &()) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn version((): &()) -> Cow<'_, str> {
        Cow::Borrowed("v1")
    }

    fn plural((): &()) -> Cow<'_, str> {
        Cow::Borrowed("pods")
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is looked at of a whole pod. Everything may be missing or null.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Whole {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    conditions: Option<Vec<Condition>>,
    init_container_statuses: Option<Vec<Container>>,
    container_statuses: Option<Vec<Container>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    last_transition_time: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    restart_count: i64,
    #[serde(rename = "imageID")]
    image_id: Option<Box<str>>,
    state: Option<State>,
    last_state: Option<State>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Terminated {
    exit_code: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

fn said(reason: Option<&String>, message: Option<&String>) -> Option<String> {
    match (reason, message) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (Some(text), None) | (None, Some(text)) => Some(text.clone()),
        (None, None) => None,
    }
}

impl From<Whole> for SuitePod {
    fn from(Whole { metadata, spec, status }: Whole) -> Self {
        let Metadata {
            name,
            namespace,
            uid,
            resource_version,
            labels,
            annotations,
            creation_timestamp,
            deletion_timestamp,
            owner_references,
        } = metadata;
        let status = status.unwrap_or_default();
        let labels = labels.unwrap_or_default();
        let facts = PodFacts {
            labels: Arc::new(Labels {
                namespace: namespace.clone().unwrap_or_default(),
                revision: labels.get(REVISION).map(|revision| revision.as_str().into()),
                labels,
                id: annotations.and_then(|mut all| all.remove(annotation::STRATEGY_IDENTIFIER)).map(Into::into),
            }),
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: deletion_timestamp.is_some(),
            since: since(&status, creation_timestamp.as_deref()),
            created: creation_timestamp.map(Into::into),
            not_ready: not_ready(&status).map(Into::into),
            uid: uid.as_deref().map(Into::into),
            node: spec.and_then(|spec| spec.node_name).map(Into::into),
            of_nodes: owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet"),
            trouble: trouble(&status),
            prepared: prepared(&status),
        };
        let metadata = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Self { metadata, facts }
    }
}

fn since(status: &Status, created: Option<&str>) -> Option<Timestamp> {
    let ready = status.conditions.iter().flatten().find(|condition| condition.kind == "Ready");
    ready.and_then(|ready| ready.last_transition_time.as_deref()).or(created)?.parse().ok()
}

/// What a pod's containers suffer from, the worst of them.
fn trouble(status: &Status) -> Option<Trouble> {
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let of = |Container { name: _, restart_count, image_id: _, state, last_state: _ }: &Container| match state
        .as_ref()?
        .waiting
        .as_ref()?
        .reason
        .as_deref()?
    {
        "CrashLoopBackOff" => Some(Trouble::CrashLoops { restarts: *restart_count }),
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => Some(Trouble::NoImage),
        _ => None,
    };
    containers.filter_map(of).max()
}

/// States of a container whose image is there and which cannot be made of it.
const IMAGE_IS_NO_USE: [&str; 3] = ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"];

/// Whether the init containers have brought all the images they can.
fn prepared(status: &Status) -> bool {
    let Some(init) = status.init_container_statuses.as_ref().filter(|init| !init.is_empty()) else {
        // What was asked for a place and has none says nothing of containers.
        let scheduled = status.conditions.iter().flatten().find(|condition| condition.kind == "PodScheduled");
        return scheduled.is_some_and(|it| it.status == "False" && it.reason.as_deref() == Some("Unschedulable"));
    };
    let waits = |container: &Container| container.state.as_ref()?.waiting.as_ref()?.reason.clone();
    let is_no_use = |container: &Container| waits(container).is_some_and(|why| IMAGE_IS_NO_USE.contains(&&*why));
    let has_image =
        |container: &Container| container.image_id.as_ref().is_some_and(|id| !id.is_empty()) || is_no_use(container);
    let failed = |state: &Option<State>| {
        state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code != 0)
    };
    // It is started again and again, and those behind it never are.
    let bars = |container: &Container| {
        let has_ended = container.state.as_ref().is_some_and(|state| state.terminated.is_some());
        is_no_use(container) || failed(&container.state) || (failed(&container.last_state) && !has_ended)
    };
    init.iter().all(has_image) || init.iter().any(|container| has_image(container) && bars(container))
}

/// A container that cannot start, no node, the ready condition.
fn not_ready(status: &Status) -> Option<String> {
    let condition = |name: &str| status.conditions.iter().flatten().find(|condition| condition.kind == name);
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let mut containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = containers.find_map(|Container { name, state, .. }| {
        let waiting = state.as_ref()?.waiting.as_ref()?;
        // These two are the ordinary way to a running container.
        let why = match waiting.reason.as_deref() {
            None | Some("ContainerCreating" | "PodInitializing") => waiting.message.clone()?,
            Some(_) => said(waiting.reason.as_ref(), waiting.message.as_ref())?,
        };
        Some(format!("container {name}: {why}"))
    });
    let because = |condition: &Condition| said(condition.reason.as_ref(), condition.message.as_ref());
    let unscheduled = || condition("PodScheduled").filter(|it| it.status == "False").and_then(because);
    let unready = || condition("Ready").and_then(because);
    let phase = || format!("it is {}", status.phase.as_deref().unwrap_or("Pending"));
    Some(waiting.or_else(unscheduled).or_else(unready).unwrap_or_else(phase))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(pod: Value) -> SuitePod {
        serde_json::from_value(pod).expect("a pod")
    }

    fn why(status: Value) -> Option<String> {
        read(json!({"metadata": {"name": "a"}, "status": status})).facts.not_ready.map(|why| why.to_string())
    }

    #[test]
    fn the_most_telling_reason_is_kept() {
        let ready = |status: &str| json!({"type": "Ready", "status": status, "reason": "ContainersNotReady"});
        assert_eq!(why(json!({"conditions": [ready("True")]})), None);
        assert_eq!(why(json!({"conditions": [ready("False")]})).as_deref(), Some("ContainersNotReady"));
        let unscheduled =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"});
        let conditions = json!([ready("False"), unscheduled]);
        assert_eq!(why(json!({"conditions": conditions})).as_deref(), Some("Unschedulable: no node"));
        let waiting = |waiting: Value| json!([{"name": "fine"}, {"name": "c", "state": {"waiting": waiting}}]);
        let both = |of: Value| json!({"conditions": conditions, "containerStatuses": waiting(of)});
        assert_eq!(
            why(both(json!({"reason": "ErrImagePull", "message": "no such image"}))).as_deref(),
            Some("container c: ErrImagePull: no such image")
        );
        let creating = json!({"reason": "ContainerCreating"});
        assert_eq!(why(both(creating)).as_deref(), Some("Unschedulable: no node"), "the ordinary way");
        let slow = json!({"reason": "ContainerCreating", "message": "a volume is missing"});
        assert_eq!(why(both(slow)).as_deref(), Some("container c: a volume is missing"));
        assert_eq!(why(json!({"phase": "Running"})).as_deref(), Some("it is Running"));
        assert_eq!(why(Value::Null).as_deref(), Some("it is Pending"));
    }

    #[test]
    fn what_a_pod_suffers_from_and_since_when_is_kept() {
        let pod = read(json!({
            "metadata": {"name": "a", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"kind": "DaemonSet"}]},
            "spec": {"nodeName": "node-1", "containers": []},
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:09Z"}],
                "containerStatuses": [
                    {"name": "a", "state": {"waiting": {"reason": "ErrImagePull"}}},
                    {"name": "b", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                ],
            },
        }))
        .facts;
        assert_eq!((pod.node.as_deref(), pod.uid.as_deref(), pod.of_nodes), (Some("node-1"), Some("u"), true));
        assert_eq!(pod.since, "2026-01-01T00:00:09Z".parse().ok());
        assert_eq!(pod.trouble, Some(Trouble::NoImage));
    }

    #[test]
    fn a_node_is_prepared_when_its_init_containers_can_bring_no_more() {
        let prepared = |status: Value| read(json!({"metadata": {"name": "a"}, "status": status})).facts.prepared;
        let init = |containers: Value| prepared(json!({"initContainerStatuses": containers}));
        let pulled = |state: Value| json!({"name": "a", "imageID": "r/a@sha256:0", "state": state});
        let to_come = json!({"name": "b", "imageID": "", "state": {"waiting": {"reason": "PodInitializing"}}});
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        assert!(init(json!([pulled(ended(0)), pulled(ended(0))])));
        assert!(init(json!([pulled(ended(0)), pulled(json!({"running": {}}))])), "whatever becomes of the last one");
        assert!(!init(json!([pulled(ended(0)), to_come])), "one is missing");
        assert!(!init(json!([pulled(json!({"running": {}})), to_come])), "it may end well");
        assert!(init(json!([pulled(ended(2)), to_come])), "a program that does not know the question bars the rest");
        let crashing = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let again = |state: Value, last: Value| {
            let container = json!({"name": "a", "imageID": "r/a@sha256:0", "state": state, "lastState": last});
            json!([container, to_come])
        };
        assert!(init(again(crashing, ended(2))) && init(again(json!({"running": {}}), ended(2))));
        assert!(!init(again(ended(0), ended(2))), "the second time it went well");
        let refused =
            json!({"name": "a", "imageID": "", "state": {"waiting": {"reason": "CreateContainerConfigError"}}});
        assert!(init(json!([refused, to_come])), "its image is there all the same");
        for reason in ["ErrImagePull", "ImagePullBackOff", "ContainerCreating"] {
            let waits = json!({"name": "a", "imageID": "", "state": {"waiting": {"reason": reason}}});
            assert!(!init(json!([waits, to_come])), "{reason}");
        }
        assert!(!prepared(json!({"phase": "Pending"})) && !prepared(json!({"containerStatuses": [to_come]})));
        let place =
            |reason: &str| json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason}]});
        assert!(prepared(place("Unschedulable")), "no room: nothing can be brought there");
        assert!(!prepared(place("SchedulingGated")));
    }

    #[test]
    fn what_may_be_missing_may_be_null() {
        let pod = read(json!({
            "metadata": {"name": "a", "labels": null, "annotations": null, "deletionTimestamp": null},
            "status": {"phase": null, "conditions": null, "containerStatuses": null},
        }));
        assert!(!pod.facts.deleting && !pod.facts.ended);
        let pod =
            read(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Failed"}}));
        assert!(pod.facts.deleting && pod.facts.ended);
    }

    #[test]
    fn pods_of_one_workload_share_what_they_have_in_common() {
        let mut shared = Shared::default();
        let mut pod = |name: &str, app: &str| {
            let annotations = json!({annotation::STRATEGY_IDENTIFIER: "id", "other": "x"});
            let pod = json!({"metadata": {"name": name, "labels": {"app": app}, "annotations": annotations}});
            shared.share(read(pod).facts).labels
        };
        let (first, other) = (pod("a", "x"), pod("b", "y"));
        assert_eq!(first.id.as_deref(), Some("id"));
        assert!(Arc::ptr_eq(&pod("c", "x"), &first), "also behind one of another workload");
        assert!(Arc::ptr_eq(&pod("d", "y"), &other) && !Arc::ptr_eq(&first, &other));
        drop((first, other));
        for number in 0..2 * Shared::MOST {
            pod("e", &number.to_string());
        }
        assert!(shared.0.len() <= Shared::MOST, "what nobody has is forgotten");
    }
}
