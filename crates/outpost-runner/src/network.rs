//! What a sandbox may reach beside its models, through the gateway's proxy.
//!
//! Bounded: rules of a dispatch. Absent: any other way out; the sandbox has none.

use std::sync::Arc;

use outpost_core::DispatchSpec;
use outpost_gateway::egress::{
    EgressFloor, EgressGrant, EgressLevel, EgressPolicy, EgressRule, Resolve, SystemResolver,
};
use outpost_types::{ApiError, DispatchRequest, NetworkLevel};

/// Variables by which programs find a proxy; curl reads the small ones only.
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
/// Variables by which they find what is reached without it: the gateway's own routes.
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
const NO_PROXY: &str = "127.0.0.1,localhost,::1";

/// What the operator decides about networks.
#[derive(Debug, Clone)]
pub struct Network {
    /// What any dispatch may reach at most.
    pub floor: EgressFloor,
    /// Who resolves names.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for Network {
    fn default() -> Self {
        Self { floor: EgressFloor::default(), resolver: Arc::new(SystemResolver) }
    }
}

impl Network {
    /// The way out of a dispatch's sandbox; `None` when it wants none.
    pub(crate) fn grant(&self, spec: &DispatchSpec) -> Result<Option<EgressGrant>, String> {
        let Some(policy) = policy(spec.network, &spec.allow_hosts)? else { return Ok(None) };
        let grant = EgressGrant::new(policy, self.floor.clone());
        Ok(Some(EgressGrant { resolver: Arc::clone(&self.resolver), ..grant }))
    }
}

/// Checks the hosts a request names.
pub(crate) fn check(request: &DispatchRequest) -> Result<(), ApiError> {
    policy(request.network.unwrap_or_default(), &request.allow_hosts)
        .map(drop)
        .map_err(|problem| ApiError::field("allowHosts", problem))
}

fn policy(level: NetworkLevel, allow_hosts: &[String]) -> Result<Option<EgressPolicy>, String> {
    let level = match level {
        NetworkLevel::None => return Ok(None),
        NetworkLevel::Trusted => EgressLevel::Trusted,
        NetworkLevel::Custom => EgressLevel::Custom,
    };
    let rule = |text: &String| text.parse::<EgressRule>().map_err(|error| error.to_string());
    let allow = allow_hosts.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let policy = EgressPolicy { level, allow, ..EgressPolicy::default() };
    policy.check().map_err(|error| error.to_string())?;
    Ok(Some(policy))
}

/// Points programs at the proxy on this port.
pub(crate) fn variables(port: u16) -> impl Iterator<Item = (String, String)> {
    let proxy = format!("http://127.0.0.1:{port}");
    let to_proxy = PROXY_VARIABLES.into_iter().map(move |name| (name.to_owned(), proxy.clone()));
    let past_it = NO_PROXY_VARIABLES.into_iter().map(|name| (name.to_owned(), NO_PROXY.to_owned()));
    to_proxy.chain(past_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_hosts_become_a_policy() {
        assert_eq!(policy(NetworkLevel::None, &[]), Ok(None));
        let hosts = ["example.com".to_owned(), "*.example.org:8443".to_owned()];
        let custom = policy(NetworkLevel::Custom, &hosts).unwrap().unwrap();
        assert_eq!((custom.level, custom.allow.len()), (EgressLevel::Custom, 2));
        let error = policy(NetworkLevel::Custom, &["http://x".to_owned()]).unwrap_err();
        assert!(error.contains("http://x"), "{error}");
        let request = DispatchRequest {
            network: Some(NetworkLevel::Custom),
            allow_hosts: vec!["a b".to_owned()],
            ..DispatchRequest::default()
        };
        assert_eq!(check(&request).unwrap_err().field.as_deref(), Some("allowHosts"));
    }
}
