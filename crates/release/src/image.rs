//! The operator's own image: it tells which release this is and where its images come from.

use std::collections::BTreeMap;

use thiserror::Error;

/// The end of every operator image's path; what stands before it is the prefix of all images of the suite.
const OPERATOR: &str = "virt-operator";

/// What the operator's image says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnImage {
    /// The image as given.
    pub image: String,
    /// Everything before the last `/`; empty when the image has none.
    pub registry: String,
    /// What stands before `virt-operator` in the image's name.
    pub prefix: String,
    /// The release: the tag; for an image by digest `KUBEVIRT_VERSION`; `latest` when nothing is known.
    pub version: String,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImageError {
    #[error("the environment variable VIRT_OPERATOR_IMAGE is missing: set it to the image this operator runs from")]
    Missing,
}

impl OwnImage {
    /// Reads `VIRT_OPERATOR_IMAGE` (or the older `OPERATOR_IMAGE`) and `KUBEVIRT_VERSION`.
    ///
    /// # Errors
    /// When there is no image.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Self, ImageError> {
        let given = |key: &str| env.get(key).map(String::as_str).filter(|v| !v.is_empty());
        let image = given("VIRT_OPERATOR_IMAGE").or_else(|| given("OPERATOR_IMAGE")).ok_or(ImageError::Missing)?;
        Ok(Self::parse(image, given("KUBEVIRT_VERSION")))
    }

    /// Takes an image apart. An image that is not named `...virt-operator` has no registry and no prefix.
    pub fn parse(image: &str, kubevirt_version: Option<&str>) -> Self {
        let unknown = || kubevirt_version.unwrap_or("latest").to_string();
        let own = |registry: &str, prefix: &str, version: String| Self {
            image: image.into(),
            registry: registry.into(),
            prefix: prefix.into(),
            version,
        };
        let Some((registry, name)) = image.rsplit_once('/') else { return own("", "", unknown()) };
        let Some(at) = name.rfind(OPERATOR) else { return own("", "", unknown()) };
        let (prefix, rest) = (&name[..at], &name[at + OPERATOR.len()..]);
        match rest.as_bytes().first() {
            None => own(registry, prefix, "latest".into()),
            Some(b'@') => own(registry, prefix, unknown()),
            Some(b':') => {
                let tag = rest[1..].split_once('@').map_or(&rest[1..], |(tag, _)| tag);
                own(registry, prefix, tag.into())
            }
            Some(_) => own("", "", unknown()),
        }
    }
}

/// `<registry>/<name>:<tag>`, or with `@` when the tag is a digest.
pub fn reference(registry: &str, name: &str, tag: &str) -> String {
    let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
    format!("{registry}/{name}{separator}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_taken_apart() {
        let parts = |image, version| {
            let own = OwnImage::parse(image, version);
            (own.registry, own.prefix, own.version)
        };
        let expect = |a: &str, b: &str, c: &str| (a.to_string(), b.to_string(), c.to_string());
        assert_eq!(parts("quay.io/kubevirt/virt-operator:v1.9.0", None), expect("quay.io/kubevirt", "", "v1.9.0"));
        assert_eq!(parts("localhost:5000/k/virt-operator:v1", None), expect("localhost:5000/k", "", "v1"));
        assert_eq!(parts("reg/pre-virt-operator:v1", None), expect("reg", "pre-", "v1"));
        assert_eq!(parts("reg/virt-operator", Some("v9")), expect("reg", "", "latest"));
        assert_eq!(parts("reg/virt-operator@sha256:abc", Some("v9")), expect("reg", "", "v9"));
        assert_eq!(parts("reg/virt-operator@sha256:abc", None), expect("reg", "", "latest"));
        assert_eq!(parts("reg/virt-operator:v2@sha256:abc", Some("v9")), expect("reg", "", "v2"));
        assert_eq!(parts("virt-operator:v2", Some("v9")), expect("", "", "v9"));
        assert_eq!(parts("reg/virt-operators:v2", Some("v9")), expect("", "", "v9"));
    }

    #[test]
    fn a_digest_is_joined_with_an_at() {
        assert_eq!(reference("r", "virt-api", "v1"), "r/virt-api:v1");
        assert_eq!(reference("r", "virt-api", "sha256:00"), "r/virt-api@sha256:00");
    }
}
