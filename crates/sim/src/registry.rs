//! The images of a simulated world: the real code of the suite, and what a registry or a release can do wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nanokube::Injector;
use nanokube_cli::images::Table;
use nanokube_nodes::{Image, Images};
use serde::{Deserialize, Serialize};

use crate::process::{Lives, crashing};

/// The registry of every world.
pub(crate) const REGISTRY: &str = "localhost/kubevirt";

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sickness {
    /// It can't be pulled.
    Missing,
    /// It ends with an error as soon as it starts.
    Crashes,
}

/// Images by reference. Clones are the same registry.
#[derive(Clone)]
pub(crate) struct Registry {
    suite: Table,
    lives: Lives,
    injector: Option<Arc<Injector>>,
    sick: Arc<Mutex<BTreeMap<String, Sickness>>>,
}

impl Registry {
    pub(crate) fn new(versions: &[&str], lives: Lives, injector: Option<Arc<Injector>>) -> Self {
        Self { suite: Table::suite(REGISTRY, versions), lives, injector, sick: Arc::default() }
    }

    /// Makes a component's image sick, or well again.
    pub(crate) fn set(&self, component: &str, version: &str, sickness: Option<Sickness>) {
        let reference = format!("{REGISTRY}/{component}:{version}");
        let mut sick = self.sick.lock().unwrap_or_else(PoisonError::into_inner);
        match sickness {
            Some(sickness) => sick.insert(reference, sickness),
            None => sick.remove(&reference),
        };
    }
}

impl Images for Registry {
    fn find(&self, image: &str) -> Option<Image> {
        let sickness = self.sick.lock().unwrap_or_else(PoisonError::into_inner).get(image).copied();
        match sickness {
            Some(Sickness::Missing) => return None,
            Some(Sickness::Crashes) => return Some(Image::Program(Arc::new(crashing))),
            None => {}
        }
        match self.suite.find(image)? {
            Image::Program(program) if image.contains("/virt-operator:") => {
                Some(Image::Program(self.lives.mortal(program, self.injector.clone())))
            }
            other => Some(other),
        }
    }
}
