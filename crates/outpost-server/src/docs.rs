//! The page at `/docs`: the OpenAPI document as something to read, made once, without any script.
//!
//! Everything in it is taken from the document, and escaped. Bounded by it; nested schemas are shown by name, each
//! once. Absent: trying requests out in the page, which would have to be given a key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = include_str!("docs.css");
/// Methods in the order in which they are listed.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page for an OpenAPI document.
pub(crate) fn page(document: &Value) -> String {
    let operations = operations(document);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>Outpost API</title><style>{STYLE}</style></head><body>"
    );
    navigation(&mut html, &operations, document);
    let info = &document["info"];
    let _ = write!(
        html,
        "<main><header><h1>Outpost API <small>{}</small></h1><p>{}</p><p>The same for programs: \
         <a href=\"/openapi.json\">openapi.json</a> (OpenAPI {}).</p></header>",
        text(&info["version"]),
        prose(&info["description"]),
        text(&document["openapi"]),
    );
    for (tag, operations) in &operations {
        let _ = write!(html, "<h2>{}</h2>", escape(tag));
        for operation in operations {
            section(&mut html, operation);
        }
    }
    html.push_str("<h2>Schemas</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let name = escape(name);
        let _ = write!(
            html,
            "<section id=\"schema-{name}\"><h3>{name}</h3><p>{}</p>{}</section>",
            prose(&schema["description"]),
            shape(schema)
        );
    }
    html.push_str("</main></body></html>\n");
    html
}

/// One operation of the document.
struct Operation<'a> {
    method: &'static str,
    path: &'a str,
    /// What the document says of it.
    said: &'a Value,
    /// All of the document.
    document: &'a Value,
}

impl Operation<'_> {
    fn id(&self) -> String {
        text(&self.said["operationId"])
    }
}

/// By tag, in the order of paths.
fn operations(document: &Value) -> BTreeMap<String, Vec<Operation<'_>>> {
    let mut by_tag: BTreeMap<String, Vec<Operation<'_>>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let Some(said) = item.get(method) else { continue };
            let tag = said["tags"][0].as_str().unwrap_or("other").to_owned();
            by_tag.entry(tag).or_default().push(Operation { method, path, said, document });
        }
    }
    by_tag
}

fn navigation(
    html: &mut String,
    operations: &BTreeMap<String, Vec<Operation<'_>>>,
    document: &Value,
) {
    html.push_str("<nav>");
    for (tag, operations) in operations {
        let _ = write!(html, "<h4>{}</h4><ul>", escape(tag));
        for operation in operations {
            let _ = write!(
                html,
                "<li><a href=\"#{}\"><b class=\"{1}\">{1}</b> {2}</a></li>",
                operation.id(),
                operation.method,
                escape(operation.path)
            );
        }
        html.push_str("</ul>");
    }
    html.push_str("<h4>schemas</h4><ul>");
    for name in document["components"]["schemas"].as_object().into_iter().flatten().map(|(k, _)| k)
    {
        let _ = write!(html, "<li><a href=\"#schema-{0}\">{0}</a></li>", escape(name));
    }
    html.push_str("</ul></nav>");
}

fn section(html: &mut String, operation: &Operation<'_>) {
    let Operation { method, path, said, .. } = operation;
    let _ = write!(
        html,
        "<section id=\"{}\"><h3><b class=\"{method}\">{method}</b> <code>{}</code></h3><p><strong>{}</strong> {}</p>",
        operation.id(),
        escape(path),
        text(&said["summary"]),
        prose(&said["description"]),
    );
    let _ = write!(html, "<p class=\"key\">{}</p>", access(&said["security"]));
    parameters(html, &said["parameters"]);
    let bodies = said["requestBody"]["content"].as_object();
    for (media, body) in bodies.into_iter().flatten() {
        let _ =
            write!(html, "<p>Body, <code>{}</code>: {}</p>", escape(media), kind(&body["schema"]));
    }
    example(html, operation);
    html.push_str("<table><tr><th>Answer</th><th></th></tr>");
    for (status, answer) in said["responses"].as_object().into_iter().flatten() {
        let media = answer["content"].as_object().into_iter().flatten();
        let media: Vec<_> = media.map(|(media, body)| of_media(media, &body["schema"])).collect();
        let _ = write!(
            html,
            "<tr><td><code>{}</code></td><td>{} {}</td></tr>",
            escape(status),
            prose(&answer["description"]),
            media.join(", ")
        );
    }
    html.push_str("</table>");
    answer_example(html, operation);
    html.push_str("</section>");
}

