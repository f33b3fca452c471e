//! One pass: dereference -> validate -> build -> apply -> update status.
//!
//! The first step and the last two hold a client; what lies between takes values and returns values. A pass keeps nothing
//! for the next one but what is quicker than finding it out again ([`crate::kept`]), so a crash or a new leader loses
//! nothing.

mod apply;
mod beside;
mod build;
mod courses;
mod dereference;
mod extras;
mod fetch;
mod gate;
mod health;
mod held;
mod history;
mod hops;
mod over_nodes;
mod pace;
mod refused;
mod registrations;
mod rollout;
mod secrets;
mod snapshot;
mod status;
mod statuses;
mod storage;
mod teardown;
pub mod uninstall;
mod update_status;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kubevirt_api::kubevirt::{ConditionUpdate, KubeVirt, KubeVirtStatus, Reason as ConditionReason, Situation, enter};
use kubevirt_apply::{Writer, Written};
use kubevirt_release::{DeploymentConfig, Kind, Object, ObjectKey};
use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::log::Verbosity;
use kubevirt_runtime::net::Net;
use kubevirt_upgrade::preflight::Finding;
use kubevirt_upgrade::{Course, Mode, Plan, Reason};
use serde::Deserialize;
use serde_json::Value;

pub use apply::Outcomes;
use dereference::find_unlabelled;
pub use dereference::{World, dereference};

pub use self::beside::Troubles;
pub(crate) use self::build::Built;
pub use self::build::Error as BuildError;
use self::build::{build, observed};
pub use self::health::Judged;
pub use self::pace::Progress;
pub use self::refused::Refusals;
use self::status::{Ended, status};
pub use self::storage::Storage;
use self::update_status::{Finalizer, update_metadata, update_status};
use self::validate::{Followed, Refusal, Target, Validated, Wanted, validate};
use crate::absent::Absent;
use crate::accounts::Accounts;
use crate::backends;
use crate::before::{Before, Looked};
use crate::cache::{Cache, Live};
use crate::endpoints::Endpoints;
use crate::metrics::OperatorMetrics;
use crate::settings::Settings;
use crate::shelf::Shelf;
use crate::upgrades::Upgrades;

/// How often a pass plans anew after it has written. A plan has ten steps and each is due at most once in a pass, unless
/// somebody works against the operator, who then has to wait for the next pass.
const ROUNDS: usize = 12;

/// How soon a backend that did not answer is asked again: a handshake per replica of the operator, soon enough that an
/// installation does not wait for it.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// The plan for a CR as it stands, without carrying it out.
///
/// # Errors
/// The CR can't be followed, or no plan could be made.
pub(crate) fn plan_for(cr: &KubeVirt, world: &mut World, settings: &Settings) -> Result<Built, crate::preview::Error> {
    let target = validate::target(cr, world, settings).map_err(|refusal| crate::preview::Error::Refused {
        code: refusal.reason.as_str(),
        message: refusal.message,
    })?;
    // Certificates and kept strategies are not part of a version.
    world.objects.retain(|key, _| !matches!(key.kind, Kind::Secret | Kind::ConfigMap));
    Ok(build::preview(cr, &target, world, settings)?)
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Write(#[from] kubevirt_apply::Error),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("an object could not be read: {0}")]
    Read(#[from] kube::Error),
}

impl Error {
    /// The machine-readable name.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Write(error) => error.category(),
            Self::Read(_) => "Unread",
            Self::Build(BuildError::Certificates(_)) => "Certificates",
            Self::Build(BuildError::Role(_)) => "Role",
            Self::Build(BuildError::Customization(_)) => "Customization",
            Self::Build(BuildError::Plan(_)) => "InconsistentPlan",
        }
    }

    /// Whether trying again soon may help without anybody doing anything; then it is no matter for the status.
    fn is_passing(&self) -> bool {
        match self {
            // An API that has just gone: the watch of its kind is about to notice.
            Self::Write(kubevirt_apply::Error::Refused { key, code: 404, .. }) => key.kind.is_optional(),
            Self::Write(kubevirt_apply::Error::Refused { code, .. }) => is_passing(*code),
            Self::Write(_) => true,
            Self::Read(kube::Error::Api(status)) => is_passing(status.code),
            Self::Read(_) => true,
            Self::Build(_) => false,
        }
    }
}

