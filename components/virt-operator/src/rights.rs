//! What the operator itself may do, asked once before a change of version and again only while that stands in its way.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kubevirt_apply::own_rights;
use kubevirt_runtime::rest::on_behalf_of;

/// The rules in force for the operator.
pub type Held = Arc<[PolicyRule]>;

/// Whoever widens the role waits for this and for the next pass. A request in half a minute burdens nobody, and only while a
/// change is blocked.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// An answer, and what it was asked for.
#[derive(Debug)]
struct Known {
    change: String,
    at: Timestamp,
    /// It stood in the way.
    in_doubt: bool,
    held: Option<Held>,
}

/// What was answered last.
#[derive(Debug, Default)]
pub struct Rights(Mutex<Option<Known>>);

impl Rights {
    /// The rules, for a change to the deployment of an ID. None: the server did not say, or does not know all of them.
    pub async fn ask(&self, client: &Client, namespace: &str, change: &str, now: Timestamp) -> Option<Held> {
        if let Some(known) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && known.change == change
            && !(known.in_doubt && now.duration_since(known.at) >= AGAIN)
        {
            return known.held.clone();
        }
        let held = held(client, namespace).await;
        let known = Known { change: change.to_owned(), at: now, in_doubt: false, held: held.clone() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        held
    }

    /// Takes note that too little was held for the change.
    pub fn doubt(&self) {
        if let Some(known) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            known.in_doubt = true;
        }
    }
}

/// Asks what a service account may do, for somebody who may act on its behalf.
pub async fn of_account(client: &Client, namespace: &str, account: &str) -> Option<Held> {
    let client = on_behalf_of(client, &format!("system:serviceaccount:{namespace}:{account}")).ok()?;
    held(&client, namespace).await
}

async fn held(client: &Client, namespace: &str) -> Option<Held> {
    match own_rights(client, namespace).await {
        Ok(held) => held.map(Held::from),
        Err(error) => {
            tracing::warn!(%error, "what the operator may do could not be asked");
            None
        }
    }
}
