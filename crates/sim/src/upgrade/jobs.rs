//! The runs of a sweep over changes of version. Where in a change something happens is taken from what the run without
//! trouble told of it, so a step that is added is struck, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kubevirt_release::Kind;
use kubevirt_release::strategy::GENERATE_NAME;
use nanokube::{FaultPlan, Scope};

use super::renewal::Renewal;
use super::unread::Unread;
use super::{COMPONENTS, STORY, Undoing};
use crate::chronicle::{Cue, Telling};
use crate::course::Point;
use crate::invariants::OPERATOR;
use crate::monkey::{Prank, Victim};
use crate::outage::{Backends, Outage};
use crate::registry::Sickness;
use crate::run::{Outcome, Script};
use crate::story::Act;
use crate::sweep::{Finished, Job, SEED, blows, pranks};
use crate::world::{Moment, Trouble};

/// Faults of one drawn plan, and about as many requests of each kind as installation and change have.
const FAULTS_PER_PLAN: u32 = 8;
const HORIZON: u32 = 160;

/// What is told for longer than this is also struck in its midst; whoever asks is a few hundredths of a second late.
const LONG: Duration = Duration::from_millis(200);

fn done(reference: &Outcome, act: Act) -> Option<&crate::run::Done> {
    reference.done.iter().find(|done| done.act == act)
}

/// What was told while the change was under way and could be undone, with its number.
fn tellings(reference: &Outcome) -> Vec<(u32, &Telling)> {
    let all = (1..).zip(&reference.findings.chronicle.tellings);
    all.filter(|(_, told)| told.can_go_back && matches!(told.state.as_str(), "InProgress" | "Paused" | "Blocked"))
        .collect()
}

/// Moments all over a change: each telling, and the midst of what lasts.
fn moments(reference: &Outcome) -> Vec<(String, Cue)> {
    let all = &reference.findings.chronicle.tellings;
    let mut moments = Vec::new();
    for (number, told) in tellings(reference) {
        let step = told.step.split_whitespace().last().unwrap_or_default();
        moments.push((format!("{number} {step}"), Cue::Told(number)));
        let next = usize::try_from(number).ok().and_then(|next| all.get(next));
        let lasts = next.map_or(Duration::ZERO, |next| next.at.saturating_sub(told.at));
        if lasts > LONG {
            moments.push((format!("{number} {step} midst"), Cue::After(number, lasts / 2)));
        }
    }
    moments
}

/// The first telling of each step that is the first one not done.
fn begins(reference: &Outcome) -> Vec<(String, Cue)> {
    let mut seen = BTreeSet::new();
    let first = tellings(reference).into_iter().filter(|(_, told)| seen.insert(told.step.clone()));
    first
        .map(|(number, told)| {
            let step = told.step.split_whitespace().last().unwrap_or_default();
            (format!("{number} {step}"), Cue::Told(number))
        })
        .collect()
}

/// The change's first write of each kind of object after one of another: within a pass no time goes by, and nothing is told.
fn turns(reference: &Outcome) -> Vec<(String, Cue)> {
    let before = done(reference, Act::NewOperator).map_or(0, |done| done.writes);
    let written = reference.findings.written.iter().skip(usize::try_from(before).unwrap_or(usize::MAX));
    let resource = |what: &str| what.rsplit_once('/').map(|(kind, _)| kind.to_owned()).unwrap_or_default();
    let mut last = String::new();
    let mut turns = Vec::new();
    for (number, what) in (1..).zip(written) {
        let kind = resource(what);
        // What is told of the change is a moment of its own.
        let is_told = kind.contains("upgradeplans") || kind.contains("kubevirts");
        if std::mem::replace(&mut last, kind.clone()) != kind && !is_told {
            turns.push((number.to_string(), Cue::Wrote(number)));
        }
    }
    turns
}

/// A run that is the one without trouble up to the newer operator, and then has acts of its own.
fn own(name: String, class: &'static str, acts: &[Act], trouble: Trouble) -> Job {
    let acts = [&STORY[..2], acts].concat();
    let script = Script { trouble, ..Script::undisturbed(SEED, &acts) };
    Job { name, class, script, parts: Some(Point::Ended(Act::NewOperator)) }
}

/// Every blow at every write from the newer operator on, and every undoing.
pub fn exhaustive(reference: &Outcome) -> Vec<Job> {
    let first = done(reference, Act::Install).map_or(0, |done| done.writes) + 1;
    let mut jobs = blows(reference, &STORY, first);
    jobs.extend(undone(reference));
    jobs
}

