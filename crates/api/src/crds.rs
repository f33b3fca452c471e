//! Every CRD of the suite but the KubeVirt CR's own, as one table.
//!
//! The schemas are open (`x-kubernetes-preserve-unknown-fields`): objects are stored as they are sent, and virt-api's
//! webhooks check them. A row is all there is to a kind; nothing here reads or interprets an object.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceScale,
    CustomResourceSubresourceStatus, CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names::label;

/// One kind that the suite serves through a CRD.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub kind: &'static str,
    pub plural: &'static str,
    pub group: &'static str,
    pub scope: Scope,
    /// In the order they are listed; exactly one is stored.
    pub versions: &'static [Version],
    pub short_names: &'static [&'static str],
    pub subresources: Subresources,
    /// Printer columns: name, type, path; a name that ends in `*` is shown only with `-o wide`.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresources {
    None,
    Status,
    StatusAndScale,
}

/// One served version of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub name: &'static str,
    pub storage: bool,
    pub deprecated: bool,
}

const fn stored(name: &'static str) -> Version {
    Version { name, storage: true, deprecated: false }
}
const fn served(name: &'static str) -> Version {
    Version { name, storage: false, deprecated: false }
}
const fn old(version: Version) -> Version {
    Version { deprecated: true, ..version }
}

use Scope::{Cluster, Namespaced};
use Subresources::{None as NoSub, Status, StatusAndScale};

const CORE: &[Version] = &[stored("v1"), old(served("v1alpha3"))];
const BETA: &[Version] = &[served("v1alpha1"), stored("v1beta1")];
const EXPORT: &[Version] = &[old(served("v1beta1")), stored("v1")];
const ALPHA: &[Version] = &[stored("v1alpha1")];
const INSTANCETYPE: &[Version] = &[stored("v1beta1")];

const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");
const SOURCE_KIND: (&str, &str, &str) = ("SourceKind", "string", ".spec.source.kind");
const SOURCE_NAME: (&str, &str, &str) = ("SourceName", "string", ".spec.source.name");
const PHASE: (&str, &str, &str) = ("Phase", "string", ".status.phase");
const READY_TO_USE: (&str, &str, &str) = ("ReadyToUse", "boolean", ".status.readyToUse");
const CREATED: (&str, &str, &str) = ("CreationTime", "date", ".status.creationTime");
const ERROR: (&str, &str, &str) = ("Error", "string", ".status.error.message");
const REPLICAS: &[(&str, &str, &str)] = &[
    ("Desired", "integer", ".spec.replicas"),
    ("Current", "integer", ".status.replicas"),
    ("Ready", "integer", ".status.readyReplicas"),
    AGE,
];

