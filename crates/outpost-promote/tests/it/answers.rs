//! Every answer of a promotion: what it checks, what it pushes, what it says when it does not.

use std::path::PathBuf;

use outpost_core::PromotionPlan;
use outpost_promote::{
    ForgeHost, ForgeKind, PromoteError, Promoter, PromoterConfig, Staged, Target, Work,
};
use outpost_types::{ErrorCode, PullRequestView};
use outpost_workspace::{
    CACHE_BYTES_MAX_DEFAULT, PersistentConfig, Secret, Workspaces, WorkspacesConfig,
};

use crate::standin::{Fault, Standin, TOKEN, git};

pub(crate) struct Scene {
    pub(crate) host: Standin,
    pub(crate) promoter: Promoter,
    pub(crate) dir: tempfile::TempDir,
    token: Secret,
    pub(crate) plan: PromotionPlan,
    pub(crate) result: String,
}

impl Scene {
    /// A dispatch that wrote this file, and a code host of this kind.
    fn with(kind: ForgeKind, file: &str, text: &str) -> Self {
        let (host, dir) = (Standin::start(), tempfile::tempdir().unwrap());
        let forge = ForgeHost::new(&host.name(), kind, Some(&host.api()), None).unwrap();
        let workspaces = Workspaces::new(WorkspacesConfig {
            cache_dir: dir.path().join("repos"),
            allow_local: true,
            github_base: format!("http://{}", host.address),
            repo_bytes_max: 1 << 30,
            cache_bytes_max: CACHE_BYTES_MAX_DEFAULT,
            persistent: PersistentConfig {
                dir: dir.path().join("workspaces"),
                bytes_max: 1 << 30,
                idle_seconds_max: 60,
            },
            git: find_git(),
            token: None,
        })
        .unwrap();
        let config = PromoterConfig {
            dir: dir.path().join("promotions"),
            forges: vec![forge],
            tokens: Vec::new(),
            clone_bytes_max: 1 << 30,
            poll_millis: 20,
        };
        let promoter = Promoter::new(config, workspaces).unwrap();
        let (base_commit, result) = host.changes(&dir.path().join("kept"), file, text);
        let plan = PromotionPlan {
            repo: host.repo(),
            target: Some("main".into()),
            base_commit,
            branch: "outpost/fix-1".into(),
            title: "Fix it".into(),
            body: None,
            draft: true,
            allow_protected: false,
            allow_secrets: false,
            feedback: None,
        };
        Self { host, promoter, dir, token: Secret::new(TOKEN), plan, result }
    }

    pub(crate) fn github() -> Self {
        Self::with(ForgeKind::Github, "calc.txt", "1\n2\n4\n")
    }

    pub(crate) fn target(&self) -> Target {
        self.promoter.target(&self.plan.repo).unwrap()
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("kept/changes.bundle")
    }

    async fn stage(&self) -> Result<Staged, PromoteError> {
        let (target, bundle) = (self.target(), self.bundle());
        self.promoter.stage(self.work(&target, &bundle)).await
    }

    pub(crate) fn work<'a>(&'a self, target: &'a Target, bundle: &'a std::path::Path) -> Work<'a> {
        Work { target, token: &self.token, plan: &self.plan, bundle, name: "clone", since: None }
    }

    pub(crate) async fn push(&self, staged: &Staged) -> Result<(), PromoteError> {
        let (target, bundle) = (self.target(), self.bundle());
        let expected = staged.checked.expected.as_deref();
        self.promoter.push(self.work(&target, &bundle), staged, expected).await
    }

    pub(crate) async fn open(&self) -> Result<(PullRequestView, Option<String>), PromoteError> {
        let (target, bundle) = (self.target(), self.bundle());
        self.promoter.open(self.work(&target, &bundle), "main", &self.result, "body").await
    }

    /// From clone to branch.
    pub(crate) async fn pushed(&self) {
        let staged = self.stage().await.unwrap();
        self.push(&staged).await.unwrap();
    }
}

fn find_git() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join("git")).find(|file| file.is_file()).unwrap()
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, PromoteError>) -> ErrorCode {
    match result.unwrap_err() {
        PromoteError::Refused(failure) => failure.code,
        hindered => panic!("not refused: {hindered:?}"),
    }
}

pub(crate) fn pause<T: std::fmt::Debug>(
    result: Result<T, PromoteError>,
) -> (ErrorCode, Option<u64>) {
    match result.unwrap_err() {
        PromoteError::Hindered { failure, pause_millis } => (failure.code, pause_millis),
        refused => panic!("refused: {refused:?}"),
    }
}

