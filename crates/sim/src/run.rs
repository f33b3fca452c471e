//! One run: a world, a story, its trouble, and what the oracles say at the end of each act.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::log::Errors;
use crate::monkey::{self, Victim};
use crate::referee::{Findings, Violation};
use crate::state::{self, EndState};
use crate::story::{Act, Error, PATIENCE};
use crate::world::{Moment, Trouble, VERSIONS, World};

/// How long nothing may happen once an act is done: two periodic passes of the operator.
const QUIET: Duration = Duration::from_secs(125);

/// How long an image is of no use: long enough for several tries to start it.
const MENDED_AFTER: Duration = Duration::from_secs(90);

/// How soon a managed object is as it was after somebody changed it: what tests of today's suite allow.
const REPAIR: Duration = Duration::from_secs(120);

/// How soon a Secret serves again: what tests of today's suite allow.
const SECRETS_REPAIRED: Duration = Duration::from_secs(10);

/// When drawn faults end at the latest, so that a run can be asked whether it converges.
const CALM_AFTER: Duration = Duration::from_secs(120);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    pub nodes: u32,
    pub acts: Vec<Act>,
    pub trouble: Trouble,
    /// Keep the lines of the trace, not only their hash.
    pub keeps_lines: bool,
}

impl Script {
    /// A run without trouble.
    pub fn undisturbed(seed: u64, acts: &[Act]) -> Self {
        Self { seed, nodes: 1, acts: acts.to_vec(), trouble: Trouble::default(), keeps_lines: false }
    }
}

/// How an act went.
#[derive(Clone, Debug)]
pub struct Done {
    pub act: Act,
    /// From the administrator's request until the cluster was as asked for.
    pub took: Duration,
    /// The operator's writes until then, from the beginning of the run.
    pub writes: u32,
    /// What the operator managed then.
    pub victims: Vec<Victim>,
    pub(crate) managed: EndState,
    pub(crate) told: EndState,
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub done: Vec<Done>,
    pub findings: Findings,
    /// What the oracles object to, with their names in the catalogue.
    pub objections: Vec<Violation>,
    /// How long repairs of what third parties did took.
    pub repairs: Vec<Duration>,
}

impl Outcome {
    fn object(&mut self, id: &'static str, what: String) {
        self.objections.push(Violation { id, what, at: Duration::ZERO });
    }

    /// Whether every invariant held and no oracle objects.
    pub fn is_good(&self) -> bool {
        self.findings.violations.is_empty() && self.objections.is_empty()
    }

    /// Everything that went wrong.
    pub fn complaints(&self) -> impl Iterator<Item = &Violation> {
        self.findings.violations.iter().chain(&self.objections)
    }

    /// O1: at the end of each act the cluster is as after a run without trouble.
    ///
    /// How often something was written is compared only if nobody else wrote (`is_undisturbed`).
    pub fn compare(&mut self, reference: &Self, is_undisturbed: bool) {
        let mut differing = Vec::new();
        for own in &self.done {
            let Some(wanted) = reference.done.iter().find(|wanted| wanted.act == own.act) else { continue };
            let mut lines = state::differences(&wanted.managed, &own.managed, 5);
            lines.extend(state::differences(&wanted.told, &own.told, 5));
            if !lines.is_empty() {
                let what = format!(
                    "after {} the cluster differs from an undisturbed run: {}",
                    own.act.name(),
                    lines.join("; ")
                );
                differing.push(what);
            }
        }
        differing.into_iter().for_each(|what| self.object("O1", what));
        self.compare_reverted();
        if self.done.len() == reference.done.len() && is_undisturbed {
            self.compare_writes(&reference.findings);
        }
    }

    /// O5: settings that were changed and changed back leave nothing behind.
    fn compare_reverted(&mut self) {
        let of = |act: Act| self.done.iter().find(|done| done.act == act);
        let (Some(installed), Some(reverted)) = (of(Act::Install), of(Act::Revert)) else { return };
        let mut lines = state::differences(&installed.managed, &reverted.managed, 5);
        // The generation counts the two changes.
        let told = |done: &Done| {
            let mut told = done.told.clone();
            told.values_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|status| drop(status.remove("observedGeneration")));
            told
        };
        lines.extend(state::differences(&told(installed), &told(reverted), 5));
        if !lines.is_empty() {
            self.object("O5", format!("settings left something behind: {}", lines.join("; ")));
        }
    }

    /// O2: an object is made and removed as often as without trouble, and not rewritten over and over.
    fn compare_writes(&mut self, reference: &Findings) {
        /// A write is repeated when its answer was lost or its writer died; more than that is fighting.
        const MORE_UPDATES: u32 = 3;
        let mut objections = Vec::new();
        let mut object = |what: String| objections.push(what);
        let same =
            [("made", &self.findings.made, &reference.made), ("removed", &self.findings.removed, &reference.removed)];
        for (verb, own, wanted) in same {
            for (key, count) in own {
                // Events are told again; that is no harm.
                let usual = wanted.get(key).copied().unwrap_or(0);
                if *count > usual && !key.starts_with("events") {
                    object(format!("{key} was {verb} {count} times, without trouble {usual} times"));
                }
            }
        }
        for (key, count) in &self.findings.updated {
            let usual = reference.updated.get(key).copied().unwrap_or(0);
            if *count > usual * 2 + MORE_UPDATES && !key.starts_with("leases") && !key.starts_with("events") {
                object(format!("{key} was written {count} times, without trouble {usual} times"));
            }
        }
        objections.into_iter().for_each(|what| self.object("O2", what));
    }
}

