//! Expressions in CEL, for everything that evaluates them: rules of definitions, match conditions of webhooks, admission
//! policies. Knows how JSON becomes CEL values and how failures read; what an expression decides is its caller's business.
//! Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use apimachinery::schema::{Schema, Type};
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, Program, Value as CelValue};
use serde_json::Value;

/// Compiled expressions are kept until there are this many: an installation of a suite has some dozens, and a program
/// takes a few kilobytes.
const KEPT: usize = 2_000;

/// An expression, ready to run.
pub(crate) type Expression = Arc<Program>;

/// Why an expression cannot be compiled, as the parser says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SyntaxError(String);

/// Compiles each expression once.
#[derive(Default)]
pub(crate) struct Expressions {
    known: Mutex<BTreeMap<String, Result<Expression, SyntaxError>>>,
}

impl Expressions {
    pub(crate) fn get(&self, text: &str) -> Result<Expression, SyntaxError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(text) {
            return found.clone();
        }
        if known.len() >= KEPT {
            known.clear();
        }
        let compiled = compile(text);
        known.insert(text.to_owned(), compiled.clone());
        compiled
    }
}

fn compile(text: &str) -> Result<Expression, SyntaxError> {
    Program::compile(text).map(Arc::new).map_err(|error| SyntaxError(error.to_string().trim().to_owned()))
}

/// The variables of an evaluation.
pub(crate) type Bindings = BTreeMap<&'static str, CelValue>;

thread_local! {
    /// The functions every expression may use; registering some hundred of them for each evaluation would cost more than
    /// evaluating.
    static FUNCTIONS: Context<'static> = Context::default().with_all();
}

/// Runs an expression.
///
/// # Errors
/// What went wrong, in the words of the reference implementation where clients know them.
pub(crate) fn run(expression: &Program, bindings: &Bindings) -> Result<CelValue, String> {
    FUNCTIONS.with(|functions| {
        let mut context = functions.new_inner_scope();
        for (name, value) in bindings {
            context.add_variable_from_value(*name, value.clone());
        }
        expression.execute(&context).map_err(|error| explain(&error))
    })
}

/// Runs an expression that answers yes or no.
///
/// # Errors
/// As [`run`], and for an answer that is neither.
pub(crate) fn run_bool(expression: &Program, bindings: &Bindings) -> Result<bool, String> {
    match run(expression, bindings)? {
        CelValue::Bool(truth) => Ok(truth),
        other => Err(format!("the expression must answer bool, not {}", other.type_of())),
    }
}

/// Runs an expression that answers a text.
///
/// # Errors
/// As [`run`], and for an answer that is no text.
pub(crate) fn run_text(expression: &Program, bindings: &Bindings) -> Result<String, String> {
    match run(expression, bindings)? {
        CelValue::String(text) => Ok(text.to_string()),
        other => Err(format!("the expression must answer string, not {}", other.type_of())),
    }
}

fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload => "no such overload".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        other => other.to_string(),
    }
}

/// A map of the given entries.
pub(crate) fn map(entries: impl IntoIterator<Item = (String, CelValue)>) -> CelValue {
    let entries = entries.into_iter().map(|(name, value)| (Key::String(Arc::new(name)), value));
    CelValue::Map(Map { map: Arc::new(entries.collect()) })
}

/// JSON without a schema: names stay as they are.
pub(crate) fn free(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => CelValue::Int(number),
            (None, Some(number)) => CelValue::UInt(number),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(list) => CelValue::List(Arc::new(list.iter().map(free).collect())),
        Value::Object(fields) => map(fields.iter().map(|(name, value)| (name.clone(), free(value)))),
    }
}

/// JSON as its schema means it: formats become times, durations and bytes, and declared names are escaped.
pub(crate) fn typed(value: &Value, schema: &Schema) -> CelValue {
    match value {
        Value::String(text) => {
            let format = schema.limits.as_ref().and_then(|limits| limits.format.as_deref());
            let convert = match (schema.kind, format) {
                (Type::String, Some("date-time" | "date")) => &TIMESTAMP,
                (Type::String, Some("duration")) => &DURATION,
                (Type::String, Some("byte")) => &BYTES,
                _ => return free(value),
            };
            let text = CelValue::String(Arc::new(text.clone()));
            let converted = convert.as_ref().and_then(|program| run(program, &Bindings::from([("it", text)])).ok());
            // A text that is not what its format says was refused before; whatever comes here stays a text.
            converted.unwrap_or_else(|| free(value))
        }
        Value::Number(number) if schema.kind == Type::Number => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        Value::Array(list) => CelValue::List(Arc::new(list.iter().map(|item| typed(item, schema.item())).collect())),
        Value::Object(fields) => map(fields.iter().map(|(name, value)| match schema.field(name) {
            Some((field, true)) => (escaped(name), typed(value, field)),
            Some((field, false)) => (name.clone(), typed(value, field)),
            None => (name.clone(), free(value)),
        })),
        Value::Null | Value::Bool(_) | Value::Number(_) => free(value),
    }
}

