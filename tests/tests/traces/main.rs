//! Traces: what the embedded Kubernetes does, told as stories.
//!
//! Every `scripts/NAME.script` is played on a whole cluster in this process, under paused time, and what happens is
//! compared with `scripts/NAME.transcript` beside it. `UPDATE_EXPECT=1 cargo test -p kubevirt-tests --test traces` writes
//! the transcripts anew; read the difference before committing it.
//!
//! # A script
//!
//! The first line is `cluster seed=N nodes=N`. After it, a line that starts with `#` is echoed: it tells the reader what
//! to look for. Everything else is a command; a block that is indented by two spaces belongs to the command above it.
//!
//! | command | what it does |
//! |---|---|
//! | `follow KIND...` | from here on, changes of these kinds are written down (`events` are the Events for users) |
//! | `hide REASON...` | Events with these reasons are not written down |
//! | `apply` + YAML | server-side apply of each document, as `kubectl apply --server-side`; `caBundle: SHOP` names the authority of the shop's servers |
//! | `patch KIND NAME [SUBRESOURCE]` + YAML | strategic merge patch of a built-in kind |
//! | `delete KIND NAME [foreground \| orphan]` | deletes an object |
//! | `evict POD [every SECONDS]` | evicts a pod; with a period, again until it is granted, as `kubectl drain` |
//! | `cordon NODE`, `uncordon NODE` | makes a node unschedulable, and schedulable again |
//! | `node down NODE`, `node up NODE` | cuts a node's power, and restores it |
//! | `wait KIND NAME WHAT...` | until the object is observed and each `label=value`, `label>=N` holds, or until it is `gone` |
//! | `advance SECONDS` | lets simulated time pass |
//! | `get PATH` | asks for a path, as `kubectl get --raw` |
//! | `show KIND` | prints the objects of a kind as a table |
//!
//! # A transcript
//!
//! It begins with the seed. A comment and the commands (after `>`) are followed by what they led to, one line per write:
//!
//! | column | meaning |
//! |---|---|
//! | time | seconds of simulated time since the cluster was complete, with milliseconds |
//! | who | the user who wrote: `alice` runs the script; the controllers share one user, as do the nodes |
//! | what | kind and name of the object; of an Event, the object it is about |
//! | change | `created`, `deleting`, `gone`, and each field that changed as `label before -> after`; a field without a value is `-`; an Event is quoted with its component and reason |
//!
//! Lines are in the order of the server's revisions. Names that contain a random part are replaced: `web-r2` is the
//! ReplicaSet of revision 2 of `web`, `web-r2.3` its third pod, `agent.node01.2` the second daemon pod of `agent` on
//! node01. Which fields of a kind are shown, and what their labels mean, is written in `facets.rs`.

mod facets;
mod kinds;
mod ledger;
mod names;
mod recorder;
mod runner;
mod script;
mod shop;

use std::path::{Path, PathBuf};

use expect_test::expect_file;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/scripts")
}

/// Plays a script and gives its transcript.
fn play(name: &str) -> String {
    let path = folder().join(format!("{name}.script"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let script = script::parse(&text).unwrap_or_else(|error| panic!("{name}.script: {error}"));
    let mut transcript = String::new();
    kubevirt_tests::simulate(async { transcript = runner::run(&script).await });
    transcript
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        /// Every script has a test of its own.
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            let name = stringify!($name);
            expect_file![folder().join(format!("{name}.transcript"))].assert_eq(&play(name));
        })*
    };
}

scripts![
    aggregated_api,
    daemonset_all_at_once,
    daemonset_max_surge,
    daemonset_on_delete,
    daemonset_one_by_one,
    daemonset_ten_percent,
    deployment_recreate,
    deployment_rolling_update,
    eviction,
    namespace_deletion,
    node_not_ready,
    webhook,
];

#[test]
fn every_script_is_played() {
    let files = std::fs::read_dir(folder()).expect("the folder of scripts");
    let names =
        files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|it| it == "script"));
    let mut names: Vec<String> =
        names.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, SCRIPTS);
}

#[test]
fn a_script_repeats_itself() {
    assert_eq!(play("deployment_rolling_update"), play("deployment_rolling_update"));
}