/// Whether an answer says nothing about what was asked: a token that has just run out, a request that came too late or at
/// the same time as another one, a server that has too much to do or is not well.
fn is_passing(code: u16) -> bool {
    matches!(code, 401 | 408 | 409 | 429) || code >= 500
}

/// What a pass works with.
pub struct Reconciler {
    pub settings: Settings,
    pub client: kube::Client,
    pub cache: Arc<Cache>,
    pub writer: Writer,
    pub clock: Clock,
    pub metrics: OperatorMetrics,
    /// Where what the API server calls is to be found.
    pub endpoints: Arc<Endpoints>,
    /// Through which backends are asked whether they answer.
    pub net: Arc<dyn Net>,
    /// What was told of progress, and when.
    pub progress: Progress,
    /// Where the account of Prometheus is.
    pub accounts: Arc<Accounts>,
    /// How writing what stands beside the suite failed.
    pub troubles: Troubles,
    /// How far objects were stored anew.
    pub storage: Storage,
    /// How the certificates fare.
    pub judged: Judged,
    /// Where strategies of other versions may lie.
    pub shelf: Shelf,
    /// How much this process logs.
    pub verbosity: Verbosity,
    /// Changes of version as people see them.
    pub upgrades: Arc<Upgrades>,
    /// Nodes that are not there.
    pub absent: Absent,
    /// What is looked at before a change of version.
    pub before: Before,
    /// What the server refuses of one.
    pub refusals: Refusals,
}

/// When to look again although nothing has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// A certificate is due then, or a backend is asked again.
    pub due: Option<Timestamp>,
}

impl Reconciler {
    /// One pass.
    ///
    /// # Errors
    /// A write or the making of the plan failed; the status says so if it is not a passing failure.
    pub async fn pass(&self) -> Result<Next, Error> {
        let now = self.clock.now();
        let looks_again = self.absent.look(&self.client, &self.cache.pods(), now).await;
        self.absent.choose(&self.client, self.upgrades.now().policy.canary.as_ref(), now).await;
        let world = self.world();
        let Validated { followed, ignored } = validate(&world, &self.settings);
        self.verbosity.set(followed.as_ref().and_then(|followed| log_level(&followed.cr)));
        let followed = match followed {
            Some(followed) => self.follow(followed).await,
            None => Ok(Next::default()),
        };
        // Last, so that a CR which cannot be told anything does not keep the one that is followed waiting.
        let mut told = Ok(());
        for (cr, message) in ignored {
            told = told.and(self.not_followed(&cr, &message).await);
        }
        let Next { due } = followed?;
        told.map(|()| Next { due: due.into_iter().chain(looks_again).min() })
    }

    async fn follow(&self, followed: Followed) -> Result<Next, Error> {
        let Followed { cr, live, wanted } = followed;
        match wanted {
            Wanted::Install(target) => self.install(&target, &live).await,
            Wanted::Refused { refusal, kept } => self.refuse(&cr, &live, refusal, kept.as_deref()).await,
            Wanted::Undone { refusal, kept } => self.refuse(&cr, &live, refusal, Some(&kept)).await,
            Wanted::Uninstall => self.uninstall(&cr, &live).await,
        }
    }

