//! One child process: started in its pod's place, heard, asked to end, and never left behind.
//!
//! Two things see to the last: its process group is killed when its future is dropped, and the kernel kills it when this
//! process ends without dropping anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::process::place;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::log::{LINE_BYTES, Log};

/// What a container runtime reports for a program it cannot start.
const CANNOT_START: i32 = 128;
/// A termination message a program wrote itself is cut at this many bytes, as by a kubelet.
const MESSAGE_BYTES: usize = 4096;
/// How long the output of a program that has ended is still read: another process may hold its pipes.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);
/// Where programs look for other programs; a node's own search path is none of a pod's business.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: Option<String>,
}

/// What starting takes.
pub(crate) struct Start {
    pub(crate) setpriv: PathBuf,
    pub(crate) program: PathBuf,
    /// The command line, the program's name first.
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) root: PathBuf,
    pub(crate) address: IpAddr,
    pub(crate) api: (String, u16),
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Clock,
    /// Where the program may leave its termination message, inside the root.
    pub(crate) message_path: String,
    /// `FallbackToLogsOnError`: a failure without a message shows the end of the log.
    pub(crate) message_from_log: bool,
    pub(crate) stop: CancellationToken,
}

/// Kills the group when dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Err: all of it has ended.
        let _ = rustix::process::kill_process_group(self.0, Signal::KILL);
    }
}

/// The image holds one program; a command of another name is not in it.
fn check_command(program: &Path, command: &str) -> Result<(), String> {
    let own = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if command.rsplit('/').next() == Some(own) {
        return Ok(());
    }
    Err(format!("exec: \"{command}\": executable file not found in $PATH: this image holds {own} only"))
}

/// Runs the program to its end. SIGTERM when `stop` is cancelled; dropping the future is SIGKILL.
pub(crate) async fn run(start: Start) -> Exit {
    let log = start.log.clone();
    let exit = run_open(start).await;
    log.close();
    exit
}

async fn run_open(start: Start) -> Exit {
    let Start { setpriv, program, args, env, root, address, api, log, clock, message_path, message_from_log, stop } =
        start;
    let cannot = |message: String| Exit { code: CANNOT_START, reason: Some("StartError"), message: Some(message) };
    let command = args.first().map(String::as_str).unwrap_or_default();
    if let Err(message) = check_command(&program, command) {
        return cannot(message);
    }
    let message_file = root.join(message_path.trim_start_matches('/'));
    // Err: there is none, or no directory for one, which is what a program then finds out.
    let _ = std::fs::remove_file(&message_file);
    let _ = message_file.parent().map(std::fs::create_dir_all);
    let spawned = Command::new(&setpriv)
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&program)
        .args(&args[1..])
        .env_clear()
        .env("PATH", PATH)
        .env("KUBERNETES_SERVICE_HOST", &api.0)
        .env("KUBERNETES_SERVICE_PORT", api.1.to_string())
        .envs(env)
        .env(place::ROOT, &root)
        .env(place::ADDRESS, address.to_string())
        .current_dir(&root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C at the terminal of this program is not for the pods, which are stopped in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return cannot(format!("start {}: {error}", program.display())),
    };
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
        return cannot(format!("{} has no process id", program.display()));
    };
    let group = Group(pid);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        futures::join!(keep(out, &log, &clock), keep(err, &log, &clock));
    };
    let mut reading = std::pin::pin!(reading);
    let mut read = false;
    let mut asked = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = &mut reading, if !read => read = true,
            () = stop.cancelled(), if !asked => {
                asked = true;
                // Err: it has just ended by itself.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
        }
    };
    drop(group);
    if !read {
        // Err: what is still written comes from nobody of this container.
        let _ = tokio::time::timeout(LAST_WORDS, reading).await;
    }
    let code = match status {
        Ok(status) => code(status),
        Err(error) => return cannot(format!("wait for {}: {error}", program.display())),
    };
    let own = std::fs::read(&message_file).ok().filter(|text| !text.is_empty());
    let own = own.map(|text| String::from_utf8_lossy(&text[..text.len().min(MESSAGE_BYTES)]).into_owned());
    let message = own.or_else(|| if message_from_log && code != 0 { log.message() } else { None });
    Exit { code, reason: None, message }
}

