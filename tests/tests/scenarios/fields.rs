//! Every field of the KubeVirt custom resource through the API server: set under Strict validation, read back in the
//! other served version; and a field nobody knows, refused in every object that has a schema.

use kube::Client;
use kube::api::PostParams;
use kube::core::Request;
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, UserInfo};
use serde_json::{Map, Value, json};

use super::support::operator;

/// One step into a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Item,
    Key,
}

/// The key under which a map's sample stands.
const KEY: &str = "sample";
/// A field that no release has.
const UNKNOWN: &str = "ofTomorrow";
/// The leaves of release 1.9; fewer would mean that the walk lost its way or the schema a field.
const FEWEST: usize = 333;

pub(super) fn shown(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Item => "[]".into(),
        Step::Key => "{}".into(),
    };
    path.iter().map(step).collect()
}

/// Paths of what has no parts, and of the objects that list their fields.
fn walk(schema: &Value, path: &mut Vec<Step>, leaves: &mut Vec<Vec<Step>>, objects: &mut Vec<Vec<Step>>) {
    let mut into = |step: Step, child: &Value, path: &mut Vec<Step>| {
        path.push(step);
        walk(child, path, leaves, objects);
        path.pop();
    };
    if let Some(fields) = schema["properties"].as_object().filter(|fields| !fields.is_empty()) {
        for (name, child) in fields {
            into(Step::Field(name.clone()), child, path);
        }
        objects.push(path.clone());
    } else if schema["items"].is_object() {
        into(Step::Item, &schema["items"], path);
    } else if schema["additionalProperties"].is_object() {
        into(Step::Key, &schema["additionalProperties"], path);
    } else {
        leaves.push(path.clone());
    }
}

/// The smallest value a schema takes.
pub(super) fn smallest(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|allowed| allowed.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), smallest(&schema["properties"][name]))).collect::<Map<_, _>>().into()
        }
        Some("array") => json!([]),
        Some("string") if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
        Some("string") => json!("1h0m0s"),
        Some("integer") => schema["minimum"].as_f64().map_or(json!(7), |least| json!(least.max(7.0) as i64)),
        Some("number") => json!(2.5),
        Some("boolean") => json!(true),
        // A quantity.
        _ => json!("64Mi"),
    }
}

/// A value of the schema that holds nothing but what it must, and `leaf` at the end of the path.
pub(super) fn around(schema: &Value, path: &[Step], leaf: &Value) -> Value {
    let Some((step, rest)) = path.split_first() else {
        return leaf.clone();
    };
    let mut value = smallest(schema);
    match step {
        Step::Field(name) => value[name] = around(&schema["properties"][name], rest, leaf),
        Step::Item => value = json!([around(&schema["items"], rest, leaf)]),
        Step::Key => value[KEY] = around(&schema["additionalProperties"], rest, leaf),
    }
    value
}

fn at<'a>(value: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(value, |value, step| match step {
        Step::Field(name) => &value[name],
        Step::Item => &value[0],
        Step::Key => &value[KEY],
    })
}

/// The schema of what lies at the end of a path.
pub(super) fn part<'a>(schema: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(schema, |schema, step| match step {
        Step::Field(name) => &schema["properties"][name],
        Step::Item => &schema["items"],
        Step::Key => &schema["additionalProperties"],
    })
}

/// The definition as the operator's manifest brings it.
fn definition() -> Value {
    let found = operator("v0.2.0").into_iter().find(|object| object.name() == "kubevirts.kubevirt.io");
    found.expect("the manifest has it").value().clone()
}

/// A server that knows the CRD and has one custom resource.
struct Served {
    client: Client,
}

impl Served {
    async fn start() -> Self {
        let start = "2026-01-01T00:00:00Z".parse().expect("a time");
        let server = Nanokube::new(Options::new(Clock::anchored(start), 7));
        let this = Self { client: server.client(UserInfo::admin()) };
        let crd = definition();
        this.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await.expect("the CRD");
        this.send("POST", &collection("v1"), &cr(json!({"spec": {}}))).await.expect("the custom resource");
        this
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Box<kube::core::Status>> {
        let body = if method == "GET" { Vec::new() } else { body.to_string().into_bytes() };
        // Any request of kube's will do: its method and address are replaced.
        let mut request = Request::new("/").create(&PostParams::default(), body).expect("a request");
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = path.parse().expect("a path");
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err(status),
            Err(other) => panic!("{method} {path}: {other}"),
        }
    }

    /// Replaces the custom resource; a path into `status` goes through the subresource.
    async fn put(&self, content: &Value, path: &[Step]) -> Result<Value, Box<kube::core::Status>> {
        let subresource = if path.first() == Some(&Step::Field("status".into())) { "/status" } else { "" };
        let path = format!("{}/kubevirt{subresource}?fieldValidation=Strict", collection("v1"));
        let now = self.send("GET", &format!("{}/kubevirt", collection("v1")), &Value::Null).await?;
        let mut body = cr(content.clone());
        body["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        self.send("PUT", &path, &body).await
    }
}

fn collection(version: &str) -> String {
    format!("/apis/kubevirt.io/{version}/namespaces/default/kubevirts")
}

fn cr(content: Value) -> Value {
    let mut value = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt"}});
    let content = content.as_object().cloned().unwrap_or_default();
    value.as_object_mut().expect("an object").extend(content.into_iter().filter(|(name, _)| name != "metadata"));
    value
}

/// The schema, and the paths of its leaves and objects, without what belongs to every Kubernetes object.
pub(super) fn schema() -> (Value, Vec<Vec<Step>>, Vec<Vec<Step>>) {
    let crd = definition();
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    for own in ["apiVersion", "kind", "metadata"] {
        schema["properties"].as_object_mut().expect("fields").remove(own);
    }
    let (mut leaves, mut objects) = (Vec::new(), Vec::new());
    walk(&schema, &mut Vec::new(), &mut leaves, &mut objects);
    (schema, leaves, objects)
}

#[tokio::test(start_paused = true)]
async fn every_field_of_the_custom_resource_is_set_and_read_back() {
    let served = Served::start().await;
    let (schema, leaves, _) = schema();
    assert!(leaves.len() >= FEWEST, "{} leaves", leaves.len());
    let mut lost = Vec::new();
    for path in &leaves {
        let value = smallest(part(&schema, path));
        if let Err(status) = served.put(&around(&schema, path, &value), path).await {
            lost.push(format!("{} = {value}: {}", shown(path), status.message));
            continue;
        }
        let read = served.send("GET", &format!("{}/kubevirt", collection("v1alpha3")), &Value::Null).await;
        let read = read.expect("it is there");
        if *at(&read, path) != value {
            lost.push(format!("{} = {value}: read {}", shown(path), at(&read, path)));
        }
    }
    assert_eq!(lost, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_field_nobody_knows_is_refused_in_every_object() {
    let served = Served::start().await;
    let (schema, _, objects) = schema();
    let mut passed = Vec::new();
    for path in &objects {
        let mut value = smallest(part(&schema, path));
        value[UNKNOWN] = json!(1);
        match served.put(&around(&schema, path, &value), path).await {
            Err(status) if status.code == 400 && status.message.contains("unknown field") => {}
            other => passed.push(format!("{}: {other:?}", shown(path))),
        }
    }
    assert_eq!(passed, Vec::<String>::new());
}
