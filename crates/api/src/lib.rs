//! The API of `kubevirt.io` as types and CRDs: what users write and read. No IO, no clock, no randomness; it uses kube
//! only for its derive macro and never reaches kube's client.
//!
//! | module | holds |
//! |---|---|
//! | [`kubevirt`] | the KubeVirt custom resource, typed, with its CRD and its conditions |
//! | [`crds`] | every other CRD of the suite as one table (open schemas) |
//! | [`gates`] | feature gates and how far each has come |
//! | [`deprecated`] | what of a KubeVirt spec is on its way out, and what to write instead |
//! | [`upgrade`] | the history of changes of version, and how careful they are |
//! | [`names`] | labels, annotations and finalizers that other programs look for |

pub mod crds;
pub mod deprecated;
pub mod gates;
pub mod kubevirt;
pub mod names;
pub mod upgrade;

/// An object whose content nobody here reads: it is passed on as it was given. The CRD's schema says what it may hold.
pub type AsGiven = serde_json::Map<String, serde_json::Value>;

/// Declares a struct of the API whose fields are all optional: absent fields stay absent when written back, and fields
/// that a later release added stay as they were.
macro_rules! api_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
            /// Fields this release does not know, kept as they are. The schema knows none.
            #[serde(flatten)]
            #[schemars(skip)]
            pub other: crate::AsGiven,
        }
    };
}
pub(crate) use api_struct;
