//! How the install strategy of another version is got (pure): a Job runs that version's own operator, which writes it into
//! the cluster. What became of the Job is in the cluster too, so a new leader goes on where the old one was.

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_api::names::{annotation, label};
use kubevirt_release::customize::Customizations;
use kubevirt_release::desired::place_job;
use kubevirt_release::{DeploymentConfig, Kind, Object, ObjectKey};
use serde_json::{Value, json};

use super::World;
use crate::cache::{Live, text};

/// Jobs are named with this beginning, as those of the existing operator are.
pub(crate) const NAME: &str = "virt-operator-install-strategy";
const CONTAINER: &str = "install-strategy-upload";
/// How often it was tried: on the Job, because a failed one stays until the next is due.
const ATTEMPT: &str = "upgrade.kubevirt.io/attempt";

/// What a Job has written is seen within a second or two; one that says it is done and has written nothing failed.
const SEEN: SignedDuration = SignedDuration::from_secs(10);
/// The first pause after a failure. Most failures are mended by a person or pass within a minute.
const RETRY_FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest: whoever mended the cause waits at most this long.
const RETRY_LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// What is to be done about the Job now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fetch {
    pub(crate) make: Option<Object>,
    pub(crate) delete: Vec<ObjectKey>,
    /// Why there is no strategy yet, for people.
    pub(crate) says: String,
    /// Something went wrong; without it the Job is on its way.
    pub(crate) failed: bool,
    /// When to look again although nothing has happened.
    pub(crate) due: Option<Timestamp>,
}

/// The Jobs of the protocol, whatever they are for.
pub(crate) fn jobs(world: &World) -> impl Iterator<Item = (&ObjectKey, &Live)> {
    let is_ours = |live: &Live| {
        let labels = live.pointer("/metadata/labels").and_then(Value::as_object);
        labels.is_some_and(|labels| labels.contains_key(label::INSTALL_STRATEGY))
    };
    world.objects.iter().filter(move |(key, live)| key.kind == Kind::Job && is_ours(live))
}

/// What to do to get the strategy of a deployment.
pub(crate) fn fetch(cr: &KubeVirt, config: &DeploymentConfig, world: &World, now: Timestamp) -> Fetch {
    let wanted = job(cr, config, 1);
    let key = wanted.key();
    let mut fetch = Fetch {
        delete: jobs(world).filter(|(other, _)| **other != key).map(|(key, _)| key.clone()).collect(),
        says: format!("Job {} runs {} to get it", key.name, config.virt_operator_image),
        ..Fetch::default()
    };
    let Some(live) = world.objects.get(&key) else {
        fetch.make = Some(wanted);
        return fetch;
    };
    if text(live, "/metadata/deletionTimestamp").is_some() {
        fetch.says = format!("Job {} is made again when its predecessor is gone", key.name);
        return fetch;
    }
    let attempt = live.pointer("/metadata/annotations").and_then(|all| all.get(ATTEMPT)?.as_str()?.parse().ok());
    let attempt: u32 = attempt.unwrap_or(1);
    if let Some((since, why)) = ended(live) {
        let pause = if why.is_some() { back_off(attempt) } else { SEEN };
        let due = since.saturating_add(pause).unwrap_or(now);
        fetch.failed = why.is_some();
        if let Some(why) = why {
            let why = pod_says(&key, world).map_or_else(|| why.clone(), |said| format!("{why}; {said}"));
            fetch.says = format!("Job {}, which runs {}, failed: {why}", key.name, config.virt_operator_image);
        }
        if now < due {
            fetch.due = Some(due);
        } else {
            // It is made again, under the same name, once this one is gone; how often it was tried is told by that one.
            fetch.delete.push(key);
            fetch.make = Some(job(cr, config, attempt.saturating_add(1)));
        }
        return fetch;
    }
    if let Some(why) = pod_says(&key, world).filter(|why| is_trouble(why)) {
        fetch.failed = true;
        fetch.says = format!("Job {}, which runs {}, does not get on: {why}", key.name, config.virt_operator_image);
    }
    fetch
}

