//! Of the writes of one moment one stands for all: a lease that can't be renewed from any of them on leads to the same run.

use kubevirt_sim::sweep::{STORY, exhaustive, reference};
use kubevirt_sim::{Outcome, run};

/// What happened, without the line that says at which write.
fn trace(outcome: &Outcome) -> Vec<&String> {
    outcome.findings.lines.iter().filter(|line| !line.contains(" FAULT ")).collect()
}

#[test]
fn a_lease_that_fails_at_one_write_of_a_moment_fails_at_all_of_them() {
    kubevirt_runtime::process::install_crypto();
    let reference = reference(&STORY, false);
    let moments = &reference.findings.moments;
    let jobs = exhaustive(&reference);
    let deposed = |write: usize| {
        let name = format!("deposed@{}", write + 1);
        let mut script = jobs.iter().find(|job| job.name == name).expect("a run").script.clone();
        script.keeps_lines = true;
        run(&script)
    };
    // The first moment of an installation that has several writes: its first and its last are furthest apart.
    let first = moments.windows(2).position(|pair| pair[0] == pair[1]).expect("a pass writes more than one object");
    let last = moments.iter().rposition(|moment| *moment == moments[first]).expect("there is one");
    let (early, late) = (deposed(first), deposed(last));
    assert!(early.is_good() && late.is_good());
    let (early, late) = (trace(&early), trace(&late));
    assert!(early.len() > 100, "a trace has more lines than {}", early.len());
    let differs = early.iter().zip(&late).find(|(early, late)| early != late);
    assert_eq!(differs, None, "the first line that differs");
    assert_eq!(early.len(), late.len());
}
