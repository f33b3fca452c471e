//! An administrator edits the configuration, field by field, and nobody is told that the suite is not available.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kubevirt_tests::{World, condition_of, simulate};
use serde_json::{Value, json};

use super::fields::{Step, around, part, schema, shown, smallest};
use super::support::install;

/// Most fields take a sample value; so many refused by rules would mean that little is edited.
const MOST_REFUSED: usize = 25;

/// The fields of `spec.configuration`, by its own field in which they are.
fn fields(leaves: Vec<Vec<Step>>) -> BTreeMap<String, Vec<Vec<Step>>> {
    let field = |name: &str| Step::Field(name.to_owned());
    let mut found: BTreeMap<String, Vec<Vec<Step>>> = BTreeMap::new();
    for path in leaves {
        if path.starts_with(&[field("spec"), field("configuration")])
            && let Some(Step::Field(own)) = path.get(2)
        {
            found.entry(own.clone()).or_default().push(path.clone());
        }
    }
    found
}

#[test]
fn an_edit_of_the_configuration_never_makes_the_suite_unavailable() {
    simulate(async {
        let world = World::start(3, 43);
        install(&world, "v0.2.0").await;
        let kubevirts = world.kubevirts("v1");
        let told: Arc<Mutex<Vec<(i64, Value)>>> = Arc::default();
        let (api, seen) = (kubevirts.clone(), Arc::clone(&told));
        let watching = tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
            while let Ok(Some(kubevirt)) = events.try_next().await {
                let generation = kubevirt.metadata.generation.unwrap_or_default();
                let available = condition_of(&kubevirt.data, "Available").clone();
                seen.lock().expect("nobody panicked").push((generation, available));
            }
        });

        let (schema, leaves, _) = schema();
        let groups = fields(leaves);
        assert!(groups.len() > 30, "{groups:?}");
        let (mut edited, mut refused) = (0, Vec::new());
        for paths in groups.values() {
            let mut generation = None;
            for path in paths {
                let value = smallest(part(&schema, path));
                let edit = json!({"spec": around(&schema, path, &value)["spec"]});
                match kubevirts.patch("kubevirt", &PatchParams::default(), &Patch::Merge(edit)).await {
                    Ok(stored) => (edited, generation) = (edited + 1, stored.metadata.generation),
                    Err(error) => refused.push(format!("{}: {error}", shown(path))),
                }
            }
            let Some(generation) = generation else { continue };
            world
                .kubevirt_until("followed", |kubevirt| {
                    kubevirt["status"]["observedGeneration"] == generation
                        && condition_of(kubevirt, "Progressing")["status"] == "False"
                })
                .await;
        }
        assert!(refused.len() <= MOST_REFUSED, "{edited} edited, {} refused: {refused:#?}", refused.len());
        let told = told.lock().expect("nobody panicked").clone();
        watching.abort();
        assert!(told.len() > groups.len(), "each edit was seen: {}", told.len());
        let gaps: Vec<&(i64, Value)> = told.iter().filter(|(_, available)| available["status"] != "True").collect();
        assert!(gaps.is_empty(), "{gaps:#?}");
    });
}
