//! The `nanokube` program as a child process that ends with the demo.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Options;
use crate::{paths, term};

pub(super) struct Server {
    child: Child,
    pub(super) kubeconfig: PathBuf,
    pub(super) audit_log: PathBuf,
}

impl Server {
    /// Starts `nanokube up` and returns when it serves.
    pub(super) fn start(scratch: &Path, options: &Options) -> Result<Self> {
        let (kubeconfig, audit_log) = (scratch.join("kubeconfig"), scratch.join("audit.log"));
        let program = paths::target()?.join("debug").join("nanokube");
        let mut command = Command::new(&program);
        command.args(["up", "--simulated", "--nodes", &options.nodes.to_string(), "--seed", &options.seed.to_string()]);
        command.arg("--kubeconfig").arg(&kubeconfig).arg("--audit-log").arg(&audit_log);
        term::command(&format!(
            "nanokube up --simulated --nodes {} --kubeconfig {} --audit-log {}",
            options.nodes,
            kubeconfig.display(),
            audit_log.display()
        ));
        let log = std::fs::File::create(scratch.join("nanokube.log")).context("create nanokube.log")?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = child.stdout.take().expect("stdout was piped");
        // nanokube says `ready ...` once it serves, and nothing else on standard output before that.
        let mut lines = BufReader::new(stdout).lines();
        match lines.next() {
            Some(Ok(line)) if line.starts_with("ready") => {
                term::output(&line);
                // Keep reading, or the child blocks when the pipe is full.
                std::thread::spawn(move || lines.for_each(drop));
                Ok(Self { child, kubeconfig, audit_log })
            }
            other => {
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "nanokube did not become ready ({other:?}); its log is {}",
                    scratch.join("nanokube.log").display()
                );
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
