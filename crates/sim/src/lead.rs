//! Leads a sweep: splits runs off where they part, and collects how they ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::course::{Branches, Point};
use crate::log::set_last_words;
use crate::pool::{Ended, NoResult, Pool, Report, Side};
use crate::run::{Outcome, Script, run};
use crate::sweep::{Finished, Job};

/// After so many failed runs the others are not played: the cause is known by then, and what does not converge takes the
/// longest.
const MOST_FAILED: usize = 30;

/// Told of each run that ended, with the number of those before it and itself.
type Told = Box<dyn FnMut(usize, &Finished) + Send>;

pub(crate) struct Lead {
    jobs: Vec<Job>,
    reference: Outcome,
    state: Mutex<State>,
}

struct State {
    pool: Pool,
    /// Runs that are still to part, by where.
    expected: BTreeMap<Point, Vec<usize>>,
    finished: BTreeMap<usize, Finished>,
    told: Told,
    failed: usize,
    /// In a process that was split off: the run it is.
    own: Option<(usize, Report)>,
}

impl Lead {
    pub(crate) fn new(jobs: &[Job], reference: &Outcome, told: impl FnMut(usize, &Finished) + Send + 'static) -> Self {
        let slots = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let state = State {
            pool: Pool::new(slots),
            expected: BTreeMap::new(),
            finished: BTreeMap::new(),
            told: Box::new(told),
            failed: 0,
            own: None,
        };
        Self { jobs: jobs.to_vec(), reference: reference.clone(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // One thread: nobody else can have left it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run will part at a point of the common one.
    pub(crate) fn expect(&self, point: Point, number: usize) {
        self.lock().expected.entry(point).or_default().push(number);
    }

    pub(crate) fn expects(&self) -> bool {
        !self.lock().expected.is_empty()
    }

    /// Plays a run from its beginning, in a process of its own.
    ///
    /// # Errors
    /// The machine has no memory or no process left.
    pub(crate) fn start(&self, number: usize) -> io::Result<()> {
        if self.lock().failed >= MOST_FAILED {
            return Ok(());
        }
        match self.split(number)? {
            Side::Leading => Ok(()),
            Side::Run(report) => self.end(number, report, run(&self.jobs[number].script)),
        }
    }

    fn split(&self, number: usize) -> io::Result<Side> {
        let mut state = self.lock();
        let State { pool, finished, told, failed, .. } = &mut *state;
        let side = pool.split(number, |ended| *failed += usize::from(!self.collect(ended, finished, told)))?;
        if let Side::Run(report) = &side {
            let report = report.again()?;
            set_last_words(move |panic| {
                let mut outcome = Outcome::default();
                outcome.object("O7", panic.to_owned());
                if let (Ok(report), Ok(result)) = (report.again(), serde_json::to_vec(&outcome)) {
                    report.end(&result);
                }
            });
        }
        Ok(side)
    }

    /// Takes note of how a run ended; tells whether it was good.
    fn collect(&self, ended: Ended, finished: &mut BTreeMap<usize, Finished>, told: &mut Told) -> bool {
        let Ended { number, result } = ended;
        let outcome =
            result.map_err(|why| (if matches!(why, NoResult::Endless) { "O3" } else { "O7" }, why.to_string()));
        let outcome = outcome.and_then(|bytes| {
            serde_json::from_slice(&bytes).map_err(|error| ("O7", format!("its result can't be read: {error}")))
        });
        let outcome = outcome.unwrap_or_else(|(id, why)| {
            let mut outcome = Outcome::default();
            outcome.object(id, why);
            outcome
        });
        let one = Finished { job: self.jobs[number].clone(), outcome };
        told(finished.len() + 1, &one);
        let is_good = one.outcome.is_good();
        finished.insert(number, one);
        is_good
    }

    /// Compares what a run came to, leaves the result and ends its process.
    fn end(&self, number: usize, report: Report, mut outcome: Outcome) -> ! {
        let trouble = &self.jobs[number].script.trouble;
        let is_undisturbed = trouble.mischief.is_none() && trouble.sick.is_none();
        outcome.compare(&self.reference, is_undisturbed);
        // Compared already, and large.
        for done in &mut outcome.done {
            (done.managed, done.told, done.victims, done.tally) = Default::default();
        }
        let result = serde_json::to_vec(&outcome).unwrap_or_default();
        report.end(&result)
    }

    /// Ends this process if it is a run that has parted from the common one.
    pub(crate) fn end_if_run(&self, outcome: Outcome) -> io::Result<()> {
        let own = self.lock().own.take();
        if let Some((number, report)) = own {
            self.end(number, report, outcome);
        }
        Ok(())
    }

    /// All runs that were played, once the last has ended. One whose point never came has failed; when many failed the
    /// others are left out.
    ///
    /// # Errors
    /// The system does not tell how they ended.
    pub(crate) fn finish(&self) -> io::Result<Vec<Finished>> {
        let mut state = self.lock();
        let State { pool, expected, finished, told, failed, .. } = &mut *state;
        pool.drain(|ended| *failed += usize::from(!self.collect(ended, finished, told)))?;
        let left = if *failed < MOST_FAILED { std::mem::take(expected) } else { BTreeMap::new() };
        for (point, numbers) in left {
            for number in numbers {
                let mut outcome = Outcome::default();
                outcome.object("O3", format!("the common run never came to {point:?}"));
                let one = Finished { job: self.jobs[number].clone(), outcome };
                told(finished.len() + 1, &one);
                finished.insert(number, one);
            }
        }
        Ok(std::mem::take(finished).into_values().collect())
    }
}

impl Branches for Lead {
    fn at(&self, point: Point) -> Option<Script> {
        if self.lock().own.is_some() {
            return None;
        }
        let here = self.lock().expected.remove(&point)?;
        for number in here {
            if self.lock().failed >= MOST_FAILED {
                break;
            }
            match self.split(number) {
                Ok(Side::Leading) => {}
                Ok(Side::Run(report)) => {
                    self.lock().own = Some((number, report));
                    return Some(self.jobs[number].script.clone());
                }
                // Not played: the count of finished runs says so in the end.
                Err(error) => {
                    tracing::error!(%error, "a run could not be split off");
                    self.lock().expected.entry(point).or_default().push(number);
                }
            }
        }
        None
    }
}
