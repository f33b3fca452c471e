//! Giving a guest that runs its disks back; why it may lack them stands in [`crate::settle`].

use futures::future::BoxFuture;

use super::{Libvirt, classify, convert, lookup, qmp};
use crate::hypervisor::{Error, Result, State};

const OPERATION: &str = "take back the disks of";

/// The word that lets a guest go on. A stop and a start by libvirt would do as well, but the guest would stand still in between,
/// for good if whoever asks ends there.
pub(super) fn reclaim(client: &Libvirt, name: &str) -> BoxFuture<'static, Result<()>> {
    let name = name.to_owned();
    client.call(move |connection| {
        let domain = lookup(connection, &name)?;
        let failed = |error: virt::error::Error| classify(&error, &name, OPERATION);
        let (state, reason) = domain.get_state().map_err(failed)?;
        let state = convert::state(state, reason);
        // One that somebody stopped stays so, and takes its disks back when it is resumed.
        if state != State::Running {
            return Err(Error::WrongState { name, operation: OPERATION, why: format!("it is {state}") });
        }
        let answer = qmp::tell(&domain, qmp::GO_ON).map_err(failed)?;
        match qmp::refusal(&answer) {
            None => Ok(()),
            Some(why) => Err(Error::Failed { name, operation: OPERATION, why }),
        }
    })
}
