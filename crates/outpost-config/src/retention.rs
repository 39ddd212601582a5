//! For how long records and files are kept.

use std::ops::RangeInclusive;

use outpost_core::{RETENTION_DAYS_MAX, RetentionRules};
use serde::Deserialize;

use crate::error::ConfigError;

/// Bounds of everything, days.
const DAYS: RangeInclusive<u32> = 1..=RETENTION_DAYS_MAX;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionFile {
    dispatch_days: Option<u32>,
    artifact_days: Option<u32>,
    context_days: Option<u32>,
    log_days: Option<u32>,
    expired_key_days: Option<u32>,
    usage_days: Option<u32>,
    delivery_days: Option<u32>,
}

/// Checks what the file says.
pub(crate) fn rules(file: RetentionFile) -> Result<RetentionRules, ConfigError> {
    let within = |name: &str, value: Option<u32>, default: u32| {
        let value = value.unwrap_or(default);
        if DAYS.contains(&value) {
            return Ok(value);
        }
        let (least, most) = (DAYS.start(), DAYS.end());
        Err(ConfigError::usage(format!("retention.{name} is {value}; expected {least} to {most}")))
    };
    let usual = RetentionRules::default();
    Ok(RetentionRules {
        dispatch_days: within("dispatch_days", file.dispatch_days, usual.dispatch_days)?,
        artifact_days: within("artifact_days", file.artifact_days, usual.artifact_days)?,
        context_days: within("context_days", file.context_days, usual.context_days)?,
        log_days: within("log_days", file.log_days, usual.log_days)?,
        expired_key_days: within(
            "expired_key_days",
            file.expired_key_days,
            usual.expired_key_days,
        )?,
        usage_days: within("usage_days", file.usage_days, usual.usage_days)?,
        delivery_days: within("delivery_days", file.delivery_days, usual.delivery_days)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_as_usual_and_zero_is_refused() {
        let file = |text: &str| toml::from_str::<RetentionFile>(text).unwrap();
        assert_eq!(rules(file("")).unwrap(), RetentionRules::default());
        let chosen = rules(file("log_days = 3\nartifact_days = 36500")).unwrap();
        assert_eq!((chosen.log_days, chosen.artifact_days, chosen.dispatch_days), (3, 36_500, 30));
        for name in ["dispatch_days", "usage_days", "delivery_days", "expired_key_days"] {
            for wrong in ["0", "36501"] {
                let error = rules(file(&format!("{name} = {wrong}"))).unwrap_err();
                assert!(error.to_string().contains(&format!("retention.{name}")), "{error}");
            }
        }
    }
}
