//! Plays a script on a cluster.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use kubevirt_runtime::clock::Clock;
use nanokube::UserInfo;
use nanokube_cli::{Cluster, Options};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::facets::facets;
use crate::kinds::Kind;
use crate::ledger::Ledger;
use crate::recorder::Recorder;
use crate::script::{Command, How, Line, Meaning, Script, Test};
use crate::shop::Shop;

/// A wait that takes longer than this will not end: evictions by taint take five minutes, nothing takes more.
const PATIENCE: Duration = Duration::from_secs(900);
/// The cluster has been complete and quiet for a while when time starts.
const START: Duration = Duration::from_secs(10);
/// The namespace of objects that name none.
const NAMESPACE: &str = "default";

struct Runner {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
    shop: Arc<Shop>,
}

/// Plays a script and gives its transcript.
pub(crate) async fn run(script: &Script) -> String {
    let ledger = Ledger::default();
    let clock = Clock::anchored("2026-01-01T00:00:00Z".parse().expect("a time"));
    let shop = Arc::new(Shop::new());
    let images = Arc::clone(&shop);
    let images = Arc::new(move |image: &str| images.image(image));
    let options = Options::new(script.nodes, clock, script.seed, images);
    let cluster = Cluster::start(Options { audit: Some(Box::new(ledger.clone())), ..options });
    ledger.attach(cluster.api.clone());
    let client = cluster.api.client(UserInfo::new("alice", &["system:masters"]));
    let recorder = Recorder::new(&client, ledger);
    let mut runner = Runner { cluster, client, recorder, shop };
    runner.recorder.follow(Instant::now() + START, |_| false).await;
    runner.recorder.start();
    let _ = writeln!(runner.recorder.text, "seed {}, {} nodes", script.seed, script.nodes);
    let mut after_comment = false;
    for Line { echo, meaning } in &script.lines {
        match meaning {
            Meaning::Comment => {
                let gap = if after_comment { "" } else { "\n" };
                let _ = writeln!(runner.recorder.text, "{gap}{echo}");
                after_comment = true;
            }
            Meaning::Command(command) => {
                if !matches!(command, Command::Follow(_) | Command::Hide(_)) {
                    let _ = writeln!(runner.recorder.text, "> {echo}");
                }
                after_comment = false;
                runner.perform(command).await;
            }
        }
    }
    let Runner { cluster, recorder, .. } = runner;
    cluster.shut_down().await.expect("every part of the cluster ends well");
    recorder.text
}

impl Runner {
    async fn perform(&mut self, command: &Command) {
        match command {
            Command::Follow(kinds) => self.recorder.show(kinds),
            Command::Hide(reasons) => self.recorder.hide(reasons),
            Command::Apply(objects) => {
                for object in objects {
                    self.apply(object).await;
                }
            }
            Command::Patch { kind, name, subresource, patch } => {
                let (api, name) = self.reach(*kind, name);
                let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
                let answer = match subresource {
                    Some(part) => api.patch_subresource(part, &name, &params, &patch).await,
                    None => api.patch(&name, &params, &patch).await,
                };
                self.answered(answer).await;
            }
            Command::Delete { kind, name, how } => {
                let (api, name) = self.reach(*kind, name);
                let params = match how {
                    How::Background => DeleteParams::background(),
                    How::Foreground => DeleteParams::foreground(),
                    How::Orphan => DeleteParams {
                        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
                        ..DeleteParams::default()
                    },
                };
                let answer = api.delete(&name, &params).await;
                self.answered(answer).await;
            }
            Command::Evict { pod, every } => self.evict(pod, *every).await,
            Command::Cordon { node, unschedulable } => {
                let api = Kind::find("node").expect("a known kind").everywhere(self.client.clone());
                let patch = json!({"spec": {"unschedulable": unschedulable}});
                let answer = api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await;
                self.answered(answer).await;
            }
            Command::Power { node, on } => {
                if *on {
                    self.cluster.power.restore(node);
                } else {
                    self.cluster.power.cut(node);
                }
                self.recorder.settle().await;
            }
            Command::Get(path) => self.get(path).await,
            Command::Wait { kind, name, tests } => self.wait(*kind, name, tests).await,
            Command::Advance(time) => {
                let until = Instant::now() + *time;
                self.recorder.follow(until, |_| false).await;
            }
            Command::Show(kind) => {
                self.recorder.settle().await;
                self.recorder.table(*kind);
            }
        }
    }

