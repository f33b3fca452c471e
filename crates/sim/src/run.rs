//! One run: a world, a story, its trouble, and what the oracles say at the end of each act.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::sleep;

use crate::course::{Branches, Course, Point};
use crate::expect;
use crate::log::Errors;
use crate::monkey::{self, Prank, Victim, is_marked};
use crate::outage;
use crate::referee::{Findings, Tally, Violation};
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

/// How long drawn faults may keep the operator busy after the last has struck: the longest is a watch that tells nothing
/// but bookmarks for two minutes.
const DRAWN_AFTERMATH: Duration = Duration::from_secs(130);

/// When drawn faults end at the latest, so that a run can be asked whether it converges.
const CALM_AFTER: Duration = Duration::from_secs(120);

/// An edit that concerns one component: its workload, what is told of it, and the reads of a pass.
const EDIT_REQUESTS: u32 = 10;

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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub act: Act,
    /// From the administrator's request until the cluster was as asked for.
    pub took: Duration,
    /// The operator's writes until then, from the beginning of the run.
    pub writes: u32,
    /// What the operator managed then.
    pub victims: Vec<Victim>,
    /// What the operator had done by then.
    pub tally: Tally,
    pub(crate) managed: EndState,
    pub(crate) told: EndState,
}

/// How a run went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub done: Vec<Done>,
    pub findings: Findings,
    /// What the oracles object to, with their names in the catalogue.
    pub objections: Vec<Violation>,
    /// How long repairs of what third parties did took.
    pub repairs: Vec<Duration>,
}

impl Outcome {
    pub(crate) fn object(&mut self, id: &str, what: String) {
        self.objections.push(Violation { id: id.to_owned(), what, at: Duration::ZERO });
    }

    /// Whether every invariant held and no oracle objects.
    pub fn is_good(&self) -> bool {
        self.findings.violations.is_empty() && self.objections.is_empty()
    }

    /// Everything that went wrong.
    pub fn complaints(&self) -> impl Iterator<Item = &Violation> {
        self.findings.violations.iter().chain(&self.objections)
    }
}

/// Runs a script on this thread, in simulated time.
pub fn run(script: &Script) -> Outcome {
    follow(&Course::new(script.clone(), None))
}

/// The same, but at each point the run may go on as another one: the outcome is that of the script followed last.
pub fn run_parting(script: &Script, branches: Arc<dyn Branches>) -> Outcome {
    follow(&Course::new(script.clone(), Some(branches)))
}

fn follow(course: &Course) -> Outcome {
    let errors = Errors::default();
    let outcome = errors.collect(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without network needs nothing of the system");
        // A panic of the code under test is a finding; nothing of the world is used after it.
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(course))))
    });
    let mut outcome = outcome.unwrap_or_else(|_| {
        let mut outcome = Outcome::default();
        outcome.object("O7", "a panic ended the run".to_owned());
        outcome
    });
    for what in errors.take() {
        outcome.object("O7", what);
    }
    outcome
}

async fn live(course: &Course) -> Outcome {
    let world = World::start(course.clone());
    let mut outcome = Outcome::default();
    let mut played = 0;
    // The script may become another one at any point, and have more acts then, or fewer.
    while let Some(act) = course.script().acts.get(played).copied() {
        if let Err(error) = play(act, course, &world, &mut outcome).await {
            // O3: after the faults have stopped, the cluster becomes as asked for.
            outcome.object("O3", error.to_string());
            break;
        }
        played += 1;
    }
    outcome.findings = world.referee.findings();
    outcome
}