    /// Brings the target about as far as possible now.
    async fn install(&self, target: &Target, live: &Live) -> Result<Next, Error> {
        let live = match update_metadata(live, Finalizer::Keep, &self.writer, &self.cache).await? {
            Some(live) => Live::new(live),
            None => Live::clone(live),
        };
        let Some(cr) = read(&live) else {
            return Ok(Next::default());
        };
        let certificates = target.certificates(&self.settings.namespace);
        find_unlabelled(&self.client, &self.settings.namespace, &certificates, &self.cache).await?;
        self.metrics.emulation(&cr.spec);
        // The strategy is there, so what got it has nothing to do any more.
        let world = dereference(&self.cache);
        let jobs: Vec<ObjectKey> = fetch::jobs(&world).map(|(key, _)| key.clone()).collect();
        self.clear_jobs(&jobs, &world).await?;
        let mut rounds = 0;
        let mute = self.mute().await;
        let before = self.before(&cr, target).await;
        let (result, world) = loop {
            let refused = self.refusals.of(&target.id);
            let world = World { mute: mute.clone(), before: Arc::clone(&before), refused, ..self.world() };
            let built = match build(&cr, target, &world, &self.settings, self.clock.now()) {
                Ok(built) => built,
                Err(error) => break (Err((Error::from(error), None)), world),
            };
            rounds += 1;
            if rounds > ROUNDS || built.goes_back() || built.plan.now().next().is_none() {
                break (Ok(built), world);
            }
            if rounds == 1 {
                // The status says what is about to happen before it happens: an upgrade is visible from its first write.
                let ended = built.ended(&target.config);
                if !built.plan.is_done() && self.is_turning_point(&cr, &ended, &world) {
                    self.end(&cr, &live, &ended, &world).await?;
                    self.tell_history(&cr, target, &built, None).await?;
                    return Ok(Next { due: Some(self.clock.now()) });
                }
            }
            for (secret, why) in &built.renewed {
                tracing::info!(secret, %why, "issuing a certificate");
            }
            let mut outcomes = Outcomes::new();
            let applied =
                apply::apply(&built, &world, &self.writer, &self.cache, self.clock.now(), &mut outcomes).await;
            self.metrics.wrote(&outcomes);
            if let Err(error) = applied {
                break (Err((Error::from(error), Some(built))), world);
            }
        };
        match result {
            Ok(built) => {
                tracing::debug!(report = %built.report, "planned");
                self.metrics.waiting(&built.report);
                let is_from_before = |finding: &Finding| {
                    matches!(finding, Finding::PermissionMissing { .. } | Finding::PullSecretMissing { .. })
                };
                if built.report.findings().iter().any(is_from_before) {
                    self.before.doubt();
                }
                self.tell_history(&cr, target, &built, None).await?;
                self.refusals.forget();
                self.show_history(Some(&built.snapshot));
                for (of, pod, uid) in built.over_nodes.replace.iter().filter(|_| !built.goes_back()) {
                    tracing::info!(pod, "its turn has come");
                    self.writer.replace_pod(of, pod, uid).await?;
                }
                if built.goes_back() {
                    // From now on it is on record, and whoever leads goes back.
                    return Ok(Next { due: Some(self.clock.now()) });
                }
                let ended = built.ended(&target.config);
                let standings = self.standings(&cr, target, &world);
                let anew = storage::task(&cr, target, &built, &world);
                let beside = [self.certificates(&cr, &world)].into_iter().chain(self.beside(&standings));
                let world = World { beside: beside.chain(self.storage.condition(&anew)).collect(), ..world };
                let told_at = self.tell(&cr, &live, &ended, &world, &built.plan).await?;
                let beside = self.write_beside(&cr, target, standings, &world).await;
                let anew = self.store_anew(anew, &world).await;
                Ok(Next { due: self.due(&built).into_iter().chain(told_at).chain(beside).chain(anew).min() })
            }
            Err((error, built)) => {
                if !error.is_passing() {
                    let told = match &built {
                        Some(built) => self.refused(&cr, target, built, &error).await,
                        None => Ok(()),
                    };
                    let ended = Ended::Failed { config: &target.config, message: error.to_string() };
                    self.end(&cr, &live, &ended, &world).await?;
                    told?;
                }
                Err(error)
            }
        }
    }