/// The way back, whatever leads to it, and then forward again.
fn undone(reference: &Outcome) -> Vec<Job> {
    let told = moments(reference).into_iter().map(|(name, cue)| (format!("undo@{name}"), cue));
    let written = turns(reference).into_iter().map(|(name, cue)| (format!("undo-write@{name}"), cue));
    let asked = told.chain(written).map(|(name, cue)| (name, "asked", Undoing::Asked(cue)));
    let sick = COMPONENTS.iter().enumerate().flat_map(|(place, component)| {
        [("missing", Sickness::Missing), ("crashing", Sickness::Crashes)]
            .map(|(name, sickness)| (format!("{name} {component}"), "F17", Undoing::Sick(place, sickness)))
    });
    let jobs = asked.chain(sick);
    jobs.map(|(name, class, why)| own(name, class, &[Act::Undo(why), Act::Again], Trouble::default())).collect()
}

/// Every managed object suffers every prank right after the newer version was named, and when it runs. The record of what
/// the older release consists of is spared: whoever changes it changes what the older release is.
pub fn mischief(reference: &Outcome) -> Vec<Job> {
    let of = |act| done(reference, act).map(|done| done.victims.clone()).unwrap_or_default();
    let is_record = |victim: &Victim| victim.kind == Kind::ConfigMap && victim.name.starts_with(GENERATE_NAME);
    let records: Vec<Victim> = of(Act::Install).into_iter().filter(is_record).collect();
    let mut meanwhile = of(Act::NewOperator);
    let added: Vec<Victim> = of(Act::Upgrade).into_iter().filter(|victim| !meanwhile.contains(victim)).collect();
    meanwhile.extend(added);
    let by_kind = |victims: Vec<Victim>| {
        let mut by_kind: BTreeMap<Kind, Vec<Victim>> = BTreeMap::new();
        for victim in victims.into_iter().filter(|victim| !records.contains(victim)) {
            by_kind.entry(victim.kind).or_default().push(victim);
        }
        by_kind
    };
    let mut upgrading = pranks(Moment::Upgrading, &STORY, Point::Begun(Act::Upgrade), &by_kind(meanwhile));
    let lasting = of(Act::Upgrade);
    for mischief in upgrading.iter_mut().filter_map(|job| job.script.trouble.mischief.as_mut()) {
        // What the newer release has not, and has lost its marks, is somebody else's: it stays, and rightly so.
        let is_unmarked = matches!(mischief.prank, Prank::Strip | Prank::Recreate);
        mischief.victims.retain(|victim| !is_unmarked || lasting.contains(victim));
    }
    let upgraded = pranks(Moment::Upgraded, &STORY, Point::Ended(Act::Upgrade), &by_kind(lasting));
    [upgrading, upgraded].concat()
}

/// Backends out of reach, renewals, objects that cannot be read, and removals in the middle and at the end.
pub fn special(reference: &Outcome) -> Vec<Job> {
    let mut jobs = Vec::new();
    let alone = [(Backends::Operator, "virt-operator"), (Backends::Api, "virt-api")];
    let alone = alone.map(|(of, name)| (format!("outage {name}"), Outage { of, cue: Cue::Told(1) }));
    let at_steps = begins(reference).into_iter();
    let at_steps = at_steps.map(|(name, cue)| (format!("outage@{name}"), Outage { of: Backends::All, cue }));
    jobs.extend(at_steps.chain(alone).map(|(name, outage)| {
        own(name, "F15", &[Act::Upgrade], Trouble { outage: Some(outage), ..Trouble::default() })
    }));
    let renewals = [("certificates", Renewal::Certificates), ("authorities", Renewal::Authorities)];
    let renewals = renewals.map(|(name, what)| (format!("renewal {name}"), "F16", Act::UpgradeAtRenewal(what)));
    let unread = [
        ("plan", Unread::Plan),
        ("policy", Unread::Policy),
        ("strategy", Unread::Strategy),
        ("resource", Unread::Resource),
    ];
    let unread = unread.map(|(name, what)| (format!("unread {name}"), "F18", Act::UpgradeBeside(what)));
    let left = moments(reference).into_iter().map(|(name, cue)| (format!("leave@{name}"), "removed", Act::Leave(cue)));
    jobs.extend(
        renewals
            .into_iter()
            .chain(unread)
            .chain(left)
            .map(|(name, class, act)| own(name, class, &[act], Trouble::default())),
    );
    let removed = [&STORY[..], &[Act::Uninstall]].concat();
    jobs.push(Job {
        name: "uninstall".to_owned(),
        class: "removed",
        script: Script::undisturbed(SEED, &removed),
        parts: Some(Point::Ended(Act::Upgrade)),
    });
    jobs
}

