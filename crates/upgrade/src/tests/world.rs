//! A cluster reduced to what a planner can see: objects with a content, workloads with pods.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kubevirt_release::{Kind, ObjectKey};

use crate::{Absence, Trouble, gate, images};
use crate::{Existing, Form, Identity, Input, Plan, Pod, Snapshot, StepState, Workload, WorkloadKind, check, plan};

/// Nodes of the world, hence pods of virt-handler.
pub(super) const NODES: usize = 3;

pub(super) fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, Some("kubevirt"), name)
}

/// The objects of a version: most are common, some belong to one version only.
pub(super) fn release(version: &str) -> BTreeSet<ObjectKey> {
    let mut keys: BTreeSet<ObjectKey> = [
        key(Kind::CustomResourceDefinition, "virtualmachines.kubevirt.io"),
        key(Kind::ClusterRole, "kubevirt-handler"),
        key(Kind::ServiceAccount, "kubevirt-handler"),
        key(Kind::Service, "virt-api"),
        key(Kind::ConfigMap, "kubevirt-ca"),
        key(Kind::DaemonSet, "virt-handler"),
        key(Kind::Deployment, "virt-controller"),
        key(Kind::Deployment, "virt-api"),
        key(Kind::APIService, "v1.subresources.kubevirt.io"),
    ]
    .into();
    keys.insert(key(Kind::ConfigMap, &format!("only-{version}")));
    keys.insert(key(Kind::CustomResourceDefinition, &format!("{version}.kubevirt.io")));
    keys
}

/// What brings images onto the nodes.
pub(super) fn puller() -> ObjectKey {
    key(Kind::DaemonSet, kubevirt_release::images::NAME)
}

/// What keeps kinds closed that a version brings.
pub(super) fn gate() -> ObjectKey {
    ObjectKey::new(Kind::ValidatingWebhookConfiguration, None, kubevirt_release::gate::NAME)
}

pub(super) fn identity(version: &str) -> Identity {
    Identity { version: version.to_owned(), id: format!("id-{version}") }
}

#[derive(Clone, Debug)]
pub(super) struct Object {
    /// The versions whose needs the content serves; two for a widened role.
    pub(super) serves: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct PodState {
    version: String,
    ready: bool,
    age: SignedDuration,
    trouble: Option<Trouble>,
    prepared: bool,
}

impl PodState {
    fn new(version: String) -> Self {
        Self { version, ready: false, age: SignedDuration::ZERO, trouble: None, prepared: false }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) observed: Option<String>,
    pub(super) objects: BTreeMap<ObjectKey, Object>,
    pods: BTreeMap<ObjectKey, Vec<PodState>>,
    pub(super) not_ready_reason: String,
    pub(super) now: Timestamp,
    /// Versions whose pods never become ready, and what they suffer from.
    pub(super) bad: BTreeMap<String, Option<Trouble>>,
    pub(super) absent_nodes: BTreeMap<String, Absence>,
    /// Nodes on which no pod changes any more.
    pub(super) stuck_nodes: BTreeSet<String>,
    /// Nodes on which no new pod becomes ready.
    pub(super) bad_nodes: BTreeSet<String>,
    /// Kinds that a version brings stay closed at first.
    pub(super) closes: bool,
    /// What the policy says of the images.
    pub(super) pulls_images: bool,
    /// They are not waited for any more.
    pub(super) images_overdue: bool,
    /// The pods that bring images fail when they have.
    pub(super) pullers_fail: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self { not_ready_reason: "ContainersNotReady".to_owned(), ..Self::default() }
    }

    /// A world in which a version is installed completely.
    pub(super) fn installed(version: &str) -> Self {
        let mut world = Self::new();
        world.run_to_end(version);
        world
    }

    fn wanted(key: &ObjectKey) -> usize {
        match key.kind {
            Kind::DaemonSet => NODES,
            Kind::Deployment => 2,
            _ => 0,
        }
    }

