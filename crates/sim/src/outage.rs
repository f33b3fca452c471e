//! F15: for a while the API server does not reach the webhooks of the suite, or the API that it aggregates. The pods are
//! well and say so; what is refused is every connection that the server opens to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kubevirt_release::Kind;
use kubevirt_release::operator_manifest::WEBHOOK_PORT;
use kubevirt_release::render::HTTPS_PORT;
use kubevirt_runtime::net::memory::{MemoryNet, Verdict};
use nanokube_cli::SERVER;
use serde_json::Value;
use tokio::time::sleep;

use crate::chronicle::{Cue, Reached};
use crate::invariants::{is_managed, text};
use crate::referee::Referee;
use crate::world::{TooLate, World};

/// Several times what the change takes that it strikes, and longer than the half minute after which the API server asks an
/// aggregated API again.
const LASTS: Duration = Duration::from_secs(45);

/// A server that cannot be reached is asked again every two seconds, and each half minute at the latest.
const AVAILABLE: Duration = Duration::from_secs(60);

/// Who cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backends {
    /// The webhooks of virt-operator.
    Operator,
    /// The webhooks and the aggregated API of virt-api.
    Api,
    All,
}

impl Backends {
    fn includes(self, to: SocketAddr) -> bool {
        let is = |port: u16| to.port() == port;
        let (operator, api) = (is(WEBHOOK_PORT), i32::from(to.port()) == HTTPS_PORT);
        match self {
            Self::Operator => operator,
            Self::Api => api,
            Self::All => operator || api,
        }
    }
}

/// Who, and from when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    pub of: Backends,
    pub cue: Cue,
}

/// What lies between the API server and those it calls. Clones are the same cable.
#[derive(Clone, Default)]
pub(crate) struct Cable(Arc<Mutex<Option<Backends>>>);

impl Cable {
    /// From now on it decides, and the faults that were drawn do.
    pub(crate) fn lay(network: &MemoryNet, referee: &Arc<Referee>) -> Self {
        let (cable, referee) = (Self::default(), Arc::clone(referee));
        let cut = cable.clone();
        network.set_rule(move |from, to| {
            let is_cut = || cut.is_cut(to) || (referee.backends_are_down() && Backends::All.includes(to));
            if from == SERVER && is_cut() { Verdict::Refuse } else { Verdict::Pass }
        });
        cable
    }

    fn is_cut(&self, to: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|backends| backends.includes(to))
    }

    fn set(&self, cut: Option<Backends>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }
}

/// Cuts the cable at its moment, and mends it.
///
/// # Errors
/// The moment never came.
pub(crate) async fn play(outage: Outage, asked: Reached, world: &World) -> Result<(), TooLate> {
    let Outage { of, cue } = outage;
    world.cue(cue, asked).await?;
    world.referee.note_fault("F15", &format!("out of the API server's reach: {of:?}"));
    world.cable.set(Some(of));
    sleep(LASTS).await;
    world.cable.set(None);
    world.referee.note("in the API server's reach again");
    world.until("aggregated APIs available", AVAILABLE, are_available).await?;
    Ok(())
}

/// The API server has noticed that it reaches them again.
fn are_available(world: &World) -> Result<(), String> {
    let kind = Kind::APIService;
    let services = world.cluster.api.stored_all(kind.group(), kind.plural());
    let is_available = |service: &Value| {
        let conditions = service.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        conditions.filter(|condition| condition["type"] == "Available").all(|condition| condition["status"] == "True")
    };
    let missing = services.iter().find(|service| is_managed(service) && !is_available(service));
    missing.map_or(Ok(()), |service| Err(format!("{} is not", text(service, "/metadata/name"))))
}
