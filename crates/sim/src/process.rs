//! Processes of simulated pods: one that can be killed from outside, one that does not start.
//!
//! Killing is SIGKILL: the program's future is dropped where it stands, nothing is said to anybody, and the node starts
//! the container again as it would any other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kubevirt_runtime::host::{Host, Program};
use nanokube::Injector;
use tokio::sync::Notify;

/// The switches of all wrapped processes, by host name. Clones are the same switches.
#[derive(Clone, Default)]
pub(crate) struct Lives(Arc<Mutex<BTreeMap<String, Arc<Notify>>>>);

impl Lives {
    /// The program, with a switch for each process that runs it.
    /// The injector's slow timers hit it.
    pub(crate) fn mortal(&self, program: Arc<dyn Program>, injector: Option<Arc<Injector>>) -> Arc<dyn Program> {
        Arc::new(Mortal { program, lives: self.clone(), injector })
    }

    /// Kills the process on a host; tells whether there was one.
    pub(crate) fn kill(&self, host: &str) -> bool {
        let switch = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
        switch.inspect(|switch| switch.notify_one()).is_some()
    }

    /// The hosts on which a process lives.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn born(&self, host: &str) -> Arc<Notify> {
        let switch = Arc::new(Notify::new());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), Arc::clone(&switch));
        switch
    }

    fn died(&self, host: &str, switch: &Arc<Notify>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(host).is_some_and(|current| Arc::ptr_eq(current, switch)) {
            all.remove(host);
        }
    }
}

struct Mortal {
    program: Arc<dyn Program>,
    lives: Lives,
    injector: Option<Arc<Injector>>,
}

impl Program for Mortal {
    fn run(&self, host: Host) -> BoxFuture<'static, anyhow::Result<()>> {
        let (name, lives) = (host.hostname.clone(), self.lives.clone());
        let switch = lives.born(&name);
        let program = self.program.run(host);
        let program = match &self.injector {
            Some(injector) => injector.slow(program).boxed(),
            None => program,
        };
        Box::pin(async move {
            let ended = tokio::select! {
                biased;
                () = switch.notified() => Err(anyhow::anyhow!("killed by the simulation")),
                ended = program => ended,
            };
            lives.died(&name, &switch);
            ended
        })
    }
}

/// A build that ends as soon as it begins.
pub(crate) fn crashing(_: Host) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async { Err(anyhow::anyhow!("this build does not start")) })
}
