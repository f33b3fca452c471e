//! The model on the suite: every case, each on a universe that earlier cases have used.

use std::sync::Mutex;

use futures::FutureExt;
use uuid::Uuid;

use super::*;
use crate::domain::{Accelerator, Cpu, CpuModel, OnCrash, Serial};
use crate::hypervisor::Capabilities;
use crate::model::{Physics, Universe};

struct ModelStage {
    universe: Universe,
    /// A cut link mends when released.
    cut: Mutex<bool>,
}

fn host(place: Place) -> &'static str {
    match place {
        Place::Old => "old",
        Place::New => "new",
    }
}

const GUEST: &str = "default_t1";

/// Hosts share no guest of one name, unless it moves.
fn probe(place: Place) -> String {
    format!("default_probe-{}", host(place))
}

pub(crate) fn machine(name: &str, memory_kib: u64) -> Domain {
    Domain {
        name: name.to_owned(),
        uuid: Uuid::from_u128(u128::from(memory_kib)),
        accelerator: Accelerator::Emulation,
        memory_kib,
        vcpus: 1,
        machine: "pc-q35-7.2".to_owned(),
        smbios: None,
        cpu: Cpu { model: CpuModel::Named("qemu64".to_owned()), topology: None, features: Vec::new() },
        on_crash: OnCrash::Destroy,
        disks: Vec::new(),
        interfaces: Vec::new(),
        serial: Some(Serial { socket: "/serial0".to_owned(), log: None }),
        vnc: None,
        agent: None,
        rng: true,
        balloon: None,
        watchdog: None,
        tablet: false,
        metadata: None,
    }
}

impl ModelStage {
    fn new() -> Self {
        let universe = Universe::new(Physics::default());
        for (name, libvirt, qemu) in [("old", "9.0.0", "7.2.22"), ("new", "11.3.0", "10.0.13")] {
            let machines = vec!["pc-q35-7.2".to_owned()];
            let (libvirt, qemu) = (libvirt.to_owned(), qemu.to_owned());
            universe.add_host(name, Capabilities { libvirt, qemu, machines, kvm: true });
        }
        // It is a virtual machine itself.
        universe.set_kvm_works("old", false);
        for place in [Place::Old, Place::New] {
            universe.switches_itself_off(&probe(place));
        }
        Self { universe, cut: Mutex::new(false) }
    }
}

impl Stage for ModelStage {
    fn connect(&self, place: Place) -> Arc<dyn Hypervisor> {
        Arc::new(self.universe.connect(host(place)))
    }

    fn guest(&self) -> Domain {
        machine(GUEST, 262_144)
    }

    fn empty_guest(&self) -> Domain {
        machine("default_empty", 1024)
    }

    fn probe_guest(&self, place: Place) -> BoxFuture<'_, Result<Domain, String>> {
        futures::future::ready(Ok(machine(&probe(place), 65_536))).boxed()
    }

    fn has_kvm(&self, place: Place) -> Option<bool> {
        Some(place == Place::New)
    }

    fn prepare(&self, _: Place) -> BoxFuture<'_, Result<(), String>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn route(&self, from: Place) -> BoxFuture<'_, Result<Migration, String>> {
        let peer = host(from.other()).to_owned();
        futures::future::ready(Ok(Migration { peer, ..Migration::default() })).boxed()
    }

    fn reach(&self, from: Place, phase: Phase) -> BoxFuture<'static, ()> {
        let universe = self.universe.clone();
        async move { universe.until(|universe| universe.phase(host(from), GUEST) == Some(phase)).await }.boxed()
    }

    fn depart(&self, from: Place, how: Migration) -> Result<Box<dyn Send + Sync>, String> {
        struct Process(tokio::task::JoinHandle<()>);
        impl Drop for Process {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let client = self.connect(from);
        Ok(Box::new(Process(tokio::spawn(async move {
            let _ = client.migrate(GUEST, &how).await;
        }))))
    }

    fn strike(&self, from: Place, fault: Fault) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let target = host(from.other());
            match fault {
                Fault::Abort => {}
                Fault::SourceDaemon => self.universe.kill_daemon(host(from)),
                Fault::TargetDaemon => self.universe.kill_daemon(target),
                Fault::TargetProcess => {
                    // The migration was asked for a moment ago.
                    let there = self.universe.until(|universe| universe.has_process(target, GUEST));
                    let nobody = |_| format!("{target} has no process to kill");
                    tokio::time::timeout(ANSWERS_WITHIN, there).await.map_err(nobody)?;
                    self.universe.kill_process(target, GUEST);
                }
                Fault::Cut => {
                    self.universe.set_link(false);
                    *self.cut.lock().unwrap() = true;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        async move {
            if std::mem::take(&mut *self.cut.lock().unwrap()) {
                // Whoever used the link notices before it is back.
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.universe.set_link(true);
            }
        }
        .boxed()
    }

    fn beats(&self, more: u64, bound: Duration) -> BoxFuture<'_, bool> {
        async move {
            let wanted = self.heard() + more;
            let heard = async {
                while self.heard() < wanted {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::time::timeout(bound, heard).await.is_ok()
        }
        .boxed()
    }

    fn heard(&self) -> u64 {
        self.universe.beats(GUEST)
    }

    fn processes(&self, place: Place, guest: &str) -> usize {
        usize::from(self.universe.has_process(host(place), guest))
    }

    fn harm(&self) -> Option<String> {
        self.universe.ran_twice().then(|| "two copies of the guest ran at once".to_owned())
    }

    fn writes(&self) -> BoxFuture<'_, Result<(), String>> {
        let survived = self.universe.write(GUEST);
        futures::future::ready(survived.then_some(()).ok_or_else(|| "it ran without its disks".to_owned())).boxed()
    }

    fn busy(&self, on: bool) -> BoxFuture<'_, Result<(), String>> {
        let calm = Physics::default();
        let busy = Physics { dirty_rate: 200 << 20, hot_set: 48 << 20, ..calm };
        self.universe.set_physics(if on { busy } else { calm });
        futures::future::ready(Ok(())).boxed()
    }

    fn slow_link(&self) -> u64 {
        20
    }

    fn note(&self, _: &str) {}
}

#[tokio::test(start_paused = true)]
async fn the_model_passes_every_case() {
    let (mut failures, mut played) = (Vec::new(), 0);
    for part in Part::ALL {
        let stage = ModelStage::new();
        for case in part.cases() {
            played += 1;
            if let Err(why) = case.run(&stage).await {
                failures.push(format!("{}: {why}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {played} cases failed:\n{}", failures.len(), failures.join("\n"));
}
