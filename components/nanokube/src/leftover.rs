//! Directories of process nodes that were killed: their pods' files, Secrets among them, are removed by the next run.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, getuid, test_kill_process};

const PREFIX: &str = "nanokube-";

/// Where a process keeps its pods' files unless it is told otherwise.
pub(crate) fn own(base: &Path) -> PathBuf {
    base.join(format!("{PREFIX}{}", std::process::id()))
}

/// Removes what this user's processes that are no more have left.
pub(crate) fn remove(base: &Path) {
    let entries = match std::fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(dir = %base.display(), %error, "not searched for what dead nodes left"),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<i32>().ok());
        let Some(pid) = id.and_then(Pid::from_raw) else { continue };
        // Not followed: a link that somebody put here leads elsewhere.
        let ours = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == getuid().as_raw());
        if !ours || is_alive(pid) {
            continue;
        }
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(dir = %entry.path().display(), %error, "what a dead node left was not removed");
        }
    }
}

fn is_alive(pid: Pid) -> bool {
    // Another user's process may not be asked, but it is one.
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_processes_go() {
        let base = std::env::temp_dir().join(format!("leftover-{}", std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        child.wait().expect("it ends");
        let dead = base.join(format!("{PREFIX}{}", child.id()));
        let others = [own(&base), base.join("nanokube-x"), base.join("else-1")];
        for dir in others.iter().chain([&dead]) {
            std::fs::create_dir_all(dir.join("pods")).expect("a directory");
        }
        remove(&base);
        assert!(!dead.exists());
        assert!(others.iter().all(|dir| dir.join("pods").exists()), "{others:?}");
        std::fs::remove_dir_all(&base).expect("removed");
    }
}
