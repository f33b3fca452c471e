//! The plan for another version or for the removal, as the operator would make it, without carrying anything out. Reads only.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, ListParams};
use kubevirt_api::kubevirt::{KubeVirt, UninstallStrategy};
use kubevirt_api::names::{annotation, label};
use kubevirt_api::upgrade::{POLICY_NAME, UpgradePolicy};
pub use kubevirt_apply::Difference;
use kubevirt_apply::differences;
use kubevirt_release::{Kind, Object, ObjectKey, certificates};
use kubevirt_upgrade::{Plan, Policy, Report};
use serde::{Deserialize, Serialize};

use crate::before;
use crate::cache::{Live, text};
use crate::instances::{self, Depth};
use crate::reconcile::uninstall::{self, Blocker, Instances, Stage};
use crate::reconcile::{BuildError, Built, World, plan_for};
use crate::settings::Settings;
use crate::watches;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster could not be read: {0}")]
    Read(#[from] kube::Error),
    #[error("there is no KubeVirt object in the cluster: nothing is installed")]
    NoCr,
    #[error("the KubeVirt object cannot be read: {0}")]
    UnreadableCr(#[from] serde_json::Error),
    #[error("there is no virt-operator in namespace {namespace}")]
    NoOperator { namespace: String },
    #[error("{0}")]
    OwnImage(#[from] crate::settings::SettingsError),
    /// The version can't be planned: usually no strategy of it is in the cluster.
    #[error("{message}")]
    Refused { code: &'static str, message: String },
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Error {
    /// The machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "Unreachable",
            Self::NoCr => "NotInstalled",
            Self::UnreadableCr(_) => "InvalidObject",
            Self::NoOperator { .. } => "NoOperator",
            Self::OwnImage(_) => "OwnImage",
            Self::Refused { code, .. } => code,
            Self::Build(_) => "NoPlan",
        }
    }
}

/// What a change of version would do.
#[derive(Clone, Debug)]
pub struct Preview {
    pub plan: Plan,
    pub report: Report,
    /// What its writes would change, of each object that is there already.
    pub changes: Vec<Change>,
}

/// What a write would change in an object.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The step of the plan; none for what follows once nothing of the older version runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    pub object: ObjectKey,
    pub differences: Vec<Difference>,
}

/// What the operator in the cluster would do if the CR named version `to` now.
///
/// # Errors
/// The cluster can't be read, or that version can't be planned.
pub async fn preview(client: &Client, to: &str) -> Result<Preview, Error> {
    let crs = Api::<KubeVirt>::all(client.clone()).list(&ListParams::default()).await?;
    let namespace = crs.items.first().and_then(|cr| cr.metadata.namespace.clone()).ok_or(Error::NoCr)?;
    let (settings, account) = operator(client, &namespace).await?;
    let mut world = watches::look(client, &namespace, &[Kind::Secret]).await?;
    // The rest of the policy concerns how the steps go, not which there are.
    world.upgrades.policy.pulls_images = policy(client).await?.pulls_images;
    let secrets = crs.items.first().and_then(|cr| cr.spec.image_pull_secrets.as_deref()).unwrap_or_default();
    let secrets: Vec<String> = secrets.iter().filter_map(|secret| secret.name.clone()).collect();
    world.before = Arc::new(before::from_outside(client, &namespace, &account, &secrets).await);
    let built = built(&mut world, &settings, to)?;
    let change = |step: Option<usize>, object: &Object| {
        let differences = differences(object, world.objects.get(&object.key())?);
        Some(Change { step, object: object.key(), differences })
    };
    let steps = built.plan.steps().iter();
    let written = steps.flat_map(|step| step.apply.iter().map(move |key| (step, key)));
    let mut changes: Vec<Change> =
        written.filter_map(|(step, key)| change(Some(step.number), built.object(key, step.form)?)).collect();
    changes.extend(built.later.values().filter_map(|object| change(None, object)));
    let Built { plan, report, .. } = built;
    Ok(Preview { plan, report, changes })
}

/// The policy for changes of version, as far as there is one and it may be read.
pub(crate) async fn policy(client: &Client) -> kube::Result<Policy> {
    match Api::<UpgradePolicy>::all(client.clone()).get_opt(POLICY_NAME).await {
        Ok(policy) => Ok(policy.map(|policy| Policy::from(&policy.spec)).unwrap_or_default()),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Policy::default()),
        Err(error) => Err(error),
    }
}