    /// Sees to it that the strategy of a version is got, and says how that goes. When to look again.
    async fn get_strategy(
        &self,
        cr: &KubeVirt,
        config: &DeploymentConfig,
        refusal: &mut Refusal,
    ) -> Result<Option<Timestamp>, Error> {
        let world = dereference(&self.cache);
        match self.shelf.strategy(config) {
            Ok(Some(map)) if !world.objects.contains_key(&map.key()) => {
                tracing::info!(config_map = map.name(), "putting a strategy from the directory into the cluster");
                self.put(&map, &world).await?;
                return Ok(Some(self.clock.now()));
            }
            Ok(_) => {}
            Err(error) => {
                refusal.message = format!("{}. The strategy directory is of no use for it: {error}.", refusal.message);
            }
        }
        let fetch::Fetch { make, delete, says, failed, due } = fetch::fetch(cr, config, &world, self.clock.now());
        self.clear_jobs(&delete, &world).await?;
        if let Some(job) = make {
            self.put(&job, &dereference(&self.cache)).await?;
        }
        if !failed {
            refusal.reason = ConditionReason::StrategyPending;
        }
        refusal.message = format!("{} {says}", refusal.message);
        Ok(due)
    }

    /// Writes an object that is no part of a plan.
    async fn put(&self, wanted: &Object, world: &World) -> Result<(), Error> {
        let key = wanted.key();
        let Written { outcome, live } = self.writer.apply(wanted, world.objects.get(&key).map(AsRef::as_ref)).await?;
        self.metrics.wrote(&vec![(key.clone(), outcome)]);
        if let Some(live) = live {
            self.cache.store(key, live);
        }
        Ok(())
    }

    async fn clear_jobs(&self, jobs: &[ObjectKey], world: &World) -> Result<(), Error> {
        let mut outcomes = Outcomes::new();
        for key in jobs {
            apply::delete(key, world, &self.writer, &self.cache, &mut outcomes).await?;
        }
        self.metrics.wrote(&outcomes);
        Ok(())
    }

    /// Says why the spec is not followed, and keeps what runs as it was last complete.
    async fn refuse(
        &self,
        cr: &KubeVirt,
        live: &Live,
        mut refusal: Refusal,
        kept_target: Option<&Target>,
    ) -> Result<Next, Error> {
        let got = match refusal.config.clone().filter(|_| refusal.reason == ConditionReason::TargetUnavailable) {
            Some(config) => self.get_strategy(cr, &config, &mut refusal).await,
            None => Ok(None),
        };
        let kept = match kept_target {
            Some(target) => self.keep(cr, target).await,
            None => Ok(None),
        };
        let built = kept.as_ref().ok().and_then(Option::as_ref);
        if let (Some(built), Some(name)) = (built, kept_target.and_then(|target| target.returns.as_ref())) {
            let held = match &built.decision.course {
                Course::Held(reason) => Some(reason),
                Course::Forward | Course::Back(_) => None,
            };
            self.tell_return(name, &built.plan, held).await?;
        }
        self.show_history(None);
        let ended = Ended::Refused {
            config: refusal.config.as_deref(),
            reason: refusal.reason,
            message: refusal.message.clone(),
            kept: built.map(|built| (&built.plan, &built.report)),
            returns: kept_target.is_some_and(|target| target.returns.is_some()),
        };
        self.end(cr, live, &ended, &self.world()).await?;
        let again = got?;
        kept.map(|built| Next { due: built.and_then(|built| self.due(&built)).into_iter().chain(again).min() })
    }

    /// What the condition says of the certificates.
    fn certificates(&self, cr: &KubeVirt, world: &World) -> ConditionUpdate {
        let lifetimes = cr.spec.certificate_lifetimes();
        let found = self.judged.certificates(&world.objects, &self.settings.namespace, lifetimes, self.clock.now());
        self.metrics.certificates(&found);
        health::condition(&found)
    }

