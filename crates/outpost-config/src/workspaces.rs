//! How much persistent workspaces and the cache below all workspaces may take, and for how long.

use std::ops::RangeInclusive;

use outpost_workspace::{
    CACHE_BYTES_MAX_DEFAULT, WORKSPACE_BYTES_MAX_DEFAULT, WORKSPACE_IDLE_SECONDS_DEFAULT,
};
use serde::Deserialize;

use crate::error::ConfigError;

/// Bounds of both numbers of bytes: 1 MiB to 16 TiB. A smaller cache would drop what the next run wants.
const BYTES: RangeInclusive<u64> = 1 << 20..=16 << 40;
/// Bounds of the idle time, seconds: a minute to ten years.
const IDLE_SECONDS: RangeInclusive<u64> = 60..=10 * 365 * 86_400;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkspacesFile {
    bytes_max: Option<u64>,
    idle_seconds: Option<u64>,
    cache_bytes_max: Option<u64>,
}

/// The same with defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkspaceBounds {
    /// Largest persistent workspace after a run, bytes.
    pub bytes_max: u64,
    /// How long an unused persistent workspace is kept, seconds.
    pub idle_seconds: u64,
    /// Mirrors, checkouts and setups together, bytes.
    pub cache_bytes_max: u64,
}

/// Checks what the file says.
pub(crate) fn bounds(file: WorkspacesFile) -> Result<WorkspaceBounds, ConfigError> {
    let within = |name: &str, value: Option<u64>, default: u64, range: RangeInclusive<u64>| {
        let value = value.unwrap_or(default);
        if range.contains(&value) {
            return Ok(value);
        }
        let (least, most) = (range.start(), range.end());
        Err(ConfigError::usage(format!("workspaces.{name} is {value}; expected {least} to {most}")))
    };
    Ok(WorkspaceBounds {
        bytes_max: within("bytes_max", file.bytes_max, WORKSPACE_BYTES_MAX_DEFAULT, BYTES)?,
        idle_seconds: within(
            "idle_seconds",
            file.idle_seconds,
            WORKSPACE_IDLE_SECONDS_DEFAULT,
            IDLE_SECONDS,
        )?,
        cache_bytes_max: within(
            "cache_bytes_max",
            file.cache_bytes_max,
            CACHE_BYTES_MAX_DEFAULT,
            BYTES,
        )?,
    })
}
