//! `UpgradePlan` and `UpgradePolicy` of `upgrade.kubevirt.io`: the history of changes of version, what people ask of a
//! change that is under way, and how careful changes are.
//!
//! Their definitions come with the operator's manifest, not with the suite: they are as much of use for a suite that does
//! not know them. The operator writes a plan's status and its `from` and `to`; everything else in them is the user's.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The API group of both kinds.
pub const GROUP: &str = "upgrade.kubevirt.io";
/// The one policy that is looked at; the definition admits no other name.
pub const POLICY_NAME: &str = "default";

/// One change of version: what it changes, what was asked of it, and how it went.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "upgrade.kubevirt.io",
    version = "v1alpha1",
    kind = "UpgradePlan",
    status = "UpgradePlanStatus",
    derive = "Default",
    derive = "PartialEq",
    shortname = "uplan",
    doc = "One change of the suite's version: its steps, what holds them up, and how it ended.",
    label("operator.kubevirt.io", ""),
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.from.version"}"#,
    printcolumn = r#"{"name":"To","type":"string","jsonPath":".spec.to.version"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Step","type":"string","jsonPath":".status.step"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Finished","type":"date","jsonPath":".status.finished","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePlanSpec {
    /// The version that was complete before. Written by the operator.
    #[serde(default)]
    pub from: Release,
    /// The version that is brought about. Written by the operator.
    #[serde(default)]
    pub to: Release,
    /// What is asked of this change while it is under way. Absent: that it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// A version as the custom resource's status names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    #[serde(default)]
    pub version: String,
    /// The deployment ID: it also tells two deployments of one version apart.
    #[serde(default, rename = "deploymentID")]
    pub deployment_id: String,
}

/// What a person asks of a change that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Request {
    /// Nothing further is changed until the request is taken back.
    Pause,
    /// Back to the version before; the new one is not tried again before the custom resource or the operator changes.
    Rollback,
    /// Everything stays as it is at this moment, until the custom resource or the operator changes.
    Abort,
}

/// Where a change of version is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlanState {
    #[default]
    InProgress,
    Paused,
    /// Something that a person has to decide or repair holds it up.
    Blocked,
    RollingBack,
    Succeeded,
    RolledBack,
    Aborted,
    /// Something else was asked for before it was over.
    Superseded,
}

impl PlanState {
    /// Whether nothing more will come of the plan.
    pub fn is_over(self) -> bool {
        match self {
            Self::InProgress | Self::Paused | Self::Blocked | Self::RollingBack => false,
            Self::Succeeded | Self::RolledBack | Self::Aborted | Self::Superseded => true,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Paused => "Paused",
            Self::Blocked => "Blocked",
            Self::RollingBack => "RollingBack",
            Self::Succeeded => "Succeeded",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
            Self::Superseded => "Superseded",
        }
    }
}

/// How a change of version went so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePlanStatus {
    #[serde(default)]
    pub state: PlanState,
    /// `update`, or `rollback` for a change to an older or the same version.
    #[serde(default)]
    pub mode: String,
    /// The step under way, `4/10 virt-handler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it is not simply going on, as a code (docs/reasons.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub started: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub finished: Option<Time>,
    #[serde(default)]
    pub steps: Vec<StepStatus>,
    /// The step from whose end on there is no way back, and why; absent if there always is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_of_no_return: Option<PointOfNoReturn>,
    /// Why the version before was gone back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Nodes that the change went past; they catch up when they are back. At most ten are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_nodes: Vec<SkippedNode>,
    /// What spoke against it before its first write. At most ten are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingStatus>,
    /// The custom resource's generation that asked for it.
    #[serde(default)]
    pub generation: i64,
    /// The operator that carries it out.
    #[serde(default)]
    pub operator_version: String,
}

/// One step of a change of version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Counted from 1.
    pub number: u32,
    pub name: String,
    /// `Pending`, `InProgress`, `Held` or `Done`.
    pub state: StepProgress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub started: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub finished: Option<Time>,
    /// Codes of what it waits for, mere progress left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// How many objects it looks after.
    #[serde(default)]
    pub objects: u32,
    /// How many pods it replaces.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pods: u32,
    /// What it touches, by name; of many the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<String>,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepProgress {
    #[default]
    Pending,
    InProgress,
    /// It could go on, and is kept from it.
    Held,
    Done,
}

/// From where on going back is not possible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PointOfNoReturn {
    pub step: String,
    pub why: String,
}

/// Why and when the version before was gone back to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollback {
    /// A code of docs/reasons.md.
    pub reason: String,
    pub message: String,
    #[schemars(schema_with = "time")]
    pub started: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub finished: Option<Time>,
}

/// Something that speaks against a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingStatus {
    /// A code of docs/upgrades.md.
    pub code: String,
    /// Nothing is written because of it.
    pub blocks: bool,
    pub message: String,
}

/// A node that is not waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SkippedNode {
    pub name: String,
    pub why: String,
}

