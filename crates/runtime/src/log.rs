//! The log of a process: what it says by default, and changing that while it runs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, ProcessArgs};

/// How much a process logs, to be changed while it runs.
#[derive(Clone)]
pub struct Verbosity(Arc<Inner>);

struct Inner {
    /// From the command line.
    asked_for: u8,
    now: AtomicU8,
    apply: Box<dyn Fn(u8) + Send + Sync>,
}

impl Verbosity {
    /// Where `apply` makes a level take effect.
    pub fn new(asked_for: u8, apply: impl Fn(u8) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { asked_for, now: AtomicU8::new(asked_for), apply: Box::new(apply) }))
    }

    /// Of a program that shares its process, and thus the log, with others: nobody may change it for all.
    pub fn fixed() -> Self {
        Self::new(0, |_| {})
    }

    /// Changes the level; without one, what the command line asked for counts again.
    pub fn set(&self, level: Option<u8>) {
        let level = level.unwrap_or(self.0.asked_for);
        if self.0.now.swap(level, Ordering::Relaxed) != level {
            (self.0.apply)(level);
        }
    }
}

impl fmt::Debug for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verbosity").field(&self.0.now).finish()
    }
}

/// What is heard at a level. Libraries below are heard only when something is wrong, or when everything is asked for.
fn targets(verbosity: u8) -> Targets {
    let (ours, others) = match verbosity {
        0..=2 => (LevelFilter::INFO, LevelFilter::WARN),
        3..=5 => (LevelFilter::DEBUG, LevelFilter::INFO),
        6.. => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let libraries = ["hyper", "hyper_util", "rustls", "tower", "kube_client", "h2"];
    let targets = Targets::new().with_default(ours).with_targets(libraries.map(|name| (name, others)));
    // It logs every failed request, which whoever made the request does with more to say.
    let client = if others == LevelFilter::WARN { LevelFilter::OFF } else { others };
    targets.with_target("kube_client::client::builder", client)
}

/// Sets up the log of this process; a second call changes nothing.
pub fn init(process: &ProcessArgs) -> Verbosity {
    let (filter, handle) = reload::Layer::new(targets(process.verbosity));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    // Err: the log is already set up.
    let _ = match process.log_format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    Verbosity::new(process.verbosity, move |level| {
        // Err: the log of somebody else is in use.
        if handle.reload(targets(level)).is_ok() {
            tracing::info!(level, "the log's level changed");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::Level;

    use super::*;

    #[test]
    fn levels_add_decisions_and_then_everything() {
        for (verbosity, debug, trace, library) in
            [(0, false, false, false), (2, false, false, false), (3, true, false, false), (6, true, true, true)]
        {
            let targets = targets(verbosity);
            assert_eq!(targets.would_enable("virt_operator", &Level::DEBUG), debug, "{verbosity}");
            assert_eq!(targets.would_enable("virt_operator", &Level::TRACE), trace, "{verbosity}");
            assert_eq!(targets.would_enable("hyper::proto", &Level::DEBUG), library, "{verbosity}");
            assert!(targets.would_enable("virt_operator", &Level::INFO), "{verbosity}");
        }
    }

    #[test]
    fn a_level_takes_effect_once_and_goes_back_to_the_command_line() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let verbosity = Verbosity::new(2, move |level| seen.lock().unwrap().push(level));
        for level in [None, Some(2), Some(6), Some(6), None, None] {
            verbosity.set(level);
        }
        assert_eq!(*applied.lock().unwrap(), [6, 2]);
    }
}