fn of_media(media: &str, schema: &Value) -> String {
    format!("<span class=\"media\">{} {}</span>", escape(media), kind(schema))
}

/// Who may call it.
fn access(security: &Value) -> String {
    let ways = security.as_array().map(Vec::as_slice).unwrap_or_default();
    let scope = ways.iter().filter_map(|way| way["apiKey"][0].as_str()).next();
    let open = ways.iter().any(|way| way.as_object().is_some_and(serde_json::Map::is_empty));
    match scope {
        None => "Needs no key.".to_owned(),
        Some(scope) if open => format!(
            "Needs a key with the scope <code>{}</code>, or a signed address.",
            escape(scope)
        ),
        Some(scope) => format!("Needs a key with the scope <code>{}</code>.", escape(scope)),
    }
}

fn parameters(html: &mut String, parameters: &Value) {
    let Some(parameters) = parameters.as_array().filter(|all| !all.is_empty()) else { return };
    html.push_str("<table><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>");
    for parameter in parameters {
        let _ = write!(
            html,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            text(&parameter["name"]),
            needed(parameter["required"].as_bool() == Some(true)),
            text(&parameter["in"]),
            kind(&parameter["schema"]),
            prose(&parameter["description"]),
        );
    }
    html.push_str("</table>");
}

const fn needed(required: bool) -> &'static str {
    if required { "<sup title=\"required\">*</sup>" } else { "" }
}

/// A call that one can paste.
fn example(html: &mut String, operation: &Operation<'_>) {
    let mut call = String::from("curl -s");
    if operation.method != "get" {
        let _ = write!(call, " -X {}", operation.method.to_uppercase());
    }
    if operation.said["security"].as_array().is_some_and(|ways| !ways.is_empty()) {
        call.push_str(" -H \"X-API-Key: $OUTPOST_API_KEY\"");
    }
    let body = &operation.said["requestBody"]["content"]["application/json"];
    if let Some(body) = shown(body, operation.document) {
        let _ = write!(call, " -H 'Content-Type: application/json' -d '{body}'");
    }
    let _ = write!(call, " \"$OUTPOST_URL{}\"", operation.path);
    let _ = write!(html, "<pre>{}</pre>", escape(&call));
}

/// What an answer looks like, folded.
fn answer_example(html: &mut String, operation: &Operation<'_>) {
    let answers = operation.said["responses"].as_object().into_iter().flatten();
    let good = answers.filter(|(status, _)| status.starts_with('2'));
    let contents = good.filter_map(|(_, answer)| answer["content"].as_object()).flatten();
    let Some(example) = contents.filter_map(|(_, body)| shown(body, operation.document)).next()
    else {
        return;
    };
    let example = match example {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    let _ = write!(
        html,
        "<details><summary>An answer</summary><pre>{}</pre></details>",
        escape(&example)
    );
}

/// The example of a body or an answer.
fn shown<'a>(body: &'a Value, document: &'a Value) -> Option<&'a Value> {
    let example = body["examples"].as_object()?.values().next()?;
    let reference = example["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
    let example = reference.map_or(Some(example), |path| document.pointer(path))?;
    example.get("value")
}

/// What a schema looks like: its properties, its variants or its type.
fn shape(schema: &Value) -> String {
    if let Some(variants) = schema["oneOf"].as_array() {
        return format!(
            "<div class=\"variants\">{}</div>",
            variants.iter().map(variant).collect::<String>()
        );
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts
            .iter()
            .map(|part| {
                if part["$ref"].is_string() {
                    format!("<p>All of {} and</p>", kind(part))
                } else {
                    shape(part)
                }
            })
            .collect();
    }
    let Some(properties) = schema["properties"].as_object() else {
        return format!("<p>{}</p>", kind(schema));
    };
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    let mut html = String::from("<table><tr><th>Field</th><th>Type</th><th></th></tr>");
    for (name, property) in properties {
        let _ = write!(
            html,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            needed(required(name)),
            kind(property),
            prose(&property["description"]),
        );
    }
    html.push_str("</table>");
    html
}

fn variant(schema: &Value) -> String {
    let described = prose(&schema["description"]);
    // A tagged one: what matters is the tag and what is below it.
    let tag = schema["properties"]["type"]["enum"][0].as_str();
    match tag {
        Some(tag) => format!(
            "<h4><code>{}</code></h4><p>{described}</p>{}",
            escape(tag),
            shape(&schema["properties"]["data"])
        ),
        None => format!("<p>{} {described}</p>", kind(schema)),
    }
}

/// A type in a few words, with its bounds; named schemas as links.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[several].as_array() {
            let parts = parts.iter().filter(|part| part["type"] != "null");
            return parts.map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().map(|value| format!("<code>{}</code>", text(value)));
        return values.collect::<Vec<_>>().join(" · ");
    }
    let types = match &schema["type"] {
        Value::Array(all) => all.iter().find(|one| *one != "null").map(text).unwrap_or_default(),
        one => text(one),
    };
    let name = match types.as_str() {
        "array" => format!("list of {}", kind(&schema["items"])),
        "" => "any".to_owned(),
        "string" if schema["format"].is_string() => text(&schema["format"]),
        other => other.to_owned(),
    };
    format!("{name}{}", bounds(schema))
}

