//! Many runs: every blow at every write, and faults drawn from seeds; spread over the machine's processors.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubevirt_release::Kind;
use nanokube::{FaultPlan, Scope};

use crate::course::{Branches, Point};
use crate::invariants::OPERATOR;
use crate::lead::Lead;
use crate::monkey::{Prank, Victim};
use crate::registry::Sickness;
use crate::run::{Outcome, Script, run, run_parting};
use crate::story::Act;
use crate::strike::{Blow, Strike, Target};
use crate::world::{Mischief, Moment, Trouble};

/// The seed of everything that is not a sweep over seeds.
pub(crate) const SEED: u64 = 1;

/// The story of every exhaustive run, in order.
pub const STORY: [Act; 3] = [Act::Install, Act::Configure, Act::Uninstall];

/// Faults of one drawn plan: enough to overlap, few enough to tell them apart.
const FAULTS_PER_PLAN: u32 = 6;

/// The latest moment at which a drawn fault begins: about as many requests of each kind as an installation has.
const HORIZON: u32 = 80;

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Job {
    /// How to name it on the command line.
    pub name: String,
    /// The fault class it belongs to, for the table.
    pub class: &'static str,
    pub script: Script,
    /// Up to where it is the run without trouble; none if it is another one from the beginning.
    pub parts: Option<Point>,
}

impl Job {
    /// Whether it has trouble that others have alone; see [`crate::series`].
    pub fn is_series(&self) -> bool {
        self.name.contains('+')
    }

    /// How the runs are named that have it alone.
    pub fn alone(&self) -> &str {
        self.name.split(['+', '@']).next().unwrap_or_default()
    }

    /// What its name begins with: runs of one kind differ in a number or an object.
    fn kind(&self) -> &str {
        self.name.split(['@', ' ']).next().unwrap_or_default()
    }
}

/// A finished run of a sweep.
#[derive(Clone, Debug)]
pub struct Finished {
    pub job: Job,
    pub outcome: Outcome,
}

/// What a run without trouble looks like, against which others are held.
pub fn reference(story: &[Act], keeps_lines: bool) -> Outcome {
    run(&Script { keeps_lines, ..Script::undisturbed(SEED, story) })
}

/// Every blow at every write of the story. A run ends with the act that was hit.
pub fn exhaustive(reference: &Outcome) -> Vec<Job> {
    blows(reference, &STORY, 1)
}

/// The same for any story, from a write on.
pub(crate) fn blows(reference: &Outcome, story: &[Act], first: u32) -> Vec<Job> {
    let mut jobs = Vec::new();
    for blow in Blow::ALL {
        for write in first..=reference.findings.writes {
            // The act in which this write is made.
            let acts = reference.done.iter().take_while(|done| done.writes < write).count() + 1;
            let strike = Strike { blow, write };
            let story = &story[..acts.min(story.len())];
            jobs.push(struck(format!("{blow}@{write}"), strike, Vec::new(), story));
        }
    }
    jobs
}

/// A run in which the operator is struck at a write, and then at those of a series.
pub(crate) fn struck(name: String, strike: Strike, series: Vec<Target>, story: &[Act]) -> Job {
    let Strike { blow, write } = strike;
    let trouble = Trouble { strike: Some(strike), series, ..Trouble::default() };
    let script = Script { trouble, ..Script::undisturbed(SEED, story) };
    let parts = Some(if blow == Blow::Twice { Point::Arrival(write) } else { Point::Write(write) });
    Job { name, class: blow.class(), script, parts }
}

/// Every managed object suffers every prank at every moment; objects of one kind share a run.
pub fn mischief(reference: &Outcome) -> Vec<Job> {
    let Some(installed) = reference.done.iter().find(|done| done.act == Act::Install) else { return Vec::new() };
    let mut by_kind: BTreeMap<Kind, Vec<Victim>> = BTreeMap::new();
    for victim in &installed.victims {
        by_kind.entry(victim.kind).or_default().push(victim.clone());
    }
    let moments: [(Moment, &[Act], Point); 3] = [
        (Moment::Installing, &[Act::Install], Point::Begun(Act::Install)),
        (Moment::Settled, &[Act::Install], Point::Ended(Act::Install)),
        (Moment::Configuring, &[Act::Install, Act::Configure], Point::Begun(Act::Configure)),
    ];
    moments.into_iter().flat_map(|(moment, acts, parts)| pranks(moment, acts, parts, &by_kind)).collect()
}

/// Every prank on objects of each kind at a moment.
pub(crate) fn pranks(moment: Moment, acts: &[Act], parts: Point, by_kind: &BTreeMap<Kind, Vec<Victim>>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for prank in Prank::ALL {
        for (kind, victims) in by_kind {
            let mischief = Mischief { moment, prank, victims: victims.clone() };
            let script = Script {
                trouble: Trouble { mischief: Some(mischief), ..Trouble::default() },
                ..Script::undisturbed(SEED, acts)
            };
            let name = format!("{prank}@{moment:?}/{kind}");
            jobs.push(Job { name, class: prank.class(), script, parts: Some(parts) });
        }
    }
    jobs
}

