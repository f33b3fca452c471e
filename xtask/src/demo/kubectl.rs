//! Runs the real `kubectl`, shows what was typed and what it printed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::STEP_TIMEOUT;
use crate::term::{self, Progress};

pub(super) struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(super) fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_path_buf() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// Runs and returns what was printed.
    fn run(&self, args: &[&str]) -> Result<String> {
        let out = self.command(args).output().with_context(|| format!("run kubectl {}", args.join(" ")))?;
        let error = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "kubectl {} failed: {}", args.join(" "), error.trim());
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Runs and shows the command with its output.
    pub(super) fn show(&self, args: &[&str]) -> Result<()> {
        let quoted: Vec<String> = args
            .iter()
            .map(|arg| if arg.contains(['{', ' ']) { format!("'{arg}'") } else { (*arg).to_owned() })
            .collect();
        term::command(&format!("kubectl {}", quoted.join(" ")));
        term::output(&self.run(args)?);
        Ok(())
    }

    pub(super) fn show_pods(&self) -> Result<()> {
        self.show(&["get", "pods", "-n", "kubevirt"])
    }

    pub(super) fn apply(&self, manifest: &Path) -> Result<()> {
        self.show(&["apply", "-f", &manifest.to_string_lossy()])
    }

    pub(super) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {} printed no JSON", args.join(" ")))
    }

    pub(super) fn patch_tag(&self, version: &str) -> Result<()> {
        let patch = format!(r#"{{"spec":{{"imageTag":"{version}"}}}}"#);
        self.show(&["patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type", "merge", "-p", &patch])
    }

    /// `kubectl wait` in the suite's namespace, with a progress display.
    pub(super) fn wait(&self, what: &[&str], message: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", STEP_TIMEOUT.as_secs());
        let args = [&["wait", "-n", "kubevirt"], what, &[timeout.as_str()]].concat();
        let _progress = Progress::start(message);
        self.show(&args)
    }

    pub(super) fn wait_for_version(&self, field: &str, version: &str, message: &str) -> Result<()> {
        self.wait(&["kubevirt/kubevirt", &format!("--for=jsonpath={{.status.{field}}}={version}")], message)
    }

    pub(super) fn rollout(&self, workload: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", STEP_TIMEOUT.as_secs());
        self.show(&["rollout", "status", workload, "-n", "kubevirt", &timeout])
    }

    /// Follows the custom resource until the version is observed and nothing progresses; shows each report on the way.
    pub(super) fn wait_until_upgraded(&self, version: &str, timeout: Duration) -> Result<()> {
        const REPORT: &str = "jsonpath={.status.observedKubeVirtVersion} {.status.conditions[?(@.type==\"Progressing\")].status} \
                              {.status.conditions[?(@.type==\"Progressing\")].message}{\"\\n\"}";
        let args = ["get", "kubevirt", "kubevirt", "-n", "kubevirt", "-w", "-o", REPORT];
        term::command(&format!("kubectl {} '{REPORT}'", args[..7].join(" ")));
        let mut child = self.command(&args).stdout(Stdio::piped()).spawn().context("run kubectl get -w")?;
        let stdout = child.stdout.take().expect("stdout was piped");
        let started = Instant::now();
        let (lines, incoming) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut progress = Progress::start("waiting for the operator");
        let mut last = String::new();
        let upgraded = loop {
            let Some(left) = timeout.checked_sub(started.elapsed()) else { break false };
            let Ok(line) = incoming.recv_timeout(left) else { break false };
            let mut words = line.splitn(3, ' ');
            let (observed, progressing) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            // The state from before the patch is still "nothing progresses", at the old version.
            if progressing == "True" || observed == version {
                // The report names every pod it waits for; the first thing is enough to follow along.
                let shown: Vec<&str> = line.split("; ").take(2).collect();
                progress.say(&shown.join("; "));
            }
            last = line.clone();
            if observed == version && progressing == "False" {
                break true;
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        ensure!(upgraded, "{version} was not reached within {} s; last said: {last}", timeout.as_secs());
        Ok(())
    }

    /// The version each pod of the suite runs, by the annotation that proves it.
    pub(super) fn suite_versions(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.json(&["get", "pods", "-n", "kubevirt"])?;
        let mut versions = BTreeMap::new();
        for pod in pods["items"].as_array().context("kubectl printed no list of pods")? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if !name.starts_with("virt-operator-") {
                let version = pod["metadata"]["annotations"]["kubevirt.io/install-strategy-version"].as_str();
                versions.insert(name.to_owned(), version.unwrap_or("none").to_owned());
            }
        }
        Ok(versions)
    }
}