/// Changes under faults drawn from `count` seeds, beginning with `first`.
pub fn seeded(first: u64, count: u64) -> Vec<Job> {
    let scope = Scope { users: vec![OPERATOR.to_owned()], faults: FAULTS_PER_PLAN, horizon: HORIZON };
    let jobs = (first..first + count).map(|seed| {
        let trouble = Trouble { plan: Some(FaultPlan::draw(seed, scope.clone())), ..Trouble::default() };
        let script = Script { trouble, ..Script::undisturbed(seed, &STORY) };
        Job { name: format!("seed {seed}"), class: "F2-F8, F15", script, parts: None }
    });
    jobs.collect()
}

/// How often a change turned back at each of its steps, in their order.
pub fn turned(reference: &Outcome, finished: &[Finished]) -> Vec<(String, usize)> {
    let all = finished.iter().flat_map(|one| &one.outcome.findings.chronicle.turned_at);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    all.for_each(|step| *counts.entry(step).or_default() += 1);
    let steps = reference.findings.chronicle.steps.iter();
    steps.map(|step| (step.clone(), counts.get(step.as_str()).copied().unwrap_or(0))).collect()
}

/// U2: the steps that were under way at some moment while there was a way back, and at which no change turned back.
pub fn unhit(reference: &Outcome, finished: &[Finished]) -> Vec<String> {
    let under_way: BTreeSet<&String> = tellings(reference).into_iter().flat_map(|(_, told)| &told.under_way).collect();
    let counts = turned(reference, finished).into_iter();
    counts.filter(|(step, count)| *count == 0 && under_way.contains(step)).map(|(step, _)| step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chronicle::Chronicle;

    fn told(at: u64, state: &str, step: &str, under_way: &[&str]) -> Telling {
        Telling {
            at: Duration::from_millis(at),
            state: state.to_owned(),
            step: step.to_owned(),
            under_way: under_way.iter().map(ToString::to_string).collect(),
            can_go_back: true,
        }
    }

    fn reference() -> Outcome {
        let mut reference = Outcome::default();
        reference.findings.chronicle = Chronicle {
            tellings: vec![
                told(0, "InProgress", "1/3 crds", &["crds"]),
                told(0, "InProgress", "2/3 virt-handler", &["virt-handler"]),
                told(3000, "InProgress", "3/3 virt-api", &["virt-api"]),
                told(3100, "Succeeded", "", &[]),
            ],
            steps: ["crds", "virt-handler", "virt-api"].map(str::to_owned).to_vec(),
            turned_at: Vec::new(),
        };
        reference
    }

    #[test]
    fn the_way_back_is_asked_for_at_each_telling_and_in_the_midst_of_what_lasts() {
        let names: Vec<String> = moments(&reference()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["1 crds", "2 virt-handler", "2 virt-handler midst", "3 virt-api"]);
        let midst = moments(&reference())[2].1;
        assert_eq!(midst, Cue::After(2, Duration::from_millis(1500)));
        let mut reference = reference();
        reference.findings.chronicle.tellings[2].can_go_back = false;
        assert_eq!(moments(&reference).len(), 3, "nobody can go back from there");
    }

    #[test]
    fn the_way_back_is_asked_for_at_the_first_write_of_each_kind_in_a_row() {
        let mut reference = reference();
        let written = ["patch /apis/apps/a", "patch /apis/apps/b", "delete /api/a", "patch /apis/apps/c"];
        reference.findings.written = written.map(str::to_owned).to_vec();
        let cues: Vec<Cue> = turns(&reference).into_iter().map(|(_, cue)| cue).collect();
        assert_eq!(cues, [Cue::Wrote(1), Cue::Wrote(3), Cue::Wrote(4)]);
    }

    #[test]
    fn a_step_at_which_nothing_turned_back_is_named() {
        let job = undone(&reference()).remove(0);
        let finished = |steps: &[&str]| {
            let mut outcome = Outcome::default();
            outcome.findings.chronicle.turned_at = steps.iter().map(ToString::to_string).collect();
            Finished { job: job.clone(), outcome }
        };
        let all = [finished(&["crds", "virt-handler"]), finished(&["virt-handler", "virt-api"])];
        assert_eq!(unhit(&reference(), &all), Vec::<String>::new());
        assert_eq!(unhit(&reference(), &all[..1]), ["virt-api"]);
        let counts: Vec<usize> = turned(&reference(), &all).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 1]);
    }
}
