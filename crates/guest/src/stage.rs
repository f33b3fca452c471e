//! The suite's stage with real guests: two pods, libvirt in each, one guest between them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kubevirt_hypervisor::domain::{
    Accelerator, Balloon, Bus, Cache, Cpu, CpuModel, Disk, Domain, Format, Interface, Medium, Metadata, OnCrash,
    Serial, Source, WatchdogAction,
};
use kubevirt_hypervisor::hypervisor::{Change, Event, Hypervisor, Migration, Pause};
use kubevirt_hypervisor::libvirt::Libvirt;
use kubevirt_hypervisor::suite::{ANSWERS_WITHIN, Fault, Phase, Place, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::lab::heart::Heart;
use crate::lab::relay::{Relay, Route};
use crate::lab::{Pod, build_network, dhcp, inside, own};
use crate::seed::{Convention, Seed};
use crate::{Doing, Error, Result, create_dir, run};

/// The guest's name in libvirt.
pub const GUEST: &str = "default_t1";
/// A guest that shows that guests run.
const PROBE: &str = "default_probe";
const DAEMON: &str = "/usr/sbin/libvirtd";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const MEMORY_KIB: u64 = 192 * 1024;
/// Of the guest went through before a fault counts as being in the middle.
const MIDDLE: u64 = 8 << 20;
/// How long the guest may take to answer on its console; it may be slowed down to a hundredth.
const CONSOLE_WITHIN: Duration = Duration::from_secs(120);

/// A console silent for this long has lost what was typed: its login began anew. An answer takes a tenth of a second.
const NUDGE_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at something that does not announce itself.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long the target's daemon may take from the first connection to starting QEMU.
const VICTIM_WITHIN: Duration = Duration::from_secs(10);

/// Runs in the guest: on demand it writes the same 12 MiB over and over.
const USER_DATA: &str = "#!/bin/sh
mkdir -p /busy && mount -t tmpfs -o size=48m tmpfs /busy
dd if=/dev/urandom of=/busy/a bs=1M count=12
cp /busy/a /busy/b
while :; do
    if [ -e /run/busy ]; then dd if=/busy/a of=/busy/b bs=64k conv=notrunc; else sleep 0.5; fi
done
";

/// Runs in the probe guest: it was booted, more is not asked of it.
const PROBE_DATA: &str = "#!/bin/sh
poweroff -f
";

/// Where everything on this machine is.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Short, because socket paths are; gone afterwards.
    pub base: PathBuf,
    pub old: PathBuf,
    pub new: PathBuf,
    pub guest: PathBuf,
    /// Holds `libvirt-supervisor` and this very program.
    pub programs: PathBuf,
}

/// The laboratory with everything in it.
pub struct RealStage {
    pub old: Pod,
    pub new: Pod,
    pub heart: Heart,
    /// Clients that watch events, one for each pod.
    watchers: [Libvirt; 2],
    relay: Mutex<Option<Arc<Relay>>>,
    shared: PathBuf,
    notes: Mutex<Vec<String>>,
}

