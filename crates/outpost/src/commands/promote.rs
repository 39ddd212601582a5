//! `outpost promote`: makes branch and pull request of a dispatch.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use outpost_terminal::sanitize;
use outpost_types::limits::PROMOTE_BODY_BYTES_MAX;
use outpost_types::{
    Api, ApiError, Feedback, FollowUpEnd, FollowUpView, PromoteRequest, PromotionView,
};

use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::PromoteArgs;

/// Longest wait for the end, seconds: a clone and a push of the largest repository, with some tries.
const WAIT_SECONDS_MAX: u64 = 3_600;

/// Promotes and prints branch and address.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &PromoteArgs) -> Result<Exit, CliError> {
    let body = match (&args.body, &args.body_file) {
        (Some(body), _) => Some(body.clone()),
        (None, Some(path)) => Some(read_body(path)?),
        (None, None) => None,
    };
    let id = select::dispatch(api, &args.id).await?;
    let request = PromoteRequest {
        dispatch_id: id,
        branch: args.branch.clone(),
        title: args.title.clone(),
        body,
        draft: args.ready.then_some(false).or_else(|| args.draft.then_some(true)),
        allow_protected: args.allow_protected.then_some(true),
        allow_secrets: args.allow_secrets.then_some(true),
        feedback: args.follow_up.map(|rounds| Feedback {
            rounds,
            ci_failures: None,
            review_comments: None,
        }),
    };
    let wait = (!args.no_wait).then_some(Duration::from_secs(WAIT_SECONDS_MAX));
    let view = api.promote(request, wait).await?.promotion;
    if ui.verbosity.json {
        ui.json(&view)?;
    }
    if let Some(failure) = &view.failure {
        if ui.verbosity.json {
            return Ok(Exit::Failed);
        }
        return Err(ApiError::from(failure.clone()).into());
    }
    if !ui.verbosity.json {
        show(ui, &view)?;
    }
    Ok(Exit::Ok)
}

/// On standard output the branch, and the address of the pull request once there is one.
fn show(ui: &Ui, view: &PromotionView) -> Result<(), CliError> {
    ui.data(&format!("{}\n", sanitize::line(&view.branch)))?;
    if let Some(pull_request) = &view.pull_request {
        ui.data(&format!("{}\n", sanitize::line(&pull_request.url)))?;
    }
    for note in &view.notes {
        ui.note(&sanitize::line(note));
    }
    if let (Some(behind @ 1..), Some(target)) = (view.behind_by, &view.target_branch) {
        let target = sanitize::line(target);
        ui.note(&format!("It is {behind} commits behind {target} and merges without a conflict."));
    }
    if !view.protected_paths.is_empty() {
        let paths = sanitize::line(&view.protected_paths.join(", "));
        ui.warn(&format!(
            "These run in CI or instruct agents, read them before you merge: {paths}"
        ));
    }
    if let Some(follow) = &view.follow_up {
        follow_up(ui, follow);
    }
    if !view.status.is_over() {
        let id = view.dispatch_id;
        ui.note(&format!("It goes on by itself; `outpost promote {id}` shows how far it is."));
    }
    Ok(())
}

/// How the pull request is followed.
fn follow_up(ui: &Ui, follow: &FollowUpView) {
    let (used, rounds) = (follow.rounds_used, follow.rounds);
    let Some(why) = follow.ended else {
        let run = follow.dispatch_id.map_or_else(String::new, |id| format!(", the last one {id}"));
        ui.note(&format!("Feedback goes back to the agent: {used} of {rounds} rounds{run}."));
        return;
    };
    let words = match why {
        FollowUpEnd::Merged => "the pull request was merged",
        FollowUpEnd::Closed => "the pull request was closed",
        FollowUpEnd::RoundsUsed => "all rounds were used",
        FollowUpEnd::Expired => "it was open for too long",
        FollowUpEnd::Stopped => "somebody asked for the end",
        FollowUpEnd::Moved => "somebody else pushed to the branch",
        FollowUpEnd::NeedsConsent => "the newest changes need your consent",
        FollowUpEnd::Failed => "it could not go on",
    };
    let said = follow.message.as_ref().map_or_else(String::new, |said| format!(": {said}"));
    let said = sanitize::line(&said);
    ui.note(&format!("Feedback ended after {used} of {rounds} rounds, since {words}{said}"));
    if let (FollowUpEnd::NeedsConsent, Some(id)) = (why, follow.dispatch_id) {
        ui.note(&format!(
            "Read what `outpost diff {id}` shows; then promote that dispatch to the same branch."
        ));
    }
}

