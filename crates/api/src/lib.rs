//! The API of `kubevirt.io` as types and CRDs: what users write and read. No IO, no clock, no randomness; it uses kube
//! only for its derive macro and never reaches kube's client.
//!
//! | module | holds |
//! |---|---|
//! | [`kubevirt`] | the KubeVirt custom resource, typed, with its CRD and its conditions |
//! | [`crds`] | every other CRD of the suite as one table (open schemas) |
//! | [`names`] | labels, annotations and finalizers that other programs look for |

pub mod crds;
pub mod kubevirt;
pub mod names;

/// Declares a struct of the API whose fields are all optional: absent fields stay absent when written back.
macro_rules! api_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }
    };
}
pub(crate) use api_struct;
