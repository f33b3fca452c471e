//! Trouble that shares a run with more of its kind.
//!
//! A run of the whole story is struck at every so many writes, and as many runs as that together at every write. What no run
//! of a series has struck is struck in a run of its own. Of the kinds whose objects suffer a prank at a moment several share
//! a run; at a settled moment each object is repaired before the next one suffers.
//!
//! Whether a lease can't be renewed from one write on or from the next makes no difference as long as nobody asks about the
//! lease between them: of the writes of one moment one stands for all ([`Findings::moments`](crate::referee::Findings)).

use std::collections::{BTreeMap, BTreeSet};

use crate::monkey::{Prank, Victim};
use crate::run::{Outcome, Script};
use crate::story::Act;
use crate::strike::{Blow, Strike, Target};
use crate::sweep::{Finished, Job, struck};
use crate::world::{Mischief, Moment, Trouble};

/// Kinds that share a run: few enough to see what a failed one is about.
const KINDS: usize = 4;

/// How many kinds share a run at a moment. Once the version has changed, each object is repaired before the next one suffers,
/// as after an installation, where a run has few kinds; what is left to find needs no more than one run for each prank.
fn kinds(moment: Moment) -> usize {
    if moment == Moment::Upgraded { usize::MAX } else { KINDS }
}

/// A run of its own, and whom its prank hits.
type Suffered = (Job, Vec<Victim>);

/// Writes from one blow to the next, if blows of this kind may follow each other in a run.
fn step(blow: Blow) -> Option<u32> {
    match blow {
        // A lost answer ends the pass, and the operator pauses longer after each that fails: an act of a hundred writes is
        // through after six of them, within a minute and a half.
        Blow::LostReply => Some(16),
        // Nobody notices but the object that is written.
        Blow::Twice => Some(4),
        // Who has lost the lease ends, and a container that ends again waits twice as long. Meanwhile the other pod leads; at
        // every sixteenth write both came to wait for minutes.
        Blow::Frozen | Blow::Crash => Some(32),
        // All writes of a pass are of one moment.
        Blow::Deposed => None,
    }
}

/// How a run is struck, if it may be part of a series.
fn strike(job: &Job) -> Option<Strike> {
    job.script.trouble.strike.filter(|strike| step(strike.blow).is_some())
}

/// Puts series in the place of the runs with one blow each that they stand for, and one run in the place of those that are
/// the same.
pub fn joined(jobs: Vec<Job>, story: &[Act], reference: &Outcome) -> Vec<Job> {
    let mut series: BTreeMap<(Blow, u32), Job> = BTreeMap::new();
    let mut rest = Vec::new();
    let mut first: BTreeMap<Blow, u32> = BTreeMap::new();
    let mut pranks: BTreeMap<(Prank, Moment), Vec<Suffered>> = BTreeMap::new();
    let mut deposed: BTreeSet<u32> = BTreeSet::new();
    for job in jobs {
        if let Some(Mischief { moment, prank, victims }) = job.script.trouble.mischief.clone() {
            pranks.entry((prank, moment)).or_default().push((job, victims));
            continue;
        }
        let Some((Strike { blow, write, .. }, step)) =
            job.script.trouble.strike.and_then(|it| Some((it, step(it.blow)?)))
        else {
            let is_new = moment(&job, reference).is_none_or(|moment| deposed.insert(moment));
            rest.extend(is_new.then_some(job));
            continue;
        };
        let first = *first.entry(blow).or_insert(write);
        if write < first + step {
            let targets = targets(&reference.findings.written, write, step);
            let strike = Strike { blow, write };
            series.insert((blow, write), struck(format!("{blow}+{step}@{write}"), strike, targets, story));
        }
    }
    rest.extend(series.into_values());
    for ((prank, moment), of_kinds) in pranks {
        rest.extend(of_kinds.chunks(kinds(moment)).filter_map(|chunk| together(prank, moment, chunk)));
    }
    rest
}

/// Every so many of the writes after one.
fn targets(written: &[String], after: u32, step: u32) -> Vec<Target> {
    let place = |write: u32| usize::try_from(write).unwrap_or(usize::MAX);
    let of_step = written.iter().enumerate().skip(place(after)).skip(place(step) - 1).step_by(place(step));
    let target = |(at, what): (usize, &String)| {
        let nth = written[..=at].iter().filter(|other| *other == what).count();
        Target { what: what.clone(), nth: u32::try_from(nth).unwrap_or(u32::MAX) }
    };
    of_step.map(target).collect()
}

/// The moment at which a lease can't be renewed any more.
fn moment(job: &Job, reference: &Outcome) -> Option<u32> {
    let strike = job.script.trouble.strike.filter(|strike| strike.blow == Blow::Deposed)?;
    let place = usize::try_from(strike.write).ok()?.checked_sub(1)?;
    reference.findings.moments.get(place).copied()
}

