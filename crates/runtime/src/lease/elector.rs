//! The life of a candidate: stand by (watch), lead (renew), release.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::record::{self, Record, Term};
use super::{Claim, Fence, LEASE_DURATION, LeaseConfig, RENEW_EVERY, REQUEST_TIMEOUT, SAFETY_MARGIN};
use crate::causes::Causes;
use crate::clock::Clock;

/// First pause after a failure. Short, because a leader has 5 s left when its first try fails.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest pause after repeated failures: an API server that comes back is noticed within a third of a lease.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// How long the fence holds after a renewal was sent.
const FENCE_HOLDS: Duration = LEASE_DURATION.checked_sub(SAFETY_MARGIN).expect("the margin is part of the lease");

/// How long the watch of a standby lives before it is opened again, in seconds: a standby costs next to nothing.
const WATCH: u32 = 900;

/// A watch shorter than this was cut by something that is not well: it is opened again only after a pause.
const WATCH_TOO_SHORT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Kube(kube::Error),
}

impl RequestError {
    /// The HTTP status of the API server's answer, 0 where there was none.
    fn code(&self) -> u16 {
        match self {
            Self::Kube(kube::Error::Api(status)) => status.code,
            Self::Kube(_) | Self::Timeout => 0,
        }
    }
}

/// What is known about the Lease object.
enum Known {
    /// It does not exist. `free_at` is later than now if it vanished while somebody held it: that holder does not know.
    Absent { free_at: Instant },
    /// It exists and can be claimed from `free_at` on.
    Seen { record: Record, free_at: Instant },
}

impl Known {
    fn free_at(&self) -> Instant {
        match self {
            Self::Absent { free_at } | Self::Seen { free_at, .. } => *free_at,
        }
    }
}

/// How leading ended.
enum Ended {
    Lost,
    Released,
}

/// One candidate.
pub(super) struct Elector {
    config: LeaseConfig,
    api: Api<Lease>,
    clock: Clock,
    rng: ChaCha8Rng,
    claim: watch::Sender<Claim>,
    fence: Fence,
    known: Option<Known>,
    /// The highest generation ever seen: a Lease that somebody deleted does not make the number fall.
    highest: u64,
    /// An application whose answer never came; the watch may show that it was accepted.
    applied: Option<Term>,
    /// Until when somebody else may believe that it leads.
    others_until: Instant,
    failures: u32,
}

