//! Filling in defaults and dropping what the schema does not know.

use serde_json::{Map, Value};

use super::{Schema, Type};
use crate::field;

impl Schema {
    /// Fills in defaults where a field is absent, and where it is null although the schema does not allow null. Nulls
    /// of fields without a default are dropped in that case, as a reader of the stored object would not accept them.
    pub fn default(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, sub) in &self.properties {
                    let refused_null = matches!(map.get(name), Some(Value::Null)) && !sub.nullable;
                    if let Some(default) = &sub.default
                        && (refused_null || !map.contains_key(name))
                    {
                        map.insert(name.clone(), default.clone());
                    } else if refused_null && sub.kind != Type::Any && !sub.preserve_unknown {
                        map.remove(name);
                    }
                }
                if let Some(s) = self.additional.as_ref().filter(|s| !s.nullable && s.default.is_none()) {
                    let data = |name: &String| !self.properties.contains_key(name);
                    map.retain(|name, v| !(v.is_null() && data(name) && s.kind != Type::Any));
                }
                for (name, v) in map.iter_mut() {
                    if let Some(sub) = self.properties.get(name).or(self.additional.as_ref()) {
                        if v.is_null()
                            && !sub.nullable
                            && let Some(default) = &sub.default
                        {
                            *v = default.clone();
                        }
                        sub.default(v);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for v in list {
                        if v.is_null()
                            && !items.nullable
                            && let Some(default) = &items.default
                        {
                            *v = default.clone();
                        }
                        items.default(v);
                    }
                }
            }
            _ => {}
        }
    }

    /// Drops the fields the schema does not know and returns their paths, in the order of the object.
    pub fn prune(&self, value: &mut Value) -> Vec<String> {
        let mut gone = Vec::new();
        self.prune_at("", value, &mut gone);
        gone
    }

    /// The paths of the fields the schema does not know.
    pub fn unknown_fields(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.unknown_at("", value, &mut found);
        found
    }

    fn sub_for<'a>(&'a self, path: &str, name: &str) -> Option<(Option<&'a Schema>, String)> {
        if let Some(s) = self.properties.get(name) {
            return Some((Some(s), field::child(path, name)));
        }
        if let Some(s) = &self.additional {
            return Some((Some(s), field::child(path, name)));
        }
        self.open().then(|| (None, String::new()))
    }

    fn prune_at(&self, path: &str, value: &mut Value, gone: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let mut kept = Map::new();
                for (name, mut v) in std::mem::take(map) {
                    match self.sub_for(path, &name) {
                        Some((Some(sub), path)) => sub.prune_at(&path, &mut v, gone),
                        Some((None, _)) => {}
                        None => {
                            gone.push(field::child(path, &name));
                            continue;
                        }
                    }
                    kept.insert(name, v);
                }
                *map = kept;
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (i, v) in list.iter_mut().enumerate() {
                        items.prune_at(&field::index(path, i), v, gone);
                    }
                }
            }
            _ => {}
        }
    }

    fn unknown_at(&self, path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, v) in map {
                    match self.sub_for(path, name) {
                        Some((Some(sub), path)) => sub.unknown_at(&path, v, found),
                        Some((None, _)) => {}
                        None => found.push(field::child(path, name)),
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (i, v) in list.iter().enumerate() {
                        items.unknown_at(&field::index(path, i), v, found);
                    }
                }
            }
            _ => {}
        }
    }
}
