//! Every bound a client can meet, with its unit in the name.
//!
//! Requests beyond a bound are refused with an error naming the field; nothing is cut silently.

/// Longest task text, bytes.
pub const TASK_BYTES_MAX: usize = 51_200;
/// Longest request body, bytes.
pub const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Shortest, longest and usual running time of an agent, seconds.
pub const TIMEOUT_SECONDS_MIN: u64 = 30;
/// See [`TIMEOUT_SECONDS_MIN`].
pub const TIMEOUT_SECONDS_MAX: u64 = 86_400;
/// See [`TIMEOUT_SECONDS_MIN`].
pub const TIMEOUT_SECONDS_DEFAULT: u64 = 600;
/// Shortest, longest and usual time from accepted to terminal, seconds.
pub const DEADLINE_SECONDS_MIN: u64 = 30;
/// See [`DEADLINE_SECONDS_MIN`]; 7 days.
pub const DEADLINE_SECONDS_MAX: u64 = 604_800;
/// See [`DEADLINE_SECONDS_MIN`]; 24 hours.
pub const DEADLINE_SECONDS_DEFAULT: u64 = 86_400;
/// Time between SIGTERM and SIGKILL of an agent, seconds.
pub const STOP_GRACE_SECONDS: u64 = 10;
/// Longest time in all by which an agent's end moves on because its provider serves nobody, seconds.
pub const PARKED_SECONDS_MAX: u64 = 3_600;
/// Longest repository address, bytes.
pub const REPO_BYTES_MAX: usize = 2_048;
/// Longest branch name, bytes.
pub const BRANCH_BYTES_MAX: usize = 255;
/// Longest model id, bytes.
pub const MODEL_ID_BYTES_MAX: usize = 128;
/// Longest agent name, bytes.
pub const AGENT_ID_BYTES_MAX: usize = 32;
/// Longest user id, bytes.
pub const USER_ID_BYTES_MAX: usize = 128;
/// Longest tenant id, bytes.
pub const TENANT_ID_BYTES_MAX: usize = 64;
/// Most tags of a dispatch.
pub const TAGS_COUNT_MAX: usize = 16;
/// Longest tag, bytes.
pub const TAG_BYTES_MAX: usize = 64;
/// Longest `Idempotency-Key`, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How long an idempotency key is remembered, seconds (24 h).
pub const IDEMPOTENCY_TTL_SECONDS: u64 = 86_400;
/// Longest reason of a cancel, bytes.
pub const CANCEL_REASON_BYTES_MAX: usize = 500;
/// Usual and largest page of a list.
pub const LIST_LIMIT_DEFAULT: u32 = 20;
/// See [`LIST_LIMIT_DEFAULT`].
pub const LIST_LIMIT_MAX: u32 = 100;
/// Longest cursor a client may send, bytes.
pub const CURSOR_BYTES_MAX: usize = 512;
/// Longest long poll of a status, seconds.
pub const WAIT_SECONDS_MAX: u64 = 60;
/// Dispatches that wait for a slot; further ones are turned away. Each costs the server some hundred
/// bytes of memory.
pub const WAITING_COUNT_MAX: usize = 1_000_000;
/// Part of the agent's output that a status carries, bytes.
pub const OUTPUT_TAIL_BYTES_MAX: usize = 8 * 1024;
/// Longest line of agent output that is parsed; a longer one is kept raw in pieces, bytes.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Largest output log of a dispatch, bytes; what follows is counted, not kept.
pub const OUTPUT_LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Heartbeat of an event stream, seconds (balancers cut connections idle for 60).
pub const SSE_HEARTBEAT_SECONDS: u64 = 15;
/// Shortest, longest and usual life of a signed artifact URL, seconds.
pub const SIGNED_URL_SECONDS_MIN: u64 = 60;
/// See [`SIGNED_URL_SECONDS_MIN`].
pub const SIGNED_URL_SECONDS_MAX: u64 = 86_400;
/// See [`SIGNED_URL_SECONDS_MIN`].
pub const SIGNED_URL_SECONDS_DEFAULT: u64 = 3_600;
/// Attempts at provisioning before a dispatch fails; an agent that began is never started again.
pub const PROVISION_TRIES_MAX: u32 = 3;
/// Most checks of a dispatch.
pub const CHECKS_COUNT_MAX: usize = 8;
/// Longest check command, bytes.
pub const CHECK_BYTES_MAX: usize = 2_048;
/// Longest running time of one check, seconds.
pub const CHECK_SECONDS_MAX: u64 = 300;
/// Most setup commands of a dispatch.
pub const SETUP_COMMANDS_COUNT_MAX: usize = 8;
/// Longest setup command of a dispatch, bytes.
pub const SETUP_COMMAND_BYTES_MAX: usize = 2_048;
/// Longest reason for draining a host or an agent, bytes.
pub const DRAIN_REASON_BYTES_MAX: usize = 256;
/// Most secrets a dispatch may name.
pub const DISPATCH_SECRETS_COUNT_MAX: usize = 32;
/// Most hosts a dispatch may add to its network.
pub const ALLOW_HOSTS_COUNT_MAX: usize = 64;
/// Longest of them, bytes: a name, `*.` and a port.
pub const ALLOW_HOST_BYTES_MAX: usize = 261;
/// Smallest and largest budget of a dispatch, US dollars.
pub const BUDGET_USD_MIN: f64 = 0.0001;
/// See [`BUDGET_USD_MIN`].
pub const BUDGET_USD_MAX: f64 = 100_000.0;
/// Longest name of a secret, bytes.
pub const SECRET_NAME_BYTES_MAX: usize = 128;
/// Shortest value of a secret, bytes. Shorter ones cannot be redacted without hitting ordinary text.
pub const SECRET_BYTES_MIN: usize = 8;
/// Longest value of a secret, bytes.
pub const SECRET_BYTES_MAX: usize = 65_536;
/// Longest key of a model provider, bytes; the gateway takes no longer one.
pub const PROVIDER_KEY_BYTES_MAX: usize = 4_096;
/// Most secrets of one tenant, and of the platform.
pub const SECRETS_COUNT_MAX: usize = 256;
/// Most persistent workspaces that are listed.
pub const WORKSPACES_COUNT_MAX: usize = 1_000;
/// Most webhooks of one tenant.
pub const WEBHOOKS_COUNT_MAX: usize = 16;
/// Longest address of a webhook, bytes.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2_048;
/// Tries of a delivery before it is given up.
pub const WEBHOOK_TRIES_MAX: u32 = 8;
/// Most and usual days of a report of what was used.
pub const USAGE_DAYS_MAX: u64 = 366;
/// See [`USAGE_DAYS_MAX`].
pub const USAGE_DAYS_DEFAULT: u64 = 30;
/// Longest branch name of a promotion, bytes (a file name below `refs/heads` has 255).
pub const PROMOTE_BRANCH_BYTES_MAX: usize = 240;
/// Longest title of a pull request, bytes.
pub const PROMOTE_TITLE_BYTES_MAX: usize = 255;
/// Longest text that a client puts before the body of a pull request, bytes.
pub const PROMOTE_BODY_BYTES_MAX: usize = 16_384;
/// Most rounds of feedback on a pull request that go back to the agent.
pub const FOLLOW_ROUNDS_MAX: u32 = 5;
/// Longest time that a pull request is followed, days.
pub const FOLLOW_DAYS_MAX: u64 = 14;
/// Most protected files of a promotion that are named.
pub const PROTECTED_PATHS_COUNT_MAX: usize = 100;
/// Longest name of a key or a tenant, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most keys of one tenant that work.
pub const KEYS_COUNT_MAX: usize = 256;
/// Longest life of a key that ends, seconds (10 years).
pub const KEY_LIFE_SECONDS_MAX: u64 = 315_360_000;
/// Longest time that a replaced key goes on working, seconds (7 days).
pub const KEY_OVERLAP_SECONDS_MAX: u64 = 604_800;
/// Most tenants of a server.
pub const TENANTS_COUNT_MAX: usize = 10_000;
/// Largest quota of requests per minute, and of dispatches at once.
pub const QUOTA_REQUESTS_MAX: u32 = 1_000_000;
/// See [`QUOTA_REQUESTS_MAX`].
pub const QUOTA_DISPATCHES_MAX: u32 = 100_000;
/// Most entries of the audit trail that one request checks.
pub const AUDIT_VERIFY_ROWS_MAX: u32 = 100_000;