/// How careful a change of version is. Everything has a default; there is at most one object, named `default`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "upgrade.kubevirt.io",
    version = "v1alpha1",
    kind = "UpgradePolicy",
    derive = "Default",
    derive = "PartialEq",
    shortname = "upolicy",
    doc = "How careful changes of the suite's version are: deadlines, pause, whether one that fails is undone.",
    label("operator.kubevirt.io", ""),
    printcolumn = r#"{"name":"Paused","type":"boolean","jsonPath":".spec.paused"}"#,
    printcolumn = r#"{"name":"Soak","type":"integer","jsonPath":".spec.soakSeconds"}"#,
    printcolumn = r#"{"name":"Wave","type":"string","jsonPath":".spec.waves.maxUnavailable"}"#,
    printcolumn = r#"{"name":"Deadline","type":"integer","jsonPath":".spec.deadlineSeconds"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePolicySpec {
    /// No change of version begins or goes on. Repairs and certificates do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Labels of the nodes of which one gets the new virt-handler first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_node_selector: Option<BTreeMap<String, String>>,
    /// Whether the images of the new virt-handler are brought onto the nodes before the first one is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_images: Option<bool>,
    /// How long the first new virt-handler has to be ready before others follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub soak_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// How long a new pod may take to become ready before the change is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub deadline_seconds: Option<i64>,
    /// How long an image may be missing before the change is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub image_grace_seconds: Option<i64>,
    /// False: a change that fails is held where it is, for a person to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic_rollback: Option<bool>,
}

/// How virt-handler spreads over the nodes once its first new pod has proven itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waves {
    /// How many nodes may be without virt-handler at once: a number, or a share like `10%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_percent")]
    pub max_unavailable: Option<IntOrString>,
    /// How long all new pods have to be ready before the next ones follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pause_seconds: Option<i64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

fn int_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": true,
        "pattern": "^([1-9][0-9]?|100)%$",
        "anyOf": [{"type": "integer"}, {"type": "string"}],
    })
}

/// Both definitions.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut policy = UpgradePolicy::crd();
    for version in &mut policy.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            let rule = serde_json::json!([{
                "rule": format!("self.metadata.name == '{POLICY_NAME}'"),
                "message": format!("the one policy that is looked at is named {POLICY_NAME}"),
            }]);
            schema.x_kubernetes_validations = serde_json::from_value(rule).ok();
        }
    }
    let mut all = vec![UpgradePlan::crd(), policy];
    for crd in &mut all {
        for version in &mut crd.spec.versions {
            let mut schema = serde_json::to_value(&version.schema).expect("a schema is plain data");
            crate::kubevirt::without_foreign_formats(&mut schema);
            version.schema = serde_json::from_value(schema).expect("only formats were removed");
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use apimachinery::schema::Schema;
    use serde_json::{Value, json};

    use super::*;

    fn schema(kind: &str) -> Schema {
        let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).expect("one of the two");
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("plain data")["openAPIV3Schema"].take();
        Schema::from_crd(&schema).expect("a structural schema")
    }

    #[test]
    fn what_is_written_fits_the_schema_and_comes_back() {
        let time = Time("2026-01-01T00:00:00Z".parse().expect("a time"));
        let status = UpgradePlanStatus {
            state: PlanState::RollingBack,
            mode: "update".into(),
            step: Some("4/10 virt-handler".into()),
            started: Some(time.clone()),
            steps: vec![StepStatus { number: 1, name: "crds".into(), pods: 2, ..StepStatus::default() }],
            rollback: Some(Rollback { reason: "X".into(), message: "y".into(), started: time, finished: None }),
            ..UpgradePlanStatus::default()
        };
        let spec = UpgradePlanSpec { request: Some(Request::Rollback), ..UpgradePlanSpec::default() };
        let plan = UpgradePlan { status: Some(status), ..UpgradePlan::new("upgrade-1", spec) };
        let value = serde_json::to_value(&plan).expect("plain data");
        assert_eq!(schema("UpgradePlan").unknown_fields(&value), Vec::<String>::new());
        assert_eq!(serde_json::from_value::<UpgradePlan>(value).expect("an UpgradePlan"), plan);
    }

    #[test]
    fn a_policy_may_leave_everything_out() {
        let policy: UpgradePolicy = serde_json::from_value(json!({
            "apiVersion": "upgrade.kubevirt.io/v1alpha1", "kind": "UpgradePolicy", "metadata": {"name": "default"},
            "spec": {"waves": {"maxUnavailable": "20%"}},
        }))
        .expect("a policy");
        let value: Value = serde_json::to_value(&policy).expect("plain data");
        assert_eq!(value["spec"], json!({"waves": {"maxUnavailable": "20%"}}));
        assert_eq!(schema("UpgradePolicy").unknown_fields(&value), Vec::<String>::new());
    }

    #[test]
    fn columns_say_at_a_glance_what_happened() {
        let crd = crds().remove(0);
        let columns = crd.spec.versions[0].additional_printer_columns.iter().flatten();
        let shown: Vec<&str> = columns.filter(|c| c.priority.is_none_or(|p| p == 0)).map(|c| c.name.as_str()).collect();
        assert_eq!(shown, ["From", "To", "State", "Step", "Reason", "Age"]);
        assert_eq!(crd.spec.scope, "Cluster");
    }
}
