//! A look at a pull request of GitHub: whether it is open, which checks failed, what was written.
//!
//! By GitHub's REST reference, version 2022-11-28: `GET /repos/{owner}/{repo}/pulls/{n}`, `…/commits/{sha}/check-runs`,
//! `…/commits/{sha}/status`, `…/check-runs/{id}/annotations`, `…/pulls/{n}/reviews`, `…/pulls/{n}/comments`,
//! `…/issues/{n}/comments`; `author_association` for who wrote; and of its best practices conditional requests by
//! `etag`, whose answer 304 does not count against the rate limit. Bounded: pages, what is kept between two looks,
//! annotations. Absent: the logs of Actions, which GitHub serves from another host by a redirect, and redirects are not
//! followed; GitLab.

use std::collections::BTreeMap;

use outpost_context::Scrubber;
use outpost_core::{CommentKind, FailedCheck, FeedbackPlan, PullComment, PullLook, PullState};
use outpost_types::Timestamp;
use reqwest::header::ETAG;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use crate::github::{HEADERS, parts};
use crate::http::Ask;
use crate::stage::Work;
use crate::{PromoteError, Promoter};

/// Things of one page.
const PAGE_COUNT: usize = 100;
/// Most pages of one list.
const PAGES_MAX: u32 = 3;
/// Most answers that are kept between two looks.
const KEPT_COUNT_MAX: usize = 24;
/// Largest answer that is kept, bytes.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Most checks whose annotations are asked for.
const ANNOTATED_COUNT_MAX: usize = 5;
/// Most annotations of a check.
const ANNOTATIONS_COUNT_MAX: usize = 20;
/// How a check ends that did not pass.
const FAILED: [&str; 3] = ["failure", "timed_out", "startup_failure"];
/// Of whom GitHub says that they belong to the repository.
const WRITERS: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];

/// What is kept between two looks at a pull request, so that what did not change is not sent again.
#[derive(Debug, Default)]
pub struct LookCache {
    kept: BTreeMap<String, (String, Value)>,
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct LookAsk<'a> {
    /// Number of the pull request.
    pub number: u64,
    /// Which feedback counts; none looks at the pull request alone.
    pub plan: Option<FeedbackPlan>,
    /// Checks that are known already.
    pub told_checks: &'a [String],
    /// Comments on the pull request from then on.
    pub since: Timestamp,
}

/// One look on its way.
struct Look<'a> {
    promoter: &'a Promoter,
    work: Work<'a>,
    cache: &'a mut LookCache,
    scrubber: Scrubber,
    /// Who opened the pull request.
    own: String,
}

/// Whether a text is the id of a commit: it becomes a part of addresses.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Promoter {
    /// Looks at a pull request. Asks only for what changed since the last look with the same cache.
    ///
    /// # Errors
    /// Why it cannot be seen.
    pub async fn look(
        &self,
        work: Work<'_>,
        ask: LookAsk<'_>,
        cache: &mut LookCache,
    ) -> Result<PullLook, PromoteError> {
        let scrubber = Scrubber::new([("FORGE_TOKEN", work.token.reveal())]);
        let mut look = Look { promoter: self, work, cache, scrubber, own: String::new() };
        look.run(ask).await
    }
}

