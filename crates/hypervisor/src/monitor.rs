//! Decides whether a running migration may go on. A pure state machine: fed with what the hypervisor reports, it answers
//! with what to do. It reads no clock; elapsed time comes with the sample.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hypervisor::Progress;

/// One GiB, the unit of the completion budget.
const GIB: u64 = 1 << 30;

/// Both time-outs of the KubeVirt CR, when it says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(150);

/// How long a migration may take and what happens then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Budget per GiB of memory and copied disk.
    pub completion_timeout_per_gib: Duration,
    /// Without progress for this long the link is taken for broken.
    pub progress_timeout: Duration,
    pub on_budget: OnBudget,
}

impl Default for Policy {
    /// The defaults of the KubeVirt CR.
    fn default() -> Self {
        Self {
            completion_timeout_per_gib: DEFAULT_TIMEOUT,
            progress_timeout: DEFAULT_TIMEOUT,
            on_budget: OnBudget::Abort,
        }
    }
}

/// What happens to a migration whose budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBudget {
    /// Give up; the guest stays.
    Abort,
    /// Allow the workload to be interrupted: stop the guest so that it converges, with the same budget once more.
    Pause,
}

/// Why a migration was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GiveUp {
    #[error("the migration did not complete within its budget of {}s", budget.as_secs())]
    Budget { budget: Duration },
    #[error("the migration made no progress for {}s", quiet.as_secs())]
    NoProgress { quiet: Duration },
    #[error("somebody asked to abort the migration")]
    Asked,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Continue,
    Pause,
    Abort(GiveUp),
}

/// The memory of one migration's supervision.
#[derive(Clone, Debug)]
pub struct Monitor {
    policy: Policy,
    budget: Duration,
    paused: bool,
    lowest: Option<u64>,
    last_progress: Duration,
}

impl Monitor {
    /// `bytes`: the guest's memory and the disks to copy.
    pub fn new(policy: Policy, bytes: u64) -> Self {
        let per_gib = policy.completion_timeout_per_gib;
        let budget = per_gib.mul_f64(bytes as f64 / GIB as f64).max(MINIMUM_BUDGET);
        Self { policy, budget, paused: false, lowest: None, last_progress: Duration::ZERO }
    }

    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// One sample, `elapsed` after the start.
    pub fn observe(&mut self, elapsed: Duration, progress: &Progress) -> Decision {
        if self.lowest.is_none_or(|lowest| progress.remaining < lowest) {
            self.lowest = Some(progress.remaining);
            self.last_progress = elapsed;
        }
        let quiet = elapsed.saturating_sub(self.last_progress);
        if quiet >= self.policy.progress_timeout {
            // A network fault: neither a pause nor a longer wait would help.
            return Decision::Abort(GiveUp::NoProgress { quiet });
        }
        if elapsed < self.budget {
            return Decision::Continue;
        }
        match self.policy.on_budget {
            OnBudget::Pause if !self.paused => {
                self.paused = true;
                self.budget *= 2;
                Decision::Pause
            }
            OnBudget::Pause | OnBudget::Abort => Decision::Abort(GiveUp::Budget { budget: self.budget }),
        }
    }
}

/// A guest of a few MiB still needs its connections set up: the budget is never below a second.
const MINIMUM_BUDGET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(remaining: u64) -> Progress {
        Progress { remaining, ..Progress::default() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(on_budget: OnBudget) -> Policy {
        Policy { completion_timeout_per_gib: 40 * SECOND, progress_timeout: 5 * SECOND, on_budget }
    }

    #[test]
    fn the_budget_grows_with_what_is_to_be_moved() {
        assert_eq!(Monitor::new(policy(OnBudget::Abort), GIB / 4).budget(), 10 * SECOND);
        assert_eq!(Monitor::new(policy(OnBudget::Abort), 0).budget(), MINIMUM_BUDGET);
    }

    #[test]
    fn a_spent_budget_aborts() {
        let mut monitor = Monitor::new(policy(OnBudget::Abort), GIB / 4);
        for second in 0..10 {
            assert_eq!(monitor.observe(SECOND * second, &sample(100 - u64::from(second))), Decision::Continue);
        }
        let budget = 10 * SECOND;
        assert_eq!(monitor.observe(budget, &sample(1)), Decision::Abort(GiveUp::Budget { budget }));
    }

    #[test]
    fn a_workload_that_may_be_interrupted_is_paused_once_and_gets_the_budget_twice() {
        let mut monitor = Monitor::new(policy(OnBudget::Pause), GIB / 4);
        assert_eq!(monitor.observe(8 * SECOND, &sample(50)), Decision::Continue);
        assert_eq!(monitor.observe(10 * SECOND, &sample(40)), Decision::Pause);
        assert_eq!(monitor.observe(14 * SECOND, &sample(30)), Decision::Continue);
        assert_eq!(monitor.observe(18 * SECOND, &sample(20)), Decision::Continue);
        let budget = 20 * SECOND;
        assert_eq!(monitor.observe(budget, &sample(10)), Decision::Abort(GiveUp::Budget { budget }));
    }

    #[test]
    fn silence_aborts_before_the_budget_does() {
        let mut monitor = Monitor::new(policy(OnBudget::Pause), GIB);
        assert_eq!(monitor.observe(SECOND, &sample(100)), Decision::Continue);
        assert_eq!(monitor.observe(5 * SECOND, &sample(100)), Decision::Continue);
        let quiet = 5 * SECOND;
        assert_eq!(monitor.observe(6 * SECOND, &sample(120)), Decision::Abort(GiveUp::NoProgress { quiet }));
    }
}