/// When a Job ended, and why it failed if it did.
fn ended(job: &Value) -> Option<(Timestamp, Option<String>)> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array)?;
    let of =
        |kind: &str| conditions.iter().find(|condition| condition["type"] == kind && condition["status"] == "True");
    let since = |condition: &Value| text(condition, "/lastTransitionTime")?.parse().ok();
    if let Some(failed) = of("Failed") {
        let why = text(failed, "/message").or(text(failed, "/reason")).unwrap_or("no reason reported");
        return Some((since(failed)?, Some(why.to_owned())));
    }
    Some((since(of("Complete")?)?, None))
}

/// The pause after so many attempts.
fn back_off(attempt: u32) -> SignedDuration {
    let doublings = attempt.saturating_sub(1).min(10);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_LONGEST)
}

/// What the Job's pod says, as far as it is not ready; it never needs to be.
fn pod_says(key: &ObjectKey, world: &World) -> Option<String> {
    let beginning = format!("{}-", key.name);
    let pods = world.pods.iter().filter(|(name, _)| name.starts_with(&beginning));
    pods.filter_map(|(name, pod)| Some(format!("pod {name}: {}", pod.not_ready.as_deref()?))).next_back()
}

/// Whether a pod does not merely take its time.
fn is_trouble(why: &str) -> bool {
    const WORDS: [&str; 8] = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "CrashLoopBackOff",
        "Unschedulable",
        "RunContainerError",
    ];
    WORDS.iter().any(|word| why.contains(word))
}

/// The Job: the operator of the wanted version, asked for the strategy of exactly this deployment.
fn job(cr: &KubeVirt, config: &DeploymentConfig, attempt: u32) -> Object {
    /// Enough of the ID to tell two deployments apart.
    const SHORT_ID: usize = 10;
    let id = config.id();
    let name = format!("{NAME}-{}", id.get(..SHORT_ID).unwrap_or(&id).trim_end_matches(['-', '.', '_']).to_lowercase());
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let pod_labels = json!({
        label::MANAGED_BY: label::MANAGED_BY_OPERATOR,
        label::KUBEVIRT: "virt-operator-strategy-dumper",
        label::CLUSTER_SERVICES: "true",
    });
    let mut spec = json!({
        "restartPolicy": "Never",
        "serviceAccountName": "kubevirt-operator",
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": CONTAINER,
            "image": config.virt_operator_image,
            "imagePullPolicy": config.image_pull_policy(),
            "command": ["virt-operator", "--dump-install-strategy"],
            "env": [
                env("VIRT_OPERATOR_IMAGE", &config.virt_operator_image),
                env("TARGET_DEPLOYMENT_CONFIG", &config.to_json()),
                env("TARGET_INSTALL_NAMESPACE", &config.namespace),
                env("TARGET_IMAGE_PULL_POLICY", config.image_pull_policy()),
            ],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }],
    });
    let secrets = config.image_pull_secrets();
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = secrets.iter().map(|name| json!({ "name": name })).collect();
    }
    let value = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": config.namespace,
            "labels": {
                label::KUBEVIRT: "", label::MANAGED_BY: label::MANAGED_BY_OPERATOR, label::INSTALL_STRATEGY: "",
            },
            "annotations": {
                annotation::STRATEGY_VERSION: config.kubevirt_version,
                annotation::STRATEGY_REGISTRY: config.registry,
                annotation::STRATEGY_IDENTIFIER: id,
                ATTEMPT: attempt.to_string(),
            },
        },
        "spec": {
            // A failure is told, and tried again from here with a pause of its own.
            "backoffLimit": 0,
            "template": {"metadata": {"labels": pod_labels}, "spec": spec},
        },
    });
    let mut job = Object::from_value(value).expect("a Job with a name and a namespace");
    place_job(&mut job, &cr.spec);
    customize(&mut job, cr);
    job
}

