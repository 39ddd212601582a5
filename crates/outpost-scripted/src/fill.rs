//! Makes up a value that fits a JSON schema, for side calls (titles, classifiers) and for parameters a
//! tool insists on.
//!
//! Bounded: depth. Absent: `$ref`, patterns and formats; agents' side calls do not use them.

use serde_json::{Map, Value, json};

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 16;
/// Longest made-up text, characters.
const LABEL_CHARS_MAX: usize = 60;

/// A value of this schema; texts are made from `label`.
pub(crate) fn value(schema: &Value, label: &str) -> Value {
    let label: String = label.chars().take(LABEL_CHARS_MAX).collect();
    fill(schema, &label, DEPTH_MAX)
}

fn fill(schema: &Value, label: &str, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        // Gemini CLI asks who speaks next; only "user" ends its turn.
        let user = choices.iter().find(|choice| *choice == "user");
        return user.or_else(|| choices.first()).cloned().unwrap_or(Value::Null);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(key).and_then(|list| list.get(0)) {
            return fill(first, label, depth - 1);
        }
    }
    match type_name(schema).as_str() {
        "object" => object(schema, label, depth),
        "array" => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
            match schema.get("items") {
                Some(items) if least > 0 => json!([fill(items, label, depth - 1)]),
                _ => json!([]),
            }
        }
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(0)),
        "boolean" => json!(false),
        "null" => Value::Null,
        _ => json!(label),
    }
}

fn object(schema: &Value, label: &str, depth: usize) -> Value {
    let mut object = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    for (name, property) in properties.into_iter().flatten() {
        // Without a list of required properties all of them are given.
        if required.is_none_or(|list| list.iter().any(|item| item == name.as_str())) {
            object.insert(name.clone(), fill(property, label, depth - 1));
        }
    }
    Value::Object(object)
}

/// Lower case, because Gemini's own schemas shout; the first that is not null if there are several.
fn type_name(schema: &Value) -> String {
    let name = match schema.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_by_type() {
        let schema = json!({
            "type": "OBJECT",
            "properties": {
                "title": {"type": "string"},
                "who": {"type": "string", "enum": ["model", "user"]},
                "score": {"type": "integer", "minimum": 1},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "maybe": {"type": ["string", "null"]},
                "extra": {"type": "string"}
            },
            "required": ["title", "who", "score", "tags", "maybe"]
        });
        assert_eq!(
            value(&schema, "Fix it"),
            json!({"title": "Fix it", "who": "user", "score": 1, "tags": ["Fix it"], "maybe": "Fix it"})
        );
        assert_eq!(value(&json!({"anyOf": [{"type": "boolean"}]}), "x"), json!(false));
    }
}
