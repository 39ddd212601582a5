//! Who may call a route: key, rate limit, scope, in this order. A caller who fails learns nothing
//! about the object it asked for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use outpost_types::{Admission, Api, ApiError, Caller, ErrorCode, Scope};

use crate::backend::AuthError;
use crate::body::discard;
use crate::limiter::RateState;
use crate::ops::Access;
use crate::problem::Refusal;
use crate::query::Query;
use crate::routes::Shared;

/// Longest key that is looked at, bytes.
const KEY_BYTES_MAX: usize = 256;
/// Longest time spent on reading the rest of a refused request, seconds.
const DISCARD_SECONDS_MAX: u64 = 5;

/// An authenticated request: who, and the operations as they see them.
#[derive(Clone)]
pub(crate) struct Session {
    /// Who calls.
    pub(crate) caller: Arc<Caller>,
    /// What they may do.
    pub(crate) api: Arc<dyn Api>,
}

/// State of one guarded route.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) access: Access,
}

/// Lets a request pass to its handler, with a [`Session`], or refuses it.
pub(crate) async fn guard(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let scope = match guard.access {
        Access::Open => return next.run(request).await,
        Access::KeyOrSignature(_) if is_signed(&request) => return next.run(request).await,
        Access::Key(scope) | Access::KeyOrSignature(scope) => scope,
    };
    let (admitted, rate) = admit(&guard.shared, request.headers(), scope);
    let mut response = match admitted {
        Ok(session) => {
            request.extensions_mut().insert(session);
            next.run(request).await
        }
        Err(error) => {
            let limit = Duration::from_secs(DISCARD_SECONDS_MAX);
            // Whether or not the rest arrives in time, the answer is the same.
            let _ = tokio::time::timeout(limit, discard(request.into_body())).await;
            Refusal(error).into_response()
        }
    };
    if let Some(rate) = rate {
        rate.write(response.headers_mut());
    }
    response
}

/// Checks key, rate and scope; the rate is known once the key was good.
fn admit(
    shared: &Shared,
    headers: &HeaderMap,
    scope: Scope,
) -> (Result<Session, ApiError>, Option<RateState>) {
    let Admission { caller, requests_per_minute } = match authenticate(shared, headers) {
        Ok(admission) => admission,
        Err(error) => return (Err(error), None),
    };
    let own = requests_per_minute.and_then(NonZeroU32::new);
    let per_minute = own.or(shared.config.rate_limit_per_minute);
    let take = |per_minute| shared.limiter.take(caller.key, per_minute, Instant::now());
    let rate = match per_minute.map(take) {
        Some(Err(state)) => return (Err(rate_limited(state)), Some(state)),
        Some(Ok(state)) => Some(state),
        None => None,
    };
    if !caller.may(scope) {
        let message = format!("This key does not have the scope `{scope}`.");
        let error = ApiError::new(ErrorCode::Forbidden, message)
            .with_hint("Use a key that has it, or ask the operator for one.");
        return (Err(error), rate);
    }
    let api = shared.backend.api(&caller);
    (Ok(Session { caller, api }), rate)
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<Admission, ApiError> {
    let admission = shared.backend.authenticate(key_of(headers)?).map_err(refused)?;
    let caller = &admission.caller;
    let span = tracing::Span::current();
    span.record("tenant", caller.tenant.as_str());
    span.record("key_id", tracing::field::display(caller.key));
    Ok(admission)
}

fn refused(reason: AuthError) -> ApiError {
    match reason {
        AuthError::Suspended => ApiError::new(ErrorCode::TenantSuspended, reason.to_string())
            .with_hint("Ask the operator of this server."),
        AuthError::Unknown | AuthError::Revoked | AuthError::Expired => {
            ApiError::new(ErrorCode::Unauthorized, reason.to_string())
                .with_hint("Ask the operator for a key that works.")
        }
    }
}

fn rate_limited(state: RateState) -> ApiError {
    ApiError::new(
        ErrorCode::RateLimited,
        format!("This key is over its limit of {} requests a minute.", state.limit),
    )
    .with_hint("Wait as long as the Retry-After header says.")
    .with_retry_after_seconds(state.retry_after_seconds)
}

/// The key a request carries.
fn key_of(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || {
        ApiError::new(ErrorCode::Unauthorized, "This address needs an API key.")
            .with_hint("Send it in the header X-API-Key, or as Authorization: Bearer <key>.")
    };
    let bearer = || {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    };
    let key = match headers.get("x-api-key") {
        Some(value) => value.to_str().ok().map(str::trim),
        None => bearer(),
    };
    key.filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len())).ok_or_else(missing)
}

/// Whether a request claims a signed address; its handler checks the claim.
fn is_signed(request: &Request) -> bool {
    Query::parse(request.uri().query()).is_ok_and(|query| query.has("sig"))
}