impl RealStage {
    /// Builds the network, starts both pods. Must run in namespaces of its own.
    ///
    /// # Errors
    /// When a pod does not come up; the text holds its log.
    pub async fn start(paths: &Paths) -> Result<Self> {
        build_network()?;
        let heart = Heart::listen().await.doing(|| "cannot listen for heartbeats".to_owned())?;
        tokio::spawn(dhcp::serve());
        let shared = paths.base.join("shared");
        let images = shared.join("images");
        create_dir(&images)?;
        std::fs::copy(&paths.guest, images.join("guest.img")).doing(|| "cannot copy the guest's disk".to_owned())?;
        let start = |name: &'static str, rootfs: &Path| {
            let (base, rootfs, shared, programs) =
                (paths.base.clone(), rootfs.to_owned(), shared.clone(), paths.programs.clone());
            tokio::task::spawn_blocking(move || Pod::start(&base, name, &rootfs, &shared, &programs))
        };
        let (old, new) = (start("old", &paths.old), start("new", &paths.new));
        let pod = |joined: std::result::Result<Result<Pod>, tokio::task::JoinError>| {
            joined.unwrap_or_else(|error| Err(Error::Other(error.to_string())))
        };
        let (old, new) = (pod(old.await)?, pod(new.await)?);
        let watchers = [&old, &new].map(|pod| Libvirt::new(&pod.socket().to_string_lossy()));
        Ok(Self { old, new, heart, watchers, relay: Mutex::default(), shared, notes: Mutex::default() })
    }

    pub fn pod(&self, place: Place) -> &Pod {
        match place {
            Place::Old => &self.old,
            Place::New => &self.new,
        }
    }

    /// A client that lives as long as the stage.
    pub fn watcher(&self, place: Place) -> &Libvirt {
        match place {
            Place::Old => &self.watchers[0],
            Place::New => &self.watchers[1],
        }
    }

    /// Where the guest has a process.
    pub fn place(&self) -> Option<Place> {
        [Place::Old, Place::New].into_iter().find(|place| self.processes(*place, GUEST) > 0)
    }

    /// What was worth knowing since it was last asked for.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().expect("no code under this lock panics"))
    }

    fn relay(&self) -> Option<Arc<Relay>> {
        self.relay.lock().expect("no code under this lock panics").clone()
    }

    /// A fresh overlay over the shared image.
    fn make_overlay(&self, place: Place, name: &str) -> Result<()> {
        let overlay = self.pod(place).private.join("disks").join(name);
        let _ = std::fs::remove_file(&overlay);
        // The backing file's path means something inside the pod only, so nobody looks for it here.
        run(Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b"])
            .arg(format!("{}/images/guest.img", inside::SHARED))
            .arg(&overlay)
            .arg(std::fs::metadata(self.shared.join("images/guest.img")).map_or(0, |image| image.len()).to_string()))?;
        own(&overlay)
    }

    /// Fresh disks in a pod: an overlay over the shared image, and both seeds.
    fn make_disks(&self, place: Place) -> Result<()> {
        let disks = self.pod(place).private.join("disks");
        self.make_overlay(place, "root.qcow2")?;
        let seed = Seed {
            instance_id: GUEST.to_owned(),
            hostname: "t1".to_owned(),
            user_data: USER_DATA.to_owned(),
            ..Seed::default()
        };
        let no_cloud = disks.join("seed.iso");
        let config_drive = disks.join("config.iso");
        seed.write(Convention::NoCloud, &no_cloud)?;
        seed.write(Convention::ConfigDrive, &config_drive)?;
        for path in [&no_cloud, &config_drive] {
            own(path)?;
        }
        Ok(())
    }

    /// The probe guest's disks in a pod.
    fn make_probe(&self, place: Place) -> Result<()> {
        self.make_overlay(place, "probe.qcow2")?;
        let path = self.pod(place).private.join("disks/probe.iso");
        let seed = Seed {
            instance_id: PROBE.to_owned(),
            hostname: "probe".to_owned(),
            user_data: PROBE_DATA.to_owned(),
            ..Seed::default()
        };
        seed.write(Convention::NoCloud, &path)?;
        own(&path)
    }

    async fn make_route(&self, from: Place) -> Result<Migration> {
        for watcher in &self.watchers {
            let answers = async {
                while watcher.list().await.is_err() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            tokio::time::timeout(ANSWERS_WITHIN, answers)
                .await
                .map_err(|_| Error::Other("a pod's daemon does not answer".to_owned()))?;
        }
        self.make_disks(from.other())?;
        let (source, target) = (self.pod(from), self.pod(from.other()));
        let path = |name: &str| format!("{}/migration/{name}.sock", inside::PRIVATE);
        let route = |name: &str| Route {
            listen: source.outside(&path(name)),
            connect: target.outside(&path(name)),
            is_control: false,
        };
        let control = Route { connect: target.socket(), is_control: true, ..route("control") };
        // The old one stops listening before the new one takes its sockets' places.
        drop(self.relay.lock().expect("no code under this lock panics").take());
        let relay = Relay::start(vec![control, route("memory"), route("disks")])?;
        *self.relay.lock().expect("no code under this lock panics") = Some(Arc::new(relay));
        Ok(Migration {
            peer: path("control"),
            memory: path("memory"),
            disks_socket: path("disks"),
            copy_disks: vec!["vda".to_owned()],
            ..Migration::default()
        })
    }

    /// Runs a command on the guest's serial console and returns what it printed.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub async fn console(&self, command: &str) -> Result<String> {
        let place = self.place().ok_or_else(|| Error::Other("the guest has no process".to_owned()))?;
        let path = self.pod(place).outside("/serial0.sock");
        let talk = async {
            let doing = || "the guest's console".to_owned();
            let mut stream = UnixStream::connect(&path).await.doing(doing)?;
            let mut heard = String::new();
            // What stands between the marks is the answer; the echo of the command itself has quotes in it.
            let line = format!("echo BE''GIN; {command}; echo E''ND\n");
            stream.write_all(b"\n").await.doing(doing)?;
            let mut asked = false;
            let mut seen = 0;
            loop {
                let mut buffer = [0; 4096];
                let length = match tokio::time::timeout(NUDGE_AFTER, stream.read(&mut buffer)).await {
                    Ok(read) => read.doing(doing)?,
                    Err(_) => {
                        // The login may have just begun again, and missed what was typed.
                        stream.write_all(b"\n").await.doing(doing)?;
                        asked = false;
                        continue;
                    }
                };
                if length == 0 {
                    return Err(Error::Other("the console closed".to_owned()));
                }
                heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
                let news = &heard[seen..];
                if let Some((_, rest)) = heard.split_once("BEGIN\r\n")
                    && let Some((answer, _)) = rest.split_once("END\r\n")
                {
                    return Ok(answer.replace('\r', ""));
                }
                if news.ends_with("login: ") {
                    seen = heard.len();
                    stream.write_all(b"root\n").await.doing(doing)?;
                } else if news.trim_end_matches("\u{1b}[6n").ends_with("# ") && !asked {
                    seen = heard.len();
                    asked = true;
                    stream.write_all(line.as_bytes()).await.doing(doing)?;
                }
            }
        };
        tokio::time::timeout(CONSOLE_WITHIN, talk).await.unwrap_or_else(|_| {
            Err(Error::Other(format!("the guest did not answer `{command}` in {CONSOLE_WITHIN:?}")))
        })
    }
}