/// Images of no use, expired certificates, an operator that starts anew, settings that are taken back.
pub fn special() -> Vec<Job> {
    let mut jobs = Vec::new();
    for component in ["virt-api", "virt-controller", "virt-handler"] {
        for (name, sickness) in [("missing", Sickness::Missing), ("crashing", Sickness::Crashes)] {
            let trouble = Trouble { sick: Some((component, sickness)), ..Trouble::default() };
            let script = Script { trouble, ..Script::undisturbed(SEED, &[Act::Install]) };
            jobs.push(Job { name: format!("{name} {component}"), class: "F17", script, parts: None });
        }
    }
    let stories: [(&str, &str, &[Act]); 6] = [
        ("expiry", "F16", &[Act::Install, Act::Expire]),
        ("rotation", "F16", &[Act::Install, Act::Rotate]),
        ("restart", "none", &[Act::Install, Act::Restart]),
        ("hand-over", "none", &[Act::Install, Act::HandOver]),
        ("edit", "none", &[Act::Install, Act::Edit]),
        ("revert", "none", &[Act::Install, Act::Configure, Act::Revert]),
    ];
    jobs.extend(stories.map(|(name, class, acts)| Job {
        name: name.to_owned(),
        class,
        script: Script::undisturbed(SEED, acts),
        parts: acts.iter().rev().nth(1).copied().map(Point::Ended),
    }));
    jobs
}

/// Runs with faults drawn from `count` seeds, beginning with `first`.
pub fn seeded(first: u64, count: u64) -> Vec<Job> {
    let scope = Scope { users: vec![OPERATOR.to_owned()], faults: FAULTS_PER_PLAN, horizon: HORIZON };
    let jobs = (first..first + count).map(|seed| {
        let plan = FaultPlan::draw(seed, scope.clone());
        let script =
            Script { trouble: Trouble { plan: Some(plan), ..Trouble::default() }, ..Script::undisturbed(seed, &STORY) };
        Job { name: format!("seed {seed}"), class: "F2-F8, F15", script, parts: None }
    });
    jobs.collect()
}

/// Nothing has such a name, so nothing would be played and all would seem well.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no run is named {name:?}; there are {}", .there_are.join(", "))]
pub struct Unknown {
    pub name: String,
    /// One name of each kind of run.
    pub there_are: Vec<String>,
}

/// The jobs that were asked for: those whose name begins with one of the names, up to the end of a number. All of them when
/// there are no names.
///
/// # Errors
/// A name that no job has.
pub fn select(jobs: Vec<Job>, only: &[String]) -> Result<Vec<Job>, Unknown> {
    let is_named = |job: &Job, name: &str| {
        job.name.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    if let Some(name) = only.iter().find(|name| !jobs.iter().any(|job| is_named(job, name))) {
        let mut by_kind: BTreeMap<&str, &str> = BTreeMap::new();
        for job in &jobs {
            by_kind.entry(job.kind()).or_insert(&job.name);
        }
        let there_are = by_kind.into_values().map(|example| format!("{example:?}")).collect();
        return Err(Unknown { name: name.clone(), there_are });
    }
    let is_asked = |job: &Job| only.is_empty() || only.iter().any(|name| is_named(job, name));
    Ok(jobs.into_iter().filter(is_asked).collect())
}

/// One of several parts of all runs, of which each is spread over all of them: "2/4".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1 on.
    number: usize,
    of: usize,
}

/// No part of anything.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a part is named like 2/4, the second of four, not {0:?}")]
pub struct NoPart(String);