/// A shell's code: a signal counts from 128.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(CANNOT_START)
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, log: &Log, clock: &Clock) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::with_capacity(LINE_BYTES, stream);
    let mut line = Vec::new();
    loop {
        let available = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(available) => available,
        };
        let end = available.iter().position(|byte| *byte == b'\n');
        let room = LINE_BYTES - line.len();
        let taken = end.unwrap_or(available.len()).min(room);
        line.extend_from_slice(&available[..taken]);
        let ended = end == Some(taken);
        reader.consume(taken + usize::from(ended));
        if ended || line.len() == LINE_BYTES {
            log.push(clock.now(), std::mem::take(&mut line));
        }
    }
    if !line.is_empty() {
        log.push(clock.now(), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that is a shell script, with a place to run in.
    fn script(name: &str, text: &str) -> Start {
        let root = std::env::temp_dir().join(format!("child-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a directory");
        Start {
            setpriv: "/usr/bin/setpriv".into(),
            program: "/bin/sh".into(),
            args: ["sh", "-c", text].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("WORD".to_owned(), "hello".to_owned())]),
            root,
            address: "127.9.9.9".parse().expect("an address"),
            api: ("127.0.0.1".to_owned(), 6443),
            log: Arc::new(Log::new()),
            clock: Clock::System,
            message_path: "/dev/termination-log".to_owned(),
            message_from_log: true,
            stop: CancellationToken::new(),
        }
    }

    fn text(log: &Log) -> String {
        String::from_utf8(super::super::log::render(&log.read(0).0, false)).expect("text")
    }

    #[tokio::test]
    async fn output_exit_code_and_message() {
        let start = script("exit", "echo $WORD $PROCESS_NODE_ADDRESS; echo why >&2; exit 7");
        let (log, root) = (start.log.clone(), start.root.clone());
        let exit = run(start).await;
        assert_eq!(exit.code, 7);
        let mut lines: Vec<String> = text(&log).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["hello 127.9.9.9", "why"]);
        assert!(exit.message.expect("the log's end").contains("why"));
        assert!(!log.read(0).2, "the log is closed");
        let own = run(script("exit", "echo -n mine > $PROCESS_NODE_ROOT/dev/termination-log; exit 1")).await;
        assert_eq!(own.message.as_deref(), Some("mine"));
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[tokio::test]
    async fn asked_to_end() {
        let start = script("term", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done");
        let (log, stop) = (start.log.clone(), start.stop.clone());
        let mut changed = log.subscribe();
        let running = tokio::spawn(run(start));
        changed.changed().await.expect("a line");
        stop.cancel();
        assert_eq!(running.await.expect("no panic").code, 3);
        assert_eq!(text(&log), "up\nbye\n");
    }

    #[tokio::test]
    async fn dropped_with_all_its_children() {
        let start = script("drop", "sleep 1000 & echo $!; wait");
        let log = start.log.clone();
        let mut changed = log.subscribe();
        let running = tokio::spawn(run(start));
        changed.changed().await.expect("a line");
        let grandchild: i32 = text(&log).trim().parse().expect("a process id");
        let grandchild = Pid::from_raw(grandchild).expect("a process id");
        assert!(rustix::process::test_kill_process(grandchild).is_ok());
        running.abort();
        assert!(running.await.is_err());
        // Its parent is gone, so init reaps it; until then it is a zombie.
        let gone = async {
            let file = format!("/proc/{}/stat", grandchild.as_raw_nonzero());
            while std::fs::read_to_string(&file).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("killed with its group");
    }

    #[tokio::test]
    async fn a_command_that_the_image_lacks() {
        let mut start = script("command", "true");
        start.args[0] = "/bin/launcher".to_owned();
        let exit = run(start).await;
        assert_eq!((exit.code, exit.reason), (128, Some("StartError")));
    }
}
