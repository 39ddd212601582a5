//! The router: every operation of [`Op::ALL`] with its guard, under one edge.

mod artifacts;
mod audit;
mod context;
mod dispatch;
mod fleet;
mod health;
mod ids;
mod keys;
mod mcp;
mod promote;
mod secrets;
mod streams;
mod tenants;
mod usage;
mod webhooks;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use outpost_mcp::McpHttp;
use serde::Serialize;

use crate::edge::{RequestIds, edge};
use crate::guard::{Guard, guard};
use crate::hosts::HostPolicy;
use crate::limiter::Limiter;
use crate::ops::{Access, Op};
use crate::problem::{Refusal, no_route};
use crate::{Backend, ServerConfig};

pub(crate) use artifacts::{__path_artifact, __path_list as __path_artifacts};
pub(crate) use audit::{
    __path_export as __path_export_audit, __path_list as __path_audit,
    __path_verify as __path_verify_audit,
};
pub(crate) use context::__path_read as __path_context;
pub(crate) use dispatch::{
    __path_cancel, __path_change_network, __path_create, __path_get, __path_runs, DISPATCH_FORM,
};
pub(crate) use fleet::{__path_drain as __path_drain_fleet, __path_resume as __path_resume_fleet};
pub(crate) use health::{
    __path_docs, __path_fleet, __path_health, __path_health_fleet, __path_live, __path_openapi,
    __path_ready,
};
pub(crate) use keys::{
    __path_create as __path_create_key, __path_get as __path_key, __path_list as __path_keys,
    __path_revoke as __path_revoke_key, __path_rotate as __path_rotate_key,
};
pub(crate) use mcp::{__path_message as __path_mcp, __path_resource as __path_mcp_resource};
pub(crate) use promote::{__path_get as __path_promotion, __path_promote};
pub(crate) use secrets::{
    __path_delete as __path_delete_secret, __path_list as __path_secrets,
    __path_put as __path_put_secret, __path_rekey as __path_rekey_secrets,
};
pub(crate) use streams::{__path_diff, __path_events, __path_logs, last_event_id};
pub(crate) use tenants::{
    __path_create as __path_create_tenant, __path_get as __path_tenant,
    __path_list as __path_tenants, __path_update as __path_update_tenant,
};
pub(crate) use usage::__path_read as __path_usage;
pub(crate) use webhooks::{
    __path_create as __path_create_webhook, __path_delete as __path_delete_webhook,
    __path_deliveries, __path_list as __path_webhooks, __path_replay as __path_replay_delivery,
    __path_test as __path_test_webhook,
};
pub(crate) use workspaces::{
    __path_delete as __path_delete_workspace, __path_get as __path_workspace,
    __path_list as __path_workspaces,
};

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) limiter: Limiter,
    pub(crate) hosts: HostPolicy,
    pub(crate) request_ids: RequestIds,
    pub(crate) openapi: Bytes,
    pub(crate) docs: Bytes,
    pub(crate) health: Bytes,
    pub(crate) mcp: McpHttp,
}

/// All routes over `backend`.
pub fn router(config: ServerConfig, backend: Arc<dyn Backend>) -> Router {
    let mcp = McpHttp::new(config.heartbeat);
    router_with_mcp(config, backend, mcp)
}

/// The same with another MCP server at `/mcp`, behind the same edge, guard and transport: for the suite that tests
/// those with tools of its own.
#[doc(hidden)]
pub fn router_with_mcp(config: ServerConfig, backend: Arc<dyn Backend>, mcp: McpHttp) -> Router {
    let shared = Arc::new(Shared {
        limiter: Limiter::default(),
        hosts: HostPolicy::new(&config),
        request_ids: RequestIds::new(),
        openapi: Bytes::from(crate::openapi_json()),
        docs: Bytes::from(crate::openapi::docs_html()),
        health: health::alive(),
        mcp,
        config,
        backend,
    });
    Op::ALL
        .into_iter()
        .fold(Router::new(), |router, op| {
            let mut route = guarded(&shared, op.access(), handler(op));
            if op == Op::Mcp {
                route = route.layer(from_fn_with_state(Arc::clone(&shared), mcp::challenge));
            }
            router.route(op.path(), route)
        })
        .fallback(|| async { Refusal(no_route()).into_response() })
        .layer(from_fn_with_state(Arc::clone(&shared), edge))
        .with_state(shared)
}

