//! Merge requests of GitLab, in the cloud and on a server of one's own.
//!
//! By GitLab's REST reference, version 4: `GET` and `POST /projects/{path}/merge_requests`; a draft is a title
//! that begins with `Draft:`; 409 for a second merge request of a branch.

use outpost_types::PullRequestView;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::http::{Answer, Ask};
use crate::stage::Work;
use crate::{PromoteError, Promoter};

/// Merge requests of one page.
const PAGE_COUNT: usize = 100;
/// Most pages that are looked at.
const PAGES_MAX: u32 = 5;
/// Longest title, characters.
const TITLE_CHARS_MAX: usize = 255;

impl Promoter {
    /// The merge request of the branch: an open one, or any that has this very commit.
    pub(crate) async fn gitlab_find(
        &self,
        work: Work<'_>,
        commit: &str,
    ) -> Result<Option<PullRequestView>, PromoteError> {
        let mut any = None;
        for page in 1..=PAGES_MAX {
            let mut url = requests(work);
            url.query_pairs_mut()
                .append_pair("source_branch", &work.plan.branch)
                .append_pair("state", "all")
                .append_pair("per_page", &PAGE_COUNT.to_string())
                .append_pair("page", &page.to_string());
            let answer = self.gitlab(work, Method::GET, url, None).await?;
            if answer.status != StatusCode::OK {
                let host = &work.target.forge.host;
                return Err(answer.refusal(host, "to list merge requests", work.token));
            }
            let items = answer.value.as_array().map(Vec::as_slice).unwrap_or_default();
            for item in items.iter().filter(|item| item["source_branch"] == work.plan.branch) {
                if item["state"] == "opened" {
                    return Ok(view(work, item));
                }
                if item["sha"] == commit && any.is_none() {
                    any = view(work, item);
                }
            }
            if items.len() < PAGE_COUNT {
                break;
            }
        }
        Ok(any)
    }

    /// Opens one; `None` when there is one already.
    pub(crate) async fn gitlab_open(
        &self,
        work: Work<'_>,
        target_branch: &str,
        body: &str,
    ) -> Result<Option<(PullRequestView, Option<String>)>, PromoteError> {
        let draft = if work.plan.draft { "Draft: " } else { "" };
        let title: String =
            format!("{draft}{}", work.plan.title).chars().take(TITLE_CHARS_MAX).collect();
        let request = json!({
            "source_branch": work.plan.branch, "target_branch": target_branch,
            "title": title, "description": body,
        });
        let answer = self.gitlab(work, Method::POST, requests(work), Some(&request)).await?;
        let host = &work.target.forge.host;
        match answer.status {
            StatusCode::CREATED => {
                let made = view(work, &answer.value);
                let made = made.ok_or_else(|| PromoteError::unreachable(host, "no number"))?;
                Ok(Some((made, None)))
            }
            StatusCode::CONFLICT => Ok(None),
            _ => Err(answer.refusal(host, "to open a merge request", work.token)),
        }
    }

    async fn gitlab(
        &self,
        work: Work<'_>,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Answer, PromoteError> {
        let ask =
            Ask { method, url, headers: &[], auth: ("private-token", ""), token: work.token, body };
        self.inner.http.ask(ask).await
    }
}

fn requests(work: Work<'_>) -> Url {
    let mut url = work.target.forge.api_url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        // The slashes of the project's path are escaped: it is one segment.
        path.pop_if_empty().extend(["projects", &work.target.project, "merge_requests"]);
    }
    url
}

fn view(work: Work<'_>, item: &Value) -> Option<PullRequestView> {
    let number = item["iid"].as_u64()?;
    let base = work.target.base();
    let own = || format!("{base}{}/-/merge_requests/{number}", work.target.project);
    let url = crate::forge::shown_url(item["web_url"].as_str()).unwrap_or_else(own);
    Some(PullRequestView { number, url })
}
