//! O9: the same script gives the same run, request by request.

use kubevirt_sim::{Act, Blow, Script, Strike, Trouble, run, sweep};

fn assert_repeats(script: Script) {
    let script = Script { keeps_lines: true, ..script };
    let (first, second) = (run(&script), run(&script));
    assert!(first.is_good(), "{:?}", first.complaints().collect::<Vec<_>>());
    let differs = first.findings.lines.iter().zip(&second.findings.lines).find(|(first, second)| first != second);
    assert_eq!(differs, None, "the first line that differs");
    assert_eq!(first.findings.hash, second.findings.hash);
    assert!(first.findings.lines.len() > 100, "an installation has more requests than {}", first.findings.lines.len());
}

#[test]
fn an_undisturbed_run_repeats_itself_and_another_seed_is_another_run() {
    kubevirt_runtime::process::install_crypto();
    assert_repeats(Script::undisturbed(7, &[Act::Install]));
    let hash = |seed| run(&Script::undisturbed(seed, &[Act::Install])).findings.hash;
    assert_ne!(hash(7), hash(8));
}

#[test]
fn a_run_under_faults_repeats_itself() {
    kubevirt_runtime::process::install_crypto();
    let strike = Some(Strike { blow: Blow::Crash, write: 17 });
    assert_repeats(Script {
        trouble: Trouble { strike, ..Trouble::default() },
        ..Script::undisturbed(7, &[Act::Install])
    });
    let drawn = sweep::seeded(3, 1).remove(0).script;
    assert_repeats(Script { acts: vec![Act::Install], ..drawn });
}