/// A read-only disk of the pod.
fn disk(name: &str, target: &str, file: &str) -> Disk {
    Disk {
        name: name.to_owned(),
        medium: Medium::Disk,
        bus: Bus::Virtio,
        target: target.to_owned(),
        source: Source::File(format!("{}/disks/{file}", inside::PRIVATE)),
        format: Format::Raw,
        cache: Cache::Writethrough,
        read_only: true,
        boot_order: None,
    }
}

/// What a guest boots from.
fn root(file: &str) -> Disk {
    Disk { format: Format::Qcow2, read_only: false, boot_order: Some(1), ..disk("root", "vda", file) }
}

/// The guest with a beating heart.
pub fn guest() -> Domain {
    Domain {
        disks: vec![
            root("root.qcow2"),
            disk("seed", "vdb", "seed.iso"),
            Disk { medium: Medium::CdRom, bus: Bus::Sata, ..disk("config", "sda", "config.iso") },
        ],
        interfaces: vec![Interface {
            name: "default".to_owned(),
            mac: "02:00:00:12:34:56".to_owned(),
            tap: "tap0".to_owned(),
            mtu: None,
        }],
        serial: Some(Serial {
            socket: format!("{}/serial0.sock", inside::PRIVATE),
            log: Some(format!("{}/serial0.log", inside::PRIVATE)),
        }),
        vnc: Some(format!("{}/vnc.sock", inside::PRIVATE)),
        agent: Some(format!("{}/agent.sock", inside::PRIVATE)),
        balloon: Some(Balloon { stats_period: 10, free_page_reporting: true }),
        watchdog: Some(WatchdogAction::Reset),
        tablet: true,
        metadata: Some(Metadata { uid: "0b7c2f1e".to_owned(), grace_period_seconds: Some(30) }),
        ..bare(GUEST, MEMORY_KIB, 1)
    }
}

fn bare(name: &str, memory_kib: u64, number: u128) -> Domain {
    Domain {
        name: name.to_owned(),
        uuid: kubevirt_hypervisor::domain::Domain::uuid_from(number),
        accelerator: Accelerator::Emulation,
        memory_kib,
        vcpus: 1,
        // Both releases have it.
        machine: "pc-q35-7.2".to_owned(),
        smbios: None,
        cpu: Cpu { model: CpuModel::Named("qemu64".to_owned()), topology: None, features: Vec::new() },
        on_crash: OnCrash::Destroy,
        disks: Vec::new(),
        interfaces: Vec::new(),
        serial: None,
        vnc: None,
        agent: None,
        rng: true,
        balloon: None,
        watchdog: None,
        tablet: false,
        metadata: None,
    }
}

/// Another process that asked for a migration.
struct Elsewhere(Child);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage for RealStage {
    fn connect(&self, place: Place) -> Arc<dyn Hypervisor> {
        Arc::new(Libvirt::new(&self.pod(place).socket().to_string_lossy()))
    }

    fn guest(&self) -> Domain {
        guest()
    }

    fn empty_guest(&self) -> Domain {
        bare("default_empty", 1024, 2)
    }

