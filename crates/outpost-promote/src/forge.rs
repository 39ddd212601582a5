//! The code hosts that may be contacted, and what each of them is.

use base64::Engine as _;
use outpost_types::{PullRequestView, SecretName};
use outpost_workspace::Secret;
use url::{Host, Url};

use crate::stage::Work;
use crate::{PromoteError, Promoter};

/// Longest address of a pull request, bytes.
const SHOWN_URL_BYTES_MAX: usize = 2_048;
/// Names that tokens travel under in a Basic header.
pub(crate) const USERS: [&str; 2] = ["x-access-token", "oauth2"];

/// What speaks at a code host beside git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeKind {
    /// GitHub's REST API: pull requests.
    Github,
    /// GitLab's REST API: merge requests.
    Gitlab,
    /// Nothing: branches only.
    None,
}

/// A code host, as the operator named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeHost {
    /// Its name, with its port where that is not the usual one.
    pub host: String,
    /// What it speaks.
    pub kind: ForgeKind,
    /// Where its REST API is, without a slash at the end; unused with [`ForgeKind::None`].
    pub api_url: Url,
    /// The secret that holds its token.
    pub token_secret: SecretName,
}

/// Why a code host cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeHostError {
    /// It is no name of a host.
    #[error(
        "{0:?} is no host: expected a name such as github.com, with :port where it is not the usual one"
    )]
    Host(String),
    /// Its address is of no use.
    #[error(
        "api_url of {0} must be an https:// address without credentials; http:// only on a loopback address"
    )]
    Api(String),
    /// The name of its secret is none.
    #[error("token_secret of {0} is no name of a secret, such as GITHUB_TOKEN")]
    Secret(String),
}

impl ForgeHost {
    /// Checks what a configuration says; what it leaves out has the kind's defaults.
    ///
    /// # Errors
    /// [`ForgeHostError`], naming the host.
    pub fn new(
        host: &str,
        kind: ForgeKind,
        api_url: Option<&str>,
        token_secret: Option<&str>,
    ) -> Result<Self, ForgeHostError> {
        let wrong = || ForgeHostError::Host(host.to_owned());
        let base = Url::parse(&format!("https://{host}/")).map_err(|_| wrong())?;
        let host = authority(&base).filter(|own| own == host).ok_or_else(wrong)?;
        let own = |path: &str| format!("https://{host}{path}");
        let api = match (api_url, kind) {
            (Some(api), _) => api.to_owned(),
            (None, ForgeKind::Github) if host == "github.com" => {
                "https://api.github.com".to_owned()
            }
            (None, ForgeKind::Github) => own("/api/v3"),
            (None, ForgeKind::Gitlab) => own("/api/v4"),
            (None, ForgeKind::None) => own(""),
        };
        let api_url = Url::parse(api.trim_end_matches('/'))
            .ok()
            .filter(|url| is_safe(url) && url.query().is_none() && url.fragment().is_none())
            .ok_or_else(|| ForgeHostError::Api(host.clone()))?;
        let name = token_secret.unwrap_or(match kind {
            ForgeKind::Gitlab => "GITLAB_TOKEN",
            ForgeKind::Github => "GITHUB_TOKEN",
            ForgeKind::None => "GIT_TOKEN",
        });
        let token_secret = name.parse().map_err(|_| ForgeHostError::Secret(host.clone()))?;
        Ok(Self { host, kind, api_url, token_secret })
    }

    /// What git sends as the token's owner.
    pub(crate) fn header(&self, token: &Secret) -> Secret {
        let user = match self.kind {
            ForgeKind::Gitlab => USERS[1],
            ForgeKind::Github | ForgeKind::None => USERS[0],
        };
        let pair = format!("{user}:{}", token.reveal());
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        Secret::new(format!("Authorization: Basic {pair}"))
    }
}

