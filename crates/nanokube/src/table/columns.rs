//! Which columns a kind has.

use apimachinery::jsonpath::JsonPath;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, age};
use super::{more, pods};
use crate::registry::Resource;
use crate::verbs::metadata_text;

/// How a cell is computed.
pub(super) type Cell = fn(&Value, Timestamp) -> Value;

/// One column.
pub(super) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    source: Source,
}

enum Source {
    Computed(Cell),
    /// A JSONPath of a definition; nothing when it is not one.
    Path(Option<JsonPath>),
}

impl Column {
    pub(super) fn to_value(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format, "description": self.description,
            "priority": self.priority,
        })
    }

    pub(super) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.source {
            Source::Computed(cell) => cell(object, now),
            Source::Path(path) => path.as_ref().map_or(Value::Null, |path| path_cell(object, path, &self.kind, now)),
        }
    }
}

/// A cell of a custom resource: typed, and empty when the path finds nothing.
fn path_cell(object: &Value, path: &JsonPath, kind: &str, now: Timestamp) -> Value {
    let Some(found) = path.first(object) else { return Value::Null };
    match kind {
        "integer" => found.as_i64().map_or(Value::Null, Value::from),
        "number" => found.as_f64().map_or(Value::Null, Value::from),
        "boolean" => found.as_bool().map_or(Value::Null, Value::from),
        "date" => match found.as_str() {
            Some(text) => json!(age(text, now)),
            None => Value::Null,
        },
        _ => match found {
            Value::String(text) => json!(text),
            Value::Null => Value::Null,
            other => json!(other.to_string()),
        },
    }
}

pub(super) fn column(name: &str, kind: &str, priority: i64, description: &str, cell: Cell) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: if name == "Name" { "name".to_owned() } else { String::new() },
        description: description.to_owned(),
        priority,
        source: Source::Computed(cell),
    }
}

pub(super) fn text(name: &str, cell: Cell) -> Column {
    column(name, "string", 0, "", cell)
}

pub(super) fn wide(name: &str, cell: Cell) -> Column {
    column(name, "string", 1, "", cell)
}

pub(super) fn number(name: &str, cell: Cell) -> Column {
    column(name, "integer", 0, "", cell)
}

fn name_column() -> Column {
    column("Name", "string", 0, "The object's name.", |object, _| json!(metadata_text(object, "name")))
}

/// The name of a storage class, which says whether claims without one get it.
fn class_name_column() -> Column {
    column("Name", "string", 0, "The object's name.", |object, _| {
        let name = metadata_text(object, "name");
        json!(if crate::strategy::is_default_class(object) { format!("{name} (default)") } else { name.to_owned() })
    })
}

pub(super) fn age_column() -> Column {
    column("Age", "string", 0, "Time since the object was created.", |object, now| {
        json!(age(metadata_text(object, "creationTimestamp"), now))
    })
}

/// The columns of a resource.
pub(super) fn of(resource: &Resource) -> Vec<Column> {
    if let Some(custom) = &resource.custom {
        return custom_columns(custom);
    }
    let class = resource.is("storage.k8s.io", "storageclasses");
    let mut columns = vec![if class { class_name_column() } else { name_column() }];
    if let Some(more) = more::of(&resource.group, &resource.plural) {
        columns.extend(more);
    } else {
        columns.extend(match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "pods") => return pods::columns(name_column(), age_column()),
            ("" | "events.k8s.io", "events") => return event_columns(),
            ("", _) => core(&resource.plural),
            ("apps" | "batch", _) => workloads(&resource.plural),
            _ => others(&resource.plural),
        });
    }
    let ageless = matches!(resource.plural.as_str(), "componentstatuses" | "podtemplates");
    if !ageless && !columns.iter().any(|column| matches!(column.name.as_str(), "Age" | "Created At")) {
        let at = columns.iter().position(|column| column.priority > 0).unwrap_or(columns.len());
        columns.insert(at, age_column());
    }
    columns
}