fn together(prank: Prank, moment: Moment, chunk: &[Suffered]) -> Option<Job> {
    let (first, _) = chunk.first()?;
    let victims: Vec<Victim> = chunk.iter().flat_map(|(_, victims)| victims.clone()).collect();
    let mut kinds: Vec<&str> = victims.iter().map(|victim| victim.kind.name()).collect();
    kinds.dedup();
    let of = if kinds.len() > KINDS { "all".to_owned() } else { kinds.join(",") };
    let name = format!("{prank}+@{moment:?}/{of}");
    let trouble = Trouble { mischief: Some(Mischief { moment, prank, victims }), ..first.script.trouble.clone() };
    Some(Job { name, script: Script { trouble, ..first.script.clone() }, ..first.clone() })
}

/// Of the runs with one blow each, those whose write no finished run of a series has struck: where an answer was lost, what
/// follows has other numbers, so this is counted by what was written.
pub fn missed(jobs: &[Job], reference: &Outcome, finished: &[Finished]) -> Vec<Job> {
    let mut struck: BTreeMap<(Blow, &str), u32> = BTreeMap::new();
    for one in finished.iter().filter(|one| one.job.is_series()) {
        let Some(Strike { blow, .. }) = strike(&one.job) else { continue };
        for line in &one.outcome.findings.struck {
            // `F2 lost-reply at write 17: patch /api/v1/… by POD`
            let Some((_, what)) = line.split_once(": ") else { continue };
            let what = what.split_once(" by ").map_or(what, |(what, _)| what);
            *struck.entry((blow, what)).or_default() += 1;
        }
    }
    let is_missed = |job: &&Job| {
        let Some(Strike { blow, write, .. }) = strike(job) else { return false };
        let written =
            usize::try_from(write).ok().and_then(|write: usize| reference.findings.written.get(write.checked_sub(1)?));
        let Some(left) = written.and_then(|what| struck.get_mut(&(blow, what.as_str()))) else { return true };
        let is_left = *left > 0;
        *left = left.saturating_sub(1);
        !is_left
    };
    jobs.iter().filter(is_missed).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{STORY, exhaustive};

    fn reference() -> Outcome {
        let mut reference = Outcome::default();
        reference.findings.writes = 40;
        reference.findings.written = (1..=40).map(|write| format!("patch /{}", write % 30)).collect();
        reference.findings.moments = (0..40).map(|write| write / 16).collect();
        reference
    }

    fn finished(job: Job, struck: &[&str]) -> Finished {
        let mut outcome = Outcome::default();
        outcome.findings.struck = struck.iter().map(|what| format!("F2 lost-reply at write 1: {what} by a")).collect();
        Finished { job, outcome }
    }

    #[test]
    fn series_strike_at_every_write_and_one_of_each_moment_stands_for_all() {
        let joined = joined(exhaustive(&reference()), &STORY, &reference());
        for blow in [Blow::Crash, Blow::LostReply, Blow::Twice, Blow::Frozen] {
            let mut struck: Vec<String> = Vec::new();
            for job in joined.iter().filter(|job| job.script.trouble.strike.is_some_and(|strike| strike.blow == blow)) {
                assert!(job.is_series() && job.script.acts == STORY, "{}", job.name);
                let first = job.script.trouble.strike.map_or(0, |strike| strike.write);
                struck.push(reference().findings.written[usize::try_from(first).expect("a place") - 1].clone());
                struck.extend(job.script.trouble.series.iter().map(|target| target.what.clone()));
            }
            struck.sort();
            let mut all = reference().findings.written;
            all.sort();
            assert_eq!(struck, all, "{blow}");
        }
        let written = reference().findings.written;
        let nth = |what: &str, nth| Target { what: what.to_owned(), nth };
        assert_eq!(targets(&written, 3, 16), [nth("patch /19", 1), nth("patch /5", 2)]);
        let deposed: Vec<&str> =
            joined.iter().map(|job| job.name.as_str()).filter(|name| name.starts_with("deposed")).collect();
        assert_eq!(deposed, ["deposed@1", "deposed@17", "deposed@33"]);
    }

    #[test]
    fn what_no_series_has_struck_is_missed_as_often_as_it_was_not() {
        let (reference, jobs) = (reference(), exhaustive(&reference()));
        let series: Vec<Job> = joined(jobs.clone(), &STORY, &reference).into_iter().filter(Job::is_series).collect();
        let lost = series.iter().find(|job| job.name.starts_with("lost-reply")).expect("a series").clone();
        let all: Vec<&str> = reference.findings.written.iter().map(String::as_str).collect();
        let names = |struck: &[&str]| -> Vec<String> {
            let missed = missed(&jobs, &reference, &[finished(lost.clone(), struck)]).into_iter();
            missed.map(|job| job.name).filter(|name| name.starts_with("lost-reply")).collect()
        };
        assert_eq!(names(&all), Vec::<String>::new());
        // Write 35 goes where write 5 went.
        let one_less: Vec<&str> = all.iter().enumerate().filter(|(at, _)| *at != 4).map(|(_, what)| *what).collect();
        assert_eq!(names(&one_less), ["lost-reply@35"]);
        assert_eq!(names(&[]).len(), 40);
    }
}