/// The plan alone, on a world that was read before.
///
/// # Errors
/// As for [`preview`].
pub fn plan(mut world: World, settings: &Settings, to: &str) -> Result<(Plan, Report), Error> {
    let Built { plan, report, .. } = built(&mut world, settings, to)?;
    Ok((plan, report))
}

fn built(world: &mut World, settings: &Settings, to: &str) -> Result<Built, Error> {
    let is_own = |cr: &&crate::cache::Live| text(cr, "/metadata/namespace") == Some(settings.namespace.as_str());
    let live = world.crs.iter().find(is_own).ok_or(Error::NoCr)?;
    let mut cr = KubeVirt::deserialize(live.as_ref())?;
    cr.spec.image_tag = Some(to.to_owned());
    plan_for(&cr, world, settings)
}

/// What the removal of the suite would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// `namespace/name` of the custom resource.
    pub cr: String,
    pub strategy: UninstallStrategy,
    /// What goes, in order.
    pub stages: Vec<Stage>,
    /// Users' objects by definition.
    pub instances: BTreeMap<String, Instances>,
    /// What would hold it up.
    pub blockers: Vec<Blocker>,
}

/// What the operator in the cluster would do if the CR were deleted now. Secrets are not read; those of the certificates
/// go with the rest.
///
/// # Errors
/// The cluster can't be read, or nothing is installed.
pub async fn removal(client: &Client) -> Result<Removal, Error> {
    let crs = Api::<KubeVirt>::all(client.clone()).list(&ListParams::default()).await.map_err(|error| match error {
        // The definition itself is missing.
        kube::Error::Api(status) if status.code == 404 => Error::NoCr,
        error => Error::Read(error),
    })?;
    let cr = crs.items.into_iter().next().ok_or(Error::NoCr)?;
    let (namespace, name) =
        (cr.metadata.namespace.clone().unwrap_or_default(), cr.metadata.name.clone().unwrap_or_default());
    let mut world = watches::look(client, &namespace, &[Kind::Secret]).await?;
    for certificate in certificates::all(&namespace) {
        let key = ObjectKey::new(Kind::Secret, Some(&namespace), certificate.secret);
        world.objects.insert(key, Live::new(stamped(certificate.secret)));
    }
    for kind in [Kind::ConfigMap, Kind::Job] {
        let found = watches::labelled(client, &namespace, kind, label::INSTALL_STRATEGY).await?;
        world.objects.extend(found.into_iter().map(|(key, object)| (key, Live::new(object))));
    }
    let definitions = instances::definitions(&world);
    world.instances = instances::look(client, &definitions, Depth::All).await?;
    let live = serde_json::to_value(&cr)?;
    let strategy = cr.spec.uninstall();
    let blockers = uninstall::obstacles(&live, strategy, &world);
    let stages = uninstall::stages(&world);
    Ok(Removal { cr: format!("{namespace}/{name}"), strategy, stages, instances: world.instances, blockers })
}

/// A certificate's Secret as far as a plan needs it.
fn stamped(name: &str) -> serde_json::Value {
    serde_json::json!({"metadata": {"name": name, "annotations": {annotation::STRATEGY_IDENTIFIER: ""}}})
}

/// What the operator in the cluster was started with, and its account: both are in its Deployment.
async fn operator(client: &Client, namespace: &str) -> Result<(Settings, String), Error> {
    let selector = format!("{}=virt-operator", label::KUBEVIRT);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments.list(&ListParams::default().labels(&selector)).await?;
    let no_operator = || Error::NoOperator { namespace: namespace.to_owned() };
    let spec = found.items.into_iter().next().and_then(|deployment| deployment.spec).ok_or_else(no_operator)?;
    let pod = spec.template.spec.unwrap_or_default();
    let account = pod.service_account_name.unwrap_or_else(|| "default".to_owned());
    let container = pod.containers.into_iter().next().ok_or_else(no_operator)?;
    let env: BTreeMap<String, String> = container
        .env
        .unwrap_or_default()
        .into_iter()
        .filter_map(|variable| Some((variable.name, variable.value?)))
        .collect();
    Ok((Settings::new(namespace.to_owned(), env)?, account))
}
