//! A user who never stops asking while versions change: through virt-api's aggregated API, and through its webhooks by an
//! object that is judged but not stored. Both go by the API server over TLS to whichever pod of virt-api answers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

/// What is asked in turn; the second sends [`MACHINE`].
const AGGREGATED: &str = "/apis/subresources.kubevirt.io/v1/version";
const ADMITTED: &str = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances?dryRun=All";
const MACHINE: &str = r#"{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance","metadata":{"name":"asked-for"},
"spec":{"domain":{"devices":{},"resources":{"requests":{"memory":"64Mi"}}}}}"#;

/// Between two questions: several times a second, and most of the machine is left to the demo.
const PAUSE: Duration = Duration::from_millis(100);

/// One that is not answered by then has failed; ten times what the slowest took on a busy machine of two processors.
const PATIENCE: &str = "10s";

/// What became of the questions.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) asked: u32,
    /// Why questions failed, in order.
    pub(super) failed: Vec<String>,
    /// The longest time from an answer to the next one of the same kind.
    pub(super) longest_gap: Duration,
}

/// Asks until it is told to stop.
pub(super) struct Probe {
    stops: Arc<AtomicBool>,
    asking: JoinHandle<Result<Answers>>,
}

impl Probe {
    pub(super) fn start(kubeconfig: &Path) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let (kubeconfig, told) = (kubeconfig.to_path_buf(), Arc::clone(&stops));
        Self { stops, asking: std::thread::spawn(move || ask_on(&kubeconfig, &told)) }
    }

    /// Ends it; gives what it heard.
    pub(super) fn stop(self) -> Result<Answers> {
        self.stops.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow!("the probe panicked"))?
    }
}

fn ask_on(kubeconfig: &PathBuf, told_to_stop: &AtomicBool) -> Result<Answers> {
    let mut answers = Answers::default();
    let questions: [&[&str]; 2] = [&["get", "--raw", AGGREGATED], &["create", "--raw", ADMITTED, "-f", "-"]];
    let mut heard = [Instant::now(); 2];
    while !told_to_stop.load(Ordering::Relaxed) {
        for (question, heard) in questions.iter().zip(&mut heard) {
            answers.asked += 1;
            if let Some(why) = ask(kubeconfig, question)? {
                answers.failed.push(why);
                continue;
            }
            answers.longest_gap = answers.longest_gap.max(heard.elapsed());
            *heard = Instant::now();
        }
        std::thread::sleep(PAUSE);
    }
    // A kind of question that is never answered again has a gap up to the end.
    answers.longest_gap = heard.iter().map(Instant::elapsed).chain([answers.longest_gap]).max().unwrap_or_default();
    Ok(answers)
}

/// Asks once; why it failed, if it did.
fn ask(kubeconfig: &PathBuf, question: &[&str]) -> Result<Option<String>> {
    let mut command = Command::new("kubectl");
    command.env("KUBECONFIG", kubeconfig).arg(format!("--request-timeout={PATIENCE}")).args(question);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run kubectl for the probe")?;
    // One that ends without reading says why.
    let _ = child.stdin.take().expect("stdin was piped").write_all(MACHINE.as_bytes());
    let out = child.wait_with_output().context("wait for the probe's kubectl")?;
    let why = String::from_utf8_lossy(&out.stderr);
    Ok((!out.status.success()).then(|| format!("{}: {}", question.join(" "), why.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_nobody_answers_has_failed() {
        let dir = std::env::temp_dir().join(format!("probe-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let kubeconfig = dir.join("kubeconfig");
        // The port of nobody.
        let text = r#"{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
            "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}]}"#;
        std::fs::write(&kubeconfig, text).expect("a file");
        let why = ask(&kubeconfig, &["get", "--raw", AGGREGATED]).expect("kubectl runs");
        std::fs::remove_dir_all(&dir).expect("it was made");
        assert!(why.is_some_and(|why| why.contains("127.0.0.1:1")));
    }
}
