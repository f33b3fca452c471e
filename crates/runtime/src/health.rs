//! Whether this process is alive and ready, and if not, why: a registry that each part of a process reports to.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;

/// Why something is not well: a word that metrics and scripts can match, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: &'static str,
    pub message: String,
}

impl Reason {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

pub type Status = Result<(), Reason>;

/// The question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Would a restart help?
    Live,
    /// May requests be sent here?
    Ready,
}

type Check = Box<dyn Fn() -> Status + Send + Sync>;

/// The registry. Clones share everything.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    probe: Probe,
    name: &'static str,
    check: Check,
}

/// Reports one part's state.
#[derive(Clone, Debug)]
pub struct Report(Arc<Mutex<Status>>);

impl Report {
    /// From now on this part is so.
    pub fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

impl Health {
    /// A registry in which nothing speaks against anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part that reports by itself; until it does, it is starting, which is not well.
    pub fn part(&self, probe: Probe, name: &'static str) -> Report {
        let state = Arc::new(Mutex::new(Err(Reason::new("Starting", "has not reported yet"))));
        let report = Report(Arc::clone(&state));
        self.check(probe, name, move || state.lock().unwrap_or_else(PoisonError::into_inner).clone());
        report
    }

    /// A part that is asked at each probe. `check` must be quick and must not probe in turn.
    pub fn check(&self, probe: Probe, name: &'static str, check: impl Fn() -> Status + Send + Sync + 'static) {
        let entry = Entry { probe, name, check: Box::new(check) };
        let mut entries = self.lock();
        // A part that begins anew takes its own place: its earlier self has nothing to say any more.
        match entries.iter_mut().find(|other| other.probe == probe && other.name == name) {
            Some(place) => *place = entry,
            None => entries.push(entry),
        }
    }

    /// What speaks against a positive answer. What is not alive is not ready either.
    pub fn reasons(&self, probe: Probe) -> Vec<(&'static str, Reason)> {
        self.states(probe).into_iter().filter_map(|(name, state)| Some((name, state.err()?))).collect()
    }

    /// The answer to a probe: 200 or 503, and one line for each part.
    pub fn answer(&self, probe: Probe) -> (StatusCode, String) {
        let mut body = String::new();
        let mut status = StatusCode::OK;
        for (name, state) in self.states(probe) {
            // Writing to a String does not fail.
            let _ = match state {
                Ok(()) => writeln!(body, "[+] {name}: ok"),
                Err(Reason { code, message }) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    writeln!(body, "[-] {name}: {code}: {message}")
                }
            };
        }
        if body.is_empty() {
            body.push_str("ok\n");
        }
        (status, body)
    }

    fn states(&self, probe: Probe) -> Vec<(&'static str, Status)> {
        self.lock()
            .iter()
            .filter(|entry| probe == Probe::Ready || entry.probe == Probe::Live)
            .map(|entry| (entry.name, (entry.check)()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_names_every_reason_and_liveness_counts_for_readiness() {
        let health = Health::new();
        assert_eq!(health.answer(Probe::Ready), (StatusCode::OK, "ok\n".to_owned()));
        let certificate = health.part(Probe::Ready, "certificate");
        let alive = health.part(Probe::Live, "loop");
        assert_eq!(health.answer(Probe::Live).0, StatusCode::SERVICE_UNAVAILABLE);
        alive.set(Ok(()));
        assert_eq!(health.answer(Probe::Live), (StatusCode::OK, "[+] loop: ok\n".to_owned()));
        certificate.set(Err(Reason::new("CertificateMissing", "no /x/tls.crt")));
        expect_test::expect![[r#"
            [-] certificate: CertificateMissing: no /x/tls.crt
            [+] loop: ok
        "#]]
        .assert_eq(&health.answer(Probe::Ready).1);
        certificate.set(Ok(()));
        assert_eq!(health.answer(Probe::Ready).0, StatusCode::OK);
        alive.set(Err(Reason::new("Stuck", "for 3 minutes")));
        assert_eq!(health.reasons(Probe::Ready), [("loop", Reason::new("Stuck", "for 3 minutes"))]);
        let anew = health.part(Probe::Live, "loop");
        assert_eq!(health.reasons(Probe::Live).len(), 1, "it replaces its earlier self");
        anew.set(Ok(()));
        assert_eq!(health.answer(Probe::Ready).0, StatusCode::OK);
    }
}
