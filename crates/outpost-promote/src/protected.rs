//! Which changed files run in CI, decide who reviews, or instruct the agents that come after.
//!
//! Compared without regard to case: a checkout on a system that folds case would find them too.

/// Directories; everything in them, and the directory's own name should it be a link.
const DIRECTORIES: &[&str] = &[
    ".github/workflows",
    ".github/actions",
    ".gitlab/ci",
    ".circleci",
    ".buildkite",
    ".woodpecker",
    ".forgejo/workflows",
    ".gitea/workflows",
    ".claude",
    ".codex",
    ".gemini",
    ".grok",
    ".cursor",
    ".windsurf",
    ".clinerules",
    ".agents",
    ".husky",
    ".devcontainer",
];

/// Names of files, in whatever directory.
const FILES: &[&str] = &[
    ".gitlab-ci.yml",
    ".gitlab-ci.yaml",
    ".travis.yml",
    ".drone.yml",
    ".woodpecker.yml",
    "azure-pipelines.yml",
    "azure-pipelines.yaml",
    "bitbucket-pipelines.yml",
    "appveyor.yml",
    ".cirrus.yml",
    "cloudbuild.yaml",
    "jenkinsfile",
    "codeowners",
    "agents.md",
    "agents.override.md",
    "claude.md",
    "claude.local.md",
    "gemini.md",
    "grok.md",
    ".cursorrules",
    ".windsurfrules",
    ".clinerules",
    ".aider.conf.yml",
    ".aider.model.settings.yml",
    ".mcp.json",
    ".gitmodules",
    ".gitattributes",
    ".pre-commit-config.yaml",
    ".env",
    "outpost.toml",
    "renovate.json",
    "dependabot.yml",
    "copilot-instructions.md",
];

/// Whether a path of a repository, `/`-separated, is protected.
#[must_use]
pub fn is_protected(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let name = path.rsplit('/').next().unwrap_or_default();
    let starts = |prefix: &str| FILES.contains(&prefix);
    starts(name)
        || name.starts_with("jenkinsfile.")
        || DIRECTORIES.iter().any(|dir| lies_in(&path, dir))
}

/// Whether the directory, at the top or in any directory below, has the path in it, is the path, or would
/// be reached through it because the path is a link now.
fn lies_in(path: &str, dir: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let wanted: Vec<&str> = dir.split('/').collect();
    (0..parts.len()).any(|at| {
        let rest = &parts[at..];
        let both = rest.len().min(wanted.len());
        // A path that ends inside the wanted one is a file or a link in the place of a directory.
        rest[..both] == wanted[..both]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_or_instructs_is_found_wherever_it_is() {
        for path in [
            ".github/workflows/ci.yml",
            ".GitHub/Workflows/x.yaml",
            ".github",
            ".github/CODEOWNERS",
            "CODEOWNERS",
            "docs/CODEOWNERS",
            ".gitlab-ci.yml",
            ".circleci/config.yml",
            "Jenkinsfile",
            "ci/Jenkinsfile.release",
            "AGENTS.md",
            "sub/dir/CLAUDE.md",
            "gemini.md",
            ".claude/settings.json",
            "packages/a/.claude/hooks/x.sh",
            ".claude",
            ".gemini/.env",
            ".codex/config.toml",
            ".cursor/rules/x.mdc",
            ".github/copilot-instructions.md",
            ".gitmodules",
            "outpost.toml",
        ] {
            assert!(is_protected(path), "{path}");
        }
        for path in [
            "src/main.rs",
            "README.md",
            ".github/ISSUE_TEMPLATE/bug.md",
            "docs/agents.txt",
            "claude/settings.json",
            "x.github/workflows/ci.yml",
            "Jenkinsfiles/readme",
            "",
        ] {
            assert!(!is_protected(path), "{path}");
        }
    }
}
