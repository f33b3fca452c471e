//! The images that simulated nodes can pull: the code of this build stands in for each release in the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use kubevirt_runtime::host::Program;
use nanokube_nodes::{Image, Images};

/// Images by full reference; anything else cannot be pulled.
#[derive(Clone, Default)]
pub struct Table(BTreeMap<String, Image>);

impl Table {
    /// Every component of the given releases, in the given registry.
    pub fn suite(registry: &str, versions: &[&str]) -> Self {
        let programs: [(&str, Arc<dyn Program>); 4] = [
            ("virt-operator", Arc::new(virt_operator::program())),
            ("virt-api", Arc::new(virt_api::program())),
            ("virt-controller", Arc::new(virt_controller::program())),
            ("virt-handler", Arc::new(virt_handler::program())),
        ];
        let mut table = Self::default();
        for version in versions {
            for (name, program) in &programs {
                table.0.insert(format!("{registry}/{name}:{version}"), Image::Program(Arc::clone(program)));
            }
        }
        table
    }

    /// Adds an image that runs and does nothing.
    #[must_use]
    pub fn with_idle(mut self, reference: &str) -> Self {
        self.0.insert(reference.to_owned(), Image::Idle);
        self
    }
}

impl Images for Table {
    fn find(&self, image: &str) -> Option<Image> {
        self.0.get(image).cloned()
    }
}
