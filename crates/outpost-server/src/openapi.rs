//! The OpenAPI 3.1 document: bodies and parameters come from the handlers, access and errors from
//! [`Op`], so that the document cannot promise another key or scope than the guard checks.

use std::collections::BTreeMap;

use http::Method;
use outpost_types::{ErrorCode, Problem};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, Content, PathItem, Ref, RefOr, Required, ResponseBuilder};

use crate::ops::{Access, Op};
use crate::{examples, problem, routes};

/// Operations whose body may be absent.
const OPTIONAL_BODIES: [Op; 3] = [Op::CancelDispatch, Op::DrainFleet, Op::ResumeFleet];
/// Codes every guarded operation may answer.
const GUARDED: [ErrorCode; 6] = [
    ErrorCode::Unauthorized,
    ErrorCode::Forbidden,
    ErrorCode::TenantSuspended,
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::Unavailable,
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Outpost",
        description = "Gives coding tasks to AI coding agents and follows them. Errors are RFC 9457 \
            problem documents; branch on `code`. Send your key as `X-API-Key` or \
            `Authorization: Bearer`."
    ),
    paths(
        routes::create,
        routes::get,
        routes::cancel,
        routes::change_network,
        routes::runs,
        routes::events,
        routes::logs,
        routes::diff,
        routes::context,
        routes::artifacts,
        routes::artifact,
        routes::put_secret,
        routes::secrets,
        routes::delete_secret,
        routes::rekey_secrets,
        routes::usage,
        routes::workspaces,
        routes::workspace,
        routes::delete_workspace,
        routes::promote,
        routes::promotion,
        routes::mcp,
        routes::mcp_resource,
        routes::create_webhook,
        routes::webhooks,
        routes::delete_webhook,
        routes::test_webhook,
        routes::deliveries,
        routes::replay_delivery,
        routes::create_key,
        routes::keys,
        routes::key,
        routes::rotate_key,
        routes::revoke_key,
        routes::create_tenant,
        routes::tenants,
        routes::tenant,
        routes::update_tenant,
        routes::audit,
        routes::verify_audit,
        routes::export_audit,
        routes::fleet,
        routes::drain_fleet,
        routes::resume_fleet,
        routes::health_fleet,
        routes::health,
        routes::live,
        routes::ready,
        routes::openapi,
        routes::docs,
    ),
    components(schemas(Problem, outpost_types::EventEnvelope, outpost_types::WebhookEvent))
)]
struct Document;

/// The document, pretty-printed, with a line break at its end.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The same document as a page.
pub(crate) fn docs_html() -> String {
    crate::docs::page(&serde_json::to_value(document()).unwrap_or_default())
}

fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.info.license = None;
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(
        "apiKey",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))),
    );
    components
        .add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    for op in Op::ALL {
        let item = document.paths.paths.get_mut(&documented_path(op));
        if let Some(operation) = item.and_then(|item| operation_mut(item, &op.method())) {
            complete(operation, op);
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && OPTIONAL_BODIES.contains(&op)
            {
                body.required = Some(Required::False);
            }
        }
    }
    examples::add(&mut document);
    document
}

/// Path of an operation as OpenAPI writes it.
fn documented_path(op: Op) -> String {
    op.path().replace("{*", "{")
}

fn operation_mut<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::PATCH => item.patch.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => item.get.as_mut(),
    }
}

fn complete(operation: &mut Operation, op: Op) {
    let mut codes = op.errors().to_vec();
    let security = match op.access() {
        Access::Open => Vec::new(),
        Access::Key(scope) | Access::KeyOrSignature(scope) => {
            codes.extend(GUARDED);
            vec![
                SecurityRequirement::new("apiKey", [scope.as_str()]),
                SecurityRequirement::new("bearer", [scope.as_str()]),
            ]
        }
    };
    let signed = matches!(op.access(), Access::KeyOrSignature(_));
    operation.security =
        Some(security.into_iter().chain(signed.then(SecurityRequirement::default)).collect());
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.http_status()).or_default().push(code.as_str());
    }
    for (status, codes) in by_status {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new()
            .description(format!("`{}`", codes.join("`, `")))
            .content(problem::PROBLEM_TYPE.to_str().unwrap_or_default(), content)
            .build();
        operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(response));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_and_the_router_know_the_same_operations() {
        let json: serde_json::Value = serde_json::from_str(&openapi_json()).unwrap();
        let documented: BTreeSet<(String, String)> = json["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<(String, String)> =
            Op::ALL.into_iter().map(|op| (op.method().to_string(), documented_path(op))).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn the_committed_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/outpost.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == openapi_json(),
            "openapi/outpost.json is out of date: run `cargo xtask openapi` and commit the result"
        );
    }

    #[test]
    fn every_code_has_its_page() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        for code in ErrorCode::ALL {
            let name = code.as_str();
            let page = std::fs::read_to_string(format!("{directory}/{name}.md"));
            let page = page.unwrap_or_else(|_| panic!("write docs/errors/{name}.md"));
            assert!(page.starts_with(&format!("# {name}\n")), "{name}: title");
            assert!(page.contains("## What to do"), "{name}: what to do");
            let status = format!("\"status\": {}", code.http_status());
            assert!(page.contains(&status), "{name}: example with {status}");
        }
        let pages = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(pages, ErrorCode::ALL.len() + 1, "one page per code and README.md");
    }
}