    pub(super) fn input(&self, target: &str) -> Input {
        let mut snapshot = Snapshot { absent_nodes: self.absent_nodes.clone(), ..Snapshot::default() };
        for (key, object) in &self.objects {
            let existing = Existing {
                same: object.serves.len() == 1 && object.serves.contains(target),
                // Nobody's trust changes here.
                same_transitional: key.kind == Kind::APIService
                    || (object.serves.contains(target)
                        && self.observed.as_ref().is_none_or(|observed| object.serves.contains(observed))),
                id: object.serves.iter().next().map(|version| format!("id-{version}")),
                not_serving: None,
                deleting: false,
            };
            snapshot.objects.insert(key.clone(), existing);
        }
        for (key, pods) in &self.pods {
            let Some(object) = self.objects.get(key) else { continue };
            let is_newest = |pod: &&PodState| object.serves.contains(&pod.version);
            let count = |n: usize| i64::try_from(n).expect("small");
            let workload = Workload {
                kind: if key.kind == Kind::DaemonSet { WorkloadKind::DaemonSet } else { WorkloadKind::Deployment },
                generation: 1,
                observed_generation: 1,
                wanted: count(Self::wanted(key)),
                updated: count(pods.iter().filter(is_newest).count()),
                ready: count(pods.iter().filter(|pod| pod.ready).count()),
                total: count(pods.len()),
                pods: pods
                    .iter()
                    .enumerate()
                    .map(|(index, pod)| Pod {
                        name: format!("{}-{index}", key.name).into(),
                        id: Some(format!("id-{}", pod.version).into()),
                        revision: None,
                        created: None,
                        ready: pod.ready,
                        not_ready: (!pod.ready).then(|| self.not_ready_reason.as_str().into()),
                        deleting: false,
                        node: Some(format!("node-{index}").into()),
                        since: self.now.checked_sub(pod.age).ok(),
                        trouble: pod.trouble,
                        prepared: pod.prepared,
                    })
                    .collect(),
            };
            snapshot.workloads.insert(key.clone(), workload);
        }
        let mut input = Input {
            observed: self.observed.as_deref().map(identity),
            target: identity(target),
            desired: release(target),
            snapshot,
            releases: Vec::new(),
            closes: self.closes && self.brings(target),
            pulls_images: self.pulls_images,
            images_overdue: self.images_overdue,
        };
        if images::wanted(&input) {
            input.desired.insert(puller());
        }
        if gate::wanted(&input) {
            input.desired.insert(self::gate());
        }
        input
    }

    /// Whether a version has definitions that the one before it has not.
    fn brings(&self, target: &str) -> bool {
        self.observed.as_deref().is_some_and(|observed| {
            let before = release(observed);
            release(target).iter().any(|key| key.kind == Kind::CustomResourceDefinition && !before.contains(key))
        })
    }

    /// One pass of an executor: plans, checks, carries out what is due. Returns whether the plan was done already.
    pub(super) fn pass(&mut self, target: &str) -> bool {
        let input = self.input(target);
        let (plan, _report) = plan(&input);
        check::check(&plan, &input.desired).expect("the plan is in order");
        self.carry_out(&plan, target, usize::MAX);
        if plan.is_done() {
            self.observed = Some(target.to_owned());
        }
        plan.is_done()
    }

    /// Carries out at most `writes` writes of a plan, as an executor does that is killed after them.
    pub(super) fn carry_out(&mut self, plan: &Plan, target: &str, mut writes: usize) {
        let observed = self.observed.clone();
        for step in plan.now() {
            for key in &step.apply {
                if writes == 0 {
                    return;
                }
                writes -= 1;
                let mut serves = BTreeSet::from([target.to_owned()]);
                if step.form == Form::Transitional {
                    serves.extend(observed.clone());
                }
                self.objects.insert(key.clone(), Object { serves });
                if Self::wanted(key) > 0 {
                    self.pods.entry(key.clone()).or_default();
                }
            }
            for key in &step.delete {
                if writes == 0 {
                    return;
                }
                writes -= 1;
                self.objects.remove(key);
                self.pods.remove(key);
            }
        }
    }

    /// Time passes.
    pub(super) fn later(&mut self, seconds: i64) {
        let span = SignedDuration::from_secs(seconds);
        self.now = self.now.saturating_add(span).expect("a time");
        self.pods.values_mut().flatten().for_each(|pod| pod.age += span);
    }