    /// What is known now.
    fn world(&self) -> World {
        let contests = self.cache.contests(self.clock.now());
        World {
            endpoints: Some(self.endpoints.now()),
            contests,
            upgrades: self.upgrades.now(),
            absent: self.absent.now(),
            first_nodes: self.absent.first(),
            shelf: self.shelf.versions(),
            ..dereference(&self.cache)
        }
    }

    /// What no watch tells, where a change of version is about to begin.
    async fn before(&self, cr: &KubeVirt, target: &Target) -> Arc<Looked> {
        if observed(cr).is_none_or(|from| from.id == target.id) || target.returns.is_some() {
            return Arc::default();
        }
        let secrets = target.config.image_pull_secrets();
        self.before.look(&self.client, &self.settings.namespace, &target.id, &secrets, self.clock.now()).await
    }

    /// The services that do not answer as the API server expects, asked once in a pass.
    async fn mute(&self) -> BTreeMap<String, String> {
        backends::ask(&self.world(), &self.settings.namespace, self.net.as_ref(), &self.clock).await
    }

    /// When to look again. Nothing tells that a backend has taken over its certificate; it is asked.
    fn due(&self, built: &Built) -> Option<Timestamp> {
        let waits = built.report.blockers().any(|(_, reason)| matches!(reason, Reason::NoBackend { .. }));
        let again = waits.then(|| self.clock.now().saturating_add(ASK_AGAIN).unwrap_or(Timestamp::MAX));
        let contested = self.cache.contests(self.clock.now());
        let tried_again = contested.values().map(|contest| contest.until);
        built
            .due
            .into_iter()
            .chain(again)
            .chain(tried_again)
            .chain(built.decision.due)
            .chain(built.over_nodes.due)
            .min()
    }

    /// Repairs the version that was last complete, or brings it back. `None` when another one has begun to take its place
    /// and is not to be undone: then nothing is moved either way.
    async fn keep(&self, cr: &KubeVirt, target: &Target) -> Result<Option<Built>, Error> {
        let certificates = target.certificates(&self.settings.namespace);
        find_unlabelled(&self.client, &self.settings.namespace, &certificates, &self.cache).await?;
        let mut rounds = 0;
        let mute = self.mute().await;
        loop {
            let world = World { mute: mute.clone(), ..self.world() };
            let built = build(cr, target, &world, &self.settings, self.clock.now())?;
            if built.plan.mode() != Mode::Keep && target.returns.is_none() {
                return Ok(None);
            }
            rounds += 1;
            if rounds > ROUNDS || built.plan.now().next().is_none() {
                return Ok(Some(built));
            }
            let mut outcomes = Outcomes::new();
            let applied =
                apply::apply(&built, &world, &self.writer, &self.cache, self.clock.now(), &mut outcomes).await;
            self.metrics.wrote(&outcomes);
            applied?;
        }
    }

    /// Whether the conditions are about to say that an installation or a change of version has begun.
    fn is_turning_point(&self, cr: &KubeVirt, ended: &Ended<'_>, world: &World) -> bool {
        let new = status(cr, ended, world, &self.settings, self.clock.now());
        let reason = |status: &KubeVirtStatus| {
            let conditions = status.conditions.as_deref().unwrap_or_default();
            conditions.iter().find(|condition| condition.condition_type == "Progressing").and_then(|c| c.reason.clone())
        };
        let old = cr.status.clone().unwrap_or_default();
        // While a pass keeps failing, its failure is what the conditions say.
        if reason(&old).as_deref() == Some("DeploymentFailed") {
            return false;
        }
        let begins = matches!(reason(&new).as_deref(), Some("UpdateInProgress" | "DeploymentInProgress"));
        begins && reason(&new) != reason(&old) && new.observed_deployment_id != new.target_deployment_id
    }

