//! Listens to the guest's heart: one TCP connection on which the guest counts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::GATEWAY;

/// Where the guest sends its beats.
pub const PORT: u16 = 7000;

/// Everything heard since the last [`Heart::listen_anew`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pulse {
    pub beats: u64,
    /// The guest's count.
    pub last: Option<u64>,
    /// Counts that never arrived.
    pub lost: u64,
    /// Counts that arrived again: the guest went back in time.
    pub repeated: u64,
    pub connections: u64,
    pub uptime_seconds: f64,
    /// The guest's uptime never went back.
    pub uptime_monotonic: bool,
    /// The longest silence between two beats.
    #[serde(serialize_with = "milliseconds")]
    pub longest_gap: Duration,
}

fn milliseconds<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(value.as_millis() as u64)
}

impl Pulse {
    fn new() -> Self {
        Self { uptime_monotonic: true, ..Self::default() }
    }

    /// Takes one line in. Pure but for the time of its arrival.
    fn hear(&mut self, line: &str, since_last: Option<Duration>) -> bool {
        let mut words = line.split_whitespace();
        let (Some(count), Some(uptime)) = (
            words.next().and_then(|word| word.parse::<u64>().ok()),
            words.next().and_then(|word| word.parse::<f64>().ok()),
        ) else {
            return false;
        };
        if let Some(last) = self.last {
            match count.checked_sub(last + 1) {
                Some(missing) => self.lost += missing,
                None => self.repeated += 1,
            }
        }
        self.uptime_monotonic &= uptime >= self.uptime_seconds;
        self.uptime_seconds = uptime;
        self.last = Some(count);
        self.beats += 1;
        if let Some(gap) = since_last {
            self.longest_gap = self.longest_gap.max(gap);
        }
        true
    }
}

/// The listener.
#[derive(Clone)]
pub struct Heart {
    state: Arc<Mutex<(Pulse, Option<Instant>)>>,
    heard: watch::Sender<u64>,
}

impl Heart {
    /// Listens until dropped.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn listen() -> std::io::Result<Self> {
        let listener = TcpListener::bind((GATEWAY, PORT)).await?;
        let heart = Self { state: Arc::new(Mutex::new((Pulse::new(), None))), heard: watch::channel(0).0 };
        let accepting = heart.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().hear(stream));
            }
        });
        Ok(heart)
    }

    async fn hear(self, stream: TcpStream) {
        self.state.lock().expect("no code under this lock panics").0.connections += 1;
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let now = Instant::now();
            let mut state = self.state.lock().expect("no code under this lock panics");
            let gap = state.1.map(|last| now - last);
            if state.0.hear(&line, gap) {
                state.1 = Some(now);
                drop(state);
                self.heard.send_modify(|count| *count += 1);
            }
        }
    }

    pub fn pulse(&self) -> Pulse {
        self.state.lock().expect("no code under this lock panics").0
    }

    /// What the guest suffered since it was last asked for: beats lost or told twice, time that went back.
    pub fn take_harm(&self) -> Option<Pulse> {
        let mut state = self.state.lock().expect("no code under this lock panics");
        let pulse = state.0;
        let harmed = pulse.lost > 0 || pulse.repeated > 0 || !pulse.uptime_monotonic;
        state.0 = Pulse { lost: 0, repeated: 0, uptime_monotonic: true, ..pulse };
        harmed.then_some(pulse)
    }

    /// Forgets the guest that was; the next one starts at zero.
    pub fn listen_anew(&self) {
        *self.state.lock().expect("no code under this lock panics") = (Pulse::new(), None);
    }

    /// Beats ever heard, across guests.
    pub fn count(&self) -> u64 {
        *self.heard.borrow()
    }

    /// Waits until `more` beats were heard.
    pub async fn wait(&self, more: u64, bound: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        let wanted = *heard.borrow_and_update() + more;
        tokio::time::timeout(bound, heard.wait_for(|count| *count >= wanted)).await.is_ok_and(|result| result.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_repetitions_and_a_clock_that_goes_back_are_noticed() {
        let mut pulse = Pulse::new();
        assert!(pulse.hear("4 1.0", None));
        assert!(pulse.hear("5 1.2", Some(Duration::from_millis(200))));
        assert_eq!((pulse.lost, pulse.repeated, pulse.uptime_monotonic), (0, 0, true));
        assert!(pulse.hear("8 1.4", Some(Duration::from_millis(900))));
        assert_eq!((pulse.lost, pulse.longest_gap), (2, Duration::from_millis(900)));
        assert!(pulse.hear("8 1.3", None));
        assert_eq!((pulse.repeated, pulse.uptime_monotonic), (1, false));
        assert!(!pulse.hear("nonsense", None));
        assert_eq!(pulse.beats, 4);
    }
}