fn custom_columns(custom: &crate::registry::Custom) -> Vec<Column> {
    let mut columns = vec![name_column()];
    if custom.columns.is_empty() {
        columns.push(Column { kind: "date".to_owned(), ..age_column() });
        return columns;
    }
    columns.extend(custom.columns.iter().map(|column| Column {
        name: column.name.clone(),
        kind: column.kind.clone(),
        format: column.format.clone(),
        description: if column.description.is_empty() {
            format!("Custom resource definition column (in JSONPath format): {}", column.path)
        } else {
            column.description.clone()
        },
        priority: column.priority,
        source: Source::Path(JsonPath::parse(&column.path).ok()),
    }));
    columns
}

fn core(plural: &str) -> Vec<Column> {
    match plural {
        "configmaps" => vec![number("Data", |o, _| json!(cells::count(&o["data"]) + cells::count(&o["binaryData"])))]
            .into_iter()
            .map(|column| Column { kind: "string".to_owned(), ..column })
            .collect(),
        "secrets" => vec![
            text("Type", |o, _| json!(o["type"].as_str().unwrap_or("Opaque"))),
            text("Data", |o, _| json!(cells::count(&o["data"]))),
        ],
        "namespaces" => vec![text("Status", |o, _| json!(cells::or_none(&o["status"]["phase"])))],
        "nodes" => vec![
            text("Status", |o, _| json!(cells::node_status(o))),
            text("Roles", |o, _| json!(cells::node_roles(o))),
            age_column(),
            text("Version", |o, _| json!(o["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default())),
            wide("Internal-IP", |o, _| json!(cells::node_address(o, "InternalIP"))),
            wide("External-IP", |o, _| json!(cells::node_address(o, "ExternalIP"))),
            wide("OS-Image", |o, _| json!(cells::or_unknown(&o["status"]["nodeInfo"]["osImage"]))),
            wide("Kernel-Version", |o, _| json!(cells::or_unknown(&o["status"]["nodeInfo"]["kernelVersion"]))),
            wide("Container-Runtime", |o, _| {
                json!(cells::or_unknown(&o["status"]["nodeInfo"]["containerRuntimeVersion"]))
            }),
        ],
        "services" => vec![
            text("Type", |o, _| json!(o["spec"]["type"].as_str().unwrap_or("ClusterIP"))),
            text("Cluster-IP", |o, _| json!(cells::or_none(&o["spec"]["clusterIP"]))),
            text("External-IP", |o, _| json!(cells::external_ip(o))),
            text("Port(s)", |o, _| json!(cells::service_ports(o))),
            age_column(),
            wide("Selector", |o, _| json!(cells::selector(&o["spec"]["selector"]))),
        ],
        "endpoints" => vec![text("Endpoints", |o, _| json!(cells::endpoints(o)))],
        _ => Vec::new(),
    }
}

fn workloads(plural: &str) -> Vec<Column> {
    let status = |field: &'static str| -> Cell {
        match field {
            "updated" => |o, _| json!(o["status"]["updatedReplicas"].as_i64().unwrap_or(0)),
            _ => |o, _| json!(o["status"]["availableReplicas"].as_i64().unwrap_or(0)),
        }
    };
    let images = || {
        [
            wide("Containers", |o, _| json!(cells::containers(&o["spec"]["template"], "name"))),
            wide("Images", |o, _| json!(cells::containers(&o["spec"]["template"], "image"))),
        ]
    };
    let selector = || wide("Selector", |o, _| json!(cells::selector(&o["spec"]["selector"])));
    let ready: Cell = |o, _| {
        let wanted = o["spec"]["replicas"].as_i64().unwrap_or(0);
        json!(format!("{}/{wanted}", o["status"]["readyReplicas"].as_i64().unwrap_or(0)))
    };
    match plural {
        "deployments" => vec![
            text("Ready", ready),
            text("Up-to-date", status("updated")),
            text("Available", status("available")),
            age_column(),
        ]
        .into_iter()
        .chain(images())
        .chain([selector()])
        .collect(),
        "statefulsets" => vec![text("Ready", ready), age_column()].into_iter().chain(images()).collect(),
        "replicasets" => vec![
            number("Desired", |o, _| json!(o["spec"]["replicas"].as_i64().unwrap_or(0))),
            number("Current", |o, _| json!(o["status"]["replicas"].as_i64().unwrap_or(0))),
            number("Ready", |o, _| json!(o["status"]["readyReplicas"].as_i64().unwrap_or(0))),
            age_column(),
        ]
        .into_iter()
        .chain(images())
        .chain([selector()])
        .collect(),
        "daemonsets" => vec![
            number("Desired", |o, _| json!(o["status"]["desiredNumberScheduled"].as_i64().unwrap_or(0))),
            number("Current", |o, _| json!(o["status"]["currentNumberScheduled"].as_i64().unwrap_or(0))),
            number("Ready", |o, _| json!(o["status"]["numberReady"].as_i64().unwrap_or(0))),
            number("Up-to-date", |o, _| json!(o["status"]["updatedNumberScheduled"].as_i64().unwrap_or(0))),
            number("Available", |o, _| json!(o["status"]["numberAvailable"].as_i64().unwrap_or(0))),
            text("Node Selector", |o, _| json!(cells::selector(&o["spec"]["template"]["spec"]["nodeSelector"]))),
            age_column(),
        ]
        .into_iter()
        .chain(images())
        .chain([selector()])
        .collect(),
        "jobs" => vec![
            text("Status", |o, _| json!(cells::job_status(o))),
            text("Completions", |o, _| json!(cells::job_completions(o))),
            text("Duration", |o, now| json!(cells::job_duration(o, now))),
            age_column(),
        ]
        .into_iter()
        .chain(images())
        .chain([selector()])
        .collect(),
        "controllerrevisions" => vec![
            text("Controller", |o, _| json!(cells::controller(o))),
            number("Revision", |o, _| json!(o["revision"].as_i64().unwrap_or(0))),
        ],
        _ => Vec::new(),
    }
}

fn others(plural: &str) -> Vec<Column> {
    match plural {
        "leases" => vec![text("Holder", |o, _| json!(o["spec"]["holderIdentity"].as_str().unwrap_or_default()))],
        "poddisruptionbudgets" => vec![
            text("Min Available", |o, _| json!(cells::or_not_applicable(&o["spec"]["minAvailable"]))),
            text("Max Unavailable", |o, _| json!(cells::or_not_applicable(&o["spec"]["maxUnavailable"]))),
            number("Allowed Disruptions", |o, _| json!(o["status"]["disruptionsAllowed"].as_i64().unwrap_or(0))),
        ],
        "customresourcedefinitions" => vec![Column {
            kind: "date".to_owned(),
            ..column("Created At", "date", 0, "", |o, _| json!(metadata_text(o, "creationTimestamp")))
        }],
        "apiservices" => vec![
            text("Service", |o, _| json!(cells::api_service(o))),
            text("Available", |o, _| json!(cells::api_service_available(o))),
        ],
        "clusterroles" | "roles" => {
            vec![column("Created At", "date", 0, "", |o, _| json!(metadata_text(o, "creationTimestamp")))]
        }
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => {
            vec![number("Webhooks", |o, _| json!(cells::count(&o["webhooks"])))]
        }
        "endpointslices" => vec![
            text("AddressType", |o, _| json!(o["addressType"].as_str().unwrap_or_default())),
            text("Ports", |o, _| json!(cells::slice_ports(o))),
            text("Endpoints", |o, _| json!(cells::slice_endpoints(o))),
        ],
        _ => Vec::new(),
    }
}

fn event_columns() -> Vec<Column> {
    vec![
        text("Last Seen", |o, now| json!(cells::event_last_seen(o, now))),
        text("Type", |o, _| json!(o["type"].as_str().unwrap_or_default())),
        text("Reason", |o, _| json!(o["reason"].as_str().unwrap_or_default())),
        text("Object", |o, _| json!(cells::event_object(o))),
        wide("Subobject", |o, _| json!(cells::event_field(o, "fieldPath"))),
        wide("Source", |o, _| json!(cells::event_source(o))),
        text("Message", |o, _| json!(cells::event_message(o))),
        wide("First Seen", |o, now| json!(cells::event_first_seen(o, now))),
        wide("Count", |o, _| json!(cells::event_count(o))),
        Column { priority: 1, ..name_column() },
    ]
}

pub(super) fn pod_column(name: &str, priority: i64, cell: Cell) -> Column {
    column(name, "string", priority, "", cell)
}
