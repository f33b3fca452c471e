//! Carries out an uninstallation (client required): one part after another, each from what is there now.

use kubevirt_api::kubevirt::KubeVirt;
use kubevirt_release::{Kind, ObjectKey, certificates, namespace};

use super::apply::{self, Outcomes};
use super::dereference::{find_strategies, find_unlabelled};
use super::status::Ended;
use super::uninstall::{self, Part, Stage};
use super::update_status::{self, Finalizer, update_metadata};
use super::{Error, Next, Reconciler, World};
use crate::cache::{Live, text};
use crate::instances::{self, Depth, definitions};
use crate::{nodes, watches};

impl Reconciler {
    /// Removes what can be removed now, and says what holds up the rest.
    pub(super) async fn uninstall(&self, cr: &KubeVirt, live: &Live) -> Result<Next, Error> {
        self.leave_history().await?;
        let mut outcomes = Outcomes::new();
        let mut looked = false;
        let result = loop {
            let world = self.world();
            let Some(stage) = uninstall::stage(&world) else {
                // What lost its label, or what other operators left, no watch shows.
                if !std::mem::replace(&mut looked, true) {
                    let known = certificates::known(&self.settings.namespace);
                    find_unlabelled(&self.client, &self.settings.namespace, &known, &self.cache).await?;
                    find_strategies(&self.client, &self.settings.namespace, &self.cache).await?;
                    continue;
                }
                break self.forget_namespace(&world).await.map(|()| None);
            };
            if stage.is_due() {
                if let Err(error) = self.remove(&stage, &world, &mut outcomes).await {
                    break Err(error);
                }
            } else {
                break self.explain(stage, world).await.map(Some);
            }
        };
        self.metrics.wrote(&outcomes);
        let world = self.world();
        match result {
            Ok(Some(stage)) => {
                self.metrics.held_up(&stage.blockers);
                self.end(cr, live, &Ended::Deleting { message: stage.message() }, &world).await?;
            }
            Ok(None) => {
                self.metrics.held_up(&[]);
                self.end(cr, live, &Ended::Deleted, &world).await?;
                // The status has just been written: the finalizer goes from what the cache has now.
                let key = update_status::key(live);
                let newest = self.cache.objects().get(&key).map_or_else(|| Live::clone(live), Live::clone);
                update_metadata(&newest, Finalizer::Remove, &self.writer, &self.cache).await?;
            }
            Err(error) if error.is_passing() => return Err(error),
            Err(error) => {
                self.end(cr, live, &Ended::NotDeleted { message: error.to_string() }, &world).await?;
                return Err(error);
            }
        }
        Ok(Next::default())
    }

    async fn remove(&self, stage: &Stage, world: &World, outcomes: &mut Outcomes) -> Result<(), Error> {
        for key in &stage.hold {
            self.definition(key, world, true).await?;
        }
        for key in &stage.delete {
            // Holding it has changed the definition; its uid is the same.
            apply::delete(key, world, &self.writer, &self.cache, outcomes).await?;
        }
        for key in &stage.release {
            self.definition(key, world, false).await?;
        }
        for name in &stage.nodes {
            self.clean(name).await?;
        }
        Ok(())
    }

    /// Puts the operator's finalizer on a definition, or takes it off.
    async fn definition(&self, key: &ObjectKey, world: &World, keep: bool) -> Result<(), Error> {
        let Some(live) = world.objects.get(key) else { return Ok(()) };
        let changes = uninstall::finalizer_change(live, keep);
        match self.writer.merge(key, None, &changes).await {
            Ok(written) => {
                let Some(stored) = written.live else { return Ok(()) };
                if uninstall::finalizers(&stored).is_empty() && text(&stored, "/metadata/deletionTimestamp").is_some() {
                    self.cache.remove(key, text(live, "/metadata/uid"));
                } else {
                    self.cache.store(key.clone(), stored);
                }
                Ok(())
            }
            Err(kubevirt_apply::Error::Refused { code: 404, .. }) => {
                self.cache.remove(key, text(live, "/metadata/uid"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the suite's labels off a node.
    async fn clean(&self, name: &str) -> Result<(), Error> {
        let key = ObjectKey::new(Kind::Node, None, name);
        let Some(node) = watches::get(&self.client, &key).await? else {
            self.cache.remove_node(name);
            return Ok(());
        };
        let stored = match nodes::cleaned(&node) {
            Some(changes) => self.writer.merge(&key, None, &changes).await?.live.unwrap_or(node),
            None => node,
        };
        self.cache.store_node(name.to_owned(), watches::facts_of(&stored));
        Ok(())
    }

    /// The stage with what holds it up; for users' objects somebody has to be asked.
    async fn explain(&self, stage: Stage, mut world: World) -> Result<Stage, Error> {
        if stage.part != Part::Definitions {
            return Ok(stage);
        }
        world.instances = instances::look(&self.client, &definitions(&world), Depth::Sample).await?;
        Ok(uninstall::stage(&world).unwrap_or(stage))
    }

    /// The namespace is not ours; a label on it is.
    async fn forget_namespace(&self, world: &World) -> Result<(), Error> {
        let wanted = namespace::left_alone(&self.settings.namespace);
        let Some(live) = world.objects.get(&wanted.key()) else { return Ok(()) };
        let written = self.writer.apply(&wanted, Some(live)).await?;
        if let Some(live) = written.live {
            self.cache.store(wanted.key(), live);
        }
        Ok(())
    }
}