async fn play(act: Act, course: &Course, world: &World, outcome: &mut Outcome) -> Result<(), Error> {
    let (writes, tally) = (world.referee.writes(), world.referee.tally());
    let contents = state::contents(&world.cluster.api);
    let asked = world.referee.reached();
    act.begin(world).await?;
    let script = course.reach(Point::Begun(act)).unwrap_or_else(|| course.script());
    let moment = match act {
        Act::Install => Some(Moment::Installing),
        Act::Configure => Some(Moment::Configuring),
        Act::Upgrade => Some(Moment::Upgrading),
        _ => None,
    };
    if let Some(outage) = script.trouble.outage.filter(|_| act == Act::Upgrade) {
        outage::play(outage, asked, world).await?;
    }
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
        && let Some((component, sickness)) = script.trouble.sick
    {
        world.referee.note_fault("F17", &format!("the image of {component}: {sickness:?}"));
        sleep(MENDED_AFTER).await;
        if act.is_done(world).is_ok() {
            outcome.object("O3", format!("installed although the image of {component} is of no use"));
        }
        // O7: whoever looks is told what holds it up.
        let told = world.kubevirt().map(|cr| cr["status"]["conditions"].to_string()).unwrap_or_default();
        if !told.contains(component) {
            outcome.object("O7", format!("no condition names {component}, whose image is of no use: {told}"));
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
    // It may have parted at one of the act's writes.
    let script = course.script();
    // A fault may strike at the very last write: what follows from it belongs to the act.
    let Trouble { strike, series, .. } = &script.trouble;
    let is_hit = strike.is_none() || !series.is_empty() || script.acts.last() == Some(&act);
    if is_hit && !world.referee.is_at_peace() {
        sleep(CALM_AFTER).await;
        world.referee.calm();
        act.end(world, PATIENCE).await?;
    }
    let aftermath = if script.trouble.plan.is_some() { DRAWN_AFTERMATH } else { world.referee.aftermath() };
    if is_hit && !aftermath.is_zero() {
        sleep(aftermath).await;
        act.end(world, PATIENCE).await?;
    }
    if let Some(mischief) = script.trouble.mischief.as_ref().filter(|mischief| mischief.prank == Prank::Mark) {
        // F9: what is not the operator's it leaves alone, also where it writes.
        let wiped =
            mischief.victims.iter().filter(|victim| Some(mischief.moment) == moment && !is_marked(victim, world));
        let wiped: Vec<String> = wiped.map(ToString::to_string).collect();
        if !wiped.is_empty() {
            outcome.object("O1", format!("somebody's labels or annotations were wiped: {}", wiped.join(", ")));
        }
    }
    if act == Act::Restart && world.referee.writes() > writes {
        // O4: on its own output an operator that knows nothing of it finds nothing to do.
        let more = world.referee.writes() - writes;
        outcome.object("O4", format!("an operator that started anew on a settled cluster wrote {more} times"));
    }
    stays(act, world, outcome).await;
    for what in expect::wrong(act, world) {
        outcome.object("O11", format!("after {}: {what}", act.name()));
    }
    if script.trouble.is_none() && act.asks_once() {
        needless(act, world, &contents, &tally, outcome);
    }
    if act == Act::Edit {
        let requests = world.referee.tally().requests - tally.requests;
        if requests > EDIT_REQUESTS {
            outcome.object("O2", format!("a setting of one component led to {requests} requests"));
        }
    }
    let script = course.reach(Point::Ended(act)).unwrap_or(script);
    let settled = match act {
        Act::Install => Some(Moment::Settled),
        Act::Upgrade => Some(Moment::Upgraded),
        _ => None,
    };
    if let Some(mischief) = script.trouble.mischief.as_ref().filter(|mischief| Some(mischief.moment) == settled) {
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
        tally: world.referee.tally(),
        managed: state::managed(&world.cluster.api),
        told: state::told(&world.cluster.api),
    });
    Ok(())
}

/// O2: without trouble nothing is written that is as wanted already, and nothing over and over.
fn needless(act: Act, world: &World, before: &BTreeMap<String, Value>, tally: &Tally, outcome: &mut Outcome) {
    /// A registration gets its authority and an object what depends on others; nothing is built up in more steps.
    const STEPS: u32 = 3;
    /// In three quarters of an hour certificates that live for ten minutes are renewed every five.
    const ROTATIONS: u32 = 9;
    let steps = if act == Act::Rotate { STEPS + ROTATIONS } else { STEPS };
    let after = state::contents(&world.cluster.api);
    for (key, count) in &world.referee.tally().updated {
        let count = count - tally.updated.get(key).unwrap_or(&0);
        let Some(content) = after.get(key) else { continue };
        if count > steps {
            outcome.object("O2", format!("{} wrote {key} {count} times", act.name()));
        } else if count > 0 && before.get(key) == Some(content) {
            outcome.object("O2", format!("{} wrote {key} without changing it", act.name()));
        }
    }
}

/// O3, second half: what is in sync stays in sync, without a write and nearly without a question.
async fn stays(act: Act, world: &World, outcome: &mut Outcome) {
    /// The leader renews its lease every five seconds; the last of them may fall on the edge.
    const LEASES: u32 = 12 * 125 / 60 + 1;
    /// Watches are renewed every five minutes, one for each kind; everything else is known.
    const REQUESTS: u32 = 40;
    let (versions, writes) = (state::versions(&world.cluster.api), world.referee.writes());
    let before = world.referee.tally();
    sleep(QUIET).await;
    let mut object = |what: String| outcome.object("O3", format!("after {}: {what}", act.name()));
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
    let after = world.referee.tally();
    let told = after.events - before.events;
    if told > 0 {
        object(format!("{told} events although nothing happened"));
    }
    let asked = after.requests - before.requests;
    if asked > REQUESTS {
        object(format!("{asked} requests in {} s although nothing happened", QUIET.as_secs()));
    }
    let renewals = after.leases.iter().map(|(pod, count)| (pod, count - before.leases.get(pod).unwrap_or(&0)));
    let renewals: Vec<(&String, u32)> = renewals.filter(|(_, count)| *count > 0).collect();
    if renewals.len() > 1 || renewals.iter().any(|(_, count)| *count > LEASES) {
        object(format!("the lease was written too often, or by several: {renewals:?}"));
    }
}

fn differing(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    keys.filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}