    /// The API and the name of an object that a script calls `[namespace/]name`.
    fn reach(&self, kind: Kind, title: &str) -> (Api<DynamicObject>, String) {
        let (namespace, name) = split(title);
        (kind.within(self.client.clone(), namespace), self.recorder.names.real(name))
    }

    /// Asks for a path, as `kubectl get --raw`, and notes what kind of answer came.
    async fn get(&mut self, path: &str) {
        let request = http::Request::get(path).body(Vec::new()).expect("a path");
        let answer = self.client.request::<Value>(request).await;
        let at = Instant::now();
        let kind = answer.as_ref().ok().map(|value| value["kind"].as_str().unwrap_or_default().to_owned());
        if self.answered(answer).await {
            self.recorder.line(at, "alice", "", &format!("answered: 200 {}", kind.unwrap_or_default()));
        }
    }

    async fn apply(&mut self, object: &Value) {
        let mut object = object.clone();
        fill(&mut object, &self.shop.authority);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&object["kind"]);
        let kind = Kind::of(&kind).unwrap_or_else(|| panic!("no kind `{kind}`; kinds.rs lists them"));
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        let api = kind.within(self.client.clone(), namespace);
        let params = PatchParams::apply("alice");
        let answer = api.patch(&text(&object["metadata"]["name"]), &params, &Patch::Apply(&object)).await;
        self.answered(answer).await;
    }

    /// Lets what follows from a request happen; a refusal is part of the story.
    async fn answered<T>(&mut self, answer: Result<T, kube::Error>) -> bool {
        let at = Instant::now();
        self.recorder.settle().await;
        match answer {
            Ok(_) => true,
            Err(kube::Error::Api(status)) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                let causes: Vec<String> = causes.map(|cause| format!(" {}", cause.message)).collect();
                let text = format!("{}{}", status.message, causes.concat());
                let text = self.recorder.names.replaced(&text);
                self.recorder.line(at, "alice", "", &format!("refused: {} {}: {text}", status.code, status.reason));
                false
            }
            Err(error) => panic!("{error}; so far:\n{}", self.recorder.text),
        }
    }

    async fn evict(&mut self, pod: &str, every: Option<Duration>) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (namespace, name) = split(pod);
            let name = self.recorder.names.real(name);
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let answer = api.evict(&name, &EvictParams::default()).await;
            let granted = self.answered(answer).await;
            let Some(every) = every.filter(|_| !granted) else { return };
            assert!(Instant::now() < until, "{pod} was never evicted; so far:\n{}", self.recorder.text);
            self.recorder.follow(Instant::now() + every, |_| false).await;
        }
    }

    async fn wait(&mut self, kind: Kind, title: &str, tests: &[Test]) {
        let (namespace, name) = split(title);
        let namespace = if kind.namespaced { namespace } else { "" };
        let holds = |recorder: &Recorder| {
            let object = recorder.object(kind, namespace, &recorder.names.real(name));
            tests.iter().all(|test| met(kind, object, test, recorder))
        };
        let until = Instant::now() + PATIENCE;
        if !self.recorder.follow(until, holds).await {
            let object = self.recorder.object(kind, namespace, &self.recorder.names.real(name));
            panic!("waited in vain for {} {title}; it is {object:#?}; so far:\n{}", kind.word, self.recorder.text);
        }
    }
}

/// Puts the shop's authority where a `caBundle` says `SHOP`.
fn fill(value: &mut Value, authority: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "caBundle" && *field == "SHOP" {
                    *field = json!(k8s_openapi::ByteString(authority.as_bytes().to_vec()));
                }
                fill(field, authority);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, authority)),
        _ => {}
    }
}

fn split(title: &str) -> (&str, &str) {
    title.split_once('/').unwrap_or((NAMESPACE, title))
}

fn met(kind: Kind, object: Option<&Value>, test: &Test, recorder: &Recorder) -> bool {
    let Some(object) = object else { return matches!(test, Test::Gone) };
    // What a status says of an older spec is no answer.
    let (observed, written) = (&object["status"]["observedGeneration"], &object["metadata"]["generation"]);
    if observed.is_number() && observed.as_i64() < written.as_i64() {
        return false;
    }
    let facets = facets(kind, object, &recorder.names);
    let value = |label: &str| facets.iter().find(|(known, _)| *known == label).map(|(_, value)| value.as_str());
    match test {
        Test::Gone => false,
        Test::Is(label, wanted) => {
            let value = value(label).unwrap_or("-");
            value == wanted || value.split(' ').next() == Some(wanted)
        }
        Test::AtLeast(label, least) => value(label).and_then(|text| text.parse::<i64>().ok()) >= Some(*least),
    }
}
