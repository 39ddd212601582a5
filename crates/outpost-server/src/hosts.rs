//! Check of the `Host` header against DNS rebinding: a web page whose name was made to resolve to
//! 127.0.0.1 still sends its own name.

use http::Request;
use http::header::HOST;
use http::uri::Authority;
use outpost_types::{ApiError, ErrorCode};

use crate::ServerConfig;

/// Names this server answers to, lower case, without a port.
#[derive(Debug)]
pub(crate) struct HostPolicy {
    enforced: bool,
    names: Vec<String>,
}

impl HostPolicy {
    /// The policy that follows from where the server is bound.
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let ip = config.bind.ip();
        let mut names = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "[::1]".to_owned(),
            if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() },
        ];
        let public = config
            .public_url
            .as_deref()
            .and_then(|url| url.split_once("://"))
            .and_then(|(_, rest)| rest.split('/').next());
        let configured = config.allowed_hosts.iter().map(String::as_str);
        names.extend(configured.chain(public).map(name_of));
        Self { enforced: ip.is_loopback() || !config.allowed_hosts.is_empty(), names }
    }

    /// Refuses a request for a name that is not ours. A request without any name passes: no browser
    /// sends one.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        if !self.enforced {
            return Ok(());
        }
        let from_uri = request.uri().host();
        let from_header = request.headers().get(HOST).map(|value| value.to_str());
        let name = match (from_uri, from_header) {
            (Some(host), _) => host.to_ascii_lowercase(),
            (None, None) => return Ok(()),
            (None, Some(Ok(text))) => name_of(text),
            (None, Some(Err(_))) => String::new(),
        };
        if self.names.contains(&name) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::Forbidden,
            "This server does not answer to the name in the Host header.",
        )
        .with_hint("Reach it as localhost, or add the name to the allowed hosts of the server."))
    }
}

/// Host of `host[:port]`, lower case; empty when it is none.
fn name_of(text: &str) -> String {
    text.parse::<Authority>()
        .map(|authority| authority.host().to_ascii_lowercase())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn asks(config: &ServerConfig, host: &str) -> bool {
        let request = Request::builder().header(HOST, host).body(()).unwrap();
        HostPolicy::new(config).check(&request).is_ok()
    }

    #[test]
    fn only_our_names_on_loopback() {
        let mut config =
            ServerConfig::new("127.0.0.1:1".parse().unwrap(), SigningKey::new([0; 32]));
        config.allowed_hosts = vec!["Box.example".into()];
        config.public_url = Some("https://out.example:444/base".into());
        for good in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:7700",
            "[::1]:9",
            "box.example",
            "out.example:444",
        ] {
            assert!(asks(&config, good), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "", "user@", "127.0.0.1.evil:1"] {
            assert!(!asks(&config, bad), "{bad}");
        }
    }

    #[test]
    fn open_addresses_check_only_when_configured() {
        let mut config = ServerConfig::new("0.0.0.0:1".parse().unwrap(), SigningKey::new([0; 32]));
        assert!(asks(&config, "anything.example"));
        config.allowed_hosts = vec!["out.example".into()];
        assert!(asks(&config, "out.example") && !asks(&config, "anything.example"));
    }
}