#[rustfmt::skip]
/// The table.
pub const ROWS: &[Row] = &[
    Row { kind: "VirtualMachineInstance", plural: "virtualmachineinstances", group: "kubevirt.io",
          scope: Namespaced, versions: CORE, short_names: &["vmi", "vmis"], subresources: NoSub,
          columns: &[AGE, PHASE,
              ("IP", "string", ".status.interfaces[0].ipAddress"),
              ("NodeName", "string", ".status.nodeName"),
              ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
              ("Live-Migratable*", "string", ".status.conditions[?(@.type=='LiveMigratable')].status"),
              ("Paused*", "string", ".status.conditions[?(@.type=='Paused')].status")] },
    Row { kind: "VirtualMachine", plural: "virtualmachines", group: "kubevirt.io",
          scope: Namespaced, versions: CORE, short_names: &["vm", "vms"], subresources: Status,
          columns: &[AGE,
              ("Status", "string", ".status.printableStatus"),
              ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status")] },
    Row { kind: "VirtualMachineInstancePreset", plural: "virtualmachineinstancepresets", group: "kubevirt.io",
          scope: Namespaced, versions: &[old(served("v1")), old(stored("v1alpha3"))],
          short_names: &["vmipreset", "vmipresets"], subresources: NoSub, columns: &[] },
    Row { kind: "VirtualMachineInstanceReplicaSet", plural: "virtualmachineinstancereplicasets", group: "kubevirt.io",
          scope: Namespaced, versions: CORE, short_names: &["vmirs", "vmirss"], subresources: StatusAndScale,
          columns: REPLICAS },
    Row { kind: "VirtualMachineInstanceMigration", plural: "virtualmachineinstancemigrations", group: "kubevirt.io",
          scope: Namespaced, versions: CORE, short_names: &["vmim", "vmims"], subresources: Status,
          columns: &[PHASE, ("VMI", "string", ".spec.vmiName")] },
    Row { kind: "VirtualMachinePool", plural: "virtualmachinepools", group: "pool.kubevirt.io",
          scope: Namespaced, versions: BETA, short_names: &["vmpool", "vmpools"], subresources: StatusAndScale,
          columns: REPLICAS },
    Row { kind: "VirtualMachineSnapshot", plural: "virtualmachinesnapshots", group: "snapshot.kubevirt.io",
          scope: Namespaced, versions: BETA, short_names: &["vmsnapshot", "vmsnapshots"], subresources: Status,
          columns: &[SOURCE_KIND, SOURCE_NAME, PHASE, READY_TO_USE, CREATED, ERROR] },
    Row { kind: "VirtualMachineSnapshotContent", plural: "virtualmachinesnapshotcontents",
          group: "snapshot.kubevirt.io", scope: Namespaced, versions: BETA,
          short_names: &["vmsnapshotcontent", "vmsnapshotcontents"], subresources: Status,
          columns: &[READY_TO_USE, CREATED, ERROR] },
    Row { kind: "VirtualMachineRestore", plural: "virtualmachinerestores", group: "snapshot.kubevirt.io",
          scope: Namespaced, versions: BETA, short_names: &["vmrestore", "vmrestores"], subresources: Status,
          columns: &[
              ("TargetKind", "string", ".spec.target.kind"),
              ("TargetName", "string", ".spec.target.name"),
              ("Complete", "boolean", ".status.complete"),
              ("RestoreTime", "date", ".status.restoreTime")] },
    Row { kind: "VirtualMachineExport", plural: "virtualmachineexports", group: "export.kubevirt.io",
          scope: Namespaced, versions: EXPORT, short_names: &["vmexport", "vmexports"], subresources: Status,
          columns: &[SOURCE_KIND, SOURCE_NAME, PHASE] },
    Row { kind: "VirtualMachineBackup", plural: "virtualmachinebackups", group: "backup.kubevirt.io",
          scope: Namespaced, versions: ALPHA, short_names: &["vmbackup", "vmbackups"], subresources: Status,
          columns: &[SOURCE_KIND, SOURCE_NAME,
              ("Type", "string", ".status.type"),
              ("CheckpointName", "string", ".status.checkpointName")] },
    Row { kind: "VirtualMachineBackupTracker", plural: "virtualmachinebackuptrackers", group: "backup.kubevirt.io",
          scope: Namespaced, versions: ALPHA, short_names: &["vmbackuptracker", "vmbackuptrackers"],
          subresources: Status,
          columns: &[SOURCE_KIND, SOURCE_NAME,
              ("LatestCheckpoint", "string", ".status.latestCheckpoint.name"),
              ("CheckpointTime", "date", ".status.latestCheckpoint.creationTime")] },
    Row { kind: "VirtualMachineInstancetype", plural: "virtualmachineinstancetypes",
          group: "instancetype.kubevirt.io", scope: Namespaced, versions: INSTANCETYPE,
          short_names: &["vminstancetype", "vminstancetypes", "vmf", "vmfs"], subresources: NoSub, columns: &[] },
    Row { kind: "VirtualMachineClusterInstancetype", plural: "virtualmachineclusterinstancetypes",
          group: "instancetype.kubevirt.io", scope: Cluster, versions: INSTANCETYPE,
          short_names: &["vmclusterinstancetype", "vmclusterinstancetypes", "vmcf", "vmcfs"],
          subresources: NoSub, columns: &[] },
    Row { kind: "VirtualMachinePreference", plural: "virtualmachinepreferences",
          group: "instancetype.kubevirt.io", scope: Namespaced, versions: INSTANCETYPE,
          short_names: &["vmpref", "vmprefs", "vmp", "vmps"], subresources: NoSub, columns: &[] },
    Row { kind: "VirtualMachineClusterPreference", plural: "virtualmachineclusterpreferences",
          group: "instancetype.kubevirt.io", scope: Cluster, versions: INSTANCETYPE,
          short_names: &["vmcp", "vmcps"], subresources: NoSub, columns: &[] },
    Row { kind: "MigrationPolicy", plural: "migrationpolicies", group: "migrations.kubevirt.io",
          scope: Cluster, versions: ALPHA, short_names: &[], subresources: Status, columns: &[] },
    Row { kind: "VirtualMachineClone", plural: "virtualmachineclones", group: "clone.kubevirt.io",
          scope: Namespaced, versions: BETA, short_names: &["vmclone", "vmclones"], subresources: Status,
          columns: &[PHASE,
              ("SourceVirtualMachine", "string", ".spec.source.name"),
              ("TargetVirtualMachine", "string", ".spec.target.name")] },
    Row { kind: "Plugin", plural: "plugins", group: "plugin.kubevirt.io",
          scope: Cluster, versions: ALPHA, short_names: &[], subresources: NoSub, columns: &[] },
];

/// Definitions of the contract that are not installed, and why. A cluster that has one keeps it: no definition is ever
/// deleted because a version lacks it.
pub const NOT_INSTALLED: &[(&str, &str)] = &[
    ("virtualmachinetemplates.template.kubevirt.io", "it belongs to virt-template, which is not part of this suite"),
    (
        "virtualmachinetemplaterequests.template.kubevirt.io",
        "it belongs to virt-template, which is not part of this suite",
    ),
];

/// The tables as a Markdown document, to be kept as docs/crds.md and compared by a test.
pub fn document() -> String {
    let list = |items: &[&str]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let mut out = String::from(
        "# Custom resource definitions\n\n\
         Written by `crates/api/src/crds.rs`, whose test compares this page. Version marks: S stored, D deprecated. Columns \
         in parentheses are shown with `-o wide` alone. Every kind of a namespace has the category `all`. An open schema \
         keeps every field as it was sent; virt-api's webhooks judge it.\n\n\
         | definition | scope | versions | short names | subresources | columns | schema |\n|---|---|---|---|---|---|---|\n\
         | kubevirts.kubevirt.io | Namespaced | v1 (S), v1alpha3 (D) | kv, kvs | status | Age, Phase | typed: [api.md](api.md) |\n\
         | upgradeplans.upgrade.kubevirt.io | Cluster | v1alpha1 (S) | uplan | status | From, To, State, Step, Reason, Age, \
         (Finished), (Message) | typed: [upgrades.md](upgrades.md) |\n\
         | upgradepolicies.upgrade.kubevirt.io | Cluster | v1alpha1 (S) | upolicy | - | Paused, Soak, Wave, Deadline, Age | \
         typed: [upgrades.md](upgrades.md) |\n",
    );
    for row in ROWS {
        let version = |v: &Version| match (v.storage, v.deprecated) {
            (true, true) => format!("{} (S, D)", v.name),
            (true, false) => format!("{} (S)", v.name),
            (false, true) => format!("{} (D)", v.name),
            (false, false) => v.name.to_owned(),
        };
        let versions: Vec<String> = row.versions.iter().map(version).collect();
        let subresources = match row.subresources {
            NoSub => "-",
            Status => "status",
            StatusAndScale => "status, scale",
        };
        let column = |(name, _, _): &(&str, &str, &str)| match name.strip_suffix('*') {
            Some(wide) => format!("({wide})"),
            None => (*name).to_owned(),
        };
        let columns: Vec<String> = row.columns.iter().map(column).collect();
        out.push_str(&format!(
            "| {} | {:?} | {} | {} | {subresources} | {} | open |\n",
            row.name(),
            row.scope,
            versions.join(", "),
            list(row.short_names),
            list(&columns.iter().map(String::as_str).collect::<Vec<_>>()),
        ));
    }
    out.push_str("\n## Not installed\n\n| definition | why |\n|---|---|\n");
    for (name, why) in NOT_INSTALLED {
        out.push_str(&format!("| {name} | {why} |\n"));
    }
    out
}

/// The CRDs of the table, in its order.
pub fn all() -> Vec<CustomResourceDefinition> {
    ROWS.iter().map(Row::crd).collect()
}

impl Row {
    /// The CRD's name, `<plural>.<group>`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// The CRD of this row.
    pub fn crd(&self) -> CustomResourceDefinition {
        let Self { kind, plural, group, scope, versions, short_names, subresources, columns } = *self;
        let texts =
            |items: &[&str]| Some(items.iter().map(ToString::to_string).collect()).filter(|v: &Vec<_>| !v.is_empty());
        CustomResourceDefinition {
            metadata: ObjectMeta {
                name: Some(self.name()),
                labels: Some([(label::KUBEVIRT.to_string(), String::new())].into()),
                ..Default::default()
            },
            spec: CustomResourceDefinitionSpec {
                group: group.into(),
                names: CustomResourceDefinitionNames {
                    kind: kind.into(),
                    list_kind: Some(format!("{kind}List")),
                    plural: plural.into(),
                    singular: Some(kind.to_lowercase()),
                    short_names: texts(short_names),
                    // `kubectl get all` is about a namespace.
                    categories: (scope == Scope::Namespaced).then(|| vec!["all".to_string()]),
                },
                scope: format!("{scope:?}"),
                versions: versions.iter().map(|v| self.version(v, subresources, columns)).collect(),
                ..Default::default()
            },
            status: None,
        }
    }

    fn version(
        &self,
        version: &Version,
        subresources: Subresources,
        columns: &[(&str, &str, &str)],
    ) -> CustomResourceDefinitionVersion {
        let Version { name, storage, deprecated } = *version;
        let scale = || CustomResourceSubresourceScale {
            label_selector_path: Some(".status.labelSelector".into()),
            spec_replicas_path: ".spec.replicas".into(),
            status_replicas_path: ".status.replicas".into(),
        };
        CustomResourceDefinitionVersion {
            name: name.into(),
            served: true,
            storage,
            deprecated: deprecated.then_some(true),
            deprecation_warning: deprecated
                .then(|| format!("{}/{name} {} is deprecated and goes away in a later release", self.group, self.kind)),
            subresources: match subresources {
                Subresources::None => None,
                Subresources::Status => Some(CustomResourceSubresources {
                    status: Some(CustomResourceSubresourceStatus(serde_json::json!({}))),
                    scale: None,
                }),
                Subresources::StatusAndScale => Some(CustomResourceSubresources {
                    status: Some(CustomResourceSubresourceStatus(serde_json::json!({}))),
                    scale: Some(scale()),
                }),
            },
            schema: Some(CustomResourceValidation {
                open_api_v3_schema: Some(JSONSchemaProps {
                    type_: Some("object".into()),
                    x_kubernetes_preserve_unknown_fields: Some(true),
                    ..Default::default()
                }),
            }),
            additional_printer_columns: (!columns.is_empty()).then(|| columns.iter().map(column).collect()),
            ..Default::default()
        }
    }
}

fn column(&(name, type_, json_path): &(&str, &str, &str)) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.trim_end_matches('*').into(),
        type_: type_.into(),
        json_path: json_path.into(),
        priority: name.ends_with('*').then_some(1),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_valid_crd() {
        for row in ROWS {
            let crd = row.crd();
            assert_eq!(crd.metadata.name.as_deref(), Some(row.name().as_str()));
            assert_eq!(row.versions.iter().filter(|v| v.storage).count(), 1, "{}", row.name());
            assert!(row.plural.starts_with(&row.kind.to_lowercase()[..row.kind.len() - 1]), "{}", row.name());
            for version in crd.spec.versions {
                let schema = serde_json::to_value(&version.schema).unwrap()["openAPIV3Schema"].take();
                let schema = apimachinery::schema::Schema::from_crd(&schema).unwrap();
                let object = serde_json::json!({"spec": {"running": true, "template": {}}, "status": {"phase": "x"}});
                assert_eq!(schema.unknown_fields(&object), Vec::<String>::new(), "{}", row.name());
                assert_eq!(version.deprecated.is_some(), version.deprecation_warning.is_some());
                for column in version.additional_printer_columns.unwrap_or_default() {
                    assert!(column.json_path.starts_with('.') && !column.name.contains('*'), "{column:?}");
                }
            }
        }
    }

    #[test]
    fn the_document_is_up_to_date() {
        expect_test::expect_file!["../../../docs/crds.md"].assert_eq(&document());
    }

    #[test]
    fn no_two_rows_answer_to_one_name() {
        let mut names: Vec<&str> = ROWS.iter().flat_map(|r| r.short_names.iter().copied().chain([r.plural])).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(ROWS.len(), 19);
    }
}
