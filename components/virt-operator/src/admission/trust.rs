//! What the webhook server follows on every replica: its own certificate's Secret, and the authority of the API server's
//! client certificates. One watch of one object each.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::{Client, Resource};
use kubevirt_release::certificates;
use kubevirt_runtime::host::Files;
use kubevirt_runtime::tls::ClientAuthorities;
use serde::de::DeserializeOwned;

use crate::follow::{Seen, all, follow};

/// The ConfigMap in which every API server publishes whose client certificates it uses.
const AUTHENTICATION: (&str, &str, &str) =
    ("kube-system", "extension-apiserver-authentication", "requestheader-client-ca-file");

/// The operator's certificate as files: from its Secret as the watch shows it, else as it is mounted. A kubelet mounts a
/// Secret that came after the pod within a minute or two; an installation does not wait for that.
#[derive(Clone)]
pub(super) struct OwnSecret {
    mounted: Arc<dyn Files>,
    directory: &'static str,
    seen: Arc<Mutex<Option<Secret>>>,
}

impl OwnSecret {
    pub(super) fn new(mounted: Arc<dyn Files>, directory: &'static str) -> Self {
        Self { mounted, directory, seen: Arc::default() }
    }

    fn see(&self, secret: Option<Secret>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    fn entry(&self, path: &str) -> Option<Vec<u8>> {
        let name = path.strip_prefix(self.directory)?.strip_prefix('/')?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let data = seen.as_ref()?.data.as_ref()?;
        // Both or none: a key without its certificate would not fit the mounted one.
        let whole = [certificates::CERTIFICATE_KEY, certificates::PRIVATE_KEY_KEY];
        if !whole.iter().all(|key| data.get(*key).is_some_and(|entry| !entry.0.is_empty())) {
            return None;
        }
        data.get(name).map(|entry| entry.0.clone())
    }
}

impl Files for OwnSecret {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match self.entry(path) {
            Some(entry) => Ok(entry),
            None => self.mounted.read(path),
        }
    }
}

/// Shows the Secret to `own` as it changes. Never ends.
pub(super) async fn follow_secret(client: Client, namespace: String, name: &'static str, own: OwnSecret) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    follow_one(api, name, |secret| own.see(secret)).await;
}

/// Hands the API server's authority to `clients` as it changes. Never ends.
pub(super) async fn follow_clients(client: Client, clients: ClientAuthorities) {
    let (namespace, name, key) = AUTHENTICATION;
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    follow_one(api, name, |map| {
        let data = map.and_then(|map| map.data).unwrap_or_default();
        clients.set(data.get(key).map_or("", String::as_str));
    })
    .await;
}

async fn follow_one<K>(api: Api<K>, name: &str, mut see: impl FnMut(Option<K>))
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config = all().fields(&format!("metadata.name={name}"));
    follow(api, config, name, |seen| match seen {
        Seen::All(objects) => see(objects.into_iter().next()),
        Seen::Changed(object) => see(Some(object)),
        Seen::Gone(_) => see(None),
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    struct Mounted;

    impl Files for Mounted {
        fn read(&self, path: &str) -> io::Result<Vec<u8>> {
            match path {
                "/certs/tls.crt" | "/certs/tls.key" => Ok(b"mounted".to_vec()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn secret(entries: &[(&str, &str)]) -> Option<Secret> {
        let data: BTreeMap<String, ByteString> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        Some(Secret { data: Some(data), ..Secret::default() })
    }

    #[test]
    fn the_secret_counts_as_soon_as_it_is_whole_and_the_mount_until_then() {
        let own = OwnSecret::new(Arc::new(Mounted), "/certs");
        let read = |name: &str| own.read(name).map(|content| String::from_utf8(content).expect("text")).ok();
        let pair = || (read("/certs/tls.crt"), read("/certs/tls.key"));
        let both = |text: &str| (Some(text.to_owned()), Some(text.to_owned()));
        assert_eq!(pair(), both("mounted"));
        own.see(secret(&[("tls.crt", "seen"), ("tls.key", "seen")]));
        assert_eq!(pair(), both("seen"));
        own.see(secret(&[("tls.crt", "half"), ("tls.key", "")]));
        assert_eq!(pair(), both("mounted"), "half a pair fits nothing");
        own.see(None);
        assert_eq!(pair(), both("mounted"));
        assert_eq!(read("/elsewhere/tls.crt"), None);
    }
}