fn read_body(path: &Path) -> Result<String, CliError> {
    let wrong = |what: String| CliError::usage(format!("--body-file {} {what}", path.display()));
    let file =
        std::fs::File::open(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    file.take(PROMOTE_BODY_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if text.len() > PROMOTE_BODY_BYTES_MAX {
        return Err(wrong(format!("is larger than {PROMOTE_BODY_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Call, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn branch_and_address_are_data_and_the_rest_is_not() {
        let (ui, out, notes) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let args = PromoteArgs { id: "last".into(), ready: true, ..PromoteArgs::default() };
        run(&ui, &api, &args).await.unwrap();
        let lines = ["outpost/fix-the-test-1a2b3c4d", "https://github.com/acme/calc/pull/7"];
        assert_eq!(out.text().lines().collect::<Vec<_>>(), lines);
        assert!(notes.text().contains("2 commits behind main"), "{}", notes.text());
        let asked = PromoteRequest { draft: Some(false), ..PromoteRequest::of(fake::id(2)) };
        assert_eq!(api.calls(), [Call::Promote(asked)]);
    }

    #[tokio::test]
    async fn rounds_of_feedback_are_asked_for_and_their_end_is_told() {
        let (ui, _, notes) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let args = PromoteArgs {
            id: "last".into(),
            follow_up: Some(2),
            allow_secrets: true,
            ..PromoteArgs::default()
        };
        run(&ui, &api, &args).await.unwrap();
        let feedback = Feedback { rounds: 2, ci_failures: None, review_comments: None };
        let asked = PromoteRequest {
            allow_secrets: Some(true),
            feedback: Some(feedback),
            ..PromoteRequest::of(fake::id(2))
        };
        assert_eq!(api.calls(), [Call::Promote(asked)]);
        let mut view = FollowUpView {
            status: outpost_types::FollowUpStatus::Working,
            rounds: 2,
            rounds_used: 1,
            commit: "c".repeat(40),
            dispatch_id: Some(fake::id(3)),
            until: outpost_types::Timestamp::from_millis(1),
            ended: None,
            message: None,
        };
        follow_up(&ui, &view);
        assert!(notes.text().contains("1 of 2 rounds"), "{}", notes.text());
        view.ended = Some(FollowUpEnd::NeedsConsent);
        view.message = Some("It touches \u{1b}[2Jci.yml.".into());
        follow_up(&ui, &view);
        let told = notes.text();
        assert!(told.contains("need your consent") && told.contains("outpost diff"), "{told}");
        assert!(!told.contains('\u{1b}'), "{told}");
    }

    #[tokio::test]
    async fn a_failure_is_the_exit_code_and_says_what_to_do() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let mut args = PromoteArgs { id: "last".into(), ..PromoteArgs::default() };
        args.branch = Some("taken".into());
        let error = run(&ui, &api, &args).await.unwrap_err();
        assert!(error.to_string().contains("other commits"), "{error}");
        assert_eq!(error.hint(), Some("Choose another name."));
        assert_eq!(out.text(), "");
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        assert_eq!(run(&ui, &api, &args).await.unwrap(), Exit::Failed);
        let view: PromotionView = serde_json::from_str(&out.text()).unwrap();
        assert!(view.failure.is_some());
    }

    #[tokio::test]
    async fn a_body_from_a_file_has_a_bound() {
        let (ui, ..) = Ui::captured(Verbosity::default());
        let file = tempfile::NamedTempFile::new().unwrap();
        let api = FakeApi::default();
        let args = PromoteArgs {
            id: "last".into(),
            body_file: Some(file.path().to_owned()),
            ..PromoteArgs::default()
        };
        std::fs::write(file.path(), "Hello").unwrap();
        run(&ui, &api, &args).await.unwrap();
        let asked =
            PromoteRequest { body: Some("Hello".into()), ..PromoteRequest::of(fake::id(2)) };
        assert_eq!(api.calls(), [Call::Promote(asked)]);
        std::fs::write(file.path(), "x".repeat(PROMOTE_BODY_BYTES_MAX + 1)).unwrap();
        assert!(run(&ui, &api, &args).await.unwrap_err().to_string().contains("larger"));
    }
}
