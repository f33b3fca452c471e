//! What is looked at before a change of version and known from no watch: what the operator itself may do, and whether the
//! Secrets are there with which images are pulled. Asked once, and again only while somebody has to mend something, or an
//! answer is missing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kubevirt_apply::own_rights;
use kubevirt_runtime::rest::on_behalf_of;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// The rules in force for the operator; `None` where the server did not say, or does not know all of them.
    pub rights: Option<Vec<PolicyRule>>,
    /// Secrets that images are to be pulled with and that are not there.
    pub missing_secrets: BTreeSet<String>,
}

/// Whoever widens the role or makes a Secret waits for this and for the next pass. A few requests in half a minute burden
/// nobody.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// An answer, and what it was asked for.
#[derive(Debug)]
struct Known {
    change: String,
    at: Timestamp,
    /// It stands in the way or is worth a warning, or not everything was answered.
    in_doubt: bool,
    looked: Arc<Looked>,
}

/// What was found last.
#[derive(Debug, Default)]
pub struct Before(Mutex<Option<Known>>);

impl Before {
    /// What there is to know for a change to the deployment of an ID, whose images are pulled with some Secrets.
    pub async fn look(
        &self,
        client: &Client,
        namespace: &str,
        change: &str,
        secrets: &[String],
        now: Timestamp,
    ) -> Arc<Looked> {
        let known = self.known(change);
        if let Some((looked, in_doubt, at)) = &known
            && !(*in_doubt && now.duration_since(*at) >= AGAIN)
        {
            return Arc::clone(looked);
        }
        let before = known.map(|(looked, ..)| looked).unwrap_or_default();
        let (looked, in_doubt) = ask(client, client, namespace, secrets, &before).await;
        let looked = Arc::new(looked);
        let known = Known { change: change.to_owned(), at: now, in_doubt, looked: Arc::clone(&looked) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        looked
    }

    /// What is known for a change, whether that is in doubt, and since when.
    fn known(&self, change: &str) -> Option<(Arc<Looked>, bool, Timestamp)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { change: _, at, in_doubt, looked } = known.as_ref().filter(|known| known.change == change)?;
        Some((Arc::clone(looked), *in_doubt, *at))
    }

    /// Takes note that what was found is to be mended by somebody.
    pub fn doubt(&self) {
        if let Some(known) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            known.in_doubt = true;
        }
    }
}

/// The same for somebody who looks from outside: of the operator's account as far as he may act on its behalf, of Secrets as
/// far as he may see them.
pub async fn from_outside(client: &Client, namespace: &str, account: &str, secrets: &[String]) -> Looked {
    let nothing = Looked::default();
    match on_behalf_of(client, &format!("system:serviceaccount:{namespace}:{account}")) {
        Ok(operator) => ask(&operator, client, namespace, secrets, &nothing).await.0,
        Err(_) => Looked { rights: None, missing_secrets: missing(client, namespace, secrets, &nothing).await.0 },
    }
}

/// What the operator may do and which Secrets are missing, each asked in somebody's name; and whether a question stayed
/// unanswered. Then what was known `before` counts on: a finding does not go because nobody could be asked.
async fn ask(
    operator: &Client,
    client: &Client,
    namespace: &str,
    secrets: &[String],
    before: &Looked,
) -> (Looked, bool) {
    let rights = own_rights(operator, namespace).await;
    let (missing_secrets, all) = missing(client, namespace, secrets, before).await;
    let unanswered = rights.is_err() || !all;
    let rights = rights.unwrap_or_else(|error| {
        tracing::warn!(%error, "what the operator may do could not be asked");
        before.rights.clone()
    });
    (Looked { rights, missing_secrets }, unanswered)
}

/// Those of some Secrets that are not there, and whether all could be asked about. Their content is not read; one that was
/// never missing and cannot be asked about counts as there.
async fn missing(client: &Client, namespace: &str, secrets: &[String], before: &Looked) -> (BTreeSet<String>, bool) {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    let (mut missing, mut all) = (BTreeSet::new(), true);
    for name in secrets {
        let is_missing = match api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await {
            Ok(found) => found.items.is_empty(),
            Err(error) => {
                all = false;
                tracing::warn!(secret = name, %error, "whether it is there could not be asked");
                before.missing_secrets.contains(name)
            }
        };
        if is_missing {
            missing.insert(name.clone());
        }
    }
    (missing, all)
}
