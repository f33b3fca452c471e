//! Trouble that shares a run with more of its kind.
//!
//! A lost answer or a write that arrives twice concerns the pass under way and nothing else, so a run of the whole story
//! takes one at every so many writes, and as many runs as that together every write. What no run of a series has struck is
//! struck in a run of its own. Of the kinds whose objects suffer a prank at a moment several share a run; at the settled
//! moment each object is repaired before the next one suffers.
//!
//! Crashes and lost leases have their own runs: what they lead to lasts as long as an act.

use std::collections::BTreeMap;

use crate::monkey::{Prank, Victim};
use crate::run::{Outcome, Script};
use crate::story::Act;
use crate::strike::{Blow, Strike};
use crate::sweep::{Finished, Job, struck};
use crate::world::{Mischief, Moment, Trouble};

/// Writes from one blow to the next. A lost answer ends the pass, and the operator pauses longer after each that fails: an
/// act of a hundred writes is through after six of them, within a minute and a half.
const STEP: u32 = 16;

/// Kinds that share a run: few enough to see what a failed one is about.
const KINDS: usize = 4;

/// A run of its own, and whom its prank hits.
type Suffered = (Job, Vec<Victim>);

/// Whether blows of this kind may follow each other in a run. The others take the process, or the leader's place.
fn follows(blow: Blow) -> bool {
    matches!(blow, Blow::LostReply | Blow::Twice)
}

/// How a run is struck, if it may be part of a series.
fn strike(job: &Job) -> Option<Strike> {
    job.script.trouble.strike.filter(|strike| follows(strike.blow))
}

/// Puts series in the place of the runs with one blow each that they stand for.
pub fn joined(jobs: Vec<Job>, story: &[Act]) -> Vec<Job> {
    let mut series: BTreeMap<(Blow, u32), Job> = BTreeMap::new();
    let mut rest = Vec::new();
    let mut first: BTreeMap<Blow, u32> = BTreeMap::new();
    let mut pranks: BTreeMap<(Prank, Moment), Vec<Suffered>> = BTreeMap::new();
    for job in jobs {
        if let Some(Mischief { moment, prank, victims }) = job.script.trouble.mischief.clone() {
            pranks.entry((prank, moment)).or_default().push((job, victims));
            continue;
        }
        let Some(Strike { blow, write, .. }) = strike(&job) else {
            rest.push(job);
            continue;
        };
        let first = *first.entry(blow).or_insert(write);
        if write < first + STEP {
            let each = Strike { blow, write, again: Some(STEP) };
            series.insert((blow, write), struck(format!("{blow}+{STEP}@{write}"), each, story));
        }
    }
    rest.extend(series.into_values());
    for ((prank, moment), of_kinds) in pranks {
        rest.extend(of_kinds.chunks(KINDS).filter_map(|chunk| together(prank, moment, chunk)));
    }
    rest
}

fn together(prank: Prank, moment: Moment, chunk: &[Suffered]) -> Option<Job> {
    let (first, _) = chunk.first()?;
    let victims: Vec<Victim> = chunk.iter().flat_map(|(_, victims)| victims.clone()).collect();
    let mut kinds: Vec<&str> = victims.iter().map(|victim| victim.kind.name()).collect();
    kinds.dedup();
    let name = format!("{prank}+@{moment:?}/{}", kinds.join(","));
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
        reference
    }

    fn finished(job: Job, struck: &[&str]) -> Finished {
        let mut outcome = Outcome::default();
        outcome.findings.struck = struck.iter().map(|what| format!("F2 lost-reply at write 1: {what} by a")).collect();
        Finished { job, outcome }
    }

    #[test]
    fn a_series_strikes_at_every_write_and_what_takes_a_process_strikes_alone() {
        let joined = joined(exhaustive(&reference()), &STORY);
        let mut struck: Vec<u32> = Vec::new();
        for job in joined.iter().filter(|job| job.name.starts_with("twice")) {
            assert!(job.is_series() && job.script.acts == STORY, "{}", job.name);
            let mut next = job.script.trouble.strike;
            while let Some(strike) = next.filter(|strike| strike.write <= 40) {
                struck.push(strike.write);
                next = strike.rest();
            }
        }
        struck.sort_unstable();
        assert_eq!(struck, (1..=40).collect::<Vec<_>>());
        for blow in [Blow::Crash, Blow::Deposed, Blow::Frozen] {
            let alone = joined.iter().filter(|job| !job.is_series() && job.name.starts_with(&format!("{blow}@")));
            assert_eq!(alone.count(), 40, "{blow}");
        }
    }

    #[test]
    fn what_no_series_has_struck_is_missed_as_often_as_it_was_not() {
        let (reference, jobs) = (reference(), exhaustive(&reference()));
        let series: Vec<Job> = joined(jobs.clone(), &STORY).into_iter().filter(Job::is_series).collect();
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
