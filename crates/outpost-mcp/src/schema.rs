//! JSON schemas of arguments and results, as simple as clients need them.
//!
//! Several clients hand schemas on to a model's interface that knows neither references nor types in
//! lists, and some complain about formats they do not know. So everything is inlined, what is optional is
//! absent instead of null, and formats of numbers are left out.

use std::sync::Arc;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// Levels of a schema that are looked at; ours have five.
const DEPTH_MAX: usize = 32;

/// The schema of `T`.
pub(crate) fn of<T: JsonSchema>() -> Arc<JsonObject> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut value = Value::from(schema);
    simplify(&mut value, DEPTH_MAX);
    match value {
        Value::Object(mut object) => {
            object.remove("title");
            object.remove("description");
            Arc::new(object)
        }
        _ => Arc::default(),
    }
}

fn simplify(value: &mut Value, depth: usize) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Object(object) => {
            if object.get("format").is_some_and(Value::is_string) {
                object.remove("format");
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            let only = object.get("type").and_then(Value::as_array).and_then(|types| {
                let mut types = types.iter().filter(|kind| kind.as_str() != Some("null"));
                types.next().filter(|_| types.next().is_none()).cloned()
            });
            if let Some(only) = only {
                object.insert("type".to_owned(), only);
            }
            // An object that may be absent: one alternative beside null.
            if let Some(Value::Array(any)) = object.get("anyOf") {
                let mut others = any.iter().filter(|any| any["type"].as_str() != Some("null"));
                if let (Some(Value::Object(other)), None) = (others.next(), others.next()) {
                    let other = other.clone();
                    object.remove("anyOf");
                    for (key, value) in other {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            object.values_mut().for_each(|value| simplify(value, depth - 1));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| simplify(value, depth - 1)),
        _ => {}
    }
}
