//! What git tells of repositories that others wrote, and what the collect job says.

use std::net::IpAddr;

use outpost_types::limits::REPO_BYTES_MAX;
use outpost_workspace::{PrepareError, RepoSource, TRACKED_FILES_MAX, fuzzing};

use crate::feed::Feed;
use crate::text::{assert_line, assert_text};

/// Longest note of a collect job: our own words and five names of 200 characters, bytes.
const NOTE_BYTES_MAX: usize = 300 + NAMES_BYTES_MAX;
/// Longest list of names in a note, bytes.
const NAMES_BYTES_MAX: usize = 5 * 200 * 4 + 40;
/// Where `owner/name` lives.
const CODE_HOST: &str = "https://git.example/base";

/// The status file that the collect job leaves, which hostile code may have written.
pub fn collect_status(data: &[u8]) {
    const CODES: [&str; 8] = [
        "git_dir_missing",
        "head_unreadable",
        "commits_unreadable",
        "history_rewritten",
        "attributes_ignored",
        "nested_repository",
        "large_file",
        "files_unreadable",
    ];
    let status = fuzzing::status(&String::from_utf8_lossy(data));
    assert!(status.result.is_none_or(|id| is_commit_id(&id)));
    let step = status.failed.unwrap_or_default();
    assert!(step.len() <= 20 && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    assert!(status.notes.len() <= CODES.len());
    for note in status.notes {
        assert!(CODES.contains(&note.code.as_ref()), "{}", note.code);
        assert_line(&note.message, NOTE_BYTES_MAX);
    }
}

fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `git ls-tree -r -l -z` of a commit of somebody else's.
pub fn tree_listing(data: &[u8]) {
    let (files, _) = fuzzing::tree(data);
    assert!(files.len() <= TRACKED_FILES_MAX);
    assert_line(&fuzzing::names(&files), NAMES_BYTES_MAX);
    let mut listing = Vec::new();
    for name in &files {
        assert!(!name.contains('\0'));
        listing.extend_from_slice(format!("100644 blob {:040} {:>7}\t{name}\0", 0, 3).as_bytes());
    }
    let bytes = 3 * files.len() as u64;
    assert_eq!(fuzzing::tree(&listing), (files, bytes));
}

/// `git ls-remote --symref` of a host that may say anything. The first line is what a request asks for.
pub fn git_refs(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (asked, refs) = text.split_once('\n').unwrap_or_default();
    let asked = (!asked.is_empty()).then_some(asked);
    if asked.is_some_and(|name| !fuzzing::is_branch_name(name)) {
        return;
    }
    match fuzzing::find_base(refs, asked) {
        Ok((commit, branch)) => {
            assert!(is_commit_id(&commit), "{commit}");
            // It becomes part of files and arguments of git.
            assert!(branch.as_deref().is_none_or(fuzzing::is_branch_name), "{branch:?}");
        }
        Err(error) => {
            assert_line(&error.to_string(), 400);
            let PrepareError::BranchMissing { close, .. } = error else {
                panic!("finding a name ended with {error:?}");
            };
            assert!(close.len() <= 5);
            close.iter().for_each(|name| assert_line(name, REPO_BYTES_MAX));
        }
    }
}

/// Other words of git: its error output, where a host may repeat the credential it was sent, a short
/// statistic, and the names in a patch.
pub fn git_words(data: &[u8]) {
    const HEADER: &str = "Authorization: Basic eDpzZWNyZXQ";
    let shown = fuzzing::scrub(data, Some(HEADER));
    assert!(!shown.contains("eDpzZWNyZXQ"), "a credential is shown: {shown}");
    // Where it stood there is now a word in brackets; a replaced byte has three.
    assert_text(&shown, data.len() * 3);
    let (files, more, fewer) = fuzzing::shortstat(&String::from_utf8_lossy(data));
    let printed = format!(" {files} files changed, {more} insertions(+), {fewer} deletions(-)");
    assert_eq!(fuzzing::shortstat(&printed), (files, more, fewer));
    if let Ok(count) = fuzzing::patch_names(data) {
        let entries = || data.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        assert_eq!(count as usize, entries().count());
        for name in entries().filter_map(|entry| entry.splitn(3, |byte| *byte == b'\t').nth(2)) {
            let part = |part: &[u8]| part == b".." || part.eq_ignore_ascii_case(b".git");
            assert!(!name.split(|byte| *byte == b'/').any(part));
        }
    }
}

/// The `repo` field of a request: what is accepted is an address of a public host, always the same one.
pub fn repo_source(data: &[u8]) {
    let mut feed = Feed(data);
    let ask = String::from_utf8_lossy(feed.bytes(REPO_BYTES_MAX));
    let source = match fuzzing::source(&ask, CODE_HOST) {
        Ok(source) => source,
        Err(error) => {
            let text = error.to_string();
            assert_line(&text, 4 * REPO_BYTES_MAX);
            assert!(text.starts_with("repo: "), "{text}");
            return;
        }
    };
    let shown = source.display();
    assert_line(&shown, 4 * REPO_BYTES_MAX);
    assert!(!source.is_local());
    let rest = shown.strip_prefix("https://").expect("nothing else is accepted");
    let (authority, path) = rest.split_once('/').expect("a host alone is no repository");
    assert!(!path.is_empty() && !authority.contains('@'), "{shown}");
    assert!(!shown.contains(['?', '#', ' ', '\\']), "{shown}");
    assert!(!path.split('/').any(|part| matches!(part, "." | "..")), "{shown}");
    if !shown.starts_with(&format!("{CODE_HOST}/")) {
        assert_public(authority);
    }
    check_parts(&source);
    let again = fuzzing::source(&shown, CODE_HOST);
    // What names a repository of the code host in short stays one, spelled out.
    assert_eq!(again.as_ref().map(RepoSource::display), Ok(shown), "{ask}");
}

fn check_parts(source: &RepoSource) {
    assert!(!source.slug().contains('/'));
    if let Some((owner, name)) = source.owner_and_name() {
        assert!(!owner.contains('/') && !name.contains('/'), "{owner} {name}");
    }
}

fn assert_public(authority: &str) {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // An IPv4 address in the clothes of another is that address.
    let address = bare.parse().map(|ip| match ip {
        IpAddr::V6(v6) => v6.to_ipv4().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    });
    match address {
        Ok(IpAddr::V4(ip)) => {
            assert!(!ip.is_loopback() && !ip.is_private() && !ip.is_link_local(), "{ip}");
            assert!(!ip.is_unspecified() && !ip.is_multicast(), "{ip}");
        }
        Ok(IpAddr::V6(ip)) => assert_eq!(ip.segments()[0] & 0xe000, 0x2000, "{ip}"),
        Err(_) => {
            let name = bare.trim_end_matches('.').to_ascii_lowercase();
            assert!(name.contains('.') && !name.ends_with(".localhost"), "{authority}");
        }
    }
}
