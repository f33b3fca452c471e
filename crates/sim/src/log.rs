//! O7: what the code under test says about itself at the level of errors, and whether it panicked.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

thread_local! {
    /// The collector of the run on this thread; panics of its tasks are caught by the runtime and would be lost.
    static CURRENT: RefCell<Option<Errors>> = const { RefCell::new(None) };
}

/// Told of a panic's message.
type LastWords = Box<dyn Fn(&str)>;

thread_local! {
    /// What is done with a panic that ends the process, where panics do.
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

/// Where the code was built to end with its first panic, `say` is called before it does.
pub(crate) fn set_last_words(say: impl Fn(&str) + 'static) {
    LAST_WORDS.set(Some(Box::new(say)));
}

/// Errors of one run.
#[derive(Clone, Default)]
pub(crate) struct Errors(Arc<Mutex<Vec<String>>>);

impl Errors {
    /// Runs something and collects what it logs as an error, and its panics, those of spawned tasks included.
    pub(crate) fn collect<T>(&self, run: impl FnOnce() -> T) -> T {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                let is_ours = CURRENT.with_borrow(|current| {
                    current.as_ref().map(|errors| errors.add(format!("panic: {info}"))).is_some()
                });
                if !is_ours {
                    usual(info);
                } else if cfg!(panic = "abort") {
                    LAST_WORDS.with_borrow(|last| {
                        if let Some(say) = last {
                            say(&format!("panic: {info}"));
                        }
                    });
                }
            }));
        });
        CURRENT.set(Some(self.clone()));
        let subscriber = tracing_subscriber::registry().with(self.clone());
        let result = tracing::subscriber::with_default(subscriber, run);
        CURRENT.set(None);
        result
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl<S: Subscriber> Layer<S> for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("error of {}:", event.metadata().target()));
        event.record(&mut line);
        self.add(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