#[tokio::test]
async fn a_branch_and_a_pull_request_once() {
    for (kind, title) in [(ForgeKind::Github, "Fix it"), (ForgeKind::Gitlab, "Draft: Fix it")] {
        let scene = Scene::with(kind, "calc.txt", "1\n2\n4\n");
        let staged = scene.stage().await.unwrap();
        assert_eq!(staged.checked.commit, scene.result);
        assert_eq!((staged.checked.behind_by, &staged.checked.expected), (0, &None));
        assert_eq!(scene.host.branch("outpost/fix-1"), None, "nothing is sent by checking");
        scene.push(&staged).await.unwrap();
        scene.push(&staged).await.unwrap();
        assert_eq!(scene.host.branch("outpost/fix-1"), Some(scene.result.clone()));
        let (made, note) = scene.open().await.unwrap();
        assert_eq!((made.number, note), (1, None));
        assert_eq!(scene.open().await.unwrap().0, made);
        let pulls = scene.host.pulls();
        assert_eq!((pulls.len(), &pulls[0]["asked"]["title"]), (1, &title.into()));
        drop(staged);
        assert!(!scene.dir.path().join("promotions/clone").exists(), "the clone is gone");
    }
}

#[tokio::test]
async fn a_target_that_moved_on_is_told_and_a_conflict_is_refused() {
    let scene = Scene::github();
    scene.host.move_on("other.txt", "x\n");
    scene.host.move_on("other.txt", "y\n");
    let staged = scene.stage().await.unwrap();
    assert_eq!(staged.checked.behind_by, 2);
    scene.push(&staged).await.unwrap();
    let scene = Scene::github();
    scene.host.move_on("calc.txt", "1\n2\n5\n");
    let refused = scene.stage().await;
    assert_eq!(code(refused), ErrorCode::MergeConflict);
    assert_eq!(scene.host.branch("outpost/fix-1"), None);
}

#[tokio::test]
async fn what_runs_in_ci_needs_a_word() {
    let mut scene = Scene::with(ForgeKind::Github, ".github/workflows/ci.yml", "on: push\n");
    let Err(PromoteError::Refused(failure)) = scene.stage().await else { panic!("taken") };
    assert_eq!(failure.code, ErrorCode::ProtectedPaths);
    assert!(failure.message.contains(".github/workflows/ci.yml"), "{failure:?}");
    scene.plan.allow_protected = true;
    let staged = scene.stage().await.unwrap();
    assert_eq!(staged.checked.protected_paths, [".github/workflows/ci.yml"]);
}

#[tokio::test]
async fn what_looks_like_a_secret_is_not_pushed_without_a_word() {
    let value = concat!("ghp_", "0123456789abcdefghij0123456789ABCDEF");
    let mut scene = Scene::with(ForgeKind::Github, "dev.env", &format!("TOKEN={value}\n"));
    let Err(PromoteError::Refused(failure)) = scene.stage().await else { panic!("taken") };
    assert_eq!(failure.code, ErrorCode::SecretsFound);
    assert!(failure.message.contains("in dev.env"), "{failure:?}");
    assert!(!format!("{failure:?}").contains(value), "the value is told");
    assert_eq!(scene.host.branch("outpost/fix-1"), None);
    scene.plan.allow_secrets = true;
    scene.pushed().await;
    assert_eq!(scene.host.branch("outpost/fix-1"), Some(scene.result));
}

#[tokio::test]
async fn a_value_that_only_the_run_knew_counts_by_its_mark_in_the_kept_diff() {
    let scene = Scene::with(ForgeKind::Github, "conf.txt", "hunter2!hunter2\n");
    let kept = "diff --git a/conf.txt b/conf.txt\n--- /dev/null\n+++ b/conf.txt\n@@ -0,0 +1 @@\n\
        +[masked:DB_PASSWORD]\n";
    std::fs::write(scene.dir.path().join("kept/diff.patch"), kept).unwrap();
    let Err(PromoteError::Refused(failure)) = scene.stage().await else { panic!("taken") };
    assert_eq!(failure.code, ErrorCode::SecretsFound);
    assert!(failure.message.contains("DB_PASSWORD in conf.txt"), "{failure:?}");
}