    /// Tells the CRs that nothing can be decided yet, and what is missing: without a first list of everything, an object
    /// that was not listed would look like one that is missing.
    ///
    /// # Errors
    /// The status could not be written.
    pub async fn not_synced(&self) -> Result<(), Error> {
        let message = format!("Waiting for the first list of {}", self.cache.not_synced().join("; "));
        let now = self.clock.now();
        for live in dereference(&self.cache).crs {
            let Some(cr) = read(&live) else { continue };
            let mut new = cr.status.clone().unwrap_or_default();
            let mut conditions = new.conditions.take().unwrap_or_default();
            let refused = Situation::Refused { reason: ConditionReason::CacheNotSynced, message: message.clone() };
            enter(&refused, &mut conditions, now);
            new.conditions = Some(conditions);
            update_status(&cr, &live, &new, now, &self.writer, &self.cache).await?;
        }
        Ok(())
    }

    /// Tells a CR that is not followed why.
    async fn not_followed(&self, live: &Live, message: &str) -> Result<(), Error> {
        let Some(cr) = read(live) else {
            tracing::warn!(message, "a KubeVirt object is not followed");
            return Ok(());
        };
        let mut new = cr.status.clone().unwrap_or_default();
        let mut conditions = new.conditions.take().unwrap_or_default();
        let now = self.clock.now();
        enter(&Situation::NotFollowed { message: message.to_owned() }, &mut conditions, now);
        new.conditions = Some(conditions);
        update_status(&cr, live, &new, now, &self.writer, &self.cache).await?;
        Ok(())
    }

    /// Writes the status, unless only figures are new and it is too early for them: then gives the time to tell them.
    async fn tell(
        &self,
        cr: &KubeVirt,
        live: &Value,
        ended: &Ended<'_>,
        world: &World,
        plan: &Plan,
    ) -> Result<Option<Timestamp>, Error> {
        let now = self.clock.now();
        let new = status(cr, ended, world, &self.settings, now);
        self.metrics.status(&new);
        let old = cr.status.clone().unwrap_or_default();
        if old == new {
            return Ok(None);
        }
        let kind = pace::Kind::of(plan);
        if pace::is_figures_only(&old, &new)
            && let Err(due) = self.progress.lock().ask(&kind, now)
        {
            return Ok(Some(due));
        }
        update_status(cr, live, &new, now, &self.writer, &self.cache).await?;
        self.progress.lock().tell(kind, now);
        Ok(None)
    }

    async fn end(&self, cr: &KubeVirt, live: &Value, ended: &Ended<'_>, world: &World) -> Result<(), Error> {
        let now = self.clock.now();
        let new = status(cr, ended, world, &self.settings, now);
        self.metrics.status(&new);
        update_status(cr, live, &new, now, &self.writer, &self.cache).await?;
        Ok(())
    }
}

/// What the CR says of the operator's log.
fn log_level(cr: &KubeVirt) -> Option<u8> {
    let developer = cr.spec.configuration.as_ref()?.developer_configuration.as_ref()?;
    let level = developer.log_verbosity.as_ref()?.virt_operator?;
    Some(u8::try_from(level).unwrap_or(u8::MAX))
}

fn read(live: &Value) -> Option<KubeVirt> {
    KubeVirt::deserialize(live).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_log_follows_the_custom_resource() {
        let level =
            |spec: Value| log_level(&read(&json!({"metadata": {"name": "kubevirt"}, "spec": spec})).expect("a CR"));
        let of = |levels: Value| json!({"configuration": {"developerConfiguration": {"logVerbosity": levels}}});
        assert_eq!(level(of(json!({"virtOperator": 5}))), Some(5));
        assert_eq!(level(of(json!({"virtOperator": 3000}))), Some(u8::MAX), "everything is everything");
        for silent in [of(json!({"virtAPI": 5})), json!({"configuration": {}}), json!({})] {
            assert_eq!(level(silent), None);
        }
    }
}