static TIMESTAMP: LazyLock<Option<Expression>> = LazyLock::new(|| compile("timestamp(it)").ok());
static DURATION: LazyLock<Option<Expression>> = LazyLock::new(|| compile("duration(it)").ok());
static BYTES: LazyLock<Option<Expression>> = LazyLock::new(|| compile("base64.decode(it)").ok());
static ABSENT: LazyLock<Option<Expression>> = LazyLock::new(|| compile("optional.none()").ok());
static PRESENT: LazyLock<Option<Expression>> = LazyLock::new(|| compile("optional.of(it)").ok());

/// An optional value.
pub(crate) fn optional(value: Option<CelValue>) -> CelValue {
    let made = match value {
        None => ABSENT.as_ref().and_then(|program| run(program, &Bindings::new()).ok()),
        Some(value) => PRESENT.as_ref().and_then(|program| run(program, &Bindings::from([("it", value)])).ok()),
    };
    made.unwrap_or(CelValue::Null)
}

/// Names that CEL keeps for itself.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// How a declared field is spelled in an expression.
pub(crate) fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

/// Names an expression uses that neither it nor `known` declares.
pub(crate) fn unknown_names(expression: &Program, known: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    visit(expression.expression(), &mut known.to_vec(), &mut |node, scope| {
        if let Expr::Ident(name) = node
            && !scope.contains(&name.as_str())
            && !BUILT_IN.contains(&name.as_str())
            && !found.contains(name)
        {
            found.push(name.clone());
        }
    });
    found
}

/// Names of types, which are values in CEL, and of the families of functions.
const BUILT_IN: [&str; 20] = [
    "base64",
    "bool",
    "bytes",
    "cidr",
    "double",
    "duration",
    "format",
    "int",
    "ip",
    "jsonpatch",
    "list",
    "map",
    "math",
    "null_type",
    "optional",
    "sets",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// Whether an expression uses a variable.
pub(crate) fn uses(expression: &Program, name: &str) -> bool {
    expression.references().has_variable(name)
}

/// Fields an expression selects from `root` that `schema` does not declare.
pub(crate) fn unknown_fields(expression: &Program, root: &str, schema: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    visit(expression.expression(), &mut Vec::new(), &mut |node, scope| {
        if let Expr::Select(select) = node
            && !scope.contains(&root)
            && let Some(at) = selected(&select.operand, root, schema)
            && at.kind == Type::Object
            && !at.preserve_unknown
            && at.additional.is_none()
            && !at.properties.keys().any(|name| escaped(name) == select.field)
            && !found.contains(&select.field)
        {
            found.push(select.field.clone());
        }
    });
    found
}

/// The schema of what a chain of selections from `root` reaches.
fn selected<'s>(node: &IdedExpr, root: &str, schema: &'s Schema) -> Option<&'s Schema> {
    match &node.expr {
        Expr::Ident(name) if name == root => Some(schema),
        Expr::Select(select) if !select.test => {
            let at = selected(&select.operand, root, schema)?;
            let (_, field) = at.properties.iter().find(|(name, _)| escaped(name) == select.field)?;
            Some(field)
        }
        _ => None,
    }
}

fn visit<'e>(node: &'e IdedExpr, scope: &mut Vec<&'e str>, see: &mut impl FnMut(&'e Expr, &[&'e str])) {
    see(&node.expr, scope);
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                visit(part, scope, see);
            }
        }
        Expr::Comprehension(loops) => {
            visit(&loops.iter_range, scope, see);
            visit(&loops.accu_init, scope, see);
            let outer = scope.len();
            scope.push(&loops.iter_var);
            scope.extend(loops.iter_var2.as_deref());
            scope.push(&loops.accu_var);
            for part in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                visit(part, scope, see);
            }
            scope.truncate(outer);
        }
        Expr::List(list) => list.elements.iter().for_each(|part| visit(part, scope, see)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| visit_entry(&entry.expr, scope, see)),
        Expr::Struct(made) => made.entries.iter().for_each(|entry| visit_entry(&entry.expr, scope, see)),
        Expr::Select(select) => visit(&select.operand, scope, see),
    }
}

fn visit_entry<'e>(entry: &'e EntryExpr, scope: &mut Vec<&'e str>, see: &mut impl FnMut(&'e Expr, &[&'e str])) {
    match entry {
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key, scope, see);
            visit(&entry.value, scope, see);
        }
        EntryExpr::StructField(field) => visit(&field.value, scope, see),
    }
}

#[cfg(test)]
mod tests;
