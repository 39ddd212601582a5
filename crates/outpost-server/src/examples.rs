//! Examples of bodies and answers in the document, all from one table: `examples.json`.
//!
//! An entry has the name of its schema; a page of something shows what the entry of that something says. What has no
//! schema of its own has an entry of its operation: `readLogs` for the answer, `mcp request` for the body. The
//! tests send each body and hold each answer against its schema; they fail for a body without an example.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::example::Example;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, Content, OpenApi, PathItem, Ref, RefOr};

const TABLE: &str = include_str!("examples.json");
/// Schema names of pages begin with it.
const PAGE: &str = "Page_";
/// Name of an example within its body.
const NAME: &str = "example";

/// Gives every body and every answer that is no error its example.
pub(crate) fn add(document: &mut OpenApi) {
    let table: BTreeMap<String, Value> = serde_json::from_str(TABLE).unwrap_or_default();
    let mut used = BTreeMap::new();
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let id = operation.operation_id.clone().unwrap_or_default();
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                let own = format!("{id} request");
                for content in body.content.values_mut() {
                    show(content, &own, &table, &mut used);
                }
            }
            for (status, answer) in &mut operation.responses.responses {
                let RefOr::T(answer) = answer else { continue };
                for content in answer.content.values_mut().filter(|_| status.starts_with('2')) {
                    show(content, &id, &table, &mut used);
                }
            }
        }
    }
    document.components.get_or_insert_with(Components::new).examples = used;
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// One body or answer; `own` is the entry for one whose schema has no name.
fn show(
    content: &mut RefOr<Content>,
    own: &str,
    table: &BTreeMap<String, Value>,
    used: &mut BTreeMap<String, RefOr<Example>>,
) {
    let RefOr::T(content) = content else { return };
    let example = match schema_name(content) {
        Some(name) => {
            let Some(value) = named(&name, table) else { return };
            used.insert(name.clone(), example(value));
            RefOr::Ref(Ref::new(format!("#/components/examples/{name}")))
        }
        None => match table.get(own) {
            Some(value) => example(value.clone()),
            None => return,
        },
    };
    content.examples.insert(NAME.to_owned(), example);
}

fn schema_name(content: &Content) -> Option<String> {
    match content.schema.as_ref()? {
        RefOr::Ref(reference) => reference.ref_location.rsplit('/').next().map(str::to_owned),
        RefOr::T(_) => None,
    }
}

fn named(name: &str, table: &BTreeMap<String, Value>) -> Option<Value> {
    match name.strip_prefix(PAGE) {
        Some(item) => table.get(item).map(|item| json!({ "items": [item] })),
        None => table.get(name).cloned(),
    }
}

fn example(value: Value) -> RefOr<Example> {
    let mut example = Example::new();
    example.value = Some(value);
    RefOr::T(example)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_entry_of_the_table_is_shown() {
        let table: BTreeMap<String, Value> = serde_json::from_str(TABLE).unwrap();
        let document: Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        let mut shown = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                shown.extend([id.to_owned(), format!("{id} request")]);
            }
        }
        for name in document["components"]["examples"].as_object().unwrap().keys() {
            shown.insert(name.strip_prefix(PAGE).unwrap_or(name).to_owned());
        }
        let idle: Vec<_> = table.keys().filter(|name| !shown.contains(*name)).collect();
        assert!(idle.is_empty(), "nothing of the document shows these entries: {idle:?}");
    }
}
