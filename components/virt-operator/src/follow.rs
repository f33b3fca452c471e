//! Keeping one watch open. What the operator manages is followed in [`crate::watches`], by the same means.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Resource;
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Event, watcher};
use serde::de::DeserializeOwned;

/// The first pause after a failure: an API server that restarts is not hammered.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest pause: how late a cluster that was unreachable is noticed to be back.
pub(crate) const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long a watch lives before it is opened again, in seconds: rarely, and yet before a balancer in between might forget
/// the connection, which bookmarks keep alive.
const WATCH: u32 = 900;

/// A watch of everything.
pub(crate) fn all() -> Config {
    Config::default().timeout(WATCH)
}

/// What a watch shows.
pub(crate) enum Seen<K> {
    /// Everything there is.
    All(Vec<K>),
    Changed(K),
    Gone(K),
}

/// Hands everything a watch shows to `see`. Never ends.
pub(crate) async fn follow<K>(api: Api<K>, config: Config, what: &str, mut see: impl FnMut(Seen<K>))
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut listed = Vec::new();
    let mut events = pin!(watcher(api, config));
    while let Some(event) = next(&mut events, what, |_| ()).await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.push(object),
            Event::InitDone => see(Seen::All(std::mem::take(&mut listed))),
            Event::Apply(object) => see(Seen::Changed(object)),
            Event::Delete(object) => see(Seen::Gone(object)),
        }
    }
    stand_still().await;
}

/// Whether the server does not know the kind that is asked for.
fn is_not_served(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    // HTTP's code for it.
    const NOT_FOUND: u16 = 404;
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.code == NOT_FOUND,
        _ => false,
    }
}

/// As [`next`], for a kind that the server need not know: `None` when it does not.
pub(crate) async fn next_served<K>(
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
    what: &str,
    heed: impl Fn(Option<&watcher::Error>),
) -> Option<Event<K>> {
    next_until(events, what, heed, is_not_served).await
}

/// The next event. A failed request is logged and tried again after a pause; kube's own back-off would draw its jitter
/// from the system's randomness, and one operator's few watches need none. `heed` is told how the watch gets on: the
/// error, or that there is none any more.
pub(crate) async fn next<K>(
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
    what: &str,
    heed: impl Fn(Option<&watcher::Error>),
) -> Option<Event<K>> {
    next_until(events, what, heed, |_| false).await
}

/// As [`next`], given up at an error that `ends` it.
async fn next_until<K>(
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
    what: &str,
    heed: impl Fn(Option<&watcher::Error>),
    ends: impl Fn(&watcher::Error) -> bool,
) -> Option<Event<K>> {
    let mut pause = RETRY_FIRST;
    loop {
        match events.next().await? {
            Ok(event) => {
                heed(None);
                return Some(event);
            }
            Err(error) if ends(&error) => return None,
            Err(error) => {
                tracing::warn!(what, %error, retry_in = ?pause, "a watch was interrupted");
                heed(Some(&error));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
        }
    }
}

/// A watch never ends by itself. Should one, standing still is right: the tasks are ended by whoever started them.
pub(crate) async fn stand_still() {
    pending::<()>().await;
}
