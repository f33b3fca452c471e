//! What the operator writes in a change of version, in order, as a text that a person reads and that a change of the operator
//! has to change: `transcripts/*.txt`. With `BLESS_TRANSCRIPTS=1` in the environment the files are written anew.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kubevirt_sim::upgrade::{self, Undoing};
use kubevirt_sim::{Act, Cue, Outcome, Script, Sickness, run};

/// Writes the files instead of comparing with them.
const BLESS: &str = "BLESS_TRANSCRIPTS";

/// What others name: its last part is drawn.
const DRAWN: [&str; 2] = ["pods/", "configmaps/kubevirt-install-strategy-"];

/// One write: `patch daemonsets.apps virt-handler`; none for what is no write of the operator's, or was not carried out.
fn write(line: &str) -> Option<String> {
    let [_pod, verb, path, code] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    let is_write = ["create", "update", "patch", "delete"].contains(&verb) && code.starts_with('2');
    let path = path.split('?').next().unwrap_or(path);
    let is_mere_talk = path.contains("/leases") || path.contains("/events");
    if !is_write || is_mere_talk {
        return None;
    }
    let (group, rest) = match path.strip_prefix("/apis/") {
        Some(rest) => rest.split_once('/')?,
        None => ("", path.strip_prefix("/api/")?),
    };
    // The version, and a namespace, which is always the same.
    let rest = rest.split_once('/')?.1;
    let rest = rest.strip_prefix("namespaces/kubevirt/").unwrap_or(rest);
    let mut what = rest.to_owned();
    if DRAWN.iter().any(|beginning| rest.starts_with(beginning)) {
        what = what.rsplit_once('-').map(|(name, _)| format!("{name}-*")).unwrap_or(what);
    }
    let (kind, name) = what.split_once('/').map_or((what.as_str(), ""), |(kind, name)| (kind, name));
    let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    Some(format!("{verb} {kind} {name}").trim_end().to_owned())
}

/// Everything from an act on: what is asked for and told as it stands, and writes below the moment they were made at. What
/// is written to the same object in a row is one line.
fn transcript(outcome: &Outcome, from: &str) -> String {
    let mut text = String::new();
    let (mut began, mut moment, mut last) = (None, None, String::new());
    for line in &outcome.findings.lines {
        let Some((at, what)) = line.trim_start().split_once(' ') else { continue };
        let at: f64 = at.parse().expect("a line begins with its time");
        if what == format!("ACT {from}") {
            began = Some(at);
        }
        let Some(began) = began else { continue };
        let is_said = ["ACT ", "TOLD ", "the way back", "the suite is"].iter().any(|word| what.starts_with(word));
        let Some(entry) = write(what).or_else(|| is_said.then(|| format!("-- {what}"))) else { continue };
        if moment != Some(at) {
            // A tenth of a second is as exact as a person reads.
            writeln!(text, "{}+{:.1} s", if text.is_empty() { "" } else { "\n" }, at - began).expect("memory");
            (moment, last) = (Some(at), String::new());
        }
        if entry != last {
            writeln!(text, "  {entry}").expect("memory");
        }
        last = entry;
    }
    text
}

/// Plays the story and holds the transcript against the file.
fn holds(name: &str, acts: &[Act], from: &str) {
    kubevirt_runtime::process::install_crypto();
    let script = Script { keeps_lines: true, ..Script::undisturbed(1, acts) };
    let outcome = run(&script);
    assert!(outcome.is_good(), "{name}: {:?}", outcome.complaints().collect::<Vec<_>>());
    let found = transcript(&outcome, from);
    assert!(found.lines().count() > 20, "{name}: a change of version has more to tell than\n{found}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(format!("{name}.txt"));
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &found).expect("the file can be written");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = wanted.lines().zip(found.lines()).position(|(wanted, found)| wanted != found);
    let at = differs.unwrap_or_else(|| wanted.lines().count().min(found.lines().count()));
    let around = |text: &str| text.lines().skip(at.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n");
    assert!(
        wanted == found,
        "{name} is told differently from line {} on; {BLESS}=1 writes it anew\nwanted:\n{}\nfound:\n{}",
        at + 1,
        around(&wanted),
        around(&found)
    );
}

#[test]
fn a_change_to_a_newer_version() {
    holds("upgrade", &upgrade::STORY, "upgrade");
}

#[test]
fn a_change_that_is_undone_because_virt_handler_crashes() {
    let undo = Act::Undo(Undoing::Sick(0, Sickness::Crashes));
    holds("automatic-rollback", &[Act::Install, Act::NewOperator, undo], "undo");
}

#[test]
fn a_change_that_is_undone_on_request_while_virt_handler_is_replaced() {
    // The second telling is the one in which the nodes' turn has come.
    let undo = Act::Undo(Undoing::Asked(Cue::After(2, Duration::from_millis(500))));
    holds("asked-rollback", &[Act::Install, Act::NewOperator, undo], "undo");
}

#[test]
fn an_uninstallation_after_a_change() {
    let acts = [&upgrade::STORY[..], &[Act::Uninstall]].concat();
    holds("uninstall-after-upgrade", &acts, "uninstall");
}

#[test]
fn a_write_is_told_without_what_is_drawn() {
    let told = |line: &str| write(line).unwrap_or_default();
    assert_eq!(
        told("virt-operator-5bf-x patch /apis/apps/v1/namespaces/kubevirt/daemonsets/virt-handler 200"),
        "patch daemonsets.apps virt-handler"
    );
    assert_eq!(
        told("virt-operator-5bf-x delete /api/v1/namespaces/kubevirt/pods/virt-handler-abcde 200"),
        "delete pods virt-handler-*"
    );
    assert_eq!(told("virt-operator-5bf-x patch /apis/apps/v1/namespaces/kubevirt/daemonsets/virt-handler 409"), "");
    assert_eq!(told("virt-operator-5bf-x get /api/v1/namespaces/kubevirt/pods/a 200"), "");
    let lease = "virt-operator-5bf-x update /apis/coordination.k8s.io/v1/namespaces/kubevirt/leases/virt-operator 200";
    assert_eq!(told(lease), "");
}