/// Those that need no configuration.
#[must_use]
pub fn default_forges() -> Vec<ForgeHost> {
    let known = [("github.com", ForgeKind::Github), ("gitlab.com", ForgeKind::Gitlab)];
    known
        .into_iter()
        .filter_map(|(host, kind)| ForgeHost::new(host, kind, None, None).ok())
        .collect()
}

/// Host and, where it is not the usual one, port.
pub(crate) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Whether a token may be sent there: encrypted, or to this machine.
pub(crate) fn is_safe(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        _ => false,
    };
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && local);
    scheme && url.host().is_some() && url.username().is_empty() && url.password().is_none()
}

/// An address that a code host names, if a browser may be sent there.
pub(crate) fn shown_url(text: Option<&str>) -> Option<String> {
    let url = text
        .filter(|text| text.len() <= SHOWN_URL_BYTES_MAX)
        .and_then(|text| Url::parse(text).ok())?;
    is_safe(&url).then(|| url.into())
}

impl Promoter {
    /// The pull request of what was pushed: the one there is, or a new one. `None` for a code host that has
    /// none. Safe to ask again, also after a crash: it is looked for first, and a host that already has one
    /// refuses a second. The text is a note for the client.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(
        &self,
        work: Work<'_>,
        target_branch: &str,
        commit: &str,
        body: &str,
    ) -> Result<(PullRequestView, Option<String>), PromoteError> {
        if let Some(found) = self.find(work, commit).await? {
            return Ok((found, None));
        }
        let opened = match work.target.forge.kind {
            ForgeKind::Gitlab => self.gitlab_open(work, target_branch, body).await?,
            _ => self.github_open(work, target_branch, body).await?,
        };
        if let Some(opened) = opened {
            return Ok(opened);
        }
        // Somebody was first since we looked.
        let found = self.find(work, commit).await?.ok_or_else(|| {
            let host = &work.target.forge.host;
            PromoteError::unreachable(host, "it says that there is a pull request and shows none")
        })?;
        Ok((found, None))
    }

    async fn find(
        &self,
        work: Work<'_>,
        commit: &str,
    ) -> Result<Option<PullRequestView>, PromoteError> {
        match work.target.forge.kind {
            ForgeKind::Gitlab => self.gitlab_find(work, commit).await,
            _ => self.github_find(work, commit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_the_defaults_of_their_kind() {
        for (host, kind, api, secret) in [
            ("github.com", ForgeKind::Github, "https://api.github.com/", "GITHUB_TOKEN"),
            (
                "git.example.com",
                ForgeKind::Github,
                "https://git.example.com/api/v3",
                "GITHUB_TOKEN",
            ),
            ("g.example:8443", ForgeKind::Gitlab, "https://g.example:8443/api/v4", "GITLAB_TOKEN"),
            ("code.example", ForgeKind::None, "https://code.example/", "GIT_TOKEN"),
        ] {
            let made = ForgeHost::new(host, kind, None, None).unwrap();
            assert_eq!((made.api_url.as_str(), made.token_secret.as_str()), (api, secret));
        }
        assert_eq!(default_forges().len(), 2);
    }

    #[test]
    fn what_would_leak_a_token_is_refused() {
        let with = |api| ForgeHost::new("h.example", ForgeKind::Github, Some(api), None);
        for api in
            ["http://h.example", "https://u:p@h.example", "ftp://h.example", "x", "https://h?a"]
        {
            assert!(matches!(with(api), Err(ForgeHostError::Api(_))), "{api}");
        }
        assert!(with("http://127.0.0.1:5/api").is_ok());
        for host in ["", "a/b", "u@h", "https://h", "h:443", "H.example", "h?x", "h#x"] {
            assert!(ForgeHost::new(host, ForgeKind::None, None, None).is_err(), "{host}");
        }
        assert!(ForgeHost::new("h", ForgeKind::None, None, Some("lower")).is_err());
        let made = ForgeHost::new("h", ForgeKind::Gitlab, None, None).unwrap();
        assert_eq!(format!("{:?}", made.header(&Secret::new("t"))), "[secret]");
    }
}
