//! Pull requests of GitHub, in the cloud and on a server of one's own.
//!
//! By GitHub's REST reference, version 2022-11-28: `GET` and `POST /repos/{owner}/{repo}/pulls`; 422 for a
//! second pull request of a branch, and for a draft where the plan has none.

use outpost_types::PullRequestView;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::http::{Answer, Ask};
use crate::stage::Work;
use crate::{PromoteError, Promoter};

/// Pull requests of one page.
const PAGE_COUNT: usize = 100;
/// Most pages that are looked at.
const PAGES_MAX: u32 = 5;
/// By which GitHub knows the shape of request and answer.
pub(crate) const HEADERS: &[(&str, &str)] =
    &[("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")];

impl Promoter {
    /// The pull request of the branch: an open one, or any that has this very commit.
    pub(crate) async fn github_find(
        &self,
        work: Work<'_>,
        commit: &str,
    ) -> Result<Option<PullRequestView>, PromoteError> {
        let (owner, _) = parts(work)?;
        let head = format!("{owner}:{}", work.plan.branch);
        let mut any = None;
        for page in 1..=PAGES_MAX {
            let mut url = pulls(work)?;
            url.query_pairs_mut()
                .append_pair("head", &head)
                .append_pair("state", "all")
                .append_pair("per_page", &PAGE_COUNT.to_string())
                .append_pair("page", &page.to_string());
            let answer = self.github(work, Method::GET, url, None).await?;
            if answer.status != StatusCode::OK {
                let host = &work.target.forge.host;
                return Err(answer.refusal(host, "to list pull requests", work.token));
            }
            let items = answer.value.as_array().map(Vec::as_slice).unwrap_or_default();
            for item in items.iter().filter(|item| item["head"]["ref"] == work.plan.branch) {
                if item["state"] == "open" {
                    return Ok(view(work, item));
                }
                if item["head"]["sha"] == commit && any.is_none() {
                    any = view(work, item);
                }
            }
            if items.len() < PAGE_COUNT {
                break;
            }
        }
        Ok(any)
    }

    /// Opens one; `None` when there is one already. The text is a note for the client.
    pub(crate) async fn github_open(
        &self,
        work: Work<'_>,
        target_branch: &str,
        body: &str,
    ) -> Result<Option<(PullRequestView, Option<String>)>, PromoteError> {
        let what = "to open a pull request";
        let host = &work.target.forge.host;
        let mut note = None;
        for draft in [work.plan.draft, false] {
            let request = json!({
                "title": work.plan.title, "head": work.plan.branch, "base": target_branch,
                "body": body, "draft": draft,
            });
            let answer = self.github(work, Method::POST, pulls(work)?, Some(&request)).await?;
            if answer.status == StatusCode::CREATED {
                let made = view(work, &answer.value);
                let made = made.ok_or_else(|| PromoteError::unreachable(host, "no number"))?;
                return Ok(Some((made, note)));
            }
            let said = answer.said(work.token);
            let is_422 = answer.status == StatusCode::UNPROCESSABLE_ENTITY;
            if is_422 && said.contains("already exists") {
                return Ok(None);
            }
            if !(is_422 && draft && said.to_ascii_lowercase().contains("draft")) {
                return Err(answer.refusal(host, what, work.token));
            }
            note = Some(
                "The code host has no drafts here: the pull request is an ordinary one.".into(),
            );
        }
        Err(PromoteError::forbidden(what, "neither a draft nor an ordinary one"))
    }

    async fn github(
        &self,
        work: Work<'_>,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Answer, PromoteError> {
        let auth = ("authorization", "Bearer ");
        let ask = Ask { method, url, headers: HEADERS, auth, token: work.token, body };
        self.inner.http.ask(ask).await
    }
}

pub(crate) fn parts<'a>(work: Work<'a>) -> Result<(&'a str, &'a str), PromoteError> {
    work.target
        .owner_and_name()
        .ok_or_else(|| PromoteError::missing(format!("{} is no owner/name.", work.target.project)))
}

fn pulls(work: Work<'_>) -> Result<Url, PromoteError> {
    let (owner, name) = parts(work)?;
    let mut url = work.target.forge.api_url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["repos", owner, name, "pulls"]);
    }
    Ok(url)
}

fn view(work: Work<'_>, item: &Value) -> Option<PullRequestView> {
    let number = item["number"].as_u64()?;
    let own = || format!("{}{}/pull/{number}", work.target.base(), work.target.project);
    let url = crate::forge::shown_url(item["html_url"].as_str()).unwrap_or_else(own);
    Some(PullRequestView { number, url })
}