    fn probe_guest(&self, place: Place) -> BoxFuture<'_, std::result::Result<Domain, String>> {
        async move {
            self.make_probe(place).map_err(|error| error.to_string())?;
            let disks = vec![root("probe.qcow2"), disk("seed", "vdb", "probe.iso")];
            Ok(Domain { disks, ..bare(PROBE, MEMORY_KIB, 3) })
        }
        .boxed()
    }

    fn has_kvm(&self, _: Place) -> Option<bool> {
        // That is the question.
        None
    }

    fn prepare(&self, place: Place) -> BoxFuture<'_, std::result::Result<(), String>> {
        async move {
            self.heart.listen_anew();
            self.make_disks(place).map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn route(&self, from: Place) -> BoxFuture<'_, std::result::Result<Migration, String>> {
        async move { self.make_route(from).await.map_err(|error| error.to_string()) }.boxed()
    }

    fn reach(&self, from: Place, phase: Phase) -> BoxFuture<'static, ()> {
        let Some(relay) = self.relay() else { return futures::future::pending().boxed() };
        let mut here = self.watcher(from).events();
        let mut there = self.watcher(from.other()).events();
        let is = |wanted: Change| {
            let wanted = Event::Domain { name: GUEST.to_owned(), change: wanted };
            move |event: &Event| *event == wanted
        };
        async move {
            match phase {
                Phase::Prepare => relay.connected().await,
                Phase::Perform => relay.carried(MIDDLE).await,
                Phase::SwitchOver | Phase::Finish => {
                    let suspended = is(Change::Suspended(Pause::Migration));
                    while here.recv().await.is_some_and(|event| !suspended(&event)) {}
                    // From here on the source cannot learn what the target answers, so it stays in its phase.
                    relay.hold_answers(true);
                    if phase == Phase::Finish {
                        let arrived = is(Change::Suspended(Pause::User));
                        while there.recv().await.is_some_and(|event| !arrived(&event)) {}
                    }
                }
            }
        }
        .boxed()
    }

    fn depart(&self, from: Place, how: Migration) -> std::result::Result<Box<dyn Send + Sync>, String> {
        let how = serde_json::to_string(&how).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .arg("migrate")
            .arg("--socket")
            .arg(self.pod(from).socket())
            .args(["--how", &how])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Box::new(Elsewhere(child)))
    }

    fn strike(&self, from: Place, fault: Fault) -> BoxFuture<'_, std::result::Result<(), String>> {
        let (place, program) = match fault {
            Fault::Abort => return futures::future::ready(Ok(())).boxed(),
            Fault::SourceDaemon => (from, DAEMON),
            Fault::TargetDaemon => (from.other(), DAEMON),
            Fault::TargetProcess => (from.other(), QEMU),
            Fault::Cut => {
                let relay = self.relay().ok_or_else(|| "there is no connection to cut".to_owned());
                return futures::future::ready(relay.map(|relay| relay.cut())).boxed();
            }
        };
        async move {
            // The daemons have just connected: the process that is to be killed may be about to start.
            let killed = async {
                while self.pod(place).kill(program) == 0 {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            let nobody = |_| format!("no {program} was there to be killed");
            tokio::time::timeout(VICTIM_WITHIN, killed).await.map_err(nobody)
        }
        .boxed()
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        if let Some(relay) = self.relay() {
            relay.hold_answers(false);
        }
        futures::future::ready(()).boxed()
    }

    fn beats(&self, more: u64, bound: Duration) -> BoxFuture<'_, bool> {
        self.heart.wait(more, bound).boxed()
    }

    fn heard(&self) -> u64 {
        self.heart.count()
    }

    fn processes(&self, place: Place, guest: &str) -> usize {
        let pod = self.pod(place);
        let mark = format!("guest={guest},");
        let is_guest = |process: &u32| {
            let command = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&mark)
        };
        pod.processes(QEMU).iter().filter(|process| is_guest(process)).count()
    }

    fn harm(&self) -> Option<String> {
        self.heart.take_harm().map(|pulse| format!("the guest suffered: {pulse:?}"))
    }

    fn writes(&self) -> BoxFuture<'_, std::result::Result<(), String>> {
        // The end of the boot disk, where its file system has nothing.
        let command = "dd if=/dev/urandom of=/dev/vda bs=4k seek=6000 count=16 conv=notrunc,fsync && echo written";
        async move {
            let answer = self.console(command).await.map_err(|error| error.to_string())?;
            answer.contains("written\n").then_some(()).ok_or(answer)
        }
        .boxed()
    }

    fn busy(&self, on: bool) -> BoxFuture<'_, std::result::Result<(), String>> {
        async move {
            let command = if on { "touch /run/busy" } else { "rm -f /run/busy" };
            self.console(command).await.map(drop).map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn slow_link(&self) -> u64 {
        24
    }

    fn note(&self, text: &str) {
        self.notes.lock().expect("no code under this lock panics").push(text.to_owned());
    }
}
