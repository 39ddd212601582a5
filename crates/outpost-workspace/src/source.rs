//! Reading the `repo` field of a dispatch.
//!
//! Bounded: [`REPO_CHARS_MAX`]. Deliberately absent: ssh, git and helper transports (they would run programs or use keys of the
//! host), credentials in addresses, and relative paths.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::SourceError;

/// Longest `repo` field, characters.
const REPO_CHARS_MAX: usize = 1024;
/// Longest owner and name on GitHub, characters (39 and 100).
const OWNER_CHARS_MAX: usize = 39;
const NAME_CHARS_MAX: usize = 100;

/// A repository that may be fetched. Made only by [`crate::Workspaces::parse_source`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RepoSource {
    pub(crate) kind: SourceKind,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum SourceKind {
    /// An https address, normalised; `code_host` says that it lies below the operator's own code host.
    Https { url: String, code_host: bool },
    /// A repository on this disk, canonical.
    Local { path: PathBuf },
}

impl RepoSource {
    /// Reads the field. `github_base` is where `owner/name` lives; `allow_local` lets paths and `file://` in.
    pub(crate) fn parse(
        repo: &str,
        github_base: &str,
        allow_local: bool,
    ) -> Result<Self, SourceError> {
        if repo.is_empty() {
            return Err(SourceError::Malformed("the value is empty"));
        }
        if repo.chars().count() > REPO_CHARS_MAX {
            return Err(SourceError::Malformed("the value is longer than 1,024 characters"));
        }
        if repo.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' ')
            || repo.trim() != repo
        {
            return Err(SourceError::Malformed(
                "the value has control characters or spaces around it",
            ));
        }
        if repo.starts_with('-') {
            return Err(SourceError::Malformed("the value must not start with a dash"));
        }
        if repo.starts_with('/') {
            return local(Path::new(repo), allow_local);
        }
        if repo.starts_with("./")
            || repo.starts_with("../")
            || repo == "."
            || repo == ".."
            || repo.starts_with('~')
        {
            return Err(if allow_local {
                SourceError::RelativePath
            } else {
                SourceError::LocalRefused
            });
        }
        if let Some((owner, name)) = short_form(repo) {
            let base = github_base.trim_end_matches('/');
            return Ok(Self {
                kind: SourceKind::Https {
                    url: format!("{base}/{owner}/{name}.git"),
                    code_host: true,
                },
            });
        }
        address(repo, github_base, allow_local)
    }

    /// How messages and records name it; without credentials, which it never has.
    pub fn display(&self) -> String {
        match &self.kind {
            SourceKind::Https { url, .. } => url.clone(),
            SourceKind::Local { path } => path.display().to_string(),
        }
    }

    /// The part after the last slash without `.git`, for names of branches and directories.
    pub fn slug(&self) -> String {
        let shown = self.display();
        let last = shown.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        last.strip_suffix(".git").unwrap_or(last).to_owned()
    }

    /// `owner/name` if it lives on the operator's code host.
    pub fn owner_and_name(&self) -> Option<(String, String)> {
        let SourceKind::Https { url, code_host: true } = &self.kind else { return None };
        let mut parts = url.trim_end_matches('/').rsplit('/');
        let name = parts.next()?;
        let owner = parts.next()?;
        Some((owner.to_owned(), name.strip_suffix(".git").unwrap_or(name).to_owned()))
    }

    /// Whether it is on this disk.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, SourceKind::Local { .. })
    }
}

/// `owner/name`, with or without `.git`.
fn short_form(repo: &str) -> Option<(&str, &str)> {
    let (owner, name) = repo.split_once('/')?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let fits = |text: &str, max: usize, extra: &[char]| {
        !text.is_empty()
            && text.len() <= max
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c))
    };
    let whole =
        fits(owner, OWNER_CHARS_MAX, &['-', '_']) && fits(name, NAME_CHARS_MAX, &['-', '_', '.']);
    (whole && name != "." && name != "..").then_some((owner, name))
}

