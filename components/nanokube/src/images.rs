//! The images that nodes can pull: on simulated nodes the code of this build stands in for each release in the table, on
//! process nodes each release's own programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use kubevirt_runtime::host::{Host, Program};
use nanokube_nodes::{Image, Images};

/// The programs of the suite that have an image.
const COMPONENTS: [&str; 4] = ["virt-operator", "virt-api", "virt-controller", "virt-handler"];

/// Why process nodes have no images.
#[derive(Debug, thiserror::Error)]
pub enum NoPrograms {
    #[error("read the image directory {dir}")]
    Directory { dir: PathBuf, source: std::io::Error },
    #[error("find this program's own directory: {0}")]
    Own(#[source] std::io::Error),
    #[error(
        "no programs in {dir}: build the components (cargo build), or give --image-dir a directory with VERSION/COMPONENT"
    )]
    None { dir: PathBuf },
}

/// What is wrong with a component of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It ends soon after each start.
    Crashes,
    /// It runs and answers nothing.
    NeverReady,
    /// Its image cannot be pulled.
    NoImage,
}

fn crashes(_: Host) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async { anyhow::bail!("this build is broken: it ends as soon as it is started") })
}

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

    /// The components' programs of the given releases. With a directory, `DIR/VERSION/COMPONENT`, whatever versions it has;
    /// without one, the programs beside this one stand in for every version.
    ///
    /// # Errors
    /// The directory cannot be read, or there is no program at all.
    pub fn processes(registry: &str, versions: &[&str], dir: Option<&Path>) -> Result<Self, NoPrograms> {
        let mut places: BTreeMap<String, PathBuf> = BTreeMap::new();
        let beside;
        let searched = match dir {
            Some(dir) => {
                let failed = |source| NoPrograms::Directory { dir: dir.to_owned(), source };
                for entry in std::fs::read_dir(dir).map_err(failed)? {
                    let entry = entry.map_err(failed)?;
                    places.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
                }
                dir
            }
            None => {
                let own = std::env::current_exe().map_err(NoPrograms::Own)?;
                beside = own.parent().unwrap_or(Path::new("/")).to_owned();
                places.extend(versions.iter().map(|version| ((*version).to_owned(), beside.clone())));
                beside.as_path()
            }
        };
        let mut table = Self::default();
        for (version, place) in places {
            for name in COMPONENTS {
                let program = place.join(name);
                if program.is_file() {
                    // A relative path would be looked for in the pod's directory.
                    let program = std::path::absolute(&program).unwrap_or(program);
                    table.0.insert(format!("{registry}/{name}:{version}"), Image::Executable(program));
                }
            }
        }
        if table.0.is_empty() { Err(NoPrograms::None { dir: searched.to_owned() }) } else { Ok(table) }
    }

    /// Gives a component of a release a defect: releases that do not work differ from others in this alone.
    #[must_use]
    pub fn with_defect(mut self, registry: &str, component: &str, version: &str, defect: Defect) -> Self {
        let reference = format!("{registry}/{component}:{version}");
        let image = match defect {
            Defect::Crashes => Image::Program(Arc::new(crashes)),
            Defect::NeverReady => Image::Idle,
            Defect::NoImage => {
                self.0.remove(&reference);
                return self;
            }
        };
        self.0.insert(reference, image);
        self
    }

    /// Makes an image's program one that ends as soon as it is started.
    #[must_use]
    pub fn with_crashing(mut self, reference: &str, process: bool) -> Self {
        // Every system has this program, which does nothing but fail.
        let image =
            if process { Image::Executable(PathBuf::from("/bin/false")) } else { Image::Program(Arc::new(crashes)) };
        self.0.insert(reference.to_owned(), image);
        self
    }

    /// Adds every image once more, under a name that begins with `prefix`.
    #[must_use]
    pub fn with_prefixed(mut self, prefix: &str) -> Self {
        let named = |(reference, image): (&String, &Image)| {
            let (registry, name) = reference.rsplit_once('/')?;
            Some((format!("{registry}/{prefix}{name}"), image.clone()))
        };
        let more: Vec<_> = self.0.iter().filter_map(named).collect();
        self.0.extend(more);
        self
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