impl Look<'_> {
    async fn run(&mut self, ask: LookAsk<'_>) -> Result<PullLook, PromoteError> {
        let number = ask.number.to_string();
        let pull = self.get(self.url(&["pulls", &number], &[])?).await?;
        let host = self.work.target.forge.host.clone();
        let sha = pull["head"]["sha"].as_str().filter(|sha| is_commit(sha));
        let sha = sha.ok_or_else(|| PromoteError::unreachable(&host, "no commit"))?.to_owned();
        pull["user"]["login"].as_str().unwrap_or_default().clone_into(&mut self.own);
        let state = match pull["state"].as_str() {
            Some("open") => PullState::Open,
            _ if pull["merged"] == true => PullState::Merged,
            _ => PullState::Closed,
        };
        let mut found = PullLook {
            state,
            head: sha,
            is_pending: false,
            failed: Vec::new(),
            comments: Vec::new(),
        };
        let Some(plan) = ask.plan.filter(|_| state == PullState::Open) else { return Ok(found) };
        if plan.ci_failures {
            self.checks(&mut found, ask.told_checks).await?;
        }
        if plan.review_comments {
            self.comments(&mut found, &number, ask.since).await?;
        }
        Ok(found)
    }

    async fn checks(&mut self, found: &mut PullLook, told: &[String]) -> Result<(), PromoteError> {
        let sha = found.head.clone();
        let runs = self.list(&["commits", &sha, "check-runs"], &[], "check_runs").await?;
        let mut annotated = 0;
        for run in &runs {
            found.is_pending |= run["status"] != "completed";
            let name = run["name"].as_str().unwrap_or_default();
            let failed = run["conclusion"].as_str().is_some_and(|end| FAILED.contains(&end));
            if !failed || told.iter().any(|told| told == name) {
                continue;
            }
            let output = &run["output"];
            let said = ["title", "summary", "text"].map(|part| output[part].as_str());
            let mut text = said.into_iter().flatten().collect::<Vec<_>>().join("\n");
            let count = output["annotations_count"].as_u64().unwrap_or(0);
            if count > 0 && annotated < ANNOTATED_COUNT_MAX {
                annotated += 1;
                let id = run["id"].as_u64().unwrap_or_default().to_string();
                text.push_str(&self.annotations(&id).await?);
            }
            found.failed.push(FailedCheck { name: name.to_owned(), text: self.scrub(&text) });
        }
        let statuses = self.list(&["commits", &sha, "status"], &[], "statuses").await?;
        for status in &statuses {
            let state = status["state"].as_str().unwrap_or_default();
            found.is_pending |= state == "pending";
            let name = status["context"].as_str().unwrap_or_default();
            let is_told = told.iter().any(|told| told == name);
            if !matches!(state, "failure" | "error") || is_told {
                continue;
            }
            let text = self.scrub(status["description"].as_str().unwrap_or_default());
            found.failed.push(FailedCheck { name: name.to_owned(), text });
        }
        Ok(())
    }

    async fn annotations(&mut self, id: &str) -> Result<String, PromoteError> {
        let count = ANNOTATIONS_COUNT_MAX.to_string();
        let url = self.url(&["check-runs", id, "annotations"], &[("per_page", &count)])?;
        let answer = self.get(url).await?;
        let items = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut text = String::new();
        for item in items.iter().take(ANNOTATIONS_COUNT_MAX) {
            let (path, line) = (item["path"].as_str(), item["start_line"].as_u64());
            let message = item["message"].as_str().unwrap_or_default();
            let (path, line) = (path.unwrap_or_default(), line.unwrap_or_default());
            text.push_str(&format!("\n{path}:{line}: {message}"));
        }
        Ok(text)
    }

    async fn comments(
        &mut self,
        found: &mut PullLook,
        number: &str,
        since: Timestamp,
    ) -> Result<(), PromoteError> {
        let reviews = self.list(&["pulls", number, "reviews"], &[], "").await?;
        // An approval asks for nothing.
        let asks = |item: &&Value| {
            matches!(item["state"].as_str(), Some("CHANGES_REQUESTED" | "COMMENTED"))
        };
        let reviews = reviews.iter().filter(asks);
        let mut all: Vec<_> = reviews.map(|item| self.comment(CommentKind::Review, item)).collect();
        let newest = [("sort", "created"), ("direction", "desc")];
        let lines = self.list(&["pulls", number, "comments"], &newest, "").await?;
        all.extend(lines.iter().map(|item| self.comment(CommentKind::Line, item)));
        let since = since.to_string();
        let talk = self.list(&["issues", number, "comments"], &[("since", &since)], "").await?;
        all.extend(talk.iter().map(|item| self.comment(CommentKind::Talk, item)));
        found.comments = all;
        Ok(())
    }

    fn comment(&self, kind: CommentKind, item: &Value) -> PullComment {
        let user = &item["user"];
        let author = user["login"].as_str().unwrap_or_default();
        let association = item["author_association"].as_str().unwrap_or_default();
        let is_person = user["type"] == "User" && item["performed_via_github_app"].is_null();
        let line = item["line"].as_u64().or_else(|| item["original_line"].as_u64());
        let place = item["path"].as_str().map(|path| match line {
            Some(line) => format!("{path}:{line}"),
            None => path.to_owned(),
        });
        PullComment {
            kind,
            id: item["id"].as_u64().unwrap_or_default(),
            author: author.to_owned(),
            may_write: is_person && WRITERS.contains(&association),
            is_own: author == self.own,
            place,
            text: self.scrub(item["body"].as_str().unwrap_or_default()),
        }
    }

    fn scrub(&self, text: &str) -> String {
        self.scrubber.text(text).text.into_owned()
    }

    /// A list over its pages; `field` is where it stands in an answer, if that is an object.
    async fn list(
        &mut self,
        path: &[&str],
        query: &[(&str, &str)],
        field: &str,
    ) -> Result<Vec<Value>, PromoteError> {
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let (count, page) = (PAGE_COUNT.to_string(), page.to_string());
            let mut query = query.to_vec();
            query.extend([("per_page", count.as_str()), ("page", page.as_str())]);
            let answer = self.get(self.url(path, &query)?).await?;
            let items = if field.is_empty() { &answer } else { &answer[field] };
            let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
            all.extend_from_slice(items);
            if items.len() < PAGE_COUNT {
                break;
            }
        }
        Ok(all)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, PromoteError> {
        let (owner, name) = parts(self.work)?;
        let mut url = self.work.target.forge.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["repos", owner, name]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// One answer, or what was kept of it when it is still the same.
    async fn get(&mut self, url: Url) -> Result<Value, PromoteError> {
        let key = url.to_string();
        let kept = self.cache.kept.get(&key).map(|(tag, _)| tag.clone());
        let mut headers = HEADERS.to_vec();
        if let Some(tag) = &kept {
            headers.push(("if-none-match", tag));
        }
        let work = self.work;
        let ask = Ask {
            method: Method::GET,
            url,
            headers: &headers,
            auth: ("authorization", "Bearer "),
            token: work.token,
            body: None,
        };
        let answer = self.promoter.inner.http.ask(ask).await?;
        if answer.status == StatusCode::NOT_MODIFIED
            && let Some((_, value)) = self.cache.kept.get(&key)
        {
            return Ok(value.clone());
        }
        if answer.status != StatusCode::OK {
            let host = &work.target.forge.host;
            let what = "to show a pull request with its checks and comments";
            return Err(answer.refusal(host, what, work.token));
        }
        let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        if let Some(tag) = tag.filter(|_| answer.bytes <= KEPT_BYTES_MAX) {
            if self.cache.kept.len() >= KEPT_COUNT_MAX && !self.cache.kept.contains_key(&key) {
                self.cache.kept.clear();
            }
            self.cache.kept.insert(key, (tag.to_owned(), answer.value.clone()));
        }
        Ok(answer.value)
    }
}
