//! Where the account of Prometheus is: the namespaces that have a ServiceAccount of the asked-for name, kept by one watch
//! that is open only while somebody would make use of the answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::follow::{all, next, stand_still};

/// Namespaces with an account of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    account: String,
    namespaces: BTreeSet<String>,
}

/// What is known, and what is asked for.
pub struct Accounts {
    wanted: watch::Sender<Option<String>>,
    found: Mutex<Option<Found>>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { wanted: watch::channel(None).0, found: Mutex::default() }
    }
}

impl Accounts {
    /// Asks for accounts of a name from now on; for none when it is `None`.
    pub fn ask(&self, account: Option<&str>) {
        self.wanted.send_if_modified(|wanted| {
            let is_news = wanted.as_deref() != account;
            if is_news {
                *wanted = account.map(str::to_owned);
            }
            is_news
        });
    }

    /// The namespaces that have an account of the name. None: not known yet.
    pub fn namespaces(&self, account: &str) -> Option<BTreeSet<String>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().filter(|found| found.account == account).map(|found| found.namespaces.clone())
    }

    /// Keeps what is known up to date, and rings the cache's bell. Never ends.
    pub async fn follow(self: Arc<Self>, client: Client, cache: Arc<Cache>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let account = wanted.borrow_and_update().clone();
            let watching = async {
                match &account {
                    Some(account) => self.watch(client.clone(), account, &cache).await,
                    None => stand_still().await,
                }
            };
            tokio::select! {
                biased;
                () = watching => {}
                changed = wanted.changed() => {
                    // The sender lives as long as this.
                    let _ = changed;
                    self.set(None, &cache);
                }
            }
        }
    }

    async fn watch(&self, client: Client, account: &str, cache: &Cache) {
        let api: Api<PartialObjectMeta<ServiceAccount>> = Api::all(client);
        let config = all().fields(&format!("metadata.name={account}"));
        let mut namespaces = BTreeSet::new();
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = next(&mut events, "accounts of Prometheus", |_| ()).await {
            use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
            let listing = matches!(event, Init | InitApply(_));
            match event {
                Init => namespaces.clear(),
                InitDone => {}
                InitApply(object) | Apply(object) => namespaces.extend(object.namespace()),
                Delete(object) => {
                    namespaces.remove(&object.namespace().unwrap_or_default());
                }
            }
            if !listing {
                self.set(Some(Found { account: account.to_owned(), namespaces: namespaces.clone() }), cache);
            }
        }
        stand_still().await;
    }

    fn set(&self, new: Option<Found>, cache: &Cache) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *found != new;
        *found = new;
        drop(found);
        if is_news {
            cache.ring();
        }
    }
}
