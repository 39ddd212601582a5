//! From a request to a plan: what is left out has its default, what cannot be is refused.

use std::path::Path;

use outpost_core::{
    Dispatch, FeedbackPlan, Promotion, PromotionPlan, default_branch, is_branch_name,
};
use outpost_types::limits::{PROMOTE_BODY_BYTES_MAX, PROMOTE_TITLE_BYTES_MAX};
use outpost_types::{ApiError, ErrorCode, PromoteRequest};

/// The changes among the kept files, as git bundles commits.
pub(super) const BUNDLE_FILE: &str = "changes.bundle";
/// Longest title that is made from a task, characters.
const TITLE_CHARS_MAX: usize = 72;

/// Refuses another branch than the one that is, or may be, pushed.
pub(super) fn same_branch(found: &Promotion, request: &PromoteRequest) -> Result<(), ApiError> {
    match &request.branch {
        Some(branch) if *branch != found.plan.branch && found.keeps_branch() => {
            let message = format!("It was promoted to the branch {}.", found.plan.branch);
            Err(ApiError::new(ErrorCode::AlreadyPromoted, message)
                .with_hint("Leave `branch` out to get that promotion."))
        }
        _ => Ok(()),
    }
}

/// What is to be done. `repo` is as the dispatch named it: who knows code hosts turns it into an address.
pub(super) fn of(
    record: &Dispatch,
    found: Option<&Promotion>,
    request: &PromoteRequest,
    kept_dir: &Path,
) -> Result<PromotionPlan, ApiError> {
    let nothing = |message: &str| ApiError::new(ErrorCode::NothingToPromote, message);
    let spec = &record.spec;
    let repo = spec.repo.clone().ok_or_else(|| nothing("The dispatch had no repository."))?;
    let base_commit = record.facts.base_commit.clone();
    let base_commit = base_commit.ok_or_else(|| nothing("The dispatch was never started."))?;
    if !kept_dir.join(BUNDLE_FILE).is_file() {
        return Err(nothing("The dispatch left no changes.")
            .with_hint("`GET /dispatch/{id}/diff` shows what there is."));
    }
    let pushed = found.filter(|found| found.keeps_branch()).map(|found| found.plan.branch.clone());
    let branch = pushed.or_else(|| request.branch.clone());
    let branch = branch.unwrap_or_else(|| default_branch(&spec.task, record.id));
    if !is_branch_name(&branch) {
        return Err(ApiError::field("branch", "`branch` is a name that git refuses."));
    }
    if request.body.as_ref().is_some_and(|body| body.len() > PROMOTE_BODY_BYTES_MAX) {
        let message = format!("`body` must be at most {PROMOTE_BODY_BYTES_MAX} bytes.");
        return Err(ApiError::field("body", message));
    }
    let title = match &request.title {
        Some(title) => checked_title(title)?,
        None => title_of(&spec.task),
    };
    Ok(PromotionPlan {
        repo,
        target: record.facts.branch.clone(),
        base_commit,
        branch,
        title,
        body: request.body.clone(),
        draft: request.draft.unwrap_or(true),
        allow_protected: request.allow_protected.unwrap_or(false),
        allow_secrets: request.allow_secrets.unwrap_or(false),
        feedback: request.feedback.as_ref().and_then(FeedbackPlan::of),
    })
}

fn checked_title(title: &str) -> Result<String, ApiError> {
    let fits = (1..=PROMOTE_TITLE_BYTES_MAX).contains(&title.len()) && !title.trim().is_empty();
    if fits && !title.chars().any(char::is_control) {
        return Ok(title.trim().to_owned());
    }
    let message = format!("`title` must be one line of 1 to {PROMOTE_TITLE_BYTES_MAX} bytes.");
    Err(ApiError::field("title", message))
}

/// The first line of a task, of plain characters only and mentioning nobody.
fn title_of(task: &str) -> String {
    let line = task.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let plain = |c: char| {
        c.is_alphanumeric() || c == ' ' || (c.is_ascii_punctuation() && !"@#`<>".contains(c))
    };
    let words: String = line.chars().map(|c| if plain(c) { c } else { ' ' }).collect();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut title: String = words.chars().take(TITLE_CHARS_MAX).collect();
    if words.chars().nth(TITLE_CHARS_MAX).is_some() {
        title.push('…');
    }
    if title.is_empty() { "Changes of an agent".to_owned() } else { title }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_plain_and_short() {
        for (task, title) in [
            ("\n  Fix the build!  \nNow.", "Fix the build!"),
            ("@all fixes #1 <b>`x`", "all fixes 1 b x"),
            ("a\u{202e}b\u{1b}[0m", "a b [0m"),
            ("\u{1F600}", "Changes of an agent"),
        ] {
            assert_eq!(title_of(task), title);
        }
        assert_eq!(title_of(&"x".repeat(100)).chars().count(), 73);
        for bad in ["", "  ", "a\nb", &"x".repeat(256)] {
            assert_eq!(checked_title(bad).unwrap_err().field.as_deref(), Some("title"));
        }
        assert_eq!(checked_title(" Fix @a ").unwrap(), "Fix @a");
    }
}