fn bounds(schema: &Value) -> String {
    let pairs = [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " bytes"),
        ("minItems", "maxItems", " entries"),
    ];
    let found = pairs.iter().find_map(|(least, most, unit)| {
        let (least, most) = (&schema[*least], &schema[*most]);
        match (least.is_number(), most.is_number()) {
            (true, true) => Some(format!("{least} to {most}{unit}")),
            (false, true) => Some(format!("at most {most}{unit}")),
            (true, false) if least != 0 => Some(format!("at least {least}{unit}")),
            _ => None,
        }
    });
    found.map(|text| format!(" <small>{}</small>", escape(&text))).unwrap_or_default()
}

/// A value as escaped text: a string without its quotes.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

/// Text of the document, escaped, with code between backticks and an empty line as a break.
fn prose(value: &Value) -> String {
    let text = text(value).replace("\n\n", "<br>");
    let mut html = String::with_capacity(text.len());
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            0 => html.push_str(part),
            _ => {
                let _ = write!(html, "<code>{part}</code>");
            }
        }
    }
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn real() -> String {
        page(&serde_json::from_str(&crate::openapi_json()).unwrap())
    }

    #[test]
    fn every_link_of_the_page_leads_somewhere() {
        let html = real();
        let after = |mark: &'static str| {
            html.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap())
        };
        let ids: BTreeSet<&str> = after(" id=\"").collect();
        let links: BTreeSet<&str> = after("href=\"#").collect();
        assert!(links.len() > 50);
        assert_eq!(links.difference(&ids).collect::<Vec<_>>(), [] as [&&str; 0]);
    }

    #[test]
    fn what_the_document_says_is_in_the_page() {
        let html = real();
        for words in [
            "createDispatch",
            "<code>agent</code><sup",
            "Idempotency-Key",
            "1 to 51200 bytes",
            "agent.message",
            "-d '{&quot;agent&quot;:&quot;claude&quot;",
            "&quot;dispatchId&quot;: &quot;01K3",
        ] {
            assert!(html.contains(words), "{words}");
        }
        assert!(!html.contains("<script"));
    }

    #[test]
    fn nothing_in_it_is_markup() {
        let document = serde_json::json!({
            "info": {"version": "<b>", "description": "`<i>` & \"x\""},
            "paths": {"/<a>": {"get": {"operationId": "o\"x", "summary": "<u>", "responses": {"2<": {"description": "<s>"}}}}},
            "components": {"schemas": {"<em>": {"type": "<p>"}}},
        });
        let html = page(&document);
        for tag in ["<b>", "<i>", "<a>", "<u>", "<s>", "<em>", "o\"x"] {
            assert!(!html.contains(tag), "{tag}");
        }
        assert!(html.contains("<code>&lt;i&gt;</code> &amp; &quot;x&quot;"));
    }
}