impl FromStr for Part {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let (number, of) = text.split_once('/').ok_or_else(|| NoPart(text.to_owned()))?;
        match (number.parse(), of.parse()) {
            (Ok(number), Ok(of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(NoPart(text.to_owned())),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Of each kind of runs every so many, so that the parts together are all runs. Kinds of which there are few (images of no
/// use, expiry, stories of their own) are in each part as a whole.
pub fn sample(jobs: Vec<Job>, part: Part) -> Vec<Job> {
    /// Six images of no use are the largest such kind; of a dozen runs each is already one of many alike.
    const FEW: usize = 12;
    let kind = |job: &Job| (job.class, job.kind().to_owned());
    let mut by_kind: BTreeMap<(&str, String), (usize, usize)> = BTreeMap::new();
    for job in &jobs {
        by_kind.entry(kind(job)).or_default().0 += 1;
    }
    let is_in = |job: &Job| {
        let Some((count, seen)) = by_kind.get_mut(&kind(job)) else { return false };
        *seen += 1;
        *count < FEW || *seen % part.of == part.number % part.of
    };
    jobs.into_iter().filter(is_in).collect()
}

/// Runs all jobs, as many at once as the machine has processors; `told` is called after each.
///
/// What runs have in common is played once, unless each is to be played `from_scratch`. This process must have one thread.
///
/// # Errors
/// The machine has no memory or no process left.
pub fn run_all(
    jobs: &[Job],
    reference: &Outcome,
    from_scratch: bool,
    told: impl FnMut(usize, &Finished) + Send + 'static,
) -> io::Result<Vec<Finished>> {
    let lead = Arc::new(Lead::new(jobs, reference, told));
    for (number, job) in jobs.iter().enumerate() {
        match job.parts {
            Some(point) if !from_scratch => lead.expect(point, number),
            _ => lead.start(number)?,
        }
    }
    if lead.expects() {
        let keeps_lines = jobs.iter().any(|job| job.script.keeps_lines);
        let story: Vec<Act> = reference.done.iter().map(|done| done.act).collect();
        let common = Script { keeps_lines, ..Script::undisturbed(SEED, &story) };
        let outcome = run_parting(&common, Arc::clone(&lead) as Arc<dyn Branches>);
        lead.end_if_run(outcome)?;
    }
    lead.finish()
}

/// What a sweep amounts to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub worlds: usize,
    pub good: usize,
    /// Runs by fault class.
    pub by_class: BTreeMap<&'static str, usize>,
    /// Faults that struck, by class.
    pub struck: BTreeMap<String, usize>,
    /// Commits that each invariant was concerned with.
    pub checked: BTreeMap<String, u64>,
    /// From the administrator's request until the cluster was as asked for, in simulated time, by act.
    pub converged: BTreeMap<&'static str, Vec<Duration>>,
    /// From a third party's change until it was repaired.
    pub repaired: Vec<Duration>,
    pub wall: Duration,
}

impl Summary {
    pub fn of(finished: &[Finished], began: Instant) -> Self {
        let mut summary = Self { worlds: finished.len(), wall: began.elapsed(), ..Self::default() };
        for one in finished {
            summary.good += usize::from(one.outcome.is_good());
            *summary.by_class.entry(one.job.class).or_default() += 1;
            for line in &one.outcome.findings.struck {
                let class = line.split_whitespace().find(|word| word.starts_with('F')).unwrap_or("F?");
                *summary.struck.entry(class.to_owned()).or_default() += 1;
            }
            for (id, count) in &one.outcome.findings.checked {
                *summary.checked.entry(id.clone()).or_default() += count;
            }
            summary.repaired.extend(&one.outcome.repairs);
            for done in &one.outcome.done {
                summary.converged.entry(done.act.name()).or_default().push(done.took);
            }
        }
        summary.repaired.sort();
        for times in summary.converged.values_mut() {
            times.sort();
        }
        summary
    }
}

/// The value below which `percent` of the sorted values lie.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str]) -> Result<Vec<String>, Unknown> {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let jobs = special().into_iter().chain(seeded(1, 12)).collect();
        Ok(select(jobs, &only)?.into_iter().map(|job| job.name).collect())
    }

    #[test]
    fn a_name_means_the_runs_that_begin_so_and_a_number_is_a_whole_one() {
        assert_eq!(names(&["seed 1", "missing"]).map(|names| names.len()), Ok(4), "not seeds 10 to 12");
        assert_eq!(names(&["seed"]).map(|names| names.len()), Ok(12));
        assert!(names(&[]).is_ok_and(|names| names.len() > 20), "all");
    }

    #[test]
    fn the_parts_are_all_runs_each_once_but_for_those_of_which_there_are_few() {
        let all: Vec<Job> = special().into_iter().chain(seeded(1, 40)).collect();
        let few = special().len();
        let mut played = Vec::new();
        for number in 1..=3 {
            let part = sample(all.clone(), Part { number, of: 3 });
            assert_eq!(part.iter().filter(|job| !job.class.starts_with("F2-F8")).count(), few);
            assert!((few + 13..=few + 14).contains(&part.len()), "{} runs", part.len());
            played.extend(part.into_iter().map(|job| job.name).filter(|name| name.starts_with("seed ")));
        }
        played.sort();
        let mut seeds: Vec<String> = seeded(1, 40).into_iter().map(|job| job.name).collect();
        seeds.sort();
        assert_eq!(played, seeds);
        assert_eq!("3/3".parse(), Ok(Part { number: 3, of: 3 }));
        for none in ["4/3", "0/3", "3", "1/0", ""] {
            assert!(none.parse::<Part>().is_err(), "{none}");
        }
    }

    #[test]
    fn a_name_that_nothing_has_is_refused_whatever_else_is_asked_for() {
        let refused = names(&["expiry", "seed 13"]).expect_err("twelve seeds");
        let text = refused.to_string();
        assert!(text.starts_with("no run is named \"seed 13\"; there are "), "{text}");
        assert!(text.contains("\"expiry\"") && text.contains("\"seed 1\""), "{text}");
    }
}
