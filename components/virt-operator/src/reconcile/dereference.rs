//! Step 1: what there is, read from the cache in one go. Only Secrets of certificates that no watch shows are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use kubevirt_api::kubevirt::ConditionUpdate;
use kubevirt_api::names::label;
use kubevirt_release::{CertificateSpec, Kind, ObjectKey};
use kubevirt_upgrade::{Absence, Refused};

use super::uninstall::Instances;
use crate::before::Looked;
use crate::cache::{Cache, Live, Nodes, Objects};
use crate::catalogue::Entries;
use crate::contest::Contests;
use crate::endpoints::Slices;
use crate::kept::Kept;
use crate::pods::Pods;
use crate::strategies::Strategies;
use crate::upgrades::History;
use crate::watches;

/// The cluster as one pass sees it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The KubeVirt CRs of all namespaces.
    pub crs: Vec<Live>,
    /// Everything else that is labelled as managed by the operator.
    pub objects: Objects,
    pub pods: Pods,
    pub nodes: Nodes,
    /// EndpointSlices of the services that the API server calls; none where nobody follows them.
    pub endpoints: Option<Slices>,
    /// Of those services, the ones that were asked and did not answer as the API server expects, and why.
    pub mute: BTreeMap<String, String>,
    /// Writes that did not last, which are not repeated now.
    pub contests: Contests,
    /// Kinds of optional APIs that are not served.
    pub unserved: BTreeSet<Kind>,
    /// The ready-made types, by kind; a kind that was not listed yet, or is not served, is missing.
    pub types: BTreeMap<Kind, Arc<Entries>>,
    /// What the conditions beyond the contract say; those that are not known are missing.
    pub(crate) beside: Vec<ConditionUpdate>,
    /// The install strategies among the objects.
    pub strategies: Strategies,
    /// The versions whose strategies lie in the directory for them.
    pub shelf: BTreeSet<String>,
    /// What earlier passes found out about the same inputs.
    pub kept: Kept,
    /// Changes of version, and how careful they are.
    pub upgrades: History,
    /// What was looked at before a change of version.
    pub before: Arc<Looked>,
    /// What the server refuses of one.
    pub refused: Option<Refused>,
    /// Nodes that are not there, as far as a roll-out asked about them.
    pub absent: BTreeMap<String, Absence>,
    /// The nodes of which one goes first, where the policy says so.
    pub first_nodes: BTreeSet<String>,
    /// Users' objects by definition, where they were looked at: only for the removal of the suite.
    pub instances: BTreeMap<String, Instances>,
}

/// Everything the cache knows now.
pub fn dereference(cache: &Cache) -> World {
    let strategies = cache.strategies();
    let (crs, objects) = cache.objects().into_iter().partition(|(key, _)| key.kind == Kind::KubeVirt);
    let crs: Objects = crs;
    World {
        crs: crs.into_values().collect(),
        objects,
        pods: cache.pods(),
        nodes: cache.nodes(),
        unserved: cache.unserved(),
        types: cache.catalogue.now(),
        strategies,
        kept: cache.kept.clone(),
        ..World::default()
    }
}

/// Asks for the Secrets of certificates that are not known: one whose label somebody removed is still in use, and must not
/// be taken for missing. Costs a request for each, before it is made and while it lacks its label.
///
/// # Errors
/// A request was refused or not answered.
pub(crate) async fn find_unlabelled(
    client: &Client,
    namespace: &str,
    certificates: &[CertificateSpec],
    cache: &Cache,
) -> kube::Result<()> {
    let known = cache.objects();
    for certificate in certificates {
        let key = ObjectKey::new(Kind::Secret, Some(namespace), certificate.secret);
        if !known.contains_key(&key)
            && let Some(found) = watches::get(client, &key).await?
        {
            tracing::info!(object = %key, "found without its label");
            cache.found(key, found);
        }
    }
    Ok(())
}

/// Asks for what belongs to the install-strategy protocol, whoever wrote it: it may lack the label by which things are
/// watched, and Jobs are not watched at all.
///
/// # Errors
/// A request was refused or not answered.
pub(crate) async fn find_strategies(client: &Client, namespace: &str, cache: &Cache) -> kube::Result<()> {
    for kind in [Kind::ConfigMap, Kind::Job] {
        for (key, object) in watches::labelled(client, namespace, kind, label::INSTALL_STRATEGY).await? {
            cache.found(key, object);
        }
    }
    Ok(())
}