/// Runs a script on this thread, in simulated time.
pub fn run(script: &Script) -> Outcome {
    let errors = Errors::default();
    let outcome = errors.collect(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime without network needs nothing of the system");
        // A panic of the code under test is a finding; nothing of the world is used after it.
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(script))))
    });
    let mut outcome = outcome.unwrap_or_else(|_| {
        let mut outcome = Outcome::default();
        outcome.objections.push(Violation { id: "O7", what: "a panic ended the run".to_owned(), at: Duration::ZERO });
        outcome
    });
    for what in errors.take() {
        outcome.objections.push(Violation { id: "O7", what, at: Duration::ZERO });
    }
    outcome
}

async fn live(script: &Script) -> Outcome {
    let world = World::start(script.nodes, script.seed, &script.trouble, script.keeps_lines);
    let mut outcome = Outcome::default();
    for act in &script.acts {
        match play(*act, script, &world, &mut outcome).await {
            Ok(()) => {}
            Err(error) => {
                // O3: after the faults have stopped, the cluster becomes as asked for.
                outcome.objections.push(Violation { id: "O3", what: error.to_string(), at: Duration::ZERO });
                break;
            }
        }
    }
    outcome.findings = world.referee.findings();
    outcome
}

async fn play(act: Act, script: &Script, world: &World, outcome: &mut Outcome) -> Result<(), Error> {
    let writes = world.referee.writes();
    act.begin(world).await?;
    let moment = match act {
        Act::Install => Some(Moment::Installing),
        Act::Configure => Some(Moment::Configuring),
        _ => None,
    };
    if let Some(mischief) = script.trouble.mischief.as_ref().filter(|mischief| Some(mischief.moment) == moment) {
        for victim in &mischief.victims {
            // Some objects come late, or not at all when an earlier prank keeps them away.
            let exists =
                |world: &World| if monkey::exists(victim, world) { Ok(()) } else { Err("not there yet".to_owned()) };
            if world.until("there", PATIENCE, exists).await.is_ok() {
                monkey::play(mischief.prank, victim, world).await?;
            }
        }
    }
    if act == Act::Install
        && let Some((component, _)) = script.trouble.sick
    {
        sleep(MENDED_AFTER).await;
        if act.is_done(world).is_ok() {
            outcome.object("O3", format!("installed although the image of {component} is of no use"));
        }
        world.referee.note(&format!("the image of {component} is mended"));
        world.registry.set(component, VERSIONS[0], None);
    }
    let early = act.end(world, CALM_AFTER).await;
    let took = match early {
        Ok(took) => took,
        Err(Error::TooLate(_)) => {
            world.referee.calm();
            CALM_AFTER + act.end(world, PATIENCE).await?
        }
        Err(error) => return Err(error),
    };
    // A fault may strike at the very last write: what follows from it belongs to the act.
    if !world.referee.is_at_peace() {
        sleep(CALM_AFTER).await;
        world.referee.calm();
        act.end(world, PATIENCE).await?;
    }
    if act == Act::Restart && world.referee.writes() > writes {
        // O4: on its own output an operator that knows nothing of it finds nothing to do.
        let more = world.referee.writes() - writes;
        outcome.object("O4", format!("an operator that started anew on a settled cluster wrote {more} times"));
    }
    // What comes before the act that is hit is the run without trouble, move by move; that one was watched already.
    if script.trouble.strike.is_none() || script.acts.last() == Some(&act) {
        stays(act, world, outcome).await;
    }
    if act == Act::Install
        && let Some(mischief) = script.trouble.mischief.as_ref().filter(|mischief| mischief.moment == Moment::Settled)
    {
        for victim in &mischief.victims {
            let before = state::managed(&world.cluster.api);
            if monkey::play(mischief.prank, victim, world).await?.is_some() {
                let is_repaired =
                    |world: &World| monkey::is_repaired(victim, &before, world).and_then(|()| act.is_done(world));
                outcome.repairs.push(world.until(&format!("{victim} repaired"), REPAIR, is_repaired).await?);
            }
        }
        // What is secret is not compared; it is repaired as soon as the rest.
        sleep(SECRETS_REPAIRED).await;
        stays(act, world, outcome).await;
    }
    outcome.done.push(Done {
        act,
        took,
        writes: world.referee.writes(),
        victims: monkey::victims(&world.cluster.api),
        managed: state::managed(&world.cluster.api),
        told: state::told(&world.cluster.api),
    });
    Ok(())
}

/// O3, second half: what is in sync stays in sync, without a write.
async fn stays(act: Act, world: &World, outcome: &mut Outcome) {
    let (versions, writes) = (state::versions(&world.cluster.api), world.referee.writes());
    sleep(QUIET).await;
    let mut object = |what: String| {
        let what = format!("after {}: {what}", act.name());
        outcome.objections.push(Violation { id: "O3", what, at: Duration::ZERO });
    };
    if let Err(why) = act.is_done(world) {
        object(format!("it did not last: {why}"));
    }
    let more = world.referee.writes() - writes;
    if more > 0 {
        object(format!("{more} writes although nothing changed"));
    }
    let changed: Vec<String> = differing(&versions, &state::versions(&world.cluster.api));
    if !changed.is_empty() {
        object(format!("changed although nothing was asked for: {}", changed.join(", ")));
    }
}

fn differing(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    keys.filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}
