//! What all requests share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kubevirt_runtime::clock::Clock;
use kubevirt_runtime::net::Net;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregated;
use crate::audit::AuditSink;
use crate::authz::Authz;
use crate::cel::Expressions;
use crate::faults::Faults;
use crate::registry::Registry;
use crate::store::Store;
use crate::tokens::Tokens;

pub(crate) struct Core {
    pub store: Store,
    pub registry: Registry,
    pub clock: Clock,
    pub tokens: Tokens,
    pub authz: Authz,
    pub audit: Option<Box<dyn AuditSink>>,
    pub faults: Arc<dyn Faults>,
    pub expressions: Expressions,
    pub aggregated: Aggregated,
    /// Reaches webhooks and aggregated APIs.
    pub net: Option<Arc<dyn Net>>,
    /// Cancelled when the server ends; open watches end with it.
    pub stopping: CancellationToken,
    /// How nodes are reached, once there are certificates for it.
    pub nodes: OnceLock<TlsConnector>,
    draws: Mutex<ChaCha8Rng>,
    /// Audit ids come from a stream of their own: whether a run is audited must not change the uids of its objects.
    audit_draws: Mutex<ChaCha8Rng>,
    /// Calls to other servers, too: who is asked before an object is stored must not change the object's uid.
    call_draws: Mutex<ChaCha8Rng>,
}

/// What generated names end in: no vowels and no look-alikes, so that no words appear.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

impl Core {
    pub(crate) fn new(
        clock: Clock,
        seed: u64,
        audit: Option<Box<dyn AuditSink>>,
        faults: Arc<dyn Faults>,
        net: Option<Arc<dyn Net>>,
        history: usize,
    ) -> Self {
        let mut draws = ChaCha8Rng::seed_from_u64(seed);
        let mut audit_draws = ChaCha8Rng::seed_from_u64(seed);
        audit_draws.set_stream(1);
        let mut call_draws = ChaCha8Rng::seed_from_u64(seed);
        call_draws.set_stream(2);
        let mut key = [0; 32];
        draws.fill_bytes(&mut key);
        let core = Self {
            store: Store::new(history),
            registry: Registry::new(),
            clock,
            tokens: Tokens::new(&key),
            authz: Authz::new(),
            audit,
            faults,
            expressions: Expressions::default(),
            aggregated: Aggregated::default(),
            net,
            stopping: CancellationToken::new(),
            nodes: OnceLock::new(),
            draws: Mutex::new(draws),
            audit_draws: Mutex::new(audit_draws),
            call_draws: Mutex::new(call_draws),
        };
        crate::aggregation::register_built_in(&core);
        core
    }

    /// A new uid.
    pub(crate) fn uid(&self) -> String {
        uuid_of(&self.draws)
    }

    /// A new id for an audit event.
    pub(crate) fn audit_id(&self) -> String {
        uuid_of(&self.audit_draws)
    }

    /// A new id for a question to a webhook.
    pub(crate) fn call_id(&self) -> String {
        uuid_of(&self.call_draws)
    }

    /// Keys of the front proxy.
    pub(crate) fn secret(&self) -> [[u8; 32]; 2] {
        let mut secrets = [[0; 32]; 2];
        let mut draws = self.call_draws.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter_mut().for_each(|secret| draws.fill_bytes(secret));
        secrets
    }

    /// Which of `count` endpoints is called.
    pub(crate) fn choose(&self, count: usize) -> usize {
        let draw = self.call_draws.lock().unwrap_or_else(PoisonError::into_inner).next_u32();
        usize::try_from(draw).unwrap_or(0).checked_rem(count).unwrap_or(0)
    }

    /// The random end of a generated name.
    pub(crate) fn suffix(&self) -> String {
        let mut draws = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        let letters = u32::try_from(SUFFIX_LETTERS.len()).expect("an alphabet is short");
        (0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_LETTERS[(draws.next_u32() % letters) as usize])).collect()
    }

    /// A number below `end`.
    pub(crate) fn draw(&self, end: u32) -> u32 {
        self.draws.lock().unwrap_or_else(PoisonError::into_inner).next_u32() % end
    }

    /// Now, as objects carry it: RFC 3339 in whole seconds.
    pub(crate) fn now_text(&self) -> String {
        seconds(self.clock.now())
    }
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub(crate) fn seconds(time: jiff::Timestamp) -> String {
    format!("{time:.0}")
}

fn uuid_of(draws: &Mutex<ChaCha8Rng>) -> String {
    let mut bytes = [0; 16];
    draws.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