impl Elector {
    pub(super) fn new(
        config: LeaseConfig,
        client: kube::Client,
        clock: Clock,
        seed: u64,
        claim: watch::Sender<Claim>,
        fence: Fence,
    ) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            config,
            api,
            clock,
            rng,
            claim,
            fence,
            known: None,
            highest: 0,
            applied: None,
            others_until: Instant::now(),
            failures: 0,
        }
    }

    pub(super) async fn run(mut self, release: CancellationToken) {
        loop {
            let won = tokio::select! {
                biased;
                () = release.cancelled() => return,
                won = self.stand_by() => won,
            };
            let (term, version, sent) = won;
            tracing::info!(lease = %self.config.name, generation = term.generation, "leading");
            match self.lead(&term, version, sent, &release).await {
                Ended::Released => return,
                Ended::Lost => {
                    self.fence.close();
                    self.claim.send_replace(Claim::Standby { holder: None });
                    tracing::warn!(lease = %self.config.name, generation = term.generation, "lost the lease");
                    self.somebody_leads();
                }
            }
        }
    }

    /// Watches until the lease could be taken. Returns the term, the object's version and when the claim was sent.
    async fn stand_by(&mut self) -> (Term, String, Instant) {
        loop {
            let fields = format!("metadata.name={}", self.config.name);
            let listed = match limited(self.api.list(&ListParams::default().fields(&fields))).await {
                Ok(listed) => listed,
                Err(error) => {
                    self.pause("listing the lease", &error).await;
                    continue;
                }
            };
            self.failures = 0;
            let mut version = listed.metadata.resource_version.clone().unwrap_or_default();
            match listed.items.first() {
                Some(lease) => self.see(lease),
                None => self.find_nothing(),
            }
            let params = WatchParams::default().fields(&fields).timeout(WATCH);
            let mut stream: Option<(BoxStream<'static, kube::Result<WatchEvent<Lease>>>, Instant)> = None;
            // Ends when what is known has to be read anew.
            loop {
                if let Some(won) = self.accepted_late().await {
                    return won;
                }
                let free_at = self.known.as_ref().map_or_else(Instant::now, Known::free_at);
                if Instant::now() >= free_at {
                    match self.claim().await {
                        Ok(won) => return won,
                        Err(error) if matches!(error.code(), 404 | 409) => {
                            tracing::debug!(lease = %self.config.name, "somebody else was faster");
                            self.somebody_leads();
                        }
                        Err(error) => {
                            // A create whose outcome is unknown may have met another's Lease. (A replace cannot: it names
                            // the version it replaces.)
                            if error.code() == 0 && matches!(self.known, Some(Known::Absent { .. })) {
                                self.somebody_leads();
                            }
                            self.pause("claiming the lease", &error).await;
                        }
                    }
                    break;
                }
                let (events, opened) = match &mut stream {
                    Some((events, opened)) => (events, *opened),
                    None => match limited(self.api.watch(&params, &version)).await {
                        Ok(events) => {
                            let (events, opened) = stream.insert((events.boxed(), Instant::now()));
                            (events, *opened)
                        }
                        Err(error) => {
                            self.pause("watching the lease", &error).await;
                            break;
                        }
                    },
                };
                let event = tokio::select! {
                    event = events.next() => event,
                    () = sleep_until(free_at) => continue,
                };
                match event {
                    Some(Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease))) => {
                        version = lease.metadata.resource_version.clone().unwrap_or_default();
                        self.see(&lease);
                    }
                    Some(Ok(WatchEvent::Deleted(lease))) => {
                        version = lease.metadata.resource_version.clone().unwrap_or_default();
                        self.see_deleted();
                    }
                    Some(Ok(WatchEvent::Bookmark(bookmark))) => version = bookmark.metadata.resource_version,
                    Some(Ok(WatchEvent::Error(status))) if status.code == 410 => break,
                    Some(Ok(WatchEvent::Error(status))) => {
                        self.pause("watching the lease", &RequestError::Kube(kube::Error::Api(status))).await;
                        break;
                    }
                    Some(Err(error)) => {
                        self.pause("watching the lease", &RequestError::Kube(error)).await;
                        break;
                    }
                    // The server ends a watch after a while; the next one goes on where this one stopped.
                    None => {
                        if opened.elapsed() < WATCH_TOO_SHORT {
                            self.pause("watching the lease", &RequestError::Timeout).await;
                        }
                        stream = None;
                    }
                }
            }
        }
    }

    /// Takes note of the Lease. Only a change counts as a sign of life of its holder.
    fn see(&mut self, lease: &Lease) {
        let record = Record::read(lease);
        if let Some(Known::Seen { record: old, .. }) = &self.known
            && old.resource_version == record.resource_version
        {
            return;
        }
        self.highest = self.highest.max(record.generation);
        let now = Instant::now();
        // A free lease is free at once: its holder closed its fence before it let go.
        let free_at = if record.holder.is_some() { now + record.duration } else { now };
        if !self.applied.as_ref().is_some_and(|term| self.is_mine(&record, term)) {
            self.others_until = free_at;
        }
        self.announce(record.holder.clone());
        self.known = Some(Known::Seen { record, free_at });
    }

    /// The Lease was deleted while it was watched. Its holder still believes in its fence.
    fn see_deleted(&mut self) {
        let free_at = self.known.as_ref().map_or_else(Instant::now, Known::free_at);
        self.announce(None);
        self.known = Some(Known::Absent { free_at });
    }

    /// Somebody else holds or may hold the lease, even if the Lease is gone again when it is looked for.
    fn somebody_leads(&mut self) {
        self.others_until = Instant::now() + LEASE_DURATION;
        self.known = Some(Known::Absent { free_at: self.others_until });
    }

    /// There is no Lease. If there was one before, somebody may have renewed it last just now.
    fn find_nothing(&mut self) {
        let now = Instant::now();
        let free_at = match &self.known {
            None => now,
            Some(Known::Absent { free_at }) => *free_at,
            Some(Known::Seen { .. }) => now + LEASE_DURATION,
        };
        self.others_until = self.others_until.max(free_at);
        self.announce(None);
        self.known = Some(Known::Absent { free_at });
    }

    fn announce(&self, holder: Option<String>) {
        let claim = Claim::Standby { holder };
        self.claim.send_if_modified(|current| {
            let changed = *current != claim;
            *current = claim;
            changed
        });
    }

    /// Applies for the next term.
    async fn claim(&mut self) -> Result<(Term, String, Instant), RequestError> {
        let term = Term { generation: self.highest + 1, acquired: record::micros(self.clock.now()) };
        self.applied = Some(term.clone());
        let sent = Instant::now();
        let stored = match &self.known {
            Some(Known::Seen { record, .. }) => {
                let lease = record::held(&self.config, &term, term.acquired, Some(&record.resource_version));
                limited(self.api.replace(&self.config.name, &PostParams::default(), &lease)).await
            }
            Some(Known::Absent { .. }) | None => {
                let lease = record::held(&self.config, &term, term.acquired, None);
                limited(self.api.create(&PostParams::default(), &lease)).await
            }
        };
        match stored {
            Ok(lease) => {
                self.applied = None;
                Ok((term, lease.metadata.resource_version.unwrap_or_default(), sent))
            }
            Err(error) => {
                if error.code() != 0 {
                    self.applied = None;
                }
                Err(error)
            }
        }
    }

    /// An application whose answer was lost may have been accepted. Then it is renewed, which also gives it a sending time
    /// that the fence can count from.
    async fn accepted_late(&mut self) -> Option<(Term, String, Instant)> {
        let term = self.applied.clone()?;
        let Some(Known::Seen { record, .. }) = &self.known else { return None };
        // An application that created the Lease may have been carried out long after it was sent, and after somebody else's
        // Lease was deleted: that holder's time has to be over.
        if !self.is_mine(record, &term) || Instant::now() < self.others_until {
            return None;
        }
        let lease = record::held(&self.config, &term, self.clock.now(), Some(&record.resource_version));
        let sent = Instant::now();
        match limited(self.api.replace(&self.config.name, &PostParams::default(), &lease)).await {
            Ok(lease) => {
                self.applied = None;
                Some((term, lease.metadata.resource_version.unwrap_or_default(), sent))
            }
            Err(error) => {
                self.pause("renewing the lease", &error).await;
                None
            }
        }
    }

    fn is_mine(&self, record: &Record, term: &Term) -> bool {
        record.holder.as_deref() == Some(self.config.identity.as_str())
            && record.generation == term.generation
            && record.acquired == Some(term.acquired)
    }

    /// Renews until released or lost.
    async fn lead(&mut self, term: &Term, version: String, sent: Instant, release: &CancellationToken) -> Ended {
        let mut version = Some(version);
        let mut deadline = sent + FENCE_HOLDS;
        let mut next = sent + RENEW_EVERY;
        self.highest = self.highest.max(term.generation);
        self.failures = 0;
        if release.is_cancelled() {
            self.free(term, version.as_deref()).await;
            return Ended::Released;
        }
        self.fence.grant(term.generation, deadline);
        self.claim.send_replace(Claim::Leader { generation: term.generation });
        loop {
            tokio::select! {
                biased;
                () = release.cancelled() => {
                    self.free(term, version.as_deref()).await;
                    return Ended::Released;
                }
                () = sleep_until(next.min(deadline)) => {}
            }
            let sent = Instant::now();
            if sent >= deadline {
                return Ended::Lost;
            }
            let renewed = tokio::time::timeout_at(deadline, self.renew(term, version.as_deref())).await;
            match renewed {
                Err(_) => return Ended::Lost,
                Ok(Ok(stored)) => {
                    version = Some(stored);
                    deadline = sent + FENCE_HOLDS;
                    next = sent + RENEW_EVERY;
                    self.failures = 0;
                    if !release.is_cancelled() {
                        self.fence.grant(term.generation, deadline);
                    }
                }
                Ok(Err(error)) if matches!(error.code(), 404 | 409) => {
                    match tokio::time::timeout_at(deadline, limited(self.api.get(&self.config.name))).await {
                        Err(_) => return Ended::Lost,
                        Ok(Ok(lease)) => {
                            let record = Record::read(&lease);
                            if !self.is_mine(&record, term) {
                                return Ended::Lost;
                            }
                            version = Some(record.resource_version);
                        }
                        // Deleted by somebody: the term goes on under a new object.
                        Ok(Err(error)) if error.code() == 404 => version = None,
                        Ok(Err(error)) => {
                            next = Instant::now() + self.backoff("reading the lease", &error);
                            continue;
                        }
                    }
                    // The first correction is made at once, a repeated one after a pause.
                    next = Instant::now();
                    if self.failures > 0 {
                        next += self.backoff("renewing the lease", &error);
                    } else {
                        self.failures = 1;
                    }
                }
                Ok(Err(error)) => next = Instant::now() + self.backoff("renewing the lease", &error),
            }
        }
    }

    async fn renew(&self, term: &Term, version: Option<&str>) -> Result<String, RequestError> {
        let lease = record::held(&self.config, term, self.clock.now(), version);
        let stored = match version {
            Some(_) => limited(self.api.replace(&self.config.name, &PostParams::default(), &lease)).await?,
            None => limited(self.api.create(&PostParams::default(), &lease)).await?,
        };
        Ok(stored.metadata.resource_version.unwrap_or_default())
    }

    /// Lets go of the lease; a failure only means that it runs out by itself.
    async fn free(&self, term: &Term, version: Option<&str>) {
        self.fence.close();
        self.claim.send_replace(Claim::Standby { holder: None });
        let Some(version) = version else { return };
        let lease = record::freed(&self.config, term, self.clock.now(), version);
        if let Err(error) = limited(self.api.replace(&self.config.name, &PostParams::default(), &lease)).await {
            let error = Causes(&error);
            tracing::warn!(lease = %self.config.name, %error, "the lease could not be released and will run out");
        }
    }

    async fn pause(&mut self, what: &str, error: &RequestError) {
        let pause = self.backoff(what, error);
        tokio::time::sleep(pause).await;
    }

    /// The pause after a failure: doubling, with up to half as much again at random so that candidates do not march in
    /// step.
    fn backoff(&mut self, what: &str, error: &RequestError) -> Duration {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(8)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        let jitter = pause.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX) / 2.0);
        let error = Causes(error);
        tracing::warn!(lease = %self.config.name, %error, retry_in = ?(pause + jitter), "{what} failed");
        pause + jitter
    }
}

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(RequestError::Kube),
        Err(_) => Err(RequestError::Timeout),
    }
}
