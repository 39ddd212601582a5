//! Where webhooks may lead.

use outpost_gateway::egress::Cidr;
use serde::Deserialize;

use crate::error::ConfigError;

/// Most ranges.
const RANGES_MAX: usize = 64;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhooksFile {
    #[serde(default)]
    private: Vec<Cidr>,
}

/// Checks what the file says: ranges that webhooks may lead to although they are not public.
pub(crate) fn ranges(file: WebhooksFile) -> Result<Vec<Cidr>, ConfigError> {
    if file.private.len() > RANGES_MAX {
        let count = file.private.len();
        return Err(ConfigError::usage(format!(
            "webhooks.private names {count} ranges; at most {RANGES_MAX} are allowed"
        )));
    }
    Ok(file.private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_bounded() {
        let file = |text: &str| toml::from_str::<WebhooksFile>(text);
        assert!(ranges(file("").unwrap()).unwrap().is_empty());
        let two = file("private = [\"10.0.0.0/8\", \"fd12::/16\"]").unwrap();
        assert_eq!(ranges(two).unwrap().len(), 2);
        assert!(file("private = [\"10.0.0.0\"]").is_err());
        let many = format!("private = [{}]", "\"10.0.0.0/8\",".repeat(RANGES_MAX + 1));
        assert!(ranges(file(&many).unwrap()).is_err());
    }
}
