//! One watch, kept open: what a small follower of its own needs. The watches of what the operator manages are in
//! [`crate::watches`].

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::Resource;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event, watcher};
use serde::de::DeserializeOwned;

/// The first pause after a failure: an API server that restarts is not hammered.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest pause: how late a cluster that was unreachable is noticed to be back.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long a watch lives before it is opened again, in seconds: as long as those of what the operator manages.
const WATCH: u32 = 900;

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
    let (mut listed, mut pause) = (Vec::new(), RETRY_FIRST);
    let mut events = pin!(watcher(api, config.timeout(WATCH)));
    while let Some(event) = events.next().await {
        if let Err(error) = &event {
            tracing::warn!(what, %error, retry_in = ?pause, "a watch was interrupted");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
            continue;
        }
        pause = RETRY_FIRST;
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => see(Seen::All(std::mem::take(&mut listed))),
            Ok(Event::Apply(object)) => see(Seen::Changed(object)),
            Ok(Event::Delete(object)) => see(Seen::Gone(object)),
            Err(_) => {}
        }
    }
    // A watch never ends by itself. Should one, standing still is right: tasks are ended by whoever started them.
    pending::<()>().await;
}