fn guarded(
    shared: &Arc<Shared>,
    access: Access,
    route: MethodRouter<Arc<Shared>>,
) -> MethodRouter<Arc<Shared>> {
    if access == Access::Open {
        return route;
    }
    let state = Guard { shared: Arc::clone(shared), access };
    route.route_layer(from_fn_with_state(state, guard))
}

fn handler(op: Op) -> MethodRouter<Arc<Shared>> {
    let filter = match op.method() {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    match op {
        Op::CreateDispatch => on(filter, dispatch::create),
        Op::GetDispatch => on(filter, dispatch::get),
        Op::CancelDispatch => on(filter, dispatch::cancel),
        Op::ChangeNetwork => on(filter, dispatch::change_network),
        Op::Runs => on(filter, dispatch::runs),
        Op::Events => on(filter, streams::events),
        Op::Logs => on(filter, streams::logs),
        Op::Diff => on(filter, streams::diff),
        Op::Context => on(filter, context::read),
        Op::Artifacts => on(filter, artifacts::list),
        Op::Artifact => on(filter, artifacts::artifact),
        Op::PutSecret => on(filter, secrets::put),
        Op::Secrets => on(filter, secrets::list),
        Op::DeleteSecret => on(filter, secrets::delete),
        Op::RekeySecrets => on(filter, secrets::rekey),
        Op::Usage => on(filter, usage::read),
        Op::Workspaces => on(filter, workspaces::list),
        Op::Workspace => on(filter, workspaces::get),
        Op::DeleteWorkspace => on(filter, workspaces::delete),
        Op::Promote => on(filter, promote::promote),
        Op::Promotion => on(filter, promote::get),
        Op::Mcp => on(filter, mcp::message),
        Op::McpResource => on(filter, mcp::resource),
        Op::CreateWebhook => on(filter, webhooks::create),
        Op::Webhooks => on(filter, webhooks::list),
        Op::DeleteWebhook => on(filter, webhooks::delete),
        Op::TestWebhook => on(filter, webhooks::test),
        Op::Deliveries => on(filter, webhooks::deliveries),
        Op::ReplayDelivery => on(filter, webhooks::replay),
        Op::CreateKey => on(filter, keys::create),
        Op::Keys => on(filter, keys::list),
        Op::Key => on(filter, keys::get),
        Op::RotateKey => on(filter, keys::rotate),
        Op::RevokeKey => on(filter, keys::revoke),
        Op::CreateTenant => on(filter, tenants::create),
        Op::Tenants => on(filter, tenants::list),
        Op::Tenant => on(filter, tenants::get),
        Op::UpdateTenant => on(filter, tenants::update),
        Op::Audit => on(filter, audit::list),
        Op::VerifyAudit => on(filter, audit::verify),
        Op::ExportAudit => on(filter, audit::export),
        Op::Fleet => on(filter, health::fleet),
        Op::DrainFleet => on(filter, fleet::drain),
        Op::ResumeFleet => on(filter, fleet::resume),
        Op::HealthFleet => on(filter, health::health_fleet),
        Op::Health => on(filter, health::health),
        Op::Live => on(filter, health::live),
        Op::Ready => on(filter, health::ready),
        Op::OpenApi => on(filter, health::openapi),
        Op::Docs => on(filter, health::docs),
    }
}

/// Most answers about one dispatch need no more, bytes.
pub(crate) const ANSWER_BYTES_USUAL: usize = 4 * 1024;

/// A JSON answer, written into one allocation where `bytes_usual` is enough.
pub(crate) fn json(status: StatusCode, value: &impl Serialize, bytes_usual: usize) -> Response {
    let mut body = Vec::with_capacity(bytes_usual);
    if let Err(error) = serde_json::to_writer(&mut body, value) {
        tracing::error!(%error, "an answer cannot be written");
        return Refusal(crate::problem::internal()).into_response();
    }
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}
