//! Install strategies as artifacts in an OCI image layout: a directory with `oci-layout`, `index.json` and blobs under their
//! digests, as tools for registries copy it into a cluster without one. Nothing is believed that does not have its digest.

use std::collections::BTreeMap;
use std::io;

use kubevirt_release::strategy::{ARTIFACT_LAYERS, ARTIFACT_TYPE};
use kubevirt_runtime::host::Files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Says that a directory is a layout, and of which format.
const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";
/// The one format there is so far.
const FORMAT: &str = "1.0.0";

/// What an entry of the index is called: its version, or else the reference it was copied by.
const VERSION: &str = "org.opencontainers.image.version";
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// The largest strategy known has a megabyte, packed; a blob is read as a whole, and the operator's pod has not much memory.
const LARGEST: u64 = 16 << 20;

/// Why a strategy is not taken out of a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("{file} of the layout cannot be read: {source}")]
    Unreadable { file: String, source: io::Error },
    #[error("{file} of the layout is not what it should be: {source}")]
    Malformed { file: String, source: serde_json::Error },
    #[error("the layout has the format {found}; {FORMAT} is known")]
    Format { found: String },
    #[error("the layout has several strategies of {version}: {}", digests.join(", "))]
    Ambiguous { version: String, digests: Vec<String> },
    #[error("blob {digest}: its digest is not one of sha256, so nothing can be said about it")]
    Digest { digest: String },
    #[error("blob {digest} is said to have {size} bytes; more than {LARGEST} are not read")]
    TooLarge { digest: String, size: u64 },
    #[error("blob {digest} is damaged: it has {found_size} bytes and the digest {found}. Copy the layout again")]
    Damaged { digest: String, found: String, found_size: usize },
    #[error("manifest {digest} has {found} layers with an install strategy; it should have one")]
    Layers { digest: String, found: usize },
    #[error("blob {digest} is not text")]
    NoText { digest: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    artifact_type: Option<String>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The version that an entry of the index is of.
    fn version(&self) -> Option<&str> {
        let reference = || {
            // A whole reference, `registry/name:tag`, or a tag alone.
            let reference = self.annotations.get(REFERENCE)?;
            let name = reference.rsplit('/').next()?;
            name.split_once(':').map(|(_, tag)| tag).or((name == reference).then_some(name))
        };
        self.annotations.get(VERSION).map(String::as_str).or_else(reference).filter(|version| !version.is_empty())
    }
}

/// A directory that is a layout.
pub struct Layout<'a> {
    files: &'a dyn Files,
    dir: &'a str,
}

impl<'a> Layout<'a> {
    /// The layout in a directory; `None` where there is none.
    ///
    /// # Errors
    /// There is one of another format.
    pub fn find(files: &'a dyn Files, dir: &'a str) -> Result<Option<Self>, LayoutError> {
        let layout = Self { files, dir };
        match layout.json::<Mark>(MARK) {
            Ok(Mark { image_layout_version }) if image_layout_version == FORMAT => Ok(Some(layout)),
            Ok(Mark { image_layout_version }) => Err(LayoutError::Format { found: image_layout_version }),
            Err(LayoutError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The versions of which it has a strategy.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn versions(&self) -> Result<Vec<String>, LayoutError> {
        // What is damaged may be anything; it is told when it is wanted.
        let strategies = self.index()?.into_iter().filter(|entry| self.is_strategy(entry).unwrap_or_default());
        Ok(strategies.filter_map(|entry| entry.version().map(str::to_owned)).collect())
    }

    /// The text of a version's strategy, as it was put in; `None` where there is none of that version.
    ///
    /// # Errors
    /// A blob on the way is missing, damaged, or not what it should be.
    pub fn strategy(&self, version: &str) -> Result<Option<String>, LayoutError> {
        let mut found = Vec::new();
        for entry in self.index()?.into_iter().filter(|entry| entry.version() == Some(version)) {
            if self.is_strategy(&entry)? {
                found.push(entry);
            }
        }
        found.sort_by(|one, other| one.digest.cmp(&other.digest));
        found.dedup_by(|one, other| one.digest == other.digest);
        let entry = match found.as_slice() {
            [] => return Ok(None),
            [entry] => entry,
            several => {
                let digests = several.iter().map(|entry| entry.digest.clone()).collect();
                return Err(LayoutError::Ambiguous { version: version.to_owned(), digests });
            }
        };
        let layers: Vec<Descriptor> = self.manifest(entry)?.layers.into_iter().filter(is_layer).collect();
        let [layer] = layers.as_slice() else {
            return Err(LayoutError::Layers { digest: entry.digest.clone(), found: layers.len() });
        };
        let text = String::from_utf8(self.blob(layer)?);
        text.map(Some).map_err(|_| LayoutError::NoText { digest: layer.digest.clone() })
    }

    fn index(&self) -> Result<Vec<Descriptor>, LayoutError> {
        Ok(self.json::<Index>(INDEX)?.manifests)
    }

    /// Whether an entry is a strategy and not, say, an image. Older tools leave it to the manifest to say so.
    fn is_strategy(&self, entry: &Descriptor) -> Result<bool, LayoutError> {
        if let Some(kind) = &entry.artifact_type {
            return Ok(kind == ARTIFACT_TYPE);
        }
        let Manifest { artifact_type, layers } = self.manifest(entry)?;
        Ok(artifact_type.as_deref() == Some(ARTIFACT_TYPE) || layers.iter().any(is_layer))
    }

    fn manifest(&self, entry: &Descriptor) -> Result<Manifest, LayoutError> {
        let bytes = self.blob(entry)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| LayoutError::Malformed { file: format!("manifest {}", entry.digest), source })
    }

    /// A blob, which has the size and the digest by which it is known.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let Descriptor { digest, size, .. } = descriptor;
        let is_hex =
            |text: &&str| text.len() == 2 * Sha256::output_size() && text.bytes().all(|it| it.is_ascii_hexdigit());
        let Some(hex) = digest.strip_prefix("sha256:").filter(is_hex) else {
            return Err(LayoutError::Digest { digest: digest.clone() });
        };
        if *size > LARGEST {
            return Err(LayoutError::TooLarge { digest: digest.clone(), size: *size });
        }
        // One byte more than is said is damage, and is told as such.
        let bytes = self.read(&format!("blobs/sha256/{hex}"), size.saturating_add(1))?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != hex || u64::try_from(bytes.len()) != Ok(*size) {
            let (found, found_size) = (format!("sha256:{found}"), bytes.len());
            return Err(LayoutError::Damaged { digest: digest.clone(), found, found_size });
        }
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, LayoutError> {
        let bytes = self.read(file, LARGEST)?;
        serde_json::from_slice(&bytes).map_err(|source| LayoutError::Malformed { file: file.to_owned(), source })
    }

    /// What the index says, as it lies there: as long as it says the same, so does everything it leads to.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn index_text(&self) -> Result<Vec<u8>, LayoutError> {
        self.read(INDEX, LARGEST)
    }

    fn read(&self, file: &str, most: u64) -> Result<Vec<u8>, LayoutError> {
        let path = format!("{}/{file}", self.dir);
        self.files.read_at_most(&path, most).map_err(|source| LayoutError::Unreadable { file: file.to_owned(), source })
    }
}

fn is_layer(layer: &Descriptor) -> bool {
    ARTIFACT_LAYERS.contains(&layer.media_type.as_str())
}

#[cfg(test)]
mod tests;
