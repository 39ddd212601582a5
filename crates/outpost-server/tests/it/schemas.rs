//! The OpenAPI document as a judge: its bodies and answers with their schemas and examples. The end-to-end tests of
//! the binary use it as well.
//!
//! The validator is boon: it knows the draft that OpenAPI 3.1 speaks, and brings few crates that are not here already.
//! Stricter than the schemas are: a field that a schema does not name is wrong, so an answer cannot have more than
//! what is documented.

use std::collections::BTreeSet;

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

/// Where the compiler looks for the document.
const PLACE: &str = "http://localhost/openapi.json";
/// Below it: all schemas that are asked for.
const ASKED: &str = "asked";

/// One body of a request, or one answer.
pub(crate) struct Shape {
    /// Its operation.
    pub(crate) operation: String,
    /// Method of the operation.
    pub(crate) method: String,
    /// Path as the document writes it.
    pub(crate) path: String,
    /// Status of an answer; `None` for a body.
    pub(crate) status: Option<u16>,
    /// Its media type.
    pub(crate) media: String,
    /// Its examples.
    pub(crate) examples: Vec<Value>,
    schema: SchemaIndex,
}

/// The document.
pub(crate) struct Judge {
    /// Bodies, and answers that are no errors.
    pub(crate) shapes: Vec<Shape>,
    schemas: Schemas,
}

impl Judge {
    /// Reads the document of the server.
    pub(crate) fn new() -> Self {
        let mut document: Value = serde_json::from_str(&outpost_server::openapi_json()).unwrap();
        close(&mut document);
        let found = contents(&document);
        let asked: Vec<_> = found.iter().map(|found| found.content["schema"].clone()).collect();
        document[ASKED] = Value::Array(asked);
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        compiler.add_resource(PLACE, document.clone()).unwrap();
        let mut schemas = Schemas::new();
        let shapes = found.into_iter().enumerate().map(|(number, found)| {
            let place = format!("{PLACE}#/{ASKED}/{number}");
            Shape {
                schema: compiler.compile(&place, &mut schemas).unwrap(),
                examples: examples(&found.content, &document),
                operation: found.operation,
                method: found.method,
                path: found.path,
                status: found.status,
                media: found.media,
            }
        });
        let shapes = shapes.collect();
        Self { shapes, schemas }
    }

    /// Fails unless the value is what the document promises.
    pub(crate) fn check(&self, shape: &Shape, value: &Value) {
        let Shape { operation, status, media, .. } = shape;
        if let Err(error) = self.schemas.validate(value, shape.schema) {
            panic!("{operation} {status:?} {media}: {error:#}\nin {value:#}");
        }
    }

    /// The answer of an operation with this status and type, if the document names it.
    pub(crate) fn answer(&self, operation: &str, status: u16, media: &str) -> Option<&Shape> {
        let of = |shape: &&Shape| shape.operation == operation && shape.status == Some(status);
        self.shapes.iter().filter(of).find(|shape| media.starts_with(&shape.media))
    }
}

struct Found {
    operation: String,
    method: String,
    path: String,
    status: Option<u16>,
    media: String,
    content: Value,
}

fn contents(document: &Value) -> Vec<Found> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut add = |status: Option<u16>, content: &Value| {
                for (media, content) in content.as_object().into_iter().flatten() {
                    all.push(Found {
                        operation: operation["operationId"].as_str().unwrap().to_owned(),
                        method: method.to_uppercase(),
                        path: path.clone(),
                        status,
                        media: media.clone(),
                        content: content.clone(),
                    });
                }
            };
            add(None, &operation["requestBody"]["content"]);
            for (status, answer) in operation["responses"].as_object().unwrap() {
                if status.starts_with('2') {
                    add(Some(status.parse().unwrap()), &answer["content"]);
                }
            }
        }
    }
    all
}

fn examples(content: &Value, document: &Value) -> Vec<Value> {
    let named = content["examples"].as_object().into_iter().flatten();
    let value = |example: &Value| {
        let place = example["$ref"].as_str().map(|place| place.trim_start_matches('#'));
        let example = place.map_or(example, |place| document.pointer(place).unwrap());
        example
            .get("value")
            .cloned()
            .unwrap_or_else(|| panic!("an example without a value: {example}"))
    };
    named.map(|(_, example)| value(example)).collect()
}

/// Refuses fields that are not named, in every schema that is not a part of another one.
fn close(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    let mut parts = BTreeSet::new();
    schemas.values().for_each(|schema| parts_of(schema, &mut parts));
    for (name, schema) in schemas.iter_mut() {
        close_schema(schema, !parts.contains(name));
    }
}

/// Names of schemas that stand in an `allOf`.
fn parts_of(schema: &Value, parts: &mut BTreeSet<String>) {
    let place = |part: &Value| {
        part["$ref"].as_str().and_then(|place| place.rsplit('/').next().map(str::to_owned))
    };
    parts.extend(schema["allOf"].as_array().into_iter().flatten().filter_map(place));
    match schema {
        Value::Object(fields) => fields.values().for_each(|value| parts_of(value, parts)),
        Value::Array(values) => values.iter().for_each(|value| parts_of(value, parts)),
        _ => {}
    }
}

fn close_schema(schema: &mut Value, is_whole: bool) {
    let Value::Object(fields) = schema else { return };
    for several in ["oneOf", "anyOf"] {
        let each = fields.get_mut(several).and_then(Value::as_array_mut);
        each.into_iter().flatten().for_each(|one| close_schema(one, is_whole));
    }
    let parts = fields.get_mut("allOf").and_then(Value::as_array_mut);
    parts.into_iter().flatten().for_each(|part| close_schema(part, false));
    let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flatten().for_each(|(_, property)| close_schema(property, true));
    if let Some(items) = fields.get_mut("items") {
        close_schema(items, true);
    }
    if is_whole && is_object(fields) {
        fields.insert("unevaluatedProperties".to_owned(), json!(false));
    }
}

fn is_object(fields: &Map<String, Value>) -> bool {
    let names_fields = fields.contains_key("properties") || fields.contains_key("allOf");
    names_fields && !fields.contains_key("additionalProperties")
}
