//! What a sandbox may reach beside its models, through the gateway's proxy.
//!
//! The proxy is always there, also where nothing may be reached: it says what was refused, and can be opened
//! while the agent runs. Bounded: rules of a dispatch. Absent: any other way out; the sandbox has none.

use std::sync::Arc;

use outpost_gateway::egress::{
    EgressFloor, EgressGrant, EgressLevel, EgressPolicy, EgressRule, Resolve, SystemResolver,
};
use outpost_types::{ApiError, DispatchRequest, NetworkLevel};
use tracing::warn;

use crate::runner::Assignment;

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
    /// The way out of a sandbox, opened as far as this network is.
    pub(crate) fn grant(
        &self,
        level: NetworkLevel,
        allow_hosts: &[String],
    ) -> Result<EgressGrant, String> {
        let grant = EgressGrant::new(policy(level, allow_hosts)?, self.floor.clone());
        Ok(EgressGrant { resolver: Arc::clone(&self.resolver), ..grant })
    }
}

/// Puts the newest network on record into an assignment.
pub(crate) fn take_newest(assignment: &mut Assignment) {
    let outpost_types::Network { level, allow_hosts } =
        assignment.network.borrow_and_update().clone();
    assignment.spec.network = level;
    assignment.spec.allow_hosts = allow_hosts;
}

/// Checks the hosts a request names.
pub(crate) fn check(request: &DispatchRequest) -> Result<(), ApiError> {
    check_hosts(request.network.unwrap_or_default(), &request.allow_hosts)
}

/// Checks the hosts of a network of that level.
pub(crate) fn check_hosts(level: NetworkLevel, allow_hosts: &[String]) -> Result<(), ApiError> {
    let checked = policy(level, allow_hosts).map(drop);
    checked.map_err(|problem| ApiError::field("allowHosts", problem))
}

/// The gateway's word for a network. One that cannot be read any more opens nothing.
pub(crate) fn policy_of(network: &outpost_types::Network) -> EgressPolicy {
    policy(network.level, &network.allow_hosts).unwrap_or_else(|problem| {
        warn!(problem, "a network cannot be read; nothing is open");
        EgressPolicy::default()
    })
}

fn policy(level: NetworkLevel, allow_hosts: &[String]) -> Result<EgressPolicy, String> {
    let rule = |text: &String| text.parse::<EgressRule>().map_err(|error| error.to_string());
    let allow = allow_hosts.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let empty = match level {
        NetworkLevel::None => return Ok(EgressPolicy::default()),
        // What is usual, and these hosts.
        NetworkLevel::Trusted => EgressPolicy { trusted: true, ..EgressPolicy::default() },
        NetworkLevel::Custom => EgressPolicy::default(),
    };
    let policy = EgressPolicy { level: EgressLevel::Custom, allow, ..empty };
    policy.check().map_err(|error| error.to_string())?;
    Ok(policy)
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
        let of = |level, hosts: &[&str]| {
            let allow_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            outpost_types::Network { level, allow_hosts }
        };
        let hosts = ["example.com", "*.example.org:8443"];
        assert_eq!(policy_of(&of(NetworkLevel::None, &[])), EgressPolicy::default());
        let custom = policy_of(&of(NetworkLevel::Custom, &hosts));
        assert_eq!((custom.level, custom.allow.len()), (EgressLevel::Custom, 2));
        assert!(!custom.trusted);
        let trusted = policy_of(&of(NetworkLevel::Trusted, &hosts));
        assert_eq!((trusted.level, trusted.allow.len()), (EgressLevel::Custom, 2));
        assert!(trusted.trusted);
        let error = check_hosts(NetworkLevel::Custom, &["http://x".to_owned()]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("allowHosts"));
        assert!(error.message.contains("http://x"), "{error:?}");
        // What was written by a version with other rules.
        assert_eq!(policy_of(&of(NetworkLevel::Custom, &["a b"])), EgressPolicy::default());
    }
}
