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

/// The longest name that registries take, without tag and digest.
const LONGEST_NAME: usize = 255;
/// The longest tag that registries take.
const LONGEST_TAG: usize = 128;

/// Why no container runtime would take a reference; `None` for one that may be taken.
pub fn flaw(reference: &str) -> Option<&'static str> {
    if reference.is_empty() {
        return Some("there is none");
    }
    if !reference.chars().all(|c| c.is_ascii_graphic()) {
        return Some("it has a space or another character that no reference may have");
    }
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Some("its digest is none");
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Some("its tag is none: up to 128 letters, digits, `_`, `.` and `-`");
    }
    if name.len() > LONGEST_NAME {
        return Some("its name is longer than 255 characters");
    }
    // What looks like a host is one; registries are not asked about here.
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        _ => name,
    };
    let is_path = path.split('/').all(is_component);
    (!is_path).then_some("its name is none: parts of small letters and digits, joined by `.`, `_`, `__` or `-`")
}

fn is_host(first: &str) -> bool {
    first == "localhost"
        || (first.len() > 1 && first.contains(|c: char| matches!(c, '.' | ':') || c.is_ascii_uppercase()))
}

/// Of algorithms that are not known only the form is asked for.
fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    match algorithm {
        "sha256" => hex.len() == 64 && is_hex,
        "sha512" => hex.len() == 128 && is_hex,
        other => !other.is_empty() && !hex.is_empty(),
    }
}

fn is_tag(tag: &str) -> bool {
    let begins = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    begins && tag.len() <= LONGEST_TAG && tag.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it))
}

/// Small letters and digits, with separators between them.
fn is_component(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_plain = part.starts_with(is_plain) && part.ends_with(is_plain);
    ends_plain
        && part
            .split(is_plain)
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_that_no_runtime_would_take_has_a_flaw() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for good in [
            "virt-api",
            "virt-api:v1.9.0",
            "localhost/kubevirt/virt-api:v0.1.0",
            "localhost:5000/k/virt-api",
            "quay.io/kubevirt/virt-api:devel_1-x.Y",
            "Registry/a/b",
            "[fd00::1]:5000/a/b:v1",
            "r/a__b/c--d.e_f:1",
            &format!("quay.io/kubevirt/virt-api@{digest}"),
            &format!("quay.io/kubevirt/virt-api:v1@{digest}"),
            "r.io/a@other+x:abc",
        ] {
            assert_eq!(flaw(good), None, "{good}");
        }
        for bad in [
            "",
            "quay.io/kubevirt/virt-api:v1 ",
            "quay.io/kubevirt/virt-api:",
            "quay.io/kubevirt/virt-api:-1",
            "quay.io/kubevirt/virt-api:v1+build",
            "quay.io/KubeVirt/virt-api",
            "quay.io//virt-api",
            "quay.io/kubevirt/",
            "quay.io/a._b",
            "quay.io/a___b",
            "quay.io/-a",
            "https://quay.io/kubevirt/virt-api:v1",
            "quay.io/kubevirt/virt-api@sha256:abc",
            "quay.io/kubevirt/virt-api@v1",
            &format!("quay.io/a@{digest}@{digest}"),
            &format!("quay.io/{}", "a".repeat(256)),
            &format!("quay.io/a:{}", "a".repeat(129)),
        ] {
            assert!(flaw(bad).is_some(), "{bad}");
        }
    }

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
