//! Which model providers this install can reach, and with what credentials.

use std::collections::BTreeMap;

use outpost_gateway::gateway::{
    Credential, GatewayError, ROUTE_CREDENTIALS_MAX, Route, Upstream, auth_style, credential_from,
    upstream_from,
};
use outpost_types::{GivenSecret, Provider};

/// Where model calls go.
#[derive(Debug, Clone, Default)]
pub struct Models {
    scripted: bool,
    ways: BTreeMap<Provider, Way>,
    problems: BTreeMap<Provider, String>,
}

/// The way to one provider.
#[derive(Debug, Clone)]
struct Way {
    upstream: Upstream,
    /// The operator's own key, from the environment: used after all others.
    key: Option<Credential>,
}

impl Models {
    /// The real providers, with the keys that `lookup` (the host's environment) holds. A key or an address
    /// that cannot be used makes its agents unavailable, with the reason; it stops nothing else.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<String> + Copy) -> Self {
        let mut models = Self::default();
        for provider in Provider::ALL {
            let way = upstream_from(provider, lookup)
                .and_then(|upstream| Ok(Way { upstream, key: credential_from(provider, lookup)? }));
            match way {
                Ok(way) => drop(models.ways.insert(provider, way)),
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
            let key = Some(Credential::new(name, key)?);
            models.ways.insert(provider, Way { upstream, key });
        }
        Ok(models)
    }

    /// Whether the scripted provider stands in for every real one.
    #[must_use]
    pub const fn is_scripted(&self) -> bool {
        self.scripted
    }

    /// Whether calls of this provider can be paid with what the operator has in the environment, so that no
    /// secret is needed.
    ///
    /// # Errors
    /// One sentence, when the provider cannot be used at all.
    pub fn has_key(&self, provider: Provider) -> Result<bool, String> {
        self.way(provider).map(|way| way.key.is_some())
    }

    fn way(&self, provider: Provider) -> Result<&Way, String> {
        let problem = || self.problems.get(&provider).cloned();
        let way = self.ways.get(&provider);
        way.ok_or_else(|| problem().unwrap_or_else(|| Self::no_key(provider)))
    }

    /// What is missing where there is neither a key nor a secret.
    #[must_use]
    pub fn no_key(provider: Provider) -> String {
        let variables = provider.key_variables();
        format!(
            "there is no key for {}: run `outpost secrets set {}`, or set {} where the server runs",
            provider.as_str(),
            variables[0],
            variables.join(" or "),
        )
    }

    /// The route to a provider: with these secrets, best first, then with the operator's key. The scripted
    /// provider is shown no secret.
    ///
    /// # Errors
    /// One sentence that says what is missing or wrong.
    pub fn route(&self, provider: Provider, given: &[GivenSecret]) -> Result<Route, String> {
        let way = self.way(provider)?;
        let name = provider.as_str();
        let given = given.iter().filter(|_| !self.scripted);
        let given = given.map(|secret| Credential::new(name, secret.value.expose()));
        let own = way.key.clone().map(Ok);
        let mut keys = given.chain(own).take(ROUTE_CREDENTIALS_MAX);
        let wrong = |error: GatewayError| error.to_string();
        let first = keys.next().ok_or_else(|| Self::no_key(provider))?.map_err(wrong)?;
        let (prefix, auth) = (format!("/{name}"), auth_style(provider));
        let route = Route::new(name, &prefix, way.upstream.clone(), first, auth).map_err(wrong)?;
        keys.try_fold(route, |route, key| route.with_fallback(key?)).map_err(wrong)
    }
}