/// Anything with a scheme.
fn address(repo: &str, github_base: &str, allow_local: bool) -> Result<RepoSource, SourceError> {
    // `git@host:path` is how ssh is mostly written; `ext::sh -c ..` and its kind have a double colon.
    let scheme_end = repo.find(':');
    if let Some(at) = repo.find('@')
        && scheme_end.is_some_and(|colon| at < colon)
    {
        return Err(SourceError::Scheme("ssh".to_owned()));
    }
    if repo.contains("::") && !repo.contains("://") {
        let scheme: String = repo.chars().take_while(|c| *c != ':').take(20).collect();
        return Err(SourceError::Scheme(scheme));
    }
    let Ok(url) = Url::parse(repo) else {
        return Err(SourceError::Malformed("the value is neither owner/name nor an address"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SourceError::Credentials);
    }
    match url.scheme() {
        "https" => https(&url, github_base),
        "file" => {
            let path = url
                .to_file_path()
                .map_err(|()| SourceError::Malformed("the file address has a host"))?;
            local(&path, allow_local)
        }
        other => Err(SourceError::Scheme(other.chars().take(20).collect())),
    }
}

/// An https address, which must name a public host unless it is the operator's code host.
fn https(url: &Url, github_base: &str) -> Result<RepoSource, SourceError> {
    if url.query().is_some() || url.fragment().is_some() {
        return Err(SourceError::Malformed("the address must not have a query or fragment"));
    }
    let path = url.path().trim_end_matches('/');
    if path.is_empty() {
        return Err(SourceError::Malformed("the address names a host but no repository"));
    }
    let base = github_base.trim_end_matches('/');
    let whole = url.as_str().trim_end_matches('/').to_owned();
    // It is shown, kept and perhaps given again as it is written out here.
    if whole.len() > REPO_CHARS_MAX {
        return Err(SourceError::Malformed(
            "the address is longer than 1,024 characters once all of it is escaped",
        ));
    }
    let code_host = whole.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
    if !code_host {
        let private = match url.host() {
            Some(Host::Ipv4(ip)) => is_private(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => is_private(IpAddr::V6(ip)),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost"
                    || name.ends_with(".localhost")
                    || name.ends_with(".internal")
                    || !name.contains('.')
            }
            None => true,
        };
        if private {
            return Err(SourceError::PrivateHost(url.host_str().unwrap_or_default().to_owned()));
        }
    }
    Ok(RepoSource { kind: SourceKind::Https { url: whole, code_host } })
}

/// Whether an address lies inside some network: loopback, private, link-local (cloud metadata), shared, multicast, or unset.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_documentation()
                || a == 0
                || a >= 224
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19))
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            if let Some(v4) = ip.to_ipv4() {
                return is_private(IpAddr::V4(v4));
            }
            // Global unicast is 2000::/3; what tunnels IPv4 inside (64:ff9b::/96, 2002::/16) could lead anywhere.
            (first & 0xe000) != 0x2000 || first == 0x2002 || (first == 0x2001 && second == 0xdb8)
        }
    }
}

/// A repository on this disk.
fn local(path: &Path, allow_local: bool) -> Result<RepoSource, SourceError> {
    if !allow_local {
        return Err(SourceError::LocalRefused);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(SourceError::Malformed("the path must not contain .."));
    }
    let missing = || SourceError::NoRepository(path.to_owned());
    let canonical = path.canonicalize().map_err(|_| missing())?;
    let is_git_dir = |dir: &Path| dir.join("HEAD").is_file() && dir.join("objects").is_dir();
    let dot_git = canonical.join(".git");
    // A `.git` file is a linked work tree: git finds its repository.
    if is_git_dir(&dot_git) || dot_git.is_file() || is_git_dir(&canonical) {
        return Ok(RepoSource { kind: SourceKind::Local { path: canonical } });
    }
    Err(missing())
}