    /// One small thing happens to a workload: a pod becomes ready, or the next one is replaced or added.
    pub(super) fn roll(&mut self, pick: usize) {
        let moving: Vec<ObjectKey> = self.pods.keys().filter(|key| !self.is_settled(key)).cloned().collect();
        if moving.is_empty() {
            return;
        }
        let key = moving[pick % moving.len()].clone();
        let version = self.template(&key);
        let pods = self.pods.get_mut(&key).expect("listed");
        let is_bad = |pod: &&mut PodState| self.bad.contains_key(&pod.version);
        if let Some(pod) = pods.iter_mut().filter(is_bad).find(|pod| !pod.ready) {
            pod.trouble = self.bad[&pod.version];
            // What does not work is replaced when the template says something else.
            if pod.version != version {
                *pod = PodState::new(version);
            }
        } else if let Some(pod) = open(pods, &self.bad_nodes) {
            if self.pullers_fail && key == puller() {
                pod.prepared = true;
                pod.trouble = Some(Trouble::CrashLoops { restarts: 7 });
                return;
            }
            pod.ready = true;
            pod.age = SignedDuration::ZERO;
        } else if pods.len() < Self::wanted(&key) {
            pods.push(PodState::new(version));
        } else {
            let moves = |index: &usize| !self.stuck_nodes.contains(&format!("node-{index}"));
            let mut old = pods.iter_mut().enumerate().filter(|(_, pod)| pod.version != version);
            if let Some((_, pod)) = old.find(|(index, _)| moves(index)) {
                *pod = PodState::new(version);
            }
        }
    }

    fn is_bad_node(&self, index: usize) -> bool {
        self.bad_nodes.contains(&format!("node-{index}"))
    }

    fn template(&self, key: &ObjectKey) -> String {
        self.objects[key].serves.iter().next().expect("every object serves a version").clone()
    }

    fn is_settled(&self, key: &ObjectKey) -> bool {
        let version = self.template(key);
        let pods = &self.pods[key];
        pods.len() == Self::wanted(key)
            && pods
                .iter()
                .enumerate()
                .all(|(index, pod)| (pod.ready || pod.prepared || self.is_bad_node(index)) && pod.version == version)
    }

    pub(super) fn run_to_end(&mut self, target: &str) {
        for round in 0..200 {
            if self.pass(target) {
                return;
            }
            self.roll(round);
        }
        panic!("{target} is not complete after 200 rounds: {:?}", plan(&self.input(target)).1);
    }

    /// All pods of a workload, as version and readiness.
    pub(super) fn pods(&self, kind: Kind, name: &str) -> Vec<(&str, bool)> {
        let pods = self.pods.get(&key(kind, name)).map(Vec::as_slice).unwrap_or_default();
        pods.iter().map(|pod| (pod.version.as_str(), pod.ready)).collect()
    }

    /// Every version of which a pod runs.
    pub(super) fn running(&self) -> BTreeSet<String> {
        self.pods.values().flatten().map(|pod| pod.version.clone()).collect()
    }

    /// A pod is made anew from the template of its workload.
    pub(super) fn restart(&mut self, kind: Kind, name: &str, index: usize) {
        let key = key(kind, name);
        let version = self.template(&key);
        self.pods.get_mut(&key).expect("it has pods")[index] = PodState::new(version);
    }

    pub(super) fn forget(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
        self.pods.remove(key);
    }
}

/// The next pod that becomes ready.
fn open<'a>(pods: &'a mut [PodState], bad_nodes: &BTreeSet<String>) -> Option<&'a mut PodState> {
    let is_bad = |index: usize| bad_nodes.contains(&format!("node-{index}"));
    let mut pods = pods.iter_mut().enumerate();
    pods.find(|(index, pod)| !pod.ready && !pod.prepared && !is_bad(*index)).map(|(_, pod)| pod)
}

/// A plan's steps that are due, as their names.
pub(super) fn due(plan: &Plan) -> Vec<&'static str> {
    plan.steps().iter().filter(|step| step.state == StepState::Now).map(|step| step.slot.code()).collect()
}
