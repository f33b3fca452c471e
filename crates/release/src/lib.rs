//! What a release of the suite is, as values: every object of a version, the operator's own manifest, and the
//! install-strategy protocol by which another version's objects are handed over. No IO, no clock, no randomness.
//!
//! ```text
//! own image, environment, CR spec -> config::DeploymentConfig -> render::render ---+
//!                                                                                  +-> strategy::Strategy
//!                                        a ConfigMap of another release -> decode -+          |
//!                                                         CR spec, nodes -> desired::desired -+-> Vec<Object>
//! ```

pub mod certificates;
pub mod config;
pub mod customize;
pub mod desired;
pub mod extras;
pub mod gate;
pub mod image;
pub mod images;
pub mod index;
pub mod kinds;
pub mod namespace;
pub mod object;
pub mod operator_manifest;
pub mod rbac;
pub mod render;
pub mod strategy;
pub mod version;
pub mod yaml;

pub use certificates::CertificateSpec;
pub use config::DeploymentConfig;
pub use desired::{Inputs, desired};
pub use image::OwnImage;
pub use kinds::{Care, Kind, Phase};
pub use object::{Object, ObjectKey};
pub use render::render;
pub use strategy::Strategy;
