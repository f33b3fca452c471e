//! A run that parts from the common one at some point is, request by request, the run that its script gives from the
//! beginning.

use std::process::Command;

/// The trace and the complaints of runs, without what the machine's own time shows in.
fn lines(options: &[&str]) -> Vec<String> {
    let names = ["crash@3", "twice@40", "edit@Settled/Role"];
    let only = names.iter().flat_map(|name| ["--only", name]);
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--seeds", "0", "--trace"])
        .args(options)
        .args(only)
        .output()
        .expect("the simulator runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}", text.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
    // Runs end in any order; each line of a trace begins with its run's name.
    let mut lines: Vec<String> = text.lines().filter(|line| line.contains(" | ")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_run_that_parts_is_the_run_from_scratch() {
    let (parted, whole) = (lines(&[]), lines(&["--from-scratch"]));
    assert!(whole.len() > 500, "three traces have more lines than {}", whole.len());
    let differs = whole.iter().zip(&parted).find(|(whole, parted)| whole != parted);
    assert_eq!(differs, None, "the first line that differs");
    assert_eq!(whole.len(), parted.len());
}