#[tokio::test]
async fn a_branch_of_somebody_else_stays_as_it_is() {
    let mut scene = Scene::github();
    let other = scene.host.move_on("other.txt", "x\n");
    git(&scene.host.work(), &["push", "--quiet", "origin", "HEAD:refs/heads/outpost/fix-1"]);
    assert_eq!(code(scene.stage().await), ErrorCode::BranchExists);
    assert_eq!(scene.host.branch("outpost/fix-1"), Some(other.clone()));
    // Also one that appears between the checks and the push.
    scene.plan.branch = "late".into();
    let staged = scene.stage().await.unwrap();
    git(&scene.host.work(), &["push", "--quiet", "origin", &format!("{other}:refs/heads/late")]);
    assert_eq!(code(scene.push(&staged).await), ErrorCode::BranchExists);
    assert_eq!(scene.host.branch("late"), Some(other));
    // And nothing is pushed onto the branch to merge into, or under a name that git refuses.
    scene.plan.branch = "main".into();
    assert_eq!(code(scene.stage().await), ErrorCode::BranchExists);
    scene.plan.branch = "--mirror".into();
    assert_eq!(code(scene.stage().await), ErrorCode::InvalidField);
}

#[tokio::test]
async fn a_branch_of_outposts_own_is_moved_on_and_nothing_of_it_lost() {
    let mut scene = Scene::github();
    let base = scene.plan.base_commit.clone();
    for branch in ["outpost/fix-1", "fix-1"] {
        let spec = format!("{base}:refs/heads/{branch}");
        git(&scene.host.work(), &["push", "--quiet", "origin", &spec]);
    }
    let staged = scene.stage().await.unwrap();
    assert_eq!(staged.checked.expected, Some(base));
    scene.push(&staged).await.unwrap();
    assert_eq!(scene.host.branch("outpost/fix-1"), Some(scene.result.clone()));
    scene.plan.branch = "fix-1".into();
    assert_eq!(code(scene.stage().await), ErrorCode::BranchExists);
}

#[tokio::test]
async fn nothing_to_promote_is_said() {
    let scene = Scene::github();
    let spec = format!("{}:refs/heads/main", scene.result);
    git(&scene.host.work(), &["push", "--quiet", "origin", &spec]);
    assert_eq!(code(scene.stage().await), ErrorCode::NothingToPromote);
    std::fs::write(scene.bundle(), "no bundle").unwrap();
    assert_eq!(code(scene.stage().await), ErrorCode::NothingToPromote);
    std::fs::remove_file(scene.bundle()).unwrap();
    assert_eq!(code(scene.stage().await), ErrorCode::NothingToPromote);
}

#[tokio::test]
async fn what_the_code_host_does_not_have_is_named() {
    let mut scene = Scene::github();
    scene.plan.target = Some("gone".into());
    assert_eq!(code(scene.stage().await), ErrorCode::TargetMissing);
    scene.plan.target = None;
    assert_eq!(scene.stage().await.unwrap().checked.target_branch, "main");
    scene.plan.base_commit = "1".repeat(40);
    assert_eq!(code(scene.stage().await), ErrorCode::TargetMissing);
    scene.plan.repo = scene.plan.repo.replace("hello", "nothing");
    assert_eq!(code(scene.stage().await), ErrorCode::TargetMissing);
}

#[tokio::test]
async fn tokens_that_may_not_are_told_apart() {
    let mut scene = Scene::github();
    let staged = scene.stage().await.unwrap();
    scene.host.fail_with(Fault::RefusePush);
    assert_eq!(code(scene.push(&staged).await), ErrorCode::ForgeForbidden);
    scene.push(&staged).await.unwrap();
    scene.host.fail_with(Fault::Api(403, Vec::new(), "Resource not accessible"));
    assert_eq!(code(scene.open().await), ErrorCode::ForgeForbidden);
    scene.host.fail_with(Fault::Api(404, Vec::new(), "Not Found"));
    assert_eq!(code(scene.open().await), ErrorCode::TargetMissing);
    scene.host.fail_with(Fault::Api(301, vec![("Location", "http://127.0.0.1:1/")], "Moved"));
    assert_eq!(code(scene.open().await), ErrorCode::TargetMissing);
    scene.token = Secret::new("another-token");
    assert_eq!(code(scene.stage().await), ErrorCode::ForgeCredentials);
    assert_eq!(code(scene.open().await), ErrorCode::ForgeCredentials);
    assert!(scene.host.pulls().is_empty());
}

