//! F16: certificates, or the authorities that sign them, are renewed while the version changes.

use std::collections::BTreeMap;
use std::time::Duration;

use kubevirt_release::Kind;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{begin as ask, is_served, is_upgraded};
use crate::invariants::certificates;
use crate::story::{Error, PATIENCE, PUBLISHED, brief_certificates, usual_certificates};
use crate::world::World;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Renewal {
    Certificates,
    Authorities,
}

/// How long before the first is due the newer version is named: the change takes three times as long, and by then its
/// first pods are being replaced.
const LEAD: i64 = 3;

/// How long before its end each is renewed, in seconds, as [`brief_certificates`] says.
const SERVERS_BEFORE: i64 = 5 * 60;
const AUTHORITIES_BEFORE: i64 = 10 * 60;

/// The certificates in question, by Secret: their ends in seconds since 1970, and their content.
fn all(what: Renewal, world: &World) -> BTreeMap<String, (i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for (secret, pem) in certificates(&world.cluster.api) {
        let Ok(certificate) = pem.parse_x509() else { continue };
        if certificate.is_ca() == (what == Renewal::Authorities) {
            found.insert(secret, (certificate.validity().not_after.timestamp(), pem.contents.clone()));
        }
    }
    found
}

/// Names the newer version right before the first renewal, and lets certificates live as usual once it runs.
pub(crate) async fn begin(what: Renewal, world: &World) -> Result<(), Error> {
    world.merge(Kind::KubeVirt, "kubevirt", &brief_certificates()).await?;
    sleep(PUBLISHED).await;
    world.until("content with brief certificates", PATIENCE, is_served).await?;
    let before = if what == Renewal::Authorities { AUTHORITIES_BEFORE } else { SERVERS_BEFORE };
    let now = world.clock.now().as_second();
    let dues = all(what, world).into_values().map(|(end, _)| end - before - LEAD - now);
    let wait = dues.filter(|due| *due >= 0).min().unwrap_or_default();
    sleep(Duration::from_secs(wait.unsigned_abs())).await;
    let old = all(what, world);
    ask(world).await?;
    world.until("done: upgrade", PATIENCE, is_upgraded).await?;
    let is_renewed = |world: &World| {
        let new = all(what, world);
        let renewed = old.iter().filter(|(secret, old)| new.get(*secret).is_some_and(|new| new != *old)).count();
        if renewed == 0 { Err(format!("none of {} was renewed", old.len())) } else { Ok(()) }
    };
    world.until("renewed meanwhile", Duration::ZERO, is_renewed).await?;
    world.referee.note_fault("F16", &format!("{what:?} were renewed while the version changed"));
    world.merge(Kind::KubeVirt, "kubevirt", &usual_certificates()).await?;
    sleep(PUBLISHED).await;
    Ok(())
}
