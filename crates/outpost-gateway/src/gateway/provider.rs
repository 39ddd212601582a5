//! The providers Outpost knows: where they are, how they want their key, and what the environment says.
//!
//! Sources: the providers' public API references. Absent: reading the environment itself; a lookup function
//! is passed in, so nothing here depends on the process.

use outpost_types::Provider;

use super::GatewayError;
use super::grant::{AuthStyle, Credential, Route, Upstream};

/// Set to `1`, it allows plain http to other machines in the base URL variables.
pub(crate) const PLAIN_HTTP_VARIABLE: &str = "OUTPOST_ALLOW_PLAIN_HTTP_UPSTREAM";

/// The provider's public address, without a path.
#[must_use]
pub const fn default_base_url(provider: Provider) -> &'static str {
    match provider {
        Provider::Anthropic => "https://api.anthropic.com",
        Provider::Openai => "https://api.openai.com",
        Provider::Google => "https://generativelanguage.googleapis.com",
        Provider::Deepseek => "https://api.deepseek.com",
        Provider::Xai => "https://api.x.ai",
    }
}

/// How the provider wants its key.
#[must_use]
pub const fn auth_style(provider: Provider) -> AuthStyle {
    match provider {
        Provider::Anthropic => AuthStyle::XApiKey,
        Provider::Openai | Provider::Deepseek | Provider::Xai => AuthStyle::Bearer,
        Provider::Google => AuthStyle::XGoogApiKey,
    }
}

/// Variable that puts another address in place of the public one, such as `OUTPOST_ANTHROPIC_BASE_URL`.
#[must_use]
pub fn base_url_variable(provider: Provider) -> String {
    format!("OUTPOST_{}_BASE_URL", provider.as_str().to_uppercase())
}

/// The provider's address: the operator's own if set, else the public one.
///
/// # Errors
/// [`GatewayError::BadUpstream`] when the operator's own cannot be used.
pub fn upstream_from(
    provider: Provider,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Upstream, GatewayError> {
    let variable = base_url_variable(provider);
    match lookup(&variable).filter(|text| !text.trim().is_empty()) {
        Some(text) if lookup(PLAIN_HTTP_VARIABLE).as_deref() == Some("1") => {
            Upstream::parse_allowing_plain_http(&variable, &text)
        }
        Some(text) => Upstream::parse(&variable, &text),
        None => Upstream::parse(provider.as_str(), default_base_url(provider)),
    }
}

/// The provider's key from the first of its variables that is set; `None` when none is.
///
/// # Errors
/// [`GatewayError::BadCredential`] when the value cannot be a key.
pub fn credential_from(
    provider: Provider,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<Credential>, GatewayError> {
    let mut values = provider.key_variables().iter().filter_map(|name| lookup(name));
    let value = values.find(|text| !text.trim().is_empty());
    value.map(|text| Credential::new(provider.as_str(), &text)).transpose()
}

/// The provider's usual route, under `/` and its name, such as `/anthropic`.
///
/// # Errors
/// [`GatewayError::BadUpstream`] when the operator's own address cannot be used.
pub fn route_from(
    provider: Provider,
    credential: Credential,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Route, GatewayError> {
    let prefix = format!("/{}", provider.as_str());
    let upstream = upstream_from(provider, lookup)?;
    Route::new(provider.as_str(), &prefix, upstream, credential, auth_style(provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_asked_in_order() {
        let none = |_: &str| None;
        for provider in Provider::ALL {
            assert!(upstream_from(provider, none).unwrap().is_https());
            assert!(credential_from(provider, none).unwrap().is_none());
        }
        let grok = |name: &str| match name {
            "XAI_API_KEY" => Some(" ".to_owned()),
            "GROK_API_KEY" => Some("grok-key-1".to_owned()),
            "OUTPOST_XAI_BASE_URL" => Some("http://127.0.0.1:9/base/".to_owned()),
            "OUTPOST_OPENAI_BASE_URL" => Some("http://example.com".to_owned()),
            _ => None,
        };
        let credential = credential_from(Provider::Xai, grok).unwrap().unwrap();
        assert_eq!(credential.expose(), "grok-key-1");
        let route = route_from(Provider::Xai, credential, grok).unwrap();
        assert_eq!(
            (route.prefix.as_str(), route.upstream.base()),
            ("/xai", "http://127.0.0.1:9/base")
        );
        let error = upstream_from(Provider::Openai, grok).unwrap_err().to_string();
        assert!(error.contains("OUTPOST_OPENAI_BASE_URL"), "{error}");
        let allowed = |name: &str| match name {
            PLAIN_HTTP_VARIABLE => Some("1".to_owned()),
            other => grok(other),
        };
        assert!(upstream_from(Provider::Openai, allowed).is_ok());
    }
}