#[tokio::test]
async fn limits_and_failures_of_the_host_are_waited_for() {
    let scene = Scene::github();
    scene.pushed().await;
    for (fault, wanted) in [
        (Fault::Api(429, vec![("Retry-After", "7")], "slow down"), Some(7_000)),
        (Fault::Api(403, vec![("Retry-After", "3")], "secondary rate limit"), Some(3_000)),
        (Fault::Api(403, vec![("X-RateLimit-Remaining", "0")], "limit"), None),
        (Fault::Api(502, Vec::new(), "bad gateway"), None),
    ] {
        scene.host.fail_with(fault);
        assert_eq!(pause(scene.open().await), (ErrorCode::ForgeUnavailable, wanted));
    }
    assert_eq!(scene.open().await.unwrap().0.number, 1);
}

#[tokio::test]
async fn a_pull_request_is_found_on_whatever_page_and_after_a_race() {
    for kind in [ForgeKind::Github, ForgeKind::Gitlab] {
        let scene = Scene::with(kind, "calc.txt", "1\n2\n4\n");
        scene.pushed().await;
        let (made, _) = scene.open().await.unwrap();
        scene.host.add_others(150);
        assert_eq!(scene.open().await.unwrap().0, made, "it is on the second page");
        // Somebody opens it between the look and the wish: refused, and found after all.
        scene.host.add_others(0);
        scene.host.fail_with(Fault::HideOnce);
        assert_eq!(scene.open().await.unwrap().0, made);
        assert_eq!(scene.host.pulls().len(), 1);
    }
}

#[tokio::test]
async fn a_host_without_drafts_gets_an_ordinary_one() {
    let scene = Scene::github();
    scene.pushed().await;
    scene.host.refuse_drafts();
    let (made, note) = scene.open().await.unwrap();
    assert!(made.number == 1 && note.unwrap().contains("no drafts"));
    assert_eq!(scene.host.pulls()[0]["asked"]["draft"], false);
}

#[tokio::test]
async fn a_push_whose_answer_is_lost_has_happened() {
    let scene = Scene::github();
    let (target, bundle) = (scene.target(), scene.bundle());
    let staged = scene.stage().await.unwrap();
    assert!(!scene.promoter.is_pushed(scene.work(&target, &bundle), &scene.result).await.unwrap());
    scene.host.fail_with(Fault::PushAndFallSilent);
    let push = scene.push(&staged);
    // Whoever waits for the answer is gone, as in a crash.
    let gone = tokio::select! {
        pushed = push => panic!("an answer: {pushed:?}"),
        () = wait_for_branch(&scene) => true,
    };
    assert!(
        gone && scene
            .promoter
            .is_pushed(scene.work(&target, &bundle), &scene.result)
            .await
            .unwrap()
    );
    scene.push(&staged).await.unwrap();
}

async fn wait_for_branch(scene: &Scene) {
    while scene.host.branch("outpost/fix-1").is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_local_repository_goes_to_its_origin_and_no_unknown_host_is_asked() {
    let scene = Scene::github();
    let work = scene.host.work();
    git(&work, &["remote", "set-url", "origin", &scene.host.repo()]);
    let found = scene.promoter.locate(work.to_str().unwrap()).await.unwrap();
    assert_eq!(found, scene.target());
    assert_eq!(scene.promoter.locate("octo/hello").await.unwrap(), scene.target());
    git(&work, &["remote", "set-url", "origin", "git@code.example:o/r.git"]);
    let asked = scene.host.asked().len();
    let unknown = scene.promoter.locate(work.to_str().unwrap()).await;
    assert_eq!(code(unknown), ErrorCode::ForgeCredentials);
    git(&work, &["remote", "remove", "origin"]);
    assert_eq!(code(scene.promoter.locate(work.to_str().unwrap()).await), ErrorCode::TargetMissing);
    assert_eq!(scene.host.asked().len(), asked);
}

#[tokio::test]
async fn nothing_of_a_repository_runs_and_the_token_is_in_no_file() {
    let scene =
        Scene::with(ForgeKind::None, ".gitattributes", "* filter=evil diff=evil merge=evil\n");
    let mut scene = scene;
    scene.plan.allow_protected = true;
    let staged = scene.stage().await.unwrap();
    let clone = scene.dir.path().join("promotions/clone");
    assert!(clone.join("HEAD").is_file() && !clone.join("hooks").exists());
    scene.push(&staged).await.unwrap();
    assert!(scene.host.asked().iter().all(|line| !line.contains(TOKEN)));
    for entry in walk(scene.dir.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        let has = bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!has, "the token is in {}", entry.display());
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(walk(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            files.push(entry.path());
        }
    }
    files
}
