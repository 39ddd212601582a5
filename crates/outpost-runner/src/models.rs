//! Which model providers this install can reach, and with what credential.

use std::collections::BTreeMap;

use outpost_gateway::gateway::{
    AuthStyle, Credential, GatewayError, Route, Upstream, auth_style, credential_from, route_from,
};
use outpost_types::Provider;

/// Where model calls go.
#[derive(Debug, Clone, Default)]
pub struct Models {
    scripted: bool,
    routes: BTreeMap<Provider, Route>,
    problems: BTreeMap<Provider, String>,
}

impl Models {
    /// The real providers, with the keys that `lookup` (the host's environment) holds. A key that
    /// cannot be used makes its agents unavailable, with the reason; it stops nothing else.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<String> + Copy) -> Self {
        let mut models = Self::default();
        for provider in Provider::ALL {
            let route = credential_from(provider, lookup).and_then(|credential| {
                credential.map(|credential| route_from(provider, credential, lookup)).transpose()
            });
            match route {
                Ok(Some(route)) => drop(models.routes.insert(provider, route)),
                Ok(None) => {}
                Err(error) => drop(models.problems.insert(provider, error.to_string())),
            }
        }
        models
    }

    /// The scripted provider at `base_url` in place of every real one.
    ///
    /// # Errors
    /// [`GatewayError`] when the address or the key cannot be used.
    pub fn scripted(base_url: &str, key: &str) -> Result<Self, GatewayError> {
        let mut models = Self { scripted: true, ..Self::default() };
        for provider in Provider::ALL {
            let name = provider.as_str();
            let upstream = Upstream::parse(name, base_url)?;
            let credential = Credential::new(name, key)?;
            let auth: AuthStyle = auth_style(provider);
            let route = Route::new(name, &format!("/{name}"), upstream, credential, auth)?;
            models.routes.insert(provider, route);
        }
        Ok(models)
    }

    /// Whether the scripted provider stands in for every real one.
    #[must_use]
    pub const fn is_scripted(&self) -> bool {
        self.scripted
    }

    /// The route to a provider.
    ///
    /// # Errors
    /// One sentence that says what is missing.
    pub fn route(&self, provider: Provider) -> Result<&Route, String> {
        self.routes.get(&provider).ok_or_else(|| match self.problems.get(&provider) {
            Some(problem) => problem.clone(),
            None => format!(
                "there is no key for {}: set {} where the server runs",
                provider.as_str(),
                provider.key_variables().join(" or "),
            ),
        })
    }
}
