//! The only place of this crate that writes: turns actions into requests.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::Value;

use crate::action::Action;
use crate::cache::{Change, Name};
use crate::events::Recorder;
use crate::kinds::{Cached, ObjectVisitor, Objects, Visitor};

/// How many requests of one decision are under way at once: enough to hide a real server's latency, few enough to be fair.
const PARALLEL: usize = 16;

/// What the cache learns from an answer.
pub(crate) type Learned = Box<dyn FnOnce(&mut Objects) -> Option<Change> + Send>;

/// What came of a decision's actions.
pub(crate) struct Outcome {
    pub(crate) learned: Vec<Learned>,
    /// The first failure, in words.
    pub(crate) failure: Option<String>,
}

/// A failure in the words a user should see.
fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs the actions of one decision.
pub(crate) async fn execute(client: Client, recorder: Arc<Recorder>, actions: Vec<Action>) -> Outcome {
    let mut outcome = Outcome { learned: Vec::new(), failure: None };
    let requests = actions.into_iter().map(|action| perform(client.clone(), recorder.clone(), action));
    let mut answers = std::pin::pin!(futures::stream::iter(requests).buffered(PARALLEL));
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(learned) => outcome.learned.extend(learned),
            Err(failed) => {
                outcome.failure.get_or_insert_with(|| words(failed));
            }
        }
    }
    outcome
}

async fn perform(client: Client, recorder: Arc<Recorder>, action: Action) -> Result<Option<Learned>, kube::Error> {
    match action {
        Action::Create { object, note } => {
            let (name, learned) = object.visit(Create { client: client.clone() }).await?;
            if let Some(mut note) = note {
                note.message = note.message.replace("{name}", &name);
                recorder.record(&client, note).await;
            }
            Ok(Some(learned))
        }
        Action::Patch { kind, name, subresource, patch, note } => {
            let learned = kind.visit(Amend { client: client.clone(), name, subresource, patch }).await?;
            if let Some(note) = note {
                recorder.record(&client, note).await;
            }
            Ok(Some(learned))
        }
        Action::Delete { kind, name, uid, grace, note } => {
            let learned = kind.visit(Remove { client: client.clone(), name, uid, grace }).await?;
            if let Some(note) = note {
                recorder.record(&client, note).await;
            }
            Ok(learned)
        }
        Action::Bind { pod, uid, node, note } => {
            let learned = bind(client.clone(), pod, uid, node).await?;
            recorder.record(&client, note).await;
            Ok(Some(learned))
        }
        Action::Note(note) => {
            recorder.record(&client, note).await;
            Ok(None)
        }
    }
}

struct Create {
    client: Client,
}

impl ObjectVisitor for Create {
    type Out = BoxFuture<'static, Result<(String, Learned), kube::Error>>;
    fn visit<K: Cached>(self, object: &Arc<K>) -> Self::Out {
        let object = object.clone();
        Box::pin(async move {
            let namespace = object.meta().namespace.clone().unwrap_or_default();
            let created = K::api(self.client, &namespace).create(&PostParams::default(), &object).await?;
            let name = created.meta().name.clone().unwrap_or_default();
            let learned: Learned = Box::new(move |objects| objects.answered(created));
            Ok((name, learned))
        })
    }
}

struct Amend {
    client: Client,
    name: Name,
    subresource: Option<&'static str>,
    patch: Value,
}

impl Visitor for Amend {
    type Out = BoxFuture<'static, Result<Learned, kube::Error>>;
    fn visit<K: Cached>(self) -> Self::Out {
        Box::pin(async move {
            let api = K::api(self.client, &self.name.namespace);
            let (params, patch) = (PatchParams::default(), Patch::Merge(self.patch));
            let changed = match self.subresource {
                None => api.patch(&self.name.name, &params, &patch).await?,
                Some(part) => api.patch_subresource(part, &self.name.name, &params, &patch).await?,
            };
            Ok(Box::new(move |objects: &mut Objects| objects.answered(changed)) as Learned)
        })
    }
}

struct Remove {
    client: Client,
    name: Name,
    uid: String,
    grace: Option<u32>,
}

impl Visitor for Remove {
    type Out = BoxFuture<'static, Result<Option<Learned>, kube::Error>>;
    fn visit<K: Cached>(self) -> Self::Out {
        Box::pin(async move {
            let Self { client, name, uid, grace } = self;
            let params = DeleteParams {
                grace_period_seconds: grace,
                preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                ..DeleteParams::background()
            };
            let gone: Learned = Box::new({
                let name = name.clone();
                move |objects| objects.deleted::<K>(&name, &uid)
            });
            match K::api(client, &name.namespace).delete(&name.name, &params).await {
                // An object comes back while it still terminates: gracefully, or held by a finalizer.
                Ok(answer) => match answer.left().filter(|object| object.meta().deletion_timestamp.is_some()) {
                    Some(object) => {
                        Ok(Some(Box::new(move |objects: &mut Objects| objects.answered(object)) as Learned))
                    }
                    None => Ok(Some(gone)),
                },
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Some(gone)),
                // Another incarnation has the name by now: what was to be deleted is gone.
                Err(kube::Error::Api(status)) if status.is_conflict() => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

async fn bind(client: Client, pod: Name, uid: String, node: String) -> Result<Learned, kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let _: Value = api.create_subresource("binding", &pod.name, &PostParams::default(), &binding).await?;
    // The answer is no pod. Until the watch shows it, the cache assumes what was asked for; the version stays the old
    // one, so the real pod replaces it.
    Ok(Box::new(move |objects| objects.assume_bound(&pod, &uid, &node)))
}

impl Objects {
    /// Marks a pod as bound before the watch shows it.
    fn assume_bound(&mut self, pod: &Name, uid: &str, node: &str) -> Option<Change> {
        let known = self.pods.get(pod)?;
        let spec = known.spec.as_ref()?;
        if known.metadata.uid.as_deref() != Some(uid) || spec.node_name.is_some() {
            return None;
        }
        let mut assumed = Pod::clone(known);
        assumed.spec.get_or_insert_default().node_name = Some(node.to_owned());
        self.replace_pod(pod, assumed)
    }
}