#[cfg(test)]
mod tests {
    use super::{RepoSource, SourceKind, is_private};
    use crate::SourceError;

    const BASE: &str = "https://github.com";

    fn url(repo: &str) -> String {
        match RepoSource::parse(repo, BASE, false).unwrap().kind {
            SourceKind::Https { url, .. } => url,
            SourceKind::Local { path } => panic!("{path:?}"),
        }
    }

    #[test]
    fn accepted_forms() {
        assert_eq!(url("octo/hello"), "https://github.com/octo/hello.git");
        assert_eq!(url("octo/hello.git"), "https://github.com/octo/hello.git");
        assert_eq!(url("https://gitlab.com/a/b/c.git/"), "https://gitlab.com/a/b/c.git");
        let source = RepoSource::parse("octo/hel.lo", "https://git.corp.internal/", false).unwrap();
        assert_eq!(source.display(), "https://git.corp.internal/octo/hel.lo.git");
        assert_eq!(source.owner_and_name(), Some(("octo".to_owned(), "hel.lo".to_owned())));
        assert_eq!(source.slug(), "hel.lo");
        let foreign = RepoSource::parse("https://gitlab.com/a/b", BASE, false).unwrap();
        assert_eq!(foreign.owner_and_name(), None);
    }

    #[test]
    fn a_host_that_only_starts_like_the_code_host_is_foreign() {
        for repo in ["https://github.com.evil.example/a/b", "https://github.community/a/b"] {
            let source = RepoSource::parse(repo, BASE, false).unwrap();
            assert!(matches!(source.kind, SourceKind::Https { code_host: false, .. }), "{repo}");
        }
    }

    #[test]
    fn refused_forms_name_the_field() {
        let long = "a".repeat(2000);
        let long_escaped = format!("https://host.example/{}", "ü".repeat(900));
        for repo in [
            "",
            " a/b",
            "a/b\n",
            "a",
            "a/b/c",
            "--upload-pack=x/y",
            "-a/b",
            "ssh://git@github.com/a/b",
            "git@github.com:a/b",
            "git://github.com/a/b",
            "http://github.com/a/b",
            "ext::sh -c touch% /tmp/x",
            "file:///etc",
            "/etc",
            "../a",
            "https://user:pw@github.com/a/b",
            "https://tok@github.com/a/b",
            "https://github.com",
            "https://github.com/a/b?x=1",
            "https://127.0.0.1/a/b",
            "https://169.254.169.254/latest",
            "https://[::1]/a",
            "https://localhost/a",
            "https://10.1.2.3/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://0x7f.1/x",
            "https://metadata.google.internal/x",
            "a/..",
            "ö/b",
            &long,
            &long_escaped,
        ] {
            let error = RepoSource::parse(repo, BASE, false).unwrap_err();
            assert!(error.to_string().starts_with("repo: "), "{repo}: {error}");
        }
    }

    #[test]
    fn local_paths_need_leave_and_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(RepoSource::parse(path, BASE, false), Err(SourceError::LocalRefused));
        assert!(matches!(RepoSource::parse(path, BASE, true), Err(SourceError::NoRepository(_))));
        assert_eq!(RepoSource::parse("./x", BASE, true), Err(SourceError::RelativePath));
        std::fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
        std::fs::write(dir.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        assert!(RepoSource::parse(path, BASE, true).unwrap().is_local());
        assert!(RepoSource::parse(&format!("file://{path}"), BASE, true).unwrap().is_local());
    }

    #[test]
    fn private_addresses() {
        for ip in [
            "10.0.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "fe80::1",
            "fc00::1",
            "64:ff9b::a00:1",
            "::",
        ] {
            assert!(is_private(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["140.82.121.3", "2606:50c0:8000::153"] {
            assert!(!is_private(ip.parse().unwrap()), "{ip}");
        }
    }
}
