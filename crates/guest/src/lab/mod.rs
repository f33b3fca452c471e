//! Two pods on one network, between which a guest moves. Everything lives in namespaces of the calling process and ends
//! with it; nothing of the machine's own network or file system changes.
//!
//! The caller runs in network and mount namespaces of its own (`unshare --net --mount`), where the laboratory's bridge is.

pub mod dhcp;
pub mod heart;
pub mod relay;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kubevirt_hypervisor::supervisor::{Report, Settings};

use crate::rootfs::LAUNCHER_UID;
use crate::{Doing, Error, Result, create_dir, run, write};

/// The laboratory's own address: gateway, DHCP server and where heartbeats go.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// What the one guest gets.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 50);

const BRIDGE: &str = "lab0";
const POD: &str = include_str!("../../assets/pod.sh");

/// How long a pod's daemon may take to listen. It starts within a second; a machine busy with other builds may take its
/// time over loading QEMU's capabilities.
pub const POD_READY_WITHIN: Duration = Duration::from_secs(90);

/// How long the kernel and a shell may take over a pod's namespaces; a tenth of a second when nothing else runs.
const NAMESPACES_WITHIN: Duration = Duration::from_secs(20);

/// Between two looks at a pod that starts; short against the second that it takes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Builds the network.
///
/// # Errors
/// When not root or not in a network namespace of its own.
pub fn build_network() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
    ip(&["address", "add", &format!("{GATEWAY}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    // Answers to a guest without an address are broadcast.
    ip(&["route", "add", "255.255.255.255", "dev", BRIDGE])
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).map(drop)
}

/// Where a pod finds things, by its own paths.
pub mod inside {
    pub const PRIVATE: &str = "/run/private";
    pub const SHARED: &str = "/run/shared";
    pub const PROGRAMS: &str = "/opt/launcher";
}

/// One pod: a release's file system, private directories, a supervisor as its first process.
#[derive(Debug)]
pub struct Pod {
    pub name: String,
    /// The pod's private directory as seen from outside.
    pub private: PathBuf,
    runner: Child,
    /// The supervisor, by its number outside the pod.
    pub supervisor: u32,
    log: PathBuf,
}

impl Pod {
    /// Starts a pod and plugs it into the network.
    ///
    /// # Errors
    /// When the namespaces cannot be made.
    pub fn start(base: &Path, name: &str, rootfs: &Path, shared: &Path, programs: &Path) -> Result<Self> {
        let private = base.join(name);
        for directory in [private.clone(), private.join("disks")] {
            create_dir(&directory)?;
            own(&directory)?;
        }
        let script = base.join("pod.sh");
        write(&script, POD.as_bytes())?;
        let log = base.join(format!("{name}.log"));
        let doing = || format!("cannot start pod {name}");
        let output = File::create(&log).doing(doing)?;
        let errors = output.try_clone().doing(doing)?;
        let runner = Command::new("unshare")
            .args(["--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg("sh")
            .arg(&script)
            .args([rootfs, &private, shared, programs])
            .arg(LAUNCHER_UID.to_string())
            .arg(format!("{}/libvirt-supervisor", inside::PROGRAMS))
            .arg(inside::PRIVATE)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .doing(doing)?;
        let mut pod = Self { name: name.to_owned(), private, runner, supervisor: 0, log };
        pod.supervisor = pod.wait_for(NAMESPACES_WITHIN, "its first process", |pod| {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pod.runner.id())).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })?;
        let plug = format!("v-{name}");
        let process = pod.supervisor.to_string();
        ip(&["link", "add", &plug, "type", "veth", "peer", "name", "eth0", "netns", &process])?;
        ip(&["link", "set", &plug, "master", BRIDGE, "up"])?;
        // The pod's own bridge appears a moment after its first process.
        pod.wait_for(NAMESPACES_WITHIN, "its network", |_| {
            let mut command = Command::new("nsenter");
            command.args(["--target", &process, "--net", "ip", "link", "set", "eth0", "master", "br0", "up"]);
            run(&mut command).ok()
        })?;
        pod.wait_for(POD_READY_WITHIN, "its libvirt daemon", |pod| {
            std::os::unix::net::UnixStream::connect(pod.socket()).ok()
        })?;
        Ok(pod)
    }

    fn wait_for<T>(&mut self, bound: Duration, what: &str, f: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let started = tokio::time::Instant::now();
        loop {
            if let Some(value) = f(self) {
                return Ok(value);
            }
            let ended = self.runner.try_wait().ok().flatten();
            if ended.is_some() || started.elapsed() > bound {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let name = &self.name;
                return Err(Error::Other(format!(
                    "pod {name} did not get {what} ({ended:?}, {bound:?}); it says:\n{log}"
                )));
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "a pause between two looks at a condition, before any runtime"
            )]
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The libvirt daemon's socket.
    pub fn socket(&self) -> PathBuf {
        Settings::socket(&self.private)
    }

    /// A path inside the pod, seen from outside.
    pub fn outside(&self, inside: &str) -> PathBuf {
        let relative = inside.strip_prefix(inside::PRIVATE).unwrap_or(inside);
        self.private.join(relative.trim_start_matches('/'))
    }

    /// What the supervisor has reported so far.
    pub fn reports(&self) -> Vec<Report> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Everything the pod's processes wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What a guest's QEMU and libvirt's driver wrote about it, without the command lines it was started with.
    pub fn emulator_says(&self, guest: &str) -> String {
        let log = std::fs::read_to_string(self.outside(&format!("/cache/libvirt/qemu/log/{guest}.log")));
        let said = log.unwrap_or_default();
        said.lines()
            .filter(|line| !line.ends_with('\\') && !line.starts_with('-'))
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// The pod's processes whose command line begins with `program`, by their numbers outside.
    pub fn processes(&self, program: &str) -> Vec<u32> {
        let namespace = |process: u32| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let Some(ours) = namespace(self.supervisor) else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let mut found: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|process| namespace(*process).as_ref() == Some(&ours))
            .filter(|process| {
                let command = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
                command.split(|byte| *byte == 0).next().is_some_and(|first| first == program.as_bytes())
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// SIGKILL for every process of `program`.
    pub fn kill(&self, program: &str) -> usize {
        let victims = self.processes(program);
        for victim in &victims {
            // It may have ended by itself.
            let _ = run(Command::new("kill").args(["-KILL", &victim.to_string()]));
        }
        victims.len()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The runner takes the pod's first process with it, and that one everything in the pod.
        let _ = self.runner.kill();
        let _ = self.runner.wait();
    }
}

/// Gives a path to the launcher's user.
pub(crate) fn own(path: &Path) -> Result<()> {
    std::os::unix::fs::chown(path, Some(LAUNCHER_UID), Some(LAUNCHER_UID))
        .doing(|| format!("cannot give {} to the launcher", path.display()))
}

/// Resident memory of a process in KiB.
pub fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
