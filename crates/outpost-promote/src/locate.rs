//! From the `repo` of a dispatch to a repository at a code host.
//!
//! `owner/name` and https addresses are taken as they are. A repository of this disk, where the operator
//! allows those, is looked at once: its remote `origin` says where its changes go, also when that is written
//! for ssh. Only hosts of the configuration are known; any other one is refused before it is contacted.

use std::path::{Path, PathBuf};

use outpost_types::ErrorCode;
use url::Url;

use crate::forge::{ForgeHost, authority, is_safe};
use crate::words::line;
use crate::{PromoteError, Promoter};

/// Where a promotion goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address for git, without credentials.
    pub url: Url,
    /// The code host.
    pub forge: ForgeHost,
    /// Path of the repository there, such as `owner/name`.
    pub project: String,
}

impl Target {
    /// Owner and name, as GitHub has them.
    pub(crate) fn owner_and_name(&self) -> Option<(&str, &str)> {
        self.project.split_once('/').filter(|(_, name)| !name.contains('/'))
    }

    /// Beginning of every address of this host, to which the token is bound.
    pub(crate) fn base(&self) -> String {
        self.url.join("/").map(String::from).unwrap_or_default()
    }
}

impl Promoter {
    /// Where the changes of a dispatch in this repository go.
    ///
    /// # Errors
    /// `target_missing` when there is no such place, `forge_credentials` when its host is not known here.
    pub async fn locate(&self, repo: &str) -> Result<Target, PromoteError> {
        let source = self.inner.workspaces.parse_source(repo).map_err(|error| {
            PromoteError::missing(format!("The repository cannot be reached: {error}"))
        })?;
        let text = if source.is_local() {
            self.origin(Path::new(&source.display())).await?
        } else {
            source.display()
        };
        self.target(&text)
    }

    /// Reads an address that git would take, such as that of an earlier [`Promoter::locate`].
    ///
    /// # Errors
    /// As there.
    pub fn target(&self, text: &str) -> Result<Target, PromoteError> {
        let unusable = || {
            PromoteError::missing(format!("{} is no address that can be pushed to.", line(text)))
        };
        let mut url = address(text).ok_or_else(unusable)?;
        let host = authority(&url).ok_or_else(unusable)?;
        let known = self.inner.config.forges.iter().find(|forge| forge.host == host);
        let forge = known.cloned().ok_or_else(|| {
            PromoteError::refused(
                ErrorCode::ForgeCredentials,
                format!("The code host {} is not known here.", line(&host)),
                "The operator adds it to the configuration: [forge.\"host\"].",
            )
        })?;
        let path = url.path().trim_matches('/');
        let project = path.strip_suffix(".git").unwrap_or(path).to_owned();
        let lawful = |part: &str| {
            !matches!(part, "" | "." | "..") && !part.starts_with('-') && !part.contains('%')
        };
        if !project.contains('/') || !project.split('/').all(lawful) {
            return Err(unusable());
        }
        url.set_path(&format!("/{project}.git"));
        Ok(Target { url, forge, project })
    }

    /// The remote `origin` of a repository of this disk. Its configuration is read as a file: nothing in it
    /// is obeyed, and nothing it includes is read.
    async fn origin(&self, path: &Path) -> Result<String, PromoteError> {
        let none = || {
            PromoteError::missing(format!(
                "The repository {} has no remote named origin.",
                line(&path.display().to_string())
            ))
        };
        let inner: PathBuf = path.join(".git").join("config");
        let file = if inner.is_file() { inner } else { path.join("config") };
        let call = self.inner.git.run("config").arg("--file").arg(&file);
        call.args(["--no-includes", "--get", "remote.origin.url"]).text().await.map_err(|_| none())
    }
}

/// An address, with ssh turned into https and any user's name left out.
fn address(text: &str) -> Option<Url> {
    let short = |text: &str| {
        let (user_host, path) = text.split_once(':')?;
        let host = user_host.rsplit('@').next()?;
        let plain = !host.is_empty() && !host.contains('/') && !path.starts_with(['/', ':']);
        plain.then(|| format!("https://{host}/{path}"))
    };
    let text = if text.contains("://") { text.to_owned() } else { short(text)? };
    let mut url = Url::parse(&text).ok()?;
    if url.scheme() == "ssh" || url.scheme() == "git+ssh" {
        url = Url::parse(&format!("https://{}{}", url.host_str()?, url.path())).ok()?;
    }
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    (is_safe(&url) && url.query().is_none() && url.fragment().is_none()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_remote_leads_to_https() {
        for (text, url) in [
            ("https://github.com/o/r.git", "https://github.com/o/r.git"),
            ("https://me:pw@github.com/o/r", "https://github.com/o/r"),
            ("git@github.com:o/r.git", "https://github.com/o/r.git"),
            ("github.com:o/r", "https://github.com/o/r"),
            ("ssh://git@gitlab.com:22/g/s/r.git", "https://gitlab.com/g/s/r.git"),
            ("http://127.0.0.1:9/o/r", "http://127.0.0.1:9/o/r"),
        ] {
            assert_eq!(address(text).unwrap().as_str(), url, "{text}");
        }
        for bad in [
            "http://github.com/o/r",
            "/srv/r.git",
            "../r",
            "file:///srv/r",
            "git://h/o/r",
            "ext::sh -c x",
            "https://h/o/r?x",
            "",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
