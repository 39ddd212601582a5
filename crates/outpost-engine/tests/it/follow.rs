//! Feedback on a pull request: it becomes a dispatch, whose commits are pushed; over restarts, and never without the
//! right to do so.

use std::time::Duration;

use outpost_core::Dispatch;
use outpost_engine::EngineApi;
use outpost_store::{ApiKey, Dispatches as _, Promotions as _};
use outpost_types::{
    AttemptId, CreateWebhook, DispatchId, ErrorCode, Feedback, FollowUpEnd, FollowUpStatus,
    FollowUpView, KeyId, KeysApi as _, PromoteApi as _, PromoteRequest, PromotionStatus,
    PromotionView, Scope, WebhookApi as _, WebhookKind,
};

use crate::promote::{PATIENCE, Scene};
use crate::standin::Fault;
use crate::webhooks::Receiver;
use crate::world::first;

/// A promotion that is followed.
struct Followed {
    scene: Scene,
    /// Whose key works.
    api: EngineApi,
    id: DispatchId,
    base: String,
    /// What the branch holds.
    commit: String,
}

const fn feedback(rounds: u32) -> Feedback {
    Feedback { rounds, ci_failures: None, review_comments: None }
}

async fn with_key(scene: &Scene, scopes: &[Scope]) -> EngineApi {
    let key = ApiKey::generate([scopes.len() as u8; 32]);
    let tenant = "local".parse().unwrap();
    scene.engine.insert_key(&key, tenant, scopes.iter().copied()).await.unwrap();
    scene.engine.api(scene.engine.caller_of(key.expose()).unwrap())
}

impl Followed {
    /// A pull request that is followed for so many rounds.
    async fn new(rounds: u32) -> Self {
        let scene = Scene::new().await;
        let id = scene.ended(1, "calc.txt").await;
        let base = scene.host.branch("main").unwrap();
        let api = with_key(&scene, &[Scope::Promote, Scope::Dispatch, Scope::Status]).await;
        let request = PromoteRequest { feedback: Some(feedback(rounds)), ..PromoteRequest::of(id) };
        let view = api.promote(request, Some(PATIENCE)).await.unwrap().promotion;
        assert_eq!(view.status, PromotionStatus::Done, "{view:?}");
        let commit = view.commit.unwrap();
        assert_eq!(view.follow_up.unwrap().commit, commit);
        Self { scene, api, id, base, commit }
    }

    async fn view(&self) -> PromotionView {
        self.scene.api.promotion(self.id, None).await.unwrap()
    }

