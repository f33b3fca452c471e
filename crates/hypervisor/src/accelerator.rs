//! Chooses who executes guests' instructions on a host. A device file and a daemon that offers hardware virtualization say
//! little: a host that is itself a virtual machine may open the device, run firmware, and hang at the first instructions of
//! a kernel. So a probe guest decides, an ordinary one that boots and switches itself off.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Accelerator, Domain};
use crate::hypervisor::{Change, Error, Event, Hypervisor, Result, Start, State, Stop};

/// How long a probe guest may take with hardware virtualization, where it needs about a second.
pub const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at the probe guest, should an event be missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Who executes guests' instructions, and why not the hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Kvm,
    Emulation(Refusal),
}

impl Choice {
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Kvm => Accelerator::Kvm,
            Self::Emulation(_) => Accelerator::Emulation,
        }
    }
}

/// Why hardware virtualization is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the hypervisor does not offer it")]
    NotOffered,
    #[error("the probe guest does not start: {0}")]
    NotStarted(Error),
    #[error("the probe guest did not boot within {}s", within.as_secs())]
    Hung { within: Duration },
    #[error("the probe guest did not switch itself off, it ended by {0:?}")]
    Ended(Stop),
}

/// Tries hardware virtualization with a guest that boots and switches itself off. Nothing of the guest is left.
///
/// # Errors
/// When the hypervisor cannot be asked; nothing is known about it then.
pub async fn choose(hypervisor: &dyn Hypervisor, probe: &Domain, within: Duration) -> Result<Choice> {
    if !hypervisor.capabilities().await?.kvm {
        return Ok(Choice::Emulation(Refusal::NotOffered));
    }
    let probe = Domain { accelerator: Accelerator::Kvm, ..probe.clone() };
    Ok(match run(hypervisor, &probe, within).await? {
        Ran::Itself => Choice::Kvm,
        Ran::NotAtAll(error) => Choice::Emulation(Refusal::NotStarted(error)),
        Ran::Until(Some(stop)) => Choice::Emulation(Refusal::Ended(stop)),
        Ran::Until(None) => Choice::Emulation(Refusal::Hung { within }),
    })
}

/// How a probe guest fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It booted and switched itself off.
    Itself,
    NotAtAll(Error),
    /// It ended in another way, or was still there when its time was over.
    Until(Option<Stop>),
}

/// Runs a probe guest as it is.
pub(crate) async fn run(hypervisor: &dyn Hypervisor, probe: &Domain, within: Duration) -> Result<Ran> {
    let name = probe.name.as_str();
    forget(hypervisor, name).await?;
    let mut events = hypervisor.events();
    hypervisor.define(probe).await?;
    let ran = match hypervisor.start(name, Start::default()).await {
        Ok(()) => {
            let deadline = Instant::now() + within;
            loop {
                if let State::Stopped(stop) = hypervisor.state(name).await? {
                    break if stop == Stop::Shutdown { Ran::Itself } else { Ran::Until(Some(stop)) };
                }
                if Instant::now() >= deadline {
                    break Ran::Until(None);
                }
                let stopped = |event: &Event| matches!(event, Event::Domain { name: of, change: Change::Stopped(_) } if of == name);
                let news = async { while events.recv().await.is_some_and(|event| !stopped(&event)) {} };
                let _ = tokio::time::timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), news).await;
            }
        }
        Err(error @ Error::Unreachable(_)) => return Err(error),
        Err(error) => Ran::NotAtAll(error),
    };
    forget(hypervisor, name).await?;
    Ok(ran)
}

/// Ends and forgets the probe guest, also one that an earlier probe left behind.
async fn forget(hypervisor: &dyn Hypervisor, name: &str) -> Result<()> {
    for result in [hypervisor.destroy(name).await, hypervisor.undefine(name).await] {
        match result {
            // It does not run, or is not there.
            Ok(()) | Err(Error::WrongState { .. } | Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::Capabilities;
    use crate::model::{Physics, Universe};

    const HOST: &str = "host";

    /// A host with a probe guest.
    fn host(kvm: bool) -> (Universe, Domain) {
        let universe = Universe::new(Physics::default());
        let machines = vec!["pc-q35-7.2".to_owned()];
        let (libvirt, qemu) = ("9.0.0".to_owned(), "7.2.22".to_owned());
        universe.add_host(HOST, Capabilities { libvirt, qemu, machines, kvm });
        universe.switches_itself_off("probe");
        (universe, crate::suite::tests::machine("probe", 65_536))
    }

    async fn chosen(universe: &Universe, probe: &Domain) -> Result<Choice> {
        choose(&universe.connect(HOST), probe, PROBE_WITHIN).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_offered_is_not_tried() {
        let (universe, probe) = host(false);
        let mut events = universe.connect(HOST).events();
        assert_eq!(chosen(&universe, &probe).await, Ok(Choice::Emulation(Refusal::NotOffered)));
        assert!(events.try_recv().is_err(), "nobody was defined");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_hangs_is_ended_and_says_so() {
        let (universe, probe) = host(true);
        assert_eq!(chosen(&universe, &probe).await, Ok(Choice::Kvm));
        universe.set_kvm_works(HOST, false);
        let choice = chosen(&universe, &probe).await.expect("a choice");
        assert_eq!(choice, Choice::Emulation(Refusal::Hung { within: PROBE_WITHIN }));
        assert_eq!(choice.accelerator(), Accelerator::Emulation);
        assert_eq!(universe.connect(HOST).list().await, Ok(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_is_killed_has_shown_nothing() {
        let (universe, probe) = host(true);
        let kill = async {
            universe.until(|universe| universe.has_process(HOST, "probe")).await;
            universe.kill_process(HOST, "probe");
        };
        let (choice, ()) = futures::future::join(chosen(&universe, &probe), kill).await;
        assert_eq!(choice, Ok(Choice::Emulation(Refusal::Ended(Stop::Crashed))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_is_away_decides_nothing() {
        let (universe, probe) = host(true);
        universe.kill_daemon(HOST);
        assert!(matches!(chosen(&universe, &probe).await, Err(Error::Unreachable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_guest_that_cannot_be_defined_is_an_error() {
        let (universe, probe) = host(true);
        let probe = Domain { machine: "pc-q35-99.0".to_owned(), ..probe };
        assert!(matches!(chosen(&universe, &probe).await, Err(Error::Failed { .. })));
    }
}