/// Makes the CR's changes to the Job, which know it by the beginning of its name. One that cannot be made is told where
/// the version's own objects are changed; here it must not keep them from being got.
fn customize(job: &mut Object, cr: &KubeVirt) {
    let Ok(changes) = Customizations::read(cr.spec.customize_components.as_ref()) else { return };
    let name = job.name().to_owned();
    job.value_mut()["metadata"]["name"] = NAME.into();
    if let Err(refused) = changes.apply(job) {
        tracing::warn!(%refused, "a change of the Job is not made");
    }
    job.value_mut()["metadata"]["name"] = name.into();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kubevirt_api::kubevirt::KubeVirtSpec;

    use super::*;

    fn config() -> DeploymentConfig {
        DeploymentConfig {
            namespace: "kubevirt".into(),
            registry: "r".into(),
            kubevirt_version: "v9".into(),
            virt_operator_image: "r/virt-operator:v9".into(),
            ..DeploymentConfig::default()
        }
    }

    fn cr() -> KubeVirt {
        KubeVirt::new("kubevirt", KubeVirtSpec::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    /// A cluster with the Job of an attempt, and what its status says.
    fn world(attempt: u32, status: Value) -> World {
        let job = job(&cr(), &config(), attempt);
        let (key, mut value) = (job.key(), job.into_value());
        value["status"] = status;
        World { objects: [(key, Arc::new(value))].into(), ..World::default() }
    }

    fn over(kind: &str) -> Value {
        let condition =
            json!({"type": kind, "status": "True", "lastTransitionTime": at(0).to_string(), "message": "over"});
        json!({ "conditions": [condition] })
    }

    #[test]
    fn it_is_made_once_and_waited_for() {
        let first = fetch(&cr(), &config(), &World::default(), at(0));
        let made = first.make.expect("a Job");
        let asked = made.at("/spec/template/spec/containers/0/env/1/value").and_then(Value::as_str).expect("a text");
        assert_eq!(DeploymentConfig::from_json(asked).expect("a config"), config());
        assert_eq!(made.annotation(annotation::STRATEGY_IDENTIFIER), Some(config().id().as_str()));
        let then = fetch(&cr(), &config(), &world(1, json!({"active": 1})), at(1));
        assert_eq!((then.make, then.delete, then.failed), (None, vec![], false));
        assert!(then.says.contains("runs r/virt-operator:v9"), "{}", then.says);
    }

    #[test]
    fn one_for_another_version_goes() {
        let other = DeploymentConfig { kubevirt_version: "v8".into(), ..config() };
        let found = fetch(&cr(), &other, &world(1, Value::Null), at(0));
        assert_eq!(found.delete, [job(&cr(), &config(), 1).key()]);
        assert!(found.make.is_some());
    }

    #[test]
    fn a_failure_is_told_and_tried_again_later_and_later() {
        let due = |attempt| fetch(&cr(), &config(), &world(attempt, over("Failed")), at(1)).due;
        assert_eq!([due(1), due(2), due(3), due(30)], [at(10), at(20), at(40), at(300)].map(Some));
        let waits = fetch(&cr(), &config(), &world(2, over("Failed")), at(1));
        assert!(waits.failed && waits.says.contains("failed: over"), "{}", waits.says);
        assert_eq!(waits.make, None);
        let again = fetch(&cr(), &config(), &world(2, over("Failed")), at(20));
        assert_eq!(again.delete.len(), 1);
        assert_eq!(again.make.expect("the next").annotation(ATTEMPT), Some("3"));
    }

    #[test]
    fn the_changes_of_the_custom_resource_are_made_to_it() {
        let spec = json!({"customizeComponents": {"patches": [{
            "resourceType": "Job", "resourceName": NAME, "type": "merge",
            "patch": "{\"spec\": {\"template\": {\"spec\": {\"priorityClassName\": \"low\"}}}}",
        }]}});
        let cr = KubeVirt::new("kubevirt", serde_json::from_value(spec).expect("a spec"));
        let made = job(&cr, &config(), 1);
        assert_eq!(made.at("/spec/template/spec/priorityClassName"), Some(&json!("low")));
        assert!(made.name().starts_with(&format!("{NAME}-")), "{}", made.name());
    }

    #[test]
    fn one_that_is_done_and_has_written_nothing_is_made_again() {
        let soon = fetch(&cr(), &config(), &world(1, over("Complete")), at(9));
        assert_eq!((soon.make, soon.due, soon.failed), (None, Some(at(10)), false));
        assert!(fetch(&cr(), &config(), &world(1, over("Complete")), at(10)).make.is_some());
    }

    #[test]
    fn what_its_pod_waits_for_is_told() {
        assert!(is_trouble("pod x-1: container a: ErrImagePull: not found"));
        assert!(!is_trouble("pod x-1: it is Pending"));
    }
}
