//! The program as a process, in the pods that only bring images onto their node: without an account, an API server or a
//! setting.

use std::process::{Child, Command, Stdio};

use kubevirt_release::images::IDLE;
use tokio::time::{Duration, Instant};

/// Installing a signal handler takes milliseconds; on a busy machine perhaps a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(argument: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_virt-operator"))
        .arg(argument)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started")
}

/// Whether a process has a handler for SIGTERM.
fn heeds_sigterm(process: u32) -> bool {
    const SIGTERM: u32 = 15;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (SIGTERM - 1) & 1 == 1)
}

#[test]
fn idle_does_nothing_until_it_is_asked_to_end_and_ends_well() {
    let mut program = start(IDLE);
    let began = Instant::now();
    while !heeds_sigterm(program.id()) {
        assert_eq!(program.try_wait().expect("a child"), None, "it goes on by itself");
        assert!(began.elapsed() < PATIENCE, "it does not heed SIGTERM");
        std::thread::yield_now();
    }
    let asked = Command::new("kill").args(["-TERM", &program.id().to_string()]).status().expect("kill");
    assert!(asked.success());
    let ended = program.wait_with_output().expect("a child");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.is_empty(), "it has nothing to say: {ended:?}");
}

#[test]
fn who_asks_for_the_version_is_answered() {
    let ended = start("--version").wait_with_output().expect("a child");
    assert_eq!(ended.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&ended.stdout).starts_with("virt-operator "), "{ended:?}");
}