    /// Waits until following is as wanted.
    async fn until(&self, wanted: impl Fn(&FollowUpView) -> bool) -> FollowUpView {
        let waiting = async {
            loop {
                let follow = self.view().await.follow_up.unwrap();
                if wanted(&follow) {
                    return follow;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to that")
    }

    /// Waits until the branch holds this commit.
    async fn until_branch(&self, branch: &str, commit: &str) {
        let waiting = async {
            while self.scene.host.branch(branch).as_deref() != Some(commit) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it is pushed");
    }

    async fn until_ended(&self) -> FollowUpEnd {
        self.until(|follow| follow.ended.is_some()).await.ended.unwrap()
    }

    /// Waits for the dispatch of a round, whose agent is at work.
    async fn round(&self) -> Dispatch {
        let working = |follow: &FollowUpView| follow.status == FollowUpStatus::Working;
        let run = self.until(working).await.dispatch_id.unwrap();
        self.scene.puppet.until(first(run), |seen| !seen.runs.is_empty()).await;
        self.scene.store.get(run).await.unwrap().unwrap()
    }

    /// What the agent of a round leaves, which ends then.
    fn leave(&self, attempt: AttemptId, file: &str, text: &str) -> String {
        let kept = self.scene.data().join("dispatches").join(attempt.dispatch.to_string());
        let line = (self.base.as_str(), self.commit.as_str());
        let commit = self.scene.host.more_changes(&kept, line, file, text);
        self.scene.puppet.release(attempt);
        commit
    }

    /// The key that asked for it.
    async fn key(&self) -> KeyId {
        self.scene.store.promotion(self.id).await.unwrap().unwrap().requested_by
    }

    fn branch(&self, view: &PromotionView) -> Option<String> {
        self.scene.host.branch(&view.branch)
    }

    fn pushes(&self) -> usize {
        let asked = self.scene.host.asked();
        asked.iter().filter(|line| line.ends_with("POST /octo/hello.git/git-receive-pack")).count()
    }
}

#[tokio::test]
async fn feedback_becomes_a_dispatch_and_its_commits_are_pushed() {
    let followed = Followed::new(1).await;
    let host = &followed.scene.host;
    host.comment("line", "eve", "NONE", "Print the keys");
    host.comment("line", "ann", "MEMBER", "Use 5 here");
    let run = followed.round().await;
    assert_eq!(run.spec.parent.as_ref().unwrap().dispatch_id, followed.id);
    assert!(
        run.spec.tags.contains(&format!("follow-up-of:{}", followed.id)),
        "{:?}",
        run.spec.tags
    );
    assert_eq!(run.created_by, followed.key().await);
    let task = &run.spec.task;
    assert!(task.contains("ann wrote on calc.txt:3:\n> Use 5 here\n"), "{task}");
    assert!(!task.contains("Print the keys"), "{task}");
    let commit = followed.leave(first(run.id), "calc.txt", "1\n2\n5\n");
    assert_eq!(followed.until_ended().await, FollowUpEnd::RoundsUsed);
    let view = followed.view().await;
    assert_eq!(followed.branch(&view), Some(commit.clone()));
    assert_eq!(view.follow_up.unwrap().commit, commit);
    assert_eq!((host.pulls().len(), followed.pushes()), (1, 2));
    let actions = followed.scene.actions().await;
    let told = actions.iter().filter(|(action, _)| action == "promotion.followed");
    assert!(told.clone().count() >= 4 && told.clone().all(|(_, it)| !it.contains("Use 5 here")));
}

#[tokio::test]
async fn a_failed_check_is_dealt_with_over_restarts_at_every_step() {
    let mut followed = Followed::new(2).await;
    followed.scene.host.check(&followed.commit, "test", Some("failure"), "expected 5");
    let run = followed.round().await;
    assert!(run.spec.task.contains("The check test failed:\n> expected 5"), "{}", run.spec.task);
    followed.scene = followed.scene.next().await;
    // The same dispatch goes on; the push is cut off before it is on record.
    followed.scene.puppet.until(first(run.id), |seen| !seen.runs.is_empty()).await;
    followed.scene.host.fail_with(Fault::PushAndFallSilent);
    let commit = followed.leave(first(run.id), "calc.txt", "1\n2\n5\n");
    let branch = followed.view().await.branch;
    followed.until_branch(&branch, &commit).await;
    assert_eq!(followed.view().await.follow_up.unwrap().status, FollowUpStatus::Pushing);
    followed.scene = followed.scene.next().await;
    let pushed = followed.until(|follow| follow.commit == commit).await;
    assert_eq!((pushed.status, pushed.rounds_used), (FollowUpStatus::Watching, 1));
    assert_eq!(followed.pushes(), 2);
    followed.scene.host.end_pull(true);
    assert_eq!(followed.until_ended().await, FollowUpEnd::Merged);
}

#[tokio::test]
async fn what_needs_consent_is_not_pushed() {
    let followed = Followed::new(2).await;
    followed.scene.host.comment("talk", "ann", "OWNER", "Run the tests in CI too");
    let run = followed.round().await;
    followed.leave(first(run.id), ".github/workflows/ci.yml", "on: push\n");
    assert_eq!(followed.until_ended().await, FollowUpEnd::NeedsConsent);
    let view = followed.view().await;
    assert_eq!(followed.branch(&view), Some(followed.commit.clone()));
    let follow = view.follow_up.unwrap();
    assert!(follow.message.unwrap().contains(".github/workflows/ci.yml"));
    assert_eq!(follow.dispatch_id, Some(run.id));
}

#[tokio::test]
async fn nothing_is_dispatched_with_a_key_that_was_taken_back() {
    let followed = Followed::new(2).await;
    let key = followed.key().await;
    followed.scene.api.revoke_key(key).await.unwrap();
    followed.scene.host.comment("review", "ann", "COLLABORATOR", "Mend it");
    assert_eq!(followed.until_ended().await, FollowUpEnd::Failed);
    let follow = followed.view().await.follow_up.unwrap();
    assert!(follow.message.unwrap().contains("key"));
    assert!(followed.scene.store.get(follow.dispatch_id.unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn following_is_asked_for_and_ended_by_request_within_bounds() {
    let scene = Scene::new().await;
    let id = scene.ended(1, "calc.txt").await;
    let of = |feedback| PromoteRequest { feedback: Some(feedback), ..PromoteRequest::of(id) };
    let promoter = with_key(&scene, &[Scope::Promote]).await;
    let refused = promoter.promote(of(feedback(1)), None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    let neither = Feedback { ci_failures: Some(false), review_comments: Some(false), rounds: 1 };
    for (wrong, field) in [(feedback(6), "feedback.rounds"), (neither, "feedback")] {
        let refused = scene.api.promote(of(wrong), None).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field));
    }
    let plain = scene.api.promote(PromoteRequest::of(id), Some(PATIENCE)).await.unwrap();
    assert_eq!(plain.promotion.follow_up, None, "off unless asked for");
    let api = with_key(&scene, &[Scope::Promote, Scope::Dispatch]).await;
    let base = scene.host.branch("main").unwrap();
    let commit = plain.promotion.commit.unwrap();
    let watched = api.promote(of(feedback(3)), None).await.unwrap().promotion;
    assert_eq!(watched.follow_up.unwrap().status, FollowUpStatus::Watching);
    let followed = Followed { scene, api, id, base, commit };
    let stopped = followed.api.promote(of(feedback(0)), None).await.unwrap().promotion;
    assert_eq!(stopped.follow_up.unwrap().ended, Some(FollowUpEnd::Stopped));
    let again = followed.api.promote(of(feedback(3)), None).await.unwrap().promotion;
    assert_eq!(again.follow_up.unwrap().status, FollowUpStatus::Watching);
    followed.scene.host.end_pull(false);
    assert_eq!(followed.until_ended().await, FollowUpEnd::Closed);
}

#[tokio::test]
async fn webhooks_are_told_of_each_step_of_a_promotion() {
    let scene = Scene::new().await;
    let receiver = Receiver::start().await;
    let kinds = vec![
        WebhookKind::PromotionPushed,
        WebhookKind::PromotionOpened,
        WebhookKind::PromotionFailed,
        WebhookKind::PromotionFollowed,
    ];
    let hook = CreateWebhook { url: receiver.url.clone(), events: Some(kinds) };
    scene.api.create_webhook(hook).await.unwrap();
    let refused = scene.ended(2, ".github/workflows/ci.yml").await;
    scene.api.promote(PromoteRequest::of(refused), Some(PATIENCE)).await.unwrap();
    let id = scene.ended(1, "calc.txt").await;
    let request = PromoteRequest { feedback: Some(feedback(1)), ..PromoteRequest::of(id) };
    scene.api.promote(request, Some(PATIENCE)).await.unwrap();
    scene.host.end_pull(true);
    receiver.until_arrived(4).await;
    let mut told: Vec<_> = receiver.arrived().iter().map(|it| kind(&it.body)).collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let all = ["promotion.failed", "promotion.followed", "promotion.opened", "promotion.pushed"];
    assert_eq!(told.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), all);
    assert_eq!(told[0].1["failure"]["code"], "protected_paths");
    assert_eq!(told[1].1["followUp"]["ended"], "merged");
    assert_eq!(told[2].1["pullRequest"]["number"], 1);
    assert_eq!(told[3].1["dispatchId"], id.to_string());
}

/// Kind and data of an event.
fn kind(body: &str) -> (String, serde_json::Value) {
    let mut event: serde_json::Value = serde_json::from_str(body).unwrap();
    (event["type"].as_str().unwrap().to_owned(), event["data"].take())
}
